"""The image transformation network that paints one style in one pass (Johnson, Alahi and Fei-Fei 2016)."""

from __future__ import annotations

import keras
from keras import layers, ops

_register = keras.saving.register_keras_serializable(package="kzoo")


@_register
class ReflectionPadding2D(layers.Layer):
    """Pads pictures (B, H, W, C) by their mirror image, to (B, H + 2 size, W + 2 size, C).

    Args:
        size: pixels on each side.
    """

    def __init__(self, size: int, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def call(self, x):
        n = self.size
        return ops.pad(x, [[0, 0], [n, n], [n, n], [0, 0]], mode="reflect")

    def compute_output_shape(self, shape):
        b, h, w, c = shape
        return (b, h and h + 2 * self.size, w and w + 2 * self.size, c)

    def get_config(self):
        return {**super().get_config(), "size": self.size}


def conv(
    x: keras.KerasTensor, filters: int, size: int, *, name: str, stride: int = 1, relu: bool = True
) -> keras.KerasTensor:
    """Reflection padding, convolution, instance norm, ReLU."""
    x = ReflectionPadding2D(size // 2, name=f"{name}_pad")(x)
    x = layers.Conv2D(filters, size, strides=stride, name=name)(x)
    x = layers.GroupNormalization(groups=-1, epsilon=1e-5, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x


def residual(x: keras.KerasTensor, filters: int, *, name: str) -> keras.KerasTensor:
    """x + two 3x3 convolutions, without a ReLU behind the sum (Gross and Wilber 2016, as in the paper's supplement)."""
    y = conv(x, filters, 3, name=f"{name}_conv1")
    y = conv(y, filters, 3, name=f"{name}_conv2", relu=False)
    return layers.Add(name=f"{name}_add")([x, y])


def stylenet(x: keras.KerasTensor, *, width: int = 32, blocks: int = 5) -> keras.KerasTensor:
    """The image transformation network, with two later improvements.

    Args:
        x: pictures (B, H, W, 3) in 0..255, H and W multiples of 4.
        width: filters of the first convolution; 32 in the paper.
        blocks: residual blocks; 5 in the paper.

    Returns:
        (B, H, W, 3) float32 in 0..255: 127.5 (1 + tanh).

    Reference:
        Johnson, Alahi and Fei-Fei 2016, supplement, table 1. Departures: instance norm in place of batch norm (Ulyanov
        et al. 2016, arXiv:1607.08022), nearest upsampling and a convolution in place of transposed ones (Odena et al.
        2016), all padding by reflection, so that sizes stay.
    """
    x = layers.Rescaling(1 / 127.5, -1.0, dtype="float32", name="preprocessing")(x)
    x = conv(x, width, 9, name="conv1")
    x = conv(x, 2 * width, 3, stride=2, name="conv2")
    x = conv(x, 4 * width, 3, stride=2, name="conv3")
    for i in range(blocks):
        x = residual(x, 4 * width, name=f"block{i + 1}")
    for i, filters in enumerate((2 * width, width)):
        x = layers.UpSampling2D(2, name=f"up{i + 1}")(x)
        x = conv(x, filters, 3, name=f"conv{i + 4}")
    x = ReflectionPadding2D(4, name="conv6_pad")(x)
    x = layers.Conv2D(3, 9, activation="tanh", dtype="float32", name="conv6")(x)
    return layers.Rescaling(127.5, 127.5, dtype="float32", name="pixels")(x)
