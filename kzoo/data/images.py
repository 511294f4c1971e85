"""The one definition of decode, resize and crop, for training, evaluation, prediction and export.

It is made of TensorFlow operations, so the very same function runs in an input pipeline and inside an exported graph.

The rules: JPEG, PNG, GIF, BMP and WebP, recognised by their first bytes and not by their names. EXIF orientation is
applied to JPEG. CMYK becomes RGB, a palette is looked up, 16 bits keep the upper 8, transparent pixels are composited
on white, an animated GIF gives its first frame, an animated WebP is refused. Grey from colour is 0.299 R + 0.587 G +
0.114 B, colour from grey is three times the grey. The shorter side is resized (antialiased) so that the crop fits, the
centre is cropped, and the result is rounded to uint8. Of a picture more than LONGEST times as long as wide (relative
to the crop) only so much of the middle is resized: a JPEG of 1 x 65,535 pixels would become one of 224 x 14,680,000.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import tensorflow as tf

from kzoo.data.guards import FORMATS, MAX_PIXELS, as_uint8, fault, read, shown
from kzoo.data.header import exact_bmp, is_animated_webp, still_gif
from kzoo.errors import DataError, KzooError

if TYPE_CHECKING:
    import numpy as np

    from kzoo.catalog import Preprocessing

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "as_uint8",
    "check_shape",
    "decode",
    "fault",
    "fit",
    "make_preparer",
    "orientation",
    "prepare",
    "read",
    "shown",
    "upright",
    "with_channels",
]

LONGEST = 16


def _starts(data, *magic):
    first = tf.strings.substr(data, 0, len(magic[0]))
    return tf.reduce_any([tf.equal(first, m) for m in magic])


def _rgb(image):
    """(H, W, 1 to 4) uint8 as stored (grey, grey and alpha, RGB, RGBA) to RGB on white, (H, W, 3) uint8."""
    channels = tf.shape(image)[-1]
    colour = tf.cond(channels < 3, lambda: tf.repeat(image[..., :1], 3, -1), lambda: image[..., :3])

    def on_white():
        alpha = tf.cast(image[..., -1:], tf.uint16)  # at most 255 * 255 + 127; floats would take twice the memory
        return tf.cast((tf.cast(colour, tf.uint16) * alpha + 255 * (255 - alpha) + 127) // 255, tf.uint8)

    return tf.cond(channels % 2 == 0, on_white, lambda: colour)


def orientation(data: tf.Tensor) -> tf.Tensor:
    """Read the EXIF orientation of a JPEG inside a graph.

    TIFF 6.0 inside the APP1 segment: byte order, offset of the first directory, then entries of 12 bytes, of which the
    one with tag 0x0112 holds the orientation.

    Args:
        data: Scalar string tensor, the bytes of a file.

    Returns:
        A scalar int32, 1..8; 1 if there is none.
    """
    head = tf.io.decode_raw(tf.strings.substr(data, 0, 65536), tf.uint8)
    n = tf.size(head)
    matches = tf.ones([n - 5], tf.bool)
    for i, byte in enumerate(b"Exif\0\0"):
        matches &= head[i : n - 5 + i] == byte

    def parsed():
        start = tf.cast(tf.argmax(tf.cast(matches, tf.int32)), tf.int32) + 6
        tiff = tf.cast(head[start:], tf.int32)
        tiff = tf.concat([tiff, tf.zeros(64 * 12 + 32, tf.int32)], 0)  # room to read past the end

        def at(i):
            return tf.gather(tiff, tf.clip_by_value(i, 0, tf.size(tiff) - 1))

        little = at(0) == 0x49

        def u16(i):
            return tf.where(little, at(i) + 256 * at(i + 1), 256 * at(i) + at(i + 1))

        # Real directories begin right behind the header; the lower 16 bits of the offset are enough for 64 KiB.
        directory = tf.where(little, u16(4), u16(6))
        entries = directory + 2 + 12 * tf.range(64)
        found = (u16(entries) == 0x0112) & (tf.range(64) < u16(directory))
        value = tf.reduce_max(tf.where(found, u16(entries + 8), 0))
        return tf.where((value >= 1) & (value <= 8), value, 1)

    return tf.cond(tf.reduce_any(matches), parsed, lambda: tf.constant(1))


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Undo an EXIF orientation.

    Args:
        image: (H, W, C) as stored.
        orientation: Scalar int32, 1..8.

    Returns:
        The image as it should be seen; 5 to 8 swap height and width.
    """
    flip, swap = tf.image.flip_left_right, tf.image.transpose
    return tf.switch_case(
        orientation - 1,
        [
            lambda: image,
            lambda: flip(image),
            lambda: tf.image.rot90(image, 2),
            lambda: tf.image.flip_up_down(image),
            lambda: swap(image),
            lambda: tf.image.rot90(image, 3),
            lambda: tf.image.rot90(swap(image), 2),
            lambda: tf.image.rot90(image, 1),
        ],
    )


def decode(data: tf.Tensor) -> tf.Tensor:
    """Decode an image.

    Args:
        data: Scalar string tensor, the bytes of a file.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        tf.errors.InvalidArgumentError: The bytes can't be decoded.
    """
    jpeg = _starts(data, b"\xff\xd8\xff")

    # Not the default, so that every build of the library gives the same pixels.
    def read_jpeg():
        return upright(tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE"), orientation(data))

    cases = [
        (jpeg, read_jpeg),
        # 0 channels means as stored: asked for 4, TensorFlow 2.21 gives images of less than 8 bits a wrong alpha.
        (_starts(data, b"\x89PNG"), lambda: _rgb(tf.io.decode_png(data, channels=0))),
        (_starts(data, b"GIF8"), lambda: tf.io.decode_gif(still_gif(data))[0]),
        (_starts(data, b"BM"), lambda: _bmp(data)),
    ]
    image = tf.case(cases, default=lambda: _rgb(tf.io.decode_webp(_still(data), channels=0)[0]))
    return tf.ensure_shape(image, (None, None, 3))


def _bmp(data):
    """A BMP as (H, W, 3): a fourth channel is padding, not alpha; 8 bits are places in the palette.

    TensorFlow 2.21 leaves them as they are. BITMAPINFOHEADER: its length is at byte 14, the palette, blue first and 4
    bytes a colour, behind it.
    """
    image = tf.io.decode_bmp(exact_bmp(data))
    head = tf.cast(tf.io.decode_raw(tf.strings.substr(data, 0, 18), tf.uint8), tf.int32)
    start = tf.minimum(14 + head[14] + 256 * head[15], tf.strings.length(data))
    palette = tf.io.decode_raw(tf.strings.substr(data, start, 1024), tf.uint8)
    palette = tf.reshape(tf.concat([palette, tf.zeros(1024, tf.uint8)], 0)[:1024], (256, 4))[:, 2::-1]
    return tf.cond(
        tf.shape(image)[-1] == 1,
        lambda: tf.gather(palette, tf.cast(image[..., 0], tf.int32)),
        lambda: image[..., :3],
    )


def _still(data):
    """WebP bytes, or none at all for an animation, which TensorFlow 2.21 decodes into memory that is not its own."""
    return tf.where(is_animated_webp(data), tf.constant(b""), data)


def with_channels(image: tf.Tensor | np.ndarray, channels: int) -> tf.Tensor:
    """Convert between grey and colour by the rules of this module.

    Args:
        image: (..., 1 or 3) uint8.
        channels: 1 or 3.

    Returns:
        (..., channels) uint8.
    """
    image = tf.convert_to_tensor(image)
    if image.shape[-1] == channels:
        return image
    if channels == 3:
        return tf.repeat(image, 3, -1)
    grey = tf.tensordot(tf.cast(image, tf.float32), tf.constant([0.299, 0.587, 0.114]), 1)[..., None]
    return tf.cast(tf.round(grey), tf.uint8)


def fit(image: tf.Tensor | np.ndarray, height: int, width: int, preprocessing: Preprocessing) -> tf.Tensor:
    """Resize and crop images.

    The shorter side becomes size / crop, relative to the target, then the centre is cropped.

    Args:
        image: uint8 (H, W, C) or (B, H, W, C).
        height: Of the result.
        width: Of the result.
        preprocessing: Crop and interpolation.

    Returns:
        uint8 (..., height, width, C). An image that has this size is returned unchanged if `preprocessing.crop` is 1.
    """
    image = tf.convert_to_tensor(image)
    shape = tf.shape(image)[-3:-1]
    same = tf.reduce_all(shape == [height, width]) & (preprocessing.crop == 1.0)

    def resized():
        middle = _middle(image, shape, height, width)
        size = tf.shape(middle)[-3:-1]
        h, w = tf.cast(size[0], tf.float64), tf.cast(size[1], tf.float64)
        scale = tf.maximum(height / h, width / w) / preprocessing.crop
        new = [tf.maximum(tf.cast(tf.round(n * scale), tf.int32), m) for n, m in ((h, height), (w, width))]
        y = tf.image.resize(middle, tf.stack(new), preprocessing.interpolation, antialias=True)
        top, left = (new[0] - height) // 2, (new[1] - width) // 2
        return tf.cast(tf.clip_by_value(tf.round(y[..., top : top + height, left : left + width, :]), 0, 255), tf.uint8)

    out = tf.cond(same, lambda: image, resized)
    out.set_shape([*image.shape[:-3], height, width, image.shape[-1]])
    return out


def _middle(image, shape, height, width):
    """The middle of images (..., H, W, C) that are more than LONGEST times longer than the crop in one direction."""
    most = [-(-shape[1] * LONGEST * height // width), -(-shape[0] * LONGEST * width // height)]
    h, w = tf.minimum(shape[0], most[0]), tf.minimum(shape[1], most[1])
    top, left = (shape[0] - h) // 2, (shape[1] - w) // 2
    return image[..., top : top + h, left : left + w, :]


def prepare(data: tf.Tensor, shape: tuple[int, int, int], preprocessing: Preprocessing) -> tf.Tensor:
    """Turn encoded bytes into a model's input: decode, channels, resize, crop.

    Args:
        data: Scalar string tensor, the bytes of a file.
        shape: (height, width, channels) of the model's input.
        preprocessing: Crop and interpolation.

    Returns:
        uint8 (height, width, channels).
    """
    height, width, channels = shape
    return fit(with_channels(decode(data), channels), height, width, preprocessing)


def make_preparer(shape: tuple[int, int, int], preprocessing: Preprocessing) -> Callable[[bytes], np.ndarray]:
    """Compile `prepare` as a function for Python.

    Args:
        shape: (height, width, channels) of the model's input.
        preprocessing: Crop and interpolation.

    Returns:
        A function from the bytes of a file to a uint8 array (height, width, channels). It raises DataError with the
        reason if they can't be decoded, and KzooError if the memory does not suffice.

    Raises:
        DataError: The model takes no such images (see `check_shape`).
    """
    check_shape(shape)
    # Without AutoGraph, whose rewriting of Python would take longer than decoding a hundred photos, for nothing.
    graph = tf.function(
        lambda data: prepare(data, shape, preprocessing),
        input_signature=[tf.TensorSpec((), tf.string)],
        autograph=False,
    )

    def one(data):
        reason = fault(data)
        if reason:
            raise DataError(reason)
        try:
            with tf.device("CPU"):
                return graph(data).numpy()
        except tf.errors.ResourceExhaustedError as e:  # no fault of the image
            raise KzooError("There is not enough memory to decode an image: end other programs and start again.") from e
        except tf.errors.OpError as e:
            raise DataError(f"can't be decoded ({short_reason(e)})") from e

    return one


def check_shape(shape: tuple[int | None, int | None, int]) -> None:
    """Check that encoded images can feed a model of this input shape: height, width, 1 or 3 channels, fixed sizes.

    Raises:
        DataError: They can't.
    """
    if len(shape) != 3:
        raise DataError(f"kzoo reads still images, of (height, width, channels); the model takes {shape}.")
    if shape[2] not in (1, 3):
        raise DataError(
            f"Images have 1 or 3 channels, the model takes {shape[2]}: give the data as an .npz of that shape."
        )
    if None in shape:
        raise DataError(f"Images need a fixed height and width, the model has {shape}: pass input_shape.")


def short_reason(error: tf.errors.OpError) -> str:
    """Return the first clause of a TensorFlow message, without the graph's node names, at most 120 characters."""
    text = (error.message or str(error)).strip().splitlines()[0]
    return text.split("[[")[0].replace("{{function_node", "").split("[Op:")[0].strip(" .:}")[-120:]
