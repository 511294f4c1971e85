"""A folder of class folders, or of train/, validation/ and test/ folders with class folders in them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from kzoo.data.dataset import PARTS, DataSet, Split
from kzoo.data.guards import fault
from kzoo.errors import DataError

IGNORED = {"Thumbs.db", "desktop.ini"}


def matches(source: str) -> bool:
    """Return whether this kind reads the source: an existing folder."""
    return os.path.isdir(source)


def read(source: str | os.PathLike) -> DataSet:
    """Read a folder of class folders, or of train/, validation/ and test/ folders with class folders in them.

    Only headers are checked; files that can't be images are `skipped` with the reason.

    Args:
        source: The folder.

    Returns:
        A DataSet of paths, with the part "all", or with those that its folders name. ids are relative to the folder.

    Raises:
        DataError: The folder has no class folders, can't be read, or has two folders for one part.
    """
    root = Path(source)
    parts = _parts(root)
    classes = sorted({c.name for d in parts.values() for c in _subfolders(d)})
    if not classes:
        raise DataError(f"'{root}' has no class folders: put the images of each class into a folder of its own.")
    skipped, splits, seen = [], {}, set()

    def lost(e):
        return skipped.append((os.path.relpath(e.filename, root), f"can't be read ({e.strerror})"))

    for part, folder in parts.items():
        paths, labels = [], []
        for label, name in enumerate(classes):
            for path in files_below(folder / name, seen, lost):
                reason = fault(path)
                if reason:
                    skipped.append((str(path.relative_to(root)), reason))
                else:
                    paths.append(str(path))
                    labels.append(label)
        splits[part] = Split(paths, np.array(labels, "int64"), [str(Path(p).relative_to(root)) for p in paths])
    return DataSet(str(root), tuple(classes), splits, skipped)


def _parts(root):
    """{part: folder}: train/, val/, test/ if it has such, else {"all": root}. A class may be called train, too."""
    inside = _subfolders(root)
    named = [d for d in inside if d.name.lower() in PARTS]
    train = [d for d in named if PARTS[d.name.lower()] == "train"]
    if not train or (len(named) < len(inside) and not any(map(_subfolders, train))):
        return {"all": root}
    parts = {}
    for d in named:
        other = parts.setdefault(PARTS[d.name.lower()], d)
        if other is not d:
            raise DataError(f"'{root}' has {other.name}/ and {d.name}/, which mean the same part: keep one of them.")
    return parts


def _subfolders(folder):
    try:
        return sorted((Path(e.path) for e in os.scandir(folder) if e.is_dir() and not e.name.startswith(".")), key=str)
    except OSError as e:
        raise DataError(f"The folder '{folder}' can't be read ({e.strerror}).") from e


def files_below(folder: Path, seen: set[str], lost: Callable[[OSError], object] | None = None) -> list[Path]:
    """List the files below a folder in order of name. Links to folders are not followed.

    Args:
        folder: Where to begin. Hidden files and folders and IGNORED are left out.
        seen: Real paths of files that were listed before; each file is listed once and added here.
        lost: Called with the OSError of each folder that can't be read.
    """
    found = []
    for where, folders, names in os.walk(folder, onerror=lost, followlinks=False):
        folders[:] = sorted(d for d in folders if not d.startswith("."))
        for name in names:
            if name.startswith(".") or name in IGNORED:
                continue
            path = Path(where, name)
            real = os.path.realpath(path)
            if real not in seen:
                seen.add(real)
                found.append(path)
    return sorted(found, key=lambda p: os.fsencode(p))
