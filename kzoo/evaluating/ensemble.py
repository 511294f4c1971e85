"""An ensemble of classifiers beside its members, on the same images: accuracy, log loss, calibration, and the gain."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kzoo.data.guards import shown
from kzoo.metrics import (
    bootstrap_interval,
    log_losses,
    log_mean_softmax,
    mcnemar,
    paired_difference,
    softmax,
    top_k_hits,
    weighted_calibration_error,
)
from kzoo.tasks import Evaluation, Task

MAX_NAME = 34  # of a member, in a table of 80 columns


@dataclass
class EnsembleEvaluation(Evaluation):
    """An ensemble and its members on the same images.

    Attributes:
        top1: the accuracy of the averaged probabilities, in 0..1.
        average: the task's Evaluation of the averaged probabilities, with the confusion matrix and the rest.
        ece: the expected calibration error of the averaged probabilities.
        members: a dict for each member: "run", "temperature", "top1", "loss" (log loss, in nats) and "ece", after its
            temperature.
        gains: a dict each for "top1", "loss" and "ece": the best "member" by this figure, the "change" from it to the
            ensemble (above 0 is better for top1, below 0 for the others), and its 95 % "interval", paired by image.
            That of top1 also has "gained" and "lost", the images that only the ensemble or only the member is right
            on, and McNemar's exact "p". "loss" and "ece" are None where an output is not finite.
    """

    top1: float
    average: Evaluation
    ece: float
    members: list[dict[str, Any]] = field(repr=False)
    gains: dict[str, dict[str, Any] | None] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**self.average.to_dict(), "ece": self.ece, "members": self.members, "gains": self.gains}

    def __str__(self):
        short = _short([row["run"] for row in self.members])
        names = [*short.values(), "ensemble"]
        rows = [*self.members, {"run": "ensemble", "top1": self.top1, "loss": self.loss, "ece": self.ece}]
        width = max(len("member"), *map(len, names))
        lines = [str(self.average), "", f"{'member':{width}}  temperature    top-1  log loss     ECE"]
        for name, row in zip(names, rows, strict=True):
            t = f"{row['temperature']:.3g}" if "temperature" in row else ""
            lines.append(f"{name:{width}}  {t:>11}  {row['top1']:7.2%}  {row['loss']:8.4f}  {row['ece']:6.4f}")
        lines += ["", "The ensemble against the best member by each figure [95 %, paired]"]
        top1 = self.gains["top1"]
        low, high = top1["interval"]
        lines += [
            f"top-1     {100 * top1['change']:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}] points from "
            f"{short[top1['member']]}; p = {top1['p']:.2g}",
            f"          {top1['gained']:,} images right that it has wrong, {top1['lost']:,} wrong that it has right",
        ]
        for name, key in (("log loss", "loss"), ("ECE", "ece")):
            if gain := self.gains[key]:
                low, high = gain["interval"]
                lines.append(f"{name:8}  {gain['change']:+.4f} [{low:+.4f}, {high:+.4f}] from {short[gain['member']]}")
        return "\n".join(lines)


def _short(paths):
    """{path: what it is called in a table}: without the folder that all are in, where the table would be too wide."""
    if max(map(len, paths)) <= MAX_NAME or len({os.path.isabs(path) for path in paths}) > 1:
        return {path: shown(path) for path in paths}
    above = os.path.commonpath(paths)
    return {path: shown(os.path.relpath(path, above)) for path in paths}


def measure_ensemble(
    task: Task,
    classes: Sequence[str],
    names: Sequence[str],
    logits: Sequence[np.ndarray],
    temperatures: Sequence[float],
    labels: np.ndarray,
    **about: str,
) -> EnsembleEvaluation:
    """Average the probabilities of the members and compare the average with them.

    The best member is selected on the same images, which favours it: on new images the gain over the member that was
    selected is, on average, larger.

    Args:
        task: of the members, one with probabilities of classes.
        classes: names, by number.
        names: of the M members.
        logits: of each member, (N, C).
        temperatures: of each member.
        labels: int (N,).
        about: data and split, for the Evaluation.

    Returns:
        The EnsembleEvaluation.
    """
    scaled = [np.asarray(z, "float64") / t for z, t in zip(logits, temperatures, strict=True)]
    scaled.append(log_mean_softmax(logits, temperatures))
    finite = np.all([np.isfinite(z).all() for z in scaled])
    hits = [top_k_hits(z, labels) for z in scaled]
    top1, n, count = np.mean(hits, 1), len(labels), len(names)
    loss, ece = np.full(count + 1, np.nan), np.full(count + 1, np.nan)

    best = int(top1[:count].argmax())
    gained, lost = int((hits[-1] & ~hits[best]).sum()), int((hits[best] & ~hits[-1]).sum())
    gains: dict[str, dict[str, Any] | None] = {
        "top1": {
            "member": names[best],
            "change": (gained - lost) / n,
            "interval": list(paired_difference(gained, lost, n)),
            "gained": gained,
            "lost": lost,
            "p": mcnemar(gained, lost),
        },
        "loss": None,
        "ece": None,
    }
    if finite:
        losses = np.stack([log_losses(z, labels) for z in scaled])
        loss = losses.mean(1)
        best = int(loss[:count].argmin())
        change = losses[-1] - losses[best]
        gains["loss"] = {
            "member": names[best],
            "change": float(change.mean()),
            "interval": list(bootstrap_interval(lambda counts: float(counts @ change) / n, n)),
        }
        errors = [weighted_calibration_error(softmax(z), labels) for z in scaled]
        ece = np.array([error(np.ones(n)) for error in errors])
        best = int(ece[:count].argmin())
        ours, theirs = errors[-1], errors[best]
        gains["ece"] = {
            "member": names[best],
            "change": float(ece[-1] - ece[best]),
            "interval": list(bootstrap_interval(lambda counts: ours(counts) - theirs(counts), n)),
        }
    members = [
        {"run": name, "temperature": t, "top1": float(top1[i]), "loss": float(loss[i]), "ece": float(ece[i])}
        for i, (name, t) in enumerate(zip(names, temperatures, strict=True))
    ]
    about["run"] = " + ".join(names)
    average = task.evaluate(scaled[-1], labels, classes, **about)
    return EnsembleEvaluation(
        **about,
        classes=tuple(classes),
        images=n,
        loss=average.loss,
        top1=float(top1[-1]),
        average=average,
        ece=float(ece[-1]),
        members=members,
        gains=gains,
    )
