"""Rank pretrained networks for photos by a cross-validated linear probe on their features.

The photos are divided as `kzoo.finetune` with the same seed divides them, by the same function, and its test part is
left out: a network that was chosen on photos is not measured on them afterwards.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kzoo.data.dataset import DataSet, report_skipped
from kzoo.data.guards import check_channels, shown
from kzoo.data.loading import load_data
from kzoo.errors import DataError, RunError
from kzoo.finetuning.backbone import FeatureExtractor, backbone, download_advice, found_locally
from kzoo.finetuning.features import features
from kzoo.finetuning.heads import fit_head
from kzoo.finetuning.options import FinetuneOptions
from kzoo.finetuning.parts import make_parts
from kzoo.metrics import wilson
from kzoo.progress import progress, say
from kzoo.tasks import find


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
        seed: of the division and the folds.
        held_out: {part: number of photos} that were not looked at: "test", on which `kzoo.finetune` with the same seed
            measures, and a validation part of the source's own.
        test_from: whose the test part is: "your test", "your val", or "drawn by kzoo".
    """

    data: str
    images: int
    rows: list[dict[str, Any]]
    seed: int = 0
    held_out: dict[str, int] = field(default_factory=dict)
    test_from: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict that JSON takes."""
        return dict(self.__dict__)

    def __repr__(self) -> str:
        best = self.rows[0]
        return (
            f"<Scouting of {shown(self.data)}: best of {len(self.rows)} is {best['model']}, "
            f"{best['accuracy']:.2%} [{best['low']:.2%}, {best['high']:.2%}]>"
        )

    def __str__(self):
        width = max(len(r["model"]) for r in self.rows)
        most = max(r["tested"] for r in self.rows)
        tested = f"{most:,} of " if most < self.images else ""
        lines = [
            f"{self.data}: cross-validated on {tested}{self.images:,} training photos{self._left_out()}",
            f"{'model':{width}}  accuracy  95 % interval     log loss  features  seconds",
        ]
        lines += [
            f"{r['model']:{width}}  {r['accuracy']:8.2%}  {r['low']:.2%} to {r['high']:.2%}  {r['loss']:8.4f}  "
            f"{r['features']:8,}  {r['seconds']:7.2f}"
            for r in self.rows
        ]
        return "\n".join(lines)

    def _left_out(self):
        parts = []
        if "test" in self.held_out:
            drawn = f" and seed {self.seed}" if self.test_from.startswith("drawn") else ""
            parts.append(f"{self.held_out['test']:,} of the test part ({self.test_from}; as kzoo finetune{drawn})")
        if "val" in self.held_out:
            parts.append(f"{self.held_out['val']:,} of your val")
        return f"; left out: {', '.join(parts)}" if parts else ""


def scout(
    photos: str | os.PathLike | DataSet,
    models: Sequence[str] | None = None,
    *,
    seed: int = 0,
    precision: str | None = None,
    quiet: bool = False,
) -> Scouting:
    """Rank networks by the cross-validated accuracy of a linear classifier on their features of the training photos.

    These are the photos that `kzoo.finetune` with the same seed may train on: its training part, and the validation
    part where kzoo draws that. Its test part is left out, and so are parts of your own.

    Args:
        photos: what `kzoo.load_data` takes, or a DataSet.
        models: names; by default all whose weights are found locally, without a download.
        seed: of the division and of the folds; another seed than fine-tuning's would draw another test part.
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
    if isinstance(photos, DataSet):
        data = photos
    else:
        data = load_data(os.fspath(photos), seed=seed, val_fraction=0.0, test_fraction=0.0)
    find("classification").check_data(data)
    if data.several:
        raise DataError(
            f"'{data.name}' has several labels an image, and kzoo scout takes one class: name a model, kzoo finetune "
            "--model NAME."
        )
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
    images = data.splits["train"].images
    if isinstance(images, np.ndarray):
        for base in bases:
            check_channels(images.shape[-1], base.input_shape[2])
    caches = [base.cache() for base in bases]

    def needs_network(hashes):
        wanted = [(0, h) for h in hashes if h is not None]
        return any(key not in cache.index for cache in caches for key in wanted)

    parts = make_parts(
        data,
        options=FinetuneOptions(seed=seed),
        needs_network=needs_network,
        quiet=quiet,
        timed=lambda step: nullcontext(),
    )
    split, hashes = parts.pool, [parts.hashes[id] for id in parts.pool.ids]
    held_out = {"test": parts.splits.get("test"), "val": parts.splits.get("val") if parts.val_given else None}
    rows = []
    with progress(quiet=quiet) as bar:
        for base, cache in zip(bases, caches, strict=True):
            start = time.monotonic()
            bar.start(base.name, len(split))
            got = features(split.images, cache, FeatureExtractor(base), hashes=hashes, advance=bar.advance)
            skipped = {**dict(parts.skipped), **{split.ids[i]: reason for i, reason in got.skipped}}
            if skipped and not rows and not quiet:
                say(f"Left out {report_skipped(list(skipped.items()))}.")
            y = split.labels[got.kept]
            if len(np.unique(y)) < len(data.classes):
                raise DataError(f"'{data.name}' has a class without a usable photo.")
            groups = parts.pool_groups[got.kept]  # duplicates stay in one fold
            head = fit_head(got.features, y, len(data.classes), groups=groups, seed=seed)
            if head.folded is None or head.tested is None:
                raise DataError(f"'{data.name}' has one photo of each class: cross-validation needs two.")
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
    return Scouting(
        data.name,
        len(split),
        sorted(rows, key=lambda r: (-r["accuracy"], r["loss"])),
        seed,
        {part: len(held) for part, held in held_out.items() if held is not None},
        parts.test_from if held_out["test"] is not None else "",
    )
