"""The data structures: images with labels, divided into parts."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol

import numpy as np

from kzoo.data.guards import shown
from kzoo.data.labels import kinds
from kzoo.data.sequences import Chosen

READ = 2 << 30  # bytes of records that are read for a fingerprint

# The names of parts, in lower case -> what kzoo calls the part. Folders, tables, arrays, archives and TensorFlow
# Datasets all look here.
PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev", "eval"), "val"),
    **dict.fromkeys(("test", "testing", "holdout"), "test"),
}
# Names of columns that say the part of an image, in lower case: by its name, or by yes and no (-> the part for yes).
PART_COLUMNS = {
    **dict.fromkeys(("split", "set", "subset", "partition", "fold", "folds", "kfold"), None),
    **dict.fromkeys(("is_valid", "is_val", "is_validation", "is_dev"), "val"),
    **dict.fromkeys(("is_test", "is_holdout"), "test"),
    **dict.fromkeys(("is_train", "is_training"), "train"),
}


def part_of(name: str) -> str | None:
    """Return the part that a name means, in any case, or None.

    Example:
        >>> part_of("Training"), part_of("dev"), part_of("extra")
        ('train', 'val', None)
    """
    return PARTS.get(name.strip().lower())


def part_in(name: str) -> str | None:
    """Return the part that one of the words of a name means; None if none or several do.

    Example:
        >>> part_in("seg_train"), part_in("testset"), part_in("PublicTest"), part_in("train_test")
        ('train', 'test', 'test', None)
    """
    words = re.split(r"[\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.strip()).lower())
    found = {part_of(re.sub(r"(set|data|images?|imgs?|pictures?|photos?)?\d*$", "", word)) for word in words} - {None}
    return found.pop() if len(found) == 1 else None


@dataclass
class Split:
    """Images with labels.

    Attributes:
        images: A uint8 array (N, H, W, C), or a sequence of paths or of encoded bytes. One with a method `take`, such
            as `kzoo.data.sequences.Names`, is never made a list of.
        labels: int64 (N,); of several labels an image uint8 (N, C), 1 where an image has the class; or what another
            task learns from, (N, ...): for segmentation masks, uint8 (N, H, W), or an object array (N,) of
            `kzoo.data.masks.MaskFile`.
        ids: A name for each image, for the record.
        prepared: Whether the images are a model's input already, as `kzoo.data.batches.decode_split` leaves them.
    """

    images: Any
    labels: np.ndarray
    ids: Sequence[str]
    prepared: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        x = self.images
        kind = f"{x.dtype} arrays of {x.shape[1:]}" if isinstance(x, np.ndarray) else "files"
        return f"<Split of {len(self):,} images: {kind}>"

    def take(self, indices: np.ndarray) -> Split:
        """Select images.

        Args:
            indices: int (M,), positions in this split; they may repeat.

        Returns:
            A Split of the M images, in that order.
        """
        return Split(_taken(self.images, indices), self.labels[indices], _taken(self.ids, indices), self.prepared)

    @property
    def masks(self) -> bool:
        """Whether there is a mask for each image, and not one class."""
        return self.labels.dtype == object or (self.labels.ndim == 3 and self.labels.dtype == np.uint8)

    @property
    def strata(self) -> np.ndarray:
        """A number for each image, int (N,), for choosing some of each kind: of its class or classes; 0 for masks."""
        return np.zeros(len(self), "int64") if self.masks else kinds(self.labels)

    @property
    def files(self) -> bool:
        """Whether the images are files or encoded bytes, and not an array of pixels."""
        return not isinstance(self.images, np.ndarray)


class Groups(Protocol):
    """Anything that knows which images are duplicates, such as `kzoo.data.scan.Scan` or a cached result of it."""

    def groups_of(self, ids: Sequence[str]) -> np.ndarray:
        """Return a group number for each image, int (N,); duplicates have the same number."""


@dataclass
class DataSet:
    """A data set, divided into parts.

    Attributes:
        name: What it was loaded as.
        classes: Names of the classes, by label.
        splits: Maps "train", "val" and "test" (those that exist) to a Split.
        skipped: (name, reason) of each file, array or part that was not used.
        drawn: Names of the splits between which kzoo divided the images; the other splits are the user's own.
        scan: The result of `kzoo.data.scan.scan_images`, where the images were scanned for duplicates, so that they
            need not be read again.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    skipped: list[tuple[str, str]] = field(default_factory=list)
    drawn: tuple[str, ...] = ()
    scan: Groups | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        parts = ", ".join(f"{len(split):,} {name}" for name, split in self.splits.items())
        left_out = f"; {len(self.skipped):,} skipped" if self.skipped else ""
        return f"<DataSet {shown(self.name)}: {len(self.classes):,} classes; {parts}{left_out}>"

    @property
    def several(self) -> bool:
        """Whether an image may have several labels, or none: whole numbers (N, C) with a column for each class."""
        labels = next((split.labels for split in self.splits.values()), None)
        return labels is not None and labels.shape[1:] == (len(self.classes),) and labels.dtype.kind in "iub"

    @property
    def masks(self) -> bool:
        """Whether there is a mask for each image, and not one class."""
        return any(split.masks for split in self.splits.values())

    def whole(self) -> Split:
        """Join all parts into one Split."""
        parts = list(self.splits.values())
        found = [p.images for p in parts]
        images = _joined(found) if parts[0].files else np.concatenate(found)
        return Split(images, np.concatenate([p.labels for p in parts]), _joined([p.ids for p in parts]))

    def fingerprint(self) -> str:
        """Hash names, labels and contents of all splits, as hex digits; of files, and of records above 2 GiB, sizes."""
        digest = hashlib.sha256("\n".join(self.classes).encode("utf-8", "surrogateescape"))
        for name, split in sorted(self.splits.items()):
            digest.update(f"{name}:{len(split)}".encode())
            if split.labels.dtype == object:
                for mask in split.labels:
                    digest.update(mask.identity())
            else:
                kind = "<i8" if np.issubdtype(split.labels.dtype, np.integer) else "<f8"
                for i in range(0, len(split), 65536):  # labels of several classes are a byte each, and 8 here
                    digest.update(np.ascontiguousarray(split.labels[i : i + 65536], kind).tobytes())
            for i in range(0, len(split), 65536):
                text = "\0" * (i > 0) + "\0".join(split.ids[i : i + 65536])
                digest.update(text.encode("utf-8", "surrogateescape"))
            if not split.files:
                digest.update(np.ascontiguousarray(split.images).data)
            elif (sizes := getattr(split.images, "sizes", None)) is not None and sizes.sum() > READ:
                digest.update(np.ascontiguousarray(sizes, "<i8").tobytes())
            else:
                for image in split.images:
                    digest.update(image if isinstance(image, bytes) else str(_size(image)).encode())
        return digest.hexdigest()


def report_skipped(skipped: list[tuple[str, str]], most: int = 3) -> str:
    """Describe skipped files in one line.

    Args:
        skipped: (name, reason) pairs.
        most: How many are named; the rest is counted.

    Example:
        >>> report_skipped([("a.jpg", "is empty"), ("b.jpg", "is empty")], most=1)
        '2 unusable files: a.jpg is empty; and 1 more'
    """
    listed = "; ".join(f"{shown(name)} {reason}" for name, reason in skipped[:most])
    rest = f"; and {len(skipped) - most} more" if len(skipped) > most else ""
    return f"{len(skipped)} unusable file{'s' if len(skipped) > 1 else ''}: {listed}{rest}"


def _joined(parts):
    return Chosen(parts) if any(hasattr(p, "take") for p in parts) else list(chain(*parts))


def _taken(items, indices):
    if isinstance(items, np.ndarray):
        return items[indices]
    return items.take(indices) if hasattr(items, "take") else [items[i] for i in indices]


def _size(path):
    try:
        return os.path.getsize(path)
    except OSError:
        return -1
