"""Which images are copies of one another: exactly, or nearly.

Near duplicates are found as in near-duplicate search for the web (Manku, Jain and Sarma 2007,
doi:10.1145/1242572.1242592): two 64-bit hashes that differ in at most 6 bits agree in at least one of 7 bands of bits,
so only images that share a band are compared. A pair is confirmed by a second measure, the correlation of thumbnails,
because a hash of 64 coarse frequencies is the same for many different pictures.

Measured recall (100 photos, each against a changed copy): saved again with JPEG quality 30, at half the size, brighter
by 20 %, or 2 % cropped: 99 of 100 or better. 6 % cropped: 1 in 5. Colours removed: 1 in 10. Mirrored or rotated: none.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

BITS = 6  # of 64 in which the hashes of near duplicates may differ
CORRELATION = 0.98  # of the thumbnails' values; a photo stored anew, smaller or brighter stays above
FEW_PIXELS = 0.995  # the same for pictures as small as MNIST's, where 0.98 would join thousands of ones to one group
CANDIDATES = 8  # to compare an image with, for each band: photos have few, and this bounds the work for crafted sets
WINDOW = 8192  # of images that share a band and come next: a million photos put as many into one
BLOCK = 1 << 20  # comparisons at a time


def group(
    digests: Sequence[bytes],
    hashes: np.ndarray,
    thumbnails: np.ndarray,
    usable: np.ndarray,
    min_correlation: np.ndarray,
) -> np.ndarray:
    """Group images that are exact or near duplicates, copies of copies included.

    Args:
        digests: N hashes of content.
        hashes: uint64 (N,), perceptual hashes.
        thumbnails: uint8 (N, h, w, 3).
        usable: bool (N,), which images could be decoded; the others are duplicates of nothing.
        min_correlation: float (N,), the correlation of thumbnails at which two images count as near duplicates; of a
            pair the higher one counts. Above 1 only equal digests count.

    Returns:
        int (N,), a group number for each image, equal for duplicates.
    """
    n = len(digests)
    labels = np.arange(n)
    first = {}
    for i in np.flatnonzero(usable).tolist():
        labels[i] = first.setdefault(digests[i], i)
    nodes = np.flatnonzero(usable & (min_correlation <= 1) & (labels == np.arange(n)))
    if len(nodes) > 1:
        found = _near(hashes[nodes], thumbnails[nodes].reshape(len(nodes), -1), min_correlation[nodes])
        joined = np.arange(n)
        joined[nodes] = nodes[found]
        labels = joined[labels]
    return labels


def _near(hashes, values, min_correlation):
    """For each of N images the first image of its group, int (N,). hashes: uint64 (N,). values: uint8 (N, D)."""
    n = len(hashes)
    state = _Joined(values, min_correlation)
    # Images with the very same hash first: all but one of them need no further comparison.
    order = np.argsort(hashes, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(hashes[order]) != 0])
    leaders = np.repeat(order[starts], np.diff(np.r_[starts, n]))
    state.join(leaders, order)
    settled = np.zeros(n, bool)
    settled[order] = (leaders != order) & (state.labels[leaders] == state.labels[order])
    nodes = np.flatnonzero(~settled)
    for shift, width in bands():
        band = (hashes[nodes] >> np.uint64(shift)) & np.uint64((1 << width) - 1)
        order = np.argsort(band, kind="stable")
        for bucket in np.split(nodes[order], np.flatnonzero(np.diff(band[order])) + 1):
            rows = max(1, BLOCK // min(len(bucket), WINDOW))
            for start in range(0, len(bucket) - 1, rows):
                rest = state.labels[bucket[start:]]
                if (rest == rest[0]).all():
                    break
                a, b = bucket[start : start + rows], bucket[start + 1 : start + rows + WINDOW]
                close = np.bitwise_count(hashes[a][:, None] ^ hashes[b][None]) <= BITS
                i, j = _first_of_each(*np.nonzero(np.triu(close)))  # each pair once: b begins one behind a
                state.join(a[i], b[j])
    _, first = np.unique(state.labels, return_index=True)
    return first[np.unique(state.labels, return_inverse=True)[1]]


def _first_of_each(i, j):
    """Of pairs in order of i, at most CANDIDATES of each i."""
    rank = np.arange(len(i)) - np.searchsorted(i, i)
    return i[rank < CANDIDATES], j[rank < CANDIDATES]


def bands() -> list[tuple[int, int]]:
    """Divide 64 bits into BITS + 1 bands: two hashes that differ in at most BITS bits agree in at least one band.

    Returns:
        (shift, width) of each band.
    """
    edges = np.linspace(0, 64, BITS + 2).round().astype(int)
    return [(int(a), int(b - a)) for a, b in pairwise(edges)]


class _Joined:
    """Sets of images, joined where two prove to be alike."""

    def __init__(self, values, min_correlation):
        self.values, self.min_correlation, self.labels = values, min_correlation, np.arange(len(values))

    def join(self, a, b, chunk=16_384):
        """Join the sets of a[k] and b[k] for all k where the pictures correlate. a, b: int (K,)."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        while len(a):
            apart = self.labels[a] != self.labels[b]  # after each chunk: in a large set most are together by then
            a, b = a[apart], b[apart]
            one, two = a[:chunk], b[:chunk]
            a, b = a[chunk:], b[chunk:]
            min_correlation = np.maximum(self.min_correlation[one], self.min_correlation[two])
            alike = correlation(self.values[one], self.values[two]) >= min_correlation
            if alike.any():
                ends = self.labels[one[alike]], self.labels[two[alike]]
                n = len(self.labels)
                graph = coo_array((np.ones(alike.sum(), bool), ends), shape=(n, n))
                self.labels = connected_components(graph, directed=False)[1][self.labels]


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each row of `a` with the same row of `b`.

    Args:
        a: (K, D).
        b: (K, D).

    Returns:
        float32 (K,), 0 where a row is constant.
    """
    a, b = (x - x.mean(-1, keepdims=True, dtype="float32") for x in (a.astype("float32"), b.astype("float32")))
    scale = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    return np.divide((a * b).sum(-1), scale, out=np.zeros_like(scale), where=scale > 0)
