"""Which labels may be wrong: images whose neighbours in feature space contradict their label."""

from __future__ import annotations

from typing import Any

import numpy as np

BLOCK = 1024  # images that are compared with the pool at once: 80 MB


def suspects(
    features: np.ndarray, labels: np.ndarray, *, k: int = 10, max_pool: int = 20_000, seed: int = 0
) -> list[dict[str, Any]]:
    """Find images whose nearest neighbours in feature space contradict their label.

    An image is suspect if more than half of its neighbours have one and the same other label. This is a hint and no
    proof. An image that is alone in its class can't be judged.

    Args:
        features: float (N, D).
        labels: int (N,).
        k: number of neighbours: the images with the highest cosine similarity, without the image itself. In a class of
            fewer than k + 1 images, as many as the class has others.
        max_pool: with more images than this, neighbours are searched in a random sample of this size.
        seed: of the sample.

    Returns:
        A dict for each suspect image, the most confident first: index, label, suggested (the label of its neighbours),
        share (of the neighbours that have it, above 0.5 and at most 1), similarity (the neighbours' mean cosine).

    Example:
        >>> angles = np.array([0.0, 0.1, 0.2, 0.3, 1.4, 1.5, 1.6, 0.15])
        >>> points = np.stack([np.cos(angles), np.sin(angles)], 1)
        >>> [(s["index"], s["suggested"]) for s in suspects(points, np.array([0, 0, 0, 0, 1, 1, 1, 1]), k=3)]
        [(7, 0)]
    """
    x, labels = np.asarray(features, "float32"), np.asarray(labels)
    n = len(x)
    if n < 3:
        return []
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    pool = np.arange(n) if n <= max_pool else np.sort(np.random.default_rng(seed).choice(n, max_pool, replace=False))
    k = min(k, len(pool) - 1)
    size, inside = np.bincount(labels[pool]), np.zeros(n, bool)
    inside[pool] = True
    against = x if len(pool) == n else x[pool]
    found = []
    for start in range(0, n, BLOCK):
        rows = np.arange(start, min(start + BLOCK, n))
        cosines = x[rows] @ against.T
        near = np.argpartition(cosines, -k - 1)[:, -k - 1 :]
        cosines = np.take_along_axis(cosines, near, 1)
        order = np.lexsort((near, -cosines))
        near, cosines = pool[np.take_along_axis(near, order, 1)], np.take_along_axis(cosines, order, 1)
        for i, c, neighbours in zip(rows, cosines, near, strict=True):
            other = neighbours != i
            others = (size[labels[i]] if labels[i] < len(size) else 0) - inside[i]
            take = min(k, int(others))
            if take < 1:
                continue
            near_labels, c = labels[neighbours[other][:take]], c[other][:take]
            suggested = int(np.bincount(near_labels).argmax())
            share = float(np.mean(near_labels == suggested))
            if suggested != labels[i] and share > 0.5:
                found.append(
                    {
                        "index": int(i),
                        "label": int(labels[i]),
                        "suggested": suggested,
                        "share": share,
                        "similarity": min(1.0, float(np.mean(c))),
                    }
                )
    return sorted(found, key=lambda s: (-s["share"], -s["similarity"], s["index"]))
