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
        return "is not a JPEG, PNG, GIF, BMP or WebP image"
    except Image.DecompressionBombError:
        return f"declares too many pixels; at most {MAX_PIXELS:,} are accepted"
    except OSError as e:
        return f"can't be read ({e.strerror or e})"
    except Exception as e:  # hostile headers raise nearly anything inside Pillow
        return f"has a broken header ({type(e).__name__})"
    return None


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
        DataError: Another shape, type or range, such as floats in 0..1.
    """
    images = np.asarray(images)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise DataError(f"Images must be an array (N, H, W) or (N, H, W, C), got the shape {images.shape}.")
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.number) or np.iscomplexobj(images):
        raise DataError(f"Images must be numbers, got {images.dtype}.")
    low, high = (float(images.min()), float(images.max())) if images.size else (0.0, 0.0)
    if not (low >= 0 and high <= 255):  # also NaN
        raise DataError(f"Pixels must lie in 0..255, got {low:g} to {high:g}.")
    if high <= 1 and np.issubdtype(images.dtype, np.floating):
        raise DataError("Pixels must lie in 0..255, these lie in 0..1: multiply them by 255.")
    return np.round(images).astype(np.uint8)
