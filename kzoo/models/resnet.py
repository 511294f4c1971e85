"""Residual networks (He et al. 2015, arXiv:1512.03385), and with pre-activation (He et al. 2016, arXiv:1603.05027).

Layer names are those of the public Keras weights: conv3_block1_0_conv is the shortcut of the first block of conv3_x.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
from keras import KerasTensor, layers

from kzoo.errors import KzooError, unknown
from kzoo.layers import BatchNormalization, classifier

_register = keras.saving.register_keras_serializable(package="kzoo")


def conv(x: KerasTensor, filters: int, size: int, *, name: str, stride: int = 1, bias: bool = False) -> KerasTensor:
    """A convolution padded by size // 2 on all four sides, named <name>_conv; He initialisation (section 3.4).

    Args:
        x: (B, H, W, C).
        filters: Channels of the result.
        size: Of the kernel.
        name: Prefix of its layers.
        stride: Of the kernel.
        bias: Whether it has a bias.
    """
    if size > 1 and stride > 1:  # "same" would pad right and bottom only; the public weights need all four sides
        x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
        padding = "valid"
    else:
        padding = "same"
    return layers.Conv2D(
        filters,
        size,
        strides=stride,
        padding=padding,
        use_bias=bias,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)


def norm(x: KerasTensor, *, name: str, epsilon: float = 1e-05) -> KerasTensor:
    """Batch norm with momentum 0.9."""
    return BatchNormalization(momentum=0.9, epsilon=epsilon, name=name)(x)


@_register
class ZeroPaddingShortcut(layers.Layer):
    """Shortcut of option A (section 3.3): every stride-th pixel, and zeros for the channels that are missing.

    Args:
        filters: Channels of the result.
        stride: Of the pixels.
        **kwargs: For keras.layers.Layer.

    Input: (B, H, W, C). Output: (B, ceil(H / stride), ceil(W / stride), filters).
    """

    kernel_size = 1  # for kzoo.ledger, as strides

    def __init__(self, filters: int, stride: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters, self.stride = filters, stride

    @property
    def strides(self) -> int:
        """The stride, under the name that `kzoo.ledger` reads."""
        return self.stride

    def call(self, x):
        if self.stride > 1:  # x[:, ::stride, ::stride], whose gradient takes TensorFlow several times as long
            x = keras.ops.average_pool(x, 1, strides=self.stride, data_format="channels_last")
        return keras.ops.pad(x, [[0, 0], [0, 0], [0, 0], [0, self.filters - x.shape[-1]]])

    def compute_output_shape(self, input_shape):
        b, h, w, _ = input_shape
        return (b, h and -(-h // self.stride), w and -(-w // self.stride), self.filters)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters, "stride": self.stride}


# --- Blocks: (B, H, W, C) -> (B, H / stride, W / stride, filters or 4 * filters) --------------------------


def join(
    x: KerasTensor,
    y: KerasTensor,
    *,
    shortcut: str,
    stride: int,
    conv: Callable[..., KerasTensor],
    norm: Callable[..., KerasTensor],
    name: str,
) -> KerasTensor:
    """End a block: ReLU(shortcut(x) + y), the shortcut being the identity where the shapes allow it.

    Args:
        x: Input of the block, (B, H, W, C).
        y: Its residual.
        shortcut: "projection" or "zero_padding" where the shapes differ; "none" gives ReLU(y).
        stride: Of the block.
        conv: The convolution of the network.
        norm: Its normalisation.
        name: Prefix of the layers.
    """
    if shortcut != "none":
        if stride > 1 or x.shape[-1] != y.shape[-1]:
            if shortcut == "zero_padding":
                x = ZeroPaddingShortcut(y.shape[-1], stride, name=f"{name}_0_pad")(x)
            else:
                x = norm(conv(x, y.shape[-1], 1, stride=stride, name=f"{name}_0"), name=f"{name}_0_bn")
        y = layers.Add(name=f"{name}_add")([x, y])
    return layers.ReLU(name=f"{name}_out")(y)


def basic(
    x: KerasTensor,
    filters: int,
    *,
    stride: int,
    name: str,
    shortcut: str,
    conv: Callable[..., KerasTensor],
    norm: Callable[..., KerasTensor],
) -> KerasTensor:
    """Two 3x3 convolutions (Figure 5, left).

    Args:
        x: (B, H, W, C).
        filters: Channels of the result.
        stride: Of the first convolution.
        name: Prefix of the layers.
        shortcut: See `join`.
        conv: The convolution of the network.
        norm: Its normalisation.

    Returns:
        (B, H / stride, W / stride, filters).
    """
    y = norm(conv(x, filters, 3, stride=stride, name=f"{name}_1"), name=f"{name}_1_bn")
    y = layers.ReLU(name=f"{name}_1_relu")(y)
    y = norm(conv(y, filters, 3, name=f"{name}_2"), name=f"{name}_2_bn")
    return join(x, y, shortcut=shortcut, stride=stride, conv=conv, norm=norm, name=name)


def bottleneck(
    x: KerasTensor,
    filters: int,
    *,
    stride: int,
    name: str,
    shortcut: str,
    conv: Callable[..., KerasTensor],
    norm: Callable[..., KerasTensor],
    stride_on: int = 1,
) -> KerasTensor:
    """1x1, 3x3 and 1x1, the last to 4 * filters (Figure 5, right).

    Args:
        x: (B, H, W, C).
        filters: Of the first two convolutions.
        stride: Of the block.
        name: Prefix of the layers.
        shortcut: See `join`.
        conv: The convolution of the network.
        norm: Its normalisation.
        stride_on: Which convolution has the stride: 1, the first 1x1, as published; 2, the 3x3.

    Returns:
        (B, H / stride, W / stride, 4 * filters).
    """
    strides = (stride, 1) if stride_on == 1 else (1, stride)
    y = norm(conv(x, filters, 1, stride=strides[0], name=f"{name}_1"), name=f"{name}_1_bn")
    y = layers.ReLU(name=f"{name}_1_relu")(y)
    y = norm(conv(y, filters, 3, stride=strides[1], name=f"{name}_2"), name=f"{name}_2_bn")
    y = layers.ReLU(name=f"{name}_2_relu")(y)
    y = norm(conv(y, 4 * filters, 1, name=f"{name}_3"), name=f"{name}_3_bn")
    return join(x, y, shortcut=shortcut, stride=stride, conv=conv, norm=norm, name=name)


def preactivation(
    x: KerasTensor,
    filters: int,
    *,
    stride: int,
    name: str,
    project: bool,
    conv: Callable[..., KerasTensor],
    norm: Callable[..., KerasTensor],
    bias: bool = True,
) -> KerasTensor:
    """A bottleneck with batch norm and ReLU before each convolution and none behind the sum.

    Args:
        x: (B, H, W, C).
        filters: Of the first two convolutions.
        stride: Of the 3x3 convolution.
        name: Prefix of the layers.
        project: Whether the shortcut is a 1x1 convolution.
        conv: The convolution of the network.
        norm: Its normalisation.
        bias: Whether the convolutions that no batch norm follows have a bias.

    Returns:
        (B, H / stride, W / stride, 4 * filters).

    Reference:
        He et al. 2016, arXiv:1603.05027, Figure 1b.
    """
    pre = layers.ReLU(name=f"{name}_preact_relu")(norm(x, name=f"{name}_preact_bn"))
    if project:
        x = conv(pre, 4 * filters, 1, stride=stride, bias=bias, name=f"{name}_0")
    elif stride > 1:
        x = layers.MaxPooling2D(1, stride, name=f"{name}_0_pool")(x)
    y = conv(pre, filters, 1, name=f"{name}_1")
    y = layers.ReLU(name=f"{name}_1_relu")(norm(y, name=f"{name}_1_bn"))
    y = conv(y, filters, 3, stride=stride, name=f"{name}_2")
    y = layers.ReLU(name=f"{name}_2_relu")(norm(y, name=f"{name}_2_bn"))
    y = conv(y, 4 * filters, 1, bias=bias, name=f"{name}_3")
    return layers.Add(name=f"{name}_out")([x, y])


BLOCKS = {"basic": basic, "bottleneck": bottleneck, "bottleneck_v1_5": partial(bottleneck, stride_on=2)}


# --- Networks --------------------------------------------------------------------------------------------


def pool(x: KerasTensor, *, zeros: bool = True) -> KerasTensor:
    """The 3x3 max pool at stride 2 of the ImageNet stems.

    Behind v1's ReLU zeros are as good as -inf. v2 has no ReLU here: Keras' public weights were trained with the zeros,
    those of timm and Keras Hub without.

    Args:
        x: (B, H, W, C).
        zeros: Whether the padding is zeros; else it never is the maximum.
    """
    if not zeros:
        # At stride 1 "same" pads all sides, at stride 2 it would not; every second of the maxima is what is wanted.
        x = layers.MaxPooling2D(3, 1, padding="same", name="pool1_max")(x)
        return layers.MaxPooling2D(1, 2, name="pool1_pool")(x)
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    return layers.MaxPooling2D(3, 2, name="pool1_pool")(x)


def resnet(
    x: KerasTensor,
    *,
    num_classes: int | None,
    blocks: Sequence[int],
    block: str,
    width: int = 64,
    shortcut: str = "projection",
    bias: bool = False,
    epsilon: float = 1e-05,
) -> KerasTensor:
    """Residual network for ImageNet: a 7x7 convolution, a max pool, four stages that halve the picture.

    Args:
        x: (B, H, W, 3).
        num_classes: How many logits; None stops at the features.
        blocks: Number of blocks in each stage.
        block: "basic", "bottleneck" (the stride on the first 1x1) or "bottleneck_v1_5" (on the 3x3).
        width: Filters of the first stage.
        shortcut: Where the shape changes: "projection" (option B) or "zero_padding" (option A); "none" gives the plain
            network.
        bias: Whether convolutions have a bias, as the weights need it; before batch norm it has no effect on what can
            be learnt.
        epsilon: Of batch norm, as the weights need it.

    Returns:
        Logits (B, num_classes), or features (B, 8 * width), four times as many behind bottlenecks.

    Raises:
        UnknownName: Another block or shortcut.

    Reference:
        He et al. 2015, arXiv:1512.03385, Table 1.
    """
    if block not in BLOCKS:
        raise unknown("block", block, BLOCKS, f"It is one of {', '.join(BLOCKS)}.")
    check_shortcut(shortcut)
    parts = {"conv": partial(conv, bias=bias), "norm": partial(norm, epsilon=epsilon)}
    x = parts["norm"](parts["conv"](x, width, 7, stride=2, name="conv1"), name="conv1_bn")
    x = pool(layers.ReLU(name="conv1_relu")(x))
    for stage, count in enumerate(blocks):
        for i in range(count):
            stride = 2 if stage and not i else 1
            name = f"conv{stage + 2}_block{i + 1}"
            x = BLOCKS[block](x, width * 2**stage, stride=stride, name=name, shortcut=shortcut, **parts)
    return classifier(layers.GlobalAveragePooling2D(name="avg_pool")(x), num_classes)


def resnet_cifar(
    x: KerasTensor, *, num_classes: int | None, depth: int, width: int = 16, shortcut: str = "zero_padding"
) -> KerasTensor:
    """Residual network for CIFAR: 6n + 2 layers, three stages of n basic blocks.

    Args:
        x: (B, 32, 32, 3).
        num_classes: How many logits; None stops at the features.
        depth: 6n + 2.
        width: Filters of the first stage.
        shortcut: As in `resnet`; "zero_padding" has no parameters.

    Returns:
        Logits (B, num_classes), or features (B, 4 * width).

    Raises:
        KzooError: `depth` is not 6n + 2.
        UnknownName: Another shortcut.

    Reference:
        He et al. 2015, arXiv:1512.03385, section 4.2.
    """
    if depth < 8 or depth % 6 != 2:
        raise KzooError(f"A CIFAR ResNet has 6n + 2 layers (8, 14, 20, ...), got depth={depth}.")
    check_shortcut(shortcut)
    x = norm(conv(x, width, 3, name="conv1"), name="conv1_bn")
    x = layers.ReLU(name="conv1_relu")(x)
    for stage in range(3):
        for i in range((depth - 2) // 6):
            stride = 2 if stage and not i else 1
            name = f"conv{stage + 2}_block{i + 1}"
            x = basic(x, width * 2**stage, stride=stride, name=name, shortcut=shortcut, conv=conv, norm=norm)
    return classifier(layers.GlobalAveragePooling2D(name="avg_pool")(x), num_classes)


def resnet_v2(
    x: KerasTensor,
    *,
    num_classes: int | None,
    blocks: Sequence[int],
    width: int = 64,
    stride_in: str = "last",
    bias: bool = True,
    pool_zeros: bool = True,
    epsilon: float = 1.001e-5,
) -> KerasTensor:
    """Residual network with pre-activation bottlenecks.

    As in TF-slim's code and the public Keras weights by default; timm and Keras Hub have stride_in="first", bias=False,
    pool_zeros=False and epsilon=1e-5.

    Args:
        x: (B, H, W, 3).
        num_classes: How many logits; None stops at the features.
        blocks: Number of blocks in each stage.
        width: Filters of the first stage.
        stride_in: "last": in the last block of a stage; "first": in the first block of the next one, as in the paper.
        bias: Whether the convolutions that no batch norm follows have a bias.
        pool_zeros: Whether the first max pool sees zeros around the picture, see `pool`.
        epsilon: Of batch norm, as the weights need it.

    Returns:
        Logits (B, num_classes), or features (B, 32 * width).

    Raises:
        UnknownName: Another stride_in.

    Reference:
        He et al. 2016, arXiv:1603.05027.
    """
    if stride_in not in ("first", "last"):
        raise unknown("stride_in", stride_in, ("first", "last"), "It is first or last.")
    parts = {"conv": conv, "norm": partial(norm, epsilon=epsilon)}
    x = pool(conv(x, width, 7, stride=2, bias=bias, name="conv1"), zeros=pool_zeros)
    for stage, count in enumerate(blocks):
        for i in range(count):
            at = (i == count - 1 and stage < len(blocks) - 1) if stride_in == "last" else (stage > 0 and not i)
            name = f"conv{stage + 2}_block{i + 1}"
            stride = 2 if at else 1
            x = preactivation(x, width * 2**stage, stride=stride, name=name, project=not i, bias=bias, **parts)
    x = layers.ReLU(name="post_relu")(parts["norm"](x, name="post_bn"))
    return classifier(layers.GlobalAveragePooling2D(name="avg_pool")(x), num_classes)


def check_shortcut(shortcut: str) -> None:
    """Check the name of a shortcut.

    Raises:
        UnknownName: It is not "projection", "zero_padding" or "none".
    """
    known = ("projection", "zero_padding", "none")
    if shortcut not in known:
        raise unknown("shortcut", shortcut, known, f"It is one of {', '.join(known)}.")
