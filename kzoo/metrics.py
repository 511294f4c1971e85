"""Metrics: softmax, top-k accuracy, calibration, temperature scaling, confidence intervals. NumPy and SciPy only.

A row of logits that holds NaN is never a hit: it counts against the network in every metric.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

Z95 = 1.959963984540054  # the 97.5 % quantile of the normal distribution, for intervals of 95 %
TEMPERATURES = (0.05, 20.0)  # the bounds of the search for a temperature
MIN_TEMPERATURE_IMAGES = 10  # below which no temperature is used
# Misclassified images below which none is used: the likelihood of a temperature hangs on them. 60 times each, 49 images
# of two classes were drawn from logits whose true temperature is 1, with 2 to 3 mistakes on average. The rule of one
# standard error alone raised the log loss of new images by 0.01 on average, with at least five mistakes by 0.0005 at
# most; where the true temperature is 3, it kept 76 and 45 % of what is to be gained (83 and 91 % accuracy).
MIN_TEMPERATURE_MISTAKES = 5
# Images that have a label, and images without it, below which its threshold stays 0.5. 150 times each, labels with 2 to
# 50 such images were drawn from logits of two normal distributions 1 to 3 standard deviations apart, 5 or 30 % of the
# images with the label, calibrated or shifted by -1.5. Where 0.5 is right, the highest F1 of 10 images alone lowers the
# F1 of new images by 0.022, with the test out of fold by 0.012 at most. Where 0.5 is wrong, the two keep 62 to 97 % of
# what can be gained (0.03 to 0.51) with 10 images, and 24 to 93 % with 5.
MIN_THRESHOLD_IMAGES = 10


def abstains(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Whether several classes can't be ruled out, by split conformal prediction.

    Args:
        probabilities: (N, C).
        threshold: q: a class is ruled out if its probability is below 1 - q and it is not the best.

    Returns:
        bool (N,).

    Example:
        >>> abstains(np.array([[0.9, 0.1], [0.6, 0.4]]), 0.7).tolist()
        [False, True]
    """
    return possible(probabilities, threshold).sum(-1) > 1


def possible(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Which classes `abstains` does not rule out: bool (N, C)."""
    return (probabilities >= 1 - threshold) | (probabilities == probabilities.max(-1, keepdims=True))


def softmax(logits: ArrayLike) -> np.ndarray:
    """The softmax of each row, in float64.

    Args:
        logits: (N, C).

    Returns:
        Probabilities (N, C), float64.
    """
    logits = np.asarray(logits, "float64")
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def top_k_hits(logits: ArrayLike, labels: ArrayLike, k: int = 1) -> np.ndarray:
    """Whether the true class is among the k highest outputs of each row.

    Equal outputs are ranked by class number, as in a stable sort: k = 1 is argmax, and a network whose outputs are all
    equal scores the same as one that always answers with the first k classes. A row that holds NaN is never a hit.

    Args:
        logits: float (N, C).
        labels: int (N,), in 0..C-1.
        k: at least 1; more than C counts every row without NaN as a hit.

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


def reliability(probabilities: np.ndarray, labels: ArrayLike, bins: int = 15) -> list[dict]:
    """The rows of a reliability diagram: images grouped by their highest probability, in bins of equal width.

    Args:
        probabilities: (N, C).
        labels: int (N,).
        bins: how many bins divide 0..1.

    Returns:
        A dict for each bin: "low" and "high" (the bin is (low, high], the first one closed), "images", and their mean
        "confidence" and "accuracy", which are None for an empty bin.
    """
    confidence, right, bin_of = _binned(probabilities, labels, bins)
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


def _binned(probabilities, labels, bins):
    """(confidence, whether it is right, the bin of the confidence) of each image."""
    confidence = probabilities.max(-1)
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return confidence, top_k_hits(probabilities, labels), bin_of


def weighted_calibration_error(
    probabilities: np.ndarray, labels: ArrayLike, bins: int = 15
) -> Callable[[np.ndarray], float]:
    """`calibration_error` as a function of how often each image counts, for resampling.

    Args:
        probabilities: (N, C).
        labels: int (N,).
        bins: how many bins of equal width.

    Returns:
        A function of counts (N,) to the error; counts of 1 give `calibration_error`.
    """
    confidence, right, bin_of = _binned(probabilities, labels, bins)
    gap = right - confidence
    return lambda counts: float(np.abs(np.bincount(bin_of, counts * gap, bins)).sum() / counts.sum())


def calibration_error(probabilities: np.ndarray, labels: ArrayLike, bins: int = 15) -> np.float64:
    """Expected calibration error (ECE): the sum over bins of n_b / n * |accuracy_b - confidence_b|.

    Args:
        probabilities: (N, C).
        labels: int (N,).
        bins: how many bins of equal width; 15 as in the paper.

    Returns:
        The error, in 0..1; 0 without images.

    Example:
        >>> calibration_error(np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([0, 1])).round(6)
        np.float64(0.4)

    Reference:
        Guo et al. 2017, arXiv:1706.04599, equation 3.
    """
    rows = [r for r in reliability(probabilities, labels, bins) if r["images"]]
    n = max(len(probabilities), 1)
    return np.float64(sum(r["images"] * abs(r["accuracy"] - r["confidence"]) for r in rows) / n)


def negative_log_likelihood(logits: ArrayLike, labels: ArrayLike, temperature: float = 1.0) -> float:
    """The mean of -log softmax(logits / temperature)[label].

    Args:
        logits: (N, C).
        labels: int (N,).
        temperature: above 0.

    Returns:
        The mean over N, in nats.
    """
    return float(np.mean(log_losses(np.asarray(logits, "float64") / temperature, labels)))


def log_losses(logits: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """-log softmax(logits)[label] of each row.

    Args:
        logits: (N, C).
        labels: int (N,).

    Returns:
        (N,), in nats.
    """
    from scipy.special import log_softmax

    logits = np.asarray(logits, "float64")
    return -log_softmax(logits, axis=-1)[np.arange(len(logits)), labels]


def label_log_losses(logits: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """Binary cross-entropy of each row of several labels: the mean over the classes of log(1 + e^z) - y z.

    Args:
        logits: (N, C).
        labels: 0 and 1 (N, C).

    Returns:
        (N,), in nats.
    """
    logits = np.asarray(logits, "float64")
    return (np.logaddexp(0, logits) - labels * logits).mean(-1)


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature T > 0 that minimises the negative log-likelihood of softmax(logits / T).

    If every prediction is right, the likelihood keeps growing as T goes to 0, so there is no minimum and T is 1. T is
    also 1 without images.

    Args:
        logits: (N, C).
        labels: int (N,).

    Returns:
        T, in 0.05..20.

    Reference:
        Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """
    from scipy.optimize import minimize_scalar

    logits, labels = np.asarray(logits, "float64"), np.asarray(labels)
    if not len(labels) or (logits.argmax(-1) == labels).all():
        return 1.0
    # The function is convex in 1/T, so it has a single minimum in log T as well.
    found = minimize_scalar(
        lambda t: negative_log_likelihood(logits, labels, np.exp(t)),
        bounds=np.log(TEMPERATURES),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


def cross_fitted(logits: ArrayLike, labels: ArrayLike, folds: int = 5, seed: int = 0) -> np.ndarray:
    """Logits divided by temperatures that were fitted by cross-fitting: each on the other folds.

    The calibration of the result can be measured on the same images without an optimistic bias.

    Args:
        logits: (N, C).
        labels: int (N,).
        folds: how many.
        seed: of the assignment of images to folds.

    Returns:
        Scaled logits (N, C), float64.
    """
    logits, labels = np.asarray(logits, "float64"), np.asarray(labels)
    fold = np.random.default_rng(seed).permutation(len(labels)) % folds
    scaled = logits.copy()
    for f in range(folds):
        scaled[fold == f] /= fit_temperature(logits[fold != f], labels[fold != f])
    return scaled


@dataclass(frozen=True)
class TemperatureChoice:
    """Whether a temperature is used, and why: what `choose_temperature` found.

    Attributes:
        temperature: to divide logits by: the fitted one, or 1.
        fitted: the temperature that was fitted on all images.
        images: their number.
        mistakes: how many of them are misclassified.
        gain: by how much temperatures fitted on other folds lower the mean log loss, in nats; None if not tested.
        error: the standard error of the gain.
        reason: a sentence.
    """

    temperature: float
    fitted: float
    images: int
    mistakes: int
    gain: float | None
    error: float | None
    reason: str

    def to_dict(self) -> dict:
        """Return the fields as a dict that JSON takes."""
        return asdict(self)


def choose_temperature(logits: ArrayLike, labels: ArrayLike, *, folds: int = 5, seed: int = 0) -> TemperatureChoice:
    """Fit a temperature and use it only if it demonstrably helps on images that it was not fitted on.

    It is used if temperatures fitted by cross-fitting lower the mean log loss by more than one standard error of the
    differences image by image, and if at least MIN_TEMPERATURE_IMAGES images were given, of which at least
    MIN_TEMPERATURE_MISTAKES are misclassified. Otherwise the temperature is 1. On a few dozen images a fitted
    temperature does harm more often than not.

    Args:
        logits: (N, C), of images that the network was not trained on.
        labels: int (N,).
        folds: of the cross-fitting.
        seed: of the folds.

    Returns:
        A TemperatureChoice.

    Example:
        >>> choose_temperature(np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([0, 1])).reason
        "Temperature 1, no scaling: 2 validation images; fewer than 10 can't show that it helps."

    Reference:
        Guo et al. 2017, arXiv:1706.04599, section 4.2. Departure: the test of whether it helps.
    """
    logits, labels = np.asarray(logits, "float64"), np.asarray(labels)
    n, fitted = len(labels), fit_temperature(logits, labels)
    mistakes = int((~top_k_hits(logits, labels)).sum()) if n else 0
    gain = error = None
    least, wrong = MIN_TEMPERATURE_IMAGES, MIN_TEMPERATURE_MISTAKES
    if n < least:
        why = f"{n} validation images; fewer than {least} can't show that it helps"
    elif mistakes < wrong:
        why = f"{mistakes} of {n:,} validation images are misclassified; fewer than {wrong} can't show that it helps"
    else:
        scaled = cross_fitted(logits, labels, folds=folds, seed=seed)
        saved = log_losses(logits, labels) - log_losses(scaled, labels)
        gain, error = float(saved.mean()), float(saved.std(ddof=1) / math.sqrt(n))
        measured = f"({gain:+.4f}, standard error {error:.4f})"
        why = f"a fitted one ({fitted:.3g}) does not clearly lower the log loss of {n:,} validation images out of fold"
        if gain > error:
            reason = (
                f"Temperature {fitted:.3g}: it lowers the log loss of {n:,} validation images out of fold {measured}."
            )
            return TemperatureChoice(fitted, fitted, n, mistakes, gain, error, reason)
        why = f"{why} {measured}"
    return TemperatureChoice(1.0, fitted, n, mistakes, gain, error, f"Temperature 1, no scaling: {why}.")


def sigmoid(logits: ArrayLike) -> np.ndarray:
    """1 / (1 + exp(-logits)) in float64, of any shape, without overflow."""
    from scipy.special import expit

    return expit(np.asarray(logits, "float64"))


def average_precision(scores: ArrayLike, positive: ArrayLike) -> float | None:
    """Average precision (AP) of a ranking: the sum over thresholds of (R_n - R_(n-1)) P_n.

    P and R are the precision and the recall of the scores at or above a threshold. Nothing is interpolated, and equal
    scores share a threshold.

    Args:
        scores: (N,), higher for what is ranked first; no NaN.
        positive: bool (N,).

    Returns:
        AP in 0..1; None if nothing is positive.

    Example:
        >>> round(average_precision([0.9, 0.8, 0.7, 0.6], [True, False, True, False]), 4)
        0.8333
    """
    scores, positive = np.asarray(scores), np.asarray(positive, bool)
    if not positive.any():
        return None
    hits, chosen, _ = _by_threshold(scores, positive)
    return float((np.diff(hits, prepend=0) * hits / chosen).sum() / positive.sum())


def weighted_mean_average_precision(scores: ArrayLike, positive: ArrayLike) -> Callable[[np.ndarray], float]:
    """The mean of `average_precision` over classes as a function of how often each image counts, for resampling.

    Args:
        scores: (N, C), higher for what is ranked first; no NaN.
        positive: bool (N, C).

    Returns:
        A function of counts (N,) to mAP, without the classes that no image with a count above 0 has; NaN without any.
        Counts of 1 give the mean of `average_precision`.
    """
    scores, positive = np.asarray(scores), np.asarray(positive, bool)
    order = np.argsort(-scores, 0, kind="stable")
    ranked, there = (np.take_along_axis(x, order, 0) for x in (scores, positive))
    at = np.arange(len(scores))[:, None]
    last = np.append(ranked[1:] != ranked[:-1], np.ones((1, scores.shape[1]), bool), 0)
    # For each image the position of the last one with the same score, which shares its threshold.
    shared = np.minimum.accumulate(np.where(last, at, len(scores))[::-1], 0)[::-1]

    def mean(counts):
        count = counts[order]
        own = count * there
        hits, chosen = (np.take_along_axis(np.cumsum(x, 0), shared, 0) for x in (own, count))
        total = own.sum(0)
        measured = total > 0
        sums = (own * hits / np.maximum(chosen, 1)).sum(0)
        return float((sums[measured] / total[measured]).mean()) if measured.any() else float("nan")

    return mean


def _by_threshold(scores, positive):
    """(positives at or above it, all at or above it, the score) of each distinct score, from the highest on."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(ranked[1:] != ranked[:-1], True)
    return np.cumsum(positive[order])[last], np.arange(1, len(scores) + 1)[last], ranked[last]


def best_f1_threshold(probabilities: ArrayLike, positive: ArrayLike) -> float:
    """The threshold t for which "p >= t" has the highest F1; of several the highest.

    It lies half-way between two neighbouring probabilities, or between the lowest one and 0.

    Args:
        probabilities: (N,), N at least 1.
        positive: bool (N,), at least one of them True.

    Example:
        >>> round(best_f1_threshold([0.1, 0.2, 0.4, 0.3], [False, False, True, True]), 4)
        0.25
    """
    hits, chosen, values = _by_threshold(np.asarray(probabilities, "float64"), np.asarray(positive, bool))
    best = int(np.argmax(2 * hits / (chosen + hits[-1])))
    return float(values[best] + np.append(values, 0.0)[best + 1]) / 2


def f1_of(predicted: ArrayLike, positive: ArrayLike) -> float:
    """F1 = 2 TP / (2 TP + FP + FN) of predictions, bool of any shape; 0 where nothing is predicted or positive."""
    predicted, positive = np.asarray(predicted, bool), np.asarray(positive, bool)
    total = int(predicted.sum() + positive.sum())
    return 2 * int((predicted & positive).sum()) / total if total else 0.0


def choose_threshold(
    probabilities: ArrayLike, positive: ArrayLike, *, folds: int = 5, seed: int = 0
) -> tuple[float, str]:
    """The threshold of highest F1 for one label, if it demonstrably helps on images that it was not chosen on.

    It is used if thresholds chosen on the other folds have a higher F1 than 0.5 has, and if at least
    MIN_THRESHOLD_IMAGES images have the label and as many do not. Otherwise it is 0.5.

    Args:
        probabilities: (N,), of images that the network was not trained on.
        positive: bool (N,), which of them have the label.
        folds: of the cross-fitting; images with and without the label are spread evenly.
        seed: of the folds.

    Returns:
        (threshold, why it is 0.5, or "" where it was chosen).

    Example:
        >>> choose_threshold([0.1, 0.3], [False, True])
        (0.5, '1 with it')
    """
    p, y = np.asarray(probabilities, "float64"), np.asarray(positive, bool)
    for kind, n in (("with", int(y.sum())), ("without", int((~y).sum()))):
        if n < MIN_THRESHOLD_IMAGES:
            return 0.5, f"{n:,} {kind} it"
    fold, rng = np.empty(len(y), int), np.random.default_rng(seed)
    for rows in (np.flatnonzero(y), np.flatnonzero(~y)):
        fold[rows] = rng.permutation(len(rows)) % folds
    apart = np.zeros(len(y), bool)
    for f in range(folds):
        apart[fold == f] = p[fold == f] >= best_f1_threshold(p[fold != f], y[fold != f])
    if f1_of(apart, y) <= f1_of(p >= 0.5, y):
        return 0.5, "no better out of fold"
    return best_f1_threshold(p, y), ""


def wilson(right: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a proportion, which also holds for proportions near 0 and 1.

    Three lines of our own: scipy.stats gives the same (the tests compare), but importing it takes longer than all that
    a second fine-tuning run does with it.

    Args:
        right: the number of successes, 0..n.
        n: the number of trials, at least 1.
        z: the normal quantile of the confidence level; 95 % by default.

    Returns:
        (low, high), in 0..1.

    Example:
        >>> [round(x, 4) for x in wilson(90, 100)]
        [0.8256, 0.9448]
        >>> [round(x, 4) for x in wilson(10, 10)]
        [0.7225, 1.0]

    Reference:
        Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    p, z2 = right / n, z * z
    centre, half = p + z2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    low, high = (centre - half) / (1 + z2 / n), (centre + half) / (1 + z2 / n)
    return min(p, max(0.0, low)), max(p, min(1.0, high))  # rounding must not leave the proportion outside


def log_mean_softmax(logits: Sequence[ArrayLike], temperatures: Sequence[float]) -> np.ndarray:
    """The logarithm of the average of the members' probabilities, log(mean_m softmax(logits_m / T_m)).

    Its softmax is that average, so it takes the place of a network's logits.

    Args:
        logits: of each of M members, (N, C).
        temperatures: one for each member, above 0.

    Returns:
        (N, C), float64, with NaN in a row where a member's holds NaN or infinity.

    Example:
        >>> two = log_mean_softmax([np.log([[0.5, 0.5]]), np.log([[0.9, 0.1]])], [1.0, 1.0])
        >>> np.exp(two).round(6)
        array([[0.7, 0.3]])

    Reference:
        Lakshminarayanan et al. 2017, arXiv:1612.01474, section 2.4.
    """
    from scipy.special import log_softmax, logsumexp

    with np.errstate(invalid="ignore"):  # infinite logits give NaN
        scaled = [np.asarray(z, "float64") / t for z, t in zip(logits, temperatures, strict=True)]
        return logsumexp([log_softmax(z, axis=-1) for z in scaled], axis=0) - math.log(len(scaled))


def paired_difference(gained: int, lost: int, n: int, z: float = Z95) -> tuple[float, float]:
    """The interval of the difference between two accuracies on the same images, from the images they disagree on.

    The difference is (gained - lost) / n. With N = n + 2, b = gained + 1/2 and c = lost + 1/2 the interval is
    (b - c) / N -+ z * sqrt(b + c - (b - c)^2 / N) / N: half an image is added to each cell of the 2 x 2 table.

    Args:
        gained: the number of images that only the first is right on.
        lost: the number of images that only the second is right on.
        n: the number of images, at least 1.
        z: the normal quantile of the confidence level; 95 % by default.

    Returns:
        (low, high), in -1..1.

    Example:
        >>> [round(x, 4) for x in paired_difference(30, 10, 1000)]
        [0.0075, 0.0324]

    Reference:
        Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions", section 2.
    """
    b, c, total = gained + 0.5, lost + 0.5, n + 2
    centre, half = (b - c) / total, z * math.sqrt(b + c - (b - c) ** 2 / total) / total
    return max(-1.0, centre - half), min(1.0, centre + half)


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided p-value of McNemar's test that two accuracies on the same images are equal.

    Args:
        gained: the number of images that only the first is right on.
        lost: the number of images that only the second is right on.

    Returns:
        min(1, 2 P(X <= min(gained, lost))), X from the binomial distribution of gained + lost fair draws.

    Example:
        >>> mcnemar(5, 0)
        0.0625
    """
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5)))


def bootstrap_interval(
    statistic: Callable[[np.ndarray], float], n: int, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of n images.

    Args:
        statistic: a function of how often each image was drawn, int (n,), which sums to n. Resamples for which it is
            NaN are left out.
        n: the number of images.
        resamples: how many.
        level: of confidence.
        seed: of the resampling.

    Returns:
        (low, high).

    Reference:
        Efron and Tibshirani 1993, section 13.3. A statistic that is a difference on the same images is a paired one.
    """
    rng = np.random.default_rng(seed)
    found = [statistic(np.bincount(rng.integers(0, n, n), minlength=n)) for _ in range(resamples)]
    low, high = np.nanpercentile(found, [50 - 50 * level, 50 + 50 * level])
    return float(low), float(high)


def class_scores(confusion: ArrayLike) -> np.ndarray:
    """Precision, recall and F1 of each class from confusion matrices.

    Args:
        confusion: counts (..., C, C), true classes in rows.

    Returns:
        (..., C, 3): precision, recall and F1; NaN for 0/0.
    """
    confusion = np.asarray(confusion, "float64")
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _scores(hits, confusion.sum(-1), confusion.sum(-2))


def _scores(hits, true, predicted):
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([hits / predicted, hits / true, 2 * hits / (true + predicted)], -1)


def class_intervals(confusion: ArrayLike, *, resamples: int = 1000, level: float = 0.95, seed: int = 0) -> np.ndarray:
    """Percentile bootstrap intervals of the precision, recall and F1 of each class.

    Resampling N images with replacement is the same as drawing their cells of the confusion matrix from a multinomial
    distribution. Resamples in which a score is 0/0 are left out of its interval.

    Args:
        confusion: counts (C, C), true classes in rows.
        resamples: how many.
        level: of confidence.
        seed: of the resampling.

    Returns:
        (C, 3, 2): low and high of precision, recall and F1; NaN where a score is 0/0 in every resample.
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
        warnings.simplefilter("ignore")  # "All-NaN slice": a score that is 0/0 in every resample
        low, high = np.nanpercentile(found, [50 - 50 * level, 50 + 50 * level], axis=0)
    return np.stack([low, high], -1)
