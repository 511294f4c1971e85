"""VGG (Simonyan and Zisserman 2014, arXiv:1409.1556, Table 1)."""

from __future__ import annotations

from collections.abc import Sequence

from keras import KerasTensor, layers

from kzoo.layers import BatchNormalization, classifier


def vgg(
    x: KerasTensor,
    *,
    num_classes: int | None,
    blocks: Sequence[int],
    width: int = 64,
    hidden: int = 2,
    units: int = 4096,
    dropout: float = 0.5,
    batch_norm: bool = False,
    initialization: str = "glorot_uniform",
) -> KerasTensor:
    """VGG: blocks of 3x3 convolutions, each closed by a 2x2 max pool; two wide dense layers with dropout.

    Args:
        x: (B, H, W, 3).
        num_classes: How many logits; None stops at the features.
        blocks: Convolutions in each block; the width doubles from block to block up to 8 * width.
        width: Filters of the first block.
        hidden: Dense layers before the classifier; for small pictures it may be 0.
        units: Of each dense layer.
        dropout: Share of each dense layer that is dropped.
        batch_norm: Whether batch norm stands between each convolution and its ReLU.
        initialization: Of every kernel. Glorot's halves the variance at each ReLU; "he_normal" keeps it, so that 16
            and 19 layers train from scratch without batch norm, too.

    Returns:
        Logits (B, num_classes), or fc2's features (B, units); without dense layers the last block's, as a vector.

    Reference:
        Simonyan and Zisserman 2014, arXiv:1409.1556, Table 1.
    """
    for i, count in enumerate(blocks, 1):
        filters = min(width * 2 ** (i - 1), 8 * width)
        for j in range(1, count + 1):
            x = layers.Conv2D(
                filters,
                3,
                padding="same",
                activation=None if batch_norm else "relu",
                kernel_initializer=initialization,
                name=f"block{i}_conv{j}",
            )(x)
            if batch_norm:
                x = BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"block{i}_bn{j}")(x)
                x = layers.ReLU(name=f"block{i}_relu{j}")(x)
        x = layers.MaxPooling2D(2, name=f"block{i}_pool")(x)
    x = layers.Flatten(name="flatten")(x)
    for i in range(1, hidden + 1):
        x = layers.Dense(units, activation="relu", kernel_initializer=initialization, name=f"fc{i}")(x)
        x = layers.Dropout(dropout, name=f"drop{i}")(x)
    return classifier(x, num_classes)
