"""Statistics of every block for fixed probe pictures, to compare two machines, versions or files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from kzoo.errors import WeightsError

if TYPE_CHECKING:
    import keras


def probe(height: int, width: int, channels: int = 3, count: int = 2, seed: int = 0) -> np.ndarray:
    """Make the probe pictures: coarse patches under noise, the same on every machine.

    Args:
        height: Of a picture.
        width: Of a picture.
        channels: Of a picture.
        count: How many pictures.
        seed: Of the random numbers.

    Returns:
        uint8 (count, height, width, channels).
    """
    rng = np.random.default_rng(seed)
    patches = rng.uniform(0, 255, (count, 8, 8, channels))
    rows, columns = np.arange(height) * 8 // height, np.arange(width) * 8 // width
    images = patches[:, rows][:, :, columns] + rng.normal(0, 20, (count, height, width, channels))
    return np.clip(np.rint(images), 0, 255).astype("uint8")


def block_of(name: str) -> str:
    """Return the block that a layer belongs to, from its name.

    Example:
        >>> [block_of(n) for n in ("conv2_block1_1_conv", "block_3_expand_BN", "mixed3_1x1_bn", "fire2_concat", "fc1")]
        ['conv2_block1', 'block_3', 'mixed3', 'fire2', 'fc1']
    """
    match = re.match(r"conv\d+_block\d+|(?:block|conv_dw|conv_pw)_?\d+(?:_\d+)?|[A-Za-z_]*?_?\d+[a-z]?|[A-Za-z]+", name)
    return match[0] if match else name


def statistics(model: keras.Model, images: np.ndarray) -> list[dict[str, Any]]:
    """Run pictures through a model and describe the output of each block.

    Args:
        model: The model.
        images: (B, H, W, C), such as `probe` makes them.

    Returns:
        One dict for the last layer of each block: block, layer, shape, mean, std, min, max.

    Raises:
        WeightsError: The output of a block is not finite.
    """
    import keras

    last = {}
    for layer in model.layers:
        if not isinstance(layer, keras.layers.InputLayer):
            last[block_of(layer.name)] = layer
    order = {layer.name: i for i, layer in enumerate(model.layers)}
    chosen = sorted(last.items(), key=lambda item: order[item[1].name])
    outputs = keras.Model(model.input, [layer.output for _, layer in chosen])(images, training=False)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    rows = []
    for (block, layer), y in zip(chosen, outputs, strict=True):
        y = np.asarray(keras.ops.convert_to_numpy(y), "float64")
        if not np.isfinite(y).all():
            raise WeightsError(f"{model.name} gives NaN or infinite values at {layer.name} for the probe pictures.")
        rows.append(
            {
                "block": block,
                "layer": layer.name,
                "shape": list(y.shape[1:]),
                "mean": float(y.mean()),
                "std": float(y.std()),
                "min": float(y.min()),
                "max": float(y.max()),
            }
        )
    return rows
