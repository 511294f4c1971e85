"""Does a batch of pictures look like what the weights were trained on? The first batch norm knows."""

import logging

import numpy as np

from kzoo.errors import KzooError

log = logging.getLogger("kzoo")

# What a user may have done to pixels in 0..255 before: the way back, and what to say.
_MEAN = np.array([123.675, 116.28, 103.53], "float32")
_DEVIATION = np.array([58.395, 57.12, 57.375], "float32")
RANGES = {
    "0..1": lambda x: x * 255,
    "-1..1": lambda x: (x + 1) * 127.5,
    "standardised (mean 0, deviation 1)": lambda x: x * _DEVIATION + _MEAN if x.shape[-1] == 3 else x * 58 + 114,
    "0..255 minus the mean": lambda x: x + (_MEAN if x.shape[-1] == 3 else 114),
}
RATIO = 2.0  # how much better a guess must explain the statistics before it is worth a warning


def check_stem(model, batch):
    """Compare a batch behind the first batch norm's input with the running statistics that the weights hold.

    model: built with pretrained weights. batch: (B, H, W, C), what is about to be fed to it: RGB in 0..255. Some ten
    pictures or more; the order of the channels shows only on a fair sample.

    Per channel c of the first batch norm, with batch mean and variance mu, s and the running m, v, the distance is the
    mean over c of (mu - m)^2 / v + log(s / v)^2. It is computed for the batch as it is, for the batch led back from
    other ranges, and for reversed channels. Returns a sentence if one of those explains the statistics better by a
    factor of 2 (it is logged, too), else None; also None for a model without batch norm, without statistics (not
    trained, or batch norm folded).
    """
    import keras

    norm = next((layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)), None)
    if norm is None:
        return None
    m, v = (np.asarray(keras.ops.convert_to_numpy(a), "float64") for a in (norm.moving_mean, norm.moving_variance))
    if not m.any() and np.ptp(v) == 0:
        return None
    x = np.asarray(keras.ops.convert_to_numpy(batch), "float32")
    if x.ndim != 4 or not np.isfinite(x).all():
        raise KzooError(f"A batch is (images, height, width, channels) of finite numbers; got shape {x.shape}.")
    stem = keras.Model(model.inputs[0], norm.input)

    def distance(images):
        y = np.asarray(keras.ops.convert_to_numpy(stem(images, training=False)), "float64").reshape(-1, len(m))
        alive = v > 1e-3 * np.median(v)  # dead filters have nothing to say
        mu, s = y.mean(0)[alive], y.var(0)[alive]
        ma, va = m[alive], v[alive]
        return float(np.mean((mu - ma) ** 2 / va + np.log((s + 1e-12) / va) ** 2))

    back = {None: lambda x: x, **plausible(x)}
    turned = (False, True) if x.shape[-1] == 3 else (False,)
    distances = {(name, t): distance(f(x[..., ::-1] if t else x)) for name, f in back.items() for t in turned}
    best = min(distances, key=distances.get)
    if best == (None, False) or distances[best] * RATIO > distances[None, False]:
        return None
    found = []
    if best[0]:
        found.append(f"its values look like {best[0]}, the model takes 0..255 and scales them itself")
    if best[1]:
        found.append("its channels look like BGR, the model takes RGB")
    message = (
        f"Check the input of {model.name}: {'; '.join(found)} (distance to the statistics of the weights "
        f"{distances[None, False]:.2f} as it is, {distances[best]:.2f} if corrected)."
    )
    log.warning(message)
    return message


def plausible(x):
    """The ranges that a batch's extremes allow."""
    low, high = float(x.min()), float(x.max())
    fits = {
        "0..1": low >= 0 and high <= 1.01,
        "-1..1": -1.01 <= low < 0 and high <= 1.01,
        "standardised (mean 0, deviation 1)": -4 < low < 0 and high < 4,
        "0..255 minus the mean": low < -4,
    }
    return {name: RANGES[name] for name, fit in fits.items() if fit}
