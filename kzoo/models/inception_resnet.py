"""Inception-ResNet v1 and v2 (Szegedy et al. 2016, arXiv:1602.07261, Figures 10 to 19).

Modules are named as in the public Keras weights of v2; the convolutions that those weights only number are made here
in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from keras import KerasTensor, layers

from kzoo.layers import classifier
from kzoo.models import inception_v3
from kzoo.models.inception import conv_norm
from kzoo.models.inception_v4 import reduction_a

# A convolution with batch norm, as the function `conv` of the modules.
Part = Callable[..., KerasTensor]


def residual(
    x: KerasTensor, branches: Sequence[KerasTensor], *, scale: float, name: str, relu: bool = True
) -> KerasTensor:
    """Add scale * (a linear 1x1 convolution of the concatenated branches) to x (section 3.3 on the scaling).

    Args:
        x: (B, H, W, C).
        branches: Tensors (B, H, W, any).
        scale: Factor of the residual.
        name: Prefix of its layers.
        relu: Whether a ReLU follows the sum.

    Returns:
        (B, H, W, C).
    """
    y = layers.Concatenate(name=f"{name}_mixed")(branches)
    y = layers.Conv2D(x.shape[-1], 1, name=f"{name}_conv")(y)
    y = layers.Rescaling(scale, name=f"{name}_scale")(y)
    x = layers.Add(name=f"{name}_add")([x, y])
    return layers.ReLU(name=f"{name}_ac")(x) if relu else x


# --- Modules that both versions have, at other widths; they keep the shape of x ----------------------------


def block35(
    x: KerasTensor, n1x1: int, n3x3: int, double3x3: tuple[int, int, int], *, scale: float, name: str, conv: Part
) -> KerasTensor:
    """Inception-ResNet-A on the 35x35 grid (Figures 10 and 16). It keeps the shape of x.

    Args:
        x: (B, H, W, C).
        n1x1: Filters of the 1x1 branch.
        n3x3: Filters of both convolutions of the 3x3 branch.
        double3x3: Filters of the three convolutions of the double 3x3 branch.
        scale: Factor of the residual.
        name: Prefix of its layers.
        conv: The convolution of the network.
    """
    a = conv(x, n1x1, 1, name=f"{name}_1x1")
    b = conv(x, n3x3, 1, name=f"{name}_3x3_reduce")
    b = conv(b, n3x3, 3, name=f"{name}_3x3")
    c = conv(x, double3x3[0], 1, name=f"{name}_double3x3_reduce")
    c = conv(c, double3x3[1], 3, name=f"{name}_double3x3_1")
    c = conv(c, double3x3[2], 3, name=f"{name}_double3x3_2")
    return residual(x, [a, b, c], scale=scale, name=name)


def block17(
    x: KerasTensor, n1x1: int, n7x7: tuple[int, int, int], *, scale: float, name: str, conv: Part
) -> KerasTensor:
    """Inception-ResNet-B on the 17x17 grid (Figures 11 and 17). It keeps the shape of x.

    Args:
        x: (B, H, W, C).
        n1x1: Filters of the 1x1 branch.
        n7x7: Filters of 1x1, 1x7 and 7x1 in the other branch.
        scale: Factor of the residual.
        name: Prefix of its layers.
        conv: The convolution of the network.
    """
    a = conv(x, n1x1, 1, name=f"{name}_1x1")
    b = conv(x, n7x7[0], 1, name=f"{name}_7x7_reduce")
    b = conv(b, n7x7[1], (1, 7), name=f"{name}_7x7_1")
    b = conv(b, n7x7[2], (7, 1), name=f"{name}_7x7_2")
    return residual(x, [a, b], scale=scale, name=name)


def block8(
    x: KerasTensor, n1x1: int, n3x3: tuple[int, int, int], *, scale: float, name: str, conv: Part, relu: bool = True
) -> KerasTensor:
    """Inception-ResNet-C on the 8x8 grid (Figures 13 and 19). It keeps the shape of x.

    Args:
        x: (B, H, W, C).
        n1x1: Filters of the 1x1 branch.
        n3x3: Filters of 1x1, 1x3 and 3x1 in the other branch.
        scale: Factor of the residual.
        name: Prefix of its layers.
        conv: The convolution of the network.
        relu: Whether a ReLU follows the sum.
    """
    a = conv(x, n1x1, 1, name=f"{name}_1x1")
    b = conv(x, n3x3[0], 1, name=f"{name}_3x3_reduce")
    b = conv(b, n3x3[1], (1, 3), name=f"{name}_3x3_1")
    b = conv(b, n3x3[2], (3, 1), name=f"{name}_3x3_2")
    return residual(x, [a, b], scale=scale, name=name, relu=relu)


def reduction_b(
    x: KerasTensor, left: int, middle: int, right: tuple[int, int], *, name: str, conv: Part
) -> KerasTensor:
    """Reduce 17x17 to 8x8 (Figures 12 and 18): three branches behind 1x1 convolutions to 256, and a max pool.

    Args:
        x: (B, H, W, C).
        left: Filters of the 3x3 with stride 2 of the first branch.
        middle: The same of the second branch.
        right: Filters of the two 3x3 of the third branch, the second with stride 2.
        name: Of the result, and prefix of the branches.
        conv: The convolution of the network.
    """
    a = conv(x, 256, 1, name=f"{name}_left_reduce")
    a = conv(a, left, 3, stride=2, padding="valid", name=f"{name}_left")
    b = conv(x, 256, 1, name=f"{name}_middle_reduce")
    b = conv(b, middle, 3, stride=2, padding="valid", name=f"{name}_middle")
    c = conv(x, 256, 1, name=f"{name}_right_reduce")
    c = conv(c, right[0], 3, name=f"{name}_right_1")
    c = conv(c, right[1], 3, stride=2, padding="valid", name=f"{name}_right_2")
    return layers.Concatenate(name=name)([a, b, c, layers.MaxPooling2D(3, 2, name=f"{name}_pool")(x)])


# --- Networks --------------------------------------------------------------------------------------------


def stem_v1(x: KerasTensor, conv: Part) -> KerasTensor:
    """The stem of v1: 299x299x3 -> 35x35x256 (Figure 14)."""
    x = conv(x, 32, 3, stride=2, padding="valid", name="stem_1")
    x = conv(x, 32, 3, padding="valid", name="stem_2")
    x = conv(x, 64, 3, name="stem_3")
    x = layers.MaxPooling2D(3, 2, name="stem_pool")(x)
    x = conv(x, 80, 1, name="stem_4")
    x = conv(x, 192, 3, padding="valid", name="stem_5")
    return conv(x, 256, 3, stride=2, padding="valid", name="stem_6")


def head(x: KerasTensor, num_classes: int | None, dropout: float) -> KerasTensor:
    """Global average pooling, dropout, logits.

    Args:
        x: (B, H, W, C).
        num_classes: How many logits; None returns the average.
        dropout: Share that is dropped; 0 leaves the layer out.
    """
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    if num_classes is None:
        return x
    if dropout:
        x = layers.Dropout(dropout, name="drop")(x)
    return classifier(x, num_classes)


def inception_resnet_v1(
    x: KerasTensor,
    *,
    num_classes: int | None,
    blocks: tuple[int, int, int] = (5, 10, 5),
    scales: tuple[float, float, float] = (0.17, 0.1, 0.2),
    dropout: float = 0.2,
) -> KerasTensor:
    """Inception-ResNet v1, about the cost of Inception v3.

    Args:
        x: (B, H, W, 3) of at least 75x75.
        num_classes: How many logits; None stops at the features.
        blocks: How many of each module.
        scales: Factors of their residuals.
        dropout: Share of the features that is dropped.

    Returns:
        Logits (B, num_classes), or 1,792 features.

    Reference:
        Szegedy et al. 2016, arXiv:1602.07261, Figure 15.
    """
    conv = partial(conv_norm, scale=False)
    x = stem_v1(x, conv)
    for i in range(blocks[0]):
        x = block35(x, 32, 32, (32, 32, 32), scale=scales[0], name=f"block35_{i + 1}", conv=conv)
    x = reduction_a(x, 192, 192, 256, 384, name="mixed_6a", conv=conv)
    for i in range(blocks[1]):
        x = block17(x, 128, (128, 128, 128), scale=scales[1], name=f"block17_{i + 1}", conv=conv)
    x = reduction_b(x, 384, 256, (256, 256), name="mixed_7a", conv=conv)
    for i in range(blocks[2]):
        x = block8(x, 192, (192, 192, 192), scale=scales[2], name=f"block8_{i + 1}", conv=conv)
    return head(x, num_classes, dropout)


def inception_resnet_v2(
    x: KerasTensor,
    *,
    num_classes: int | None,
    blocks: tuple[int, int, int] = (10, 20, 10),
    scales: tuple[float, float, float] = (0.17, 0.1, 0.2),
    dropout: float = 0.2,
    gamma: bool = False,
) -> KerasTensor:
    """Inception-ResNet v2 as in the authors' code and the public weights: wider, deeper, with Inception v3's stem.

    Args:
        x: (B, H, W, 3) of at least 75x75.
        num_classes: How many logits; None stops at the features.
        blocks: How many of each module.
        scales: Factors of their residuals; the last module has no ReLU and the factor 1.
        dropout: Share of the features that is dropped.
        gamma: Whether batch norm has a gamma, as in timm; the public Keras weights have none.

    Returns:
        Logits (B, num_classes), or 1,536 features.

    Reference:
        Szegedy et al. 2016, arXiv:1602.07261, Figure 15.
    """
    conv = partial(conv_norm, scale=gamma)
    x = inception_v3.stem(x, conv)
    a = conv(x, 96, 1, name="mixed_5b_1x1")
    b = conv(x, 48, 1, name="mixed_5b_5x5_reduce")
    b = conv(b, 64, 5, name="mixed_5b_5x5")
    c = conv(x, 64, 1, name="mixed_5b_double3x3_reduce")
    c = conv(c, 96, 3, name="mixed_5b_double3x3_1")
    c = conv(c, 96, 3, name="mixed_5b_double3x3_2")
    d = layers.AveragePooling2D(3, 1, padding="same", name="mixed_5b_pool")(x)
    d = conv(d, 64, 1, name="mixed_5b_pool_proj")
    x = layers.Concatenate(name="mixed_5b")([a, b, c, d])
    for i in range(blocks[0]):
        x = block35(x, 32, 32, (32, 48, 64), scale=scales[0], name=f"block35_{i + 1}", conv=conv)
    x = reduction_a(x, 256, 256, 384, 384, name="mixed_6a", conv=conv)
    for i in range(blocks[1]):
        x = block17(x, 192, (128, 160, 192), scale=scales[1], name=f"block17_{i + 1}", conv=conv)
    x = reduction_b(x, 384, 288, (288, 320), name="mixed_7a", conv=conv)
    for i in range(blocks[2]):
        last = i == blocks[2] - 1
        scale = 1.0 if last else scales[2]
        x = block8(x, 192, (192, 224, 256), scale=scale, name=f"block8_{i + 1}", conv=conv, relu=not last)
    x = conv(x, 1536, 1, name="conv_7b")
    return head(x, num_classes, dropout)
