"""LeNet-5 (LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", section II.B)."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, layers, ops

_register = keras.saving.register_keras_serializable(package="kzoo")

# Table I: which of S2's six maps each of C3's sixteen maps sees.
TABLE = (
    (0, 1, 2),
    (1, 2, 3),
    (2, 3, 4),
    (3, 4, 5),
    (0, 4, 5),
    (0, 1, 5),
    (0, 1, 2, 3),
    (1, 2, 3, 4),
    (2, 3, 4, 5),
    (0, 3, 4, 5),
    (0, 1, 4, 5),
    (0, 1, 2, 5),
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)


def squash(x: KerasTensor) -> KerasTensor:
    """Apply the paper's activation, f(a) = 1.7159 tanh(2a/3) (appendix A): f(1) = 1, f(-1) = -1."""
    return 1.7159 * ops.tanh(x * (2 / 3))


def uniform(fan_in: int) -> keras.initializers.Initializer:
    """Return the initializer of appendix A: weights uniform in ±2.4 / fan-in."""
    return keras.initializers.RandomUniform(-2.4 / fan_in, 2.4 / fan_in)


@_register
class Squash(layers.Layer):
    """The scaled tanh, `squash`, as a layer."""

    kernel_size = 1  # for kzoo.ledger: an output depends on its own position only

    def call(self, x):
        return squash(x)

    def compute_output_shape(self, input_shape):
        return input_shape


@_register
class Subsampling(layers.Layer):
    """Sum of each 2x2 square, times a trainable coefficient, plus a trainable bias, one of each for a map.

    Input: (B, H, W, C). Output: (B, H // 2, W // 2, C).
    """

    kernel_size = strides = 2

    def build(self, input_shape):
        c = input_shape[-1]
        self.coefficient = self.add_weight(shape=(c,), initializer=uniform(4), name="coefficient")
        self.bias = self.add_weight(shape=(c,), initializer="zeros", name="bias")

    def call(self, x):
        pooled = ops.average_pool(x, 2, 2, padding="valid", data_format="channels_last")
        return 4 * pooled * self.coefficient + self.bias

    def compute_output_shape(self, input_shape):
        b, h, w, c = input_shape
        return (b, h and h // 2, w and w // 2, c)

    def multiply_adds(self, input_shape: tuple, output_shape: tuple) -> int:
        """Count for `kzoo.ledger`: the coefficient, once for each output."""
        return math.prod(output_shape[1:])  # the coefficient, once for each output


@_register
class TableConv2D(layers.Layer):
    """A 5x5 convolution where each output map is connected to the input maps that Table I gives it.

    kernel: (5, 5, 60), one 5x5 slice for each of the table's 60 connections; it is expanded to a dense (5, 5, 6, 16)
    kernel with zeros, so that the arithmetic is one plain convolution.

    Input: (B, H, W, 6). Output: (B, H - 4, W - 4, 16).
    """

    kernel_size = (5, 5)
    connections = tuple((i, o) for o, inputs in enumerate(TABLE) for i in inputs)

    def build(self, input_shape):
        n = len(self.connections)
        # The fan-in differs from map to map: 25 * 3, 4 or 6.
        limit = np.array([2.4 / (25 * len(TABLE[o])) for _, o in self.connections], "float32")
        unit = keras.initializers.RandomUniform(-1, 1)
        self.kernel = self.add_weight(
            shape=(5, 5, n), initializer=lambda shape, dtype=None: unit(shape, dtype=dtype) * limit, name="kernel"
        )
        self.bias = self.add_weight(shape=(len(TABLE),), initializer="zeros", name="bias")
        self.spread = np.zeros((n, 6 * len(TABLE)), "float32")
        for row, (i, o) in enumerate(self.connections):
            self.spread[row, i * len(TABLE) + o] = 1

    def call(self, x):
        dense = ops.matmul(self.kernel, ops.cast(self.spread, self.compute_dtype))
        kernel = ops.reshape(dense, (5, 5, 6, len(TABLE)))
        return ops.conv(x, kernel, padding="valid", data_format="channels_last") + self.bias

    def compute_output_shape(self, input_shape):
        b, h, w, _ = input_shape
        return (b, h and h - 4, w and w - 4, len(TABLE))


@_register
class RBF(layers.Layer):
    """Minus the squared distance to each class's fixed ±1 code: y_i = -sum_j (x_j - w_ij)^2.

    The codes are drawn once, with seed 1998. They are not trained.

    Args:
        num_classes: How many codes.
        **kwargs: For keras.layers.Layer.

    Input: (B, D). Output: (B, num_classes).

    Reference:
        LeCun et al. 1998, equation 7.
    """

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes

    def build(self, input_shape):
        codes = np.random.default_rng(1998).choice([-1.0, 1.0], (self.num_classes, input_shape[-1]))
        self.codes = self.add_weight(
            shape=codes.shape,
            initializer=lambda shape, dtype=None: ops.cast(codes, dtype),
            trainable=False,
            name="codes",
        )

    def call(self, x):
        # |x - w|^2 = |x|^2 - 2 x.w + |w|^2, where |w|^2 is the number of features.
        products = ops.matmul(x, ops.transpose(self.codes))
        return 2 * products - ops.sum(ops.square(x), -1, keepdims=True) - x.shape[-1]

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.num_classes)

    def multiply_adds(self, input_shape: tuple, output_shape: tuple) -> int:
        """Count for `kzoo.ledger`: one for each number of each code."""
        return input_shape[-1] * self.num_classes

    def get_config(self):
        return {**super().get_config(), "num_classes": self.num_classes}


def lenet5(x: KerasTensor, *, num_classes: int | None) -> KerasTensor:
    """LeNet-5 with trainable subsampling, the connection table of C3, and RBF outputs.

    60,000 trainable parameters for a 28x28 input, as printed: C1 156, S2 12, C3 1,516, S4 32, C5 48,120, F6 10,164.

    Args:
        x: (B, 28, 28, 1), padded by 2 with the paper's background value -0.1.
        num_classes: How many logits; None stops at F6.

    Returns:
        Logits (B, num_classes), or F6's 84 features.

    Reference:
        LeCun et al. 1998, section II.B.
    """
    x = ops.pad(x, [[0, 0], [2, 2], [2, 2], [0, 0]], constant_values=-0.1)
    x = Squash(name="C1_squash")(layers.Conv2D(6, 5, kernel_initializer=uniform(25), name="C1")(x))
    x = Squash(name="S2_squash")(Subsampling(name="S2")(x))
    x = Squash(name="C3_squash")(TableConv2D(name="C3")(x))
    x = Squash(name="S4_squash")(Subsampling(name="S4")(x))
    x = Squash(name="C5_squash")(layers.Conv2D(120, 5, kernel_initializer=uniform(400), name="C5")(x))
    x = layers.Flatten(name="flatten")(x)
    x = Squash(name="F6_squash")(layers.Dense(84, kernel_initializer=uniform(120), name="F6")(x))
    if num_classes is None:
        return x
    return RBF(num_classes, dtype="float32", name="predictions")(x)
