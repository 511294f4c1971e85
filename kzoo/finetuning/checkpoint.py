"""The checkpoint of the deeper layers: one file, so that a kill finds one consistent state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kzoo import runs
from kzoo.errors import RunError


class StageCheckpoint:
    """The finished stages, the best network so far, and the state of an unfinished stage, in one file.

    Only variables that trained are kept.

    Args:
        folder: of the run.
        names: of the stages.
        identity: a text that is equal only for the same head and stages.

    Raises:
        RunError: the file is of another network or head, or corrupt.

    Attributes:
        done: records of the finished stages.
        winner: {path: array} of the best network's variables; None while that is the backbone with its new head.
    """

    def __init__(self, folder: Path, names: Sequence[str], identity: str):
        self.path, self.names, self.identity = folder / runs.CHECKPOINT, names, identity
        self.done, self.winner, self._stage = [], None, None
        self._writer = runs.CheckpointWriter()
        if self.path.exists():
            arrays, state = runs.load_checkpoint(self.path)
            if state.get("identity") != identity:
                raise RunError(f"{self.path} belongs to another network or head; start again with another --out.")

            def part(kind):
                return {k.partition("/")[2]: a for k, a in arrays.items() if k.startswith(f"{kind}/")}

            self.done, self.winner = state["done"], part("winner") or None
            if state["stage"]:
                self._stage = {**state["stage"], **{k: part(k) for k in ("now", "best", "optimizer")}}

    def stage(self, number: int) -> dict[str, Any] | None:
        """Return the state of an interrupted stage; None if there is none."""
        return self._stage if self._stage and self._stage["number"] == number else None

    def save_stage(self, *, number, now, best, optimizer, rows, epochs, before):
        """Write the state of a stage after an epoch, in a thread: `close` waits for it.

        Args:
            number: of the stage, from 0.
            now, best: {path: array} of the variables after this epoch and after the best one.
            optimizer: {number as text: array} of the optimizer's variables.
            rows: of the history so far.
            epochs: of the stage in all.
            before: the audit's hashes before the stage.
        """
        self._stage = {
            "number": number,
            "rows": rows,
            "epochs": epochs,
            "before": before,
            "now": now,
            "best": best,
            "optimizer": optimizer,
        }
        self._write()

    def finish_stage(self, record: dict[str, Any], winner: dict[str, np.ndarray] | None) -> None:
        """Write a finished stage.

        Args:
            record: of the stage.
            winner: {path: array} of its variables if it is the best so far, else None.
        """
        self.done.append(record)
        self.winner = winner if winner is not None else self.winner
        self._stage = None
        self._write()
        self.close()

    def close(self) -> None:
        """Wait until the file is written.

        Raises:
            KzooError: It could not be.
        """
        self._writer.wait()

    def _write(self):
        arrays = {f"winner/{k}": a for k, a in (self.winner or {}).items()}
        state = None
        if self._stage:
            for kind in ("now", "best", "optimizer"):
                arrays.update((f"{kind}/{k}", a) for k, a in self._stage[kind].items())
            state = {k: self._stage[k] for k in ("number", "rows", "epochs", "before")}
        whole = {
            "identity": self.identity,
            "done": list(self.done),
            "stage": state and {**state, "rows": [*state["rows"]]},
        }
        self._writer.write(self.path, arrays, whole)
