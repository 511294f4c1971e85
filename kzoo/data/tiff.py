"""TIFF: read with NumPy into bytes that every decoder of kzoo takes, a PNG or an array as numpy.save writes it.

Graphs can't decode TIFF, and Pillow drops the lower 8 of 16 bits of colours and every channel behind the fourth. What
is read here is what measuring programs write: whole numbers of 8 or 16 bits in any number of channels, in strips or
tiles, uncompressed or by deflate or LZW. Everything else is refused by name.

Reference:
    TIFF Revision 6.0, Adobe 1992: sections 2 (files), 8 and 15 (fields, tiles), 13 (LZW), 14 (differences).
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from typing import NamedTuple

import numpy as np

from kzoo.errors import DataError

MAX_FIELDS = 1000
MAX_BLOCKS = 1_000_000  # strips or tiles
TYPES = {1: "B", 3: "H", 4: "I"}  # of fields: BYTE, SHORT, LONG
BROKEN = "is a TIFF that is truncated or has a broken header"
CONVERT = "convert it to PNG, or save its array with numpy.save"
COMPRESSIONS = {1: "none", 5: "lzw", 8: "deflate", 32946: "deflate"}
PHOTOMETRIC = {0: "white is zero", 1: "black is zero", 2: "RGB", 3: "palette"}


class Layout(NamedTuple):
    """Where the pixels of a TIFF are.

    Attributes:
        order: "<" or ">".
        width, height, channels, bits: As stored; bits of a channel, 8 or 16.
        block: (height, width) of a strip or tile.
        tiled: Whether those at the edges are whole, too.
        offsets, counts: Of each block, in bytes.
        compression: A value of COMPRESSIONS.
        differences: Whether values are stored as differences to their left neighbour.
        planar: Whether each channel has blocks of its own.
        photometric: A value of PHOTOMETRIC.
        alpha: Whether the last channel of 2 or 4 is alpha.
        palette: uint16 (3, 2**bits), or None.
        orientation: 1..8, as EXIF's.
    """

    order: str
    width: int
    height: int
    channels: int
    bits: int
    block: tuple[int, int]
    tiled: bool
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    compression: str
    differences: bool
    planar: bool
    photometric: str
    alpha: bool
    palette: np.ndarray | None
    orientation: int


def is_tiff(data: bytes) -> bool:
    """Return whether bytes begin as a TIFF.

    Example:
        >>> is_tiff(b"II*\\0"), is_tiff(b"II+\\0")
        (True, False)
    """
    return data[:4] in (b"II*\0", b"MM\0*")


def layout(data: bytes) -> Layout:
    """Read the fields of a TIFF; no pixel is decoded.

    Args:
        data: The bytes of a file.

    Raises:
        DataError: Why kzoo does not read it.
    """
    order = "<" if data[:2] == b"II" else ">"
    fields = _fields(data, order)

    def one(tag, otherwise=None):
        values = fields.get(tag, ())
        if not values and otherwise is None:
            raise DataError(f"{BROKEN} (field {tag} is missing)")
        return int(values[0]) if values else otherwise

    if one(254, 0) & 1:
        raise DataError(f"is a TIFF whose first picture is only a preview, as in camera raw: {CONVERT}")
    width, height, channels = one(256), one(257), one(277, 1)
    bits, kinds = fields.get(258, (1,)), fields.get(339, (1,))
    compression, photometric = one(259, 1), one(262)
    if compression not in COMPRESSIONS:
        raise DataError(f"is a TIFF of compression {compression}; kzoo reads none, deflate and LZW: {CONVERT}")
    if photometric not in PHOTOMETRIC:
        raise DataError(
            f"is a TIFF of the colours {photometric} (5 is CMYK, 6 YCbCr, 8 Lab); kzoo reads RGB: {CONVERT}"
        )
    if {*kinds} != {1} or {*bits} not in ({8}, {16}):
        kind = {2: "signed", 3: "floating"}.get(next((k for k in kinds if k != 1), 1), "")
        raise DataError(
            f"is a TIFF of {f'{kind} ' if kind else ''}numbers of {'/'.join(map(str, sorted({*bits})))} bits; kzoo "
            "reads unsigned ones of 8 or 16: scale them to 0..255 and save the array with numpy.save"
        )
    planar, predictor, tiled = one(284, 1) == 2, one(317, 1), 322 in fields
    if predictor not in (1, 2) or one(266, 1) != 1:
        raise DataError(
            f"is a TIFF of predictor {predictor} or with reversed bits, which kzoo does not read: {CONVERT}"
        )
    if min(width, height, channels) < 1 or (photometric == 2 and channels < 3) or (photometric == 3 and channels > 1):
        raise DataError(BROKEN)
    block = (one(323), one(322)) if tiled else (min(one(278, height), height), width)
    offsets, counts = fields.get(324 if tiled else 273, ()), fields.get(325 if tiled else 279, ())
    if not tiled and len(offsets) == 1 and not counts and compression == 1:  # may be left out
        counts = (width * height * channels * bits[0] // 8,)
    if min(block) < 1:
        raise DataError(BROKEN)
    n = math.ceil(height / block[0]) * math.ceil(width / block[1])
    if n * block[0] * block[1] > 4 * width * height + 2**24:
        raise DataError(BROKEN)
    n *= channels if planar else 1
    if len(offsets) != n or len(counts) != n or any(o + c > len(data) for o, c in zip(offsets, counts, strict=True)):
        raise DataError(BROKEN)
    palette = fields.get(320)
    if photometric == 3 and len(palette or ()) != 3 * 2 ** bits[0]:
        raise DataError("is a TIFF with a broken palette")
    extra = fields.get(338, ())
    return Layout(
        order,
        width,
        height,
        channels,
        int(bits[0]),
        block,
        tiled,
        offsets,
        counts,
        COMPRESSIONS[compression],
        predictor == 2,
        planar,
        PHOTOMETRIC[photometric],
        channels == (4 if photometric == 2 else 2) and extra[:1] in ((1,), (2,)),
        np.array(palette, np.uint16).reshape(3, -1) if photometric == 3 else None,
        one(274, 1),
    )


def _fields(data, order):
    """{tag: numbers} of the only picture of a TIFF. DataError if it is broken or there are several."""
    if len(data) < 8:
        raise DataError(BROKEN)
    at = struct.unpack_from(order + "I", data, 4)[0]
    n = struct.unpack_from(order + "H", data, at)[0] if at + 2 <= len(data) else 0
    if not 0 < n <= MAX_FIELDS or at + 6 + 12 * n > len(data):
        raise DataError(BROKEN)
    if struct.unpack_from(order + "I", data, at + 2 + 12 * n)[0]:
        raise DataError(
            f"is a TIFF of several pages; kzoo reads those of one picture: save each one by itself, or {CONVERT}"
        )
    found = {}
    for i in range(n):
        tag, kind, count = struct.unpack_from(order + "HHI", data, at + 2 + 12 * i)
        if kind not in TYPES:
            continue
        size = struct.calcsize(TYPES[kind]) * count
        where = at + 10 + 12 * i if size <= 4 else struct.unpack_from(order + "I", data, at + 10 + 12 * i)[0]
        if count <= MAX_BLOCKS and where + size <= len(data):
            found[tag] = struct.unpack_from(f"{order}{count}{TYPES[kind]}", data, where)
    return found


def pixels(data: bytes) -> tuple[np.ndarray, bool]:
    """Decode a TIFF.

    Args:
        data: The bytes of a file.

    Returns:
        (uint8 or uint16 (H, W, C), upright, black is 0, a palette looked up; whether the last channel is alpha).

    Raises:
        DataError: Why it can't be decoded.
    """
    x = layout(data)
    kind = np.dtype(np.uint8) if x.bits == 8 else np.dtype(x.order + "u2")
    planes, per = (x.channels, 1) if x.planar else (1, x.channels)
    (high, wide), out = x.block, np.empty((x.height, x.width, x.channels), kind.newbyteorder("="))
    down, across = math.ceil(x.height / high), math.ceil(x.width / wide)
    for i, (offset, count) in enumerate(zip(x.offsets, x.counts, strict=True)):
        plane, top, left = i // (down * across), i // across % down * high, i % across * wide
        rows = high if x.tiled else min(high, x.height - top)
        size = rows * wide * per * kind.itemsize
        body = _unpacked(data[offset : offset + count], x.compression, rows, size)
        if len(body) < size:
            raise DataError("is a TIFF that is truncated or corrupt")
        values = np.frombuffer(body, kind, rows * wide * per).reshape(rows, wide, per)
        if x.differences:
            values = np.cumsum(values, 1, dtype=out.dtype)
        part = slice(plane, plane + 1) if planes > 1 else slice(None)
        place = out[top : top + high, left : left + wide, part]
        place[...] = values[: place.shape[0], : place.shape[1]]
    if x.photometric == "white is zero":
        out[..., : x.channels - x.alpha] = np.iinfo(out.dtype).max - out[..., : x.channels - x.alpha]
    if x.palette is not None:
        out = (x.palette >> 8).astype(np.uint8).T[out[..., 0]]
    turned = out.transpose(1, 0, 2) if x.orientation > 4 else out
    # By orientation as shown: whether rows, then columns, run backwards.
    rows, columns = x.orientation in (3, 4, 7, 8), x.orientation in (2, 3, 6, 7)
    return turned[:: -1 if rows else 1, :: -1 if columns else 1], x.alpha


def _unpacked(body, compression, rows, size):
    """The bytes of a strip or tile, at most `size`."""
    if compression == "none":
        return body
    if compression == "deflate":
        try:
            return zlib.decompressobj().decompress(body, size)
        except zlib.error as e:
            raise DataError(f"is a TIFF that is corrupt ({e})") from e
    from PIL import TiffImagePlugin

    # Pillow's decoder, given the block as a grey picture of as many bytes.
    tags = (
        (256, size // rows),
        (257, rows),
        (258, 8),
        (259, 5),
        (262, 1),
        (273, 122),
        (277, 1),
        (278, rows),
        (279, len(body)),
    )
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in tags)
    try:
        return TiffImagePlugin.TiffImageFile(io.BytesIO(head + bytes(4) + body)).tobytes()
    except MemoryError:  # no fault of the image
        raise
    except Exception as e:  # its decoders raise anything
        raise DataError(f"is a TIFF that is corrupt ({type(e).__name__})") from e


def as_readable(data: bytes) -> bytes:
    """Turn a TIFF into bytes that kzoo's decoders take.

    Args:
        data: The bytes of a TIFF.

    Returns:
        A PNG for grey and RGB, with alpha or without, so that the picture is what it would be as a PNG; else an array
        as numpy.save writes it.

    Raises:
        DataError: Why it can't be read.
    """
    image, alpha = pixels(data)
    if image.shape[-1] in (1, 3) or alpha:
        return _png(image)
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(image, "<u2" if image.dtype != np.uint8 else np.uint8), allow_pickle=False)
    return buffer.getvalue()


def _png(image):
    """A PNG of (H, W, 1 to 4), hardly compressed, as it is decoded at once."""
    height, width, channels = image.shape
    rows = np.ascontiguousarray(image, ">u2" if image.dtype != np.uint8 else np.uint8).view(np.uint8)
    rows = np.pad(rows.reshape(height, -1), ((0, 0), (1, 0)))  # filter 0: none
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8 * image.dtype.itemsize, kind, 0, 0, 0)
    body = zlib.compress(rows.tobytes(), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
