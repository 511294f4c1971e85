"""Inspect each image of a data set once: whether it is intact, its size and kind, and which images are duplicates.

Images are decoded at a small size and in threads, and only a hash and a thumbnail of each is kept, so that memory stays
at about 2 KB an image. Neither Keras nor TensorFlow is needed. Headers are checked before anything is decoded
(`kzoo.data.guards`).
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

import numpy as np
from PIL import BmpImagePlugin, GifImagePlugin, Image, ImageOps, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from kzoo.data.dataset import DataSet, Split
from kzoo.data.guards import MARKER, bits_to_name, contents, gif_frame, kind_of, orientation, readable
from kzoo.data.tiff import is_tiff
from kzoo.errors import DataError
from kzoo.hardware import cores
from kzoo.progress import Silent

SIDE = 16  # pixels of a side of the thumbnail
DECODED = 64  # pixels that the shorter side keeps while an image is inspected
PLAIN = 3.0  # standard deviation in grey levels below which a picture is too uniform to be compared
SUFFIXES = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "PNG": {".png", ".apng"},
    "GIF": {".gif"},
    "BMP": {".bmp", ".dib"},
    "WEBP": {".webp"},
    "NPY": {".npy"},
    "TIFF": {".tif", ".tiff"},
}
# By the names of `kzoo.data.guards.MAGIC`.
PLUGINS: dict[str | None, Callable[[io.BytesIO], Image.Image]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
}
LARGE = 16_000_000  # pixels from which on pictures are decoded one at a time: one may take some 400 MB
_large = threading.Lock()
T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True)
class ImageInfo:
    """What one image is.

    Attributes:
        format: "JPEG", "PNG", "GIF", "BMP", "WEBP", "NPY", "TIFF" or "array".
        width: In pixels, upright.
        height: In pixels, upright.
        modes: Those of "grey", "palette", "alpha", "CMYK", "16-bit", "animated" that apply.
        orientation: EXIF's, 1..8.
        digest: Hash of the file's bytes; of an array its shape and pixels.
        fault: Why it can't be decoded, or None.
        damage: What the decoder warned of while it decoded, or None. TensorFlow, which decodes for training, refuses a
            few of these.
        wrong_suffix: Whether the file's name has the suffix of another format.
        bits: Of 16-bit values, how many are used; 0 for an image of 8 bits.
    """

    format: str = ""
    width: int = 0
    height: int = 0
    modes: tuple[str, ...] = ()
    orientation: int = 1
    digest: bytes = b""
    fault: str | None = None
    damage: str | None = None
    wrong_suffix: bool = False
    bits: int = 0


@dataclass
class Scan:
    """What was found in each image, in one order.

    Rows of images that could not be decoded hold zeros, and are duplicates of nothing.

    Attributes:
        ids: N names.
        infos: N ImageInfo.
        hashes: uint64 (N,), perceptual (imagehash.phash).
        thumbnails: uint8 (N, 16, 16, 3).
        groups: int (N,), equal for duplicates.
        row: {id: row}.
    """

    ids: list[str]
    infos: list[ImageInfo]
    hashes: np.ndarray
    thumbnails: np.ndarray
    groups: np.ndarray

    def __post_init__(self):
        self.row = {id: i for i, id in enumerate(self.ids)}

    def groups_of(self, ids: Sequence[str]) -> np.ndarray:
        """Return the group numbers of these images, int (len(ids),); duplicates have the same number."""
        return self.groups[[self.row[id] for id in ids]]


def scan_images(splits: dict[str, Split], bar: Silent | None = None) -> Scan:
    """Inspect each image of all splits and find duplicates among them.

    A file that is missing or can't be decoded gives an ImageInfo with a `fault`, never an error.

    Args:
        splits: {part: Split}.
        bar: A `kzoo.progress`.

    Returns:
        A Scan.
    """
    from kzoo.data.duplicates import CORRELATION, FEW_PIXELS, group

    bar = bar or Silent()
    n = sum(map(len, splits.values()))
    ids, infos = [], []
    hashes, thumbnails = np.zeros(n, np.uint64), np.zeros((n, SIDE, SIDE, 3), np.uint8)
    bar.start("reading images", n)
    for split in splits.values():
        named = ((split.images[i], split.ids[i]) for i in range(len(split)))
        for id, (found, hashed, small) in zip(split.ids, in_order(inspect_image, named), strict=True):
            if hashed is not None and small is not None:
                hashes[len(ids)], thumbnails[len(ids)] = hashed, small
            ids.append(id)
            infos.append(found)
            bar.advance(1)
    usable = np.array([info.fault is None for info in infos], bool)
    small = np.array([min(info.width, info.height) < DECODED for info in infos], bool)
    min_correlation = np.where(small, FEW_PIXELS, CORRELATION)
    for start in range(0, n, 10_000):
        part = slice(start, start + 10_000)
        min_correlation[part][thumbnails[part].reshape(len(min_correlation[part]), -1).std(-1) < PLAIN] = np.inf
    return Scan(
        ids,
        infos,
        hashes,
        thumbnails,
        group([info.digest for info in infos], hashes, thumbnails, usable, min_correlation),
    )


def in_order(function: Callable[[T], R], items: Iterable[T], ahead: int | None = None) -> Iterator[R]:
    """Like map(), in threads and in order. The first calls begin before this returns.

    Args:
        function: Called with each item.
        items: Read only as far as results are needed.
        ahead: How many results may wait; by default at least 64, and two for each core.

    Returns:
        An iterator over the results. An exception of a call is raised in its place and ends it.
    """
    items, waiting, ahead = iter(items), deque(), ahead or max(64, 2 * cores())
    pool = ThreadPoolExecutor(cores())

    def begin(n):
        waiting.extend(pool.submit(function, item) for item in islice(items, n))

    def results():
        try:
            while waiting:
                yield waiting.popleft().result()
                begin(1)
        finally:
            pool.shutdown(cancel_futures=True)

    begin(ahead)
    return results()


def drop_undecodable(data: DataSet, bar: Silent | None = None) -> None:
    """Scan an undivided data set and move what can't be decoded to its `skipped`.

    Args:
        data: The data set; `splits` and `skipped` are changed, and `scan` is set.
        bar: A `kzoo.progress`.
    """
    data.scan = scan_images(data.splits, bar)
    for part, split in data.splits.items():
        faults = [data.scan.infos[data.scan.row[id]].fault for id in split.ids]
        data.skipped += [(id, fault) for id, fault in zip(split.ids, faults, strict=True) if fault]
        if any(faults):
            data.splits[part] = split.take(np.flatnonzero([f is None for f in faults]))


def bits_used(split: Split, headers: int = 500, most: int = 50) -> int:
    """Measure in a sample of a split's files how many of 16 bits they use.

    Args:
        split: Files, or encoded bytes. Arrays use 8 bits.
        headers: How many files are looked at, spread over the split.
        most: How many of those with 16 bits are decoded.

    Returns:
        8 to 16; 0 if there is no picture of 16 bits among them.
    """
    if not split.files:
        return 0
    sample = [split.images[i] for i in np.unique(np.linspace(0, len(split) - 1, headers).astype(int))]
    deep = [image for image in sample if _is_deep(image)]
    spread = [deep[i] for i in np.unique(np.linspace(0, len(deep) - 1, most).astype(int))] if deep else []
    return max((found.bits for found, _, _ in in_order(inspect_image, ((image, "") for image in spread))), default=0)


def _is_deep(image):
    """Whether the header says that there may be 16 bits."""
    try:
        with io.BytesIO(image) if isinstance(image, bytes) else open(image, "rb") as f:
            head = f.read(32)
    except OSError:  # reported where it is decoded
        return False
    return is_tiff(head) or (kind_of(head) == "PNG" and head[24:25] == b"\x10")


def bits_note(used: int) -> str | None:
    """What to say where 16-bit pictures use so many bits and nobody said so; None if nothing is lost."""
    named = bits_to_name(2**used - 1)
    if not used or named == 16:
        return None
    levels = 2 ** max(0, used - 8)
    return (
        f"The 16-bit images use {used} of 16 bits, and kzoo keeps the upper 8 (and refuses arrays), which leaves "
        f"{levels:,} grey level{'' if levels == 1 else 's'}: use --bits {named} (bits={named}) in training."
    )


# --- one image ---------------------------------------------------------------------------------------------


def inspect_image(named: tuple[np.ndarray | str | bytes, str]) -> tuple[ImageInfo, np.uint64 | None, np.ndarray | None]:
    """Inspect one image.

    Args:
        named: (image, name): a uint8 array (H, W, C), a path or encoded bytes, and its id, whose suffix is checked.

    Returns:
        (info, perceptual hash, thumbnail (16, 16, 3) uint8); the last two are None if it can't be decoded.
    """
    import imagehash

    image, name = named
    try:
        if isinstance(image, np.ndarray):
            found, picture = _array(image), _from_array(image)
        else:
            found, picture = _file(image, name)
        bits = np.packbits(imagehash.phash(picture).hash).view(">u8")[0]
        return found, bits, np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX))
    except DataError as e:
        return ImageInfo(fault=str(e)), None, None
    except OSError as e:
        return ImageInfo(fault=f"can't be read ({e.strerror or e})"), None, None
    except MemoryError:  # no fault of the image
        raise
    except Exception as e:  # hostile files raise nearly anything inside decoders
        return ImageInfo(fault=f"can't be decoded ({type(e).__name__}: {e})"[:200]), None, None


def _array(image):
    height, width, channels = image.shape
    digest = hashlib.blake2b(repr(image.shape).encode() + image.tobytes(), digest_size=16).digest()
    modes = {1: ("grey",), 3: ()}.get(channels, (f"{channels} channels",))
    return ImageInfo("array", width, height, modes, digest=digest)


def _from_array(image, side=DECODED):
    """An RGB Pillow image; of other channels than 1 and 3 the mean, which is enough to tell copies; uint8."""
    if image.shape[-1] not in (1, 3):
        image = image.mean(-1, keepdims=True).round().astype(np.uint8)
    return _small(Image.fromarray(np.broadcast_to(image, (*image.shape[:2], 3)).copy()), side)


def small_picture(source: str | os.PathLike | bytes | np.ndarray, side: int = DECODED) -> Image.Image:
    """Decode an image at a small size.

    Args:
        source: A path, encoded bytes, or a uint8 array (H, W, C).
        side: The shorter side of the result gets this to twice as many pixels, if the source has as many.

    Returns:
        An upright RGB Pillow image, transparent pixels on white, without metadata.

    Raises:
        DataError: The reason why it can't be decoded.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, side)
    return _file(source, None, side)[1]


def _file(source, name, side=DECODED):
    """(ImageInfo, RGB image) of a path or of encoded bytes. Raises DataError with the reason."""
    encoded = isinstance(source, bytes)
    stored = source if encoded else contents(source)
    data = readable(stored, "" if encoded else os.fsdecode(source))
    found, picture = _decoded(data, side)
    if is_tiff(stored):
        found.format = "TIFF"
    if not encoded and name:
        found.wrong_suffix = os.path.splitext(name)[1].lower() not in SUFFIXES[found.format]
    return found, picture


def _decoded(data, side):
    if kind_of(data) == "NPY":
        return _array_file(data, side)
    with opened(data) as image:
        found = _header(image, data)
        with _large if found.width * found.height > LARGE else nullcontext():
            if found.format == "JPEG":
                picture, found.damage = _jpeg(data, side)
            else:
                if found.format == "PNG":
                    check_png(data)
                picture = _other(image, found, side, data)
    if found.format == "JPEG" and found.orientation > 1:  # as in kzoo.data.images
        picture.getexif()[0x0112] = found.orientation
        picture = ImageOps.exif_transpose(picture)
        if found.orientation > 4:
            found.width, found.height = found.height, found.width
    return found, picture


def _array_file(data, side):
    values = np.load(io.BytesIO(data), allow_pickle=False)
    values = values.reshape(*values.shape[:2], -1)
    bits = int(values.max()).bit_length() if values.dtype == np.uint16 else 0
    if bits > 8:
        values = values >> (bits - 8)
    found = replace(_array(values), format="NPY", digest=hashlib.blake2b(data, digest_size=16).digest(), bits=bits)
    return found, _from_array(values.astype(np.uint8), side)


def opened(data: bytes) -> Image.Image:
    """Open encoded bytes that `kzoo.data.guards` accepts with Pillow, without a warning.

    Not by Image.open, which warns of large pictures (kzoo has its own limit) and of what cameras put behind a JPEG, and
    calls that a format of its own, MPO. Python's warning filters are shared by all threads, so a thread can't be kept
    from warning. A JPEG loses its EXIF, because Pillow warns of what is broken there.
    """
    kind = kind_of(data)
    if kind == "JPEG":
        data = _without_metadata(data)
    try:
        return PLUGINS[kind](io.BytesIO(data))
    except (SyntaxError, IndexError, TypeError, struct.error) as e:  # what Image.open expects of them
        raise DataError(f"has a broken header ({type(e).__name__})") from e


def _without_metadata(data):
    """A JPEG without its APP1 segments (EXIF, XMP) in front of the picture."""
    pieces, at, begin = [], 2, 0
    while (found := MARKER.search(data, at)) and data[found.end() - 1] != 0xDA:
        at = found.end()
        if data[at - 1] not in (0x01, 0xD8):
            at += int.from_bytes(data[at : at + 2], "big")
        if data[found.end() - 1] == 0xE1:
            pieces.append(data[begin : found.start()])
            begin = at
    return b"".join([*pieces, data[begin:]]) if pieces else data


def _header(image, data):
    """An ImageInfo, from what Pillow read of the header. image: open, not loaded."""
    mode, info = image.mode, image.info
    format, exif = image.format, info.get("exif") or b""
    applies = {
        "grey": mode in ("1", "L", "LA", "I", "I;16", "I;16B"),
        "palette": mode in ("P", "PA"),
        "alpha": mode in ("RGBA", "LA", "PA") or "transparency" in info,
        "CMYK": mode == "CMYK",
        # Pillow opens 16-bit colour as 8-bit; byte 24 of a PNG is the depth.
        "16-bit": mode.startswith("I") or (format == "PNG" and data[24:25] == b"\x10"),
        "animated": format != "JPEG" and getattr(image, "is_animated", False),
    }
    return ImageInfo(
        format,
        image.width,
        image.height,
        tuple(k for k, v in applies.items() if v),
        orientation(data if format == "JPEG" else b"Exif\0\0" + exif.removeprefix(b"Exif\0\0")),
        hashlib.blake2b(data, digest_size=16).digest(),
    )


def _jpeg(data, side):
    """(small RGB image, damage). libjpeg scales while it decodes, yet reads every byte, so damage anywhere is noticed.

    TensorFlow and Pillow decode a JPEG that is corrupt in the middle without an error; simplejpeg's strict mode passes
    on what libjpeg warns of. A file that ends early can't be decoded in training either, so that is a fault.
    """
    import simplejpeg

    _check_jpeg(data)
    options = dict(colorspace="RGB", min_width=side, min_height=side)
    damage = None
    try:
        pixels = simplejpeg.decode_jpeg(data, **options)
    except ValueError as e:
        damage = str(e).strip(" .")
        try:
            pixels = simplejpeg.decode_jpeg(data, strict=False, **options)
        except ValueError:  # its header checks stay strict
            with opened(data) as image:
                return _other(image, ImageInfo(), side, data), damage
    return _small(Image.fromarray(pixels), side), damage


def _check_jpeg(data):
    """DataError for a missing end marker; data behind the end, such as a phone's video, is not read.

    From marker to marker, as `kzoo.data.guards` counts the scans.
    """
    at = 2
    while found := MARKER.search(data, at):
        at, kind = found.end(), data[found.end() - 1]
        if kind == 0xD9:
            return
        at += 0 if kind in (0x01, 0xD8) else int.from_bytes(data[at : at + 2], "big")
    # Corrupt data within a scan may look like a segment that leads past the end: then libjpeg decides.
    if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise DataError("is truncated (the file ends before the picture)")


def check_png(data: bytes) -> None:
    """Raise a DataError if a checksum is wrong or the end is missing: Pillow checks neither once it has all rows.

    PNG specification, section 5.3: after 8 bytes, chunks of length, type, data and the CRC-32 of type and data. A type
    that begins with a capital is needed for the picture; damage in others, such as text, does no harm.
    """
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        end = at + 8 + length
        if kind[:1].isupper() and zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            break
        if kind == b"IEND":
            return
        at = end + 4
    if at + 12 <= len(data) and end + 4 <= len(data):
        raise DataError(f"is corrupt (the checksum of its {kind.decode('ascii', 'replace')} chunk is wrong)")
    raise DataError("is truncated (the file ends before the picture)")


def _other(image, found, side, data):
    """A small RGB image of what Pillow decodes, whole: transparent pixels on white, 16 bits by their upper 8."""
    values = None
    try:
        if found.format == "PNG" and "16-bit" in found.modes:
            values = _values_16(data)
        if found.format == "GIF":
            image = _gif(image, gif_frame(data))
        image.load()
    except MemoryError:  # no fault of the image
        raise
    except Exception as e:  # each decoder has its own
        raise DataError(f"can't be decoded ({e})") from e
    if values is not None:
        found.bits = int(values.max()).bit_length()
    if image.mode.startswith("I"):
        image = Image.fromarray((values >> 8).astype(np.uint8))
    if found.format == "PNG" and image.mode in ("1", "L", "RGB"):
        image = _keyed(image, data, values)
    if image.mode == "RGBA" or "alpha" in found.modes:
        image = _small(image.convert("RGBA"), side)
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return _small(image.convert("RGB"), side)


def _values_16(data):
    """The values of a 16-bit PNG without alpha, (H, W) or (H, W, 3) uint16; of one with alpha the upper 8 bits."""
    with opened(data) as image:
        if image.mode != "RGB":
            values = np.asarray(image)
            return values.astype(np.uint16) if image.mode.startswith("I") else values[..., :-1].astype(np.uint16) * 256
        upper = np.asarray(image).astype(np.uint16)
    with opened(data) as image:  # Pillow gives the upper 8 bits, and the lower ones if it is told another order
        image.tile = [tile._replace(args="RGB;16L") for tile in image.tile]
        return upper * 256 + np.asarray(image)


def _keyed(image, data, values):
    """RGBA of a grey or RGB PNG with one transparent colour (chunk tRNS), as in `kzoo.data.images`; else the image.

    Pillow compares 16-bit values by 8 bits, and does not stretch a key of less than 8.
    """
    at = 8
    while at + 8 <= len(data) and data[at + 4 : at + 8] not in (b"IDAT", b"IEND", b"tRNS"):
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    image.info.pop("transparency", None)
    if data[at + 4 : at + 8] != b"tRNS":
        return image
    depth = data[24]
    key = np.frombuffer((data[at + 8 : at + 14] + bytes(6))[:6], ">u2").astype(int)
    if depth < 8:
        key = np.minimum(key, 2**depth - 1) * (255 // (2**depth - 1))
    pixels = np.asarray(image.convert("L") if image.mode == "1" else image)
    compared = np.atleast_3d(pixels if values is None else values)
    alpha = np.where((compared == key[: compared.shape[-1]]).all(-1), 0, 255).astype(np.uint8)
    colour = np.asarray(Image.fromarray(pixels).convert("RGB"))
    return Image.fromarray(np.dstack([colour, alpha]))


def _gif(image, frame):
    """RGBA of a GIF's first frame; what lies outside it is transparent."""
    left, top, width, height = frame
    inside = image.convert("RGBA").crop((left, top, left + width, top + height))
    whole = Image.new("RGBA", image.size)
    whole.paste(inside, (left, top))
    return whole


def _small(image, side):
    """Reduced by a whole number, so that the shorter side keeps at min_correlation `side` pixels."""
    factor = min(image.size) // side
    return image.reduce(factor) if factor > 1 else image
