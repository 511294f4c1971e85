"""Load a data set from any kind of source, and divide it."""

from __future__ import annotations

import os
from bisect import bisect_right
from importlib import import_module
from itertools import combinations
from typing import Any

import numpy as np

from kzoo.checks import check_bits
from kzoo.data.dataset import DataSet, report_skipped
from kzoo.data.divide import DIVISION, divide
from kzoo.data.guards import shown
from kzoo.data.labels import BETWEEN, images_by_class
from kzoo.data.listing import Identities
from kzoo.data.scan import drop_undecodable
from kzoo.data.sources import NAMED, SOURCES, accepted
from kzoo.data.sources.arrays import IN_MEMORY, in_memory
from kzoo.errors import DataError
from kzoo.progress import Silent, say


def load_data(
    source: Any,
    *,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
    strict: bool = False,
    group_duplicates: bool = False,
    bits: int | None = None,
    bar: Silent | None = None,
    division: int = DIVISION,
) -> DataSet:
    """Find and divide a data set.

    Named sets are looked for in $KZOO_DATA, the Keras cache, then TensorFlow Datasets.

    Args:
        source: A folder of class folders (or of train/, val/, test/ with class folders in them), a folder of images/
            and masks/ (or with these in its parts; `kzoo.data.sources.masks`), a .csv or .tsv with the columns path,
            label and optionally split (`kzoo.data.sources.table` has its rules), "digits", "digits_segmentation",
            "mnist", "fashion_mnist", "cifar10", "tfds:NAME", or an .npz (x_train, y_train, x_test, y_test; or images,
            labels; optionally classes). Parts may have any name in `kzoo.data.dataset.PARTS`. Or data in memory:
            (images, labels), a dict of such arrays, or a tf.data set of (image, label) pairs.
        val_fraction: Share of the training part that becomes the validation part, if the source has none; in [0, 1).
        test_fraction: Share of all images that becomes the test part, if the source is not divided at all; in [0, 1).
        seed: Of the stratified random choice.
        strict: Refuse a source with unusable files instead of leaving those out.
        group_duplicates: Decode each image first (`kzoo.data.scan`), leave out those that can't be decoded, and keep
            duplicates and near duplicates in one part wherever kzoo divides. A division by the source itself is kept.
            Without it, equal files and arrays are kept together all the same.
        bits: Of arrays of 16 bits, how many are used, such as 12 for 0..4095: they are scaled to 0..255. None refuses
            values above 255. For files `kzoo.Preprocessing.bits` counts.
        bar: A `kzoo.progress` on which to show that.
        division: By which rules kzoo divides, see `kzoo.data.divide.DIVISION`. A run's config.json records them.

    Returns:
        A DataSet. What was not used of the source is in its `skipped`, with the reason.

    Raises:
        DataError: There is no such data set, it can't be used, or it could be read in two ways.

    Example:
        >>> data = load_data("digits")
        >>> data.classes[:3], {name: len(split) for name, split in data.splits.items()}
        (('0', '1', '2'), {'train': 1258, 'val': 180, 'test': 359})
    """
    for name, value in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= value < 1:
            raise DataError(f"{name} must be in [0, 1), got {value}.")
    data = read_data(source, bits)
    name = data.name
    if group_duplicates:
        drop_undecodable(data, bar)
    if data.skipped and strict:
        raise DataError(report_skipped(data.skipped) + " (--strict)")
    _check(data)
    _note_shared_files(data)
    divide(data, val_fraction, test_fraction, seed, division=division)
    for part, fraction in (("val", val_fraction), ("test", test_fraction)):
        if part in data.drawn and fraction and part not in data.splits:
            say(
                f"Note: '{name}' has no {part} part: there are too few images that are no copies of others with "
                "another label."
            )
    return data


def read_data(source: Any, bits: int | None = None) -> DataSet:
    """Find a data set and leave it as it is: nothing is divided, and no class needs an image.

    This is for measuring on data that nothing is trained on.

    Args:
        source: As in `load_data`.
        bits: As in `load_data`.

    Returns:
        A DataSet in the parts that the source has, or with the part "all".

    Raises:
        DataError: There is no such data set, it can't be read, or it could be read in two ways.
    """
    check_bits(bits)
    if isinstance(source, (str, os.PathLike)):
        data = _read(os.fspath(source), bits)
        data.name = os.fspath(source)
    else:
        data = in_memory(source, bits)
    marked = [c for c in data.classes if data.several and any(mark in c for mark in BETWEEN)]
    if marked:  # what predict writes, and what a run records of its images, could not be told from two labels
        raise DataError(
            f"'{data.name}' has the class {marked[0]!r}, and ; and | stand between several labels: rename it."
        )
    for part, split in data.splits.items():
        if split.masks or split.labels.ndim > 1:  # masks are checked where they are read; several labels are 0 and 1
            continue
        outside = split.labels[(split.labels < 0) | (split.labels >= len(data.classes))]
        if len(outside):
            raise DataError(
                f"'{data.name}' has {len(data.classes)} classes, so labels are 0 to {len(data.classes) - 1}, "
                f"but there is a {outside[0]} in {part}."
            )
    return data


def _read(source, bits) -> DataSet:
    """Read the source as the first kind that matches it."""
    if source in NAMED and os.path.exists(source):
        say(f"Note: '{source}' is the known data set; ./{source} is the file or folder here.")
    for kind in SOURCES:
        module = import_module(f"kzoo.data.sources.{kind}")
        if module.matches(source):
            return module.read(source, bits) if kind == "arrays" else module.read(source)
    takes = accepted()
    if os.path.exists(source):
        raise DataError(f"'{source}' is not a kind of data set that kzoo reads. It reads {takes}.")
    if source == IN_MEMORY:  # what a run records of data that came as arrays
        raise DataError("The arrays that were in memory are needed again: data=(images, labels), or --data FILE.")
    raise DataError(f"There is no data set '{source}'. kzoo reads {takes}.")


def _note_shared_files(data):
    """Say which files are in two parts: links, hard links, the same path twice. They stay in both, as given."""
    if len(data.splits) < 2:
        return
    files, owners = Identities(), []
    for part, split in data.splits.items():
        if split.files and len(split) and isinstance(split.images[0], str):
            for image in split.images:
                files.add(image)
            owners.append((len(files), part))

    def place(i):
        """(part, id) of the i-th file."""
        k = bisect_right([end for end, _ in owners], i)
        begin = owners[k - 1][0] if k else 0
        return owners[k][1], data.splits[owners[k][1]].ids[i - begin]

    first = files.first()
    shared = {}
    for i in np.flatnonzero(first != np.arange(len(files))):
        places = shared.setdefault(first[i], dict([place(first[i])]))
        places.update([place(i)])
    leaks = [places for places in shared.values() if len(places) > 1]
    for pair in combinations(data.splits, 2):
        both = [p for p in leaks if {*pair} <= p.keys()]
        if both:
            a, b = (shown(both[0][part]) for part in pair)
            files = "1 file is" if len(both) == 1 else f"{len(both):,} files are"
            say(
                f"Warning: {files} in {pair[0]} and in {pair[1]} ({a} and {b}): what is measured there "
                "will look better than it is."
            )


def _check(data):
    if len(data.classes) < 2:
        who = "segmentation" if data.masks else "a classifier"
        raise DataError(f"'{data.name}' has {len(data.classes)} class; {who} needs at least two.")
    first = "all" if "all" in data.splits else "train"
    if first not in data.splits:
        raise DataError(f"'{data.name}' has no training part, only {', '.join(data.splits)}.")
    if data.splits[first].masks:
        if not len(data.splits[first]):
            raise DataError(f"'{data.name}' has no usable picture to train on ({report_skipped(data.skipped)}).")
        return
    counts = images_by_class(data.splits[first].labels, len(data.classes))
    empty = [c for c, n in zip(data.classes, counts, strict=True) if not n]
    if empty:
        reason = f" ({report_skipped(data.skipped)})" if data.skipped else ""
        for c in empty[:5]:
            number, n = data.classes.index(c), len(data.classes)
            elsewhere = [p for p, s in data.splits.items() if p != first and images_by_class(s.labels, n)[number]]
            if elsewhere:
                reason = f" ({c!r} is only in {' and '.join(elsewhere)}.){reason}"
        raise DataError(
            f"'{data.name}' has no usable image of class {', '.join(map(repr, empty[:5]))} to train on: "
            f"add some, or remove the class.{reason}"
        )
