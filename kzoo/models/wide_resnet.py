"""Wide residual networks (Zagoruyko and Komodakis 2016, arXiv:1605.07146, Table 1)."""

from __future__ import annotations

from keras import KerasTensor, layers

from kzoo.errors import KzooError
from kzoo.layers import BatchNormalization, classifier


def conv(x: KerasTensor, filters: int, size: int, *, name: str, stride: int = 1) -> KerasTensor:
    """A convolution without bias, padded by size // 2 on all four sides, named <name>_conv; He initialisation.

    Args:
        x: (B, H, W, C).
        filters: Channels of the result.
        size: Of the kernel.
        name: Prefix of its layers.
        stride: Of the kernel.
    """
    if size > 1 and stride > 1:  # padded on all four sides, as in the authors' Torch code
        x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
    return layers.Conv2D(
        filters,
        size,
        strides=stride,
        padding="valid" if stride > 1 else "same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)


def norm_relu(x: KerasTensor, *, name: str) -> KerasTensor:
    """Batch norm <name>_bn, then ReLU <name>_relu."""
    x = BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def block(x: KerasTensor, filters: int, *, stride: int, dropout: float, name: str) -> KerasTensor:
    """Two 3x3 convolutions, each behind batch norm and ReLU, with dropout between them (Figure 1d).

    Where the number of channels changes, the shortcut is a 1x1 convolution and starts behind the first ReLU, too.

    Args:
        x: (B, H, W, C).
        filters: Channels of the result.
        stride: Of the first convolution.
        dropout: Share that is dropped; 0 leaves the layer out.
        name: Prefix of its layers.

    Returns:
        (B, H / stride, W / stride, filters).
    """
    y = norm_relu(x, name=f"{name}_1")
    if x.shape[-1] != filters or stride > 1:
        x = conv(y, filters, 1, stride=stride, name=f"{name}_0")
    y = norm_relu(conv(y, filters, 3, stride=stride, name=f"{name}_1"), name=f"{name}_2")
    if dropout:
        y = layers.Dropout(dropout, name=f"{name}_drop")(y)
    y = conv(y, filters, 3, name=f"{name}_2")
    return layers.Add(name=f"{name}_add")([x, y])


def wide_resnet(x: KerasTensor, *, num_classes: int | None, depth: int, k: int, dropout: float = 0.0) -> KerasTensor:
    """WRN-depth-k: 6n + 4 layers, three stages of n blocks with 16k, 32k and 64k filters.

    Args:
        x: (B, 32, 32, 3).
        num_classes: How many logits; None stops at the features.
        depth: 6n + 4.
        k: Widening factor.
        dropout: Share that is dropped between the convolutions of a block.

    Returns:
        Logits (B, num_classes), or features (B, 64 * k).

    Raises:
        KzooError: `depth` is not 6n + 4.

    Reference:
        Zagoruyko and Komodakis 2016, arXiv:1605.07146, Table 1.
    """
    if depth < 10 or depth % 6 != 4:
        raise KzooError(f"A wide ResNet has 6n + 4 layers (10, 16, 22, ...), got depth={depth}.")
    x = conv(x, 16, 3, name="conv1")
    for stage in range(3):
        for i in range((depth - 4) // 6):
            stride = 2 if stage and not i else 1
            x = block(x, 16 * k * 2**stage, stride=stride, dropout=dropout, name=f"conv{stage + 2}_block{i + 1}")
    x = norm_relu(x, name="post")
    return classifier(layers.GlobalAveragePooling2D(name="avg_pool")(x), num_classes)
