"""Random crops of training pictures, drawn from each picture as it is in its file and not from what fits the model.

Of a JPEG only the part that is needed is decoded: most of the work of a small crop is saved. The pixels are those of
decoding all of it, applying its EXIF orientation and cropping then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tensorflow as tf

from kzoo.data.guards import declared, kind_of, orientation, readable
from kzoo.data.images import check_shape, decode_stored, decoding, upright, with_channels
from kzoo.errors import KzooError

if TYPE_CHECKING:
    from kzoo.catalog import Preprocessing

CROPS = ("area", "side")
RATIOS = (3 / 4, 4 / 3)  # of width to height, for "area"
TRIES = 10
# Columns that are decoded beside a part of a JPEG: libjpeg interpolates colours of half the width from one of them.
BESIDE = 2
KERNELS = {"bilinear": ("triangle", 1), "bicubic": ("keyscubic", 2)}  # the kernel and its radius in pixels


class Region(NamedTuple):
    """A part of an upright picture, and how it is resized: a pixel at x of the result lies at (x - shift) / scale.

    Attributes:
        box: (top, left, height, width) in pixels, what is read.
        scale: (vertical, horizontal).
        shift: (vertical, horizontal) in pixels of the result, from the box.
    """

    box: tuple[int, int, int, int]
    scale: tuple[float, float]
    shift: tuple[float, float]


def check_crop(crop: Sequence) -> None:
    """Raise a KzooError unless it is ("area", lowest, highest) or ("side", lowest, highest)."""
    kind, low, high = crop if len(crop) == 3 else (None, 0, 0)
    if kind not in CROPS or not 0 < low <= high or (kind == "area" and high > 1) or (kind == "side" and low < 1):
        raise KzooError(
            "A recipe's crop is ('area', lowest, highest) with shares of the area in (0, 1], or ('side', lowest, "
            f"highest), the shorter side in sides of the crop, at least 1; got {crop!r}."
        )


def draw_region(
    crop: Sequence, size: tuple[int, int], to: tuple[int, int], rng: np.random.Generator, radius: int = 1
) -> Region:
    """Draw the part of a picture that becomes a training picture.

    Args:
        crop: ("area", lowest, highest): a box whose area is a share of the picture's between these, whose ratio of
            width to height is between 3/4 and 4/3 (uniform in its logarithm), at a uniform place. After ten boxes that
            do not fit: the largest box in the middle with such a ratio. Or ("side", lowest, highest): the picture is
            resized so that its shorter side is a whole number of pixels, uniform between these, in sides of the
            crop; then a crop at a uniform place.
        size: (height, width) of the upright picture.
        to: (height, width) of the result.
        rng: What draws.
        radius: Of the kernel of interpolation, in pixels: a crop of a resized picture depends on pixels beside it.

    Returns:
        The Region.

    Reference:
        "area": Szegedy et al. 2015, arXiv:1409.4842, section 6, with the ratio's logarithm uniform as in torchvision.
        "side": Simonyan and Zisserman 2015, arXiv:1409.1556, section 3.1, and He et al. 2016, section 3.4.

    Example:
        >>> draw_region(("area", 1.0, 1.0), (100, 100), (50, 50), np.random.default_rng(3)).scale
        (0.5, 0.5)
    """
    if crop[0] == "area":
        top, left, height, width = _by_area(crop[1:], size, rng)
        return Region((top, left, height, width), (to[0] / height, to[1] / width), (0.0, 0.0))
    short = min(to)
    side = rng.integers(round(crop[1] * short), round(crop[2] * short), endpoint=True)
    factor = side / short * max(to[0] / size[0], to[1] / size[1])
    box, scales, shifts = [], [], []
    for have, want in zip(size, to, strict=True):
        new = max(round(have * factor), want)
        at, scale = int(rng.integers(0, new - want, endpoint=True)), new / have
        reach = radius * max(1.0, 1 / scale) + 1
        first, last = max(0, math.floor(at / scale - reach)), min(have, math.ceil((at + want) / scale + reach))
        box.append((first, last - first))
        scales.append(scale)
        shifts.append(first * scale - at)
    (top, height), (left, width) = box
    return Region((top, left, height, width), (scales[0], scales[1]), (shifts[0], shifts[1]))


def _by_area(shares, size, rng):
    """(top, left, height, width)."""
    high, wide = size
    for _ in range(TRIES):
        area = high * wide * rng.uniform(*shares)
        ratio = math.exp(rng.uniform(math.log(RATIOS[0]), math.log(RATIOS[1])))
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < width <= wide and 0 < height <= high:
            break
    else:
        width = min(wide, max(1, round(high * RATIOS[1])))
        height = min(high, max(1, round(wide / RATIOS[0])))
        return (high - height) // 2, (wide - width) // 2, height, width
    top = rng.integers(0, high - height, endpoint=True)
    left = rng.integers(0, wide - width, endpoint=True)
    return int(top), int(left), height, width


def stored_box(box: tuple[int, int, int, int], size: tuple[int, int], turned: int) -> tuple[int, int, int, int]:
    """Where a box of an upright picture lies in the picture as it is stored.

    Args:
        box: (top, left, height, width).
        size: (height, width) as stored.
        turned: EXIF orientation, 1..8.

    Returns:
        (top, left, height, width) as stored.

    Example:
        >>> stored_box((0, 0, 2, 3), (10, 20), 6)  # turned by 90 degrees: its left edge is at the bottom
        (7, 0, 3, 2)
    """
    top, left, height, width = box
    if turned >= 5:
        top, left, height, width = left, top, width, height
    if turned in (3, 4, 6, 7):
        top = size[0] - top - height
    if turned in (2, 3, 7, 8):
        left = size[1] - left - width
    return top, left, height, width


def make_cropper(
    shape: tuple[int, int, int], preprocessing: Preprocessing, crop: Sequence
) -> Callable[[bytes | np.ndarray, np.random.Generator], np.ndarray]:
    """Compile a function that makes a training picture: a random part of a picture in the size of a model's input.

    Args:
        shape: (height, width, channels) of the model's input.
        preprocessing: Interpolation, bits and rules of decoding; its own crop is for pictures that are not trained on.
        crop: As in `draw_region`.

    Returns:
        A function of a picture (the bytes of a file, or uint8 (H, W, C)) and of what draws. It returns uint8
        (height, width, channels), and raises DataError with the reason if it can't be decoded.

    Raises:
        DataError: The model takes no such images (see `kzoo.data.images.check_shape`).
        KzooError: The crop is none.
    """
    check_shape(shape)
    check_crop(crop)
    radius, channels = KERNELS[preprocessing.interpolation][1], shape[2]
    of_jpeg, of_array = _graphs(tuple(shape), preprocessing.interpolation)

    def one(picture, rng):
        turned, jpeg = 1, False
        if isinstance(picture, bytes):
            picture = readable(picture)
            wide, high = declared(picture)
            size = high, wide
            jpeg = channels in (1, 3) and kind_of(picture) == "JPEG"
            turned = orientation(picture) if jpeg else 1
        else:
            size = picture.shape[:2]
        region = draw_region(crop, size[::-1] if turned >= 5 else size, shape[:2], rng, radius)
        box = stored_box(region.box, size, turned)
        beside = (min(BESIDE, box[1]), min(BESIDE, max(0, size[1] - box[1] - box[3])))
        numbers = (
            np.array([*box, *beside], np.int32),
            np.int32(turned),
            np.array([region.scale, region.shift], np.float32),
        )
        with decoding():
            if jpeg:
                return of_jpeg(picture, *numbers).numpy()
            if isinstance(picture, bytes):
                picture = decode_stored(picture, channels, preprocessing.bits, preprocessing.rules)
            return of_array(with_channels(picture, channels), *numbers).numpy()

    return one


@lru_cache(32)
def _graphs(shape, interpolation):
    """(a graph function of the bytes of a JPEG, one of arrays), compiled once in a process."""
    height, width, channels = shape

    def resized(part, scale_shift):
        y = tf.raw_ops.ScaleAndTranslate(
            images=tf.cast(part, tf.float32)[None],
            size=[height, width],
            scale=scale_shift[0],
            translation=scale_shift[1],
            kernel_type=KERNELS[interpolation][0],
            antialias=True,
        )[0]
        return tf.ensure_shape(tf.cast(tf.clip_by_value(tf.round(y), 0, 255), tf.uint8), shape)

    def of_jpeg(data, box, turned, scale_shift):
        wide = tf.stack([box[0], box[1] - box[4], box[2], box[3] + box[4] + box[5]])
        part = tf.io.decode_and_crop_jpeg(data, wide, channels=3, dct_method="INTEGER_ACCURATE")
        part = tf.ensure_shape(part[:, box[4] : box[4] + box[3]], (None, None, 3))
        return resized(with_channels(upright(part, turned), channels), scale_shift)

    def of_array(image, box, turned, scale_shift):
        return resized(image[box[0] : box[0] + box[2], box[1] : box[1] + box[3]], scale_shift)

    numbers = (tf.TensorSpec((6,), tf.int32), tf.TensorSpec((), tf.int32), tf.TensorSpec((2, 2), tf.float32))
    pixels = tf.TensorSpec((None, None, channels), tf.uint8)
    return (
        tf.function(of_jpeg, input_signature=[tf.TensorSpec((), tf.string), *numbers], autograph=False),
        tf.function(of_array, input_signature=[pixels, *numbers], autograph=False),
    )
