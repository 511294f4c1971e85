"""Sanity check of attributions (Adebayo et al. 2018): whether a map changes when the network forgets its classes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np

from kzoo.errors import KzooError
from kzoo.graph.flat import flat_copy
from kzoo.visualizing.network import Network, find_network


def randomised(network: Any, seed: int = 0) -> tuple[Network, str]:
    """A copy of a network whose top layer has random weights: the last one that has any.

    They are drawn from a normal distribution with the mean and standard deviation of the trained ones.

    Args:
        network: a Network, or anything that `find_network` takes. It stays as it is.
        seed: of the draw.

    Returns:
        (the copy, the name of the layer).

    Raises:
        KzooError: no layer has weights.
    """
    network = find_network(network)
    model = flat_copy(network.model)
    top = next((layer for layer in reversed(model.layers) if layer.trainable_weights or layer.weights), None)
    if top is None:
        raise KzooError(f"{network.name} has no weights, so there is nothing to randomise.")
    rng = np.random.default_rng(seed)
    for variable in top.weights:
        values = keras.ops.convert_to_numpy(variable)
        variable.assign(rng.normal(values.mean(), values.std(), values.shape).astype(values.dtype))
    return replace(network, model=model), top.name


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of the absolute values of two maps of one shape.

    Near 1: the map does not depend on what was changed, and so does not explain it.

    Example:
        >>> similarity(np.array([1.0, -2.0, 3.0]), np.array([2.0, 4.0, -9.0]))
        1.0
    """
    from scipy.stats import rankdata

    first, second = (rankdata(np.abs(m).reshape(-1)) for m in (a, b))
    first, second = first - first.mean(), second - second.mean()
    scale = np.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / scale) if scale else 0.0
