"""Activation maximisation: a picture that a unit, a channel or a class responds to most."""

from __future__ import annotations

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
from kzoo.synthesis.optimise import ArrayAdam
from kzoo.synthesis.parameterisations import PARAMETERISATIONS
from kzoo.synthesis.transforms import Transforms, resample
from kzoo.visualizing.drawing import as_rgb
from kzoo.visualizing.features import LOGITS, check_weight, compiled_features, output_shape, until
from kzoo.visualizing.network import find_network


@dataclass(frozen=True)
class Maximised:
    """What `maximise` found.

    Attributes:
        picture: (H, W, 3) uint8.
        value: what the unit gives for this picture, at rest.
        start: what it gave for the picture that the search began with.
        values: what it gave at each step, for the moved picture of that step.
        redirected: at how many steps the gradient was 0 and was redirected.
        complete: whether all steps were made within the budget.
        settings: how it was made, JSON-able.
    """

    picture: np.ndarray
    value: float
    start: float
    values: list[float]
    redirected: int
    complete: bool
    settings: dict[str, Any]


def direction(shape: tuple[int, ...], unit: int, position: tuple[int, int] | str | None) -> np.ndarray:
    """What the features are multiplied with to give minus the activation of a unit.

    Args:
        shape: of the features, (1, h, w, N) or (1, N).
        unit: the number of the channel.
        position: (row, column), "centre", or None for the mean over all positions.

    Raises:
        KzooError: there is no such unit or position.
    """
    if not 0 <= unit < shape[-1]:
        raise KzooError(f"The layer has the units 0 to {shape[-1] - 1}; got {unit}.")
    if len(shape) == 2 or position is None:
        found = np.zeros((1,) * (len(shape) - 1) + shape[-1:], "float32")
        found[..., unit] = -1 / np.prod(shape[1:-1])
        return found
    if isinstance(position, str) and position != "centre":
        raise unknown("position", position, ["centre"], 'It is "centre", or row and column.')
    y, x = (shape[1] // 2, shape[2] // 2) if isinstance(position, str) else position
    if not (0 <= y < shape[1] and 0 <= x < shape[2]):
        raise KzooError(f"The layer has {shape[1]} rows and {shape[2]} columns; got the position ({y}, {x}).")
    found = np.zeros(shape, "float32")
    found[0, y, x, unit] = -1
    return found


def maximise(
    network: Any,
    *,
    layer: str | None = None,
    unit: int | None = None,
    position: tuple[int, int] | str | None = None,
    target_class: int | str | None = None,
    size: int | tuple[int, int] | None = None,
    steps: int = 512,
    rate: float | None = None,
    parameterisation: str = "fourier",
    transforms: Transforms | bool = True,
    seed: int = 0,
    budget: float | None = None,
    state: str | os.PathLike | None = None,
    interrupted: Callable[[], bool] = never,
    progress: Silent | None = None,
) -> Maximised:
    """Search for the picture that a unit of a layer, or a class, responds to most, with lucid's settings.

    Args:
        network: a run, a name of the catalog, a .keras file, a keras.Model, or a Network, which keeps what is compiled
            for several units of one layer.
        layer, unit: the name of a layer and the number of one of its channels.
        position: of the unit: (row, column) or "centre"; None: the mean over all positions of the channel.
        target_class: a class by number or name, in place of layer and unit; its logit is maximised.
        size: of the picture in pixels, (height, width) or the side of a square; None: the network's own. Another one
            needs a layer that is a feature map.
        steps: of Adam.
        rate: Adam's learning rate; None: 0.05.
        parameterisation: "fourier", with decorrelated colours; "pixels"; or "ball", pixels at one distance from grey.
        transforms: the random moves of each step; True: lucid's, with less jitter for pictures below 128 pixels; False:
            none.
        seed: of the first picture and of the moves.
        budget: seconds; the search ends earlier if they are over.
        state: a file that keeps the search after Ctrl-C; the same call continues from it, to the same bits.
        interrupted: asked before each step; whether to stop.
        progress: shows the steps.

    Returns:
        A Maximised.

    Raises:
        KzooError: a layer, unit, class or size that can't be had.
        Interrupted: after `interrupted`.

    Example:
        >>> import kzoo
        >>> found = maximise(kzoo.build("lenet5", seed=0), target_class=3, steps=8)
        >>> found.picture.shape, found.value > found.start
        ((28, 28, 3), True)

    Reference:
        Olah, Mordvintsev and Schubert 2017 (Feature Visualization, distill.pub); Simonyan et al. 2013
        (arXiv:1312.6034), section 2. Departures: see `Transforms`; gradients are redirected where all of them are 0,
        however late.
    """
    network = find_network(network)
    if (target_class is None) == (unit is None) or (unit is None) != (layer is None):
        raise KzooError("Give a layer and a unit of it, or a target_class.")
    if parameterisation not in PARAMETERISATIONS:
        known = ", ".join(PARAMETERISATIONS)
        raise unknown("parameterisation", parameterisation, PARAMETERISATIONS, f"It is one of {known}.")
    check_count("steps", steps, 1)
    check_weight("rate", rate or 0)
    deadline = until(budget)
    # int: a number of NumPy's can't stand in a record.
    unit = network.class_number(target_class) if unit is None else int(unit)
    layer = layer or LOGITS
    height, width, channels = network.shape
    own = (height, width)
    sides = own if size is None else (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    if min(sides) < 1:
        raise KzooError(f"size must be at least 1 pixel, got {size}.")
    if sides != own and layer == LOGITS:
        raise KzooError(f"A class of {network.name} needs pictures of {width}x{height} pixels; only a unit has a size.")
    shape = (1, *sides, channels)

    def objective(rule):
        compiled = compiled_features(network, layer, any_size=sides != own, rule=rule)
        towards = direction(output_shape(compiled, shape), unit, position)
        return FeatureObjective(compiled, shape, directions={compiled.network.layers[0]: towards})

    plain = objective("plain")
    picture = PARAMETERISATIONS[parameterisation]((*sides, channels))
    moves = Transforms().scaled_to(min(sides)) if transforms is True else transforms or None
    settings = {
        "method": "maximisation",
        "network": network.name,
        "weights": network.weights,
        "layer": layer,
        "unit": unit,
        "class": None if target_class is None else network.class_name(unit),
        "position": list(position) if isinstance(position, tuple) else position,
        "size": list(sides),
        "steps": steps,
        "rate": picture.RATE if rate is None else rate,
        "parameterisation": parameterisation,
        "transforms": None if moves is None else vars(moves),
        "seed": seed,
    }
    redirected = 0

    def evaluate(parameters):
        nonlocal redirected
        x, to_parameters = picture(parameters)
        y, to_picture = x, None
        if moves is not None:  # drawn anew for each step, and the same after a continuation
            y, to_picture = resample(x, moves.draw(np.random.default_rng([seed, descent.used])))
        loss, parts, gradient = plain(y)
        if not gradient.any():
            redirected += 1
            gradient = objective("redirected")(y)[2]
        return loss, parts, to_parameters(gradient if to_picture is None else to_picture(gradient))

    saved, values = Saved(state, {"settings": settings}), []
    optimiser = ArrayAdam(picture.start(seed), settings["rate"])
    start = 0.0 - plain(picture(optimiser.x)[0])[0]  # not -0.0
    descent = Descent(optimiser, evaluate, evaluations=steps, until=deadline, interrupted=interrupted)
    if (before := saved.load()) is not None:
        arrays, more = before
        optimiser.restore(arrays)
        descent.used, values, redirected = more["used"], more["curve"], more["redirected"]
    bar = progress or Silent()
    bar.start(f"{layer} {unit}", steps, descent.used)
    complete = descend(descent, values, bar=bar, saved=saved, more=lambda: {"redirected": redirected})
    saved.remove()
    result = np.clip(np.round(picture(optimiser.x)[0]), 0, 255)
    return Maximised(
        picture=as_rgb(result[0]),
        value=0.0 - plain(result)[0],
        start=start,
        values=[0.0 - row["loss"] for row in values],
        redirected=redirected,
        complete=complete,
        settings={**settings, "made": descent.used},
    )
