"""Train the stylenet that kzoo carries again, and compare its objective on held-out photographs with its card."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from kzoo import runs
from kzoo.catalog import shipped
from kzoo.data.drawn import painting
from kzoo.errors import KzooError, unknown
from kzoo.progress import say
from kzoo.style.settings import StylenetOptions
from kzoo.style.stylenet import METRICS, train_stylenet

TOLERANCE = 0.15  # of the objective: in 16 bits two machines soon take other ways to a result as good


@dataclass
class PainterComparison:
    """The result of `reproduce_stylenet`.

    Attributes:
        name: of the stylenet.
        run: the folder of the new one.
        rows: (style, objective on held-out pictures in the card, that of the new one).
        same_data: whether the photographs have the names of the card's.
    """

    name: str
    run: str
    rows: list[tuple[str, float, float]]
    same_data: bool = True

    @property
    def agrees(self) -> bool:
        """Whether no objective is larger than the card's by more than `TOLERANCE`."""
        return all(now <= (1 + TOLERANCE) * known for _, known, now in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**self.__dict__, "agrees": self.agrees}

    def __str__(self):
        lines = [f"{self.name}, trained again in {self.run}; objective on held-out photographs"]
        lines += [f"{'':12}{'card':>9}{'now':>9}"] + [f"{s:12}{a:9.3f}{b:9.3f}" for s, a, b in self.rows]
        lines.append(f"{'as good' if self.agrees else 'WORSE'}, to {TOLERANCE:.0%}")
        if not self.same_data:
            lines.append("The photographs are not those of the card.")
        return "\n".join(lines)


def reproduce_stylenet(
    name: str,
    images: str | os.PathLike | None,
    weights: str | os.PathLike = "imagenet",
    *,
    out: str | os.PathLike | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> PainterComparison:
    """Train a stylenet that kzoo carries again, with the drawings, options and seed of its card.

    Args:
        name: of the stylenet: "painter".
        images: the folder of the photographs that the card names. They are not in the package.
        weights: of the loss network: a tag or a file; the card says which it was.
        out: the folder; stylenets/NAME-again by default.
        resume: continue the training in `out`.
        quiet: no progress.

    Returns:
        The PainterComparison.

    Raises:
        UnknownName: kzoo carries no such stylenet.
        KzooError: no photographs.
    """
    cards = shipped.stylenets()
    if name not in cards:
        raise unknown("stylenet", name, cards, f"kzoo carries {', '.join(cards) or 'none'}.")
    card = cards[name]
    if images is None:
        raise KzooError(
            f"{name} was trained on {card['images']}, which kzoo does not carry: give their folder by --data."
        )
    options = {k: v for k, v in card["options"].items() if k in {f.name for f in fields(StylenetOptions)}}
    out = Path(out or f"stylenets/{name}-again")
    with tempfile.TemporaryDirectory(prefix="kzoo-") as folder:
        files = [Path(folder) / f"{style}.png" for style in card["styles"]]
        for file in files:
            painting(file.stem, side=card["drawn"]["side"], seed=card["drawn"]["seed"]).save(file)
        train_stylenet(files, images, out=out, resume=resume, quiet=quiet, **{**options, "weights": weights})
    config, measured = runs.read_json(out / runs.CONFIG), runs.read_json(out / METRICS)["styles"]
    rows = [(s, card["metrics"][s]["loss"], measured[s]["loss"]) for s in card["styles"] if s in measured]
    same = config["images_sha256"] == card["images_sha256"]
    if not same and not quiet:
        say(f"The photographs are not those of the card ({card['images']}).")
    return PainterComparison(name, str(out), rows, same)
