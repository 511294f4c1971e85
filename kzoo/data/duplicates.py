"""Which images are copies of one another: exactly, or nearly.

Near duplicates are found as in near-duplicate search for the web (Manku, Jain and Sarma 2007,
doi:10.1145/1242572.1242592): two 64-bit hashes that differ in at most 6 bits agree in at least one of 7 bands of bits,
so only images that share a band are compared. A pair is confirmed by a second measure, the correlation of tiny
pictures, since a hash that sees 64 coarse waves takes many different pictures for one.

What is found (100 photos, each against its copy): stored anew with JPEG quality 30, half the size, brighter by 20 %,
2 % cut off, all but 1 in 100; 6 % cut off, 1 in 5; colours removed, 1 in 10; mirrored or turned, none.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

BITS = 6  # of 64 in which the hashes of near duplicates may differ
CORRELATION = 0.98  # of the tiny pictures' values; a photo stored anew, smaller or brighter stays above
FEW_PIXELS = 0.995  # in its place for pictures as small as MNIST's, where at 0.98 thousands of ones would be one group
CANDIDATES = 8  # to compare an image with, for each band: photos have few, and a hostile set gets no more
WINDOW = 8192  # of images that share a band and come next: a million photos put as many into one
BLOCK = 1 << 20  # comparisons at a time


def group(digests, hashes, tiny, usable, least):
    """A group number for each of N images, equal for copies, copies of copies included: int (N,).

    digests: N hashes of content. hashes: uint64 (N,). tiny: uint8 (N, h, w, 3). usable: bool (N,), which images could
    be decoded. least: (N,), the correlation from which on an image is a near duplicate; above 1 only equal ones count.
    """
    n = len(digests)
    labels = np.arange(n)
    first = {}
    for i in np.flatnonzero(usable):
        labels[i] = first.setdefault(digests[i], i)
    nodes = np.flatnonzero(usable & (least <= 1) & (labels == np.arange(n)))
    if len(nodes) > 1:
        found = _near(hashes[nodes], tiny[nodes].reshape(len(nodes), -1), least[nodes])
        joined = np.arange(n)
        joined[nodes] = nodes[found]
        labels = joined[labels]
    return labels


def _near(hashes, values, least):
    """For each of N images the first image of its group, int (N,). hashes: uint64 (N,). values: uint8 (N, D)."""
    n = len(hashes)
    state = _Joined(values, least)
    # Images with the very same hash first: all but one of them need no further comparison.
    order = np.argsort(hashes, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(hashes[order]) != 0])
    leaders = np.repeat(order[starts], np.diff(np.r_[starts, n]))
    state.join(leaders, order)
    settled = np.zeros(n, bool)
    settled[order] = (leaders != order) & (state.labels[leaders] == state.labels[order])
    nodes = np.flatnonzero(~settled)
    for shift, width in _bands():
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


def _bands():
    """(shift, width) of BITS + 1 bands that cover 64 bits."""
    edges = np.linspace(0, 64, BITS + 2).round().astype(int)
    return [(int(a), int(b - a)) for a, b in pairwise(edges)]


class _Joined:
    """Sets of images, joined where two prove to be alike."""

    def __init__(self, values, least):
        self.values, self.least, self.labels = values, least, np.arange(len(values))

    def join(self, a, b, chunk=16_384):
        """Join the sets of a[k] and b[k] for all k where the pictures correlate. a, b: int (K,)."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        while len(a):
            apart = self.labels[a] != self.labels[b]  # after each chunk: in a large set most are together by then
            a, b = a[apart], b[apart]
            one, two = a[:chunk], b[:chunk]
            a, b = a[chunk:], b[chunk:]
            least = np.maximum(self.least[one], self.least[two])
            alike = correlation(self.values[one], self.values[two]) >= least
            if alike.any():
                ends = self.labels[one[alike]], self.labels[two[alike]]
                n = len(self.labels)
                graph = coo_array((np.ones(alike.sum(), bool), ends), shape=(n, n))
                self.labels = connected_components(graph, directed=False)[1][self.labels]


def correlation(a, b):
    """Pearson's, of the values of each row. a, b: (K, D). Returns (K,), 0 where a row is flat."""
    a, b = (x - x.mean(-1, keepdims=True, dtype="float32") for x in (a.astype("float32"), b.astype("float32")))
    scale = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    return np.divide((a * b).sum(-1), scale, out=np.zeros_like(scale), where=scale > 0)
