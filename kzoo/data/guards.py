"""Checks before a pixel is decoded, from headers, sizes and types, without TensorFlow.

All limits of image files stand here. `fault` applies them in Python, `kzoo.data.header.refusal` inside graphs, with the
same words; Pillow is not asked, because it warns, and Python's warning filters are shared by all threads.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from kzoo.data import tiff
from kzoo.errors import DataError

if TYPE_CHECKING:
    from kzoo.catalog import Preprocessing

MAX_PIXELS = 100_000_000  # more than cameras produce; 300 MB once decoded
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
MAX_FILE = 1 << 30  # bytes of one image file, which is read whole
# Of a JPEG: each scan of a progressive one may pass over all pixels again, and an empty one takes ten bytes. Usual are
# ten.
MAX_SCANS = 100
MAX_SEGMENTS = 10_000  # of a JPEG, of up to 64 KB: a large profile or depth map has hundreds
MAX_CHUNKS = 10_000  # of a PNG in front of its pixels
MAX_BLOCKS = 65_536  # of a GIF up to the end of its first frame: 16 MB in blocks of 255 bytes
HEAD = 16_384  # bytes of a file that tell its kind and size; a JPEG's stand behind its metadata
# How files begin: (position, bytes).
MAGIC = {
    "JPEG": (0, b"\xff\xd8\xff"),
    "PNG": (0, b"\x89PNG"),
    "GIF": (0, b"GIF8"),
    "BMP": (0, b"BM"),
    "WebP": (8, b"WEBP"),
    "NPY": (0, b"\x93NUMPY"),
}
# What stands in front of an array: one picture of uint8 or uint16, (H, W) or (H, W, C), numbers of at most 9 digits.
# For Python and for TensorFlow (RE2).
NPY = r"\{'descr': '(\|u1|<u2)', 'fortran_order': False, 'shape': \((\d{1,9}), (\d{1,9})(?:, (\d{1,4}))?\), \}\s*"
BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # bytes: OS/2's, Windows' and their successors
# Bits of a pixel, and the masks of red, green, blue and alpha that may be declared with them.
BMP_MASKS = (
    (16, 0x7C00, 0x3E0, 0x1F, 0),
    (16, 0xF800, 0x7E0, 0x1F, 0),
    (24, 0xFF0000, 0xFF00, 0xFF, 0),
    (32, 0xFF0000, 0xFF00, 0xFF, 0),
    (32, 0xFF0000, 0xFF00, 0xFF, 0xFF000000),
    (32, 0xFF, 0xFF00, 0xFF0000, 0xFF000000),
    (32, 0xFF000000, 0xFF0000, 0xFF00, 0),
    (32, 0xFF000000, 0xFF0000, 0xFF00, 0xFF),
)
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)  # of a JPEG, except restart markers
# What `fault` and `kzoo.data.header.refusal` say.
EMPTY = "is empty"
UNKNOWN = "is not a JPEG, PNG, GIF, BMP or WebP image"
ANIMATED = "is an animated WebP; only still ones can be read"
# Of a graph alone; Python converts it, see `readable`.
TIFF = "is a TIFF file, which an exported graph can't decode: convert it to PNG, or give the file to kzoo predict"
BROKEN = "has a broken header"
ARRAY = "is no array of one picture: (H, W) or (H, W, C), uint8 or uint16, as numpy.save writes it"
ODD_BMP = "is a BMP that is compressed or has unusual masks, which kzoo does not read: convert it to PNG"
SCANS = f"has more than {MAX_SCANS} scans"


# Formats that kzoo does not read, by how files begin: (position, bytes) -> the name.
FOREIGN = {
    **{(4, b"ftyp" + b): "HEIC" for b in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")},
    **{(4, b"ftyp" + b): "HEIF" for b in (b"mif1", b"msf1", b"heif", b"mif2")},
    **{(4, b"ftyp" + b): "AVIF" for b in (b"avif", b"avis")},
    (4, b"ftypcrx "): "camera raw (CR3)",
    (8, b"CR\x02\x00"): "camera raw (CR2)",
    (0, b"FUJIFILMCCD-RAW"): "camera raw (RAF)",
    (0, b"IIRO"): "camera raw (ORF)",
    (0, b"IIRS"): "camera raw (ORF)",
    (0, b"MMOR"): "camera raw (ORF)",
    (0, b"IIU\x00"): "camera raw (RW2)",
    (0, b"FOVb"): "camera raw (X3F)",
    (0, b"II*\x00"): "TIFF",  # which Python reads, graphs do not; or DNG, NEF, ARW, PEF: told by the suffix, `foreign`
    (0, b"MM\x00*"): "TIFF",
    (0, b"II+\x00"): "BigTIFF",
    (0, b"MM\x00+"): "BigTIFF",
    (0, b"\xff\x0a"): "JPEG XL",
    (4, b"JXL \r\n\x87\n"): "JPEG XL",
    (4, b"jP  \r\n\x87\n"): "JPEG 2000",
    (0, b"\xff\x4f\xff\x51"): "JPEG 2000",
    (0, b"8BPS"): "Photoshop",
    (0, b"%PDF-"): "PDF",
    (0, b"<svg"): "SVG",
}
RAW_SUFFIXES = {".dng", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".pef", ".3fr", ".iiq", ".erf", ".kdc", ".dcr", ".mos"}
# Suffixes of files that are meant to be pictures, whether kzoo reads them or not.
PICTURE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".webp"),
    *(".heic", ".heif", ".hif", ".avif", ".tif", ".tiff", ".jxl", ".jp2"),
    *(".cr2", ".cr3", ".raf", ".orf", ".rw2", ".x3f"),
    *RAW_SUFFIXES,
}
# What operating systems, storage devices and tools leave between a user's files, in lower case. Hidden names (.*) are
# clutter, too: .DS_Store, .ipynb_checkpoints, .git, and the ._* files of macOS.
CLUTTER = {
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "lost+found", "$recycle.bin", "recycler"),
    *("system volume information", "@eadir", "#recycle", "@recycle", "@__thumb", "#snapshot"),
}


def is_clutter(name: str) -> bool:
    """Return whether a file or folder of this name belongs to the system or a tool, and is no part of anyone's data.

    Example:
        >>> is_clutter("__MACOSX"), is_clutter("._cat.jpg"), is_clutter("cat.jpg")
        (True, True, False)
    """
    return name.startswith(".") or name.lower() in CLUTTER


def is_picture(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is meant to be a picture: by its suffix, else by its header."""
    return os.path.splitext(path)[1].lower() in PICTURE_SUFFIXES or fault(path) is None


def foreign(head: bytes, name: str = "") -> str | None:
    """Name the picture format that kzoo does not read.

    Args:
        head: The first bytes of a file, 32 or more.
        name: Of the file. Most camera raw formats are TIFF inside, and only the suffix tells.

    Returns:
        Such as "HEIC"; None if the bytes are none of `FOREIGN`.

    Example:
        >>> foreign(bytes(4) + b"ftypheic" + bytes(20))
        'HEIC'
    """
    found = [kind for (start, magic), kind in FOREIGN.items() if head[start : start + len(magic)] == magic]
    suffix = os.path.splitext(name)[1].lower()
    if found[:1] == ["TIFF"] and suffix in RAW_SUFFIXES:
        return f"camera raw ({suffix[1:].upper()})"
    if found[:1] == ["HEIF"] and (b"heic" in head[16:] or b"heix" in head[16:]):
        return "HEIC"
    if found[:1] == ["HEIF"] and b"avif" in head[16:]:
        return "AVIF"
    return found[0] if found else None


def fault(file: str | os.PathLike | bytes | BinaryIO) -> str | None:
    """Check a file's header. Nothing is decoded, so a small file that declares a huge picture costs nothing.

    Args:
        file: A path, the bytes of a file, or a binary file object.

    Returns:
        Why the file can't be an image for kzoo, such as "is empty"; None if nothing is wrong so far.
    """
    try:
        return _fault(contents(file), os.fsdecode(file) if isinstance(file, (str, os.PathLike)) else "")
    except DataError as e:
        return str(e)


def glance(path: str | os.PathLike[str]) -> str | None:
    """`fault` of a path, of which only the first 16 KB are read where they tell enough; decoding checks the rest.

    Of a million photos of 100 KB that is a tenth of the bytes. What stands further behind in a JPEG, such as too many
    scans, is found when it is decoded.
    """
    try:
        with open(path, "rb") as f:
            head = f.read(HEAD)
    except OSError as e:
        return f"can't be read ({e.strerror or e})"
    whole = len(head) < HEAD or os.path.getsize(path) > MAX_FILE
    kind = kind_of(head)
    if (
        whole
        or kind in ("GIF", "NPY")
        or (kind is None and tiff.is_tiff(head))
        or (kind == "JPEG" and not _jpeg(head)[2])
    ):
        return fault(path)  # what is asked for may stand anywhere
    return _fault(head, os.fsdecode(path))


def _unknown(head, name):
    """Why a file of another format can't be used."""
    kind = foreign(head, name)
    if kind is None:
        return UNKNOWN
    article = "an" if kind in ("AVIF", "SVG") else "a"
    return (
        f"is {article} {kind} file, which kzoo does not read: convert it to JPEG or PNG, {_CONVERT.get(kind, _OTHER)}"
    )


_OTHER = "for example with ImageMagick (magick IN OUT.png)"
_CONVERT = {
    **dict.fromkeys(
        ("HEIC", "HEIF"), "for example with heif-convert IN OUT.jpg, or set the phone's camera to Most Compatible"
    ),
    "AVIF": "for example with avifdec IN OUT.png",
    "SVG": "for example with rsvg-convert IN -o OUT.png",
    "PDF": "for example with pdftoppm -png IN OUT",
}


def read(path: str | os.PathLike) -> bytes:
    """Read a file and check its header; a TIFF becomes bytes of another format, see `readable`.

    Raises:
        DataError: The reason that `fault` gives.
    """
    return readable(contents(path), os.fsdecode(path))


def readable(data: bytes, name: str = "") -> bytes:
    """Check the header of encoded bytes, and turn a TIFF into bytes that decoders take (`kzoo.data.tiff`).

    Args:
        data: The bytes of a file.
        name: Of the file. Most camera raw formats are TIFF inside, and only the suffix tells.

    Raises:
        DataError: The reason that `fault` gives.
    """
    reason = _fault(data, name)
    if reason:
        raise DataError(reason)
    return tiff.as_readable(data) if tiff.is_tiff(data) else data


def contents(file: str | os.PathLike | bytes | BinaryIO) -> bytes:
    """Return the bytes of a path, a file object or bytes, as they are.

    Raises:
        DataError: It can't be read, is empty or too large.
    """
    if isinstance(file, bytes):
        return file
    try:
        if not isinstance(file, (str, os.PathLike)):
            file.seek(0)
            return file.read()
        size = os.path.getsize(file)
        if 0 < size <= MAX_FILE:
            with open(file, "rb") as f:
                return f.read(MAX_FILE + 1)
    except OSError as e:
        raise DataError(f"can't be read ({e.strerror or e})") from e
    raise DataError(EMPTY if size == 0 else f"has {size:,} bytes; at most {MAX_FILE:,} are accepted")


def _fault(data, name=""):
    """Why bytes are no image for kzoo, or None, as `kzoo.data.header.refusal` has it in a graph."""
    if not data:
        return EMPTY
    if len(data) > MAX_FILE:
        return f"has {len(data):,} bytes; at most {MAX_FILE:,} are accepted"
    kind = kind_of(data)
    if tiff.is_tiff(data) and foreign(data[:64], name) == "TIFF":
        return _tiff(data)
    if kind is None:
        return _unknown(data[:64], name)
    if kind == "WebP" and data[15:16] == b"X" and data[20:21] and data[20] // 2 % 2:
        return ANIMATED
    width, height, scans = _jpeg(data) if kind == "JPEG" else (*declared(data), 0)
    if kind == "NPY" and not _npy(data):
        return ARRAY
    if max(width, height) > MAX_PIXELS or width * height > MAX_PIXELS:
        return f"declares {width}x{height} pixels; at most {MAX_PIXELS:,} are accepted"
    if scans > MAX_SCANS:
        return SCANS
    if min(width, height) < 1:
        return BROKEN
    return ODD_BMP if kind == "BMP" and not is_known_bmp(data) else None


def _tiff(data):
    try:
        x = tiff.layout(data)
    except DataError as e:
        return str(e)
    if x.width * x.height > MAX_PIXELS:
        return f"declares {x.width}x{x.height} pixels; at most {MAX_PIXELS:,} are accepted"
    size = x.width * x.height * x.channels * x.bits // 8
    return f"declares {size:,} bytes of pixels; at most {MAX_FILE:,} are accepted" if size > MAX_FILE else None


def kind_of(data: bytes) -> str | None:
    """Tell the format of encoded bytes, a key of `MAGIC`, by how they begin; None for any other."""
    return next((kind for kind, (at, magic) in MAGIC.items() if data[at : at + len(magic)] == magic), None)


def declared(data: bytes) -> tuple[int, int]:
    """Read the size that encoded bytes declare, as `kzoo.data.header.declared` does in a graph.

    Returns:
        (width, height); zeros for an unknown format or a broken header.

    Example:
        >>> declared(b"\\x89PNG\\r\\n\\x1a\\n" + bytes(8) + bytes([0, 0, 0, 31, 0, 0, 0, 20]))
        (31, 20)
    """
    kind, head = kind_of(data), data[:32] + bytes(max(0, 32 - len(data)))

    def little(at, n):
        return int.from_bytes(head[at : at + n], "little")

    def signed(x):  # a BMP of negative height is stored from top to bottom
        return abs(x - 2**32 if x >= 2**31 else x)

    if kind == "JPEG":
        return _jpeg(data)[:2]
    if kind == "PNG":
        return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    if kind == "GIF":
        left, top, width, height = gif_frame(data)
        return (max(little(6, 2), left + width), max(little(8, 2), top + height)) if width and height else (0, 0)
    if kind == "NPY":
        return _npy_size(data)
    if kind == "BMP" and little(14, 4) == 12:
        return little(18, 2), little(20, 2)
    if kind == "BMP":
        return signed(little(18, 4)), signed(little(22, 4))
    if kind == "WebP" and head[15:16] == b"X":
        return little(24, 3) + 1, little(27, 3) + 1
    if kind == "WebP" and head[15:16] == b"L":
        return little(21, 4) % 16384 + 1, little(21, 4) // 16384 % 16384 + 1
    return (little(26, 2) % 16384, little(28, 2) % 16384) if kind == "WebP" else (0, 0)


def _jpeg(data):
    """(width, height, scans) of a JPEG up to its end marker, or more scans than MAX_SCANS.

    ITU-T T.81, section B.1.1: a marker is 0xFF and a byte; most are followed by a length and so many bytes, the start
    of a scan by compressed data as well, in which 0xFF is followed by 0 or a restart marker. Data behind the end, such
    as a phone's video, is not read.
    """
    at, scans, width, height = 2, 0, 0, 0

    def u16(i):
        return 256 * data[min(i, len(data) - 1)] + data[min(i + 1, len(data) - 1)]

    for _ in range(MAX_SEGMENTS):
        found = MARKER.search(data, at)
        if not found or data[found.end() - 1] == 0xD9:
            return width, height, scans
        at, kind = found.end(), data[found.end() - 1]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC) and not scans and not width:
            height, width = u16(at + 3), u16(at + 5)
        scans += kind == 0xDA
        if scans > MAX_SCANS:
            return width, height, scans
        at += 0 if kind in (0x01, 0xD8) else u16(at)
    return width, height, MAX_SCANS + 1


def is_known_bmp(data: bytes) -> bool:
    """Return whether kzoo reads a BMP with these headers, as `kzoo.data.header.bmp_layout` tells in a graph."""
    head = data[:70] + bytes(max(0, 70 - len(data)))

    def little(at, n=4):
        return int.from_bytes(head[at : at + n], "little")

    header = little(14)
    if header not in BMP_HEADERS:
        return False
    bits, compression = (little(24, 2), 0) if header == 12 else (little(28, 2), little(30))
    masks = (*(little(at) for at in (54, 58, 62)), little(66) if header >= 56 else 0)
    if compression == 3:
        return (bits, *masks) in BMP_MASKS
    return compression == 0 and bits in (1, 4, 8, 16, 24, 32)


def _npy(data):
    """The match of an array's description."""
    if data[6:8] != b"\x01\x00":
        return None
    length = int.from_bytes(data[8:10], "little")
    return re.fullmatch(NPY, data[10 : 10 + length].decode("latin-1"))


def _npy_size(data):
    """(width, height) of an array; zeros if its values are more or fewer than it says."""
    found = _npy(data)
    if not found:
        return 0, 0
    height, width, channels = int(found[2]), int(found[3]), int(found[4] or 1)
    size = height * width * channels * (2 if found[1] == "<u2" else 1)
    return (width, height) if len(data) == 10 + int.from_bytes(data[8:10], "little") + size else (0, 0)


def gif_frame(data: bytes) -> tuple[int, int, int, int]:
    """(left, top, width, height) of a GIF's first frame on its canvas; zeros if there is none within MAX_BLOCKS.

    Blocks: `kzoo.data.header`.
    """

    def at(i):
        return data[min(i, len(data) - 1)]

    def palette(flags):
        return 6 * 2 ** (flags % 8) if flags >= 128 else 0

    where, frame, turns = 13 + palette(at(10)), (0, 0, 0, 0), 0
    while where < len(data) and turns < MAX_BLOCKS:
        kind = at(where)
        if kind not in (0x21, 0x2C):
            break
        if kind == 0x2C:
            frame = tuple(at(where + i) + 256 * at(where + i + 1) for i in (1, 3, 5, 7))
        where += 11 + palette(at(where + 9)) if kind == 0x2C else 2
        turns += 1
        while where < len(data) and turns < MAX_BLOCKS:
            length, where, turns = at(where), where + at(where) + 1, turns + 1
            if not length:
                break
        else:
            break
        if kind == 0x2C:
            return frame if where <= len(data) else (0, 0, 0, 0)
    return 0, 0, 0, 0


def orientation(data: bytes) -> int:
    """Read the EXIF orientation of a JPEG as `kzoo.data.images.orientation` does: 1..8, 1 if there is none."""
    head = data[:65536]
    start = head.find(b"Exif\0\0")
    if start < 0:
        return 1
    tiff = head[start + 6 :] + bytes(64 * 12 + 32)
    order = "little" if tiff[0] == 0x49 else "big"

    def u16(i):
        i = min(i, len(tiff) - 1)
        return int.from_bytes((tiff[i : i + 2] + tiff[-1:])[:2], order)

    directory = u16(4 if order == "little" else 6)
    entries = [directory + 2 + 12 * k for k in range(min(64, u16(directory)))]
    value = max((u16(e + 8) for e in entries if u16(e) == 0x0112), default=1)
    return value if 1 <= value <= 8 else 1


def upright_size(data: bytes) -> tuple[int, int]:
    """The (height, width) of a picture as it is seen, from the header of encoded bytes; zeros if that is broken."""
    width, height = declared(data)
    return (width, height) if kind_of(data) == "JPEG" and orientation(data) > 4 else (height, width)


def shown(path: object) -> str:
    """Format a path for a message, with control characters and undecodable bytes escaped.

    Example:
        >>> shown("a\\tb.jpg")
        'a\\\\tb.jpg'
    """
    return str(path).encode("utf-8", "backslashreplace").decode().encode("unicode_escape").decode("ascii")


def npy(image: np.ndarray) -> bytes:
    """One picture as the bytes of a file, as numpy.save writes it: (H, W) or (H, W, C), uint8 or uint16."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(image, "<u2" if image.dtype != np.uint8 else np.uint8), allow_pickle=False)
    return buffer.getvalue()


def is_ready(have: Sequence[int], shape: Sequence[int], preprocessing: Preprocessing) -> bool:
    """Tell whether arrays need neither resizing nor cropping.

    Args:
        have: Shape of each array.
        shape: (height, width, channels) of the model's input.
        preprocessing: Its crop, and its rules: by the first ones the crop was left out in training and evaluation.
    """
    return tuple(have) == tuple(shape) and (preprocessing.crop == 1.0 or preprocessing.rules == 1)


def check_channels(have: int, wanted: int) -> None:
    """Check that images of `have` channels can feed a model of `wanted` channels: equal numbers, or 1 and 3.

    Raises:
        DataError: There is no conversion.
    """
    if have != wanted and {have, wanted} != {1, 3}:
        raise DataError(f"The images have {have} channels, the model takes {wanted}; kzoo converts only 1 and 3.")


def bits_to_name(high: int) -> int:
    """Return how many bits a sensor has whose highest value this is: 8, 10, 12, 14 or 16.

    Example:
        >>> bits_to_name(3000), bits_to_name(255)
        (12, 8)
    """
    return next(n for n in (8, 10, 12, 14, 16) if high < 2**n)


def _looks_channels_first(shape):
    """Few rows of long columns in many channels, or channels as many as columns and more than rows."""
    _, first, second, last = shape
    if first <= 4:
        return min(second, last) > 4
    return last > 4 and (first < second == last or 4 * first <= min(second, last))


def as_uint8(images: np.typing.ArrayLike, bits: int | None = None) -> np.ndarray:
    """Convert images to (N, H, W, C) uint8.

    Args:
        images: (N, H, W) or (N, H, W, C), numbers in 0..255, rounded if they are not whole.
        bits: Of whole numbers that are not uint8, how many bits are used, such as 12 for 0..4095. They are scaled as
            `kzoo.data.images.scaled` does; None leaves them.

    Returns:
        uint8 (N, H, W, C), not copied if it is that already.

    Raises:
        DataError: Another shape, type or range, such as floats in 0..1 or channels in front.
    """
    images = np.asarray(images)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim == 4 and _looks_channels_first(images.shape):
        n, c, h, w = images.shape
        raise DataError(
            f"Images must be (N, H, W, C): {images.shape} looks channels-first: transpose to {(n, h, w, c)}, "
            "images.transpose(0, 2, 3, 1)."
        )
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise DataError(f"Images must be an array (N, H, W) or (N, H, W, C), got the shape {images.shape}.")
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.number) or np.iscomplexobj(images):
        raise DataError(f"Images must be numbers, got {images.dtype}.")
    low, high = (float(images.min()), float(images.max())) if images.size else (0.0, 0.0)
    whole = np.issubdtype(images.dtype, np.integer)
    if bits is not None and whole and low >= 0:
        most = 2**bits - 1
        return ((np.minimum(images, most).astype(np.int32) * 255 + most // 2) // most).astype(np.uint8)
    if not (low >= 0 and high <= 255):  # also NaN
        used = bits_to_name(int(high)) if whole and low >= 0 and high < 2**16 else None
        option = f" Of {used} bits each? Then bits={used} (--bits {used}) scales them." if used else ""
        raise DataError(f"Pixels must lie in 0..255, got {low:g} to {high:g}.{option}")
    if 0 < high <= 1 and np.issubdtype(images.dtype, np.floating):
        raise DataError("Pixels must lie in 0..255, these lie in 0..1: multiply them by 255.")
    return np.round(images).astype(np.uint8)
