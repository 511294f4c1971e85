"""A stylenet computed layer by layer, each in strips of rows: the same picture in a tenth of the memory."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

# Measured at 5 megapixels, at the peak, for each pixel and filter of the first convolution.
BYTES = 13


@dataclass
class Map:
    """A feature map, its instance norm and ReLU not yet applied.

    Attributes:
        values: (H, W, C) float32.
        scale, offset: (C,), of the norm.
        relu: whether a ReLU follows.
    """

    values: np.ndarray
    scale: np.ndarray
    offset: np.ndarray
    relu: bool = False

    def rows(self, index: np.ndarray | slice) -> np.ndarray:
        """Some rows, (n, W, C), norm and ReLU applied."""
        found = self.values[index] * self.scale + self.offset
        return np.maximum(found, 0, out=found) if self.relu else found


def paint_in_strips(model: keras.Model, picture: np.ndarray, weights: np.ndarray, rows: int) -> np.ndarray:
    """Paint a picture as `model` paints it in one piece.

    An instance norm needs the mean and the variance of the whole picture, so no part of a picture can be painted alone.
    Here each convolution runs over the whole picture, a strip at a time; its sums are added up in float64, and the norm
    is applied where the next convolution reads. Strips overlap by the kernel, so the result is that of one piece but
    for the order of additions.

    Args:
        model: a stylenet, also one of 0.1.0 (of one style, with a tanh).
        picture: (H, W, 3) float32 in 0..255, H and W multiples of 4.
        weights: of the styles, (S,).
        rows: of a strip, at the picture's size.

    Returns:
        (H, W, 3) float32.
    """
    height = picture.shape[0]
    scaling, pixels = model.get_layer("preprocessing"), model.get_layer("pixels")

    def plain(values):
        return Map(values, np.ones((), "float32"), np.zeros((), "float32"))

    def convolved(x, name, relu=True, up=1):
        layer = model.get_layer(name)
        strip = max(4, rows * x.values.shape[0] * up // height)
        values = convolve(layer, x, strip, up)
        scale, offset = norm_of(model.get_layer(f"{name}_norm"), values, weights)
        return Map(values, scale, offset, relu)

    picture = np.asarray(picture, "float32")
    if any(layer.name == "grain" for layer in model.layers):  # networks of 0.1.0 have none
        picture = ops.convert_to_numpy(model.get_layer("grain")(picture[None]))[0]
    x = plain(picture * np.float32(scaling.scale) + np.float32(scaling.offset))
    for name in ("conv1", "conv2", "conv3"):
        x = convolved(x, name)
    x = plain(x.rows(slice(None)))
    for i in range(1, 1 + sum(layer.name.endswith("_add") for layer in model.layers)):
        y = convolved(convolved(x, f"block{i}_conv1"), f"block{i}_conv2", relu=False)
        x.values += y.rows(slice(None))
    for name in ("conv4", "conv5"):
        x = convolved(x, name, up=2)
    out = convolve(model.get_layer("conv6"), x, rows)
    out *= pixels.scale
    out += pixels.offset
    return out


def convolve(layer: keras.layers.Conv2D, x: Map, strip: int, up: int = 1) -> np.ndarray:
    """Reflection padding and a convolution, in strips.

    Args:
        layer: of an odd kernel.
        x: what it reads.
        strip: rows of the result that are computed at a time.
        up: how many times each row and column of `x` is repeated first.

    Returns:
        (H', W', filters) float32.
    """
    high, wide = (n * up for n in x.values.shape[:2])
    stride, reach = layer.strides[0], layer.kernel_size[0] // 2
    out = np.empty((high // stride, wide // stride, layer.filters), "float32")
    for first in range(0, len(out), strip):
        last = min(first + strip, len(out))
        index = reflected(np.arange(first * stride - reach, (last - 1) * stride + reach + 1), high) // up
        piece = np.repeat(x.rows(index), up, 1) if up > 1 else x.rows(index)
        piece = np.pad(piece, ((0, 0), (reach, reach), (0, 0)), mode="reflect")
        out[first:last] = ops.convert_to_numpy(ops.cast(layer(piece[None]), "float32"))[0]
    return out


def reflected(index: np.ndarray, size: int) -> np.ndarray:
    """Indices beyond 0..size-1 mirrored at the first and the last.

    Example:
        >>> reflected(np.arange(-2, 6), 4).tolist()
        [2, 1, 0, 1, 2, 3, 2, 1]
    """
    index = np.abs(index)
    return np.where(index >= size, 2 * size - 2 - index, index)


def norm_of(layer: keras.layers.Layer, values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The scale and the offset, each (C,) float32, by which an instance norm changes a map (H, W, C)."""
    mean = values.mean((0, 1), dtype="float64")
    variance = sum(np.square(row - mean).sum(0) for row in values) / (values.shape[0] * values.shape[1])
    gamma, beta = (ops.convert_to_numpy(v).astype("float64") for v in (layer.gamma, layer.beta))
    if gamma.ndim == 2:
        gamma, beta = weights @ gamma, weights @ beta
    scale = gamma / np.sqrt(variance + layer.epsilon)
    return scale.astype("float32"), (beta - mean * scale).astype("float32")
