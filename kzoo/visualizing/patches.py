"""The patches that excite a unit most, among many images, each beside its projection back to pixels."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np

from kzoo.checks import check_count
from kzoo.data.guards import is_picture
from kzoo.data.listing import files_below
from kzoo.errors import DataError, KzooError
from kzoo.graph.ledger import ledger
from kzoo.graph.receptive_field import ReceptiveField
from kzoo.interrupt import Interrupted
from kzoo.progress import Silent
from kzoo.synthesis.descent import never
from kzoo.synthesis.objective import FeatureObjective
from kzoo.synthesis.parameterisations import GREY
from kzoo.visualizing.features import compiled_features, until
from kzoo.visualizing.gradients import batch_size, parts
from kzoo.visualizing.network import Network, find_network

CLOSE = 1e-3  # relative: an activation that is recomputed from its patch is equal up to rounding

Images = Any  # arrays, files, or a folder


@dataclass(frozen=True)
class UnitPatches:
    """The patches that excite one unit most.

    Attributes:
        unit: the number of the channel.
        images: the number of each patch's image, of the highest activation first. One patch an image.
        names: the file of each, or its number.
        values: the activation of each, float32. Where all are 0, the unit is dead for these images.
        positions: (row, column) of each in the feature map; () for a layer that gives vectors.
        boxes: (top, left, bottom, right) of each in the image, both ends included; it may leave the image.
        crops: the patches, (h, w, C) float32 in 0..255 each, grey where they leave the image.
        projections: what the unit at that position alone sends back to pixels, of the same boxes, (h, w, C) float32
            each; none without a rule.
        recomputed: the activation of each, from its patch alone in a grey picture.
    """

    unit: int
    images: list[int]
    names: list[str]
    values: np.ndarray
    positions: list[tuple[int, ...]]
    boxes: list[tuple[int, int, int, int]]
    crops: list[np.ndarray]
    projections: list[np.ndarray]
    recomputed: np.ndarray


class Found(NamedTuple):
    """An image's highest activation of a unit."""

    value: float
    image: int
    position: tuple[int, ...]


class Pictures:
    """Images that are read when they are needed.

    Args:
        network: what they are prepared for.
        images: an array (N, H, W, C), a list of files or arrays, or a folder, of which all picture files count, those
            of its subfolders too.

    Raises:
        DataError: there is none.
    """

    def __init__(self, network: Network, images: Images):
        self.network, self.skipped = network, []
        if isinstance(images, (str, os.PathLike)) and os.path.isdir(images):
            images = [path for path in files_below(images) if is_picture(path)]
        elif isinstance(images, (str, os.PathLike)):
            raise DataError(f"There is no folder {os.fspath(images)}.")
        self.items: Any = images if isinstance(images, np.ndarray) else list(images)
        if not len(self.items):
            raise DataError("There are no images to search for patches.")

    def __len__(self):
        return len(self.items)

    def name(self, i: int) -> str:
        """The file of image i, or its number."""
        return os.fspath(self.items[i]) if isinstance(self.items[i], (str, os.PathLike)) else str(i)

    def pixels(self, i: int) -> np.ndarray:
        """Image i as the network's input, (H, W, C) float32."""
        return self.network.prepare(self.items[i])

    def batches(self, size: int) -> Iterator[tuple[int, np.ndarray, list[int]]]:
        """Go through all, so many at a time: (how many images, their pixels (B, H, W, C) float32, their numbers).

        Files that can't be read are left out, and `skipped` has (name, reason) of each.
        """
        for first in range(0, len(self.items), size):
            numbers, pixels = [], []
            taken = range(first, min(first + size, len(self.items)))
            for i in taken:
                try:
                    pixels.append(self.pixels(i))
                    numbers.append(i)
                except DataError as e:
                    self.skipped.append((self.name(i), str(e)))
            if pixels:
                yield len(taken), np.stack(pixels), numbers


def top_patches(
    network: Any,
    images: Images,
    layer: str,
    units: Sequence[int] | None = None,
    n: int = 9,
    *,
    rule: str | None = "deconvnet",
    budget: float | None = None,
    interrupted: Callable[[], bool] = never,
    progress: Silent | None = None,
    skipped: list | None = None,
) -> list[UnitPatches]:
    """Find the patches that excite units of a layer most, among many images that are read one batch at a time.

    Args:
        network: a run, a name of the catalog, a .keras file, a keras.Model, or a Network.
        images: an array (N, H, W, C) in 0..255, a list of files or arrays, or a folder.
        layer: the name of a layer; of one that gives vectors the patch is the whole image.
        units: numbers of its channels; None: the first nine.
        n: how many patches, at most one from each image: the position where it is highest, the first of equal ones.
        rule: of the gradient that projects each patch back to pixels, see `with_rule`; "plain" for a network without a
            ReLU. None: no projections.
        budget: seconds; images that are not seen by then are left out.
        interrupted: asked before each batch; whether to stop.
        progress: shows the images.
        skipped: gets (name, reason) of each image that was left out.

    Returns:
        A UnitPatches for each unit.

    Raises:
        KzooError: a layer or unit that does not exist, or no image that can be read.
        Interrupted: after `interrupted`.

    Warns:
        UserWarning: an activation that is recomputed from its patch differs, so that the unit sees more than its box.

    Reference:
        Zeiler and Fergus 2013 (arXiv:1311.2901), figure 2; the rules are those of Yosinski et al. 2015
        (arXiv:1506.06579). Where pools overlap, the projection adds what several of them send to one pixel.
    """
    network = find_network(network)
    check_count("n", n, 1)
    end = until(budget)
    compiled = compiled_features(network, layer)
    channels = compiled.network.model.outputs[0].shape[-1]
    units = range(min(9, channels)) if units is None else [int(unit) for unit in units]
    for unit in units:
        if not 0 <= unit < channels:
            raise KzooError(f"{layer} of {network.name} has the units 0 to {channels - 1}; got {unit}.")
    backwards = None if rule is None else compiled_features(network, layer, rule=rule)  # refused before the search
    source, bar = Pictures(network, images), progress or Silent()
    best: dict[int, list[Found]] = {unit: [] for unit in units}
    bar.start(layer, len(source))
    for count, pixels, numbers in source.batches(batch_size(compiled.network.model)):
        features = compiled.features(pixels)[layer]
        flat = features.reshape(len(pixels), -1, channels)
        for unit, found in best.items():
            at = flat[..., unit].argmax(1)  # the first of equal ones, in row-major order
            values = flat[np.arange(len(at)), at, unit]
            places = [tuple(map(int, np.unravel_index(p, features.shape[1:-1]))) for p in at]
            found.extend(Found(float(v), i, p) for v, i, p in zip(values, numbers, places, strict=True))
            found.sort(key=lambda each: (-each.value, each.image))
            del found[n:]
        bar.advance(count)
        if interrupted():
            raise Interrupted("no patches were made")
        if end is not None and time.monotonic() > end:
            break
    if skipped is not None:
        skipped.extend(source.skipped)
    if not any(best.values()):
        raise DataError(f"None of {len(source)} images can be read. {source.skipped[0][1]}")
    field = field_of(compiled.network.model, layer)
    return [_patches(unit, found, compiled, backwards, field, source) for unit, found in best.items()]


def field_of(model: keras.Model, layer: str) -> ReceptiveField | None:
    """The receptive field of the units of a layer; None where it is not known, or where they are not at positions."""
    row = next(row for row in ledger(model).rows if row.name == layer)
    return row.receptive_field if len(row.output) == 3 else None


def box_of(field: ReceptiveField | None, position: Sequence[int], size: Sequence[int]) -> tuple[int, int, int, int]:
    """The box (top, left, bottom, right) that a unit sees, both ends included, which may leave the image.

    Args:
        field: of its layer; None: the whole image.
        position: (row, column) of the unit.
        size: (height, width) of the image. Along an axis of which the unit sees all, the box ends with the image.
    """
    spans = [(0, n - 1) for n in size] if field is None else list(field.of(*position))
    spans = [(0, n - 1) if a <= 0 and b >= n - 1 else (a, b) for (a, b), n in zip(spans, size, strict=True)]
    return spans[0][0], spans[1][0], spans[0][1], spans[1][1]


def cut(picture: np.ndarray, box: tuple[int, int, int, int], outside: float) -> np.ndarray:
    """A box of a picture (H, W, C), with a value where it leaves the picture."""
    top, left, bottom, right = box
    found = np.full((bottom - top + 1, right - left + 1, picture.shape[2]), outside, picture.dtype)
    inside, there = _overlap(box, picture.shape)
    found[there] = picture[inside]
    return found


def in_place(patch: np.ndarray, box: tuple[int, int, int, int], shape: Sequence[int], outside: float) -> np.ndarray:
    """A picture of a shape (H, W, C) that has nothing but a patch, where its box lies."""
    found = np.full(shape, outside, patch.dtype)
    inside, there = _overlap(box, shape)
    found[inside] = patch[there]
    return found


def _overlap(box, shape):
    """(slices of the picture, slices of the box) where the two overlap."""
    top, left, bottom, right = box
    rows, columns = (max(top, 0), min(bottom + 1, shape[0])), (max(left, 0), min(right + 1, shape[1]))
    return (
        tuple(slice(*span) for span in (rows, columns)),
        tuple(slice(a - start, b - start) for (a, b), start in ((rows, top), (columns, left))),
    )


def _patches(unit, found, compiled, backwards, field, source):
    """The UnitPatches of what was found."""
    layer = compiled.network.layers[0]
    pixels = np.stack([source.pixels(each.image) for each in found])
    at = [(i, *each.position, unit) for i, each in enumerate(found)]
    boxes = [box_of(field, each.position, pixels.shape[1:3]) for each in found]
    crops = [cut(p, box, GREY) for p, box in zip(pixels, boxes, strict=True)]
    alone = np.stack([in_place(c, box, pixels.shape[1:], GREY) for c, box in zip(crops, boxes, strict=True)])
    features = np.concatenate([compiled.features(part)[layer] for part in parts(compiled.network.model, alone)])
    values, recomputed = np.array([each.value for each in found], "float32"), np.array([features[i] for i in at])
    off = np.abs(recomputed - values) > CLOSE * np.abs(values).max()
    if off.any():
        worst = int(np.abs(recomputed - values).argmax())
        warnings.warn(
            f"Unit {unit} of {layer} gives {recomputed[worst]:.4g} for a patch alone that gave {values[worst]:.4g} in "
            "its image: it sees more than its box shows.",
            stacklevel=3,
        )
    projections = []
    if backwards is not None:
        seed = np.zeros(features.shape, "float32")
        for i in at:
            seed[i] = 1
        model = compiled.network.model
        for some, there in zip(parts(model, pixels), parts(model, seed), strict=True):
            gradient = FeatureObjective(backwards, some.shape, directions={layer: there}).feature_parts(some)[1]
            projections.extend(cut(g, boxes[len(projections)], 0.0) for g in gradient)
    return UnitPatches(
        unit=unit,
        images=[each.image for each in found],
        names=[source.name(each.image) for each in found],
        values=values,
        positions=[each.position for each in found],
        boxes=boxes,
        crops=crops,
        projections=projections,
        recomputed=recomputed,
    )
