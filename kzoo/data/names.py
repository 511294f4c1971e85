"""Many names in little memory: a million paths as Python strings would take a quarter of a gigabyte."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import SupportsIndex, overload

import numpy as np


class Names(Sequence[str]):
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

    @overload
    def __getitem__(self, i: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i):
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        start = int(self.start[i])
        name = self.text[start : start + int(self.length[i])]
        return f"{self.root}{self.folders[self.folder[i]]}{os.fsdecode(name)}"

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as of a list

    def __repr__(self) -> str:
        return f"<{len(self):,} names{f': {self[0]!r}, ...' if len(self) else ''}>"
