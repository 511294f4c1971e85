"""Train shipped weights again, and compare the results with their cards."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from kzoo.catalog import shipped
from kzoo.data.loading import load_data
from kzoo.evaluating.evaluation import evaluate
from kzoo.progress import say
from kzoo.training.loop import train

OTHER_DATA = "The data are not those of the card: the files of the data set differ, or their order."


@dataclass
class Comparison:
    """The result of `reproduce`.

    Attributes:
        name: of the weights.
        run: the folder of the new run.
        rows: (metric, value in the card, value of the new run, number of images) for each part.
        same_data: whether the images were those of the card, byte for byte.
    """

    name: str
    run: str
    rows: list[tuple[str, float, float, int]]
    same_data: bool = True

    @property
    def agrees(self) -> bool:
        """Whether no value differs by more than three standard errors of the difference of two such measurements."""
        return all(abs(a - b) <= 3 * error(a, b, n) for _, a, b, n in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**self.__dict__, "agrees": self.agrees}

    def __str__(self):
        lines = [f"{self.name}, trained again in {self.run}", f"{'':18}{'card':>9}{'now':>9}{'difference':>12}  images"]
        lines += [f"{what:18}{a:9.2%}{b:9.2%}{b - a:+12.2%}  {n:,}" for what, a, b, n in self.rows]
        verdict = "within" if self.agrees else "NOT within"
        lines.append(f"{verdict} three standard errors of the difference")
        if not self.same_data:
            lines.append(OTHER_DATA)
        return "\n".join(lines)


def error(a: float, b: float, n: int) -> float:
    """The standard error of the difference of two proportions, each measured on n images.

    Args:
        a, b: the proportions, in 0..1.
        n: the number of images of each.

    Returns:
        The standard error, from the pooled proportion.

    Example:
        >>> round(error(0.5, 0.5, 100), 4)
        0.0707
    """
    p = (a + b) / 2
    return (2 * max(p * (1 - p), 1e-6) / n) ** 0.5


def reproduce(
    name: str, *, out: str | os.PathLike | None = None, resume: bool = False, quiet: bool = False
) -> Comparison:
    """Train weights that kzoo ships again, with the data, recipe, seed, split and precision of their card.

    Other hardware and versions round differently, so the accuracies are compared within their standard errors. On the
    same machine with the same versions the weights are equal, bit for bit, before the shipped ones were rounded to 16
    bits.

    Args:
        name: of shipped weights, such as "lenet5".
        out: the run folder; runs/NAME-again by default.
        resume: continue the run in `out` after a kill or Ctrl-C.
        quiet: no progress.

    Returns:
        The Comparison.

    Raises:
        UnknownName: no weights with that name are shipped.
        RunError: a run that can't start or continue.
    """
    card = shipped.card(name)
    out = out or f"runs/{name}-again"
    data = load_data(card["data"], seed=card["seed"], val_fraction=card["val_fraction"])
    same = data.fingerprint() == card["fingerprint"]
    if not same:
        say(OTHER_DATA + (f" The card's note on its data: {card['data_note']}" if card["data_note"] else ""))
    run = train(
        card["trained_as"],
        card["data"],
        recipe=card["recipe"],
        seed=card["seed"],
        precision=card["precision"],
        input_shape=card["input_shape"],
        val_fraction=card["val_fraction"],
        out=out,
        resume=resume,
        quiet=quiet,
        **card["options"],
    )
    rows = []
    for part in ("val", "test"):
        known = card[f"{part}_top1"]
        if known is not None:  # None: trained without a validation part
            result: Any = evaluate(run, split=part, quiet=quiet)  # of a classifier
            rows.append((f"{part} top-1", known, result.top1, result.images))
    return Comparison(name, str(run.path), rows, same)
