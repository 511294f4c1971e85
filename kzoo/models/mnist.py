"""The lecture's first networks, for 28x28 grey digits."""

from __future__ import annotations

from collections.abc import Sequence

from keras import KerasTensor, layers

from kzoo.layers import classifier


def mnist_softmax(x: KerasTensor, *, num_classes: int | None) -> KerasTensor:
    """Softmax regression, one layer: logits = x W + b.

    Args:
        x: (B, H, W, C).
        num_classes: How many logits; None returns the pixels as a vector.
    """
    return classifier(layers.Flatten(name="flatten")(x), num_classes)


def mnist_mlp(x: KerasTensor, *, num_classes: int | None, units: int, dropout: float) -> KerasTensor:
    """One hidden layer of ReLUs with dropout.

    Args:
        x: (B, H, W, C).
        num_classes: How many logits; None stops at the hidden layer.
        units: Of the hidden layer.
        dropout: Share of the hidden layer that is dropped.

    Reference:
        Initialised after He et al. 2015, arXiv:1502.01852, equation 10.
    """
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(units, activation="relu", kernel_initializer="he_normal", name="fc1")(x)
    x = layers.Dropout(dropout, name="drop1")(x)
    return classifier(x, num_classes)


def mnist_cnn(
    x: KerasTensor, *, num_classes: int | None, filters: Sequence[int], units: int, dropout: float = 0.0
) -> KerasTensor:
    """Two 5x5 convolutions with pooling, then a wide dense layer.

    Args:
        x: (B, 28, 28, 1): 28-14-7, 3,136 -> units.
        num_classes: How many logits; None stops at the dense layer.
        filters: Of each convolution.
        units: Of the dense layer.
        dropout: Share of the dense layer that is dropped; 0 leaves the layer out.
    """
    for i, f in enumerate(filters, 1):
        x = layers.Conv2D(f, 5, padding="same", activation="relu", kernel_initializer="he_normal", name=f"conv{i}")(x)
        x = layers.MaxPooling2D(2, name=f"pool{i}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(units, activation="relu", kernel_initializer="he_normal", name="fc1")(x)
    if dropout:
        x = layers.Dropout(dropout, name="drop1")(x)
    return classifier(x, num_classes)


def mnist_shift(x: KerasTensor, *, num_classes: int | None, filters: Sequence[int]) -> KerasTensor:
    """Strided convolutions and overlapping pools that tolerate a shift of a few pixels.

    The image is zero-padded to 40x40, so that a shifted digit keeps its surroundings. Then for each of filters: conv
    3x3 stride 2 valid, ReLU, max pool 2x2 stride 1, giving 19-18, 8-7, 3-2; 2*2*128 = 512 -> logits. The pools at
    stride 1 make it insensitive: each output is the maximum over neighbouring positions.

    Args:
        x: (B, 28, 28, 1).
        num_classes: How many logits; None stops at the last pool, as a vector.
        filters: Of each convolution.
    """
    x = layers.ZeroPadding2D(6, name="pad")(x)
    for i, f in enumerate(filters, 1):
        x = layers.Conv2D(f, 3, strides=2, activation="relu", kernel_initializer="he_normal", name=f"conv{i}")(x)
        x = layers.MaxPooling2D(2, strides=1, name=f"pool{i}")(x)
    return classifier(layers.Flatten(name="flatten")(x), num_classes)
