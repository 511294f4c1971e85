"""DeepDream: a photo changed so that a layer, a unit or a class responds more, at several sizes."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kzoo.checks import check_count
from kzoo.errors import DataError, KzooError
from kzoo.progress import Silent
from kzoo.synthesis import pictures
from kzoo.synthesis.descent import Descent, Saved, descend, never
from kzoo.synthesis.memory import check_memory
from kzoo.synthesis.objective import CompiledNetwork, FeatureObjective
from kzoo.synthesis.optimise import NormalisedSteps
from kzoo.visualizing.cam import pooled_classifier
from kzoo.visualizing.drawing import as_rgb
from kzoo.visualizing.features import check_weight, compiled_features, output_shape, photo, until
from kzoo.visualizing.maximisation import direction
from kzoo.visualizing.network import find_network


@dataclass(frozen=True)
class Dreamed:
    """What `dream` made.

    Attributes:
        picture: (H, W, 3) uint8, of the photo's size.
        octaves: for each one {"size": [height, width], "start": the objective before its steps, "end": behind them}.
        complete: whether all steps were made within the budget.
        settings: how it was made, JSON-able.
    """

    picture: np.ndarray
    octaves: list[dict[str, Any]]
    complete: bool
    settings: dict[str, Any]


class Rolled:
    """An objective of a picture that is shifted around its edges by another amount at each evaluation.

    Args:
        objective: of the picture.
        jitter: the largest shift in pixels.
        draw: gives a random generator for each evaluation.
    """

    def __init__(self, objective: Callable, jitter: int, draw: Callable[[], np.random.Generator]):
        self.objective, self.jitter, self.draw = objective, jitter, draw

    def __call__(self, x: np.ndarray) -> tuple[float, dict[str, float], np.ndarray]:
        """(loss, parts, gradient) of the shifted picture, the gradient shifted back."""
        shift = tuple(int(n) for n in self.draw().integers(-self.jitter, self.jitter + 1, 2))
        loss, parts, gradient = self.objective(np.roll(x, shift, (1, 2)))
        return loss, parts, np.roll(gradient, (-shift[0], -shift[1]), (1, 2))


def dream_objective(
    compiled: CompiledNetwork, shape: tuple[int, ...], towards: np.ndarray | None = None
) -> FeatureObjective:
    """Minus what a dream makes larger: the mean square of a layer's features, or their mean in a direction.

    Args:
        compiled: the network.
        shape: (1, H, W, C) of the picture.
        towards: minus the direction, (N,): -1 at a unit, or minus the weights of a class; None: the mean square.
    """
    layer, features = compiled.network.layers[0], output_shape(compiled, shape)
    if towards is None:
        return FeatureObjective(compiled, shape, targets={layer: (-2 / np.prod(features[1:]), np.zeros((1, 1, 1, 1)))})
    return FeatureObjective(compiled, shape, directions={layer: towards[None, None, None] / np.prod(features[1:3])})


def dream(
    network: Any,
    image: str | os.PathLike | np.ndarray,
    *,
    layer: str | None = None,
    unit: int | None = None,
    target_class: int | str | None = None,
    size: int | None = None,
    octaves: int = 4,
    octave_scale: float = 1.4,
    steps: int = 10,
    rate: float = 1.5,
    jitter: int = 32,
    tile: int | None = None,
    seed: int = 0,
    budget: float | None = None,
    state: str | os.PathLike | None = None,
    interrupted: Callable[[], bool] = never,
    progress: Silent | None = None,
) -> Dreamed:
    """Change a photo of any size so that a layer, or one unit of it, responds more.

    Args:
        network: a run, a name of the catalog, a .keras file, a keras.Model, or a Network.
        image: a file, or an array (H, W, 3) uint8.
        layer: the name of a layer that gives a feature map; the mean square of its features rises.
        unit: one of its channels, whose mean rises instead.
        target_class: a class by number or name, in place of layer and unit; its logit rises. The network must end in
            global average pooling and a linear classifier.
        size: the longer side in pixels; None: the photo's own.
        octaves: how many sizes, from small to the photo's own.
        octave_scale: the ratio of two of them: 1.4 is the original's; 1.3 another usual value.
        steps: of each octave.
        rate: the mean change of a pixel at a step, in grey levels.
        jitter: the largest shift at random before each step, in pixels; at most half of the picture.
        tile: compute in tiles of so many pixels, exactly; None: in one piece.
        seed: of the shifts.
        budget, state, interrupted, progress: as in `kzoo.visualizing.maximisation.maximise`.

    Returns:
        A Dreamed.

    Raises:
        KzooError: a layer that does not exist or is no feature map, a class of a network that does not end in global
            average pooling, a photo that can't be read, too little memory.
        Interrupted: after `interrupted`.

    Reference:
        Mordvintsev, Olah and Tyka 2015 (Inceptionism), and their notebook, dream.ipynb. Departures: tiles are exact;
        the square is a mean, which makes steps of normalised length no other.
    """
    network = find_network(network)
    if (layer is None) == (target_class is None) or (unit is not None and layer is None):
        raise KzooError("Give a layer, and a unit of it if you like, or a target_class.")
    for name, value, least in (("octaves", octaves, 1), ("steps", steps, 1), ("jitter", jitter, 0), ("tile", tile, 1)):
        check_count(name, value, least)
    check_weight("rate", rate)
    if not octave_scale > 1:
        raise KzooError(f"octave_scale must be above 1, got {octave_scale}.")
    began, end = time.monotonic(), until(budget)
    given = photo(image, network.shape[2])
    full = given.shape[:2] if size is None else pictures.fitted(given.shape, size)
    sizes = [tuple(max(1, round(n / octave_scale**k)) for n in full) for k in reversed(range(octaves))]
    sizes = [each for each in sizes if min(each) >= pictures.SMALLEST]
    if not sizes:
        raise DataError(f"The photo would be {full[1]}x{full[0]} pixels; at least {pictures.SMALLEST} are needed.")
    bias = 0.0
    if target_class is not None:
        number = network.class_number(target_class)
        layer, towards, bias = _class_direction(network, number)
    assert layer is not None
    compiled = compiled_features(network, layer, any_size=True, tile=tile)
    if target_class is None:
        count = compiled.network.model.outputs[0].shape[-1]
        towards = None if unit is None else direction((1, count), unit, None)[0]
    check_memory(compiled, full, "float32")
    settings = {
        "method": "dream",
        "network": network.name,
        "weights": network.weights,
        "layer": layer,
        "unit": None if unit is None else int(unit),
        "class": None if target_class is None else network.class_name(number),
        "size": list(full),
        "octaves": len(sizes),
        "octave_scale": octave_scale,
        "steps": steps,
        "rate": rate,
        "jitter": jitter,
        "tile": tile,
        "seed": seed,
    }
    fingerprint = hashlib.sha256(np.ascontiguousarray(given).tobytes()).hexdigest()[:16]
    saved = Saved(state, {"settings": settings, "photo": fingerprint})
    bar, complete, done, curve = progress or Silent(), True, [], []
    before = saved.load()
    if before is not None:
        done = before[1]["octaves"]
    x = detail = np.zeros((1, *sizes[0], given.shape[2]), "float32")
    for k in range(len(done), len(sizes)):
        base = pictures.batch(given, sizes[k])
        optimiser = NormalisedSteps(np.clip(base + pictures.resized(detail[0], sizes[k])[None], 0, 255), rate, (0, 255))
        objective = dream_objective(compiled, base.shape, towards)
        descent = Descent(optimiser, objective, evaluations=steps, interrupted=interrupted)
        if before is None:
            start = bias - objective(optimiser.x)[0]
        else:  # in the middle of this octave
            optimiser.restore(before[0])
            start, descent.used, curve, before = before[1]["start"], before[1]["used"], before[1]["curve"], None
        if end is not None:  # an octave takes the time that its pixels take
            pixels = [math.prod(each) for each in sizes]
            descent.until = began + (end - began) * sum(pixels[: k + 1]) / sum(pixels)
        if jitter:
            descent.objective = Rolled(objective, min(jitter, min(sizes[k]) // 2), _drawing(seed, k, descent))
        bar.start(f"{sizes[k][1]}x{sizes[k][0]}", steps, descent.used)
        complete &= descend(descent, curve, bar=bar, saved=saved, more=_saying(octaves=done, start=start))
        x = optimiser.x
        done.append({"size": list(sizes[k]), "start": start, "end": bias - objective(x)[0]})
        detail = x - base
    saved.remove()
    return Dreamed(as_rgb(x[0]), done, complete, settings)


def _class_direction(network, number):
    """(layer, minus the weights of a class (N,), its bias): the logit is the mean over positions of their product."""
    try:
        layer, weights, biases = pooled_classifier(network)
    except KzooError as e:
        raise KzooError(
            f"{network.name} does not end in global average pooling and a linear classifier, so there is no dream of a "
            "class at any size: give a layer and a unit of it, or maximise the class."
        ) from e
    return layer, -weights[:, number], float(biases[number])


def _drawing(seed, octave, descent):
    """A function that gives a random generator for the descent's next evaluation."""
    return lambda: np.random.default_rng([seed, octave, descent.used])


def _saying(**values):
    return lambda: values
