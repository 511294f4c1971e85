"""What is classified: paths, encoded bytes, arrays, PIL images and tf.data sets become named, encoded images."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from kzoo.data.guards import as_uint8, is_clutter, npy
from kzoo.data.images import shown
from kzoo.data.listing import leads_to_folder
from kzoo.data.sources.arrays import is_dataset, is_images, load_arrays
from kzoo.errors import DataError

# Modes of PIL images that a PNG holds as they are; the others are converted to RGB, or are numbers.
PNG_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I;16B", "I;16L", "I;16N"}
COLOUR_MODES = {"CMYK", "YCbCr", "LAB", "HSV", "RGBX", "RGBa", "La"}
TURNED = {"JPEG", "MPO"}  # formats whose EXIF orientation counts, as in `kzoo.data.images`

Named = tuple[str, str | bytes]  # a name for messages and rows, and a path or an encoded image


def named_images(images: Any, channels: int) -> tuple[Iterable[Named], int | None]:
    """Give everything that may be classified a name, and arrays and PIL images an encoded form.

    Args:
        images: One or an iterable of: a path (a folder stands for the files in it, an .npz for the images in its
            arrays); the bytes of an image file; an array or tensor (H, W), (H, W, C) or (N, H, W, C) in 0..255; a PIL
            image; or a tf.data set of images, batches of them or encoded images, alone or with labels.
        channels: How many the model takes, by which a picture of that many is told from a stack of grey ones.

    Returns:
        ((name, path or bytes) of each image, how many they are). What has no path is named by its position. A tf.data
        set and an iterator, such as a generator, are read as they are asked for, and not counted: None.

    Raises:
        DataError: A path that does not exist, an empty folder, or something that is no image.
    """
    if is_dataset(images):
        return _of_dataset(images, channels), None
    one = isinstance(images, (str, os.PathLike, bytes, bytearray)) or is_picture(images) or hasattr(images, "__array__")
    if isinstance(images, Iterator):
        return _each(images, channels), None
    found = list(_each([images] if one or not isinstance(images, Iterable) else images, channels))
    return found, len(found)


def _each(items: Iterable, channels: int) -> Iterator[Named]:
    n = 0
    for item in items:
        if isinstance(item, (str, os.PathLike)):
            for path in expanded(item):
                for named in of_arrays(path) if path.endswith(".npz") else [(path, path)]:
                    yield named
                    n += 1
        else:
            for data in _encoded(item, channels):
                yield str(n), data
                n += 1


def is_picture(item: Any) -> bool:
    """Whether something is a PIL image; Pillow is not imported for it."""
    return any(kind.__module__.startswith("PIL.") and kind.__name__ == "Image" for kind in type(item).__mro__)


def _of_dataset(dataset: Any, channels: int) -> Iterator[Named]:
    n = 0
    for item in dataset.as_numpy_iterator():
        if isinstance(item, tuple):
            item = item[0]
        if isinstance(item, dict):
            if "image" not in item:
                raise DataError(f"An element of the data set has no 'image'; it has {', '.join(map(shown, item))}.")
            item = item["image"]
        for data in _encoded(item, channels):
            yield str(n), data
            n += 1


def _encoded(item: Any, channels: int) -> list[bytes]:
    """The encoded images of what is no path."""
    if isinstance(item, (bytes, bytearray)):
        return [bytes(item)]
    if is_picture(item):
        return [_of_picture(item)]
    if not hasattr(item, "__array__"):
        raise DataError(
            f"A {type(item).__name__} is no image: give paths, encoded bytes, arrays, PIL images or a tf.data set."
        )
    array = np.asarray(item)
    if array.dtype == object or array.dtype.kind == "S":  # encoded images, as tf.data gives strings
        if not all(isinstance(data, bytes) for data in array.flat):
            raise DataError("An array of objects must hold encoded images (bytes).")
        return list(array.flat)
    if array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (1, 3, 4, channels)):
        array = array[None]
    return encoded_arrays(array)


def _of_picture(picture: Any) -> bytes:
    from PIL import Image, ImageOps

    try:
        if picture.format in TURNED:  # a photo that was opened, as when it is read from its file
            picture = ImageOps.exif_transpose(picture)
        if picture.mode == "I":  # 32 bits, as Pillow opens some 16-bit files
            numbers = np.asarray(picture)
            if numbers.min() < 0 or numbers.max() >= 2**16:
                raise DataError(f"Pixels must lie in 0..65535, got {numbers.min()} to {numbers.max()}.")
            picture = Image.fromarray(numbers.astype(np.uint16))
        if picture.mode in PNG_MODES or picture.mode in COLOUR_MODES:
            buffer = io.BytesIO()
            (picture if picture.mode in PNG_MODES else picture.convert("RGB")).save(buffer, "PNG")
            return buffer.getvalue()
        return encoded_arrays(np.asarray(picture)[None])[0]
    except (OSError, ValueError, SyntaxError) as e:
        raise DataError(f"A PIL image can't be used ({e}).") from e


def encoded_arrays(array: np.ndarray) -> list[bytes]:
    """The images of an array as files.

    Args:
        array: (N, H, W) or (N, H, W, C), numbers in 0..255, or whole ones in 0..65535, of which the model knows how
            many bits are used.

    Raises:
        DataError: Another shape, type or range.
    """
    whole = np.issubdtype(array.dtype, np.integer) and array.ndim in (3, 4) and array.size
    if whole and array.min() >= 0 and array.max() < 2**16:
        array = array if array.dtype == np.uint8 else array.astype(np.uint16)
    else:
        array = as_uint8(array)
    return [npy(image) for image in array]


def of_arrays(path: str) -> list[Named]:
    """The images of an .npz; those of arrays that are named as images, or of the only array.

    Raises:
        DataError: It can't be read or has no such array.
    """
    arrays = load_arrays(path)
    named = {key: array for key, array in arrays.items() if is_images(key) or len(arrays) == 1}
    if not named:
        raise DataError(
            f"'{shown(path)}' must hold an array of images, such as images or x_test; it holds "
            f"{', '.join(map(shown, sorted(arrays))) or 'nothing'}."
        )
    return [(f"{path}/{key}/{i}", data) for key, a in named.items() for i, data in enumerate(encoded_arrays(a))]


def expanded(path: str | os.PathLike) -> list[str]:
    """The path itself, or the files in the folder: all but folders, so that a broken link is a file that can't be read.

    Raises:
        DataError: There is no such file, or the folder can't be read or has no files.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        try:
            files = sorted(e.path for e in os.scandir(path) if not is_clutter(e.name) and not leads_to_folder(e))
        except OSError as e:
            raise DataError(f"The folder '{shown(path)}' can't be read ({e.strerror}).") from e
        if not files:
            raise DataError(f"The folder '{shown(path)}' has no files.")
        return files
    if not os.path.exists(path):
        raise DataError(f"There is no file '{shown(path)}'.")
    return [path]
