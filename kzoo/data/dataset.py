"""What a data set is in kzoo: images with labels, divided into parts."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol

import numpy as np

from kzoo.data.guards import shown

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


class Groups(Protocol):
    """What knows which images are duplicates: `kzoo.data.scan.Scan`, or what is remembered of one."""

    def groups_of(self, ids: list[str]) -> np.ndarray:
        """A number for each image (N,), the same for duplicates."""


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
    scan: Groups | None = field(default=None, repr=False, compare=False)

    def whole(self):
        """All parts as one Split."""
        parts = list(self.splits.values())
        images = [p.images for p in parts]
        images = list(chain(*images)) if parts[0].files else np.concatenate(images)
        return Split(images, np.concatenate([p.labels for p in parts]), list(chain(*(p.ids for p in parts))))

    def fingerprint(self):
        """A hash of names, labels and contents (for files: their sizes) of all splits."""
        digest = hashlib.sha256("\n".join(self.classes).encode("utf-8", "surrogateescape"))
        for name, split in sorted(self.splits.items()):
            digest.update(f"{name}:{len(split)}".encode())
            kind = "<i8" if np.issubdtype(split.labels.dtype, np.integer) else "<f8"
            digest.update(np.ascontiguousarray(split.labels, kind).tobytes())
            digest.update("\0".join(split.ids).encode("utf-8", "surrogateescape"))
            if not split.files:
                digest.update(np.ascontiguousarray(split.images).data)
            else:
                for image in split.images:
                    digest.update(image if isinstance(image, bytes) else str(_size(image)).encode())
        return digest.hexdigest()


def report_skipped(skipped, most=3):
    """One line that names the first few and counts the rest."""
    listed = "; ".join(f"{shown(name)} {reason}" for name, reason in skipped[:most])
    rest = f"; and {len(skipped) - most} more" if len(skipped) > most else ""
    return f"{len(skipped)} unusable file{'s' if len(skipped) > 1 else ''}: {listed}{rest}"


def _size(path):
    try:
        return os.path.getsize(path)
    except OSError:
        return -1
