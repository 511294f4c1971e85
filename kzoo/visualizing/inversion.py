"""Inversion: a picture whose features at a layer are those of a photo, to see what the layer still knows of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kzoo.checks import check_count
from kzoo.errors import KzooError, unknown
from kzoo.progress import Silent
from kzoo.synthesis.descent import Descent, Saved, descend, never
from kzoo.synthesis.objective import FeatureObjective
from kzoo.synthesis.optimise import LBFGS, ArrayMomentum
from kzoo.visualizing.cam import MERE
from kzoo.visualizing.drawing import as_rgb
from kzoo.visualizing.features import check_weight, compiled_features, until
from kzoo.visualizing.network import Network, find_network
from kzoo.walk import calls

# The root mean square of a photo's pixels around grey, in grey levels, by which the published weights are scaled.
SPREAD = 60.0
# The published 1, 10 and 100 by depth are AlexNet's; with them the deeper layers of SqueezeNet give grey pictures.
TV_WEIGHT, SIDE = 1.0, 227  # of pictures of 227 pixels; neighbours in a smaller photo differ more
# A tenth of the published weight, which pulls black and white to grey: kzoo's own VGG gives a photo back from its first
# layer with a squared error of 0.006 instead of 0.06.
NORM_WEIGHT = 8e-11
RATES = (0.004,) * 100 + (0.0004,) * 200 + (0.00004,) * 100
OPTIMISERS = ("lbfgs", "momentum")


@dataclass(frozen=True)
class Inverted:
    """What `invert` found.

    Attributes:
        picture: (H, W, 3) uint8.
        relative_error: |Phi(x) - Phi(photo)|^2 / |Phi(photo)|^2 of this picture.
        errors: the same at each step.
        losses: the whole loss at each step.
        photo_error: |x - photo|^2 / |photo - 127.5|^2: what the layer does not know of the photo's pixels.
        complete: whether all evaluations were made within the budget, or no step lowered the loss any more.
        settings: how it was made, JSON-able.
    """

    picture: np.ndarray
    relative_error: float
    errors: list[float]
    losses: list[float]
    photo_error: float
    complete: bool
    settings: dict[str, Any]


def depth_of(network: Network) -> dict[str, int]:
    """{layer: how deep it lies}: from how many layers with weights, its own included, it is computed."""
    model, behind, found = network.model, {}, {}
    for number, node in enumerate(calls(model.inputs, model.outputs)):
        layers = 1 << number if getattr(node.operation, "weights", None) else 0  # a set, as the bits of a number
        for tensor in node.input_tensors:
            layers |= behind.get(id(tensor), 0)
        behind.update((id(tensor), layers) for tensor in node.output_tensors)
        found[node.operation.name] = layers.bit_count()
    return found


def invert(
    network: Any,
    image: str | os.PathLike | np.ndarray,
    layer: str,
    *,
    steps: int | None = None,
    optimizer: str = "lbfgs",
    tv_weight: float | None = None,
    norm_weight: float = NORM_WEIGHT,
    seed: int = 0,
    budget: float | None = None,
    state: str | os.PathLike | None = None,
    interrupted: Callable[[], bool] = never,
    progress: Silent | None = None,
) -> Inverted:
    """Look for a picture with the features of a photo, starting from noise.

    The loss is |Phi(x) - Phi0|^2 / |Phi0|^2 + (tv_weight TV(x) + norm_weight sum |x - 127.5|^6) / (2 s^2), where TV
    sums squared differences of neighbours and s^2 = 60^2 H W C is the square of a typical photo.

    Args:
        network: a run, a name of the catalog, a .keras file, a keras.Model, or a Network.
        image: a file, or an array of the network's input shape in 0..255.
        layer: the name of a layer; one that gives a vector will do.
        steps: evaluations of loss and gradient; None: 200, or the published 400 of momentum.
        optimizer: "lbfgs", or "momentum" as published: 0.9, the rate 0.004 for 100 steps, 0.0004 for 200, 0.00004 for
            100, times s^2.
        tv_weight: None: 1, and less in proportion for pictures below 227 pixels; 1, 10 and 100 by depth are the
            published ones for AlexNet. 0 leaves it out.
        norm_weight: of the sixth powers; 8e-10 is the published one. 0 leaves it out.
        seed: of the noise.
        budget, state, interrupted, progress: as in `kzoo.visualizing.maximisation.maximise`.

    Returns:
        An Inverted.

    Raises:
        KzooError: there is no such layer, or the photo can't be read or gives features of 0.
        Interrupted: after `interrupted`.

    Example:
        >>> import kzoo
        >>> photo = np.random.default_rng(0).integers(0, 256, (32, 32, 1)).astype("uint8")
        >>> found = invert(kzoo.build("lenet5", input_shape=(32, 32, 1), seed=0), photo, "C1", steps=10)
        >>> found.errors[0] > found.relative_error
        True

    Reference:
        Mahendran and Vedaldi 2015 (arXiv:1412.0035), equation 1 and section 3. Departures: L-BFGS in place of momentum,
        and weights that suit small pictures and dark ones.
    """
    network = find_network(network)
    if optimizer not in OPTIMISERS:
        raise unknown("optimizer", optimizer, OPTIMISERS, f"It is one of {', '.join(OPTIMISERS)}.")
    check_count("steps", steps, 1)
    check_weight("tv_weight", tv_weight or 0)
    check_weight("norm_weight", norm_weight)
    deadline, steps = until(budget), steps or (200 if optimizer == "lbfgs" else len(RATES))
    photo = network.batch([image])
    compiled = compiled_features(network, layer)
    features = features_of(compiled, photo)
    square = float(np.sum(np.square(features, dtype="float64")))
    if not square > 0:
        raise KzooError(f"All features of {layer} are 0 for this picture: choose another layer.")
    tv_weight = TV_WEIGHT * min(1.0, min(network.shape[:2]) / SIDE) if tv_weight is None else tv_weight
    typical = SPREAD**2 * photo.size
    objective = FeatureObjective(
        compiled,
        photo.shape,
        targets={layer: (2 / square, features)},
        pixel_weights={"tv": tv_weight / (2 * typical), "norm": norm_weight / (2 * typical)},
    )
    settings = {
        "method": "inversion",
        "network": network.name,
        "weights": network.weights,
        "layer": layer,
        "steps": steps,
        "optimizer": optimizer,
        "tv_weight": tv_weight,
        "norm_weight": norm_weight,
        "seed": seed,
    }
    noise = np.random.default_rng(seed).normal(127.5, SPREAD, photo.shape).astype("float32")
    optimiser = LBFGS(noise) if optimizer == "lbfgs" else ArrayMomentum(noise, [rate * typical for rate in RATES])
    fingerprint = hashlib.sha256(photo.tobytes()).hexdigest()[:16]
    saved, curve = Saved(state, {"settings": settings, "photo": fingerprint}), []
    descent = Descent(optimiser, objective, evaluations=steps, until=deadline, interrupted=interrupted)
    if (before := saved.load()) is not None:
        arrays, more = before
        optimiser.restore(arrays)
        descent.used, curve = more["used"], more["curve"]
    bar = progress or Silent()
    bar.start(layer, steps, descent.used)
    complete = descend(descent, curve, bar=bar, saved=saved)
    saved.remove()
    result = np.clip(np.round(np.asarray(optimiser.x)), 0, 255)
    return Inverted(
        picture=as_rgb(result[0]),
        relative_error=relative_error(features, features_of(compiled, result)),
        photo_error=relative_error(photo - 127.5, result - 127.5),
        errors=[row[layer] for row in curve],
        losses=[row["loss"] for row in curve],
        complete=complete,
        settings={**settings, "made": descent.used},
    )


def features_of(compiled: Any, picture: np.ndarray) -> np.ndarray:
    """The features of a picture (1, H, W, C), float32."""
    return compiled.features(picture)[compiled.network.layers[0]]


def relative_error(features: np.ndarray, found: np.ndarray) -> float:
    """|found - features|^2 / |features|^2, in float64."""
    features = np.asarray(features, "float64")
    return float(np.sum((found - features) ** 2) / np.sum(features**2))


def depths(network: Any, count: int = 5) -> list[str]:
    """Choose layers at even depths to invert: feature maps, behind normalisation and activation, in front of pooling.

    Args:
        network: as in `invert`.
        count: how many.

    Returns:
        Names of layers, from shallow to deep; vectors, for a network without feature maps.
    """
    network = find_network(network)
    depth = depth_of(network)
    found = [layer.name for layer in network.model.layers if depth.get(layer.name) and not isinstance(layer, MERE)]
    maps = [name for name in found if len(network.output_of(name).shape) == 4]
    last = {depth[name]: name for name in maps or found}  # the last of each depth: behind norm and activation
    ordered = [last[each] for each in sorted(last)]
    places = sorted({round(i * (len(ordered) - 1) / max(1, count - 1)) for i in range(count)})
    return [ordered[i] for i in places]
