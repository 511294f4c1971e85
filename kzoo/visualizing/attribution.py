"""Which pixels a class score depends on, by its gradient: saliency, SmoothGrad, integrated gradients, FullGrad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from kzoo.errors import KzooError, unknown
from kzoo.graph.inference import affine, inference_form
from kzoo.layers import Preprocess
from kzoo.progress import Silent
from kzoo.synthesis.objective import differentiable
from kzoo.visualizing.gradients import Target, one_hot, pixel_gradients, targets_of, weighted_scores
from kzoo.visualizing.network import Network, find_network

BASELINES = ("black", "mean", "blurred")
FIRST_STEPS, MOST_STEPS = 16, 512
TOLERANCE, FAR = 0.01, 0.08  # of |f(x) - f(x0)|: what is good enough, and what twice as many points will not reach


def gradient(network: Any, images: Any, target: Target = None) -> np.ndarray:
    """The gradient of a class's logit for the pixels: how much it rises for each grey level.

    Args:
        network: a Network, or anything that `find_network` takes: a run, a name of the catalog, a keras.Model.
        images: (B, H, W, C) in 0..255, or one picture or several, arrays or files (see `Network.batch`).
        target: the class, by number or name, or one for each picture; None: the class with the highest logit.

    Returns:
        (B, H, W, C), with signs.

    Raises:
        KzooError: a network, picture or class that does not exist or can't be used.

    Example:
        >>> import kzoo
        >>> network = find_network(kzoo.build("resnet20", depth=8, seed=0))
        >>> gradient(network, np.zeros((1, 32, 32, 3)), target=3).shape
        (1, 32, 32, 3)
    """
    network = find_network(network)
    x = network.batch(images)
    return pixel_gradients(network, x, one_hot(network, targets_of(network, x, target)))[1]


def saliency(network: Any, images: Any, target: Target = None) -> np.ndarray:
    """The saliency map: at each pixel the largest absolute gradient of a class's logit among the channels.

    Args:
        network: as for `gradient`.
        images: as for `gradient`.
        target: as for `gradient`.

    Returns:
        (B, H, W), not negative.

    Raises:
        KzooError: as `gradient`.

    Reference:
        Simonyan, Vedaldi and Zisserman 2013, arXiv:1312.6034, section 3.1.
    """
    return magnitude(gradient(network, images, target))


def magnitude(maps: np.ndarray) -> np.ndarray:
    """(..., H, W): the largest absolute value among the channels of (..., H, W, C)."""
    return np.abs(maps).max(-1)


def smoothgrad(
    network: Any,
    images: Any,
    target: Target = None,
    *,
    noise: float = 0.15,
    samples: int = 25,
    seed: int = 0,
    progress: Silent | None = None,
) -> np.ndarray:
    """SmoothGrad: the mean gradient over noisy copies of a picture.

    Args:
        network: as for `gradient`.
        images: as for `gradient`.
        target: as for `gradient`; the class of the picture without noise.
        noise: the standard deviation, relative to the range of the picture's pixels; 0.1 to 0.2 in the paper.
        samples: copies.
        seed: of the noise.
        progress: counts the copies.

    Returns:
        (B, H, W, C), with signs.

    Raises:
        KzooError: as `gradient`, or numbers that make no sense.

    Reference:
        Smilkov et al. 2017, arXiv:1706.03825, section 3.
    """
    if not (noise >= 0 and samples >= 1):
        raise KzooError(f"SmoothGrad needs noise of at least 0 and at least 1 sample; got {noise!r} and {samples!r}.")
    network = find_network(network)
    x = network.batch(images)
    weights = one_hot(network, targets_of(network, x, target))
    rng, found = np.random.default_rng(seed), []
    for picture, row in zip(x, weights, strict=True):
        sigma = noise * (picture.max() - picture.min())
        copies = picture + sigma * rng.standard_normal((samples, *picture.shape), "float32")
        found.append(pixel_gradients(network, copies, row[None].repeat(samples, 0), progress)[1].mean(0))
    return np.stack(found)


# --- integrated gradients ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class IntegratedGradients:
    """What `integrated_gradients` found, for each picture.

    Attributes:
        attributions: (B, H, W, C), with signs; each picture's sum to `difference` but for `delta`.
        difference: f(x) - f(x0) (B,), the logit above that of the baseline.
        delta: (B,), the sum of the attributions less the difference.
        steps: points at which the gradient was computed (B,).
        targets: class numbers (B,).
    """

    attributions: np.ndarray
    difference: np.ndarray
    delta: np.ndarray
    steps: np.ndarray
    targets: np.ndarray

    @property
    def share(self) -> np.ndarray:
        """|delta| / |f(x) - f(x0)| (B,)."""
        return np.abs(self.delta) / np.maximum(np.abs(self.difference), 1e-30)

    def text(self, i: int = 0) -> str:
        """The check of completeness of picture i in a sentence."""
        good = "" if self.share[i] <= TOLERANCE else f", more than {100 * TOLERANCE:g} %"
        return (
            f"{self.steps[i]} steps; the sum is {self.difference[i] + self.delta[i]:.4g}, f(x) - f(x0) is "
            f"{self.difference[i]:.4g}, delta {self.delta[i]:+.2g} ({100 * self.share[i]:.2g} %{good})"
        )


def baseline_of(network: Network, x: np.ndarray, baseline: str | np.ndarray) -> np.ndarray:
    """A baseline (B, H, W, C) for pictures.

    Args:
        network: a Network.
        x: (B, H, W, C) in 0..255.
        baseline: "black"; "mean", the pixel that the network's preprocessing makes 0, else middle grey; "blurred", the
            picture under a Gaussian of a tenth of its side; or an array that broadcasts to x.

    Raises:
        UnknownName: another name.
        KzooError: an array of another shape.
    """
    if isinstance(baseline, np.ndarray):
        try:
            return np.broadcast_to(baseline, x.shape).astype(x.dtype)
        except ValueError:
            raise KzooError(f"The baseline {baseline.shape} does not fit pictures {x.shape[1:]}.") from None
    if baseline not in BASELINES:
        raise unknown("baseline", baseline, BASELINES, f"It is an array or one of {', '.join(BASELINES)}.")
    if baseline == "blurred":
        return blurred(x)
    return np.broadcast_to(mean_pixel(network) if baseline == "mean" else np.float32(0), x.shape).astype(x.dtype)


def blurred(x: np.ndarray) -> np.ndarray:
    """Pictures (B, H, W, C) under a Gaussian whose standard deviation is a tenth of the side."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(x, (0, x.shape[1] / 10, x.shape[2] / 10, 0), mode="nearest").astype(x.dtype)


def mean_pixel(network: Network) -> np.ndarray:
    """The pixel (C,) float32 that the network's preprocessing makes 0, within 0..255; else middle grey."""
    pixel = -offset_of(network.model)
    inside = np.all((pixel > 0) & (pixel < 255))  # a network that is given 0..1 has no mean
    return (pixel if inside else np.full(network.shape[-1], 127.5)).astype("float32")


def integrated_gradients(
    network: Any,
    images: Any,
    target: Target = None,
    *,
    baseline: str | np.ndarray = "black",
    steps: int | None = None,
    progress: Silent | None = None,
) -> IntegratedGradients:
    """Integrated gradients: (x - x0) times the mean gradient on the straight line from a baseline x0 to the picture x.

    The integral is taken at Gauss-Legendre points, for each picture at 2 or 4 times as many until the attributions' sum
    agrees with f(x) - f(x0) to 1 %, or at 512. How far it does is returned.

    Args:
        network: as for `gradient`.
        images: as for `gradient`.
        target: as for `gradient`.
        baseline: "black", "mean" or "blurred" (see `baseline_of`), or an array (H, W, C) or (B, H, W, C).
        steps: a fixed number of points.
        progress: counts the points.

    Returns:
        An IntegratedGradients.

    Raises:
        KzooError: as `gradient`, or a baseline that does not fit.

    Reference:
        Sundararajan, Taly and Yan 2017, arXiv:1703.01365, section 3.
    """
    network = find_network(network)
    x = network.batch(images)
    start = baseline_of(network, x, baseline)
    targets = targets_of(network, x, target)
    rows = [_integrated(network, a, b, t, steps, progress) for a, b, t in zip(x, start, targets, strict=True)]
    return IntegratedGradients(*(np.stack(column) for column in zip(*rows, strict=True)), targets)


def _integrated(network, x, start, target, fixed, progress):
    """(attributions, f(x) - f(x0), delta, steps) of one picture."""
    weights = one_hot(network, np.array([target]))
    ends = pixel_gradients(network, np.stack([x, start]), weights.repeat(2, 0))[0][:, target].astype("float64")
    difference, steps = float(ends[0] - ends[1]), fixed or FIRST_STEPS
    while True:
        nodes, shares = np.polynomial.legendre.leggauss(steps)
        at = ((nodes + 1) / 2).astype("float32")[:, None, None, None]
        gradients = pixel_gradients(network, start + at * (x - start), weights.repeat(steps, 0), progress)[1]
        mean = np.tensordot(shares / 2, gradients.astype("float64"), 1)
        found = mean * (x.astype("float64") - start)
        delta = float(found.sum() - difference)
        if fixed or steps >= MOST_STEPS or abs(delta) <= TOLERANCE * abs(difference):
            return found.astype("float32"), difference, delta, steps
        steps = min(MOST_STEPS, steps * (2 if abs(delta) <= FAR * abs(difference) else 4))


# --- gradient x input, and what the biases add --------------------------------------------------------------


def gradient_times_input(network: Any, images: Any, target: Target = None) -> np.ndarray:
    """The gradient of a class's logit times the pixel, less the mean pixel that the network's preprocessing makes 0.

    Args:
        network: as for `gradient`.
        images: as for `gradient`.
        target: as for `gradient`.

    Returns:
        (B, H, W, C), with signs.

    Raises:
        KzooError: as `gradient`.
    """
    network = find_network(network)
    x = network.batch(images)
    return gradient(network, x, target) * (x - mean_pixel(network))


@dataclass(frozen=True)
class FullGradient:
    """A logit, taken apart without a remainder: see `full_gradient`.

    Attributes:
        logit: (B,).
        from_input: (B,), the sum over pixels of x . dy/dx.
        from_biases: (B,), the sum over biases of b . dy/db.
        targets: class numbers (B,).
    """

    logit: np.ndarray
    from_input: np.ndarray
    from_biases: np.ndarray
    targets: np.ndarray

    @property
    def gap(self) -> np.ndarray:
        """The part of the logit (B,) that the two sums do not give, relative to the sum of their absolute values."""
        total = np.abs(self.from_input) + np.abs(self.from_biases)
        return np.abs(self.logit - self.from_input - self.from_biases) / np.maximum(total, 1e-30)


def full_gradient(network: Any, images: Any, target: Target = None) -> FullGradient:
    """Take a logit apart into what comes from the pixels and what comes from the biases, as FullGrad does.

    A network of convolutions, ReLUs and pooling is linear around each picture, so that the logit is x . dy/dx +
    sum over biases of b . dy/db, exactly. Batch norm is folded into biases first, and the mean that the preprocessing
    subtracts is a bias. Sigmoids, swish, local response normalisation and the bound of ReLU6 leave a gap.

    Args:
        network: as for `gradient`.
        images: as for `gradient`.
        target: as for `gradient`.

    Returns:
        A FullGradient; its `gap` is the part that is missing.

    Raises:
        KzooError: as `gradient`.

    Reference:
        Srinivas and Fleuret 2019, arXiv:1905.00780, proposition 1.
    """
    network = find_network(network)
    x = network.batch(images)
    targets = targets_of(network, x, target)
    model = inference_form(network.model, "float32")
    variables, constants = biases_of(model)
    run = differentiable(WithBiases(model, variables), weighted_scores)
    offset, biases, rows = offset_of(model), [ops.convert_to_numpy(v) for v in variables], []
    for picture, row in zip(x[:, None], one_hot(network, targets), strict=True):  # b . dy/db, picture by picture
        (_, found), slopes = run([picture, *biases], {"weights": row[None]})
        slope, *others = (ops.convert_to_numpy(g).astype("float64") for g in slopes)
        added = sum(float((g * b).sum()) for g, b in zip(others, constants, strict=True)) + (slope * offset).sum()
        rows.append((float(ops.convert_to_numpy(found)[0] @ row), (slope * picture).sum(), added))
    return FullGradient(*np.array(rows).T, targets)


class WithBiases(keras.Model):
    """A model of [pictures, biases ...], whose biases are inputs; the model's own stay as they are.

    Args:
        model: of one input.
        biases: some of its variables.
    """

    def __init__(self, model: keras.Model, biases: Sequence[keras.Variable]) -> None:
        super().__init__()
        self.inner, self.biases, self.built = model, list(biases), True

    def call(self, inputs, training=False):
        x, *values = inputs
        with keras.StatelessScope(list(zip(self.biases, values, strict=True))):
            return self.inner(x, training=False)


def biases_of(model: keras.Model) -> tuple[list[keras.Variable], list[np.ndarray]]:
    """The variables of an inference form that add constants, and what each adds: of a batch norm that stays, beta -
    gamma * mean / sqrt(variance + epsilon), in float64."""
    variables, values = [], []
    for layer in model.layers:
        bias = getattr(layer, "bias", None)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.beta is not None:
            variables.append(layer.beta)
            values.append(affine(layer)[1])
        elif isinstance(bias, keras.Variable):
            variables.append(bias)
            values.append(ops.convert_to_numpy(bias).astype("float64"))
    return variables, values


def offset_of(model: keras.Model) -> np.ndarray:
    """What the preprocessing of a model adds to the pixels (C,), in grey levels: y = scale * (x + offset)."""
    channels = model.inputs[0].shape[-1]
    layer = next((each for each in model.layers if isinstance(each, (Preprocess, keras.layers.Rescaling))), None)
    if layer is None or not np.all(layer.scale):
        return np.zeros(channels)
    offset = np.broadcast_to(np.asarray(layer.offset, "float64") / np.asarray(layer.scale, "float64"), channels)
    return offset[::-1] if getattr(layer, "channel_order", "rgb") == "bgr" else offset
