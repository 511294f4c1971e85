"""SqueezeNet (Iandola et al. 2016, arXiv:1602.07360, Table 1, and the authors' release 1.1)."""

from __future__ import annotations

from collections.abc import Collection

from keras import KerasTensor, initializers, layers

from kzoo.layers import pool_3x3_s2


def conv(x: KerasTensor, filters: int, size: int, *, name: str, stride: int = 1, padding: str = "same") -> KerasTensor:
    """Convolution, bias, ReLU.

    Args:
        x: (B, H, W, C).
        filters: Channels of the result.
        size: Of the kernel.
        name: Of the layer.
        stride: Of the kernel.
        padding: "same" or "valid".
    """
    return layers.Conv2D(filters, size, strides=stride, padding=padding, activation="relu", name=name)(x)


def fire(x: KerasTensor, squeeze: int, expand: int, *, name: str) -> KerasTensor:
    """A 1x1 convolution to `squeeze` channels, then 1x1 and 3x3 side by side to `expand` each (Figure 1).

    Args:
        x: (B, H, W, C).
        squeeze: Filters of the first convolution.
        expand: Filters of each of the others.
        name: Prefix of its layers.

    Returns:
        (B, H, W, 2 * expand).
    """
    x = conv(x, squeeze, 1, name=f"{name}_squeeze1x1")
    left = conv(x, expand, 1, name=f"{name}_expand1x1")
    right = conv(x, expand, 3, name=f"{name}_expand3x3")
    return layers.Concatenate(name=f"{name}_concat")([left, right])


def squeezenet(
    x: KerasTensor,
    *,
    num_classes: int | None,
    stem: tuple[int, int],
    pools: Collection[int],
    dropout: float = 0.5,
    conv10_padding: int = 0,
) -> KerasTensor:
    """SqueezeNet: eight fire modules between two convolutions; the class maps of the last one are averaged.

    The logits are not negative: the last convolution, `predictions` here and conv10 in the paper, ends in a ReLU.

    Args:
        x: (B, H, W, 3).
        num_classes: How many logits; None stops at fire9.
        stem: Filters and size of conv1.
        pools: The layers, by number, that a 3x3 max pool at stride 2 follows.
        dropout: Share of fire9 that is dropped.
        conv10_padding: Zeros around the last convolution's input: 1 in the authors' Caffe definition of 1.0, 0 in
            Table 1.

    Returns:
        Logits (B, num_classes), or the average of fire9's 512 maps.

    Reference:
        Iandola et al. 2016, arXiv:1602.07360, Table 1, and the authors' release 1.1.
    """
    filters, size = stem
    x = conv(x, filters, size, stride=2, padding="valid", name="conv1")
    if 1 in pools:
        x = pool_3x3_s2(x, name="pool1")
    for i in range(2, 10):
        step = (i - 2) // 2 + 1  # the sizes grow with every second module
        x = fire(x, 16 * step, 64 * step, name=f"fire{i}")
        if i in pools:
            x = pool_3x3_s2(x, name=f"pool{i}")
    if num_classes is None:
        return layers.GlobalAveragePooling2D(name="avg_pool")(x)
    x = layers.Dropout(dropout, name="drop9")(x)
    if conv10_padding:
        x = layers.ZeroPadding2D(conv10_padding, name="pad10")(x)
    x = layers.Conv2D(
        num_classes,
        1,
        activation="relu",
        kernel_initializer=initializers.RandomNormal(stddev=0.01),
        dtype="float32",
        name="predictions",
    )(x)
    return layers.GlobalAveragePooling2D(dtype="float32", name="avg_pool")(x)
