"""Whether deeper layers improve a network: judged on the validation images. No Keras in here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kzoo.tasks import Task

MIN_Z = 2.0  # standard errors by which the log loss must fall
MIN_VAL_IMAGES = 10  # with fewer an improvement can't be told from chance


@dataclass(frozen=True)
class Judged:
    """How good a network is on the validation images: what `kzoo.tasks.Task.judge` gives.

    Attributes:
        losses: of each image, (N,); lower is better.
        score: of all, higher is better.
    """

    losses: np.ndarray
    score: float


def compare(best: Judged | None, judged: Judged, task: Task) -> tuple[bool, str]:
    """Decide whether a phase improves on the best so far: clearly lower losses and no lower score.

    Args:
        best: of the best network so far; None for one that is replaced in any case.
        judged: of the phase.
        task: gives the words.

    Returns:
        (whether it improves, the reason in words).
    """
    what, score, _ = task.judged_by
    n = len(judged.losses)
    if best is None:
        return True, f"{what} {judged.losses.mean():.4f}, {score} {judged.score:.2%} on {n:,} validation images"
    difference = best.losses - judged.losses
    gain = difference.mean()
    needed = needed_gain(difference)
    improves = bool(gain > needed and judged.score >= best.score)
    text = (
        f"{'kept' if improves else 'not kept'}: {what} {best.losses.mean():.4f} to {judged.losses.mean():.4f}, {score} "
        f"{best.score:.2%} to {judged.score:.2%} on {n:,} validation images"
    )
    if not improves and gain > 0:
        within = f"within two standard errors ({needed:.4f})"
        few = f"fewer than {MIN_VAL_IMAGES} images can't tell an improvement from chance"
        chance = within if n >= MIN_VAL_IMAGES else few
        text += f"; {chance}" if gain <= needed else f"; the {score} falls"
    return improves, text


def needed_gain(difference: np.ndarray) -> float:
    """Return what the mean of differences (N,) must exceed: MIN_Z standard errors; infinity for a few images."""
    n = len(difference)
    return float(MIN_Z * difference.std(ddof=1) / np.sqrt(n)) if n >= MIN_VAL_IMAGES else np.inf


def no_room(losses: np.ndarray) -> str:
    """Say why no deeper layer could improve on these losses (N,) clearly enough to be kept; "" if one might.

    A network without any loss would gain all of them. If a few images hold nearly all of the loss, even that gain is
    within the standard errors that `compare` asks for, and training can be spared.

    Example:
        >>> no_room(np.array([3.0] + [0.0] * 48))
        'deeper layers could not improve it measurably: all of its log loss, 0.0612, is within two standard errors ...'
    """
    n = len(losses)
    if n < MIN_VAL_IMAGES:
        return f"{n} validation photos, fewer than {MIN_VAL_IMAGES}, can't tell an improvement from chance"
    needed = needed_gain(losses)
    if losses.mean() > needed:
        return ""
    return (
        f"deeper layers could not improve it measurably: all of its log loss, {losses.mean():.4f}, is within two "
        f"standard errors ({needed:.4f}) on {n:,} validation photos"
    )
