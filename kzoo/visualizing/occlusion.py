"""Occlusion, deletion and insertion: what becomes of a class when pixels are replaced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from kzoo.errors import KzooError
from kzoo.graph.flat import flat_copy
from kzoo.graph.inference import predictor
from kzoo.progress import Silent
from kzoo.visualizing.attribution import blurred, mean_pixel
from kzoo.visualizing.cam import default_layer
from kzoo.visualizing.gradients import MOST_AT_ONCE, Target, targets_of
from kzoo.visualizing.network import Network, find_network

POSITIONS = 15  # of the square along each side


@dataclass(frozen=True)
class Occlusion:
    """What `occlusion` found. R x S are the positions of the square, from top to bottom and from left to right.

    Attributes:
        logits: of the class, (B, R, S).
        probabilities: of the class, (B, R, S).
        best: the most probable class, (B, R, S).
        activity: of the feature map that is strongest in the whole picture, summed, (B, R, S); None where the network
            has none.
        whole: the class's logit for the whole picture (B,).
        rows, columns: where the square begins, in pixels (R,), (S,).
        window: its side in pixels, (height, width).
        targets: class numbers (B,).
        drop: (B, R, S), by how much the logit falls; below 0 where it rises.
    """

    logits: np.ndarray
    probabilities: np.ndarray
    best: np.ndarray
    activity: np.ndarray | None
    whole: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    window: tuple[int, int]
    targets: np.ndarray

    @property
    def drop(self) -> np.ndarray:
        return self.whole[:, None, None] - self.logits

    def of_pixels(self, values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """Values at the positions (B, R, S) as maps (B, H, W): at each pixel the mean of the squares that cover it."""
        total, count = np.zeros((len(values), *shape)), np.zeros(shape)
        for i, row in enumerate(self.rows):
            for j, column in enumerate(self.columns):
                at = slice(row, row + self.window[0]), slice(column, column + self.window[1])
                total[(slice(None), *at)] += values[:, i, j, None, None]
                count[at] += 1
        return total / np.maximum(count, 1)


def occlusion(
    network: Any,
    images: Any,
    target: Target = None,
    *,
    window: int | None = None,
    stride: int | None = None,
    fill: float | np.ndarray | None = None,
    precision: str = "auto",
    progress: Silent | None = None,
) -> Occlusion:
    """Slide a grey square over a picture, and watch a class.

    The network is computed in its inference form, with batch norm folded, in bfloat16 where this machine is fast in it.

    Args:
        network: a Network, or anything that `find_network` takes.
        images: (B, H, W, C) in 0..255, or one picture or several, arrays or files.
        target: the class, by number or name, or one for each picture; None: the class with the highest logit.
        window: side of the square in pixels, at most the picture's; a seventh of the shorter side by default.
        stride: pixels from one position to the next; by default 15 positions along each side.
        fill: the pixel of the square; by default the one that the network's preprocessing makes 0, else middle grey.
        precision: of the arithmetic, as for `kzoo.graph.inference.predictor`.
        progress: counts the positions.

    Returns:
        An Occlusion.

    Raises:
        KzooError: a network, picture or class that does not exist, or a window that does not fit.

    Reference:
        Zeiler and Fergus 2013, arXiv:1311.2901, section 4.2.
    """
    network = find_network(network)
    x = network.batch(images)
    targets = targets_of(network, x, target)
    height, width, channels = network.shape
    size = (window or max(1, round(min(height, width) / 7)),) * 2
    size = (min(size[0], height), min(size[1], width)) if window == max(height, width) else size
    if not 1 <= size[0] <= height or not 1 <= size[1] <= width:
        raise KzooError(
            f"The window is 1 to {min(height, width)} pixels for pictures of {width}x{height}; got {window}."
        )
    if stride is not None and stride < 1:
        raise KzooError(f"The stride is at least 1 pixel; got {stride}.")
    rows, columns = (starts(n, w, stride) for n, w in zip((height, width), size, strict=True))
    grey = np.broadcast_to(mean_pixel(network) if fill is None else np.asarray(fill, "float32"), channels)
    run, maps = network.compiled(f"watched {precision}", lambda: watched(network, precision))
    found = []
    for picture, number in zip(x, targets, strict=True):
        whole = run(picture[None])
        strongest = whole[0, len(network.classes) :].argmax() if maps else None
        places = [(r, c) for r in rows for c in columns]
        values = []
        for i in range(0, len(places), MOST_AT_ONCE):
            some = places[i : i + MOST_AT_ONCE]
            copies = picture[None].repeat(len(some), 0)
            for copy, (r, c) in zip(copies, some, strict=True):
                copy[r : r + size[0], c : c + size[1]] = grey
            values.append(run(copies))
            if progress is not None:
                progress.advance(len(some))
        seen = np.concatenate(values).reshape(len(rows), len(columns), -1)
        logits, features = seen[..., : len(network.classes)], seen[..., len(network.classes) :]
        found.append(
            (
                logits[..., number],
                network.probabilities(logits)[..., number],
                logits.argmax(-1),
                features[..., strongest] if maps else np.zeros(logits.shape[:2]),
                whole[0, number],
            )
        )
    logits, probabilities, best, activity, whole = (np.stack(column) for column in zip(*found, strict=True))
    return Occlusion(logits, probabilities, best, activity if maps else None, whole, rows, columns, size, targets)


def starts(side: int, window: int, stride: int | None) -> np.ndarray:
    """Where a window begins along a side: every `stride` pixels and at the end, or at POSITIONS places.

    Example:
        >>> starts(10, 4, 4).tolist()
        [0, 4, 6]
    """
    last = side - window
    if stride is None:
        return np.unique(np.linspace(0, last, POSITIONS).round().astype(int))
    return np.unique(np.append(np.arange(0, last + 1, stride), last))


def watched(network: Network, precision: str) -> tuple[Any, bool]:
    """A compiled function of pictures to (B, classes + K): class scores, and the sums of the last K feature maps.

    Args:
        network: a Network.
        precision: as for `predictor`.

    Returns:
        (the function, whether there are feature maps: else K is 0).
    """
    model = flat_copy(network.model)  # the graph gets more layers, and the network's own is not to be changed
    logits = model.outputs[0]
    if network.dense:
        logits = keras.layers.GlobalAveragePooling2D(dtype="float32")(logits)
    try:
        layer = default_layer(network)
    except KzooError:
        return predictor(keras.Model(model.inputs[0], logits), precision), False
    features = model.get_layer(layer).output
    positions = float(features.shape[1] * features.shape[2])
    sums = keras.layers.GlobalAveragePooling2D(dtype="float32", data_format="channels_last")(features)
    sums = keras.layers.Rescaling(positions, dtype="float32")(sums)
    both = keras.layers.Concatenate(dtype="float32")([logits, sums])
    return predictor(keras.Model(model.inputs[0], both), precision), True


# --- deletion and insertion --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Area:
    """A curve of `deletion` or `insertion`, and the area under it.

    Attributes:
        shares: of the pixels that are replaced, 0 to 1, (N,).
        values: of the class (N,).
        area: under the curve, by trapezoids.
    """

    shares: np.ndarray
    values: np.ndarray
    area: float


def deletion(network: Any, image: Any, saliency: np.ndarray, target: Target = None, **options: Any) -> Area:
    """Replace the pixels of a picture by grey, those with the largest saliency first, and watch a class.

    A small area: what the map marks is what the network needs.

    Args:
        network: as for `occlusion`.
        image: one picture.
        saliency: a map (H, W), or (H, W, C), whose channels are summed.
        target: as for `occlusion`.
        **options: as for `insertion`.

    Returns:
        An Area.

    Raises:
        KzooError: as `occlusion`, or a map that does not fit.

    Reference:
        Petsiuk, Das and Saenko 2018, arXiv:1806.07421, section 3.2.
    """
    network = find_network(network)
    x = network.batch(image)[:1]
    grey = np.broadcast_to(mean_pixel(network), x.shape[1:])
    return _area(network, x, x[0], grey, saliency, target, **options)


def insertion(network: Any, image: Any, saliency: np.ndarray, target: Target = None, **options: Any) -> Area:
    """Put the pixels of a picture into its blurred copy, those with the largest saliency first, and watch a class.

    A large area: what the map marks is enough for the network.

    Args:
        network: as for `occlusion`.
        image: one picture.
        saliency: a map (H, W), or (H, W, C), whose channels are summed.
        target: as for `occlusion`.
        **options: steps: how many replacements, 32 by default. score: "probability" (default) or "logit". precision: as
            for `occlusion`. progress: counts the steps.

    Returns:
        An Area.

    Raises:
        KzooError: as `occlusion`, or a map that does not fit.

    Reference:
        Petsiuk, Das and Saenko 2018, arXiv:1806.07421, section 3.2.
    """
    network = find_network(network)
    x = network.batch(image)[:1]
    return _area(network, x, blurred(x)[0], x[0], saliency, target, **options)


def _area(network, x, start, end, saliency, target, *, steps=32, score="probability", precision="auto", progress=None):
    saliency = saliency.sum(-1) if saliency.ndim == 3 else saliency
    if saliency.shape != x.shape[1:3]:
        raise KzooError(f"The map {saliency.shape} does not fit a picture {x.shape[1:3]}.")
    number = int(targets_of(network, x, target)[0])
    order = np.argsort(-saliency.reshape(-1), kind="stable")
    cuts = np.linspace(0, len(order), steps + 1).round().astype(int)
    run = network.compiled(f"predictor {precision}", lambda: predictor(network.model, precision))
    values = []
    for i in range(0, len(cuts), MOST_AT_ONCE):
        copies = []
        for cut in cuts[i : i + MOST_AT_ONCE]:
            flat = start.reshape(-1, x.shape[-1]).copy()
            flat[order[:cut]] = end.reshape(-1, x.shape[-1])[order[:cut]]
            copies.append(flat.reshape(x.shape[1:]))
        found = run(np.stack(copies))
        found = found.mean((1, 2)) if found.ndim == 4 else found
        values.append((network.probabilities(found) if score == "probability" else found)[:, number])
        if progress is not None:
            progress.advance(len(copies))
    shares, values = cuts / len(order), np.concatenate(values)
    return Area(shares, values, float(np.trapezoid(values, shares)))
