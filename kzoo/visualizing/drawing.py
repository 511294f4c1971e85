"""Maps and filters as pictures: signed values on one scale, laid over the picture that they belong to."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np

# Anchors of the colour scales, RGB. Signed: blue below 0, white at 0, red above. Unsigned: from black through violet
# and orange to pale yellow, lighter at every step.
SIGNED = ((8, 48, 107), (33, 113, 181), (133, 188, 220), (255, 255, 255), (252, 160, 125), (214, 47, 39), (103, 0, 13))
UNSIGNED = ((0, 0, 4), (60, 15, 112), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191))
COLD, WARM = (40.0, 110.0, 255.0), (255.0, 50.0, 30.0)  # of a map over a picture
GREATEST = 99.5  # percentile of the absolute values of a gradient that gets the full colour: a few pixels stand out


def scale_of(maps: np.ndarray, percentile: float = 100) -> float:
    """The value that gets the full colour: a percentile of the absolute values of all maps, above 0."""
    found = float(np.percentile(np.abs(maps), percentile)) if np.size(maps) else 0.0
    return found if found > 0 and math.isfinite(found) else 1.0


def _coloured(shares, anchors):
    at = np.clip(np.nan_to_num(shares), 0, 1) * (len(anchors) - 1)
    known = np.asarray(anchors, "float64")
    channels = [np.interp(at, np.arange(len(anchors)), known[:, c]) for c in range(3)]
    return np.stack(channels, -1).round().astype("uint8")


def signed(values: np.ndarray, scale: float) -> np.ndarray:
    """Colour signed values (..., H, W): blue for -scale, white for 0, red for scale. Returns (..., H, W, 3) uint8 RGB.

    Example:
        >>> signed(np.array([[-2.0, 0.0, 2.0]]), 2.0).tolist()
        [[[8, 48, 107], [255, 255, 255], [103, 0, 13]]]
    """
    return _coloured((values / scale + 1) / 2, SIGNED)


def unsigned(values: np.ndarray, scale: float) -> np.ndarray:
    """Colour values (..., H, W) from 0, black, to scale, pale yellow. Returns (..., H, W, 3) uint8 RGB."""
    return _coloured(values / scale, UNSIGNED)


def around_grey(values: np.ndarray, scale: float) -> np.ndarray:
    """Values (..., H, W, C) of colour channels as pixels: grey for 0, black for -scale, full for scale, uint8.

    `from_grey` turns them back into numbers.
    """
    return np.clip(np.round(127.5 + 127.5 * np.nan_to_num(values) / scale), 0, 255).astype("uint8")


def from_grey(pixels: np.ndarray, scale: float) -> np.ndarray:
    """The values of pixels that `around_grey` made, to a 255th of the scale.

    Example:
        >>> from_grey(around_grey(np.array([-0.3, 0.0, 0.2]), 0.3), 0.3).round(2).tolist()
        [-0.3, 0.0, 0.2]
    """
    return (np.asarray(pixels, "float64") / 127.5 - 1) * scale


def overlay(picture: np.ndarray, values: np.ndarray, scale: float) -> np.ndarray:
    """Lay a signed map over a picture in grey: red where it speaks for a class, blue where against, the picture at 0.

    Args:
        picture: (H, W, C) in 0..255.
        values: (h, w), enlarged to the picture's size.
        scale: the absolute value that gets the full colour.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    values = enlarged(values, picture.shape[:2])
    light = np.asarray(picture, "float64").mean(-1, keepdims=True) / 255
    share = np.clip(np.abs(np.nan_to_num(values)) / scale, 0, 1)[..., None]
    # The hue says which side, how much of it how far; the picture stays visible as its light and shade.
    hue = np.where(values[..., None] < 0, np.array(COLD), np.array(WARM))
    return np.clip(255 * (0.25 + 0.75 * light) * (1 - share) + hue * (0.45 + 0.55 * light) * share, 0, 255).astype(
        "uint8"
    )


def enlarged(values: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """A map (h, w) at another size (H, W), bilinear between the centres of its cells, constant beyond them.

    Example:
        >>> enlarged(np.array([[0.0, 1.0]]), (1, 4)).tolist()
        [[0.0, 0.25, 0.75, 1.0]]
    """
    values = np.asarray(values, "float64")
    for axis, n in enumerate(size):
        have = values.shape[axis]
        at = np.clip((np.arange(n) + 0.5) * have / n - 0.5, 0, have - 1)
        low = np.floor(at).astype(int)
        high, share = np.minimum(low + 1, have - 1), at - low
        share = share[:, None] if axis == 0 else share
        values = values.take(low, axis) * (1 - share) + values.take(high, axis) * share
    return values


def as_rgb(picture: np.ndarray) -> np.ndarray:
    """A picture (H, W, C) in 0..255 as (H, W, 3) uint8: one channel becomes grey, of more the first three."""
    pixels = np.clip(np.round(picture), 0, 255).astype("uint8")
    return pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., :1].repeat(3, -1)


def grid(tiles: Sequence[np.ndarray], columns: int | None = None, gap: int = 2, enlarge: int = 1) -> np.ndarray:
    """Tiles (h, w, 3) uint8 of one size in rows on white.

    Args:
        tiles: at least one.
        columns: in a row; None: about as many as rows.
        gap: white pixels between two tiles.
        enlarge: by how many pixels each pixel is drawn along each side.

    Returns:
        (H, W, 3) uint8.
    """
    columns = columns or math.ceil(math.sqrt(len(tiles)))
    tiles = [t.repeat(enlarge, 0).repeat(enlarge, 1) for t in tiles]
    height, width = tiles[0].shape[:2]
    rows = math.ceil(len(tiles) / columns)
    out = np.full((rows * (height + gap) - gap, min(columns, len(tiles)) * (width + gap) - gap, 3), 255, "uint8")
    for i, tile in enumerate(tiles):
        r, c = divmod(i, columns)
        out[r * (height + gap) : r * (height + gap) + height, c * (width + gap) : c * (width + gap) + width] = tile
    return out


def png(picture: np.ndarray) -> bytes:
    """The bytes of a PNG file of (H, W, 3) uint8 RGB."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
