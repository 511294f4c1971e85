"""From decoded pictures of any size to a network's input: `kzoo.data.images.fit` as matrix products.

Neither tf2onnx nor LiteRT's converter knows TensorFlow's antialiased resize, and LiteRT has none. Resizing and cropping
are linear along the rows and along the columns, so each is a product with a matrix, which is computed from the
picture's size. ONNX has an antialiased Resize since opset 18, but onnxruntime computes the places to sample in another
order: on photos ten times as many pixels are rounded the other way, and few other runtimes have it.

No shape here depends on a computed number: all are known when the picture's size is, and LiteRT's fast kernels take
only such tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING

import tensorflow as tf

from kzoo.data.images import GREY, LONGEST

if TYPE_CHECKING:
    from kzoo.catalog import Preprocessing

IMAGE, PREPARED = "image", "prepared"  # the input of a file, and what the network inside takes


def preparation(shape: tuple[int, int, int], given: int, preprocessing: Preprocessing) -> Callable:
    """The rules of `kzoo.data.images` from decoded pictures to a network's input, as operations that LiteRT has.

    Args:
        shape: (height, width, channels) of the network's input.
        given: channels of the pictures; 3 where `shape` has 1 become grey.
        preprocessing: crop and interpolation.

    Returns:
        A tf.function from image, uint8 (B, H, W, given), to float32 whole numbers 0..255 (B, *shape).
    """
    height, width, channels = shape
    # In float32 whole numbers are exact up to 2^24, and the quotient of two is rounded as the exact one would be.
    crop = Fraction(preprocessing.crop).limit_denominator(10_000)

    def middle(length, other, side, other_side):  # (where it starts, its length)
        most = Fraction(LONGEST * side, other_side)
        kept = tf.minimum(length, tf.math.ceil(other * most.numerator / most.denominator))
        return tf.floor((length - kept) / 2), kept

    def resized(length, other, side, other_side):
        by_this = float(side) * other >= float(other_side) * length  # this side is the one that must fit
        a = other_side / crop
        longer = tf.round(length * a.numerator / (other * a.denominator))
        return tf.maximum(tf.where(by_this, float(round(side / crop)), longer), float(side))

    def weights(source, length, start, kept, new, side, axis):
        """(side, length) along the last axes, or transposed: each row has the weights of one row of the result."""
        inverse = 1 / (new / kept)
        stretch = tf.maximum(inverse, 1.0)
        place = tf.range(side, dtype=tf.float32) + 0.5
        place = tf.reshape(place, (1, 1, side, 1) if axis == 3 else (1, 1, 1, side))
        sample = (place + tf.floor((new - side) / 2)) * inverse
        inside = source - start
        w = kernel(tf.abs((inside + 0.5 - sample) / stretch))
        w *= tf.cast((inside >= 0) & (inside < kept), tf.float32)
        return w / tf.reduce_sum(w, axis, keepdims=True)

    def kernel(x):
        if preprocessing.interpolation == "bilinear":
            return tf.maximum(1 - x, 0)
        near = ((1.5 * x - 2.5) * x) * x + 1
        far = ((-0.5 * x + 2.5) * x - 4) * x + 2
        return tf.where(x < 1, near, tf.where(x < 2, far, tf.zeros_like(x)))

    def counted(pixels, axis):  # 1, 2, 3, ... along an axis
        return tf.cumsum(tf.minimum(tf.cast(pixels, tf.float32), 0) + 1, axis)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, given], tf.uint8, IMAGE)], autograph=False)
    def prepare(image):
        rows = tf.transpose(counted(image[:1, :, :1, :1], 1), (0, 2, 3, 1))  # (1, 1, 1, H)
        columns = counted(image[:1, :1, :, :1], 2)  # (1, 1, W, 1)
        h, w = (tf.reduce_max(x, (1, 2, 3), keepdims=True) for x in (rows, columns))
        (top, tall), (left, wide) = middle(h, w, height, width), middle(w, h, width, height)
        down = weights(rows - 1, h, top, tall, resized(tall, wide, height, width), height, 3)
        across = weights(columns - 1, w, left, wide, resized(wide, tall, width, height), width, 2)
        x = tf.cast(image, tf.float32)
        if given != channels:
            x = tf.round(tf.reduce_sum(x * tf.constant(GREY), -1, keepdims=True))
        x = tf.matmul(tf.matmul(down, tf.transpose(x, (0, 3, 1, 2))), across)
        return tf.transpose(tf.clip_by_value(tf.round(x), 0.0, 255.0), (0, 2, 3, 1))

    return prepare
