"""Check by the first batch norm whether a batch of pictures looks like what the weights were trained on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from kzoo.errors import KzooError

if TYPE_CHECKING:
    import keras

log = logging.getLogger("kzoo")

# What a user may have done to pixels in 0..255: its name for the message, and the inverse.
_MEAN = np.array([123.675, 116.28, 103.53], "float32")
_DEVIATION = np.array([58.395, 57.12, 57.375], "float32")
RANGES = {
    "0..1": lambda x: x * 255,
    "-1..1": lambda x: (x + 1) * 127.5,
    "standardised (mean 0, deviation 1)": lambda x: x * _DEVIATION + _MEAN if x.shape[-1] == 3 else x * 58 + 114,
    "0..255 minus the mean": lambda x: x + (_MEAN if x.shape[-1] == 3 else 114),
}
RATIO = 2.0  # how much better a guess must explain the statistics before it is worth a warning


def check_stem(model: keras.Model, batch: np.typing.ArrayLike) -> str | None:
    """Compare a batch at the input of the first batch norm with the running statistics of the weights.

    Per channel c of the first batch norm, with batch mean and variance mu, s and the running m, v, the distance is the
    mean over c of (mu - m)^2 / v + log(s / v)^2. It is computed for the batch as it is, for the batch converted back
    from other ranges, and for reversed channels.

    Args:
        model: Built with pretrained weights.
        batch: (B, H, W, C), what is about to be fed to it: RGB in 0..255. At least about ten pictures; the order of the
            channels shows only on a representative sample.

    Returns:
        A sentence if another range or channel order explains the statistics better by a factor of 2 (it is logged,
        too). None if the batch looks right, and for a model without batch norm or without statistics (not trained, or
        batch norm folded).

    Raises:
        KzooError: `batch` has another shape or holds values that are not finite.
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
        alive = v > 1e-3 * np.median(v)  # dead filters carry no information
        mu, s = y.mean(0)[alive], y.var(0)[alive]
        ma, va = m[alive], v[alive]
        return float(np.mean((mu - ma) ** 2 / va + np.log((s + 1e-12) / va) ** 2))

    back: dict[str | None, Callable] = {None: lambda x: x}
    back.update(plausible(x))
    turned = (False, True) if x.shape[-1] == 3 else (False,)
    distances = {(name, t): distance(f(x[..., ::-1] if t else x)) for name, f in back.items() for t in turned}
    best = min(distances, key=lambda change: distances[change])
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


def plausible(x: np.ndarray) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Return those of RANGES that the extreme values of a batch allow."""
    low, high = float(x.min()), float(x.max())
    fits = {
        "0..1": low >= 0 and high <= 1.01,
        "-1..1": -1.01 <= low < 0 and high <= 1.01,
        "standardised (mean 0, deviation 1)": -4 < low < 0 and high < 4,
        "0..255 minus the mean": low < -4,
    }
    return {name: RANGES[name] for name, fit in fits.items() if fit}
