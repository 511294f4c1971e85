"""Inception v3 (Szegedy et al. 2015, arXiv:1512.00567, section 6, Figures 5 to 7 and 10).

The modules are called mixed0 to mixed10 as in the public Keras weights; the convolutions, which those weights only
number, are made here in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from keras import KerasTensor, layers

from kzoo.layers import classifier
from kzoo.models.inception import conv_norm

# A convolution and a 3x3 average pool that keeps the size, as the functions `conv` and `pool` of the modules.
Part = Callable[..., KerasTensor]


def average_pool(x: KerasTensor, *, name: str, count_padding: bool = False) -> KerasTensor:
    """3x3 average pool that keeps the size.

    Args:
        x: (B, H, W, C).
        name: Of the layer.
        count_padding: At the border, divide by 9, counting the padding's zeros, and not by the pixels that there are.
    """
    if not count_padding:
        return layers.AveragePooling2D(3, 1, padding="same", name=name)(x)
    x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    return layers.AveragePooling2D(3, 1, name=name)(x)


# --- Modules: (B, H, W, C) -> channels as in the comments, on the grid sizes for 299x299 -------------------


def module_a(x: KerasTensor, pool_filters: int, *, name: str, conv: Part, pool: Part) -> KerasTensor:
    """Two 3x3 in place of one 5x5 (Figure 5); beside them the authors' code has kept one 5x5.

    Args:
        x: (B, 35, 35, C).
        pool_filters: Filters behind the pool.
        name: Of the result, and prefix of the branches.
        conv: The convolution of the network.
        pool: Its average pool.

    Returns:
        (B, 35, 35, 224 + pool_filters).
    """
    a = conv(x, 64, 1, name=f"{name}_1x1")
    b = conv(x, 48, 1, name=f"{name}_5x5_reduce")
    b = conv(b, 64, 5, name=f"{name}_5x5")
    c = conv(x, 64, 1, name=f"{name}_double3x3_reduce")
    c = conv(c, 96, 3, name=f"{name}_double3x3_1")
    c = conv(c, 96, 3, name=f"{name}_double3x3_2")
    d = conv(pool(x, name=f"{name}_pool"), pool_filters, 1, name=f"{name}_pool_proj")
    return layers.Concatenate(name=name)([a, b, c, d])


def reduction_a(x: KerasTensor, *, name: str, conv: Part) -> KerasTensor:
    """Reduce 35x35x288 to 17x17x768 (Figure 10)."""
    a = conv(x, 384, 3, stride=2, padding="valid", name=f"{name}_3x3")
    b = conv(x, 64, 1, name=f"{name}_double3x3_reduce")
    b = conv(b, 96, 3, name=f"{name}_double3x3_1")
    b = conv(b, 96, 3, stride=2, padding="valid", name=f"{name}_double3x3_2")
    return layers.Concatenate(name=name)([a, b, layers.MaxPooling2D(3, 2, name=f"{name}_pool")(x)])


def module_b(x: KerasTensor, width: int, *, name: str, conv: Part, pool: Part) -> KerasTensor:
    """1x7 and 7x1 in place of 7x7 (Figure 6, n = 7).

    Args:
        x: (B, 17, 17, C).
        width: Filters inside the branches.
        name: Of the result, and prefix of the branches.
        conv: The convolution of the network.
        pool: Its average pool.

    Returns:
        (B, 17, 17, 768).
    """
    a = conv(x, 192, 1, name=f"{name}_1x1")
    b = conv(x, width, 1, name=f"{name}_7x7_reduce")
    b = conv(b, width, (1, 7), name=f"{name}_7x7_1")
    b = conv(b, 192, (7, 1), name=f"{name}_7x7_2")
    c = conv(x, width, 1, name=f"{name}_double7x7_reduce")
    c = conv(c, width, (7, 1), name=f"{name}_double7x7_1")
    c = conv(c, width, (1, 7), name=f"{name}_double7x7_2")
    c = conv(c, width, (7, 1), name=f"{name}_double7x7_3")
    c = conv(c, 192, (1, 7), name=f"{name}_double7x7_4")
    d = conv(pool(x, name=f"{name}_pool"), 192, 1, name=f"{name}_pool_proj")
    return layers.Concatenate(name=name)([a, b, c, d])


def reduction_b(x: KerasTensor, *, name: str, conv: Part) -> KerasTensor:
    """Reduce 17x17x768 to 8x8x1280."""
    a = conv(x, 192, 1, name=f"{name}_3x3_reduce")
    a = conv(a, 320, 3, stride=2, padding="valid", name=f"{name}_3x3")
    b = conv(x, 192, 1, name=f"{name}_7x7x3_reduce")
    b = conv(b, 192, (1, 7), name=f"{name}_7x7x3_1")
    b = conv(b, 192, (7, 1), name=f"{name}_7x7x3_2")
    b = conv(b, 192, 3, stride=2, padding="valid", name=f"{name}_7x7x3_3")
    return layers.Concatenate(name=name)([a, b, layers.MaxPooling2D(3, 2, name=f"{name}_pool")(x)])


def module_c(x: KerasTensor, *, name: str, conv: Part, pool: Part) -> KerasTensor:
    """1x3 and 3x1 side by side (Figure 7): 8x8 -> 8x8x2048."""
    a = conv(x, 320, 1, name=f"{name}_1x1")
    b = conv(x, 384, 1, name=f"{name}_3x3_reduce")
    b = [conv(b, 384, (1, 3), name=f"{name}_3x3_left"), conv(b, 384, (3, 1), name=f"{name}_3x3_right")]
    b = layers.Concatenate(name=f"{name}_3x3_concat")(b)
    c = conv(x, 448, 1, name=f"{name}_double3x3_reduce")
    c = conv(c, 384, 3, name=f"{name}_double3x3")
    c = [conv(c, 384, (1, 3), name=f"{name}_double3x3_left"), conv(c, 384, (3, 1), name=f"{name}_double3x3_right")]
    c = layers.Concatenate(name=f"{name}_double3x3_concat")(c)
    d = conv(pool(x, name=f"{name}_pool"), 192, 1, name=f"{name}_pool_proj")
    return layers.Concatenate(name=name)([a, b, c, d])


# --- Network ---------------------------------------------------------------------------------------------


def stem(x: KerasTensor, conv: Part) -> KerasTensor:
    """The stem: 299x299x3 -> 35x35x192; Inception-ResNet v2 begins in the same way, with its own `conv`."""
    x = conv(x, 32, 3, stride=2, padding="valid", name="stem_1")
    x = conv(x, 32, 3, padding="valid", name="stem_2")
    x = conv(x, 64, 3, name="stem_3")
    x = layers.MaxPooling2D(3, 2, name="stem_pool1")(x)
    x = conv(x, 80, 1, name="stem_4")
    x = conv(x, 192, 3, padding="valid", name="stem_5")
    return layers.MaxPooling2D(3, 2, name="stem_pool2")(x)


def inception_v3(
    x: KerasTensor, *, num_classes: int | None, count_padding: bool = False, gamma: bool = False
) -> KerasTensor:
    """Inception v3, with the modules of the authors' code.

    Args:
        x: (B, H, W, 3) of at least 75x75.
        num_classes: How many logits; None stops at the features.
        count_padding: Whether the average pools of the modules count the zeros of the padding, as in torchvision and
            timm; the authors' code leaves them out.
        gamma: Whether batch norm has a gamma, as in torchvision and timm; the ReLU's next convolution can scale.

    Returns:
        Logits (B, num_classes), or 2,048 features.

    Reference:
        Szegedy et al. 2015, arXiv:1512.00567, Table 1.
    """
    conv = partial(conv_norm, scale=gamma)
    parts = {"conv": conv, "pool": partial(average_pool, count_padding=count_padding)}
    x = stem(x, conv)
    x = module_a(x, 32, name="mixed0", **parts)
    x = module_a(x, 64, name="mixed1", **parts)
    x = module_a(x, 64, name="mixed2", **parts)
    x = reduction_a(x, name="mixed3", conv=conv)
    for i, width in enumerate((128, 160, 160, 192), 4):
        x = module_b(x, width, name=f"mixed{i}", **parts)
    x = reduction_b(x, name="mixed8", conv=conv)
    x = module_c(x, name="mixed9", **parts)
    x = module_c(x, name="mixed10", **parts)
    return classifier(layers.GlobalAveragePooling2D(name="avg_pool")(x), num_classes)
