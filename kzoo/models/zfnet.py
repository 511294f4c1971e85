"""ZFNet (Zeiler and Fergus 2013, "Visualizing and Understanding Convolutional Networks", arXiv:1311.2901)."""

from __future__ import annotations

from keras import KerasTensor, initializers, layers

from kzoo.layers import LocalResponseNormalization, classifier, pool_3x3_s2


def normal() -> initializers.Initializer:
    """Return the initializer of the kernels: a Gaussian of standard deviation 0.01."""
    return initializers.RandomNormal(stddev=0.01)


def conv(x: KerasTensor, filters: int, size: int, *, name: str, stride: int = 1, padding: str = "valid") -> KerasTensor:
    """Convolution, bias, ReLU.

    Args:
        x: (B, H, W, C).
        filters: Channels of the result.
        size: Of the kernel.
        name: Of the layer.
        stride: Of the kernel.
        padding: "same" or "valid".
    """
    return layers.Conv2D(
        filters, size, strides=stride, padding=padding, activation="relu", kernel_initializer=normal(), name=name
    )(x)


def zfnet(
    x: KerasTensor, *, num_classes: int | None, width: int = 96, units: int = 4096, dropout: float = 0.5
) -> KerasTensor:
    """AlexNet with 7x7 kernels at stride 2 in front, stride 2 in the second layer, and no groups.

    The sizes of figure 3, 224-110-55-26-13-6, need a border of 1 around the picture and pools that round up.

    Args:
        x: (B, 224, 224, 3).
        num_classes: How many logits; None stops at fc7.
        width: Filters of conv1; the others have 8/3 and 4 times as many.
        units: Of fc6 and fc7.
        dropout: Share of fc6 and fc7 that is dropped.

    Returns:
        Logits (B, num_classes), or fc7's features (B, units).

    Reference:
        Zeiler and Fergus 2013, arXiv:1311.2901, section 3 and Figure 3.
    """
    x = layers.ZeroPadding2D(1, name="conv1_pad")(x)
    x = conv(x, width, 7, stride=2, name="conv1")
    x = LocalResponseNormalization(name="norm1")(pool_3x3_s2(x, name="pool1"))
    x = conv(x, width * 8 // 3, 5, stride=2, name="conv2")
    x = LocalResponseNormalization(name="norm2")(pool_3x3_s2(x, name="pool2"))
    x = conv(x, 4 * width, 3, padding="same", name="conv3")
    x = conv(x, 4 * width, 3, padding="same", name="conv4")
    x = conv(x, width * 8 // 3, 3, padding="same", name="conv5")
    x = layers.Flatten(name="flatten")(pool_3x3_s2(x, name="pool5"))
    for name in ("6", "7"):
        x = layers.Dense(units, activation="relu", kernel_initializer=normal(), name="fc" + name)(x)
        x = layers.Dropout(dropout, name="drop" + name)(x)
    return classifier(x, num_classes, kernel_initializer=normal())
