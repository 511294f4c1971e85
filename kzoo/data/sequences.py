"""Sequences of a million items in little memory: as Python strings their paths would take a quarter of a gigabyte."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import SupportsIndex, TypeVar, overload

import numpy as np

T = TypeVar("T")


class Lazy(Sequence[T]):
    """A read-only sequence whose items are made when they are asked for; equal to a list of the same items."""

    def item(self, i: int) -> T:
        """The i-th item, counted from 0 or, below 0, from the end."""
        raise NotImplementedError

    @overload
    def __getitem__(self, i: SupportsIndex) -> T: ...
    @overload
    def __getitem__(self, i: slice) -> list[T]: ...
    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self.item(k) for k in range(*i.indices(len(self)))]
        return self.item(i)

    def __iter__(self) -> Iterator[T]:
        return (self.item(i) for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, (str, bytes)):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as of a list


class Names(Lazy[str]):
    """A read-only list of paths: their folders once, the rest as bytes. About 20 bytes a name, and its own letters.

    A selection (`take`) and the same names below another folder (`below`) share the letters.

    Args:
        paths: Read once, one at a time. What stands in front of the last slash is kept once for all.

    Example:
        >>> names = Names(["cats/1.jpg", "cats/2.jpg", "dogs/1.jpg"])
        >>> names[1], names.take(np.array([2, 0]))[:], names.below("/data")[-1]
        ('cats/2.jpg', ['dogs/1.jpg', 'cats/1.jpg'], '/data/dogs/1.jpg')
    """

    def __init__(self, paths: Iterable[str] = ()):
        folders: dict[str, int] = {}
        text, folder, start, length = bytearray(), array("i"), array("q"), array("i")
        for path in paths:
            tail = os.path.basename(path)
            letters = os.fsencode(tail)
            folder.append(folders.setdefault(path[: len(path) - len(tail)], len(folders)))
            start.append(len(text))
            length.append(len(letters))
            text += letters
        self.root, self.folders, self.text = "", list(folders), bytes(text)
        self.folder, self.start, self.length = (np.array(a) for a in (folder, start, length))

    def _like(self, **changed) -> Names:
        other = object.__new__(Names)
        other.__dict__.update({**self.__dict__, **changed})
        return other

    def take(self, indices: np.ndarray) -> Names:
        """The names at these positions, int (M,), in that order; they may repeat. Or those where bool (N,) is true."""
        return self._like(**{k: getattr(self, k)[indices] for k in ("folder", "start", "length")})

    def below(self, root: str) -> Names:
        """The same names as paths below a folder."""
        return self._like(root=os.path.join(root, "") if root else "")

    def __len__(self) -> int:
        return len(self.start)

    def item(self, i: int) -> str:
        """The path."""
        start = int(self.start[i])
        name = self.text[start : start + int(self.length[i])]
        return f"{self.root}{self.folders[self.folder[i]]}{os.fsdecode(name)}"

    def __repr__(self) -> str:
        return f"<{len(self):,} names{f': {self[0]!r}, ...' if len(self) else ''}>"


class Chosen(Lazy[T]):
    """Items of other sequences, by their places: nothing is copied or read until it is asked for. 12 bytes an item.

    Args:
        parts: The sequences, one after another.

    Example:
        >>> both = Chosen([Names(["a", "b"]), ["c"]])
        >>> both[:], both.take(np.array([2, 0]))[:]
        (['a', 'b', 'c'], ['c', 'a'])
    """

    def __init__(self, parts: Sequence[Sequence[T]]):
        self.parts = list(parts)
        self.part = np.repeat(np.arange(len(parts), dtype="int32"), [len(p) for p in parts])
        self.place = np.concatenate([np.arange(len(p)) for p in parts])

    def take(self, indices: np.ndarray) -> Chosen[T]:
        """The items at these positions, int (M,), in that order; they may repeat. Or those where bool (N,) is true."""
        other: Chosen[T] = object.__new__(Chosen)
        other.parts, other.part, other.place = self.parts, self.part[indices], self.place[indices]
        return other

    @property
    def sizes(self) -> np.ndarray | None:
        """Of each item in bytes, int64 (N,), if all sequences tell them (`kzoo.data.records.Records`); else None."""
        if not all(hasattr(p, "sizes") for p in self.parts):
            return None
        starts = np.cumsum([0, *(len(p) for p in self.parts)])[:-1]
        return np.concatenate([p.sizes for p in self.parts])[starts[self.part] + self.place]  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return len(self.part)

    def item(self, i: int) -> T:
        """The item, from its sequence."""
        return self.parts[self.part[i]][int(self.place[i])]
