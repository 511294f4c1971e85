"""The arithmetic of measuring: softmax, top-k, calibration and temperature, intervals of shares. NumPy and SciPy.

NaN is never a hit: an output that is not finite counts against the network everywhere.
"""

from __future__ import annotations

import math

import numpy as np

TEMPERATURES = (0.05, 20.0)  # between which one is looked for


def softmax(logits):
    """Probabilities (B, classes) in float64 from logits (B, classes)."""
    logits = np.asarray(logits, "float64")
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def top_k_hits(logits, labels, k=1):
    """Whether the true class is among the k highest outputs: bool (N,).

    Equal outputs rank by class number, as a stable sort has them: k = 1 is argmax, and a network whose outputs are all
    equal gets what guessing the first k classes gets. A row that holds NaN is never a hit.

    Args:
        logits: float (N, C).
        labels: int (N,), in 0..C-1.
        k: at least 1.

    Returns:
        bool (N,).

    Example:
        >>> top_k_hits(np.array([[1.0, 3.0, 2.0], [0.0, 0.0, 0.0]]), np.array([2, 2]), k=2)
        array([ True, False])
    """
    logits, labels = np.asarray(logits, "float64"), np.asarray(labels)
    own = np.take_along_axis(logits, labels[:, None], 1)
    before = np.arange(logits.shape[1]) < labels[:, None]
    rank = ((logits > own) | ((logits == own) & before)).sum(1)
    return (rank < k) & ~np.isnan(logits).any(1)


def reliability(probabilities, labels, bins=15):
    """What a reliability diagram shows: for each of `bins` equal intervals of the highest probability a dict.

    probabilities: (N, C). labels: int (N,). Each dict has low, high (the interval is (low, high], the first one
    closed), images, and, where there are any, their mean confidence and accuracy, else None.
    """
    confidence = probabilities.max(-1)
    right = top_k_hits(probabilities, labels)
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    rows = []
    for b in range(bins):
        inside = bin_of == b
        n = int(inside.sum())
        rows.append(
            {
                "low": b / bins,
                "high": (b + 1) / bins,
                "images": n,
                "confidence": float(confidence[inside].mean()) if n else None,
                "accuracy": float(right[inside].mean()) if n else None,
            }
        )
    return rows


def calibration_error(probabilities, labels, bins=15):
    """Expected calibration error, in 0..1: sum over bins of n_b / n * |accuracy_b - confidence_b|.

    Guo et al. 2017, arXiv:1706.04599, equation 3, with 15 equal-width bins as there. probabilities: (N, C). labels:
    int (N,).

    >>> calibration_error(np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([0, 1])).round(6)
    np.float64(0.4)
    """
    rows = [r for r in reliability(probabilities, labels, bins) if r["images"]]
    return np.float64(sum(r["images"] * abs(r["accuracy"] - r["confidence"]) for r in rows) / max(len(labels), 1))


def negative_log_likelihood(logits, labels, temperature=1.0):
    """Mean of -log softmax(logits / temperature)[label]."""
    from scipy.special import log_softmax

    z = log_softmax(np.asarray(logits, "float64") / temperature, axis=-1)
    return float(-np.mean(z[np.arange(len(z)), labels]))


def fit_temperature(logits, labels):
    """The temperature T > 0 for which softmax(logits / T) has the least negative log-likelihood (Guo et al. 2017).

    logits: (N, C). labels: int (N,). Looked for in 0.05..20. Where every answer is right the likelihood grows for ever
    as T goes to 0, so nothing can be fitted, and T is 1; so it is without images.
    """
    from scipy.optimize import minimize_scalar

    logits, labels = np.asarray(logits, "float64"), np.asarray(labels)
    if not len(labels) or (logits.argmax(-1) == labels).all():
        return 1.0
    # In 1/T the function is convex, and so it has one valley in log T, too.
    found = minimize_scalar(
        lambda t: negative_log_likelihood(logits, labels, np.exp(t)),
        bounds=np.log(TEMPERATURES),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


def cross_fitted(logits, labels, folds=5, seed=0):
    """Logits (N, C), each divided by a temperature that was fitted without its own fold.

    What comes out may be measured on the same images without flattering the temperature.
    """
    logits, labels = np.asarray(logits, "float64"), np.asarray(labels)
    fold = np.random.default_rng(seed).permutation(len(labels)) % folds
    scaled = logits.copy()
    for f in range(folds):
        scaled[fold == f] /= fit_temperature(logits[fold != f], labels[fold != f])
    return scaled


def wilson(right, n, z=1.959964):
    """(low, high): the 95 % interval of a share, by its score (Wilson 1927): it holds for shares near 0 and 1, too.

    Three lines of our own: scipy.stats gives the same (the tests compare), but importing it takes longer than all that
    a second fine-tuning run does with it.

    >>> [round(x, 4) for x in wilson(90, 100)]
    [0.8256, 0.9448]
    >>> [round(x, 4) for x in wilson(10, 10)]
    [0.7225, 1.0]
    """
    p, z2 = right / n, z * z
    centre, half = p + z2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, (centre - half) / (1 + z2 / n)), min(1.0, (centre + half) / (1 + z2 / n))


def class_scores(confusion):
    """Precision, recall and F1 (..., C, 3) from confusion matrices (..., C, C), true classes in rows; NaN for 0/0."""
    confusion = np.asarray(confusion, "float64")
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _scores(hits, confusion.sum(-1), confusion.sum(-2))


def _scores(hits, true, predicted):
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([hits / predicted, hits / true, 2 * hits / (true + predicted)], -1)


def class_intervals(confusion, *, resamples=1000, level=0.95, seed=0):
    """Percentile bootstrap intervals of precision, recall and F1 of each class: (C, 3, 2).

    confusion: counts (C, C), true classes in rows. Drawing N images with replacement is drawing their cells of the
    confusion matrix from a multinomial distribution. Draws without any image of a class do not count for it; NaN where
    none counts.
    """
    import warnings

    confusion = np.asarray(confusion)
    classes, n = len(confusion), int(confusion.sum())
    cells = np.argwhere(confusion)
    share = confusion[tuple(cells.T)] / max(n, 1)
    rng, found = np.random.default_rng(seed), []
    for _ in range(resamples):
        drawn = rng.multinomial(n, share)
        true = np.bincount(cells[:, 0], drawn, classes)
        predicted = np.bincount(cells[:, 1], drawn, classes)
        same = cells[:, 0] == cells[:, 1]
        found.append(_scores(np.bincount(cells[same, 0], drawn[same], classes), true, predicted))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes for which no draw counts
        low, high = np.nanpercentile(found, [50 - 50 * level, 50 + 50 * level], axis=0)
    return np.stack([low, high], -1)
