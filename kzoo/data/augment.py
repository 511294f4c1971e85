"""Augmentation with Keras' own layers. It stands before the model while that trains, and is in no exported graph."""

import keras

from kzoo.errors import KzooError, unknown

# Outside the picture is black: digits go on as they are, and photos show what is real and what is not.
_FILL = {"fill_mode": "constant", "fill_value": 0.0}


def _flip(share, seed):
    if share != 0.5:  # Keras knows no other
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


def augmentation(pairs, seed):
    """Layers for a recipe's (name, amount) pairs, in float32, active in training only."""
    layers = []
    for i, (name, amount) in enumerate(pairs):
        if name not in AUGMENTATIONS:
            raise unknown("augmentation", name, AUGMENTATIONS, f"There are {', '.join(AUGMENTATIONS)}.")
        layer = AUGMENTATIONS[name](amount, seed + i)
        layer.dtype_policy = keras.dtype_policies.DTypePolicy("float32")
        layers.append(layer)
    return layers
