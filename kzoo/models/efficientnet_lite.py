"""EfficientNet-Lite (Tan and Le 2019, arXiv:1905.11946, without squeeze-excitation and with ReLU6, for small devices).

Layer names are those of the public Keras weights of EfficientNet.
"""

from __future__ import annotations

import math
import string
from functools import partial

from keras import KerasTensor, layers

from kzoo.layers import BatchNormalization, classifier
from kzoo.models.mobilenet import multiple_of_8, norm_relu6

# Table 1 of the paper, stages 2 to 8: blocks, size of the kernel, stride, expansion, filters.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
norm = partial(BatchNormalization, epsilon=1e-3, momentum=0.99)


def mbconv(x: KerasTensor, filters: int, *, size: int, stride: int, expansion: int, name: str) -> KerasTensor:
    """1x1 to `expansion` times the channels, depthwise, linear 1x1 to filters; added to the input if shapes allow.

    Args:
        x: (B, H, W, C).
        filters: Channels of the result.
        size: Of the depthwise kernel.
        stride: Of the depthwise convolution.
        expansion: Factor of the channels inside; 1 leaves the first convolution out.
        name: Prefix of its layers.

    Returns:
        (B, H / stride, W / stride, filters).
    """
    channels, y = x.shape[-1], x
    if expansion > 1:
        y = layers.Conv2D(expansion * channels, 1, use_bias=False, name=f"{name}_expand_conv")(y)
        y = norm_relu6(y, name=f"{name}_expand_bn", relu=f"{name}_expand_activation", norm=norm)
    y = layers.DepthwiseConv2D(size, strides=stride, padding="same", use_bias=False, name=f"{name}_dwconv")(y)
    y = norm_relu6(y, name=f"{name}_bn", relu=f"{name}_activation", norm=norm)
    y = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_project_conv")(y)
    y = norm(name=f"{name}_project_bn")(y)
    return layers.Add(name=f"{name}_add")([x, y]) if stride == 1 and channels == filters else y


def efficientnet_lite(
    x: KerasTensor, *, num_classes: int | None, width: float = 1.0, depth: float = 1.0, dropout: float = 0.2
) -> KerasTensor:
    """EfficientNet-Lite; lite0 as it stands, lite1 to lite4 by width and depth.

    Args:
        x: (B, H, W, 3).
        num_classes: How many logits; None stops at the features.
        width: Factor of the filters: 1, 1, 1.1, 1.2, 1.4 for lite0 to lite4. The first and the last convolution keep
            theirs.
        depth: Factor of the blocks: 1, 1.1, 1.2, 1.4, 1.8. The first and the last stage keep theirs.
        dropout: Share of the features that is dropped; 0.3 from lite2 on.

    Returns:
        Logits (B, num_classes), or features (B, 1280).

    Reference:
        Tan and Le 2019, arXiv:1905.11946, Table 1; the changes are those of the authors' efficientnet/lite code: no
        squeeze-excitation, ReLU6 for swish, a stem, a head and outer stages of fixed size.
    """
    x = layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False, name="stem_conv")(x)
    x = norm_relu6(x, name="stem_bn", relu="stem_activation", norm=norm)
    for stage, (count, size, stride, expansion, filters) in enumerate(STAGES, 1):
        repeats = count if stage in (1, len(STAGES)) else math.ceil(depth * count)
        for i, letter in zip(range(repeats), string.ascii_lowercase, strict=False):
            x = mbconv(
                x,
                multiple_of_8(filters * width),
                size=size,
                stride=1 if i else stride,
                expansion=expansion,
                name=f"block{stage}{letter}",
            )
    x = layers.Conv2D(1280, 1, use_bias=False, name="top_conv")(x)
    x = norm_relu6(x, name="top_bn", relu="top_activation", norm=norm)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return x if num_classes is None else classifier(layers.Dropout(dropout, name="top_dropout")(x), num_classes)
