"""Pretrained weights: fetch (download, hash, cache), read (formats), maps (foreign names), assign (strict).

Importing this imports NumPy, not Keras.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kzoo.catalog import ModelSpec, Weights, spec
from kzoo.catalog.pretrained import RECOGNISED
from kzoo.errors import unknown
from kzoo.weights.assign import Report, assign
from kzoo.weights.fetch import cache_dir, fetch, matches
from kzoo.weights.maps import MAPS, Names
from kzoo.weights.read import FORMATS, read
from kzoo.weights.stem import check_stem

if TYPE_CHECKING:
    import keras

__all__ = ["MAPS", "Names", "Report", "assign", "cache_dir", "check_stem", "fetch", "load", "read", "resolve"]

log = logging.getLogger("kzoo")


def resolve(model: str | ModelSpec, weights: str | Path | Weights) -> Weights:
    """Find the weights that build() was asked for.

    A file that kzoo recognises by its hash gets the preprocessing that it was trained with; another file the model's.

    Args:
        model: A name of the catalog or a ModelSpec.
        weights: A tag of the model ("imagenet"), a path to a file, or a `kzoo.Weights`.

    Returns:
        A `kzoo.Weights`.

    Raises:
        UnknownName: The model has no such tag.

    Example:
        >>> resolve("vgg16", "my/run.weights.h5").file
        'my/run.weights.h5'
    """
    row = spec(model)
    if isinstance(weights, Weights):
        return weights
    tags = {w.tag: w for w in row.weights}
    if isinstance(weights, str) and weights in tags:
        return tags[weights]
    if isinstance(weights, Path) or Path(weights).suffix.lower() in FORMATS or "/" in weights:
        known = recognised(row, weights)
        if known:
            return known
        # The file's own preprocessing is not known; the model's is the best guess.
        return Weights("file", str(weights), num_classes=row.num_classes)
    has = f"It has: {', '.join(tags)}." if tags else f"None are published for {row.name}."
    raise unknown("weights", weights, tags, f"{has} A path to a file, {', '.join(FORMATS)}, is taken, too.")


def recognised(row: ModelSpec, path: str | os.PathLike) -> Weights | None:
    """Recognise a file by its hash.

    Args:
        row: The model that it is for.
        path: The file.

    Returns:
        The `kzoo.Weights` of that file, which says how to prepare its input; None if it is missing or unknown.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        return None
    size = path.stat().st_size
    for weights in (*(w for w, _ in RECOGNISED.get(row.name, ())), *row.weights):
        # Published sizes are rounded.
        near = weights.size and abs(size - weights.size) <= 0.05 * weights.size + (1 << 20)
        if near and weights.hash and matches(path, weights.hash):
            return replace(weights, file=str(path))
    return None


def load(
    model: keras.Model,
    weights: str | os.PathLike | Weights,
    *,
    new_classifier: bool | str | None = None,
    adapt_input: bool = False,
    progress: bool | None = None,
) -> Report:
    """Load weights into a built model, strictly: all of them, or an error and no change.

    Args:
        model: As `kzoo.build` makes it.
        weights: A path or a `kzoo.Weights`.
        new_classifier: As in `kzoo.weights.assign`.
        adapt_input: As in `kzoo.weights.assign`.
        progress: As in `kzoo.weights.fetch`.

    Returns:
        A Report; everything in it that is not simply a copy is logged as well.

    Raises:
        WeightsError: The file can't be had or read, or does not fit.
    """
    row = weights if isinstance(weights, Weights) else Weights("file", str(weights))
    path = fetch(row, progress=progress)
    report = assign(
        model, read(path), names=row.names, new_classifier=new_classifier, adapt_input=adapt_input, source=str(path)
    )
    for note in report.notes:
        log.warning("%s: %s", model.name, note)
    return report
