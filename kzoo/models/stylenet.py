"""The image transformation network that paints one style in one pass (Johnson, Alahi and Fei-Fei 2016)."""

from __future__ import annotations

from typing import Any

import keras
from keras import KerasTensor, layers, ops

_register = keras.saving.register_keras_serializable(package="kzoo")


@_register
class ReflectionPadding2D(layers.Layer):
    """Pad by the mirror image on all sides.

    Args:
        size: Pixels of each side.
        **kwargs: For keras.layers.Layer.

    Input: (B, H, W, C). Output: (B, H + 2 * size, W + 2 * size, C).
    """

    def __init__(self, size: int, **kwargs: Any) -> None:
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


def conv(x: KerasTensor, filters: int, size: int, *, name: str, stride: int = 1, relu: bool = True) -> KerasTensor:
    """Reflection padding, convolution, instance norm, ReLU.

    Args:
        x: (B, H, W, C).
        filters: Channels of the result.
        size: Of the kernel, odd.
        name: Prefix of its layers.
        stride: Of the kernel.
        relu: Whether the ReLU follows.
    """
    x = ReflectionPadding2D(size // 2, name=f"{name}_pad")(x)
    x = layers.Conv2D(filters, size, strides=stride, name=name)(x)
    x = layers.GroupNormalization(groups=-1, epsilon=1e-5, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x


def residual(x: KerasTensor, filters: int, *, name: str) -> KerasTensor:
    """x + two 3x3 convolutions, no ReLU behind the sum (Gross and Wilber 2016, as in the paper's supplement)."""
    y = conv(x, filters, 3, name=f"{name}_conv1")
    y = conv(y, filters, 3, name=f"{name}_conv2", relu=False)
    return layers.Add(name=f"{name}_add")([x, y])


def stylenet(x: KerasTensor, *, width: int = 32, blocks: int = 5) -> KerasTensor:
    """The image transformation network of the paper's supplement, table 1, with two later improvements.

    Instance norm replaces batch norm (Ulyanov et al. 2016, arXiv:1607.08022), nearest upsampling and a convolution
    replace transposed ones (Odena et al. 2016). All padding is by reflection, so sizes stay.

    Args:
        x: (B, H, W, 3) in 0..255, H and W multiples of 4.
        width: Filters of the first convolution (32 in the paper).
        blocks: Residual blocks.

    Returns:
        (B, H, W, 3) float32 in 0..255: 127.5 (1 + tanh).

    Reference:
        Johnson, Alahi and Fei-Fei 2016, arXiv:1603.08155.
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
