"""Rank pretrained networks for photos by a cross-validated linear probe on their features."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kzoo.data.dataset import report_skipped
from kzoo.data.guards import check_channels
from kzoo.data.loading import load_data
from kzoo.errors import DataError, RunError
from kzoo.finetuning.backbone import FeatureExtractor, backbone, download_advice, found_locally
from kzoo.finetuning.features import features, hashes_of
from kzoo.finetuning.heads import fit_head
from kzoo.metrics import wilson
from kzoo.progress import progress, say


@dataclass
class Scouting:
    """What `scout` found.

    Attributes:
        data: the source of the photos.
        images: number of training photos.
        rows: a dict for each network, the most accurate first: model, weights (the file), accuracy (cross-validated),
            low and high (its 95 % interval), loss (mean log loss), head (its kind), strength, features (their number),
            computed (photos that passed through the network; the others were cached), tested (number of different
            photos), seconds (for features and probe).
    """

    data: str
    images: int
    rows: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict that JSON takes."""
        return dict(self.__dict__)

    def __str__(self):
        width = max(len(r["model"]) for r in self.rows)
        most = max(r["tested"] for r in self.rows)
        tested = f"{most:,} of " if most < self.images else ""
        lines = [
            f"{self.data}: cross-validated on {tested}{self.images:,} training photos",
            f"{'model':{width}}  accuracy  95 % interval     log loss  features  seconds",
        ]
        lines += [
            f"{r['model']:{width}}  {r['accuracy']:8.2%}  {r['low']:.2%} to {r['high']:.2%}  {r['loss']:8.4f}  "
            f"{r['features']:8,}  {r['seconds']:7.2f}"
            for r in self.rows
        ]
        return "\n".join(lines)


def scout(
    photos: str | os.PathLike,
    models: Sequence[str] | None = None,
    *,
    seed: int = 0,
    precision: str | None = None,
    quiet: bool = False,
) -> Scouting:
    """Rank networks by the cross-validated accuracy of a linear classifier on their features of the training photos.

    Args:
        photos: what `kzoo.load_data` takes. Only its training part is used.
        models: names; by default all whose weights are found locally, without a download.
        seed: of the folds.
        precision: "float32", "bfloat16", "float16", or None and "auto" for what this machine is fast in.
        quiet: no progress.

    Returns:
        A Scouting.

    Raises:
        DataError: the photos can't be used, or a class has too few of them.
        RunError: a model's weights are not found locally, or none are.

    Example:
        >>> scout("photos", ["no_such_model"])
        Traceback (most recent call last):
            ...
        kzoo.errors.DataError: There is no data set 'photos'...
    """
    data = load_data(photos, seed=seed, val_fraction=0.0, test_fraction=0.0)
    split = data.splits["train"]
    names = list(dict.fromkeys(row.name for row, _, _ in found_locally())) if models is None else list(models)
    bases = []
    for name in names:  # wrong names and missing weights are found before the work
        try:
            bases.append(backbone(name, precision=precision))
        except RunError as e:
            if models is not None:
                raise
            say(f"Left out {name}: {e}")  # its file is corrupt
    if not bases:
        raise RunError(f"No pretrained weights were found locally. {download_advice()}")
    if isinstance(split.images, np.ndarray):
        for base in bases:
            check_channels(split.images.shape[-1], base.input_shape[2])
    hashes, _ = hashes_of(split.images)
    rows = []
    with progress(quiet=quiet) as bar:
        for base in bases:
            start = time.monotonic()
            bar.start(base.name, len(split))
            got = features(split.images, base.cache(), FeatureExtractor(base), hashes=hashes, advance=bar.advance)
            if got.skipped and not rows and not quiet:
                say(f"Left out {report_skipped([(split.ids[i], reason) for i, reason in got.skipped])}.")
            y = split.labels[got.kept]
            if len(np.unique(y)) < len(data.classes):
                raise DataError(f"'{photos}' has a class without a usable photo.")
            # Identical photos stay in one fold. Near duplicates are only found by finetune's check of the data.
            _, groups = np.unique([hashes[i] for i in got.kept], return_inverse=True)
            head = fit_head(got.features, y, len(data.classes), groups=groups, seed=seed)
            if head.folded is None or head.tested is None:
                raise DataError(f"'{photos}' has one photo of each class: cross-validation needs two.")
            right = int((head.folded.argmax(1) == y[head.tested]).sum())
            low, high = wilson(right, len(head.tested))
            rows.append(
                {
                    "model": base.name,
                    "weights": str(base.path),
                    "accuracy": right / len(head.tested),
                    "low": low,
                    "high": high,
                    "loss": head.table[0]["loss"],
                    "head": head.kind,
                    "strength": head.strength,
                    "features": int(got.features.shape[1]),
                    "computed": got.computed,
                    "tested": len(np.unique(head.tested)),
                    "seconds": round(time.monotonic() - start, 3),
                }
            )
            bar.done(f"{base.name}: {rows[-1]['accuracy']:.2%}")
    return Scouting(os.fspath(photos), len(split), sorted(rows, key=lambda r: (-r["accuracy"], r["loss"])))
