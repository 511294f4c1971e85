"""What the variables of a SavedModel claim to be, read from their index without TensorFlow's own reader.

That one ends the process at a shape that is none, such as (-5, 3), and allocates whatever is claimed.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

MAGIC = 0xDB4775248B80FB57  # at the end of a table
FOOTER = 48  # bytes: the places of two blocks, padding, MAGIC
MAX_DIMENSIONS = 254  # of TensorFlow


def claimed(index: bytes) -> int:
    """The bytes, at least, of the arrays in an index.

    Args:
        index: of the file variables.index.

    Returns:
        Their sum; a text counts as one byte.

    Raises:
        ValueError: it is no index as TensorFlow writes it.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto

    total = 0
    try:
        for name, value in _entries(index):
            if not name:  # the header
                continue
            entry = BundleEntryProto.FromString(value)
            shape, kind = [d.size for d in entry.shape.dim], tf.as_dtype(entry.dtype)
            if entry.shape.unknown_rank or entry.slices or min(shape, default=0) < 0 or len(shape) > MAX_DIMENSIONS:
                raise ValueError("an array of an impossible shape")
            # As if no side was 0: TensorFlow multiplies them one by one.
            total += math.prod(max(n, 1) for n in shape) * (1 if kind == tf.string else kind.size)
    except (IndexError, TypeError, struct.error, DecodeError) as e:
        raise ValueError("not an index of arrays") from e
    return total


def _entries(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a table: of all blocks that its last block lists."""
    footer = table[-FOOTER:]
    if len(footer) < FOOTER or struct.unpack("<Q", footer[-8:])[0] != MAGIC:
        raise ValueError("not an index of arrays")
    at = 0
    for _ in range(2):
        _, at = _number(footer, at)  # the first block has other facts
    for _, place in _block(table, *_place(footer, at)):
        yield from _block(table, *_place(place, 0))


def _place(data: bytes, at: int) -> tuple[int, int]:
    start, at = _number(data, at)
    return start, _number(data, at)[0]


def _block(table: bytes, start: int, size: int) -> list[tuple[bytes, bytes]]:
    """The keys and values of a block. A key begins with some bytes of the one before, but at the listed restarts."""
    block = table[start : start + size]
    restarts = struct.unpack("<I", block[-4:])[0]
    end = len(block) - 4 * (restarts + 1)
    if len(block) != size or end < 0 or not restarts or table[start + size] != 0:  # 0: not compressed
        raise ValueError("not an index of arrays")
    at, key, found, begins = 0, b"", [], set()
    while at < end:
        begin = at
        shared, at = _number(block, at)
        more, at = _number(block, at)
        length, at = _number(block, at)
        if shared > len(key):
            raise ValueError("not an index of arrays")
        if not shared:
            begins.add(begin)
        key = key[:shared] + block[at : at + more]
        at += more
        found.append((key, block[at : at + length]))
        at += length
    # TensorFlow may begin to read at each of the restarts.
    if at != end or not set(struct.unpack(f"<{restarts}I", block[end:-4])) <= begins:
        raise ValueError("not an index of arrays")
    return found


def _number(data: bytes, at: int) -> tuple[int, int]:
    """(a whole number in pieces of 7 bits, where the next one begins)."""
    found = 0
    for i in range(10):
        found |= (data[at + i] & 127) << 7 * i
        if data[at + i] < 128:
            return found, at + i + 1
    raise ValueError("not an index of arrays")
