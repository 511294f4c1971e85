"""The checkpoint of the deeper layers: one file, so that a kill finds one consistent state."""

from __future__ import annotations

from kzoo import runs
from kzoo.errors import RunError


class StageCheckpoint:
    """What is done, the best network so far, and the state of a stage that is not finished.

    names: of the phases. done: records of the finished ones. winner: {path: array} of what differs from the network
    with its new head, None while that is best. Only variables that ever moved are kept.
    """

    def __init__(self, folder, names, identity):
        self.path, self.names, self.identity = folder / runs.CHECKPOINT, names, identity
        self.done, self.winner, self._stage = [], None, None
        if self.path.exists():
            arrays, state = runs.load_checkpoint(self.path)
            if state.get("identity") != identity:
                raise RunError(f"{self.path} belongs to another network or head; start again with another --out.")

            def part(kind):
                return {k.partition("/")[2]: a for k, a in arrays.items() if k.startswith(f"{kind}/")}

            self.done, self.winner = state["done"], part("winner") or None
            if state["stage"]:
                self._stage = {**state["stage"], **{k: part(k) for k in ("now", "best", "optimizer")}}

    def stage(self, number):
        """The state of an interrupted stage, or None."""
        return self._stage if self._stage and self._stage["number"] == number else None

    def save_stage(self, *, number, now, best, optimizer, rows, epochs, before):
        """Keep the state of a stage after an epoch: its arrays by name, its history, and the audit's hashes."""
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

    def finish_stage(self, record, winner):
        """Keep a finished phase's record and, if it is the best so far, its moving variables."""
        self.done.append(record)
        self.winner = winner if winner is not None else self.winner
        self._stage = None
        self._write()

    def _write(self):
        arrays = {f"winner/{k}": a for k, a in (self.winner or {}).items()}
        state = None
        if self._stage:
            for kind in ("now", "best", "optimizer"):
                arrays.update((f"{kind}/{k}", a) for k, a in self._stage[kind].items())
            state = {k: self._stage[k] for k in ("number", "rows", "epochs", "before")}
        runs.save_checkpoint(self.path, arrays, {"identity": self.identity, "done": self.done, "stage": state})
