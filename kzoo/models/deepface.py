"""DeepFace (Taigman et al. 2014): convolutions, then locally connected layers, for faces that are aligned."""

from __future__ import annotations

from typing import Any

from keras import KerasTensor, initializers, layers

from kzoo.layers import LocallyConnected2D, classifier, pool_3x3_s2


def start() -> dict[str, Any]:
    """Return the initializers of section 5.1: kernels from a Gaussian of standard deviation 0.01, biases 0.5."""
    return {
        "kernel_initializer": initializers.RandomNormal(stddev=0.01),
        "bias_initializer": initializers.Constant(0.5),
    }


def deepface(
    x: KerasTensor, *, num_classes: int | None, width: int = 16, units: int = 4096, dropout: float = 0.5
) -> KerasTensor:
    """DeepFace: in an aligned face every place has filters of its own, L4 to L6.

    152-142-71-63-55-25-21 pixels; the pool rounds up.

    Args:
        x: (B, 152, 152, 3), aligned faces.
        num_classes: Identities; None stops at F7, the face's descriptor.
        width: Filters of C3 to L6; C1 has twice as many.
        units: Of F7.
        dropout: Share of F7 that is dropped.

    Returns:
        Logits (B, num_classes), or F7's features (B, units).

    Reference:
        Taigman et al. 2014, section 3 and Figure 2.
    """
    x = layers.Conv2D(2 * width, 11, activation="relu", name="C1", **start())(x)
    x = pool_3x3_s2(x, name="M2")
    x = layers.Conv2D(width, 9, activation="relu", name="C3", **start())(x)
    x = LocallyConnected2D(width, 9, activation="relu", name="L4", **start())(x)
    x = LocallyConnected2D(width, 7, 2, activation="relu", name="L5", **start())(x)
    x = LocallyConnected2D(width, 5, activation="relu", name="L6", **start())(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(units, activation="relu", name="F7", **start())(x)
    x = layers.Dropout(dropout, name="drop7")(x)
    return classifier(x, num_classes, **start())
