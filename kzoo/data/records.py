"""Images in the record files of TensorFlow Datasets, each read when it is asked for."""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np

from kzoo.data.sequences import Lazy
from kzoo.errors import DataError

CHUNK = 256  # records that array_record reads at a time


class Reader(Protocol):
    """Record files, of which the N records are read one by one, or all in their order."""

    about: str

    def __len__(self) -> int: ...
    def __call__(self, i: int) -> bytes:
        """The i-th record."""

    def all(self) -> Iterator[bytes]:
        """All of them, the first time that they are read."""


class TFRecords:
    """TFRecord files. They have no index, so one is made while they are read for the first time; 20 bytes a record.

    A record is its length (8 bytes), a checksum (4), its bytes, and a checksum (4). Damage is found when the image in
    it is decoded.

    Args:
        paths: The files in their order.
        count: The records in all of them.
    """

    about = "tfrecord files by an index that kzoo made"

    def __init__(self, paths: Sequence[str], count: int):
        self.paths, self.count = list(paths), count
        self.file, self.start, self.length = array("i"), array("q"), array("q")

    def __len__(self) -> int:
        return self.count

    def __call__(self, i: int) -> bytes:
        with open(self.paths[self.file[i]], "rb") as f:
            f.seek(self.start[i])
            return f.read(self.length[i])

    def all(self) -> Iterator[bytes]:
        for number, path in enumerate(self.paths):
            left = os.path.getsize(path)
            with open(path, "rb", buffering=1 << 20) as f:
                while head := f.read(12):
                    left -= 16
                    length = struct.unpack("<Q", head[:8])[0] if len(head) == 12 else left + 1
                    if length > left:
                        raise DataError(f"'{path}' is corrupt: it ends within a record.")
                    left -= length
                    self.file.append(number)
                    self.start.append(f.tell())
                    self.length.append(length)
                    yield f.read(length)
                    f.seek(4, os.SEEK_CUR)


class ArrayRecords:
    """Array record files, which have an index.

    Args:
        paths: The files in their order.
        count: The records in all of them.

    Raises:
        DataError: The package that reads them is missing.
    """

    about = "array_record files by their index"

    def __init__(self, paths: Sequence[str], count: int):
        try:
            from array_record.python.array_record_data_source import ArrayRecordDataSource
        except ImportError as e:
            raise DataError("It is prepared as array_record files: pip install array_record.") from e
        self.source, self.count = ArrayRecordDataSource(list(paths)), count

    def __len__(self) -> int:
        return self.count

    def __call__(self, i: int) -> bytes:
        return self.source.__getitems__([i])[0]

    def all(self) -> Iterator[bytes]:
        numbers = iter(range(self.count))
        while chunk := list(islice(numbers, CHUNK)):
            yield from self.source.__getitems__(chunk)


FORMATS = {"tfrecord": TFRecords, "array_record": ArrayRecords}


class Records(Lazy[bytes]):
    """The encoded images of record files.

    Args:
        reader: The files.
        rows: int (N,), the records in the order of the images.
        sizes: int64 (N,), the bytes of each image.

    Attributes:
        about: What they are read from, for messages.
    """

    def __init__(self, reader: Reader, rows: np.ndarray, sizes: np.ndarray):
        self.reader, self.rows, self.sizes = reader, rows, sizes
        self.about = reader.about

    def take(self, indices: np.ndarray) -> Records:
        """The images at these positions, int (M,), in that order; they may repeat. Or those where bool (N,) is true."""
        return Records(self.reader, self.rows[indices], self.sizes[indices])

    def __len__(self) -> int:
        return len(self.rows)

    def item(self, i: int) -> bytes:
        """The encoded image."""
        return image_of(features_of(self.reader(int(self.rows[i]))))


def features_of(record: bytes) -> Any:
    """The features of a serialised tf.train.Example: {name: values}."""
    from tensorflow.core.example.example_pb2 import Example

    return Example.FromString(record).features.feature


def image_of(features: Any) -> bytes:
    """The encoded image among the features of an example."""
    return features["image"].bytes_list.value[0]


def interleaved(lengths: Sequence[int], cycle: int) -> np.ndarray:
    """The order in which TensorFlow Datasets reads the records of several files: 16 of each of `cycle` files in turn.

    Args:
        lengths: The records in each file.
        cycle: Files that are open at a time.

    Returns:
        int (N,), numbers of records, counted from file to file.

    Example:
        >>> interleaved([17, 2], 16).tolist()
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 18, 16]
    """
    import tensorflow as tf

    if cycle == 1 or len(lengths) == 1:
        return np.arange(sum(lengths))
    starts = np.cumsum([0, *lengths])[:-1].astype("int64")
    files = tf.data.Dataset.from_tensor_slices((starts, np.array(lengths, "int64")))
    order = files.interleave(lambda a, n: tf.data.Dataset.range(a, a + n), cycle_length=cycle, block_length=16)
    return np.concatenate([part.numpy() for part in order.batch(65536)])
