"""Files that hold arrays: .npz, and the IDX files of MNIST."""

from __future__ import annotations

import gzip
import math
import os
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from kzoo.data.dataset import PART_COLUMNS, DataSet, Split, part_of
from kzoo.data.guards import as_uint8, shown
from kzoo.data.labels import class_names, is_missing
from kzoo.errors import DataError
from kzoo.progress import say

MAX_BYTES = 8 << 30  # of arrays read from one file
IN_MEMORY = "arrays"  # the name of a data set that was never in a file


def matches(source: str) -> bool:
    """Return whether this kind reads the source: an existing file named .npz."""
    return source.endswith(".npz") and os.path.exists(source)


def load_arrays(path: str | os.PathLike, most: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """Load the arrays of an .npz. Nothing is unpickled, and declared sizes are checked before reading.

    `kzoo.weights.read.read_npz` stays apart: weights are numbers only and every member must be one, while a data set
    may hold names of classes as text and other files, and may be much larger.

    Args:
        path: The file.
        most: Bytes that all arrays may have.

    Returns:
        {name: array}.

    Raises:
        DataError: It is not a readable .npz, holds pickled objects, or declares more than it holds or `most`.
    """
    arrays, total = {}, 0
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if not info.filename.endswith(".npy"):
                    continue
                with archive.open(info) as member:
                    version = np.lib.format.read_magic(member)
                    read = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    shape, _, dtype = read(member)
                if dtype.hasobject:
                    raise DataError(f"'{path}' holds pickled objects ({info.filename}); kzoo reads plain arrays only.")
                total += math.prod(shape) * dtype.itemsize
                if total > most or math.prod(shape) * dtype.itemsize > info.file_size:
                    raise DataError(
                        f"'{path}' declares arrays of {total:,} bytes, more than it holds or than is accepted."
                    )
                with archive.open(info) as member:
                    arrays[info.filename[:-4]] = np.lib.format.read_array(member, allow_pickle=False)
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as e:
        raise DataError(f"'{path}' is not a readable .npz file ({e}).") from e
    except Exception as e:
        if isinstance(e, (DataError, MemoryError)):
            raise
        raise DataError(f"'{path}' is not a readable .npz file ({type(e).__name__}: {e}).") from e
    return arrays


def class_numbers(values: np.typing.ArrayLike, name: str) -> np.ndarray:
    """Convert labels to int64 (N,).

    Args:
        values: (N,) or (N, 1), integers, booleans (0 and 1) or floats that are whole; or one-hot rows (N, C).
        name: Of the data set, for the message.

    Raises:
        DataError: Another shape or type.
    """
    values = np.asarray(values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    numeric = np.issubdtype(values.dtype, np.number) or values.dtype == bool
    if numeric and values.ndim == 2 and not np.iscomplexobj(values):
        if np.isin(values, (0, 1)).all() and (values.sum(1) == 1).all():
            return values.argmax(1).astype("int64")
        raise DataError(
            f"Labels in '{name}' have the shape {values.shape} and are not one-hot (a single 1 in each row), nor 0 and "
            "1 in a column for each class: kzoo needs one class an image, or several labels."
        )
    if values.size and numeric and not np.iscomplexobj(values) and np.abs(values.astype("float64")).max() > 2**31:
        raise DataError(f"'{name}' has the label {values.max():g}, which can't be a class number.")
    if values.dtype == bool or (
        np.issubdtype(values.dtype, np.floating) and (values == np.round(values)).all() and np.isfinite(values).all()
    ):
        values = values.astype("int64")
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        raise DataError(f"Labels in '{name}' must be whole numbers (N,), got {values.dtype} {values.shape}.")
    return values.astype("int64")


def _several(labels, name):
    """Whether the labels of all parts, {part: array}, are several an image: 0 and 1 (N, C), not one 1 in each row.

    Raises:
        DataError: They are, and the parts have different numbers of classes.
    """
    if not all(v.ndim == 2 and v.shape[1] > 1 and v.dtype.kind in "iufb" for v in labels.values()):
        return False
    if not all(np.isin(v, (0, 1)).all() for v in labels.values()):
        return False
    rows = [v.sum(1) for v in labels.values()]
    if all((n == 1).all() for n in rows):
        return False
    if len({v.shape[1] for v in labels.values()}) > 1:
        said = ", ".join(f"{v.shape[1]} in {part}" for part, v in labels.items())
        raise DataError(f"'{name}' has labels of different numbers of classes: {said}.")
    counts = np.concatenate(rows)
    none, one = int((counts == 0).sum()), int((counts == 1).sum())
    say(
        f"Note: '{name}' has several labels an image. Images without a label: {none:,}; with one: {one:,}; with "
        f"several: {len(counts) - none - one:,}."
    )
    return True


def split_of(
    images: np.typing.ArrayLike,
    labels: np.typing.ArrayLike,
    part: str,
    name: str,
    bits: int | None = None,
    *,
    several: bool = False,
) -> Split:
    """Make a Split from arrays, with the ids "part/0", "part/1", ...

    Args:
        images: As `kzoo.data.guards.as_uint8` takes them.
        labels: As `class_numbers` takes them, as many as images.
        part: Name of the part.
        name: Of the data set, for messages.
        bits: As `kzoo.data.guards.as_uint8` takes it.
        several: Whether labels are several an image: 0 and 1, (N, C).

    Raises:
        DataError: The arrays don't fit together or hold something else.
    """
    images = as_uint8(images, bits)
    labels = np.asarray(labels).astype("uint8") if several else class_numbers(labels, name)
    if len(images) != len(labels):
        raise DataError(f"'{name}' has {len(images)} images but {len(labels)} labels in {part}.")
    return Split(images, labels, [f"{part}/{i}" for i in range(len(labels))])


# The words of an array's name that tell what it holds, beside those that name a part: x_train, train_images, ...
IMAGES = {"x", "image", "images", "data", "pictures"}
LABELS = {"y", "label", "labels", "target", "targets"}
CLASSES = ("classes", "class_names", "label_names", "target_names")


def read(path: str, bits: int | None = None) -> DataSet:
    """Read a data set from an .npz.

    Args:
        path: A file with x_train and y_train (and x_val, y_val, x_test, y_test), or images and labels; also in other
            common words, such as train_images and train_labels. Labels are what `class_numbers` takes, or text; or
            several an image, 0 and 1 (N, C) for C classes. Optionally the names of the classes as `classes`, else they
            are the texts or the numbers.
        bits: How many bits are used of whole numbers that are not uint8, such as 12 for 0..4095.

    Returns:
        A DataSet; arrays of images without labels are `skipped`.

    Raises:
        DataError: It holds something else, or can't be read.
    """
    return of_arrays(load_arrays(path), str(path), bits)


def of_arrays(arrays: Mapping[str, np.ndarray], path: str, bits: int | None = None) -> DataSet:
    """Make a data set of arrays by what their names say; arguments as of `read`, `path` being a name for messages."""
    found, skipped = _roles(arrays, path), []
    for role, key in list(found.items()):
        part, kind = role
        other = "labels" if kind == "images" else "images"
        if (part, other) not in found:
            skipped.append((key, f"holds {len(np.atleast_1d(arrays[key])):,} {kind} without {other}"))
            del found[role]
    parts = [p for p in ("all", "train", "val", "test") if (p, "images") in found]
    if not parts:
        raise DataError(
            f"'{path}' must hold x_train and y_train (and x_val, y_val, x_test, y_test), or images and labels; "
            f"it holds {', '.join(map(shown, sorted(arrays))) or 'nothing'}."
        )
    if "all" in parts and len(parts) > 1:
        both = [found[p, "images"] for p in parts]
        raise DataError(
            f"'{path}' holds {' and '.join(both)}: the first is undivided, so it is not clear what to use. "
            "Remove it, or the others."
        )
    used = {found[p, kind] for p in parts for kind in ("images", "labels")}
    for key in sorted(arrays.keys() - used - {*CLASSES} - {k for k, _ in skipped}):
        if arrays[key].ndim >= 3:
            skipped.append((key, f"is an array {arrays[key].shape} under a name that kzoo does not read"))
        elif arrays[key].ndim == 1 and key.lower() in PART_COLUMNS:
            raise DataError(
                f"'{path}' says in {key} which part an image belongs to, and kzoo reads no such array: "
                "store x_train, y_train, x_test, y_test instead."
            )
    names = _class_names(arrays, path)
    labels = {p: arrays[found[p, "labels"]] for p in parts}
    if any(v.dtype.kind in "US" for v in labels.values()):
        names, labels = _by_text(labels, names, path)
    if bits is None:
        _check_range([arrays[found[p, "images"]] for p in parts], path)
    several = _several(labels, path)
    splits = {p: split_of(arrays[found[p, "images"]], labels[p], p, path, bits, several=several) for p in parts}
    if several:
        count = next(iter(labels.values())).shape[1]
        if names is not None and len(names) != count:
            raise DataError(f"'{path}' names {len(names)} classes, and its labels have {count} columns.")
        return DataSet(str(path), names or tuple(str(i) for i in range(count)), splits, skipped)
    every = np.concatenate([s.labels for s in splits.values()])
    highest, lowest = (int(every.max()), int(every.min())) if len(every) else (-1, -1)
    if highest > 100_000:
        raise DataError(f"'{path}' has the label {highest}, which can't be a class number.")
    if lowest == 1 < highest and (names is None or highest == len(names)):
        raise DataError(
            f"The labels in '{path}' begin at 1 (1 to {highest}), and kzoo counts classes from 0: "
            "subtract 1 from all of them."
        )
    return DataSet(str(path), names or tuple(str(i) for i in range(highest + 1)), splits, skipped)


def in_memory(source: Any, bits: int | None = None) -> DataSet:
    """Make a data set of what a notebook has in memory.

    Args:
        source: (images, labels); a dict of arrays, named as those of an .npz; or a finite tf.data set of (image, label)
            pairs, batched or not.
        bits: As of `read`.

    Returns:
        A DataSet called `IN_MEMORY`.

    Raises:
        DataError: It is something else, or does not fit together.
    """
    if is_dataset(source):
        source = _collected(source)
    if isinstance(source, (tuple, list)) and len(source) == 2:
        source = {"images": source[0], "labels": source[1]}
    if not isinstance(source, Mapping):
        raise DataError(
            f"A {type(source).__name__} is no data: give a path or a name, (images, labels), a dict of arrays such as "
            "x_train and y_train, or a tf.data set of (image, label) pairs."
        )
    try:
        arrays = {str(key): np.asarray(value) for key, value in source.items()}
    except ValueError as e:
        raise DataError(f"The arrays hold rows of different shapes ({e}).") from e
    bad = next((key for key, a in arrays.items() if a.dtype == object), None)
    if bad is not None:
        raise DataError(f"'{shown(bad)}' holds objects or rows of different shapes; give an array of numbers.")
    return of_arrays(arrays, IN_MEMORY, bits)


def is_dataset(source: Any) -> bool:
    """Whether something is a tf.data set; TensorFlow is not imported for it."""
    return hasattr(source, "as_numpy_iterator") and hasattr(source, "element_spec")


def _collected(dataset):
    """(images, labels) of a tf.data set, which is read whole."""
    if int(dataset.cardinality()) == -1:
        raise DataError("The tf.data set has no end: take(n) of it.")
    images, labels, total = [], [], 0
    for element in dataset.as_numpy_iterator():
        if not isinstance(element, tuple) or len(element) != 2:
            raise DataError("A tf.data set must give (image, label) pairs; map it.")
        image, label = map(np.asarray, element)
        batched = label.ndim and len(label) == len(image) and image.ndim == 4
        images += list(image) if batched else [image]
        labels += list(label) if batched else [label]
        total += image.nbytes
        if total > MAX_BYTES:
            raise DataError(f"The tf.data set is larger than {MAX_BYTES >> 30} GiB: write it into a folder of classes.")
    if len({image.shape for image in images}) > 1:
        raise DataError("The images of the tf.data set have different sizes: resize them, or write them into folders.")
    return np.array(images), np.array(labels)


def _check_range(images, path):
    """Refuse masks of 0 and 1, and say when pixels use little of 0..255: all would be nearly black."""
    if not all(np.issubdtype(x.dtype, np.number) and not np.iscomplexobj(x) and x.size for x in images):
        return
    high = max(float(x.max()) for x in images)
    if high == 1 and all(np.issubdtype(x.dtype, np.integer) for x in images):
        raise DataError(f"The pixels in '{path}' are 0 and 1 and must lie in 0..255: multiply them by 255.")
    if 1 < high < 32:
        say(f"Note: the pixels in '{path}' lie in 0..{high:g} of 0..255, nearly black: are they scaled otherwise?")


def _roles(arrays, path):
    """{(part, "images" or "labels"): key} of what the names of arrays say; "all" for no part."""
    found = {}
    for key in sorted(arrays):
        words = re.split(r"[_\s.-]+", key.lower())
        parts = [part_of(w) for w in words if part_of(w)]
        kinds = ["images" if w in IMAGES else "labels" for w in words if w in IMAGES | LABELS]
        if len(kinds) != 1 or len(parts) > 1 or len(parts) + 1 != len(words):
            continue
        role = (parts[0] if parts else "all"), kinds[0]
        if role in found:
            raise DataError(f"'{path}' holds {found[role]} and {key}, which mean the same: keep one of them.")
        found[role] = key
    return found


def is_images(key: str) -> bool:
    """Return whether the name of an array says that it holds images, of any part.

    Example:
        >>> is_images("x_test"), is_images("y_test")
        (True, False)
    """
    return any(kind == "images" for _, kind in _roles({key: None}, ""))


def _class_names(arrays, path):
    """The names of classes that the file holds, or None."""
    keys = [k for k in CLASSES if k in arrays]
    if not keys:
        return None
    names = [_text(c) for c in arrays[keys[0]].ravel()]
    twice = [n for n, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"'{path}' has the class {', '.join(map(repr, twice[:3]))} more than once in {keys[0]}.")
    unique = class_names(names, path)
    return tuple(unique[n] for n in names)


def _by_text(labels, names, path):
    """(names of the classes, {part: numbers}) of labels that are texts."""
    texts = {}
    for part, values in labels.items():
        if values.dtype.kind not in "US":
            raise DataError(f"'{path}' has labels that are text in one part and {values.dtype} in {part}.")
        texts[part] = [_text(v).strip() for v in values.ravel()]
    every = {t for rows in texts.values() for t in rows}
    missing = [t for t in every if is_missing(t)]
    if missing:
        raise DataError(f"'{path}' has images without a label ({missing[0]!r}): leave these out of the arrays.")
    unique = class_names(every | {*(names or ())}, path)
    order = names or tuple(sorted(set(unique.values())))
    unknown = sorted(set(unique.values()) - {*order})
    if unknown:
        raise DataError(f"'{path}' has the label {unknown[0]!r}, which is not among its classes.")
    number = {c: i for i, c in enumerate(order)}
    return order, {part: np.array([number[unique[t]] for t in rows], "int64") for part, rows in texts.items()}


def _text(value):
    """A name from text, bytes (UTF-8, else Windows-1252) or a number."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value.decode("cp1252", "backslashreplace")
    return str(value)


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """Read an IDX file of bytes, gzipped or not, such as MNIST's.

    Returns:
        A uint8 array of one to four dimensions.

    Raises:
        DataError: It is another file, or is cut off.

    Reference:
        http://yann.lecun.com/exdb/mnist: magic number 0, 0, 8, the number of dimensions; the sizes; the bytes.
    """
    try:
        with (gzip.open if str(path).endswith(".gz") else open)(path, "rb") as f:
            zero, kind, dims = struct.unpack(">HBB", f.read(4))
            if zero or kind != 8 or not 1 <= dims <= 4:
                raise DataError(f"'{path}' is not an IDX file of bytes.")
            shape = struct.unpack(f">{dims}I", f.read(4 * dims))
            if math.prod(shape) > MAX_BYTES:
                raise DataError(f"'{path}' declares {shape}, more than is accepted.")
            data = f.read(math.prod(shape) + 1)
    except (OSError, EOFError, struct.error, zlib.error) as e:
        raise DataError(f"'{path}' is not a readable IDX file ({e}).") from e
    if len(data) != math.prod(shape):
        raise DataError(f"'{path}' declares {shape} but holds {len(data)} bytes.")
    return np.frombuffer(data, np.uint8).reshape(shape)
