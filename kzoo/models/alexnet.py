"""AlexNet (Krizhevsky, Sutskever, Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks")."""

from __future__ import annotations

from collections.abc import Sequence

from keras import KerasTensor, initializers, layers

from kzoo.layers import GroupedConv2D, LocalResponseNormalization, activated, classifier


def normal() -> initializers.Initializer:
    """Return the initializer of section 5: a Gaussian of standard deviation 0.01."""
    return initializers.RandomNormal(stddev=0.01)


def conv(
    x: KerasTensor,
    filters: int,
    size: int,
    *,
    name: str,
    groups: int = 1,
    stride: int = 1,
    padding: str = "same",
    bias: float = 0.0,
) -> KerasTensor:
    """Convolution, bias, ReLU.

    Args:
        x: (B, H, W, C).
        filters: Channels of the result.
        size: Of the kernel.
        name: Of the layer.
        groups: Groups of channels without connections between them.
        stride: Of the kernel.
        padding: "same" or "valid".
        bias: Its initial value.
    """
    layer = layers.Conv2D if groups == 1 else GroupedConv2D
    return layer(
        filters,
        size,
        strides=stride,
        padding=padding,
        groups=groups,
        activation="relu",
        kernel_initializer=normal(),
        bias_initializer=initializers.Constant(bias),
        name=name,
    )(x)


def alexnet(x: KerasTensor, *, num_classes: int | None, dropout: float = 0.5) -> KerasTensor:
    """AlexNet: five convolutions in two towers, three dense layers.

    Biases start at 1 in conv2, conv4, conv5 and the hidden dense layers (section 5), "to provide the ReLUs with
    positive inputs".

    Args:
        x: (B, 227, 227, 3). The towers of the two GPUs are groups of 2 in conv2, conv4 and conv5; conv3 sees both.
        num_classes: How many logits; None stops at fc7.
        dropout: Share of fc6 and fc7 that is dropped.

    Returns:
        Logits (B, num_classes), or fc7's 4,096 features.

    Reference:
        Krizhevsky et al. 2012, section 3.5, Figure 2.
    """
    x = conv(x, 96, 11, stride=4, padding="valid", name="conv1")
    x = LocalResponseNormalization(name="norm1")(x)
    x = layers.MaxPooling2D(3, 2, name="pool1")(x)
    x = conv(x, 256, 5, groups=2, bias=1.0, name="conv2")
    x = LocalResponseNormalization(name="norm2")(x)
    x = layers.MaxPooling2D(3, 2, name="pool2")(x)
    x = conv(x, 384, 3, name="conv3")
    x = conv(x, 384, 3, groups=2, bias=1.0, name="conv4")
    x = conv(x, 256, 3, groups=2, bias=1.0, name="conv5")
    x = layers.MaxPooling2D(3, 2, name="pool5")(x)
    x = layers.Flatten(name="flatten")(x)
    for name in ("6", "7"):
        x = layers.Dense(
            4096, activation="relu", kernel_initializer=normal(), bias_initializer="ones", name="fc" + name
        )(x)
        x = layers.Dropout(dropout, name="drop" + name)(x)
    return classifier(x, num_classes, kernel_initializer=normal())


def figure1_cifar(
    x: KerasTensor, *, num_classes: int | None, filters: Sequence[int], activation: str = "relu"
) -> KerasTensor:
    """The four-layer network for CIFAR-10 of figure 1, by which the paper compares ReLUs with tanh.

    Its layers are not printed. Here they are those of Krizhevsky's own four layers for CIFAR-10, layers-18pct of
    cuda-convnet: three 5x5 convolutions, each with its activation and a 3x3 pool at stride 2, the first of maxima, the
    others of averages, and a dense layer: 32-16-8-4 pixels. Its response normalisation is left out.

    Args:
        x: (B, 32, 32, 3).
        num_classes: How many logits; None stops at the last pool, as a vector.
        filters: Of each convolution.
        activation: One of `kzoo.layers.ACTIVATIONS`.

    Returns:
        Logits (B, num_classes), or 1,024 features.

    Reference:
        Krizhevsky et al. 2012, section 3.1, Figure 1.
    """
    for i, f in enumerate(filters, 1):
        x = activated(x, layers.Conv2D, f, 5, padding="same", activation=activation, name=f"conv{i}")
        pool = layers.MaxPooling2D if i == 1 else layers.AveragePooling2D
        x = pool(3, 2, padding="same", name=f"pool{i}")(x)
    return classifier(layers.Flatten(name="flatten")(x), num_classes)
