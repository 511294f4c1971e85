"""The names of many pictures as a stream: from folders and lists, divided by their hash, each of them once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from kzoo.data.guards import is_clutter, shown
from kzoo.data.listing import leads_to_folder
from kzoo.errors import DataError

LIST = ".txt"  # the suffix of a list of names
MAX_NAME = 1 << 16  # bytes of a name in a list; Linux takes 4,096
BOM = b"\xef\xbb\xbf"  # Windows may begin a UTF-8 file with it


def named(images: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Name the pictures of folders, lists and files, one after the other; nothing is kept in memory.

    Args:
        images: a folder stands for all files in it and below it, without clutter (`kzoo.data.guards.is_clutter`); links
            to folders are not followed. A file NAME.txt is a list, see `listed`. Anything else is a picture.

    Returns:
        An iterator over (the name by which pictures are divided, the path). The first is the path below the folder as
        it was given, so that it does not depend on where that is; of a list's line or a file it is the path.

    Raises:
        DataError: a file that does not exist, or a folder or list that can't be read.
    """
    for path in images:
        if os.path.isdir(path):
            for below in files_below(path):
                yield below, os.path.join(path, below)
        elif not os.path.exists(path):
            raise DataError(f"There is no file '{shown(path)}'.")
        elif path.lower().endswith(LIST):
            for name in listed(path):
                yield name, name
        else:
            yield path, path


def files_below(folder: str) -> Iterator[str]:
    """The paths of the files below a folder, relative to it, in the order in which the system lists them.

    Links to folders are not followed, so that links in circles end. Links to files are files, broken ones, too: they
    can't be read, and that is said of each.

    Args:
        folder: where to begin.

    Raises:
        DataError: it, or a folder in it, can't be read.
    """
    waiting = [""]
    while waiting:
        below = waiting.pop()
        try:
            with os.scandir(os.path.join(folder, below)) as entries:
                for e in entries:
                    if is_clutter(e.name):
                        continue
                    if e.is_dir(follow_symlinks=False):
                        waiting.append(os.path.join(below, e.name))
                    elif not leads_to_folder(e):
                        yield os.path.join(below, e.name)
        except OSError as e:
            raise DataError(f"The folder '{shown(os.path.join(folder, below))}' can't be read ({e.strerror}).") from e


def listed(path: str | os.PathLike) -> Iterator[str]:
    """The names in a list: one a line, or ended by NUL as `find -print0` writes them, which no name can break.

    Names are bytes; they need not be UTF-8. Empty lines are skipped. Relative names are relative to the current folder.

    Args:
        path: of the list.

    Raises:
        DataError: it can't be read, or is no list.
    """
    try:
        with open(path, "rb") as f:
            left = f.read(MAX_NAME)
            if left.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise DataError(f"The list '{shown(path)}' is UTF-16: save it as UTF-8.")
            end, strip = (b"\0", b"") if b"\0" in left else (b"\n", b"\r")
            left = left.removeprefix(BOM)
            more = True
            while more:
                *names, left = left.split(end)
                piece = f.read(MAX_NAME)
                more = bool(piece)
                for name in names if more else [*names, left]:
                    if b"\0" in name:
                        raise DataError(f"'{shown(path)}' is no list of names: line ends and NULs are mixed.")
                    if name := name.removesuffix(strip):
                        yield os.fsdecode(name)
                if len(left) > MAX_NAME:
                    raise DataError(f"'{shown(path)}' is no list of names: a line has over {MAX_NAME:,} bytes.")
                left += piece
    except OSError as e:
        raise DataError(f"The list '{shown(path)}' can't be read ({e.strerror}).") from e


def shard_of(name: str, shards: int) -> int:
    """The shard of a name: the first 8 bytes of its SHA-256 as a big-endian number, modulo the number of shards.

    Args:
        name: of `named`.
        shards: how many there are.

    Example:
        >>> [shard_of(name, 4) for name in ("a.jpg", "b.jpg", "c.jpg")]
        [2, 2, 1]
    """
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") % shards


class Seen:
    """Which names there were, in 16 bytes each: the beginnings of their SHA-256."""

    def __init__(self) -> None:
        self.groups: list[np.ndarray] = []  # sorted, each at least twice as long as the next

    def __contains__(self, name: str) -> bool:
        return bool(self._there(_hashes([name]))[0])

    def new(self, names: Iterable[str]) -> list[bool]:
        """Add names, and tell which were not there.

        Args:
            names: some more, best a thousand at a time.

        Returns:
            False for a name that was added before, in an earlier call or earlier in this one.
        """
        hashes = _hashes(names)
        new = np.zeros(len(hashes), bool)
        new[np.unique(hashes, return_index=True)[1]] = True
        new &= ~self._there(hashes)
        if new.any():
            self.groups.append(np.sort(hashes[new]))
        while len(self.groups) > 1 and len(self.groups[-2]) < 2 * len(self.groups[-1]):
            a, b = self.groups.pop(), self.groups.pop()
            self.groups.append(np.sort(np.concatenate([a, b])))
        return new.tolist()

    def _there(self, hashes):
        found = np.zeros(len(hashes), bool)
        for group in self.groups:
            places = np.minimum(np.searchsorted(group, hashes), len(group) - 1)
            found |= group[places] == hashes
        return found


def _hashes(names):
    return np.array([hashlib.sha256(os.fsencode(name)).digest()[:16] for name in names], "S16")
