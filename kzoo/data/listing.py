"""List folders: without clutter, each real file once."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable
from pathlib import Path

import numpy as np

from kzoo.data.guards import is_clutter
from kzoo.errors import DataError

NO_DEVICE = 2**64 - 1


def identity(path: str | os.PathLike) -> tuple | str:
    """Return what is equal for two names of one file: symbolic links and hard links.

    A file that can't be looked at is known by its path.
    """
    try:
        found = os.stat(path)
    except OSError:
        return os.path.realpath(path)
    return (found.st_dev, found.st_ino) if found.st_ino else os.path.realpath(path)


def leads_to_folder(entry: os.DirEntry) -> bool:
    """Whether an entry is a folder or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def contents(folder: str | os.PathLike[str]) -> tuple[list[Path], list[Path]]:
    """List a folder without clutter.

    Returns:
        (folders, files), each in order of name. Links count as what they lead to.

    Raises:
        DataError: It can't be read.
    """
    folders, files = [], []
    try:
        with os.scandir(folder) as entries:
            for e in entries:
                if not is_clutter(e.name):
                    (folders if leads_to_folder(e) else files).append(Path(folder, e.name))
    except OSError as e:
        raise DataError(f"The folder '{folder}' can't be read ({e.strerror}).") from e
    return sorted(folders, key=os.fsencode), sorted(files, key=os.fsencode)


def folders_in(folder: str | os.PathLike[str]) -> list[Path]:
    """List the folders in a folder without clutter, in order of name; its files, which may be a million, are passed by.

    Raises:
        DataError: It can't be read.
    """
    try:
        with os.scandir(folder) as entries:
            found = [e.name for e in entries if not is_clutter(e.name) and e.is_dir()]
    except OSError as e:
        raise DataError(f"The folder '{folder}' can't be read ({e.strerror}).") from e
    return sorted((Path(folder, name) for name in found), key=os.fsencode)


def files_below(
    folder: str | os.PathLike[str],
    seen: dict | None = None,
    lost: Callable[[OSError], object] | None = None,
    again: list[tuple[Path, Path]] | None = None,
) -> list[Path]:
    """List the files below a folder in order of name. Links to folders are not followed.

    Args:
        folder: Where to begin. Clutter (`kzoo.data.guards.is_clutter`) is left out.
        seen: {identity: path} of the files that were listed before; each file is listed once and added here. By
            default none was.
        lost: Called with the OSError of each folder that can't be read.
        again: A list that gets (path, the path under which the file was listed before) of what is left out.
    """
    seen, kept = {} if seen is None else seen, []
    for path in map(Path, paths_below(folder, lost)):
        first = seen.setdefault(identity(path), path)
        if first is path:
            kept.append(path)
        elif again is not None:
            again.append((path, first))
    return kept


def paths_below(folder: str | os.PathLike[str], lost: Callable[[OSError], object] | None = None) -> list[str]:
    """List the files below a folder in order of name, also those that lead to one file.

    Args:
        folder: As in `files_below`.
        lost: Likewise.
    """
    found = []
    for where, folders, names in os.walk(folder, onerror=lost, followlinks=False):
        folders[:] = [d for d in folders if not is_clutter(d)]
        found += [os.path.join(where, name) for name in names if not is_clutter(name)]
    return sorted(found, key=os.fsencode)


class Identities:
    """Which of many paths are names of one file, as `identity` tells; 16 bytes a path.

    Example:
        >>> found = Identities()
        >>> found.add("no/file"), found.add("no/other"), found.add("no/file")
        (0, 1, 2)
        >>> found.first().tolist()
        [0, 1, 0]
    """

    def __init__(self):
        self.devices, self.numbers, self.unknown = array("Q"), array("Q"), {}

    def add(self, path: str) -> int:
        """Look at the next path, and return its place."""
        found = identity(path)
        if isinstance(found, str):  # no device has this number
            found = (NO_DEVICE, self.unknown.setdefault(found, len(self.unknown)))
        self.devices.append(found[0])
        self.numbers.append(found[1])
        return len(self.numbers) - 1

    def __len__(self) -> int:
        return len(self.numbers)

    def first(self) -> np.ndarray:
        """The place of the first path that leads to the same file, int (N,), for each path."""
        keys = np.stack([np.array(self.devices, np.uint64), np.array(self.numbers, np.uint64)])
        order = np.lexsort(keys)
        new = np.any(keys[:, order[1:]] != keys[:, order[:-1]], axis=0)
        group = np.cumsum(np.r_[0, new.astype(int)])[: len(order)]
        result = np.empty(len(order), int)
        result[order] = order[np.searchsorted(group, group)]
        return result
