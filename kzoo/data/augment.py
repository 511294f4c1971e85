"""Augmentation with Keras' own layers. It runs in front of the model during training and is in no exported graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import keras

from kzoo.data.masks import IGNORED
from kzoo.errors import KzooError, unknown

# Pixels from outside the picture are black: right for digits, and visibly artificial in photos.
_FILL = {"fill_mode": "constant", "fill_value": 0.0}


def _flip(share, seed):
    if share != 0.5:  # Keras has no other probability
        raise KzooError(f"flip mirrors half of the pictures, so its amount is 0.5, not {share}.")
    return keras.layers.RandomFlip("horizontal", seed=seed)


# The principal components of the colours of ImageNet's training pictures in 0..1, one a column, and the square roots of
# their variances, as fb.resnet.torch prints them.
_COLOURS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
_DEVIATIONS = (0.2175, 0.0188, 0.0045)


@keras.saving.register_keras_serializable(package="kzoo")
class RandomLighting(keras.layers.Layer):
    """Adds to each picture a random amount of each principal component of ImageNet's colours, while training.

    x + 255 * sum_i p_i * a_i * d_i for all pixels, with components p, their deviations d, and normal a.

    Args:
        deviation: of a.
        seed: of a.

    Reference:
        Krizhevsky et al. 2012, section 4.1.
    """

    def __init__(self, deviation: float, seed: int, **kwargs):
        super().__init__(**kwargs)
        self.deviation, self.seed = deviation, seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, shape):
        """Check that there are three channels."""
        if shape[-1] != 3:
            raise KzooError(f"lighting changes the colours of RGB pictures, not of {shape[-1]} channels.")

    def call(self, x, training=False):
        """(B, H, W, 3) in 0..255."""
        if not training:
            return x
        amounts = keras.random.normal((keras.ops.shape(x)[0], 3), 0.0, self.deviation, seed=self.seed_generator)
        components = 255.0 * keras.ops.array(_COLOURS, x.dtype) * keras.ops.array(_DEVIATIONS, x.dtype)
        added = keras.ops.matmul(keras.ops.cast(amounts, x.dtype), keras.ops.transpose(components))
        return x + added[:, None, None]

    def get_config(self):
        """The arguments of the constructor, for Keras."""
        return {**super().get_config(), "deviation": self.deviation, "seed": self.seed}


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
    "lighting": lambda deviation, seed: RandomLighting(deviation, seed),
}


def augmentation(pairs: Iterable[tuple[str, float]], seed: int) -> list[keras.layers.Layer]:
    """Make the augmentation layers of a recipe. They change images while training and do nothing otherwise.

    Args:
        pairs: (name, amount) pairs, applied in order; the names are those of `AUGMENTATIONS`. Amounts: "flip" takes
            0.5; "shift", "crop", "cutout" and "zoom" a share of the side; "rotate" degrees; "brightness" and
            "contrast" a share of the range; "lighting" the deviation of the amounts.
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
        if keras.backend.backend() == "jax":  # it compiles; Keras says it does not, and would train without compiling
            layer.supports_jit = True
        layers.append(layer)
    return layers


# --- pictures and masks moved alike --------------------------------------------------------------------------------

MOVES = ("flip", "shift", "crop", "zoom", "rotate")
STILL = ("brightness", "contrast", "lighting")


def moves(pairs: Iterable[tuple[str, float]]) -> Callable | None:
    """Make a function that moves pictures and their masks alike, for the (name, amount) pairs that move pixels.

    The amounts are those of `augmentation`. A picture is interpolated only where it is turned or resized, a mask never.
    What comes in from outside has no label in the mask.

    Args:
        pairs: (name, amount) pairs, applied in order.

    Returns:
        A TensorFlow function of pictures uint8 (B, H, W, C), masks uint8 (B, H, W) and a seed int64 (2,) that gives
        both moved; the same seed, the same moves. None if none of the pairs moves anything.

    Raises:
        UnknownName: No augmentation has that name.
        KzooError: One of them can't be done to a mask.
    """
    pairs = list(pairs)
    for name, amount in pairs:
        if name not in AUGMENTATIONS:
            raise unknown("augmentation", name, AUGMENTATIONS, f"There are {', '.join(AUGMENTATIONS)}.")
        if name not in MOVES + STILL:
            raise KzooError(
                f"The augmentation {name} hides pixels whose labels a mask keeps, so it is not for segmentation, which "
                f"takes {', '.join(MOVES + STILL)}: choose a recipe without it."
            )
        if name == "flip":
            _flip(amount, 0)
    chosen = [pair for pair in pairs if pair[0] in MOVES]
    if not chosen:
        return None
    import tensorflow as tf

    def moved(x, y, seed):
        given = x.shape, y.shape
        shape = tf.shape(x)
        n, h, w = shape[0], tf.cast(shape[1], tf.float32), tf.cast(shape[2], tf.float32)
        for k, (name, amount) in enumerate(chosen):
            random = tf.random.stateless_uniform([n, 2], tf.random.experimental.stateless_fold_in(seed, k), -1.0, 1.0)
            matrix = _matrix(name, amount, random, h, w)
            smooth = "BILINEAR" if name in ("zoom", "rotate") else "NEAREST"
            fill = 128.0 if name == "crop" else 0.0
            x = _transformed(tf.cast(x, tf.float32), matrix, shape, smooth, fill)
            x = tf.cast(tf.clip_by_value(tf.round(x), 0, 255), tf.uint8)
            y = _transformed(y[..., None], matrix, shape, "NEAREST", float(IGNORED))[..., 0]
        return tf.ensure_shape(x, given[0]), tf.ensure_shape(y, given[1])

    return moved


def for_targets(pairs: Iterable[tuple[str, float]], dense: bool) -> tuple[list[tuple[str, float]], Callable | None]:
    """Divide (name, amount) pairs by what does them: layers, or a function that moves masks with their pictures.

    Args:
        pairs: of a recipe.
        dense: whether targets are masks.

    Returns:
        (pairs for `augmentation`, the function of `moves` or None). Without masks layers do all.

    Raises:
        UnknownName, KzooError: as `moves`.
    """
    pairs = list(pairs)
    return ([pair for pair in pairs if pair[0] in STILL], moves(pairs)) if dense else (pairs, None)


def _matrix(name, amount, random, height, width):
    """ImageProjectiveTransformV3's eight numbers for each picture (B, 8), from pixels of the result to the source's."""
    import tensorflow as tf

    a, b = random[:, 0], random[:, 1]
    one, none = tf.ones_like(a), tf.zeros_like(a)
    if name == "flip":
        back = a < 0
        rows = [tf.where(back, -one, one), none, tf.where(back, width - 1, none), none, one, none]
    elif name in ("shift", "crop"):
        rows = [one, none, tf.round(a * amount * width), none, one, tf.round(b * amount * height)]
    else:
        angle = a * amount * math.pi / 180 if name == "rotate" else none
        scale = one + a * amount if name == "zoom" else one
        c, s, x, y = tf.cos(angle) * scale, tf.sin(angle) * scale, (width - 1) / 2, (height - 1) / 2
        rows = [c, -s, x - c * x + s * y, s, c, y - s * x - c * y]  # around the middle
    return tf.stack([*rows, none, none], -1)


def _transformed(values, matrix, shape, interpolation, fill):
    import tensorflow as tf

    return tf.raw_ops.ImageProjectiveTransformV3(
        images=values,
        transforms=matrix,
        output_shape=shape[1:3],
        fill_value=fill,
        interpolation=interpolation,
        fill_mode="CONSTANT",
    )
