"""Files that hold arrays: .npz, and the IDX files of MNIST."""

from __future__ import annotations

import gzip
import math
import struct
import zipfile

import numpy as np

from kzoo.data.dataset import DataSet, Split
from kzoo.data.guards import as_uint8
from kzoo.errors import DataError

MAX_BYTES = 8 << 30  # of arrays read from one file


def matches(source):
    """Whether this kind reads it: a file named .npz."""
    return source.endswith(".npz")


def read_npz(path, most=MAX_BYTES):
    """The arrays of an .npz, by name, at most `most` bytes. Never unpickles; sizes are checked before reading."""
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
        raise DataError(f"'{path}' is no readable .npz file ({e}).") from e
    except Exception as e:
        if isinstance(e, DataError):
            raise
        raise DataError(f"'{path}' is no readable .npz file ({type(e).__name__}: {e}).") from e
    return arrays


def class_numbers(values, name):
    values = np.asarray(values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        raise DataError(f"Labels in '{name}' must be whole numbers (N,), got {values.dtype} {values.shape}.")
    return values.astype("int64")


def split_of(images, labels, part, name):
    images, labels = as_uint8(images), class_numbers(labels, name)
    if len(images) != len(labels):
        raise DataError(f"'{name}' has {len(images)} images but {len(labels)} labels in {part}.")
    return Split(images, labels, [f"{part}/{i}" for i in range(len(labels))])


def read(path):
    arrays = read_npz(path)
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


def read_idx(path):
    """An array from an IDX file, gzipped or not (http://yann.lecun.com/exdb/mnist: magic 0, 0, 8, dimensions)."""
    try:
        with (gzip.open if str(path).endswith(".gz") else open)(path, "rb") as f:
            zero, kind, dims = struct.unpack(">HBB", f.read(4))
            if zero or kind != 8 or not 1 <= dims <= 4:
                raise DataError(f"'{path}' is no IDX file of bytes.")
            shape = struct.unpack(f">{dims}I", f.read(4 * dims))
            if math.prod(shape) > MAX_BYTES:
                raise DataError(f"'{path}' declares {shape}, more than is accepted.")
            data = f.read(math.prod(shape) + 1)
    except (OSError, EOFError, struct.error, gzip.zlib.error) as e:
        raise DataError(f"'{path}' is no readable IDX file ({e}).") from e
    if len(data) != math.prod(shape):
        raise DataError(f"'{path}' declares {shape} but holds {len(data)} bytes.")
    return np.frombuffer(data, np.uint8).reshape(shape)
