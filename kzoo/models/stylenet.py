"""The image transformation network: paints in one pass (Johnson et al. 2016), in several styles (Dumoulin et al.)."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import KerasTensor, layers, ops

# The last convolution adds up more than a thousand features: at 1, the first steps of Adam throw the picture far out of
# 0..255, and the squares of these gradients, which it remembers, slow all later steps down.
OUTPUT_SCALE = 0.1

GRAIN = 20.0  # grey levels: standard deviation of the noise that is added to a picture
GRAIN_SIDES = ((89, 97), (101, 83))  # of its two tiles, no two with a common factor: the sum repeats far outside

_register = keras.saving.register_keras_serializable(package="kzoo")


@_register
class Grain(layers.Layer):
    """Add the same noise to every picture, from which textures can arise where it is flat.

    A convolution gives the same at all places of a plain sky, and in a picture of one colour, which has no variance,
    gradients would grow 300-fold at each of 15 instance norms, to NaN. The noise is the sum of two tiles, normal in
    each channel, that are repeated over the picture; so it depends on the place only, and pictures of any size have it.

    Args:
        strength: Its standard deviation, in grey levels.
        **kwargs: For keras.layers.Layer.

    Input: (B, H, W, 3). Output: the same shape.

    Reference:
        Ulyanov et al. 2016, arXiv:1603.03417, section 3, where noise is a further input.
    """

    def __init__(self, strength: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.strength = strength
        rng = np.random.RandomState(0)  # its numbers never change, unlike those of default_rng
        self.tiles = [rng.normal(0, strength / 2**0.5, (*sides, 3)).astype("float32") for sides in GRAIN_SIDES]

    def call(self, x):
        height, width = ops.shape(x)[1:3]
        for tile in self.tiles:
            rows = ops.take(tile, ops.arange(height) % tile.shape[0], axis=0)
            x = x + ops.cast(ops.take(rows, ops.arange(width) % tile.shape[1], axis=1), x.dtype)
        return x

    def compute_output_shape(self, shape):
        return shape

    def get_config(self):
        return {**super().get_config(), "strength": self.strength}


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


@_register
class ConditionalInstanceNorm(layers.Layer):
    """Instance norm with a scale and an offset for each style, mixed by the weights of the styles.

    y = gamma (x - mean) / sqrt(variance + epsilon) + beta over the positions of each picture and channel, with
    gamma = sum_s w_s gamma_s and beta likewise. It is computed in float32 at least.

    Args:
        styles: How many there are.
        epsilon: Added to the variance.
        **kwargs: For keras.layers.Layer.

    Input: [(B, H, W, C), (B, styles)]. Output: (B, H, W, C).

    Reference:
        Dumoulin, Shlens and Kudlur 2017, arXiv:1610.07629, equation 5.
    """

    def __init__(self, styles: int, epsilon: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)  # a scale in 16 bits would be one of 256 between 1 and 2
        self.styles, self.epsilon = styles, epsilon

    def build(self, shapes):
        channels = shapes[0][-1]
        self.gamma = self.add_weight(shape=(self.styles, channels), initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=(self.styles, channels), initializer="zeros", name="beta")

    def call(self, inputs):
        x, weights = inputs
        full = ops.cast(x, "float32")
        mean, variance = ops.moments(full, (1, 2), keepdims=True)
        gamma, beta = (
            ops.matmul(ops.cast(weights, "float32"), ops.cast(v, "float32")) for v in (self.gamma, self.beta)
        )
        scale = ops.rsqrt(variance + self.epsilon) * gamma[:, None, None]
        return ops.cast(full * scale + (beta[:, None, None] - mean * scale), self.compute_dtype)

    def compute_output_shape(self, shapes):
        return shapes[0]

    def get_config(self):
        return {**super().get_config(), "styles": self.styles, "epsilon": self.epsilon}


def conv(
    x: KerasTensor, weights: KerasTensor, filters: int, size: int, *, name: str, stride: int = 1, relu: bool = True
) -> KerasTensor:
    """Reflection padding, convolution, conditional instance norm, ReLU.

    Args:
        x: (B, H, W, C).
        weights: Of the styles, (B, S).
        filters: Channels of the result.
        size: Of the kernel, odd.
        name: Prefix of its layers.
        stride: Of the kernel.
        relu: Whether the ReLU follows.
    """
    x = ReflectionPadding2D(size // 2, name=f"{name}_pad")(x)
    x = layers.Conv2D(filters, size, strides=stride, name=name)(x)
    x = ConditionalInstanceNorm(weights.shape[-1], name=f"{name}_norm")([x, weights])
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x


def residual(x: KerasTensor, weights: KerasTensor, filters: int, *, name: str) -> KerasTensor:
    """x + two 3x3 convolutions, no ReLU behind the sum (Gross and Wilber 2016, as in the paper's supplement)."""
    y = conv(x, weights, filters, 3, name=f"{name}_conv1")
    y = conv(y, weights, filters, 3, name=f"{name}_conv2", relu=False)
    return layers.Add(name=f"{name}_add")([x, y])


def stylenet(x: KerasTensor, weights: KerasTensor, *, width: int = 32, blocks: int = 5) -> KerasTensor:
    """The image transformation network of the paper's supplement, table 1, with five later improvements.

    Conditional instance norm replaces batch norm (Ulyanov et al. 2016, arXiv:1607.08022; Dumoulin et al. 2017,
    arXiv:1610.07629), nearest upsampling and a convolution replace transposed ones (Odena et al. 2016). All padding is
    by reflection, so sizes stay. A fixed noise is added to the picture, as skies would be plain. The output is linear,
    and cut off at 0 and 255 only where it is written: a tanh there dies, which leaves areas of solid black or white.

    Args:
        x: (B, H, W, 3) in 0..255, H and W multiples of 4.
        weights: Of the styles, (B, S), which sum to 1.
        width: Filters of the first convolution (32 in the paper).
        blocks: Residual blocks.

    Returns:
        (B, H, W, 3) float32, in 0..255 for the most part.

    Reference:
        Johnson, Alahi and Fei-Fei 2016, arXiv:1603.08155.
    """
    x = Grain(GRAIN, dtype="float32", name="grain")(x)
    x = layers.Rescaling(1 / 127.5, -1.0, dtype="float32", name="preprocessing")(x)
    x = conv(x, weights, width, 9, name="conv1")
    x = conv(x, weights, 2 * width, 3, stride=2, name="conv2")
    x = conv(x, weights, 4 * width, 3, stride=2, name="conv3")
    for i in range(blocks):
        x = residual(x, weights, 4 * width, name=f"block{i + 1}")
    for i, filters in enumerate((2 * width, width)):
        x = layers.UpSampling2D(2, name=f"up{i + 1}")(x)
        x = conv(x, weights, filters, 3, name=f"conv{i + 4}")
    x = ReflectionPadding2D(4, name="conv6_pad")(x)
    x = layers.Conv2D(3, 9, dtype="float32", name="conv6")(x)
    return layers.Rescaling(127.5 * OUTPUT_SCALE, 127.5, dtype="float32", name="pixels")(x)
