"""Projections back to the pixels: the gradient with another rule at each ReLU (guided backpropagation, deconvnet)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from keras import ops

from kzoo.errors import KzooError
from kzoo.synthesis.gradient_rules import with_rule
from kzoo.synthesis.objective import differentiable
from kzoo.visualizing.gradients import Target, one_hot, parts, pixel_gradients, targets_of
from kzoo.visualizing.network import Network, find_network


@dataclass(frozen=True)
class Projection:
    """Projections of pictures.

    Attributes:
        maps: (B, H, W, C), with signs.
        replaced: the names of the layers at whose ReLU the rule was replaced.
        rule: of `kzoo.synthesis.gradient_rules`.
        targets: class numbers (B,), or None for a unit.
    """

    maps: np.ndarray
    replaced: tuple[str, ...]
    rule: str
    targets: np.ndarray | None = None


def guided_backpropagation(network: Any, images: Any, target: Target = None) -> Projection:
    """Guided backpropagation: the gradient of a class's logit, which each ReLU passes only where it is above 0.

    Args:
        network: a Network, or anything that `find_network` takes.
        images: (B, H, W, C) in 0..255, or one picture or several, arrays or files.
        target: the class, by number or name, or one for each picture; None: the class with the highest logit.

    Returns:
        A Projection.

    Raises:
        KzooError: a network, picture or class that does not exist, or a network without a ReLU.

    Reference:
        Springenberg et al. 2014, arXiv:1412.6806, section 3.4.
    """
    return _projected(network, images, target, "guided")


def deconvnet(network: Any, images: Any, target: Target = None) -> Projection:
    """The deconvnet's projection of a class: each ReLU passes what comes back where it is above 0, wherever it stood.

    Max pooling sends it to the place of the maximum (the switch); where pools overlap, places that are chosen twice add
    up.

    Args:
        network: as for `guided_backpropagation`.
        images: as for `guided_backpropagation`.
        target: as for `guided_backpropagation`.

    Returns:
        A Projection.

    Raises:
        KzooError: as `guided_backpropagation`.

    Reference:
        Zeiler and Fergus 2013, arXiv:1311.2901, section 2.1.
    """
    return _projected(network, images, target, "deconvnet")


def _projected(network, images, target, rule):
    network = find_network(network)
    x = network.batch(images)
    targets = targets_of(network, x, target)
    other, replaced = ruled(network, rule)
    return Projection(pixel_gradients(other, x, one_hot(network, targets))[1], replaced, rule, targets)


def ruled(network: Network, rule: str) -> tuple[Network, tuple[str, ...]]:
    """The network with another gradient rule, and the layers where it was replaced.

    Raises:
        KzooError: it has no ReLU (see `with_rule`).
    """
    return network.compiled(f"rule {rule}", lambda: _ruled(network, rule))


def _ruled(network, rule):
    model, replaced = with_rule(network.model, rule)
    return replace(network, model=model), replaced


def project_unit(
    network: Any,
    images: Any,
    layer: str,
    unit: int,
    *,
    rule: str = "deconvnet",
    positions: np.ndarray | None = None,
) -> Projection:
    """Project one unit of a feature map back to the pixels, with 1 at one position and 0 everywhere else.

    Args:
        network: as for `guided_backpropagation`.
        images: as for `guided_backpropagation`.
        layer: a layer with feature maps (B, h, w, K), or with units (B, K).
        unit: the number of the map.
        rule: "deconvnet", "guided" or "plain".
        positions: row and column for each picture, (B, 2); None: where the map is largest, the first such place.

    Returns:
        A Projection.

    Raises:
        KzooError: a layer or unit that does not exist, or a network without a ReLU up to that layer.
    """
    network = find_network(network)
    x = network.batch(images)
    part = replace(network, model=network.up_to(layer))
    shape = tuple(part.model.outputs[0].shape)
    if len(shape) not in (2, 4):
        raise KzooError(f"{layer} of {network.name} gives {shape}: choose a layer with feature maps or units.")
    if not 0 <= unit < shape[-1]:
        raise KzooError(f"{layer} of {network.name} has the units 0 to {shape[-1] - 1}; got {unit}.")
    model, replaced = with_rule(part.model, rule)
    run: Callable = differentiable(model, lambda y, a: (ops.sum(y * a["seed"]), y))
    found, done = [], 0
    for some in parts(model, x):
        activations = ops.convert_to_numpy(model(some, training=False))
        seed = np.zeros_like(activations)
        for i, each in enumerate(activations):
            if len(shape) == 2:
                seed[i, unit] = 1
                continue
            at = np.unravel_index(each[..., unit].argmax(), shape[1:3])
            at = at if positions is None else positions[done + i]
            seed[i, at[0], at[1], unit] = 1
        found.append(ops.convert_to_numpy(run(some, {"seed": seed})[1]))
        done += len(some)
    return Projection(np.concatenate(found), replaced, rule)
