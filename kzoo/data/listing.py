"""List folders: without clutter, each real file once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from kzoo.data.guards import is_clutter
from kzoo.errors import DataError


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
    found = []
    for where, folders, names in os.walk(folder, onerror=lost, followlinks=False):
        folders[:] = [d for d in folders if not is_clutter(d)]
        found += [Path(where, name) for name in names if not is_clutter(name)]
    seen, kept = {} if seen is None else seen, []
    for path in sorted(found, key=os.fsencode):
        first = seen.setdefault(identity(path), path)
        if first is path:
            kept.append(path)
        elif again is not None:
            again.append((path, first))
    return kept
