"""The loop around an optimiser: counted, timed, within a number of evaluations or until a time, stopped by Ctrl-C."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kzoo.errors import KzooError
from kzoo.interrupt import Interrupted
from kzoo.progress import Silent
from kzoo.runs import differences, load_checkpoint, save_checkpoint
from kzoo.synthesis.optimise import Evaluate


class StepAborted(Exception):
    """Within a step: Ctrl-C, or no time for one more evaluation. The optimiser is as it was before the step."""


def never() -> bool:
    """Not interrupted."""
    return False


class Descent:
    """Steps of one optimiser, counted and timed.

    Args:
        optimiser: see `kzoo.synthesis.optimise`.
        objective: x to (loss, parts, gradient).
        evaluations: after how many of loss and gradient it is over; None: when the time is.
        until: when it is over, on the clock of time.monotonic; None: when the evaluations are made. May be set later.
        interrupted: asked before each evaluation; whether to stop.
        used: evaluations that an earlier process made.

    Attributes:
        used: evaluations so far.
        cost: seconds of the last one.
    """

    def __init__(
        self,
        optimiser: Any,
        objective: Evaluate,
        *,
        evaluations: int | None = None,
        until: float | None = None,
        interrupted: Callable[[], bool] = never,
        used: int = 0,
    ):
        self.optimiser, self.objective, self.evaluations, self.until = optimiser, objective, evaluations, until
        self.interrupted, self.used, self.cost, self.breakable = interrupted, used, 0.0, False

    def evaluate(self, x: np.ndarray) -> tuple[float, dict[str, float], np.ndarray]:
        """The objective, counted and timed.

        Raises:
            StepAborted: after Ctrl-C, when one more evaluation would end too late, or when all are made.
        """
        if self.breakable and (self.interrupted() or self.is_over()):
            raise StepAborted
        start = time.monotonic()
        result = self.objective(x)
        self.used, self.cost = self.used + 1, time.monotonic() - start
        return result

    def step(self) -> bool:
        """Make one step; what the optimiser's own `step` gives.

        Raises:
            StepAborted: as `evaluate`; `used` is then what it was before the step, unless all evaluations are made.
        """
        before = self.used
        # A line search may take 20 evaluations. The first step is always made in full: a state needs its loss.
        self.breakable = self.optimiser.loss is not None
        try:
            return self.optimiser.step(self.evaluate)
        except StepAborted:
            if not self.is_done():
                self.used = before
            raise

    def is_late(self) -> bool:
        """Whether one more evaluation would end after `until`."""
        return self.until is not None and time.monotonic() + self.cost > self.until

    def is_done(self) -> bool:
        """Whether the evaluations are made."""
        return self.evaluations is not None and self.used >= self.evaluations

    def is_over(self) -> bool:
        """Whether the evaluations are made, or the time is over."""
        return self.is_late() or self.is_done()


class Saved:
    """A file that holds an optimisation that was stopped, so that the same call continues it, to the same bits.

    Args:
        path: the file; None: nothing is kept.
        record: what must be the same for a continuation, JSON-able.
    """

    def __init__(self, path: str | os.PathLike | None, record: dict):
        self.path, self.record = None if path is None else Path(path), record

    def load(self) -> tuple[dict[str, np.ndarray], dict] | None:
        """(arrays, more) of what was saved; None if nothing was.

        Raises:
            KzooError: the file is that of another optimisation.
        """
        if self.path is None or not self.path.is_file():
            return None
        arrays, state = load_checkpoint(self.path)
        wrong = differences(self.record, state, tuple(self.record))
        if wrong:
            raise KzooError(
                f"{self.path} is the state of another picture: {'; '.join(wrong)}. Delete it to start anew."
            )
        return arrays, state["more"]

    def save(self, arrays: dict[str, np.ndarray], more: dict) -> None:
        """Write the file."""
        if self.path is not None:
            save_checkpoint(self.path, arrays, {**self.record, "more": more})

    def remove(self) -> None:
        """Delete the file: the picture is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def kept(self) -> str:
        """What is kept after Ctrl-C, for a message."""
        return "nothing of this picture is kept" if self.path is None else f"{self.path} continues it"


def descend(
    descent: Descent,
    curve: list[dict[str, float]],
    *,
    bar: Silent | None = None,
    saved: Saved | None = None,
    more: Callable[[], dict[str, Any]] = dict,
) -> bool:
    """Make steps until the descent is over or no step lowers the loss.

    Args:
        descent: the optimiser and its limits.
        curve: gets a row {"loss", parts...} for each step.
        bar: shows progress; it was started.
        saved: where the optimiser's state goes after Ctrl-C, with `used` and the curve.
        more: gives what else is saved.

    Returns:
        Whether the evaluations are made or no step lowers the loss any more; False where the time ended it.

    Raises:
        Interrupted: after Ctrl-C.
        KzooError: a loss that is not finite.
    """
    optimiser, bar, saved = descent.optimiser, bar or Silent(), saved or Saved(None, {})
    while not descent.is_over():
        before = descent.used
        try:
            moved = descent.step()
        except StepAborted:
            if not descent.interrupted():
                break
            saved.save(optimiser.state(), {**more(), "used": descent.used, "curve": curve})
            raise Interrupted(saved.kept()) from None
        if not math.isfinite(optimiser.loss):
            raise KzooError(f"The loss became {optimiser.loss}: choose another layer, or float32.")
        curve.append({"loss": optimiser.loss, **optimiser.parts})
        bar.advance(descent.used - before, loss=optimiser.loss)
        if not moved:
            return True
    return descent.is_done()
