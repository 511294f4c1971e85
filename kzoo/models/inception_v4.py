"""Inception v4 (Szegedy et al. 2016, arXiv:1602.07261, Figures 3 to 9)."""

from __future__ import annotations

from collections.abc import Callable

from keras import KerasTensor, layers

from kzoo.layers import classifier
from kzoo.models.inception import conv_norm as conv


def max_pool(x: KerasTensor, *, name: str) -> KerasTensor:
    """3x3 max pool at stride 2, without padding."""
    return layers.MaxPooling2D(3, 2, name=name)(x)


def pool_proj(x: KerasTensor, filters: int, *, name: str) -> KerasTensor:
    """3x3 average pool, then a 1x1 convolution to `filters` channels, both named after the module `name`."""
    x = layers.AveragePooling2D(3, 1, padding="same", name=f"{name}_pool")(x)
    return conv(x, filters, 1, name=f"{name}_pool_proj")


def stem(x: KerasTensor) -> KerasTensor:
    """The stem: 299x299x3 -> 35x35x384 (Figure 3); in the paper also that of Inception-ResNet v2."""
    x = conv(x, 32, 3, stride=2, padding="valid", name="stem_1")
    x = conv(x, 32, 3, padding="valid", name="stem_2")
    x = conv(x, 64, 3, name="stem_3")
    x = layers.Concatenate(name="stem_concat1")(
        [
            max_pool(x, name="stem_pool1"),
            conv(x, 96, 3, stride=2, padding="valid", name="stem_4"),
        ]
    )
    a = conv(x, 64, 1, name="stem_5a_1")
    a = conv(a, 96, 3, padding="valid", name="stem_5a_2")
    b = conv(x, 64, 1, name="stem_5b_1")
    b = conv(b, 64, (1, 7), name="stem_5b_2")
    b = conv(b, 64, (7, 1), name="stem_5b_3")
    b = conv(b, 96, 3, padding="valid", name="stem_5b_4")
    x = layers.Concatenate(name="stem_concat2")([a, b])
    return layers.Concatenate(name="stem_concat3")(
        [
            conv(x, 192, 3, stride=2, padding="valid", name="stem_6"),
            max_pool(x, name="stem_pool2"),
        ]
    )


def inception_a(x: KerasTensor, *, name: str) -> KerasTensor:
    """35x35x384 -> 35x35x384 (Figure 4)."""
    a = conv(x, 96, 1, name=f"{name}_1x1")
    b = conv(x, 64, 1, name=f"{name}_3x3_reduce")
    b = conv(b, 96, 3, name=f"{name}_3x3")
    c = conv(x, 64, 1, name=f"{name}_double3x3_reduce")
    c = conv(c, 96, 3, name=f"{name}_double3x3_1")
    c = conv(c, 96, 3, name=f"{name}_double3x3_2")
    return layers.Concatenate(name=name)([a, b, c, pool_proj(x, 96, name=name)])


def reduction_a(
    x: KerasTensor, k: int, l: int, m: int, n: int, *, name: str, conv: Callable[..., KerasTensor] = conv
) -> KerasTensor:
    """Reduce 35x35 to 17x17 (Figure 7); also in both Inception-ResNets.

    Args:
        x: (B, 35, 35, C).
        k: Of Table 1: filters of the 1x1 of the double 3x3 branch.
        l: Filters of its first 3x3.
        m: Filters of its second 3x3, with stride 2.
        n: Filters of the other branch's 3x3 with stride 2.
        name: Of the result, and prefix of the branches.
        conv: The convolution with what follows it.

    Returns:
        (B, 17, 17, C + n + m).
    """
    a = conv(x, n, 3, stride=2, padding="valid", name=f"{name}_3x3")
    b = conv(x, k, 1, name=f"{name}_double3x3_reduce")
    b = conv(b, l, 3, name=f"{name}_double3x3_1")
    b = conv(b, m, 3, stride=2, padding="valid", name=f"{name}_double3x3_2")
    return layers.Concatenate(name=name)([a, b, max_pool(x, name=f"{name}_pool")])


def inception_b(x: KerasTensor, *, name: str) -> KerasTensor:
    """17x17x1024 -> 17x17x1024 (Figure 5)."""
    a = conv(x, 384, 1, name=f"{name}_1x1")
    b = conv(x, 192, 1, name=f"{name}_7x7_reduce")
    b = conv(b, 224, (1, 7), name=f"{name}_7x7_1")
    b = conv(b, 256, (7, 1), name=f"{name}_7x7_2")
    c = conv(x, 192, 1, name=f"{name}_double7x7_reduce")
    c = conv(c, 192, (7, 1), name=f"{name}_double7x7_1")
    c = conv(c, 224, (1, 7), name=f"{name}_double7x7_2")
    c = conv(c, 224, (7, 1), name=f"{name}_double7x7_3")
    c = conv(c, 256, (1, 7), name=f"{name}_double7x7_4")
    return layers.Concatenate(name=name)([a, b, c, pool_proj(x, 128, name=name)])


def reduction_b(x: KerasTensor, *, name: str) -> KerasTensor:
    """Reduce 17x17x1024 to 8x8x1536 (Figure 8)."""
    a = conv(x, 192, 1, name=f"{name}_3x3_reduce")
    a = conv(a, 192, 3, stride=2, padding="valid", name=f"{name}_3x3")
    b = conv(x, 256, 1, name=f"{name}_7x7x3_reduce")
    b = conv(b, 256, (1, 7), name=f"{name}_7x7x3_1")
    b = conv(b, 320, (7, 1), name=f"{name}_7x7x3_2")
    b = conv(b, 320, 3, stride=2, padding="valid", name=f"{name}_7x7x3_3")
    return layers.Concatenate(name=name)([a, b, max_pool(x, name=f"{name}_pool")])


def inception_c(x: KerasTensor, *, name: str) -> KerasTensor:
    """8x8x1536 -> 8x8x1536 (Figure 6)."""
    a = conv(x, 256, 1, name=f"{name}_1x1")
    b = conv(x, 384, 1, name=f"{name}_3x3_reduce")
    b = [conv(b, 256, (1, 3), name=f"{name}_3x3_left"), conv(b, 256, (3, 1), name=f"{name}_3x3_right")]
    c = conv(x, 384, 1, name=f"{name}_double3x3_reduce")
    c = conv(c, 448, (3, 1), name=f"{name}_double3x3_1")
    c = conv(c, 512, (1, 3), name=f"{name}_double3x3_2")
    c = [conv(c, 256, (1, 3), name=f"{name}_double3x3_left"), conv(c, 256, (3, 1), name=f"{name}_double3x3_right")]
    return layers.Concatenate(name=name)([a, *b, *c, pool_proj(x, 256, name=name)])


def inception_v4(
    x: KerasTensor, *, num_classes: int | None, blocks: tuple[int, int, int] = (4, 7, 3), dropout: float = 0.2
) -> KerasTensor:
    """Inception v4.

    Args:
        x: (B, H, W, 3) of at least 75x75.
        num_classes: How many logits; None stops at the features.
        blocks: How many of each module.
        dropout: Share of the features that is dropped; the paper keeps 0.8.

    Returns:
        Logits (B, num_classes), or 1,536 features.

    Reference:
        Szegedy et al. 2016, arXiv:1602.07261, Figure 9.
    """
    x = stem(x)
    for i in range(blocks[0]):
        x = inception_a(x, name=f"inception_a{i + 1}")
    x = reduction_a(x, 192, 224, 256, 384, name="reduction_a")
    for i in range(blocks[1]):
        x = inception_b(x, name=f"inception_b{i + 1}")
    x = reduction_b(x, name="reduction_b")
    for i in range(blocks[2]):
        x = inception_c(x, name=f"inception_c{i + 1}")
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    if num_classes is None:
        return x
    return classifier(layers.Dropout(dropout, name="drop")(x), num_classes)
