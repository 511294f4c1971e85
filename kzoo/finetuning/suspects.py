"""Which labels may be wrong: images whose neighbours in feature space contradict their label."""

from __future__ import annotations

import numpy as np


def suspects(features, labels, *, k=10, most=20_000, seed=0):
    """Images whose nearest neighbours in feature space contradict their label, the surest first.

    features: (N, D). labels: int (N,). Neighbours are the k with the highest cosine similarity, the image itself left
    out; in a class of fewer than k + 1 images, as many as it has others. An image is suspect if more than half of them
    have one and the same other label. Beyond `most` images neighbours are looked for in a sample of so many.

    Returns [{"index", "label", "suggested", "share" (of the neighbours with the suggested label), "similarity"}].
    Images alone in their class can't be judged. That neighbours disagree is a hint and no proof.
    """
    from sklearn.neighbors import NearestNeighbors

    x, labels = np.asarray(features, "float32"), np.asarray(labels)
    n = len(x)
    if n < 3:
        return []
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    pool = np.arange(n) if n <= most else np.sort(np.random.default_rng(seed).choice(n, most, replace=False))
    k = min(k, len(pool) - 1)
    size, inside = np.bincount(labels[pool]), np.zeros(n, bool)
    inside[pool] = True
    index = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(x[pool])  # of unit vectors: the same order
    found = []
    for start in range(0, n, 4096):
        rows = np.arange(start, min(start + 4096, n))
        distance, near = index.kneighbors(x[rows])
        near = pool[near]
        for i, d, neighbours in zip(rows, distance, near, strict=True):
            other = neighbours != i
            others = (size[labels[i]] if labels[i] < len(size) else 0) - inside[i]
            take = min(k, int(others))
            if take < 1:
                continue
            near_labels, d = labels[neighbours[other][:take]], d[other][:take]
            suggested = int(np.bincount(near_labels).argmax())
            share = float(np.mean(near_labels == suggested))
            if suggested != labels[i] and share > 0.5:
                found.append(
                    {
                        "index": int(i),
                        "label": int(labels[i]),
                        "suggested": suggested,
                        "share": share,
                        "similarity": float(np.mean(1 - d**2 / 2)),
                    }
                )
    return sorted(found, key=lambda s: (-s["share"], -s["similarity"], s["index"]))
