"""Files that hold arrays: .npz, and the IDX files of MNIST."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zipfile

import numpy as np

from kzoo.data.dataset import DataSet, Split
from kzoo.data.guards import as_uint8
from kzoo.errors import DataError

MAX_BYTES = 8 << 30  # of arrays read from one file


def matches(source: str) -> bool:
    """Return whether this kind reads the source: a file named .npz."""
    return source.endswith(".npz")


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
        if isinstance(e, DataError):
            raise
        raise DataError(f"'{path}' is not a readable .npz file ({type(e).__name__}: {e}).") from e
    return arrays


def class_numbers(values: np.typing.ArrayLike, name: str) -> np.ndarray:
    """Convert labels to int64 (N,).

    Args:
        values: Integers (N,) or (N, 1).
        name: Of the data set, for the message.

    Raises:
        DataError: Another shape or type.
    """
    values = np.asarray(values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        raise DataError(f"Labels in '{name}' must be whole numbers (N,), got {values.dtype} {values.shape}.")
    return values.astype("int64")


def split_of(images: np.typing.ArrayLike, labels: np.typing.ArrayLike, part: str, name: str) -> Split:
    """Make a Split from arrays, with the ids "part/0", "part/1", ...

    Args:
        images: As `kzoo.data.guards.as_uint8` takes them.
        labels: As `class_numbers` takes them, as many as images.
        part: Name of the part.
        name: Of the data set, for messages.

    Raises:
        DataError: The arrays don't fit together or hold something else.
    """
    images, labels = as_uint8(images), class_numbers(labels, name)
    if len(images) != len(labels):
        raise DataError(f"'{name}' has {len(images)} images but {len(labels)} labels in {part}.")
    return Split(images, labels, [f"{part}/{i}" for i in range(len(labels))])


def read(path: str) -> DataSet:
    """Read a data set from an .npz.

    Args:
        path: A file with x_train and y_train (and x_val, y_val, x_test, y_test), or images and labels; optionally the
            names of the classes as `classes`, else they are the numbers.

    Raises:
        DataError: It holds something else, or can't be read.
    """
    arrays = load_arrays(path)
    splits = {
        part: split_of(arrays[f"x_{part}"], arrays[f"y_{part}"], part, path)
        for part in ("train", "val", "test")
        if {f"x_{part}", f"y_{part}"} <= arrays.keys()
    }
    if not splits and {"images", "labels"} <= arrays.keys():
        splits = {"all": split_of(arrays["images"], arrays["labels"], "all", path)}
    if not splits:
        raise DataError(
            f"'{path}' must hold x_train and y_train (and x_val, y_val, x_test, y_test), or images and labels; "
            f"it holds {', '.join(sorted(arrays)) or 'nothing'}."
        )
    if "classes" in arrays:
        classes = tuple(str(c) for c in arrays["classes"].ravel())
    else:
        highest = max((int(s.labels.max()) for s in splits.values() if len(s)), default=-1)
        if highest > 100_000:
            raise DataError(f"'{path}' has the label {highest}, which can't be a class number.")
        classes = tuple(str(i) for i in range(highest + 1))
    return DataSet(str(path), classes, splits)


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
    except (OSError, EOFError, struct.error, gzip.zlib.error) as e:
        raise DataError(f"'{path}' is not a readable IDX file ({e}).") from e
    if len(data) != math.prod(shape):
        raise DataError(f"'{path}' declares {shape} but holds {len(data)} bytes.")
    return np.frombuffer(data, np.uint8).reshape(shape)
