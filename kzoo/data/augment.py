"""Augmentation with Keras' own layers. It runs in front of the model during training and is in no exported graph."""

from __future__ import annotations

from collections.abc import Iterable

import keras

from kzoo.errors import KzooError, unknown

# Pixels from outside the picture are black: right for digits, and visibly artificial in photos.
_FILL = {"fill_mode": "constant", "fill_value": 0.0}


def _flip(share, seed):
    if share != 0.5:  # Keras has no other probability
        raise KzooError(f"flip mirrors half of the pictures, so its amount is 0.5, not {share}.")
    return keras.layers.RandomFlip("horizontal", seed=seed)


AUGMENTATIONS = {
    "flip": _flip,
    # By whole pixels ("nearest"), as a crop of a padded picture: between them every training picture would be blurred.
    "shift": lambda share, seed: keras.layers.RandomTranslation(
        share, share, interpolation="nearest", seed=seed, **_FILL
    ),
    # A crop of the picture in a border of grey, as He et al. 2015, section 4.2, pad pictures less their mean by zeros.
    "crop": lambda share, seed: keras.layers.RandomTranslation(
        share, share, interpolation="nearest", fill_mode="constant", fill_value=128.0, seed=seed
    ),
    # A grey square of that share of the side in every picture (Cutout: DeVries and Taylor 2017, arXiv:1708.04552).
    "cutout": lambda share, seed: keras.layers.RandomErasing(
        factor=(1.0, 1.0), scale=(share**2, share**2), fill_value=128.0, value_range=(0, 255), seed=seed
    ),
    "rotate": lambda degrees, seed: keras.layers.RandomRotation(degrees / 360, seed=seed, **_FILL),
    "zoom": lambda share, seed: keras.layers.RandomZoom((-share, share), seed=seed, **_FILL),
    "brightness": lambda share, seed: keras.layers.RandomBrightness(share, value_range=(0, 255), seed=seed),
    "contrast": lambda share, seed: keras.layers.RandomContrast(share, seed=seed),
}


def augmentation(pairs: Iterable[tuple[str, float]], seed: int) -> list[keras.layers.Layer]:
    """Make the augmentation layers of a recipe. They change images while training and do nothing otherwise.

    Args:
        pairs: (name, amount) pairs, applied in order; the names are those of `AUGMENTATIONS`. Amounts: "flip" takes
            0.5; "shift", "crop", "cutout" and "zoom" a share of the side; "rotate" degrees; "brightness" and
            "contrast" a share of the range.
        seed: Seed of the first layer; each further layer takes the next number.

    Returns:
        Keras layers that compute in float32.

    Raises:
        UnknownName: No augmentation has that name.
        KzooError: "flip" has another amount than 0.5.

    Example:
        >>> [layer.name.rstrip("_0123456789") for layer in augmentation([("flip", 0.5), ("zoom", 0.1)], seed=0)]
        ['random_flip', 'random_zoom']
    """
    layers = []
    for i, (name, amount) in enumerate(pairs):
        if name not in AUGMENTATIONS:
            raise unknown("augmentation", name, AUGMENTATIONS, f"There are {', '.join(AUGMENTATIONS)}.")
        layer = AUGMENTATIONS[name](amount, seed + i)
        layer.dtype_policy = keras.dtype_policies.DTypePolicy("float32")
        layers.append(layer)
    return layers
