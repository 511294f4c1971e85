"""Pretrained weights: fetch (download, hash, cache), read (formats), maps (foreign names), assign (strict).

Importing this imports NumPy, not Keras.
"""

import logging
from dataclasses import replace
from pathlib import Path

from kzoo.catalog import Weights, spec
from kzoo.catalog.pretrained import RECOGNISED
from kzoo.errors import unknown
from kzoo.weights.assign import Report, assign
from kzoo.weights.fetch import cache_dir, fetch, matches
from kzoo.weights.maps import MAPS, Names
from kzoo.weights.read import FORMATS, read
from kzoo.weights.stem import check_stem

__all__ = ["MAPS", "Names", "Report", "assign", "cache_dir", "check_stem", "fetch", "load", "read", "resolve"]

log = logging.getLogger("kzoo")


def resolve(model, weights):
    """A `kzoo.Weights` from what build() takes: a tag of the model ("imagenet"), a path, or a Weights row.

    model: a name of the catalog or a ModelSpec. Raises UnknownName for a tag that the model does not have.

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


def recognised(row, path):
    """The Weights row of a file that kzoo knows by its hash, which says how to prepare its input; else None."""
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


def load(model, weights, *, new_classifier=None, adapt_input=False, progress=None):
    """Load weights into a built model, strictly: all, or an error and nothing.

    weights: a path or a Weights row. Other arguments and errors as in `kzoo.weights.assign` and `fetch`.
    Returns the Report; what is not simply a copy is logged as well.
    """
    row = weights if isinstance(weights, Weights) else Weights("file", str(weights))
    path = fetch(row, progress=progress)
    report = assign(
        model, read(path), names=row.names, new_classifier=new_classifier, adapt_input=adapt_input, source=str(path)
    )
    for note in report.notes:
        log.warning("%s: %s", model.name, note)
    return report
