"""Checks before a pixel is decoded, from headers, sizes and types, without TensorFlow."""

from __future__ import annotations

import os
import warnings
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from kzoo.errors import DataError

MAX_PIXELS = 100_000_000  # more than cameras produce; 300 MB once decoded
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
MAX_FILE = 1 << 30  # bytes of one image file, which is read whole
# How files begin: (position, bytes).
MAGIC = {
    "JPEG": (0, b"\xff\xd8\xff"),
    "PNG": (0, b"\x89PNG"),
    "GIF": (0, b"GIF8"),
    "BMP": (0, b"BM"),
    "WebP": (8, b"WEBP"),
}


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
    (0, b"II*\x00"): "TIFF",  # or DNG, NEF, ARW, PEF: told by the suffix, see `foreign`
    (0, b"MM\x00*"): "TIFF",
    (0, b"II+\x00"): "TIFF",
    (0, b"MM\x00+"): "TIFF",
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


def fault(file: str | os.PathLike | BinaryIO) -> str | None:
    """Check a file's header. Nothing is decoded, so a small file that declares a huge picture costs nothing.

    Args:
        file: A path, or a binary file object.

    Returns:
        Why the file can't be an image for kzoo, such as "is empty"; None if nothing is wrong so far.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images; we refuse them ourselves
            if isinstance(file, (str, os.PathLike)):
                size = os.path.getsize(file)
                if size == 0:
                    return "is empty"
                if size > MAX_FILE:
                    return f"has {size:,} bytes; at most {MAX_FILE:,} are accepted"
            with Image.open(file, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    return f"declares {image.width}x{image.height} pixels; at most {MAX_PIXELS:,} are accepted"
                if image.format == "WEBP" and getattr(image, "is_animated", False):
                    return "is an animated WebP; only still ones can be read"
    except UnidentifiedImageError:
        return _unknown(file)
    except Image.DecompressionBombError:
        return f"declares too many pixels; at most {MAX_PIXELS:,} are accepted"
    except OSError as e:
        return f"can't be read ({e.strerror or e})"
    except Exception as e:  # hostile headers raise nearly anything inside Pillow
        return f"has a broken header ({type(e).__name__})"
    return None


def _unknown(file):
    """Why a file of another format can't be used."""
    kind = None
    try:
        if isinstance(file, (str, os.PathLike)):
            with open(file, "rb") as f:
                kind = foreign(f.read(64), os.fsdecode(file))
        else:
            file.seek(0)
            kind = foreign(file.read(64))
    except (OSError, ValueError):
        pass
    if kind is None:
        return "is not a JPEG, PNG, GIF, BMP or WebP image"
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
    """Read a file after checking its header.

    Raises:
        DataError: The reason that `fault` gives.
        OSError: The file can't be read.
    """
    reason = fault(path)
    if reason:
        raise DataError(reason)
    with open(path, "rb") as f:
        return f.read()


def shown(path: object) -> str:
    """Format a path for a message, with control characters and undecodable bytes escaped.

    Example:
        >>> shown("a\\tb.jpg")
        'a\\\\tb.jpg'
    """
    return str(path).encode("utf-8", "backslashreplace").decode().encode("unicode_escape").decode("ascii")


def check_channels(have: int, wanted: int) -> None:
    """Check that images of `have` channels can feed a model of `wanted` channels: equal numbers, or 1 and 3.

    Raises:
        DataError: There is no conversion.
    """
    if have != wanted and {have, wanted} != {1, 3}:
        raise DataError(f"The images have {have} channels, the model takes {wanted}; kzoo converts only 1 and 3.")


def as_uint8(images: np.typing.ArrayLike) -> np.ndarray:
    """Convert images to (N, H, W, C) uint8.

    Args:
        images: (N, H, W) or (N, H, W, C), numbers in 0..255, rounded if they are not whole.

    Returns:
        uint8 (N, H, W, C), not copied if it is that already.

    Raises:
        DataError: Another shape, type or range, such as floats in 0..1 or channels in front.
    """
    images = np.asarray(images)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim == 4 and images.shape[1] <= 4 < min(images.shape[2:]):
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
    if not (low >= 0 and high <= 255):  # also NaN
        raise DataError(f"Pixels must lie in 0..255, got {low:g} to {high:g}.")
    if 0 < high <= 1 and np.issubdtype(images.dtype, np.floating):
        raise DataError("Pixels must lie in 0..255, these lie in 0..1: multiply them by 255.")
    return np.round(images).astype(np.uint8)
