"""What a data set is in kzoo: images with labels, divided into parts."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from kzoo.data.scan import Scan

PARTS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass
class Split:
    """Images with labels.

    images: a uint8 array (N, H, W, C), or a list of paths, or a list of encoded bytes. labels: int64 (N,).
    ids: a name for each image, for the record.
    """

    images: np.ndarray | list
    labels: np.ndarray
    ids: list[str]

    def __len__(self):
        return len(self.labels)

    def take(self, indices):
        images = self.images[indices] if isinstance(self.images, np.ndarray) else [self.images[i] for i in indices]
        return Split(images, self.labels[indices], [self.ids[i] for i in indices])

    @property
    def files(self):
        return not isinstance(self.images, np.ndarray)


@dataclass
class DataSet:
    """A data set, divided: `splits` maps "train", "val", "test" (those that there are) to a Split.

    classes: names, by label. skipped: (name, reason) of what could not be used. drawn: the names of the splits between
    which kzoo divided images; the others are the user's. scan: what `kzoo.data.scan` saw, where the images were looked
    at to keep duplicates together, so that nobody has to look twice.
    """

    name: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    skipped: list[tuple[str, str]] = field(default_factory=list)
    drawn: tuple[str, ...] = ()
    scan: Scan | None = field(default=None, repr=False, compare=False)

    def fingerprint(self):
        """A hash of names, labels and contents (for files: their sizes) of all splits."""
        digest = hashlib.sha256("\n".join(self.classes).encode("utf-8", "surrogateescape"))
        for name, split in sorted(self.splits.items()):
            digest.update(f"{name}:{len(split)}".encode())
            digest.update(np.ascontiguousarray(split.labels, "<i8").tobytes())
            digest.update("\0".join(split.ids).encode("utf-8", "surrogateescape"))
            if not split.files:
                digest.update(np.ascontiguousarray(split.images).data)
            else:
                for image in split.images:
                    digest.update(image if isinstance(image, bytes) else str(_size(image)).encode())
        return digest.hexdigest()


def _size(path):
    try:
        return os.path.getsize(path)
    except OSError:
        return -1
