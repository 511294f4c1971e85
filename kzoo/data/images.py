"""The one definition of decode, resize and crop, for training, evaluation, prediction and export.

It is made of TensorFlow operations, so the very same function runs in an input pipeline and inside an exported graph.

The rules: JPEG, PNG, GIF, BMP and WebP, and arrays as numpy.save writes them (.npy), recognised by their first bytes
and not by their names. EXIF orientation is applied to JPEG. CMYK becomes RGB, a palette is looked up, 16 bits keep the
upper 8 unless `Preprocessing.bits` says how many are used, transparent pixels are composited on white (alpha, a
palette's, or the one transparent colour of a PNG or GIF), an animated GIF gives its first frame, an animated WebP is
refused. Grey from colour is 0.299 R + 0.587 G + 0.114 B, colour from grey is three times the grey. A model of other
than 1 or 3 channels takes pictures that have as many: alpha is a channel there. The shorter side is resized
(antialiased) so that the crop fits, the centre is cropped, and the result is rounded to uint8; arrays and files alike.
Of a picture more than LONGEST times as long as wide (relative to the crop) only so much of the middle is resized: a
JPEG of 1 x 65,535 pixels would become one of 224 x 14,680,000.

`Preprocessing.rules` (`kzoo.catalog.RULES`) says by which version of this a network was trained.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import tensorflow as tf

from kzoo.catalog import RULES
from kzoo.data import guards
from kzoo.data.guards import FORMATS, MAGIC, MAX_PIXELS, as_uint8, fault, is_ready, kind_of, read, readable, shown
from kzoo.data.header import bmp_layout, colour_key, cut, exact_bmp, gif_frame, is_animated_webp, npy_array, still_gif
from kzoo.errors import DataError, KzooError

if TYPE_CHECKING:
    import numpy as np

    from kzoo.catalog import Preprocessing

__all__ = [
    "FORMATS",
    "GREY",
    "LONGEST",
    "MAX_PIXELS",
    "as_uint8",
    "check_shape",
    "decode",
    "fault",
    "fit",
    "given_channels",
    "is_ready",
    "make_preparer",
    "orientation",
    "png_masks",
    "prepare",
    "read",
    "shown",
    "upright",
    "with_channels",
]

LONGEST = 16
GREY = (0.299, 0.587, 0.114)  # the shares of red, green and blue


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


def decode(data: tf.Tensor, channels: int = 3, *, bits: int | None = None, rules: int = RULES) -> tf.Tensor:
    """Decode an image.

    Args:
        data: Scalar string tensor, the bytes of a file.
        channels: Of the result. 1 and 3 are converted into each other; of any other number the picture must have.
        bits: As in `kzoo.Preprocessing`.
        rules: Likewise.

    Returns:
        (H, W, channels) uint8, RGB or grey for 3 and 1.

    Raises:
        tf.errors.InvalidArgumentError: The bytes can't be decoded, or, in a graph, have other channels.
        DataError: They have other channels.
    """
    image, reason = _stored(data, channels, bits, rules)
    if tf.executing_eagerly() and reason != "":
        raise DataError(reason.numpy().decode())
    with tf.control_dependencies([tf.debugging.Assert(reason == "", [reason])]):
        return _converted(tf.identity(image), channels)


def _stored(data, channels, bits, rules, kind=None):
    """(the picture as it is stored, uint8 (H, W, C); why it can't feed a model of so many channels, or "").

    kind: what `_kind` tells of the data, where Python sees them; None: the graph tells.
    """

    # Not the default, so that every build of the library gives the same pixels.
    def read_upright():
        return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")

    def read_jpeg():
        return upright(read_upright(), orientation(data))

    def read_webp():  # no bytes at all for an animation, which TensorFlow 2.21 decodes into memory that is not its own
        still = tf.where(is_animated_webp(data), tf.constant(b""), data)
        return tf.io.decode_webp(still, channels=0)[0]

    readers: dict[str, Callable] = {"JPEG": read_jpeg}
    if rules == 1:
        readers |= {
            # 0 channels means as stored: asked for 4, TensorFlow 2.21 gives images of less than 8 bits a wrong alpha.
            "PNG": lambda: tf.io.decode_png(data, channels=0),
            "GIF": lambda: tf.io.decode_gif(still_gif(data))[0],
            "BMP": lambda: _bmp_of_rules_1(data),
        }
    else:
        readers |= {
            "PNG": lambda: _png(data, bits),
            "GIF": lambda: _gif(data),
            "BMP": lambda: _bmp(data),
            "NPY": lambda: _array(data, bits),
        }
    if kind is None:
        cases = [(_starts(data, MAGIC[name][1]), reader) for name, reader in readers.items()]
        image = tf.case(cases, default=read_webp)
    else:
        image = {**readers, UPRIGHT: read_upright}.get(kind, read_webp)()
    have, array = tf.shape(image)[-1], _starts(data, b"\x93NUMPY")
    # Of a picture the colours are taken, or shown on white; of an array nobody knows which channels those would be.
    fits = (~array | (have == 1) | (have == 3)) if channels in (1, 3) else have == channels
    wrong = tf.strings.join(["has ", tf.strings.as_string(have), f" channels, the model takes {channels}"])
    counts = bits is None and rules > 1 and kind in (None, "NPY")
    above = array & ~_fits_8_bits(data) if counts else tf.constant(False)
    return image, tf.case([(~fits, lambda: wrong), (above, lambda: tf.constant(ABOVE))], lambda: tf.constant(""))


UPRIGHT = "upright JPEG"  # as most are: turning takes longer to trace than all the rest


def _kind(data):
    """What a graph for these bytes alone has to decode: `kind_of`, or UPRIGHT."""
    kind = kind_of(data)
    return UPRIGHT if kind == "JPEG" and guards.orientation(data) == 1 else kind


@lru_cache(224)
def _stored_graph(channels, bits, rules, kind=None):
    """`_stored` compiled, once in a process for networks of all sizes, in exports too: it is most of what is traced.

    For one kind it is traced in a fraction of the time of all.
    """

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
    def stored(data):
        with tf.device("CPU"):
            return _stored(data, channels, bits, rules, kind)

    return stored


def decode_stored(data: bytes, channels: int, bits: int | None, rules: int) -> tf.Tensor:
    """`decode` for Python, by a graph that is compiled once in a process.

    Raises:
        tf.errors.OpError: The bytes can't be decoded.
        DataError: They have other channels.
    """
    image, reason = _stored_graph(channels, bits, rules, _kind(data))(data)
    if text := reason.numpy():
        raise DataError(text.decode())
    return _converted(image, channels)


ABOVE = "holds values above 255, and the model was made without bits (--bits), which says how many are used"


def _converted(image, channels):
    """What `_stored` gives, with its channels."""
    if channels not in (1, 3):
        return tf.ensure_shape(image, (None, None, channels))
    return with_channels(tf.ensure_shape(_rgb(image), (None, None, 3)), channels)


def scaled(values: tf.Tensor, bits: int) -> tf.Tensor:
    """Scale whole numbers of so many bits to uint8: value * 255 / (2**bits - 1), rounded, at most 255."""
    most = 2**bits - 1
    return tf.cast((tf.minimum(tf.cast(values, tf.int32), most) * 255 + most // 2) // most, tf.uint8)


def _png(data, bits):
    """A PNG as stored, 8 bits; the pixels of a transparent colour get an alpha of 0, the others of 255."""
    keyed, key = colour_key(data)
    depth = tf.cast(tf.io.decode_raw(cut(data, 24, 1), tf.uint8)[0], tf.int32)

    def deep():  # the transparent colour is told by all 16 bits
        image = tf.io.decode_png(data, channels=0, dtype=tf.uint16)
        small = tf.cast(image // 256, tf.uint8)
        if bits is not None:  # alpha has all bits
            n = tf.shape(image)[-1]
            colours = n - tf.where(n % 2 == 0, 1, 0)
            small = tf.concat([scaled(image[..., :colours], bits), small[..., colours:]], -1)
        return _keyed(small, image, keyed, key)

    def plain():
        image = tf.io.decode_png(data, channels=0)
        # TensorFlow stretches fewer bits over 0..255.
        most = tf.gather([255, 1, 3, 255, 15, 255, 255, 255, 255], tf.minimum(depth, 8))
        return _keyed(image, image, keyed, tf.minimum(key, most) * (255 // most))

    return tf.cond((depth == 16) & (keyed | (bits is not None)), deep, plain)


def _keyed(image, values, keyed, key):
    """The image with an alpha of 0 where the values (H, W, C) are the key (3,), if it is `keyed`."""

    def transparent():
        same = tf.reduce_all(tf.cast(values, tf.int32) == key[: tf.shape(values)[-1]], -1, keepdims=True)
        return tf.concat([image, tf.where(same, tf.constant(0, tf.uint8), tf.constant(255, tf.uint8))], -1)

    return tf.cond(keyed, transparent, lambda: image)


def _gif(data):
    """The first frame of a GIF on its canvas; what is transparent or outside the frame is white."""
    still, size, (left, top, width, height) = gif_frame(data)
    frame = tf.io.decode_gif(still)[0]
    return tf.pad(frame, [[top, size[1] - top - height], [left, size[0] - left - width], [0, 0]], constant_values=255)


def _bmp(data):
    """A BMP of any depth that `kzoo.data.guards` accepts, (H, W, 3 or 4).

    TensorFlow 2.21 decodes only some. Rows are padded to 4 bytes and stored from the bottom up unless the height is
    negative; the palette is blue first.
    """
    x = bmp_layout(data)
    row = (x.bits * x.width + 31) // 32 * 4
    body = cut(
        tf.strings.join([data, b"\0\0\0"]), x.pixels, row * x.height
    )  # the padding of the last row may be missing
    raw = tf.reshape(tf.io.decode_raw(body, tf.uint8), (x.height, row))
    start = tf.minimum(x.palette, tf.strings.length(data))
    end = tf.minimum(x.pixels, start + 256 * x.entry)
    table = tf.io.decode_raw(cut(data, start, tf.maximum(end - start, 0) // x.entry * x.entry), tf.uint8)
    table = tf.reshape(table, (-1, x.entry))[:, :3]
    table = tf.concat([table, tf.zeros((256, 3), tf.uint8)], 0)[:256, ::-1]

    def looked_up(indices):
        return tf.gather(table, tf.cast(indices[:, : x.width], tf.int32))

    def split(parts):
        return looked_up(tf.reshape(tf.stack(parts, -1), (x.height, -1)))

    def of_16():  # 5 bits each, or 6 for green
        pairs = tf.cast(tf.reshape(raw, (x.height, -1, 2))[:, : x.width], tf.int32)
        value, green = pairs[..., 0] + 256 * pairs[..., 1], tf.where(x.six, 64, 32)
        red = value // (32 * green) % 32 * 255 // 31
        return tf.cast(tf.stack([red, value // 32 % green * 255 // (green - 1), value % 32 * 255 // 31], -1), tf.uint8)

    def of_32():
        pixels = tf.reshape(raw, (x.height, x.width, 4))
        return tf.cond(
            x.alpha, lambda: tf.gather(pixels, x.order, axis=-1), lambda: tf.gather(pixels, x.order[:3], axis=-1)
        )

    cases = [
        (x.bits == 1, lambda: split([raw // 2**k % 2 for k in range(7, -1, -1)])),
        (x.bits == 4, lambda: split([raw // 16, raw % 16])),
        (x.bits == 8, lambda: looked_up(raw)),
        (x.bits == 16, of_16),
        (x.bits == 32, of_32),
    ]
    image = tf.case(cases, default=lambda: tf.reshape(raw[:, : 3 * x.width], (x.height, x.width, 3))[..., ::-1])
    return tf.cond(x.top_down, lambda: image, lambda: tf.reverse(image, [0]))


def _bmp_of_rules_1(data):
    """A BMP as (H, W, 3): a fourth channel is padding, not alpha; 8 bits are places in the palette.

    TensorFlow 2.21 leaves them as they are. BITMAPINFOHEADER: its length is at byte 14, the palette, blue first and 4
    bytes a colour, behind it.
    """
    image = tf.io.decode_bmp(exact_bmp(data))
    head = tf.cast(tf.io.decode_raw(tf.strings.substr(data, 0, 18), tf.uint8), tf.int32)
    start = tf.minimum(14 + head[14] + 256 * head[15], tf.strings.length(data))
    palette = tf.io.decode_raw(cut(data, start, 1024), tf.uint8)
    palette = tf.reshape(tf.concat([palette, tf.zeros(1024, tf.uint8)], 0)[:1024], (256, 4))[:, 2::-1]
    return tf.cond(
        tf.shape(image)[-1] == 1,
        lambda: tf.gather(palette, tf.cast(image[..., 0], tf.int32)),
        lambda: image[..., :3],
    )


def _array(data, bits):
    """An array (H, W) or (H, W, C) of uint8 or uint16, as numpy.save writes it; uint16 becomes uint8."""
    deep, shape, start = npy_array(data)
    body = cut(data, start, tf.strings.length(data) - start)

    def of_16():  # without bits, `_fits_8_bits` tells whether this loses nothing
        values = tf.io.decode_raw(body, tf.uint16)
        return tf.cast(values, tf.uint8) if bits is None else scaled(values, bits)

    return tf.reshape(tf.cond(deep, of_16, lambda: tf.io.decode_raw(body, tf.uint8)), shape)


def _fits_8_bits(data):
    """Whether an array of uint16 has no value above 255; True for everything else."""

    def small():
        deep, _, start = npy_array(data)
        body = tf.strings.substr(data, start, tf.strings.length(data) - start)
        return tf.cond(deep, lambda: tf.reduce_all(tf.io.decode_raw(body, tf.uint16) <= 255), lambda: tf.constant(True))

    return tf.cond(_starts(data, b"\x93NUMPY"), small, lambda: tf.constant(True))


def with_channels(image: tf.Tensor | np.ndarray, channels: int) -> tf.Tensor:
    """Convert between grey and colour by the rules of this module.

    Args:
        image: (..., 1 or 3) uint8, or with as many channels as asked for.
        channels: 1 or 3, or any other number, which is not converted.

    Returns:
        (..., channels) uint8.
    """
    image = tf.convert_to_tensor(image)
    if image.shape[-1] == channels:
        return image
    if channels == 3:
        return tf.repeat(image, 3, -1)
    grey = tf.tensordot(tf.cast(image, tf.float32), tf.constant(GREY), 1)[..., None]
    return tf.cast(tf.round(grey), tf.uint8)


def given_channels(channels: int) -> int:
    """How many channels a decoded picture has for a model of so many: RGB for 1 and 3, else as many."""
    return 3 if channels in (1, 3) else channels


def fit(
    image: tf.Tensor | np.ndarray, height: int, width: int, preprocessing: Preprocessing, *, nearest: bool = False
) -> tf.Tensor:
    """Resize and crop images.

    The shorter side becomes size / crop, relative to the target, then the centre is cropped.

    Args:
        image: uint8 (H, W, C) or (B, H, W, C).
        height: Of the result.
        width: Of the result.
        preprocessing: Crop and interpolation.
        nearest: Take the nearest pixel instead of interpolating, for masks, whose values are no shades.

    Returns:
        uint8 (..., height, width, C). An image that has this size is returned unchanged if `preprocessing.crop` is 1.
    """
    image = tf.convert_to_tensor(image)
    shape = tf.shape(image)[-3:-1]
    same = tf.reduce_all(shape == [height, width]) & (preprocessing.crop == 1.0)

    def resized():
        middle = _middle(image, shape, height, width)
        new = _resized_to(tf.shape(middle)[-3:-1], height, width, preprocessing)
        how = "nearest" if nearest else preprocessing.interpolation
        y = tf.image.resize(middle, tf.stack(new), how, antialias=True)
        top, left = (new[0] - height) // 2, (new[1] - width) // 2
        return tf.cast(tf.clip_by_value(tf.round(y[..., top : top + height, left : left + width, :]), 0, 255), tf.uint8)

    out = tf.cond(same, lambda: image, resized)
    out.set_shape([*image.shape[:-3], height, width, image.shape[-1]])
    return out


def fit_masks(masks: np.ndarray, height: int, width: int, preprocessing: Preprocessing) -> np.ndarray:
    """Resize and crop masks as their pictures, by the nearest pixel.

    Args:
        masks: uint8 (..., H, W), class numbers.
        height: Of the result.
        width: Of the result.
        preprocessing: Crop of the pictures.

    Returns:
        uint8 (..., height, width).
    """
    with tf.device("CPU"):
        return fit(masks[..., None], height, width, preprocessing, nearest=True)[..., 0].numpy()


def _resized_to(size, height, width, preprocessing):
    """The [height, width] to which an image of this size is resized before it is cropped."""
    h, w = tf.cast(size[0], tf.float64), tf.cast(size[1], tf.float64)
    scale = tf.maximum(height / h, width / w) / preprocessing.crop
    return [tf.maximum(tf.cast(tf.round(n * scale), tf.int32), m) for n, m in ((h, height), (w, width))]


def _middle_of(shape, height, width):
    """(top, left, height, width) of the middle of images that are more than LONGEST times longer than the crop."""
    most = [-(-shape[1] * LONGEST * height // width), -(-shape[0] * LONGEST * width // height)]
    h, w = tf.minimum(shape[0], most[0]), tf.minimum(shape[1], most[1])
    return (shape[0] - h) // 2, (shape[1] - w) // 2, h, w


def _middle(image, shape, height, width):
    top, left, h, w = _middle_of(shape, height, width)
    return image[..., top : top + h, left : left + w, :]


def png_masks(
    masks: tf.Tensor, sizes: tf.Tensor, shape: tuple[int, int, int], preprocessing: Preprocessing, outside: int = 255
) -> tf.Tensor:
    """Lay the masks that a network gave back onto its pictures: the inverse of `fit`, by the nearest pixel.

    Args:
        masks: uint8 (B, h, w), of the whole input or, if they are smaller, of its middle.
        sizes: int32 (B, 2), height and width of each picture; at least 1.
        shape: (height, width, channels) of the model's input.
        preprocessing: Crop of the pictures.
        outside: What pixels get that the network did not see or answer for.

    Returns:
        Strings (B,): a PNG for each picture, of its size, with one channel of 8 bits.
    """
    height, width, _ = shape
    masks, sizes = tf.convert_to_tensor(masks), tf.convert_to_tensor(sizes)
    h, w = masks.shape[1:3]

    def along(length, start, inside, new, size, answered):  # which row or column of the mask; the last one is outside
        place = tf.range(length) - start
        scale = tf.cast(new, tf.float64) / tf.cast(inside, tf.float64)
        at = tf.cast(tf.floor((tf.cast(place, tf.float64) + 0.5) * scale), tf.int32)
        at -= (new - size) // 2 + (size - answered) // 2
        seen = (place >= 0) & (place < inside) & (at >= 0) & (at < answered)
        return tf.where(seen, at, answered)

    @tf.autograph.experimental.do_not_convert
    def one(i):
        size = sizes[i]
        top, left, tall, wide = _middle_of(size, height, width)
        new = _resized_to([tall, wide], height, width, preprocessing)
        rows = along(size[0], top, tall, new[0], height, h)
        columns = along(size[1], left, wide, new[1], width, w)
        framed = tf.pad(masks[i], [[0, 1], [0, 1]], constant_values=outside)
        return tf.io.encode_png(tf.gather(tf.gather(framed, rows), columns, axis=1)[..., None])

    n = tf.shape(masks, tf.int64)[0]
    with tf.device("CPU"):  # a dataset and no loop, as in `kzoo.exporting.graph.decode_batch`
        pngs = tf.data.Dataset.range(n).map(one, num_parallel_calls=2, deterministic=True)
        still = tf.data.Options()
        still.autotune.enabled = False
        return tf.ensure_shape(pngs.batch(n).with_options(still).get_single_element(), (None,))


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
    image = decode(data, channels, bits=preprocessing.bits, rules=preprocessing.rules)
    return fit(image, height, width, preprocessing)


def attempt(
    data: tf.Tensor, shape: tuple[int, int, int], preprocessing: Preprocessing, kind: str | None = None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """`prepare`, but a picture of the wrong channels or range gives a reason instead of an error.

    Args:
        data: Scalar string tensor, the bytes of a file.
        shape: (height, width, channels) of the model's input.
        preprocessing: Crop and interpolation.
        kind: What the bytes are, a key of `kzoo.data.guards.MAGIC` or UPRIGHT, where that is known beforehand.

    Returns:
        (uint8 (height, width, channels), "", int32 (2,)), or (zeros, the reason, int32 (2,)); the last are the height
        and width that the picture had.
    """
    height, width, channels = shape
    image, reason = _stored_graph(channels, preprocessing.bits, preprocessing.rules, kind)(data)

    def ready():
        return fit(_converted(image, channels), height, width, preprocessing)

    return (
        tf.ensure_shape(tf.cond(reason == "", ready, lambda: tf.zeros(shape, tf.uint8)), shape),
        reason,
        tf.shape(image)[:2],
    )


def make_preparer(shape: tuple[int, int, int], preprocessing: Preprocessing) -> Callable[[bytes], np.ndarray]:
    """Compile `attempt` as a function for Python.

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
    # What happens inside the network makes no other graph. One is traced for each kind that occurs.
    resizing = replace(preprocessing, channel_order="rgb", scale=1.0, offset=0.0)
    graphs = {kind: _graph(tuple(shape), resizing, kind) for kind in (*MAGIC, UPRIGHT)}

    def one(data):
        data = readable(data)
        with decoding():
            image, reason = graphs[_kind(data)](data)
        if text := reason.numpy():
            raise DataError(text.decode())
        return image.numpy()

    return one


@lru_cache(224)
def _graph(shape, preprocessing, kind):
    """`attempt` compiled, once in a process: tracing takes as long as decoding hundreds of photos.

    Without AutoGraph, whose rewriting of Python would take longer still, for nothing.
    """
    return tf.function(
        lambda data: attempt(data, shape, preprocessing, kind)[:2],
        input_signature=[tf.TensorSpec((), tf.string)],
        autograph=False,
    )


def check_shape(shape: tuple[int | None, int | None, int]) -> None:
    """Check that encoded images can feed a model of this input shape: height, width, channels, fixed sizes.

    Raises:
        DataError: They can't.
    """
    if len(shape) != 3:
        raise DataError(f"kzoo reads still images, of (height, width, channels); the model takes {shape}.")
    if None in shape:
        raise DataError(f"Images need a fixed height and width, the model has {shape}: pass input_shape.")


@contextmanager
def decoding() -> Iterator[None]:
    """Decode on the CPU; what TensorFlow raises becomes an error of kzoo's.

    Raises:
        DataError: the image can't be decoded; the message is the reason.
        KzooError: the memory does not suffice, which is no fault of the image.
    """
    try:
        with tf.device("CPU"):
            yield
    except tf.errors.ResourceExhaustedError as e:
        raise KzooError("There is not enough memory to decode an image: end other programs and start again.") from e
    except tf.errors.OpError as e:
        raise DataError(f"can't be decoded ({short_reason(e)})") from e


def short_reason(error: tf.errors.OpError) -> str:
    """Return the first clause of a TensorFlow message, without the graph's node names, at most 120 characters."""
    lines = (error.message or str(error)).split("[[")[0].strip().splitlines()
    text = lines[-1 if lines[0].startswith("Graph execution error") else 0]  # behind where the graph was made
    return re.sub(r"\{\{.*?\}\}", "", text).split("[Op:")[0].strip(" .:}")[-120:]
