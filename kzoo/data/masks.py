"""Masks in files: a class for each pixel of a picture, as a PNG of class numbers, of a palette, or of colours."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kzoo.data.guards import kind_of, read, readable, shown
from kzoo.data.labels import class_names
from kzoo.data.scan import check_png, opened
from kzoo.errors import DataError

IGNORED = 255  # the number of a pixel without a label
MAX_CLASSES = 255
MAX_TABLE = 1 << 20  # bytes
# Files that say what numbers or colours mean, in lower case, and names of their columns.
TABLES = ("classes.csv", "colors.csv", "colours.csv", "class_dict.csv")
NAMES, INDICES = ("name", "class", "label"), ("index", "id", "value", "number")
COLOURS = (("r", "red"), ("g", "green"), ("b", "blue"))
# Names of no class, in lower case: their pixels have no label.
NO_CLASS = ("void", "ignore", "ignored", "unlabeled", "unlabelled", "unknown")


@dataclass(frozen=True)
class Table:
    """What the pixels of masks mean.

    Attributes:
        classes: Names, by number.
        indices: (value of a pixel, class number) pairs, for masks of one channel or a palette; () where the table has
            none.
        colours: (256² R + 256 G + B, class number) pairs, for masks in colours; () where it has none.
    """

    classes: tuple[str, ...]
    indices: tuple[tuple[int, int], ...] = ()
    colours: tuple[tuple[int, int], ...] = ()

    def renumbered(self, numbers: dict[int, int]) -> Table:
        """The same with other class numbers, {old: new}."""

        def changed(pairs):
            return tuple((value, numbers.get(number, number)) for value, number in pairs)

        return replace(self, indices=changed(self.indices), colours=changed(self.colours))


@dataclass(frozen=True)
class MaskFile:
    """A mask that is read when it is needed.

    Attributes:
        path: Of the file, or its bytes.
        table: What its pixels mean.
    """

    path: str | bytes
    table: Table

    def read(self) -> np.ndarray:
        """Class numbers, uint8 (H, W); 255 where a pixel has no label.

        Raises:
            DataError: Why it can't be used, to follow the name of a picture.
        """
        return class_numbers(values_of(self.path), self.table)

    def identity(self) -> bytes:
        """What tells it from another mask without reading a file: the size or the bytes, and the table."""
        if isinstance(self.path, bytes):
            return repr((hashlib.sha256(self.path).hexdigest(), self.table)).encode("utf-8", "surrogateescape")
        try:
            size = os.path.getsize(self.path)
        except OSError:
            size = -1
        return repr((size, self.table)).encode("utf-8", "surrogateescape")


def values_of(path: str | os.PathLike | bytes) -> np.ndarray:
    """The pixels of a mask as they are stored: (H, W), numbers or places in a palette; or RGB (H, W, 3).

    Args:
        path: Of the file, or its bytes.

    Raises:
        DataError: The file can't be read, is a JPEG or animated, has more than 8 bits, or is transparent.
    """
    try:
        data = readable(path) if isinstance(path, bytes) else read(path)
    except DataError as e:
        raise DataError(f"has a mask that {e}") from e
    if kind_of(data) not in ("PNG", "BMP", "GIF"):
        raise DataError("has a mask that is no PNG, BMP or GIF: other formats change values, so save it as PNG")
    try:
        if data[1:4] == b"PNG":
            check_png(data)
        with opened(data) as image:
            image.load()
            if image.mode == "1":
                return np.asarray(image).astype(np.uint8)
            if image.mode in ("L", "P", "RGB"):
                return np.asarray(image)
            values = np.asarray(image)
    except DataError as e:
        raise DataError(f"has a mask that {e}") from e
    except MemoryError:  # no fault of the mask
        raise
    except Exception as e:  # each decoder has its own
        raise DataError(f"has a mask that can't be decoded ({e})"[:200]) from e
    if values.ndim == 3 and values.shape[-1] in (2, 4):
        if (values[..., -1] != 255).any():
            raise DataError("has a mask with transparent pixels: save it without alpha")
        return values[..., 0] if values.shape[-1] == 2 else values[..., :3]
    if values.ndim == 2 and values.max() <= 255:  # 16 bits
        return values.astype(np.uint8)
    raise DataError("has a mask with values above 255; a class number has 8 bits")


def class_numbers(values: np.ndarray, table: Table) -> np.ndarray:
    """Turn the pixels of a mask into class numbers.

    Args:
        values: Of `values_of`. One channel is looked up among the indices; where the table has colours only, a grey is
            a colour, too.
        table: What they mean.

    Returns:
        uint8 (H, W).

    Raises:
        DataError: A pixel means no class.

    Example:
        >>> class_numbers(np.array([[0, 7, 255]], "uint8"), Table(("a", "b"), indices=((0, 0), (7, 1)))).tolist()
        [[0, 1, 255]]
    """
    if values.ndim == 2 and table.indices:
        numbers = np.full(256, -1)
        numbers[IGNORED] = IGNORED
        for value, number in table.indices:
            numbers[value] = number
        found = numbers[values]
        if (found < 0).any():
            raise DataError(f"has a mask with the value {values[found < 0].flat[0]}, which is no class")
        return found.astype(np.uint8)
    if not table.colours:
        raise DataError("has a mask in colours, and no table says what they mean: see kzoo.data.masks")
    if values.ndim == 2:
        values = np.repeat(values[..., None], 3, -1)
    keys = values.astype(np.int32) @ np.array([65536, 256, 1], np.int32)
    present, where = np.unique(keys, return_inverse=True)
    meaning = dict(table.colours)
    unknown = [key for key in present.tolist() if key not in meaning]
    if unknown:
        r, g, b = unknown[0] >> 16, unknown[0] >> 8 & 255, unknown[0] & 255
        raise DataError(f"has a mask with the colour ({r}, {g}, {b}), which is no class")
    return np.array([meaning[key] for key in present.tolist()], np.uint8)[where].reshape(keys.shape)


def read_table(path: str | os.PathLike) -> Table:
    """Read what numbers or colours mean.

    Args:
        path: A CSV with the columns name, and index, or r, g and b, or all of these. A class of the name void, ignore,
            ignored, unlabeled or unknown, or of the index 255, stands for pixels without a label. Classes are numbered
            in the order of their indices, else of the rows.

    Raises:
        DataError: It can't be read, has other columns, or two rows for one name, index or colour.
    """
    where = shown(path)
    try:
        if os.path.getsize(path) > MAX_TABLE:
            raise DataError(f"'{where}' has more than {MAX_TABLE:,} bytes, too many for a table of classes.")
        text = Path(path).read_bytes().decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise DataError(f"'{where}' can't be read ({getattr(e, 'strerror', None) or e}).") from e
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    columns = [cell.strip().lower() for cell in rows[0]] if rows else []

    def column(names):
        return next((columns.index(n) for n in names if n in columns), None)

    name, index, rgb = column(NAMES), column(INDICES), [column(c) for c in COLOURS]
    coloured = None not in rgb
    if name is None or (index is None and not coloured):
        have = ", ".join(map(shown, columns)) or "none"
        raise DataError(f"'{where}' must have the columns name,index or name,r,g,b; it has {have}.")
    entries = []
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(columns):
            raise DataError(f"'{where}' has {len(row)} cells in row {number} and {len(columns)} columns.")
        values = [_byte(row[i], where, number) for i in ([] if index is None else [index]) + (rgb if coloured else [])]
        key = values.pop(0) if index is not None else None
        colour = 65536 * values[0] + 256 * values[1] + values[2] if coloured else None
        entries.append((row[name].strip(), key, colour))
    for what, taken in zip(("name", "index", "colour"), zip(*entries, strict=True), strict=False):
        if None not in taken and len(set(taken)) < len(taken):
            raise DataError(f"'{where}' has two rows with the same {what}.")
    used = [e for e in entries if e[0].lower() not in NO_CLASS and e[1] != IGNORED]
    if index is not None:
        used.sort(key=lambda e: e[1] or 0)
    if not used or not all(e[0] for e in used) or len(used) > MAX_CLASSES:
        raise DataError(f"'{where}' must have names of 1 to {MAX_CLASSES} classes; it has {len(used)}.")
    written = class_names([e[0] for e in used], path)
    numbers = {e[0]: i for i, e in enumerate(used)}
    indices = tuple((e[1], numbers.get(e[0], IGNORED)) for e in entries if e[1] is not None)
    colours = tuple((e[2], numbers.get(e[0], IGNORED)) for e in entries if e[2] is not None)
    return Table(tuple(written[e[0]] for e in used), indices, colours)


def _byte(text, where, row):
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 255:
        raise DataError(f"'{where}' has {text.strip()!r} in row {row}, where a number from 0 to 255 is expected.")
    return value
