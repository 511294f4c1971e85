"""All-CNN (Springenberg et al. 2014, arXiv:1412.6806, Tables 1 and 2): pooling replaced by stride."""

from __future__ import annotations

from typing import Any

from keras import KerasTensor, layers


def conv(
    x: KerasTensor, filters: int, size: int, *, name: str, stride: int = 1, padding: str = "same", **kwargs: Any
) -> KerasTensor:
    """Convolution, bias, ReLU, with He initialisation.

    Args:
        x: (B, H, W, C).
        filters: Channels of the result.
        size: Of the kernel.
        name: Of the layer.
        stride: Of the kernel.
        padding: "same" or "valid".
        **kwargs: For keras.layers.Conv2D.
    """
    return layers.Conv2D(
        filters,
        size,
        strides=stride,
        padding=padding,
        activation="relu",
        kernel_initializer="he_normal",
        name=name,
        **kwargs,
    )(x)


def allcnn_c(
    x: KerasTensor, *, num_classes: int | None, width: int = 96, input_dropout: float = 0.2, dropout: float = 0.5
) -> KerasTensor:
    """All-CNN-C: nine convolutions, two of them with stride 2 where base model C pools; the class maps are averaged.

    conv7 has no padding: 8x8 becomes the 6x6 that Table 1 averages over. The logits are not negative: the last
    convolution, `predictions`, ends in a ReLU, as printed.

    Args:
        x: (B, 32, 32, 3).
        num_classes: How many logits; None stops at conv8.
        width: Filters of the first convolutions.
        input_dropout: Share of the input that is dropped.
        dropout: Share that is dropped behind each stride.

    Returns:
        Logits (B, num_classes), or the average of conv8's 2 * width maps.

    Reference:
        Springenberg et al. 2014, arXiv:1412.6806, Tables 1 and 2.
    """
    x = layers.Dropout(input_dropout, name="drop0")(x)
    x = conv(x, width, 3, name="conv1")
    x = conv(x, width, 3, name="conv2")
    x = conv(x, width, 3, stride=2, name="conv3")
    x = layers.Dropout(dropout, name="drop3")(x)
    x = conv(x, 2 * width, 3, name="conv4")
    x = conv(x, 2 * width, 3, name="conv5")
    x = conv(x, 2 * width, 3, stride=2, name="conv6")
    x = layers.Dropout(dropout, name="drop6")(x)
    x = conv(x, 2 * width, 3, padding="valid", name="conv7")
    x = conv(x, 2 * width, 1, name="conv8")
    if num_classes is not None:
        x = conv(x, num_classes, 1, dtype="float32", name="predictions")
    return layers.GlobalAveragePooling2D(dtype="float32", name="avg_pool")(x)
