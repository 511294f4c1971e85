"""A CSV or TSV file of pictures: path, label or labels, and perhaps split.

The rules:

- The first line names the columns, in any order and case; PATHS and LABELS have the names that are understood. Without
  such a line there are two columns, of which one holds files that exist.
- A column called `labels` may hold several labels an image, with ";" between them, or "|". If any of its cells has one,
  images have several labels, and an empty cell means none of them; else one class, as in the other LABELS. In place of
  a column of labels there may be a column for each class, of 0 and 1 (or no and yes, or -1 and 1): one class if each
  image has exactly one, else several labels.
- Commas, semicolons or tabs stand between. UTF-8 and UTF-16 are told by their byte order mark; without one the text is
  UTF-8, and Windows-1252 (what Excel writes) where it is no UTF-8.
- Paths are relative to the file's own folder and stay in it, so that a table from elsewhere can't pull other pictures
  of yours into a run and its report; a link inside the folder may lead out of it. Backslashes may stand for slashes.
- A column that says the part (`kzoo.data.dataset.PART_COLUMNS`, or any whose values are all names of parts) is read or
  refused, never passed over. If any row has a split, all must.
- A row that breaks a rule, has more cells than the first line or no label (`kzoo.data.labels.is_missing`), or whose
  file can't be read, is skipped with the reason, and so is a duplicate of an earlier row of the same part. Other
  columns are ignored.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np

from kzoo.data.dataset import PART_COLUMNS, DataSet, Split, part_in, part_of, report_skipped
from kzoo.data.guards import PICTURE_SUFFIXES, fault, shown
from kzoo.data.labels import BETWEEN, class_names, is_missing, multi_hot
from kzoo.data.listing import identity
from kzoo.errors import DataError
from kzoo.progress import say

MAX_BYTES = 256 << 20  # of the table itself: some millions of rows
# Names of columns, in lower case. If a table has several, the first word of a tuple wins; without it they are refused.
WEAK = ("image_id", "id", "name")  # beside another column with a path these are something else
PATHS = (
    *("path", "filename", "file", "filepath", "file_name", "file_path", "fname", "image", "image_path", "imagepath"),
    *("img", "img_path", "image_name", "imagename", "image_file", *WEAK),
)
SEVERAL = "labels"  # the column that may hold several labels
LABELS = ("label", "labels", "class", "target", "category", "class_name", "classname", "label_name", "class_label", "y")
YES, NO = {"true", "1", "1.0", "yes", "y", "t"}, {"false", "0", "0.0", "no", "n", "f"}
MINUS = {"-1", "-1.0"}  # absent where no column has a NO, as in CelebA; beside one it often means "uncertain"


def matches(source: str) -> bool:
    """Return whether this kind reads the source: an existing file named .csv or .tsv."""
    return source.lower().endswith((".csv", ".tsv")) and os.path.exists(source)


def read(path: str | os.PathLike) -> DataSet:
    """Read a table of images by the rules of this module.

    Args:
        path: The .csv or .tsv file.

    Returns:
        A DataSet of paths, with the part "all", or with those that its split column names. ids are relative to the
        table's folder; that of a file that was in an earlier part has the part in front.

    Raises:
        DataError: The table can't be read, lacks a column, has several that could be meant, or has no usable row; or
            two labels differ in case or white space only.
    """
    (rows, classes, several), skipped = _labelled(path), []
    divided = any(row["split"] for _, row in rows)
    parts, seen, used = {}, {}, set()
    folder = Path(os.path.abspath(path)).parent  # without "..", as names are compared with it
    for number, row in rows:
        name = _name(row["path"], folder)
        part = part_of(row["split"]) if divided else "all"
        reason = _wrong(row, divided) or _outside(name, folder) or _fault(folder / name)
        key = None if reason else (part, identity(folder / name))
        if key in seen:
            first, label = seen[key]
            again = "" if label == row["label"] else ", with another label"
            reason = f"duplicate of row {first}{again}"
        if reason:
            skipped.append((f"row {number} ({name})" if name else f"row {number}", reason))
            continue
        seen[key] = number, row["label"]
        # An absolute path inside the folder means the same file as a relative one, and the id should not tell where.
        file = os.path.relpath(folder / name, folder)
        # Every image has an id of its own, also that of a file in several parts, which is reported elsewhere.
        id = f"{part}:{file}" if file in used else file
        used.add(file)
        parts.setdefault(part, []).append((file, row["label"], id))
    if not parts:
        raise DataError(f"'{path}' has no usable row: {report_skipped(skipped) if skipped else 'it is empty'}.")
    found = [label for part in parts.values() for _, label, _ in part]
    names = class_names({*classes, *(name for label in found for name in (label if several else (label,)))}, path)
    classes = sorted(set(names.values()))
    number_of = {c: i for i, c in enumerate(classes)}

    def numbered(labels):
        if several:
            return multi_hot([[number_of[names[name]] for name in label] for label in labels], len(classes))
        return np.array([number_of[names[label]] for label in labels], "int64")

    splits = {
        part: Split([str(folder / file) for file, _, _ in rows], numbered([r[1] for r in rows]), [r[2] for r in rows])
        for part, rows in parts.items()
    }
    return DataSet(str(path), tuple(classes), splits, skipped)


def _labelled(path):
    """(rows of `_rows`, names of classes that the header has, whether "label" is a tuple of several names)."""
    rows, classes = _rows(path)
    if classes:
        usable = [row["label"] for _, row in rows if not row["fault"]]
        counts = [len(label) for label in usable]
        listed = ", ".join(map(shown, classes[:5])) + (", ..." if len(classes) > 5 else "")
        values = "-1 and 1" if any(row["minus"] for _, row in rows) else "0 and 1"
        what = f"'{path}' has a column of {values} for each of {len(classes)} classes ({listed})"
        if counts and set(counts) == {1}:
            say(f"Note: {what}, with one 1 in each row: one class an image.")
            return [(n, {**row, "label": row["label"][0] if row["label"] else ""}) for n, row in rows], classes, False
        say(f"Note: {what}: several labels an image. {_counted(counts)}.")
        return rows, classes, True
    cells = [row["label"] for _, row in rows]
    marks = [mark for mark in BETWEEN if any(mark in cell for cell in cells)]
    if not marks:
        if rows and rows[0][1]["column"] == SEVERAL and any("," in cell for cell in cells):
            say(
                f"Note: the column {SEVERAL} of '{path}' has commas in it, and each cell is read as one class: write ; "
                "or | if these stand between several labels."
            )
        return rows, (), False
    if rows[0][1]["column"] != SEVERAL:
        say(
            f"Note: labels of '{path}' have {' and '.join(marks)} in them, and are read as one class an image: call "
            f"the column {SEVERAL} if these stand between several labels."
        )
        return rows, (), False
    if len(marks) > 1:
        raise DataError(
            f"'{path}' has ; and | in its column {SEVERAL}, so it is not clear which stands between labels: write one."
        )
    written = [[name for name in map(str.strip, cell.split(marks[0])) if name] for cell in cells]
    rows = [(n, {**row, "label": tuple(sorted(set(w)))}) for (n, row), w in zip(rows, written, strict=True)]
    twice = sum(len(set(w)) < len(w) for w in written)
    say(
        f"Note: '{path}' has several labels an image, with {marks[0]} between them. "
        f"{_counted([len(row['label']) for _, row in rows])}."
        + (f" In {twice:,} a label stands twice, which counts once." if twice else "")
    )
    return rows, (), True


def _counted(counts):
    none, one = counts.count(0), counts.count(1)
    return f"Rows without a label: {none:,}; with one: {one:,}; with several: {len(counts) - none - one:,}"


def _rows(path):
    """(rows, names of the classes that have a column of 0 and 1).

    Rows are (line number, {"path", "label", "split", "fault", "column"}), for each that is not empty: stripped, "" for
    what it lacks. "column" names that of the label. Where classes have columns, "label" is a tuple of names.
    """
    try:
        size = os.path.getsize(path)
        if size > MAX_BYTES:
            raise DataError(f"'{path}' has {size:,} bytes; a table may have {MAX_BYTES:,}.")
        with open(path, "rb") as f:
            text, unicode = _decoded(f.read(), path)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text, path))
        table = [(reader.line_num, [c.strip() for c in row]) for row in reader if any(row)]
    except (OSError, csv.Error) as e:
        kind, reason = os.path.splitext(path)[1], getattr(e, "strerror", None) or e
        raise DataError(f"'{path}' is not a readable {kind} file ({reason}).") from e
    columns = [c.lower().replace(" ", "_") for c in table[0][1]] if table else []
    at = _columns(columns, path)
    of_classes = {} if at else _class_columns(columns, table, path)
    at = at or of_classes.pop("at", None) or _without_header(table, Path(path).parent)
    if at is None:
        have = ", ".join(shown(c)[:40] for c in columns[:8])
        raise DataError(
            f"'{path}' must name the columns path and label (and perhaps split) in its first line, or path and a "
            f"column of 0 and 1 for each class; it has {have or 'none'}."
        )
    if at.pop("header", True):
        del table[0]
    texts = [c[at["label"]] for _, c in table if at["label"] < len(c)] if "label" in at else of_classes.values()
    if not unicode and not all(map(str.isascii, texts)):
        say(f"Note: '{path}' is not UTF-8; its labels are read as Windows-1252 (cp1252).")
    if not unicode:
        of_classes = {i: _as_windows(name, path) for i, name in of_classes.items()}
    part, read_part = _part_column(columns, {**at, **{name: i for i, name in of_classes.items()}}, table, path)
    rows = []
    for number, cells in table:
        values = {c: cells[i] if i < len(cells) else "" for c, i in at.items()}
        values["more"] = any(cells[len(columns) :])
        values["split"] = read_part(cells[part]) if part is not None and part < len(cells) else ""
        values["column"] = columns[at["label"]] if "label" in at else ""
        values["fault"], values["minus"] = None, False
        if of_classes:
            has = {i: cells[i].lower() if i < len(cells) else "" for i in of_classes}
            values["label"] = tuple(sorted(name for i, name in of_classes.items() if has[i] in YES))
            unclear = next((of_classes[i] for i, v in has.items() if v not in YES | NO | MINUS), None)
            values["fault"] = unclear and f"has neither 0 nor 1 in the column {shown(unclear)}"
            values["minus"] = not MINUS.isdisjoint(has.values())
        elif values["column"] == SEVERAL and any(cells[len(columns) :]):
            raise DataError(
                f"Row {number} of '{path}' has more cells than the first line: write several labels with | between "
                "them, or put them in double quotes."
            )
        if not unicode and not of_classes:
            values["label"] = _as_windows(values["label"], path)
        rows.append((number, values))
    return rows, tuple(of_classes.values())


def _class_columns(columns, table, path):
    """{"at": {"path": i}, column: name of its class} of a table with a column of 0 and 1 for each class; else {}.

    Raises:
        DataError: The same class has two columns, or -1 stands beside 0.
    """
    found = [i for i, c in enumerate(columns) if c in PATHS]
    found = [i for i in found if columns[i] not in WEAK] or found
    if len(found) != 1 or any(c in LABELS for c in columns):
        return {}
    at = {"path": found[0]}
    part, _ = _part_column(columns, at, table[1:], path)
    rest = [i for i in range(len(columns)) if i not in (found[0], part)]
    values = {i: {r[i].lower() for _, r in table[1:] if i < len(r)} for i in rest}
    clear = YES | NO | MINUS | {""}
    classes = {i: table[0][1][i] for i in rest if columns[i] and values[i] <= clear and values[i] - {""}}
    if len(classes) < 2:
        return {}
    minus = [name for i, name in classes.items() if values[i] & MINUS]
    if minus and any(values[i] & NO for i in classes):
        raise DataError(
            f"'{path}' has -1 in the column {shown(minus[0])} and 0 as well, there or in other columns, so it is not "
            "clear which means that an image lacks the class: write 0 or 1 in each."
        )
    twice = [name for name, n in Counter(classes.values()).items() if n > 1]
    if twice:
        raise DataError(f"'{path}' has two columns {shown(twice[0])}: keep one of them.")
    others = [shown(table[0][1][i])[:24] or "without a name" for i in rest if i not in classes]
    if others:
        listed = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        say(f"Note: columns of '{path}' that do not hold 0 and 1 are no classes and are not read: {listed}.")
    return {"at": at, **classes}


def _decoded(data, path):
    """(the text of a table, whether it is Unicode). Bytes that are no UTF-8 come through, as they do in file names."""
    for mark, encoding in ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if data.startswith(mark):
            try:
                return data.decode(encoding), True
            except UnicodeDecodeError as e:
                raise DataError(f"'{path}' is not readable UTF-16 ({e.reason}): save it as UTF-8.") from e
    if data[:200].count(0) > len(data[:200]) // 4:
        raise DataError(f"'{path}' looks like UTF-16 without a byte order mark: save it as UTF-8.")
    try:
        return data.decode("utf-8-sig"), True
    except UnicodeDecodeError:
        return data.decode("utf-8-sig", "surrogateescape"), False


def _as_windows(text, path):
    try:
        return text.encode("utf-8", "surrogateescape").decode("cp1252")
    except UnicodeDecodeError as e:
        raise DataError(
            f"'{path}' has the label '{shown(text)}', which is neither UTF-8 nor Windows-1252: save it as UTF-8."
        ) from e


def _delimiter(text, path):
    first = text.lstrip("\r\n").split("\n", 1)[0][: 1 << 16]
    order = "\t,;" if str(path).lower().endswith(".tsv") else ",;\t"
    return max(order, key=first.count)


def _columns(columns, path):
    """{"path": i, "label": i} by the names of columns, or None."""
    at = {}
    for meaning, words in (("path", PATHS), ("label", LABELS)):
        found = [c for c in columns if c in words]
        if len(found) > 1:
            found = [c for c in found if c not in WEAK] or found
        found = [words[0]] * found.count(words[0]) or found
        if len(found) > 1:
            raise DataError(
                f"'{path}' has the columns {' and '.join(found)}: call the one that holds the {meaning} "
                f"{words[0]}, and only that one."
            )
        if not found:
            return None
        at[meaning] = columns.index(found[0])
    return at


def _without_header(table, folder):
    """{"path": i, "label": i, "header": False} of a table of two columns whose first line is an image; else None."""
    if not table or len(table[0][1]) != 2:
        return None
    for i, cell in enumerate(table[0][1]):
        if os.path.splitext(cell)[1].lower() in PICTURE_SUFFIXES or _is_file(folder / _name(cell, folder)):
            return {"path": i, "label": 1 - i, "header": False}
    return None


def _part_column(columns, at, table, path):
    """(the column that says the part, a function from its text to the name of a part); (None, None) if there is none.

    Raises:
        DataError: There are several, or the column says something else, such as the number of a fold.
    """
    rest = [i for i in range(len(columns)) if i not in at.values()] if len(columns) > 2 else []
    values = {i: {r[i].strip() for _, r in table if i < len(r)} - {""} for i in rest}
    found = [i for i in rest if columns[i] in PART_COLUMNS and values[i]]
    found = found or [i for i in rest if len(values[i]) > 1 and all(map(part_of, values[i]))]
    worded = [] if found else [i for i in rest if len(values[i]) > 1 and all(map(part_in, values[i]))]
    found = found or worded  # PublicTest, PrivateTest: refused
    if len(found) > 1:
        both = " and ".join(shown(columns[i]) for i in found)
        raise DataError(f"'{path}' has the columns {both}, which both say the part: keep one, and call it split.")
    if not found:
        return None, None
    (i,) = found
    yes = PART_COLUMNS.get(columns[i])
    if yes and {v.lower() for v in values[i]} <= YES | NO:
        if yes == "train" and {v.lower() for v in values[i]} & NO:
            raise DataError(
                f"'{path}' has the column {shown(columns[i])}, which does not say whether the other images are for "
                "validation or for testing: write a column split with train, val and test."
            )
        return i, lambda text: text and (yes if text.lower() in YES else "train")
    if worded or not any(map(part_of, values[i])):
        some = ", ".join(repr(shown(v)[:20]) for v in sorted(values[i])[:3])
        raise DataError(
            f"'{path}' has the column {shown(columns[i])}, which seems to say the part and holds {some}: "
            "write train, val and test there, or rename or remove the column."
        )
    return i, lambda text: text


def _name(text, folder):
    """The path of a row, normalised. Backslashes are slashes, and bytes Windows-1252, where only that gives a file."""
    if not text or "\0" in text:
        return text
    name = os.path.normpath(text)
    if _is_file(folder / name):
        return name
    tries = [name.replace("\\", "/")] if "\\" in name else []
    with suppress(UnicodeDecodeError):
        tries += [t.encode("utf-8", "surrogateescape").decode("cp1252") for t in (name, *tries) if not t.isascii()]
    return next((os.path.normpath(t) for t in tries if _is_file(folder / t)), os.path.normpath((tries or [name])[0]))


def _is_file(path):
    try:
        return os.path.isfile(path)
    except ValueError:
        return False


def _fault(path):
    """Why a file can't be used."""
    reason = fault(path)
    if reason and not path.suffix and not os.path.exists(path):
        return f"{reason}; is its name '{shown(path.name)}' without the suffix, such as .jpg? Write the whole name"
    return reason


def _wrong(row, divided):
    """Why a row can't be used, from its text alone."""
    if not row["path"]:
        return "has no path"
    if "\0" in row["path"]:
        return "has a zero byte in its path"
    if row["fault"]:
        return row["fault"]
    if row["more"]:
        return "has more cells than the first line: put quotes around text that holds the delimiter"
    if any("\0" in label for label in (row["label"] if isinstance(row["label"], tuple) else (row["label"],))):
        return "has a zero byte in its label"
    if row["label"] == "":
        return "has no label"
    missing = next(filter(is_missing, row["label"] if isinstance(row["label"], tuple) else (row["label"],)), None)
    if missing is not None:
        return f"has the label '{missing}', which means that it has none"
    if divided and not row["split"]:
        return "has no split, though others have"
    if divided and part_of(row["split"]) is None:
        return f"has the split '{shown(row['split'])[:40]}'; there are train, val and test"
    return None


def _outside(name, folder):
    """Why a path is refused: it leads out of the table's folder. name: normalised."""
    inside = os.path.commonpath([os.path.normpath(folder / name), folder]) == str(folder)
    return None if inside else "leads out of the table's folder"
