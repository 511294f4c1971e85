"""A picture in overlapping windows whose cores share it out, so that a part at a time gives the sums of the whole.

A window is a core and a halo, as wide as the features in the core can see. Windows begin at multiples of the
network's stride, so that its pooling falls on the same pixels as in the whole picture, and padding is only met where
the picture itself ends.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Span:
    """Along one axis: the window start..stop, and its core, in pixels."""

    start: int
    stop: int
    core_start: int
    core_stop: int
    last: bool = True


def spans(size, tile, halo, stride):
    """The spans of an axis. All windows have tile + 2 * halo pixels, but the last, which ends with the picture.

    >>> [(s.start, s.stop, s.core_start, s.core_stop) for s in spans(70, 32, 8, 4)]
    [(0, 48, 0, 32), (24, 70, 32, 70)]
    """
    window = tile + 2 * halo
    if window >= size:
        return [Span(0, size, 0, size)]
    last = -(-(size - window) // stride) * stride  # rounded up: the last window is no larger than the others
    starts = [*range(0, last, tile), last]
    cores = [0, *(s + halo for s in starts[1:]), size]
    return [Span(s, min(s + window, size), *cores[i : i + 2], s == last) for i, s in enumerate(starts)]


def windows(shape, tile, halo, stride):
    """All (vertical, horizontal) spans of a picture of shape (height, width); tile None: one window."""
    if tile is None:
        return [tuple(Span(0, n, 0, n) for n in shape)]
    return [(y, x) for y in spans(shape[0], tile, halo, stride) for x in spans(shape[1], tile, halo, stride)]


def cropped(picture, window):
    """The part of (1, H, W, C) that a window sees."""
    y, x = window
    return picture[:, y.start : y.stop, x.start : x.stop]


def units(span, stride, local, whole):
    """(units that a window computes, units of its core within these), as slices; local, whole: how many there are.

    >>> units(Span(24, 70, 32, 70), 4, 11, 17)
    (slice(6, 17, None), slice(2, 11, None))
    """
    start = span.start // stride
    core_stop = whole if span.last else span.core_stop // stride
    return slice(start, start + local), slice(span.core_start // stride - start, core_stop - start)


def feature_window(window, stride, local, whole):
    """(rows and columns of the whole feature map that a window computes, 1 in its core and 0 in its halo).

    local, whole: (1, h, w, N), the shapes of the window's and the picture's feature map. The mask is (1, h, w, 1).
    """
    (rows, core_rows), (columns, core_columns) = (
        units(span, stride, a, b) for span, a, b in zip(window, local[1:3], whole[1:3], strict=True)
    )
    mask = np.zeros((1, *local[1:3], 1), "float32")
    mask[:, core_rows, core_columns] = 1
    return (rows, columns), mask
