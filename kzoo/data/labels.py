"""Names of classes, one spelling for each class; what is no label; and several labels an image."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from kzoo.data.guards import shown
from kzoo.errors import DataError

BETWEEN = ";|"  # what may stand between several labels in a cell of a table
MAX_LABELS = 1 << 30  # images times classes where an image may have several labels
# What pandas reads as a missing value. "none" and "na" in lower case are names like any other.
MISSING = {
    *("", "nan", "NaN", "-nan", "-NaN", "N/A", "n/a", "#N/A", "#N/A N/A", "#NA", "<NA>", "NA", "NULL", "null", "None"),
    *("NAN", "Nan", "Null", "NaT", "-1.#IND", "1.#IND", "-1.#QNAN", "1.#QNAN"),
}


def is_missing(label: str) -> bool:
    """Return whether a text stands for a missing label: empty, or written as programs write a missing value.

    Example:
        >>> is_missing("N/A"), is_missing("nan"), is_missing("none")
        (True, True, False)
    """
    return label.strip() in MISSING


def class_names(labels: Iterable[str], where: str | os.PathLike) -> dict[str, str]:
    """Give each label the name of its class: normalised to Unicode's composed form (NFC), which looks the same.

    Bytes that are no UTF-8 (as Python keeps them in names of folders) are read as Windows-1252, else escaped, so that
    every name can be written and drawn.

    Args:
        labels: Names of folders or texts of a column.
        where: The data set, for the message.

    Returns:
        {label: name of its class}.

    Raises:
        DataError: Two names differ in case or white space only, or are the same number ("1" and "1.0"). Single
            letters may differ in case, because data sets of characters have both.

    Example:
        >>> len(set(class_names(["cafe\\u0301", "caf\\u00e9"], "photos").values()))
        1
    """
    found = {label: unicodedata.normalize("NFC", _text(label)) for label in labels}
    seen = {}
    for name in sorted(set(found.values())):
        other = seen.setdefault(_key(name), name)
        if other != name:
            raise DataError(
                f"'{shown(where)}' has the classes {other!r} and {name!r}, which differ only in "
                f"{_difference(other, name)}: give them one name if they are the same class, else names that "
                "differ in more."
            )
    return found


def multi_hot(rows: Sequence[Iterable[int]], classes: int) -> np.ndarray:
    """Several labels an image as an array: uint8 (N, C), 1 where an image has the class.

    Args:
        rows: The numbers of the classes of each image, perhaps none.
        classes: Their number, C.

    Raises:
        DataError: The array would have more than MAX_LABELS elements, as where each image has a class of its own.

    Example:
        >>> multi_hot([(0, 2), ()], 3)
        array([[1, 0, 1],
               [0, 0, 0]], dtype=uint8)
    """
    if len(rows) * classes > MAX_LABELS:
        raise DataError(
            f"{len(rows):,} images with several of {classes:,} classes are too many; images times classes may be "
            f"{MAX_LABELS:,}: leave rare classes out."
        )
    found = np.zeros((len(rows), classes), "uint8")
    for i, row in enumerate(rows):
        found[i, list(row)] = 1
    return found


def images_by_class(labels: np.ndarray, classes: int) -> np.ndarray:
    """How many images each class has, int (C,). labels: int (N,), or several an image (N, C)."""
    return np.bincount(labels, minlength=classes) if labels.ndim == 1 else labels.sum(0, dtype="int64")


def kinds(labels: np.ndarray) -> np.ndarray:
    """A number for each image, the same for the same label or labels, (N,). labels: (N,) or (N, ...).

    Example:
        >>> kinds(np.array([[0, 1], [1, 1], [0, 1]]))
        array([0, 1, 0])
    """
    if labels.ndim == 1:
        return labels
    return np.unique(labels.reshape(len(labels), -1), axis=0, return_inverse=True)[1].reshape(-1)


def text_of(label: Any, classes: Sequence[str]) -> str:
    """The class of a label, an int, or the classes of a row of several, (C,), with "; " between them.

    Example:
        >>> text_of(1, ("cat", "dog")), text_of(np.array([1, 1]), ("cat", "dog"))
        ('dog', 'cat; dog')
    """
    return classes[label] if np.ndim(label) == 0 else "; ".join(classes[int(k)] for k in np.flatnonzero(label))


def _text(label):
    try:
        label.encode()
        return label
    except UnicodeEncodeError:
        raw = os.fsencode(label)
    try:
        return raw.decode("cp1252")
    except UnicodeDecodeError:
        return raw.decode("utf-8", "backslashreplace")


def _key(name):
    """What two spellings of one class have in common."""
    text = " ".join(name.split())
    return _number(text) or (text if len(text) == 1 else unicodedata.normalize("NFC", text.casefold()))


def _number(text):
    """A whole number as digits, however it is written; None for anything else."""
    try:
        number = float(text) if "_" not in text else None
    except ValueError:
        return None
    return f"{number:.0f}" if number is not None and number.is_integer() else None


def _difference(a, b):
    if _number(a.strip()):
        return "how the number is written"
    return "white space" if a.split() == b.split() else "case" if len(a) == len(b) else "case and white space"
