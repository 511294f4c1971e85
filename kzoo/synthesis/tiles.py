"""Tiles: overlapping windows of a picture whose cores divide it, so that sums over tiles are those of the whole.

A window is a core and a halo around it, as wide as the receptive field of the features in the core requires. Windows
begin at multiples of the network's stride, so that its pooling falls on the same pixels as in the whole picture, and
padding occurs only at the border of the picture itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Span:
    """A window along one axis, in pixels.

    Args:
        start, stop: the window.
        core_start, core_stop: its core.
        last: whether it ends with the picture.
    """

    start: int
    stop: int
    core_start: int
    core_stop: int
    last: bool = True


def spans(size: int, tile: int, halo: int, stride: int) -> list[Span]:
    """The spans of an axis. All windows have tile + 2 * halo pixels except the last, which ends with the picture.

    Args:
        size: of the axis in pixels.
        tile: the side of a core, a multiple of `stride`.
        halo: pixels on each side of a core, a multiple of `stride`.
        stride: of the network.

    Returns:
        Spans in order; their cores divide the axis.

    Example:
        >>> [(s.start, s.stop, s.core_start, s.core_stop) for s in spans(70, 32, 8, 4)]
        [(0, 48, 0, 32), (24, 70, 32, 70)]
    """
    window = tile + 2 * halo
    if window >= size:
        return [Span(0, size, 0, size)]
    last = -(-(size - window) // stride) * stride  # rounded up: the last window is no larger than the others
    starts = [*range(0, last, tile), last]
    cores = [0, *(s + halo for s in starts[1:]), size]
    return [Span(s, min(s + window, size), cores[i], cores[i + 1], s == last) for i, s in enumerate(starts)]


def windows(shape: tuple[int, int], tile: int | None, halo: int, stride: int) -> list[tuple[Span, Span]]:
    """All (vertical, horizontal) spans of a picture (height, width); without a tile it is one window."""
    if tile is None:
        height, width = (Span(0, n, 0, n) for n in shape)
        return [(height, width)]
    return [(y, x) for y in spans(shape[0], tile, halo, stride) for x in spans(shape[1], tile, halo, stride)]


def cropped(picture: np.ndarray, window: tuple[Span, Span]) -> np.ndarray:
    """The part of a picture (1, H, W, C) that a window covers, a view."""
    y, x = window
    return picture[:, y.start : y.stop, x.start : x.stop]


def positions(span: Span, stride: int, local: int, whole: int) -> tuple[slice, slice]:
    """The positions of a feature map, along one axis, that a window computes.

    Args:
        span: the window.
        stride: of the feature map, in pixels.
        local, whole: how many positions the feature maps of the window and of the whole picture have.

    Returns:
        (its positions in the whole feature map, those of its core within the window's), as slices.

    Example:
        >>> positions(Span(24, 70, 32, 70), 4, 11, 17)
        (slice(6, 17, None), slice(2, 11, None))
    """
    start = span.start // stride
    core_stop = whole if span.last else span.core_stop // stride
    return slice(start, start + local), slice(span.core_start // stride - start, core_stop - start)


def feature_window(
    window: tuple[Span, Span], stride: int, local: Sequence[int], whole: Sequence[int]
) -> tuple[tuple[slice, slice], np.ndarray]:
    """The part of a feature map that a window computes.

    Args:
        window: (vertical span, horizontal span).
        stride: of the feature map, in pixels.
        local, whole: (1, h, w, N), the shapes of the window's and the whole picture's feature map.

    Returns:
        ((rows, columns) in the whole feature map, mask (1, h, w, 1) float32: 1 in the core and 0 in the halo).
    """
    (rows, core_rows), (columns, core_columns) = (
        positions(span, stride, a, b) for span, a, b in zip(window, local[1:3], whole[1:3], strict=True)
    )
    mask = np.zeros((1, *local[1:3], 1), "float32")
    mask[:, core_rows, core_columns] = 1
    return (rows, columns), mask
