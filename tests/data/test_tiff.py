"""TIFF: against Pillow where Pillow reads all of it, and against files that the test writes field by field."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from kzoo.data import guards, tiff
from kzoo.data.scan import inspect_image
from kzoo.errors import DataError

RNG = np.random.default_rng(0)


def written(
    image,
    *,
    order="<",
    compression=1,
    predictor=1,
    planar=1,
    rows=None,
    tile=None,
    photometric=None,
    extra=None,
    tags=(),
):
    """A TIFF of an array (H, W, C), as a writer that knows only TIFF 6.0 makes it: fields, then blocks."""
    height, width, channels = image.shape
    bits = 8 * image.dtype.itemsize
    values = image.astype(image.dtype.newbyteorder(order))
    planes = [values[..., c : c + 1] for c in range(channels)] if planar == 2 else [values]
    blocks = []
    for plane in planes:
        if tile:
            plane = np.pad(plane, ((0, -height % tile), (0, -width % tile), (0, 0)))
            size = (tile, tile)
        else:
            size = (rows or height, width)
        for top in range(0, plane.shape[0], size[0]):
            for left in range(0, plane.shape[1], size[1]):
                block = plane[top : top + size[0], left : left + size[1]]
                if predictor == 2:
                    block = np.diff(block, axis=1, prepend=block[:, :1] * 0).astype(values.dtype)
                blocks.append(block.tobytes())
    if compression == 8:
        blocks = [zlib.compress(b) for b in blocks]
    photometric = photometric if photometric is not None else (2 if channels in (3, 4) else 1)
    fields = {256: width, 257: height, 258: [bits] * channels, 259: compression, 262: photometric, 277: channels}
    fields |= {284: planar, 317: predictor, **dict(tags)}
    fields |= {322: tile, 323: tile} if tile else {278: rows or height}
    if extra is not None:
        fields[338] = extra
    where, counts = (324, 325) if tile else (273, 279)
    fields |= {where: [0] * len(blocks), counts: [len(b) for b in blocks]}
    start = 8 + 2 + 12 * len(fields) + 4
    at, offsets = start + sum(4 * len(v) for v in fields.values() if isinstance(v, list) and len(v) > 1), []
    for b in blocks:
        offsets.append(at)
        at += len(b)
    fields[where] = offsets
    body, entries = b"", b""
    for tag, v in sorted(fields.items()):
        v = v if isinstance(v, list) else [v]
        packed = struct.pack(f"{order}{len(v)}I", *v)
        entries += struct.pack(f"{order}HHI", tag, 4, len(v))
        entries += packed if len(v) == 1 else struct.pack(f"{order}I", start + len(body))
        body += packed if len(v) > 1 else b""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(fields))
    return head + entries + bytes(4) + body + b"".join(blocks)


def picture(channels, dtype=np.uint8, shape=(37, 50)):
    return RNG.integers(0, np.iinfo(dtype).max, (*shape, channels), dtype, endpoint=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 13])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"order": ">", "rows": 7},
        {"compression": 8, "predictor": 2, "rows": 7, "order": ">"},
        {"compression": 8, "planar": 2, "rows": 16},
        {"tile": 16, "compression": 8, "predictor": 2},
        {"tile": 32, "planar": 2, "order": ">"},
    ],
    ids=str,
)
def test_any_number_of_channels(dtype, channels, how):
    image = picture(channels, dtype)
    data = written(image, **how)
    assert guards.fault(data) is None
    got, alpha = tiff.pixels(data)
    np.testing.assert_array_equal(got, image)
    assert got.dtype == dtype and not alpha
    readable = tiff.as_readable(data)
    assert guards.fault(readable) is None
    if channels not in (1, 3):
        np.testing.assert_array_equal(np.load(io.BytesIO(readable)), image)
    elif dtype == np.uint8:
        np.testing.assert_array_equal(np.atleast_3d(Image.open(io.BytesIO(readable))), image)
    else:
        deep = np.frombuffer(zlib.decompress(readable[41:-16]), np.uint8).reshape(37, -1)[:, 1:]
        np.testing.assert_array_equal(np.frombuffer(deep.tobytes(), ">u2").reshape(image.shape), image)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "I;16"])
def test_files_that_pillow_writes(mode, compression):
    if mode == "I;16":
        image = Image.fromarray(picture(1, np.uint16)[..., 0])
    elif mode == "P":
        image = Image.fromarray(picture(3)).quantize(200)
    else:
        image = Image.fromarray(picture(len(mode)).squeeze(-1) if mode == "L" else picture(len(mode)), mode)
    for extra in ({}, {"tiffinfo": {317: 2}} if compression and mode != "I;16" else {}):
        file = io.BytesIO()
        image.save(file, "TIFF", compression=compression, **extra)
        got, alpha = tiff.pixels(file.getvalue())
        want = image.convert("RGB") if mode == "P" else image
        np.testing.assert_array_equal(got, np.atleast_3d(want) if mode in ("L", "I;16") else np.asarray(want))
        assert alpha == (mode in ("LA", "RGBA"))
    info = inspect_image((file.getvalue(), "x"))[0]
    assert (info.fault, info.format, info.width) == (None, "TIFF", 50)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_as_pillow_applies_it(orientation):
    from PIL import ImageOps

    image = picture(3)
    data = written(image, tags={274: orientation}.items())
    want = Image.fromarray(image)
    want.getexif()[274] = orientation
    np.testing.assert_array_equal(tiff.pixels(data)[0], ImageOps.exif_transpose(want))


def test_white_is_zero_and_alpha_of_any_place():
    image = picture(2)
    got, alpha = tiff.pixels(written(image, photometric=0, extra=2))
    assert alpha
    np.testing.assert_array_equal(got, np.stack([255 - image[..., 0], image[..., 1]], -1))
    np.testing.assert_array_equal(tiff.pixels(written(picture(1) * 0, photometric=0))[0], 255)


@pytest.mark.parametrize(
    "how, reason",
    [
        ({"tags": {259: 7}.items()}, "compression 7"),
        ({"tags": {262: 5}.items()}, "colours 5"),
        ({"tags": {339: 3}.items()}, "floating numbers of 8 bits"),
        ({"tags": {258: 32}.items()}, "numbers of 32 bits"),
        ({"tags": {254: 1}.items()}, "only a preview"),
        ({"tags": {317: 3}.items()}, "predictor 3"),
        ({"tags": {256: 0}.items()}, "broken header"),
        ({"tags": {257: 2**31}.items()}, "broken header"),
        ({"tags": {262: 3}.items()}, "palette"),
    ],
    ids=str,
)
def test_what_is_not_read_is_named(how, reason):
    found = guards.fault(written(picture(1), **how))
    assert reason in found and "\n" not in found


def test_pages_and_previews():
    file = io.BytesIO()
    pages = [Image.fromarray(picture(3)) for _ in range(2)]
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
    assert "several pages" in guards.fault(file.getvalue())


def test_limits(tmp_path):
    small = written(picture(1, shape=(4, 4)))
    wide = bytearray(small)
    # Width, height and rows of a strip: 2**14 each are more than MAX_PIXELS; nothing of it is in the file.
    for tag, value in ((256, 2**14), (257, 2**14), (278, 2**14)):
        at = next(i for i in range(10, 10 + 12 * 20, 12) if struct.unpack_from("<H", wide, i)[0] == tag)
        struct.pack_into("<I", wide, at + 8, value)
    assert "pixels; at most" in guards.fault(bytes(wide))
    bomb = written(picture(1, shape=(4, 4)), compression=8)
    image = np.zeros((3000, 3000, 1), np.uint8)
    whole = written(image, compression=8)
    cut = whole[: len(whole) // 2]
    for data in (bomb[:-3], cut):
        assert guards.fault(data) == tiff.BROKEN
    (tmp_path / "a.tif").write_bytes(cut)
    with pytest.raises(DataError, match="truncated"):
        guards.read(tmp_path / "a.tif")


def test_broken_bytes_never_raise_anything_else():
    originals = [written(picture(3, shape=(9, 8)), compression=8, predictor=2, rows=4)]
    file = io.BytesIO()
    Image.fromarray(picture(3, shape=(9, 8))).save(file, "TIFF", compression="tiff_lzw")
    originals.append(file.getvalue())
    for i in range(3000):
        data = bytearray(originals[i % 2])
        for _ in range(RNG.integers(1, 6)):
            data[RNG.integers(4, len(data))] = RNG.integers(256)
        data = bytes(data[: RNG.integers(4, len(data))] if i % 5 == 0 else data)
        try:
            assert guards.fault(guards.readable(data)) is None
        except DataError as e:
            assert "\n" not in str(e)
