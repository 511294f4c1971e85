"""The index of an export's variables is looked at before TensorFlow reads it, which would end the process."""

import struct

import pytest
from support.exports import LARGE
from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto

from kzoo.exporting.variables import MAGIC, claimed


def number(n):
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + number(n >> 7)


def block(entries, restart=0):
    pieces = (number(0) + number(len(k)) + number(len(v)) + k + v for k, v in entries)
    return b"".join(pieces) + struct.pack("<II", restart, 1)


def index(*entries, restart=0, compressed=0):
    """A table of entries, by the format of LevelDB."""
    data = block(entries, restart)
    table = data + bytes([compressed]) + bytes(4)
    listing = block([(b"\xff", number(0) + number(len(data)))])
    footer = number(0) + number(0) + number(len(table)) + number(len(listing))
    return table + listing + bytes(5) + footer + bytes(40 - len(footer)) + struct.pack("<Q", MAGIC)


def array(*sides, dtype=1, **more):
    entry = BundleEntryProto(dtype=dtype, **more)
    for side in sides:
        entry.shape.dim.add(size=side)
    return b"name", entry.SerializeToString()


def test_the_bytes_of_arrays_are_counted(exported):
    assert claimed(index((b"", b"header"), array(5, 3), array(2, dtype=7), array(dtype=2))) == 60 + 2 + 8
    found = claimed((exported[0] / "variables" / "variables.index").read_bytes())
    (data,) = (exported[0] / "variables").glob("variables.data-*")
    assert LARGE < found <= data.stat().st_size < found + 20_000


def test_an_index_that_tensorflow_does_not_survive_is_refused():
    assert claimed(index(array(2**62, 2**62, 0))) > 2**100
    for entry in (
        array(-5, 3),
        array(*[1] * 255),
        array(dtype=77),
        array(slices=[{}]),
        (b"name", b"\xff"),
    ):
        with pytest.raises(ValueError, match=r"impossible shape|not an index"):
            claimed(index((b"", b""), entry))
    good = index((b"", b""), array(5, 3))
    assert claimed(good) == 60
    for bad in (
        index(array(5), restart=3),
        index(array(5), compressed=1),
        *(good[:n] for n in range(0, len(good), 7)),
        good[-48:],
        bytes(40) + good[-8:],
        b"\xff" * 40 + good[-8:],
    ):
        with pytest.raises(ValueError, match="not an index"):
            claimed(bad)
