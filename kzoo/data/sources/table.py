"""A CSV file of pictures: path, label, and perhaps split.

The rules: the first line names the columns, in any order and case; others are ignored. Commas, semicolons or tabs
stand between; UTF-8, with or without a byte order mark. Paths are relative to the file's own folder and stay in it, so
that a table from elsewhere can't pull other pictures of yours into a run and its report; a link inside the folder may
lead out of it. Splits are train, val and test (or training, valid, validation); if any row has one, all must. A row
that breaks a rule, or whose file can't be read, is skipped with the reason, and so is a duplicate of an earlier row.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np

from kzoo.data.dataset import PARTS, DataSet, Split, report_skipped
from kzoo.data.guards import fault, shown
from kzoo.errors import DataError

MAX_BYTES = 256 << 20  # of the table itself: some millions of rows


def matches(source: str) -> bool:
    """Return whether this kind reads the source: a file named .csv."""
    return source.lower().endswith(".csv")


def read(path: str | os.PathLike) -> DataSet:
    """Read a table of images by the rules of this module.

    Args:
        path: The .csv file.

    Returns:
        A DataSet of paths, with the part "all", or with those that its split column names. ids are relative to the
        table's folder.

    Raises:
        DataError: The table can't be read, lacks a column, or has no usable row.
    """
    rows, skipped = [], []
    divided = False
    for number, row in _rows(path):
        divided |= bool(row["split"])
        rows.append((number, row))
    parts, seen = {}, {}
    folder = Path(os.path.abspath(path)).parent  # without "..", as names are compared with it
    for number, row in rows:
        name = os.path.normpath(row["path"]) if row["path"] else ""
        reason = _wrong(row, divided) or _outside(name, folder) or fault(folder / name)
        real = None if reason else os.path.realpath(folder / name)
        if real in seen:
            first, label = seen[real]
            again = "" if label == row["label"] else ", with another label"
            reason = f"duplicate of row {first}{again}"
        if reason:
            skipped.append((f"row {number} ({name})" if name else f"row {number}", reason))
            continue
        seen[real] = number, row["label"]
        # An absolute path inside the folder means the same file as a relative one, and the id should not tell where.
        file = os.path.relpath(folder / name, folder)
        part = PARTS[row["split"].lower()] if divided else "all"
        parts.setdefault(part, []).append((file, row["label"]))
    if not parts:
        raise DataError(f"'{path}' has no usable row: {report_skipped(skipped) if skipped else 'it is empty'}.")
    classes = sorted({label for part in parts.values() for _, label in part})
    number_of = {c: i for i, c in enumerate(classes)}
    splits = {
        part: Split(
            [str(folder / f) for f, _ in rows], np.array([number_of[c] for _, c in rows], "int64"), [f for f, _ in rows]
        )
        for part, rows in parts.items()
    }
    return DataSet(str(path), tuple(classes), splits, skipped)


def _rows(path):
    """(line number, {"path", "label", "split"}) of each row that is not empty, stripped; "" for what it lacks."""
    try:
        size = os.path.getsize(path)
        if size > MAX_BYTES:
            raise DataError(f"'{path}' has {size:,} bytes; a table may have {MAX_BYTES:,}.")
        # Names that are no UTF-8 come through, as they do from a folder.
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as f:
            first = f.readline(1 << 16)
            f.seek(0)
            delimiter = max(",;\t", key=first.count)
            reader = csv.reader(f, delimiter=delimiter)
            columns = [c.strip().lower() for c in next(reader, [])]
            if not {"path", "label"} <= set(columns):
                have = ", ".join(shown(c)[:40] for c in columns[:8])
                raise DataError(
                    f"'{path}' must name the columns path and label (and perhaps split) in its first line; "
                    f"it has {have or 'none'}."
                )
            at = {c: columns.index(c) for c in ("path", "label", "split") if c in columns}
            for row in reader:
                if any(row):
                    values = {c: row[i].strip() if i < len(row) else "" for c, i in at.items()}
                    yield reader.line_num, {"split": "", **values}
    except (OSError, csv.Error) as e:
        raise DataError(f"'{path}' is not a readable .csv file ({getattr(e, 'strerror', None) or e}).") from e


def _wrong(row, divided):
    """Why a row can't be used, from its text alone."""
    if not row["path"]:
        return "has no path"
    if "\0" in row["path"]:
        return "has a zero byte in its path"
    if not row["label"]:
        return "has no label"
    if divided and not row["split"]:
        return "has no split, though others have"
    if divided and row["split"].lower() not in PARTS:
        return f"has the split '{shown(row['split'])[:40]}'; there are train, val and test"
    return None


def _outside(name, folder):
    """Why a path is refused: it leads out of the table's folder. name: normalised."""
    inside = os.path.commonpath([os.path.normpath(folder / name), folder]) == str(folder)
    return None if inside else "leads out of the table's folder"
