"""Networks of the catalog made small, and what to compare of two of them."""

import keras
import numpy as np
from keras import layers

import kzoo

# By architecture: the side of the picture, the least that its pools and strides allow, and options that make it narrow.
# What a network is at its published size, the ledger counts.
SMALL = {
    "alexnet": (67, {}),
    "zfnet": (64, {"width": 12, "units": 16}),
    "nin": (32, {"width": 24}),
    "deepface": (72, {"width": 4, "units": 16}),
    "c3d": (16, {"width": 4, "units": 16}),
    "vgg": (32, {"width": 8, "units": 16}),
    "resnet": (40, {"width": 8}),
    "resnet_v2": (40, {"width": 8}),
    "wide_resnet": (32, {"k": 2}),
    "mobilenet_v1": (33, {"alpha": 0.25}),
    "mobilenet_v2": (33, {"alpha": 0.35}),
    "efficientnet_lite": (33, {"width": 0.35, "depth": 0.3}),
    "allcnn_c": (32, {"width": 16}),
    "inception_v3": (75, {}),
    "inception_v4": (75, {"blocks": (1, 1, 1)}),
    "inception_resnet_v1": (75, {"blocks": (1, 1, 1)}),
    "inception_resnet_v2": (75, {"blocks": (1, 1, 1)}),
    "nasnet": (32, {"penultimate": 96, "blocks": 1}),
    "unet": (44, {"width": 8, "depth": 2}),
    "unet_same": (32, {"width": 8, "depth": 3}),
}


def architecture(name):
    return kzoo.spec(name).architecture.partition(":")[2]


def small(name):
    """Keywords for kzoo.build that make a row small: input_shape and options."""
    published = kzoo.spec(name).input_shape
    side, options = SMALL.get(architecture(name), (min(64, published[0]), {}))
    return {"input_shape": (*published[:-3], side, side, published[-1]), **options}


# MobileNet's 27 separable layers let little through: with variances of about 1 two pictures would get the same logits.
VARIANCE = {"mobilenet_v1": 0.05}
# Their kernels start from a deviation of 0.01, for the published widths. In narrow layers no signal would be left.
FAINT = {"zfnet", "deepface", "c3d"}


def randomise(model, seed=0):
    """Statistics, biases, gammas and betas as if trained; kernels keep what lets the signal through."""
    rng = np.random.default_rng(seed)
    for v in model.weights:
        if v.name == "gamma":
            v.assign(rng.uniform(0.5, 1.5, v.shape))
        elif v.name == "moving_variance":
            v.assign(rng.uniform(0.5, 1.5, v.shape) * VARIANCE.get(model.name, 1.0))
        elif v.name in ("beta", "bias", "moving_mean"):
            v.assign(rng.normal(0, 0.1, v.shape))
        elif v.name == "kernel" and model.name in FAINT:
            fan_in = v.shape[1] if len(v.shape) == 3 else np.prod(v.shape[:-1])  # 3: locally connected
            v.assign(rng.normal(0, (2 / fan_in) ** 0.5, v.shape))
    return model


def logits_of(model, x):
    y = model(x, training=False)
    return keras.ops.convert_to_numpy(y[0] if isinstance(y, list) else y).astype("float32")


def error(a, b):
    """The largest difference as a share of the spread of what is right."""
    return np.abs(a - b).max() / np.abs(b - b.mean()).max()


def norms(model):
    return sum(isinstance(layer, layers.BatchNormalization) for layer in model.layers)


def draw_with_numpy(patch):
    """Initial weights from NumPy: XLA compiles a drawing for each shape, which takes longer than the networks."""
    from keras.src.backend.jax import random

    rng = np.random.default_rng(0)

    def drawn(draw):
        def function(shape, *args, dtype=None, seed=None, **kwargs):
            return keras.ops.convert_to_tensor(draw(shape, *args, **kwargs).astype(dtype or "float32"))

        return function

    def truncated(shape, mean=0.0, stddev=1.0):
        return mean + stddev * np.clip(rng.standard_normal(shape), -2, 2)

    patch.setattr(random, "uniform", drawn(lambda shape, minval=0.0, maxval=1.0: rng.uniform(minval, maxval, shape)))
    patch.setattr(random, "normal", drawn(lambda shape, mean=0.0, stddev=1.0: rng.normal(mean, stddev, shape)))
    patch.setattr(random, "truncated_normal", drawn(truncated))
