"""Dividing a data set into training, validation and test parts: stratified, seeded, duplicates together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kzoo.data.dataset import DataSet
from kzoo.errors import DataError
from kzoo.files import escaped


def divide(data: DataSet, val_fraction, test_fraction, seed):
    """Make the splits that are missing; every class keeps at least one image to train on.

    Where `data.scan` is there, a group of duplicates goes to one part whole. A group whose images have several labels
    is of no class: it stays in training, since it can't measure anything. So a part may get fewer images of a class
    than its fraction, when a group is too large for it, and a class that is one group stays in training.
    """
    rng = np.random.default_rng(seed)
    splits = dict(data.splits)

    def drawn_from(split, fraction):
        groups = None if data.scan is None else data.scan.groups_of(split.ids)
        return _stratified(split, fraction, rng, groups)

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


def _stratified(split, fraction, rng, groups=None):
    """(rest, part): of each class, `fraction` (rounded so that the whole comes out right) goes to the part.

    groups: a number for each image (N,), the same for images that stay together; None keeps none together.
    """
    alone = groups is None
    groups = np.arange(len(split)) if alone else groups
    mixed = np.zeros(len(split), bool) if alone else contradictory(split.labels, groups)
    part, owed = [], 0.0
    for label in np.unique(split.labels):
        members = np.flatnonzero(split.labels == label)
        free = members[~mixed[members]]
        bundles = free[:, None] if alone else _bundles(free, groups[free])
        owed += fraction * len(members)
        room = n = min(round(owed), len(members) - 1)
        left = len(members)
        for i in rng.permutation(len(bundles)):
            if room == 0:
                break
            if len(bundles[i]) <= room and len(bundles[i]) < left:
                part.extend(bundles[i])
                room -= len(bundles[i])
                left -= len(bundles[i])
        # The next class makes up for rounding, but not for a group that found no room.
        owed -= n
    mask = np.zeros(len(split), bool)
    mask[part] = True
    return split.take(np.flatnonzero(~mask)), split.take(np.flatnonzero(mask))


def _bundles(members, groups):
    """Arrays of members of one group each, in the order of their first members."""
    order = np.argsort(groups, kind="stable")
    edges = np.flatnonzero(np.diff(groups[order])) + 1
    return sorted(np.split(members[order], edges), key=lambda bundle: bundle[0]) if len(members) else []


def contradictory(labels, groups):
    """Whether an image's group holds several labels: bool (N,) from labels and groups, both int (N,).

    >>> contradictory(np.array([2, 1, 1, 0]), np.array([7, 7, 8, 9]))
    array([ True,  True, False, False])
    """
    _, group = np.unique(groups, return_inverse=True)
    lowest = np.full(group.max(initial=-1) + 1, np.iinfo("int64").max)
    highest = np.full_like(lowest, -1)
    np.minimum.at(lowest, group, labels)
    np.maximum.at(highest, group, labels)
    return (lowest < highest)[group]


def as_divided(data, rows, where):
    """The data set in the parts that a run's splits.csv names; images that are not in it are in no part.

    rows: of that file, dicts of "split" and "id". where: its name, for the message. Raises DataError.
    """
    part = {row["id"]: row["split"] for row in rows}
    everything = data.whole()
    names = [part.get(escaped(i)) for i in everything.ids]
    order = dict.fromkeys(row["split"] for row in rows)
    found = {p: everything.take(np.flatnonzero([n == p for n in names])) for p in order}
    if not any(map(len, found.values())):
        raise DataError(f"None of the images of '{data.name}' is in {where}: renamed?")
    return replace(data, splits={p: split for p, split in found.items() if len(split)})
