"""Train shipped weights again, from start to card, and compare."""

from __future__ import annotations

from dataclasses import dataclass

from kzoo.catalog import shipped
from kzoo.data.loading import load_data
from kzoo.evaluating.evaluation import evaluate
from kzoo.progress import say
from kzoo.training.loop import train

OTHER_DATA = "The data are not those of the card: other files of the set, or in another order."


@dataclass
class Comparison:
    """What came of `reproduce`. rows: (what, the card's share, this run's share, images it was measured on).

    same_data: whether the images were those of the card, byte for byte.
    """

    name: str
    run: str
    rows: list[tuple[str, float, float, int]]
    same_data: bool = True

    @property
    def agrees(self):
        """Whether no share differs by more than three standard errors of the difference of two such measurements."""
        return all(abs(a - b) <= 3 * error(a, b, n) for _, a, b, n in self.rows)

    def to_dict(self):
        return {**self.__dict__, "agrees": self.agrees}

    def __str__(self):
        lines = [f"{self.name}, trained again in {self.run}", f"{'':18}{'card':>9}{'now':>9}{'difference':>12}  images"]
        lines += [f"{what:18}{a:9.2%}{b:9.2%}{b - a:+12.2%}  {n:,}" for what, a, b, n in self.rows]
        verdict = "within" if self.agrees else "NOT within"
        lines.append(f"{verdict} three standard errors of the difference")
        if not self.same_data:
            lines.append(OTHER_DATA)
        return "\n".join(lines)


def error(a, b, n):
    """The standard error of the difference of two shares, each counted on n images.

    >>> round(error(0.5, 0.5, 100), 4)
    0.0707
    """
    p = (a + b) / 2
    return (2 * max(p * (1 - p), 1e-6) / n) ** 0.5


def reproduce(name, *, out=None, resume=False, quiet=False):
    """Train the weights that kzoo ships under `name` again: data, recipe, seed, shares and precision of their card.

    out: the run folder; runs/NAME-again by default. resume: continue it after a kill or Ctrl-C.
    Other hardware and versions round differently, so the result is compared and not expected to be equal; on the same
    machine with the same versions the weights are, bit for bit, before the card's were rounded to 16 bits. Returns a
    Comparison.
    """
    card = shipped.card(name)
    out = out or f"runs/{name}-again"
    data = load_data(card["data"], seed=card["seed"], val_fraction=card["val_fraction"])
    same = data.fingerprint() == card["fingerprint"]
    if not same:
        say(OTHER_DATA + (f" The card on its own: {card['data_note']}" if card["data_note"] else ""))
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
        if known is not None:  # trained without a validation part
            result = evaluate(run, split=part, quiet=quiet)
            rows.append((f"{part} top-1", known, result.top1, result.images))
    return Comparison(name, str(run.path), rows, same)
