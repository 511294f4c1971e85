"""The lecture's first networks, for 28x28 grey digits."""

from __future__ import annotations

from collections.abc import Sequence

from keras import KerasTensor, layers

from kzoo.layers import activated, classifier


def mnist_softmax(x: KerasTensor, *, num_classes: int | None) -> KerasTensor:
    """Softmax regression, one layer: logits = x W + b.

    Args:
        x: (B, H, W, C).
        num_classes: How many logits; None returns the pixels as a vector.
    """
    return classifier(layers.Flatten(name="flatten")(x), num_classes)


def mnist_mlp(
    x: KerasTensor, *, num_classes: int | None, units: int, dropout: float, activation: str = "relu"
) -> KerasTensor:
    """One hidden layer with dropout.

    Args:
        x: (B, H, W, C).
        num_classes: How many logits; None stops at the hidden layer.
        units: Of the hidden layer.
        dropout: Share of the hidden layer that is dropped.
        activation: One of `kzoo.layers.ACTIVATIONS`.

    Reference:
        Initialised after He et al. 2015, arXiv:1502.01852, equation 10.
    """
    x = layers.Flatten(name="flatten")(x)
    x = activated(x, layers.Dense, units, activation=activation, name="fc1")
    x = layers.Dropout(dropout, name="drop1")(x)
    return classifier(x, num_classes)


def mnist_cnn(
    x: KerasTensor,
    *,
    num_classes: int | None,
    filters: Sequence[int],
    units: int,
    dropout: float = 0.0,
    activation: str = "relu",
) -> KerasTensor:
    """Two 5x5 convolutions with pooling, then a wide dense layer.

    Args:
        x: (B, 28, 28, 1): 28-14-7, 3,136 -> units.
        num_classes: How many logits; None stops at the dense layer.
        filters: Of each convolution.
        units: Of the dense layer.
        dropout: Share of the dense layer that is dropped; 0 leaves the layer out.
        activation: One of `kzoo.layers.ACTIVATIONS`.
    """
    for i, f in enumerate(filters, 1):
        x = activated(x, layers.Conv2D, f, 5, padding="same", activation=activation, name=f"conv{i}")
        x = layers.MaxPooling2D(2, name=f"pool{i}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = activated(x, layers.Dense, units, activation=activation, name="fc1")
    if dropout:
        x = layers.Dropout(dropout, name="drop1")(x)
    return classifier(x, num_classes)


def mnist_shift(
    x: KerasTensor, *, num_classes: int | None, filters: Sequence[int], activation: str = "relu"
) -> KerasTensor:
    """Strided convolutions and overlapping pools that tolerate a shift of a few pixels.

    The image is zero-padded to 40x40, so that a shifted digit keeps its surroundings. Then for each of filters: conv
    3x3 stride 2 valid, activation, max pool 2x2 stride 1, giving 19-18, 8-7, 3-2; 2*2*128 = 512 -> logits. The pools at
    stride 1 make it insensitive: each output is the maximum over neighbouring positions.

    Args:
        x: (B, 28, 28, 1).
        num_classes: How many logits; None stops at the last pool, as a vector.
        filters: Of each convolution.
        activation: One of `kzoo.layers.ACTIVATIONS`.
    """
    x = layers.ZeroPadding2D(6, name="pad")(x)
    for i, f in enumerate(filters, 1):
        x = activated(x, layers.Conv2D, f, 3, strides=2, activation=activation, name=f"conv{i}")
        x = layers.MaxPooling2D(2, strides=1, name=f"pool{i}")(x)
    return classifier(layers.Flatten(name="flatten")(x), num_classes)
