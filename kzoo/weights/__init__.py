"""Pretrained weights: fetch (download, hash, cache), read (formats), maps (foreign names), assign (strict).

Importing this imports NumPy, not Keras.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kzoo.catalog import ModelSpec, Weights, shipped, spec
from kzoo.catalog.pretrained import RECOGNISED
from kzoo.errors import unknown
from kzoo.weights.assign import Report, assign
from kzoo.weights.fetch import cache_dir, fetch, is_address, matches
from kzoo.weights.maps import MAPS, Names, recognise
from kzoo.weights.read import FORMATS, format_of, names_of, read
from kzoo.weights.stem import check_stem

if TYPE_CHECKING:
    import keras

__all__ = ["MAPS", "Names", "Report", "assign", "cache_dir", "check_stem", "fetch", "load", "read", "resolve"]

log = logging.getLogger("kzoo")


def resolve(model: str | ModelSpec, weights: str | os.PathLike | Weights) -> Weights:
    """Find the weights that build() was asked for.

    A file that kzoo recognises by its hash gets the preprocessing that it was trained with. Another file gets that of
    the library whose names its arrays have (torchvision, timm), with the options that make the architecture compute
    what that library does; a file with other names gets the model's.

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
        return named_by_arrays(row, weights)
    tags = {w.tag: w for w in row.weights}
    if isinstance(weights, str) and weights in tags:
        return named_by_arrays(row, tags[weights])
    if not isinstance(weights, str) or format_of(weights) or "/" in weights:
        known = recognised(row, weights)
        if known:
            return named_by_arrays(row, known)
        return named_by_arrays(row, Weights("file", str(weights), num_classes=row.num_classes))
    has = f"It has: {', '.join(tags)}." if tags else f"None are published for {row.name}."
    raise unknown("weights", weights, tags, f"{has} A path to a file, {', '.join(FORMATS)}, is taken, too.")


def named_by_arrays(row: ModelSpec, weights: Weights) -> Weights:
    """Complete a set by its map or, in a local file, that which the names of the arrays say: preprocessing and options.

    Args:
        row: The model that it is for.
        weights: The set. What it says itself counts.

    Returns:
        The completed set.
    """
    names = weights.names
    if names is None and not weights.file.startswith(shipped.PREFIX) and not is_address(weights.file):
        path = Path(weights.file).expanduser()
        names = recognise(names_of(path)) if path.is_file() else None
    table = MAPS.get(names or "")
    if table is None:
        return weights
    return replace(
        weights,
        names=names,
        preprocessing=weights.preprocessing or table.preprocessing,
        config={**table.config.get(row.architecture, {}), **weights.config},
    )


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
    if not row.hash and (note := preprocessing_note(model, report.names)):
        report = replace(report, notes=(*report.notes, note))
    for note in report.notes:
        log.warning("%s: %s", model.name, note)
    return report


def preprocessing_note(model: keras.Model, names: str | None) -> str | None:
    """Say how a model prepares pictures for weights of unknown hash, where the map of their names brings a way.

    Args:
        model: The model.
        names: The map that fits the file.

    Returns:
        A sentence, None if the map brings none or the model has no preprocessing.
    """
    from kzoo.layers import Preprocess

    table = MAPS.get(names or "")
    layer = next((layer for layer in model.layers if isinstance(layer, Preprocess)), None)
    if table is None or table.preprocessing is None or layer is None:
        return None
    theirs = table.preprocessing
    same = layer.channel_order == theirs.channel_order and all(
        np.allclose(getattr(layer, key), getattr(theirs, key), rtol=1e-6) for key in ("scale", "offset")
    )
    # y = x * scale + offset, as (x / 255 - mean) / deviation
    deviation = 1 / (255 * np.asarray(theirs.scale))
    mean = -np.asarray(theirs.offset) * deviation
    way = f"RGB in 0..1, minus {np.round(mean, 4).tolist()}, divided by {np.round(deviation, 4).tolist()}"
    if not same:
        return (
            f"The names are those of {names}, whose networks take {way}; this model prepares pictures in another way."
        )
    advice = f" {table.advice}" if table.advice else ""
    return f"The names are those of {names}, so pictures are prepared as its networks take them: {way}.{advice}"
