"""Masks of large pictures: overlapping tiles of the network's input size, at the picture's own resolution.

A tile answers for its core; around that lies a halo, wide enough that the answer is that of the whole picture, if the
tile has room for it. Tiles begin at multiples of the network's stride, so that its pools fall on the same pixels as in
the whole picture, and where the picture ends a tile ends.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kzoo.data.guards import npy
from kzoo.data.masks import IGNORED
from kzoo.errors import DataError

if TYPE_CHECKING:
    import keras

STRIDE = 32  # of a network whose graph is not known: that of most


@dataclass(frozen=True)
class Tiling:
    """How pictures are cut for a network.

    Attributes:
        shape: (height, width, channels) of its input.
        margin: rows and columns (2,) on each side for which it gives no answer, because it pads nothing.
        halo: pixels (2,) on each side of a core that has a neighbour there, the margin included.
        stride: by whose multiples tiles are moved.
        exact: whether the halo is as wide as the network looks.
    """

    shape: tuple[int, int, int]
    margin: tuple[int, int]
    halo: tuple[int, int]
    stride: int
    exact: bool

    @property
    def text(self) -> str:
        """In words, for people."""
        height, width, _ = self.shape
        less = "" if self.exact else ", less than the network looks or may look: along seams it may answer otherwise"
        return f"Tiles of {height} x {width} pixels; {self.halo[0]} x {self.halo[1]} on each side overlap{less}."


def tiling(shape: Sequence[int], network: keras.Model | None = None) -> Tiling:
    """How to cut pictures for a network.

    The halo is as wide as the network looks if at least a quarter of the tile's side is left for the core. Else, and
    for a network whose graph is not known, it is a quarter of the side.

    Args:
        shape: (height, width, channels) of its input.
        network: None for an export.
    """
    shape = (shape[0], shape[1], shape[2])
    if network is None:
        return Tiling(shape, (0, 0), _quarter(shape, STRIDE), STRIDE, False)
    from kzoo.graph.ledger import ledger

    fields = [row.receptive_field for row in ledger(network).rows if row.receptive_field is not None]
    last = fields[-1] if fields and len(fields[-1].axes) == 2 else None
    stride = int(max((rate for f in fields for rate in f.stride), default=STRIDE)) or 1
    height, width = network.output_shape[1:3]
    margin = ((shape[0] - height) // 2, (shape[1] - width) // 2)
    if any(margin):  # nothing is padded, so nothing is seen beyond the tile
        return Tiling(shape, margin, margin, stride, min(height, width) >= stride)
    if last is not None and not any(axis.everything for axis in last.axes):
        halo = (_reach(last.axes[0]), _reach(last.axes[1]))
        if all(n - 2 * h >= max(n // 4, stride) for n, h in zip(shape, halo, strict=False)):
            return Tiling(shape, margin, halo, stride, True)
    return Tiling(shape, margin, _quarter(shape, stride), stride, False)


def _quarter(shape, stride):
    height, width = (max(0, min(n // 4, (n - stride) // 2)) for n in shape[:2])
    return height, width


def _reach(axis):
    """How far from its own place a pixel of the output sees, along an axis."""
    return max(max(i - a, b - i) for i, (a, b) in enumerate(zip(axis.first, axis.last, strict=True)))


def starts(size: int, tile: int, halo: int, stride: int) -> list[int]:
    """Where tiles begin along an axis: a tile's core goes on where that of the one before ends.

    Args:
        size: of the axis in pixels: `tile` and a multiple of `stride`.
        tile, halo, stride: in pixels.

    Example:
        >>> starts(112, 64, 8, 16), starts(64, 64, 8, 16)
        ([0, 48], [0])
    """
    core = tile - 2 * halo
    step = core // stride * stride or core
    return [*range(0, size - tile, step), size - tile]


def mask_of(
    image: np.ndarray, how: Tiling, answer: Callable[[Sequence[np.ndarray]], list[np.ndarray]], batch_size: int
) -> np.ndarray:
    """The mask of a picture from those of its tiles.

    Args:
        image: uint8 (H, W, C).
        how: of `tiling`.
        answer: a function of tiles, each of `how.shape`, that gives a mask of that size for each.
        batch_size: tiles in a call.

    Returns:
        uint8 (H, W): class numbers. What lies beyond the border is taken to mirror the picture.
    """
    sides = image.shape[:2]
    pads = []
    for size, tile, margin in zip(sides, how.shape, how.margin, strict=False):
        least = max(size + 2 * margin, tile)
        whole = tile + -(-(least - tile) // how.stride) * how.stride
        pads.append((margin, whole - size - margin))
    padded = np.pad(image, [*pads, (0, 0)], "reflect")
    found = np.full(padded.shape[:2], IGNORED, np.uint8)
    axes = [starts(n, t, h, how.stride) for n, t, h in zip(padded.shape, how.shape, how.halo, strict=False)]
    height, width, _ = how.shape
    places = [(top, left) for top in axes[0] for left in axes[1]]
    for i in range(0, len(places), batch_size):
        some = places[i : i + batch_size]
        masks = answer([padded[top : top + height, left : left + width] for top, left in some])
        for place, mask in zip(some, masks, strict=True):
            inside = [
                slice(
                    margin if at == begin[0] else halo,
                    tile - (margin if at == begin[-1] else halo),
                )
                for at, begin, tile, halo, margin in zip(place, axes, how.shape, how.halo, how.margin, strict=False)
            ]
            rows, columns = (slice(at + s.start, at + s.stop) for at, s in zip(place, inside, strict=True))
            found[rows, columns] = mask[inside[0], inside[1]]
    (top, _), (left, _) = pads
    return found[top : top + sides[0], left : left + sides[1]]


def tiled(model: Any, encoded: bytes, top: int, batch_size: int) -> dict[str, Any]:
    """The answer for a picture by tiles.

    Args:
        model: a `kzoo.evaluating.loading.LoadedModel` of a task whose answers are masks.
        encoded: the picture.
        top: the number of classes in the answer.
        batch_size: tiles that are computed at once.

    Returns:
        As `model.answer` for one picture; {"error": reason} for one that can't be read.
    """
    import tensorflow as tf
    from PIL import Image

    from kzoo.data.images import decode, decoding

    preprocessing, how = model.preprocessing, model.tiling()
    try:
        with decoding():
            data = tf.constant(encoded)
            image = decode(data, how.shape[2], bits=preprocessing.bits, rules=preprocessing.rules).numpy()
    except DataError as e:
        return {"error": str(e)}

    def answer(tiles):
        rows = model.answer([npy(tile) for tile in tiles], 1)
        for row in rows:
            if "error" in row:
                raise DataError(row["error"])
        return [np.asarray(Image.open(io.BytesIO(base64.b64decode(row["mask"])))) for row in rows]

    try:
        return model.task.of_mask(mask_of(image, how, answer, batch_size), model.classes, top)
    except DataError as e:
        return {"error": str(e)}


def check_tiles(model: Any) -> Tiling:
    """Check that pictures can be cut into tiles for a model.

    Args:
        model: a `kzoo.evaluating.loading.LoadedModel`.

    Returns:
        How they will be cut.

    Raises:
        DataError: its answers are no masks, or it does not see all of its input.
    """
    if not model.task.dense or model.tiling is None:
        raise DataError(f"tiles are for masks; {model.task.name} gives one answer for a picture.")
    if model.preprocessing.crop != 1.0:
        raise DataError(f"tiles need a network that sees its whole input, and {model.preprocessing.crop:g} is cropped.")
    return model.tiling()
