"""Divide a data set into training, validation and test parts: stratified, seeded, without duplicates across parts."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace

import numpy as np

from kzoo.data.dataset import DataSet, Split
from kzoo.data.scan import in_order
from kzoo.errors import DataError
from kzoo.files import escaped, sha256

# The rules of division, which a run records. 1: equal copies are kept together only where the images were scanned, as
# in kzoo 0.1.0. 2: always.
DIVISION = 2
END = 4096  # bytes at the end of a file, by which two of one size mostly differ


def divide(data: DataSet, val_fraction: float, test_fraction: float, seed: int, *, division: int = DIVISION) -> DataSet:
    """Make the splits that are missing. Every class keeps at least one training image.

    A group of duplicates goes to one part as a whole: near ones, too, if the images were scanned (`data.scan`), else
    those with equal contents. A group whose images have several labels stays in training, because its labels can't
    measure anything. A part may therefore get fewer images of a class than its fraction: if a group is too large for
    it, or if the class is a single group. Where images have several labels, each is drawn as one of its rarest class,
    and those without a label as a class of their own.

    Args:
        data: The data set; its `splits` and `drawn` are changed. A split named "all" is divided into three parts, a
            "train" without "val" into two.
        val_fraction: Share of all images that go to validation, in [0, 1).
        test_fraction: Share of all images that go to the test part, in [0, 1).
        seed: Of the random choice.
        division: By which rules, see `DIVISION`; 1 for a run of kzoo 0.1.0.

    Returns:
        `data`.

    Raises:
        DataError: The two fractions leave nothing to train on.
    """
    if division not in (1, DIVISION):
        raise DataError(f"This kzoo knows the rules of division 1 and {DIVISION}, not {division}: update kzoo.")
    rng = np.random.default_rng(seed)
    splits = dict(data.splits)
    grouped = data.scan
    draws = test_fraction + val_fraction if "all" in splits else val_fraction if "val" not in splits else 0
    whole, groups = splits["all" if "all" in splits else "train"], None
    if grouped is not None and draws:
        groups = grouped.groups_of(whole.ids)
    elif division > 1 and draws:
        groups = copies(whole)

    def drawn_from(split, fraction):
        nonlocal groups
        drawn = _stratified(split, fraction, rng, groups)
        groups = None if groups is None else groups[~drawn]
        return split.take(np.flatnonzero(~drawn)), split.take(np.flatnonzero(drawn))

    if "all" in splits:
        if val_fraction + test_fraction >= 1:
            raise DataError(
                f"val_fraction {val_fraction:g} and test_fraction {test_fraction:g} leave nothing to train on: "
                "together they must be below 1."
            )
        rest, splits["test"] = drawn_from(splits.pop("all"), test_fraction)
        splits["train"], splits["val"] = drawn_from(rest, val_fraction / (1 - test_fraction))
        data.drawn = ("train", "val", "test")
    elif "val" not in splits:
        splits["train"], splits["val"] = drawn_from(splits["train"], val_fraction)
        data.drawn = ("train", "val")
    data.splits = {name: splits[name] for name in ("train", "val", "test") if name in splits and len(splits[name])}
    return data


def copies(split: Split) -> np.ndarray:
    """Group images with equal contents. Of files only those are read whose size another one has, most of them in part.

    Args:
        split: Arrays, paths or encoded bytes.

    Returns:
        int (N,), for each image the position of the first one that is equal.

    Example:
        >>> copies(Split([b"x", b"y", b"x"], np.zeros(3, int), ["0", "1", "2"]))
        array([0, 1, 0])
    """
    if not split.files:
        return _first(map(_digest, split.images))
    sizes = getattr(split.images, "sizes", None)  # of those that would have to be read to tell
    if sizes is None:
        sizes = np.fromiter(map(_size, split.images), "int64", len(split))
    found = np.arange(len(split))
    likely = _repeated(sizes, np.flatnonzero(sizes >= 0))
    if likely.size and isinstance(split.images[0], str):  # a million photos have few sizes, and different ends
        ends = np.fromiter(in_order(_end, _some(split.images, likely)), "int64", len(likely))
        likely = likely[_repeated(np.stack([sizes[likely], ends], 1), np.arange(len(likely)))]
    found[likely] = likely[_first(in_order(_digest, _some(split.images, likely)))]
    return found


def _some(images, indices):
    return (images[i] for i in indices)


def _first(keys):
    """The position of the first equal key, int (N,)."""
    seen = {}
    return np.array([seen.setdefault(key, i) for i, key in enumerate(keys)], int)


def _repeated(keys, among):
    """Those of the positions `among` whose key (N,) or (N, K) another one of them has."""
    _, group, count = np.unique(keys[among], axis=0, return_inverse=True, return_counts=True)
    return among[count[group.reshape(-1)] > 1]


def _size(image):
    """The length of a file or of bytes; -1 if it can't be told, which is equal to nothing."""
    try:
        return len(image) if isinstance(image, bytes) else os.path.getsize(image)
    except OSError:
        return -1


def _end(path):
    """A number of the last bytes of a file; what can't be read gets a random one."""
    try:
        with open(path, "rb") as f:
            f.seek(max(0, f.seek(0, os.SEEK_END) - END))
            return int.from_bytes(hashlib.sha256(f.read()).digest()[:7], "big")
    except OSError:
        return int.from_bytes(os.urandom(7), "big")


def _digest(image):
    """A hash of an array's row, of bytes or of a file; what can't be read is equal to nothing."""
    try:
        if isinstance(image, (str, os.PathLike)):
            return bytes.fromhex(sha256(image))
        return hashlib.sha256(image if isinstance(image, bytes) else image.tobytes()).digest()
    except OSError:
        return os.urandom(32)


def _stratified(split, fraction, rng, groups=None):
    """bool (N,), the part: of each class, `fraction` (rounded so that the whole comes out right) goes there.

    groups: a number for each image (N,), the same for images that stay together; None keeps none together.
    """
    alone = groups is None
    groups = np.arange(len(split)) if alone else groups
    mixed = np.zeros(len(split), bool) if alone else contradictory(split.strata, groups)
    several = split.labels.ndim == 2
    rest = split.labels.sum(0, dtype="int64") if several else None  # images of each class that are not in the part
    strata = _rarest(split.labels) if several else split.strata
    part, owed = [], 0.0
    for label in np.unique(strata):
        members = np.flatnonzero(strata == label)
        free = members[~mixed[members]]
        bundles = free[:, None] if alone else _bundles(free, groups[free])
        owed += fraction * len(members)
        room = n = min(round(owed), len(members) - 1)
        left = len(members)
        for i in rng.permutation(len(bundles)):
            if room == 0:
                break
            if len(bundles[i]) <= room and len(bundles[i]) < left:
                if several:
                    taken = split.labels[bundles[i]].sum(0, dtype="int64")
                    if ((taken > 0) & (taken >= rest)).any():
                        continue  # it would leave nothing of one of its classes
                    rest -= taken
                part.extend(bundles[i])
                room -= len(bundles[i])
                left -= len(bundles[i])
        # The next class makes up for rounding, but not for a group that found no room.
        owed -= n
    mask = np.zeros(len(split), bool)
    mask[part] = True
    return mask


def _rarest(labels):
    """The rarest of the classes of each image, (N,), and C for none. labels: (N, C)."""
    order = np.argsort(labels.sum(0, dtype="int64"), kind="stable")
    return np.where(labels.any(1), order[labels[:, order].argmax(1)], labels.shape[1])


def _bundles(members, groups):
    """Arrays of members of one group each, in the order of their first members."""
    order = np.argsort(groups, kind="stable")
    edges = np.flatnonzero(np.diff(groups[order])) + 1
    return sorted(np.split(members[order], edges), key=lambda bundle: bundle[0]) if len(members) else []


def contradictory(labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Find images whose group of duplicates holds several labels.

    Args:
        labels: int (N,).
        groups: int (N,), the group number of each image.

    Returns:
        bool (N,).

    Example:
        >>> contradictory(np.array([2, 1, 1, 0]), np.array([7, 7, 8, 9]))
        array([ True,  True, False, False])
    """
    _, group = np.unique(groups, return_inverse=True)
    lowest = np.full(group.max(initial=-1) + 1, np.iinfo("int64").max)
    highest = np.full_like(lowest, -1)
    np.minimum.at(lowest, group, labels)
    np.maximum.at(highest, group, labels)
    return (lowest < highest)[group]


def as_divided(data: DataSet, rows: list[dict[str, str]], where: str | os.PathLike) -> DataSet:
    """Divide a data set as a run's splits.csv says.

    Args:
        data: The data set.
        rows: The rows of that file, dicts with "split" and "id".
        where: Its name, for the message.

    Returns:
        A copy of `data` with these splits. Images that the file does not list are in no part.

    Raises:
        DataError: None of the images is in the file.
    """
    part = {row["id"]: row["split"] for row in rows}
    everything = data.whole()
    names = [part.get(escaped(i)) for i in everything.ids]
    order = dict.fromkeys(row["split"] for row in rows)
    found = {p: everything.take(np.flatnonzero([n == p for n in names])) for p in order}
    if not any(map(len, found.values())):
        raise DataError(f"None of the images of '{data.name}' is in {where}: renamed?")
    return replace(data, splits={p: split for p, split in found.items() if len(split)})
