"""C3D (Tran et al. 2014, "Learning Spatiotemporal Features with 3D Convolutional Networks", arXiv:1412.0767)."""

from __future__ import annotations

from typing import Any

from keras import KerasTensor, initializers, layers

from kzoo.layers import classifier


def start(deviation: float, bias: float) -> dict[str, Any]:
    """Return the initializers of the authors' release: a Gaussian for kernels, a constant for biases."""
    return {
        "kernel_initializer": initializers.RandomNormal(stddev=deviation),
        "bias_initializer": initializers.Constant(bias),
    }


def c3d(
    x: KerasTensor, *, num_classes: int | None, width: int = 64, units: int = 4096, dropout: float = 0.5
) -> KerasTensor:
    """C3D: eight 3x3x3 convolutions and five pools over time and space, two dense layers.

    The first pool keeps the frames, "not to merge the temporal signal too early". For a clip of 16 frames the others
    leave 8, 4, 2 and 1; 112 pixels become 56, 28, 14, 7 and 4: the pools round up, as Caffe's do.

    Args:
        x: (B, 16, 112, 112, 3).
        num_classes: How many logits; None stops at fc7.
        width: Filters of the first convolution; the others have up to 8 times as many.
        units: Of fc6 and fc7.
        dropout: Share of fc6 and fc7 that is dropped.

    Returns:
        Logits (B, num_classes), or fc7's features (B, units).

    Reference:
        Tran et al. 2014, arXiv:1412.0767, section 3.3 and Figure 3.
    """
    for stage, (names, times) in enumerate((("a", 1), ("a", 2), ("ab", 4), ("ab", 8), ("ab", 8)), 1):
        for letter in names:
            x = layers.Conv3D(
                times * width,
                3,
                padding="same",
                activation="relu",
                name=f"conv{stage}{letter}",
                **start(0.01, 0.0 if stage == 1 else 1.0),
            )(x)
        x = layers.MaxPooling3D((1, 2, 2) if stage == 1 else 2, padding="same", name=f"pool{stage}")(x)
    x = layers.Flatten(name="flatten")(x)
    for name in ("6", "7"):
        x = layers.Dense(units, activation="relu", name="fc" + name, **start(0.005, 1.0))(x)
        x = layers.Dropout(dropout, name="drop" + name)(x)
    return classifier(x, num_classes, **start(0.01, 0.0))
