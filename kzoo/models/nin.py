"""Network in network (Lin, Chen, Yan 2013, arXiv:1312.4400): a small perceptron at each position of a convolution."""

from __future__ import annotations

from typing import Any

from keras import KerasTensor, layers

from kzoo.layers import pool_3x3_s2


def conv(x: KerasTensor, filters: int, size: int, *, name: str, **kwargs: Any) -> KerasTensor:
    """Convolution, bias, ReLU, with He initialisation.

    Args:
        x: (B, H, W, C).
        filters: Channels of the result.
        size: Of the kernel.
        name: Of the layer.
        **kwargs: For keras.layers.Conv2D.
    """
    return layers.Conv2D(
        filters, size, padding="same", activation="relu", kernel_initializer="he_normal", name=name, **kwargs
    )(x)


def nin(x: KerasTensor, *, num_classes: int | None, width: int = 192, dropout: float = 0.5) -> KerasTensor:
    """The authors' network for CIFAR-10: three convolutions, each with two 1x1 layers behind it.

    The last 1x1 layer, `predictions`, has a map for each class, which is averaged. The logits are not negative: it
    ends in a ReLU, as in equation 2. The first pool takes the maximum, the second the average, as in the authors'
    configuration; both round their sizes up.

    Args:
        x: (B, 32, 32, 3).
        num_classes: How many logits; None stops at cccp5.
        width: Filters of most layers; cccp1 and cccp2 have 5/6 and 1/2 of it.
        dropout: Share that is dropped behind the first two pools.

    Returns:
        Logits (B, num_classes), or the average of cccp5's maps (B, width).

    Reference:
        Lin et al. 2013, arXiv:1312.4400, sections 3 and 4.2; the sizes are those of the authors' release.
    """
    x = conv(x, width, 5, name="conv1")
    x = conv(x, width * 5 // 6, 1, name="cccp1")
    x = conv(x, width // 2, 1, name="cccp2")
    x = layers.Dropout(dropout, name="drop1")(pool_3x3_s2(x, name="pool1"))
    x = conv(x, width, 5, name="conv2")
    x = conv(x, width, 1, name="cccp3")
    x = conv(x, width, 1, name="cccp4")
    # At even sizes "same" lies right and bottom and is not counted in the average, as in Caffe.
    x = layers.AveragePooling2D(3, 2, padding="same", name="pool2")(x)
    x = layers.Dropout(dropout, name="drop2")(x)
    x = conv(x, width, 3, name="conv3")
    x = conv(x, width, 1, name="cccp5")
    if num_classes is not None:
        x = conv(x, num_classes, 1, dtype="float32", name="predictions")
    return layers.GlobalAveragePooling2D(dtype="float32", name="avg_pool")(x)
