"""MobileNets (Howard et al. 2017, arXiv:1704.04861; Sandler et al. 2018, arXiv:1801.04381) and separable filters.

Layer names are those of the public Keras weights.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from keras import KerasTensor, layers

from kzoo.layers import BatchNormalization, classifier

# --- The outer product of the lectures -------------------------------------------------------------------


def outer_product_conv(x: KerasTensor, filters: int, size: int, *, name: str) -> KerasTensor:
    """A convolution whose kernel is an outer product: W[x, y, c, k] = S[x, y, k] * P[c, k].

    Mixing the channels by P and then filtering each of the k maps by its own S is the same as the dense convolution
    with W, and is computed so: a 1x1 convolution <name>_pointwise, then <name>_depthwise. C * k + size^2 * k
    parameters instead of size^2 * C * k.

    `depthwise_separable`, MobileNet's block, has W[x, y, c, k] = S[x, y, c] * P[c, k]: it filters first, then mixes
    (if there were no batch norm and ReLU between the two), with size^2 * C + C * k parameters.

    Args:
        x: (B, H, W, C).
        filters: Channels k of the result.
        size: Of the kernel.
        name: Prefix of the two layers.

    Returns:
        (B, H, W, filters), without bias or activation.
    """
    x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_pointwise")(x)
    return layers.DepthwiseConv2D(size, padding="same", use_bias=False, name=f"{name}_depthwise")(x)


# --- Padding ---------------------------------------------------------------------------------------------


def padded(x: KerasTensor, symmetric: bool, *, name: str) -> tuple[KerasTensor, str]:
    """Pad for a 3x3 convolution at stride 2.

    Args:
        x: (B, H, W, C).
        symmetric: Whether by zeros on all four sides; else "same" pads, right and bottom only where the size is even.
        name: Of the layer.

    Returns:
        (x, "valid"), padded, or (x, "same") as it was.
    """
    return (layers.ZeroPadding2D(1, name=name)(x), "valid") if symmetric else (x, "same")


# --- MobileNet v1 ----------------------------------------------------------------------------------------


def norm_relu6(x: KerasTensor, *, name: str, relu: str, norm: Callable[..., layers.Layer]) -> KerasTensor:
    """Batch norm as `norm` makes it, then ReLU6, each with its own name."""
    x = norm(name=name)(x)
    return layers.ReLU(6.0, name=relu)(x)


def depthwise_separable(
    x: KerasTensor,
    filters: int,
    *,
    stride: int,
    index: int,
    symmetric: bool = False,
    norm: Callable[..., layers.Layer] = BatchNormalization,
) -> KerasTensor:
    """3x3 depthwise, then 1x1 convolution, each with batch norm and ReLU6 (Figure 3, right).

    Args:
        x: (B, H, W, C).
        filters: Channels of the result.
        stride: Of the depthwise convolution.
        index: Number of the block, for the names.
        symmetric: As in `mobilenet_v1`.
        norm: Makes a batch norm of a name.
    """
    dw, pw = f"conv_dw_{index}", f"conv_pw_{index}"
    if stride > 1:
        # Right and bottom at every size, as the public weights were trained; "same" would differ at odd sizes.
        x = layers.ZeroPadding2D(1 if symmetric else ((0, 1), (0, 1)), name=f"conv_pad_{index}")(x)
    padding = "valid" if stride > 1 else "same"
    x = layers.DepthwiseConv2D(3, strides=stride, padding=padding, use_bias=False, name=dw)(x)
    x = norm_relu6(x, name=f"{dw}_bn", relu=f"{dw}_relu", norm=norm)
    x = layers.Conv2D(filters, 1, use_bias=False, name=pw)(x)
    return norm_relu6(x, name=f"{pw}_bn", relu=f"{pw}_relu", norm=norm)


# Table 1: filters and stride of the thirteen depthwise separable blocks.
V1_BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
)


def mobilenet_v1(
    x: KerasTensor,
    *,
    num_classes: int | None,
    alpha: float = 1.0,
    dropout: float = 0.001,
    symmetric: bool = False,
    epsilon: float = 0.001,
    momentum: float = 0.99,
) -> KerasTensor:
    """MobileNet v1.

    Args:
        x: (B, H, W, 3).
        num_classes: How many logits; None stops at the features.
        alpha: The width multiplier, any positive number.
        dropout: Share of the features that is dropped.
        symmetric: Whether convolutions with a stride are padded on all four sides, as in timm, and not right and
            bottom only.
        epsilon: Of batch norm, as the weights need it.
        momentum: Of batch norm.

    Returns:
        Logits (B, num_classes), or features (B, int(1024 * alpha)).

    Reference:
        Howard et al. 2017, arXiv:1704.04861, Table 1.
    """
    norm = partial(BatchNormalization, epsilon=epsilon, momentum=momentum)
    x, padding = padded(x, symmetric, name="conv1_pad")
    x = layers.Conv2D(int(32 * alpha), 3, strides=2, padding=padding, use_bias=False, name="conv1")(x)
    x = norm_relu6(x, name="conv1_bn", relu="conv1_relu", norm=norm)
    for i, (filters, stride) in enumerate(V1_BLOCKS, 1):
        x = depthwise_separable(x, int(filters * alpha), stride=stride, index=i, symmetric=symmetric, norm=norm)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    if num_classes is None:
        return x
    return classifier(layers.Dropout(dropout, name="dropout")(x), num_classes)


# --- MobileNet v2 ----------------------------------------------------------------------------------------


def multiple_of_8(filters: float) -> int:
    """Round to the nearest multiple of 8, at least 8 and not more than 10 % below, as the authors' code does."""
    nearest = max(8, int(filters + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * filters else nearest + 8


def inverted_residual(
    x: KerasTensor,
    filters: int,
    *,
    stride: int,
    expansion: int,
    name: str,
    symmetric: bool,
    norm: Callable[..., layers.Layer],
) -> KerasTensor:
    """1x1 to `expansion` times the channels, 3x3 depthwise, linear 1x1 to filters (Figure 4d); added if shapes allow.

    Args:
        x: (B, H, W, C).
        filters: Channels of the result.
        stride: Of the depthwise convolution.
        expansion: Factor of the channels inside; 1 leaves the first convolution out.
        name: Prefix of its layers.
        symmetric: As in `mobilenet_v2`.
        norm: Makes a batch norm of a name.

    Returns:
        (B, H / stride, W / stride, filters).
    """
    channels = x.shape[-1]
    y, padding = x, "same"
    if expansion > 1:
        y = layers.Conv2D(expansion * channels, 1, use_bias=False, name=f"{name}_expand")(y)
        y = norm_relu6(y, name=f"{name}_expand_BN", relu=f"{name}_expand_relu", norm=norm)
    if stride > 1:
        y, padding = padded(y, symmetric, name=f"{name}_pad")
    y = layers.DepthwiseConv2D(3, strides=stride, padding=padding, use_bias=False, name=f"{name}_depthwise")(y)
    y = norm_relu6(y, name=f"{name}_depthwise_BN", relu=f"{name}_depthwise_relu", norm=norm)
    y = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_project")(y)
    y = norm(name=f"{name}_project_BN")(y)
    if stride == 1 and channels == filters:
        y = layers.Add(name=f"{name}_add")([x, y])
    return y


# Table 2: expansion t, filters c, blocks n, stride s.
V2_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def mobilenet_v2(
    x: KerasTensor,
    *,
    num_classes: int | None,
    alpha: float = 1.0,
    symmetric: bool = False,
    epsilon: float = 0.001,
    momentum: float = 0.99,
) -> KerasTensor:
    """MobileNet v2.

    Args:
        x: (B, H, W, 3).
        num_classes: How many logits; None stops at the features.
        alpha: The width multiplier, any positive number; the last convolution grows with it only above 1.
        symmetric: Whether convolutions with a stride are padded on all four sides, as in torchvision and timm; "same"
            pads right and bottom only where the size is even.
        epsilon: Of batch norm, as the weights need it.
        momentum: Of batch norm.

    Returns:
        Logits (B, num_classes), or features (B, 1280 * max(alpha, 1)).

    Reference:
        Sandler et al. 2018, arXiv:1801.04381, Table 2.
    """
    norm = partial(BatchNormalization, epsilon=epsilon, momentum=momentum)
    x, padding = padded(x, symmetric, name="Conv1_pad")
    x = layers.Conv2D(multiple_of_8(32 * alpha), 3, strides=2, padding=padding, use_bias=False, name="Conv1")(x)
    x = norm_relu6(x, name="bn_Conv1", relu="Conv1_relu", norm=norm)
    index = 0
    for expansion, filters, count, stride in V2_STAGES:
        for i in range(count):
            name = f"block_{index}" if index else "expanded_conv"
            filters_out = multiple_of_8(int(filters * alpha))
            x = inverted_residual(
                x,
                filters_out,
                stride=1 if i else stride,
                expansion=expansion,
                name=name,
                symmetric=symmetric,
                norm=norm,
            )
            index += 1
    x = layers.Conv2D(multiple_of_8(1280 * max(alpha, 1.0)), 1, use_bias=False, name="Conv_1")(x)
    x = norm_relu6(x, name="Conv_1_bn", relu="out_relu", norm=norm)
    return classifier(layers.GlobalAveragePooling2D(name="avg_pool")(x), num_classes)
