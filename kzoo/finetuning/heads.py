"""Linear classifiers on features: ridge in closed form, logistic regression, nearest class mean; cross-validated.

NumPy and SciPy only. scikit-learn's logistic regression takes 1.9 to 4.5 times the processor time at a lower precision
(five folds, five strengths, float32; 2000 x 1280 and 244 x 1280 features, 5 and 2 classes) and has neither focal loss
nor label smoothing; it is the tests' oracle. One objective serves the cross-validation and the final fit, minimised by
L-BFGS: it is smooth, it has a few thousand unknowns, and all photos fit into each step, so there is no learning rate to
tune and nothing random.

Features are centred and divided by one number, the root of the mean squared distance from the centre. Dividing each
feature by its own standard deviation was no better on ants and bees (cross-validated log loss 0.076 and 0.069 with
MobileNet v2, 0.283 and 0.288 with SqueezeNet 1.1) and would give rarely active channels more weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from kzoo.metrics import softmax

LOGISTIC_STRENGTHS = (0.1, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)  # inverse penalties, C of scikit-learn
RIDGE_STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # penalties in per cent of the number of photos
DEFAULT_STRENGTH = LOGISTIC_STRENGTHS[len(LOGISTIC_STRENGTHS) // 2]  # where another kind was chosen
FOLDS = 5
MAX_SINGLE_THREAD = 4_000_000  # values (N * D) up to which BLAS uses one thread
CURVATURE = 0.1  # of the log loss along an axis, in parts of Z^T Z: 0.5 at most, less where photos are told apart
MAX_UNKNOWNS = 1 << 20  # that are fitted at once: L-BFGS keeps 20 vectors of them
CHUNK = 1 << 22  # values of (N, K) that an objective computes at a time
MAX_CV_IMAGES = 2000  # a random sample of this size is cross-validated if there are more photos
MAX_REPEATED_CV_IMAGES = 500  # up to this number it is repeated with other folds, because one draw is noisy
CV_REPEATS = 3


@dataclass
class Head:
    """A linear classifier: logits = features @ kernel + bias.

    Attributes:
        kind: "logistic", "ridge" or "prototypes"; "one-vs-rest" for several labels.
        strength: of its regularisation, an element of LOGISTIC_STRENGTHS or RIDGE_STRENGTHS; None for prototypes.
        kernel: float32 (D, classes).
        bias: float32 (classes,).
        scale: factor that turned the scores of ridge or prototypes into logits, already applied; 1 for logistic.
        table: a row for each candidate of the cross-validation, the chosen one first: kind, strength, scale, accuracy,
            loss. Empty if nothing could be cross-validated.
        folded: out-of-fold logits (M, classes) of the chosen candidate, None without cross-validation.
        tested: int (M,), positions of the photos that these logits belong to.
        each: the heads of two classes, absent and there, of which one of several labels is made; else ().
    """

    kind: str
    strength: float | None
    kernel: np.ndarray
    bias: np.ndarray
    scale: float = 1.0
    table: list[dict[str, Any]] = field(default_factory=list)
    folded: np.ndarray | None = None
    tested: np.ndarray | None = None
    each: tuple[Head, ...] = ()

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Compute the logits, float32 (N, classes), of features (N, D)."""
        return np.asarray(features, "float32") @ self.kernel + self.bias

    def to_dict(self) -> dict[str, Any]:
        """Return what report.json holds of the head."""
        return {"kind": self.kind, "strength": self.strength, "cross_validation": self.table}


@dataclass(frozen=True)
class HeadObjective:
    """The loss that a head minimises: the sum over photos of w L, with w the weight of the photo's class.

    L = -sum_k t_k (1 - p_k)^focal log p_k, where t is the smoothed one-hot label, t = (1 - s) onehot + s / K.

    Attributes:
        class_weights: (classes,), None for ones.
        smoothing: s, label smoothing in [0, 1).
        focal: the exponent of the focal loss; 0 is cross-entropy.

    Example:
        >>> loss, gradient = HeadObjective()(np.zeros((1, 2)), np.array([0]), np.ones(1))
        >>> round(loss, 4), gradient.tolist()
        (0.6931, [[-0.5, 0.5]])

    Reference:
        Lin et al. 2017, Focal loss for dense object detection, arXiv:1708.02002, equation 4. Without smoothing only
        the true class has a term, as there.
    """

    class_weights: tuple[float, ...] | None = None
    smoothing: float = 0.0
    focal: float = 0.0

    def plain(self) -> bool:
        """Return whether it is cross-entropy without smoothing, which is convex."""
        return not self.smoothing and not self.focal

    def weights(self, y: np.ndarray) -> np.ndarray:
        """Return the weight of each photo (N,), float64, from labels (N,)."""
        return np.ones(len(y)) if self.class_weights is None else np.asarray(self.class_weights, "float64")[y]

    def __call__(self, logits: np.ndarray, y: np.ndarray, w: np.ndarray) -> tuple[float, np.ndarray]:
        """Compute the loss and its gradient.

        Args:
            logits: float (N, K).
            y: labels, int (N,).
            w: weights of the photos, float (N,).

        Returns:
            (loss, its gradient with respect to the logits, float64 (N, K)).
        """
        n, k = logits.shape
        if n * k > CHUNK and n > 1:  # below, half a dozen arrays of this size are needed
            parts = [slice(i, i + max(1, CHUNK // k)) for i in range(0, n, max(1, CHUNK // k))]
            losses, gradients = zip(*(self(logits[p], y[p], w[p]) for p in parts), strict=True)
            return sum(losses), np.concatenate(gradients)
        z = logits - logits.max(1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
        p = np.exp(log_p)
        t = np.full(p.shape, self.smoothing / k)
        t[np.arange(len(y)), y] += 1 - self.smoothing
        if self.focal:
            rest = np.maximum(1 - p, 1e-12)
            f = -(rest**self.focal) * log_p
            a = t * (self.focal * rest ** (self.focal - 1) * p * log_p - rest**self.focal)
        else:
            f, a = -log_p, -t
        gradient = a - p * a.sum(1, keepdims=True)
        return float(w @ (t * f).sum(1)), gradient * w[:, None]


class Rows:
    """Features Z, centred and scaled, for linear fits with an L2 penalty; at most as many columns as photos.

    With fewer photos than features, the solution lies in the span of the photos. They are then represented by their
    coordinates in that span, from the eigenvectors of the Gram matrix, which is exact. With more photos nothing is
    copied: the mean and the scale are applied in the products, so that the features may be mapped from a file.

    Args:
        x: features, float32 (N, D).
    """

    def __init__(self, x: np.ndarray):
        n, d = x.shape
        # NumPy sums a memory-mapped array page by page.
        mean = x.mean(0, dtype="float64")
        spread = sum(np.square(x[i : i + 1024] - mean).sum() for i in range(0, n, 1024)) / n
        self.mean, self.scale = mean, float(np.sqrt(spread)) or 1.0
        self.basis = None
        if n < d:
            z = (x - mean) / self.scale
            values, vectors = np.linalg.eigh(z @ z.T)
            keep = values > 1e-10 * max(values[-1], 1e-300)
            root = np.sqrt(values[keep])
            self.basis = z.T @ (vectors[:, keep] / root)
            self.z = vectors[:, keep] * root
            self.shift, self.factor = np.zeros(self.z.shape[1]), 1.0
            self.axes = None, values[keep]
        else:
            self.z, self.shift, self.factor = x, mean, self.scale

    @cached_property
    def axes(self) -> tuple[np.ndarray | None, np.ndarray]:
        """The principal axes: (directions (width, r), None if they are the columns of Z; sums of squares along them).

        Of more than MAX_CV_IMAGES photos, those of as many, evenly spaced: good enough to precondition a fit.
        """
        n = len(self)
        if n > MAX_CV_IMAGES:
            some = Rows(np.ascontiguousarray(self.z[np.linspace(0, n - 1, MAX_CV_IMAGES).astype(int)]))
            vectors, values = some.axes
            return some.basis if vectors is None else vectors, values * n / len(some)
        values, vectors = np.linalg.eigh(self.gram(np.ones(n)))
        return vectors, np.maximum(values, 0)

    def principal(self) -> Rows:
        """Return the photos in the coordinates of their principal axes, float64; for up to MAX_CV_IMAGES photos."""
        vectors, values = self.axes
        if vectors is None:
            return self
        part = object.__new__(Rows)
        z = ((self.z - self.shift) / self.factor) @ vectors
        new = {"z": z, "shift": np.zeros(z.shape[1]), "factor": 1.0, "basis": vectors, "axes": (None, values)}
        part.__dict__ = {**self.__dict__, **new}
        return part

    def light(self) -> Rows:
        """Return the photos in float32."""
        part = object.__new__(Rows)
        part.__dict__ = {**self.__dict__, "z": self.z.astype("float32")}
        return part

    def take(self, indices: np.ndarray) -> Rows:
        """Return some of the photos, with the mean and the scale of all."""
        part = object.__new__(Rows)
        part.__dict__ = {**self.__dict__, "z": self.z[indices]}
        return part

    def __len__(self):
        return len(self.z)

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.z.shape[1]

    def forward(self, w: np.ndarray) -> np.ndarray:
        """Compute Z w, (N, K), from weights (width, K)."""
        return (self.z @ w.astype(self.z.dtype) - self.shift @ w) / self.factor

    def back(self, g: np.ndarray) -> np.ndarray:
        """Compute Z^T g, (width, K), from (N, K)."""
        return (self.z.T @ g.astype(self.z.dtype) - np.outer(self.shift, g.sum(0))) / self.factor

    def gram(self, w: np.ndarray) -> np.ndarray:
        """Compute Z^T diag(w) Z, (width, width), from weights of the photos (N,)."""
        total = np.zeros((self.width, self.width))
        for i in range(0, len(self), 1024):
            z = (self.z[i : i + 1024] - self.shift) / self.factor
            total += (z * w[i : i + 1024, None]).T @ z
        return total

    def unfold(self, w: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Convert a solution for Z, (width, K) and (K,), to (kernel (D, K), bias (K,)) for the original features."""
        kernel = (w if self.basis is None else self.basis @ w) / self.scale
        return kernel.astype("float32"), (b - self.mean @ kernel).astype("float32")


# --- the three kinds ---------------------------------------------------------------------------------------


def logistic(
    rows: Rows,
    y: np.ndarray,
    classes: int,
    strength: float,
    *,
    objective: HeadObjective | None = None,
    start: tuple[np.ndarray, np.ndarray] | None = None,
    max_iterations: int = 300,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit logistic regression: minimise objective(Z W + b) + |W|^2 / (2 strength) by L-BFGS.

    Args:
        rows: N photos.
        y: labels, int (N,).
        classes: their number K.
        strength: inverse of the penalty, C of scikit-learn.
        objective: cross-entropy by default.
        start: (W, b) to start from; zeros by default.
        max_iterations: of L-BFGS.

    Returns:
        (W (width, K), b (K,)).
    """
    objective = objective or HeadObjective()
    sample = objective.weights(y)[:, None]
    if start is not None:
        start = start[0][:, None], start[1][None]
    w, b = _several(rows, y, classes, strength, sample, objective, start, max_iterations, 1e-5)
    return w[:, 0], b[0]


def _several(rows, y, classes, strength, samples, objective, start, max_iterations, tolerance):
    """`logistic` for several weights of the photos at once, samples (N, F): (W (width, F, K), b (F, K)).

    One product with Z serves all of them. L-BFGS runs in coordinates in which the curvature is about the same in all
    directions, W = P U with P = (CURVATURE Z^T Z + 1 / strength)^(-1/2) along the principal axes: it then needs a
    third of the steps.

    Reference:
        Böhning 1992, Multinomial logistic regression algorithm, Annals of the Institute of Statistical Mathematics 44:
        the Hessian is at most Z^T Z / 2.
    """
    from scipy.optimize import minimize

    n, d, f = len(rows), rows.width, samples.shape[1]
    most = max(1, MAX_UNKNOWNS // ((d + 1) * classes))
    if f > most:
        parts = [slice(i, i + most) for i in range(0, f, most)]
        found = [
            _several(
                rows,
                y,
                classes,
                strength,
                samples[:, p],
                objective,
                start and (start[0][:, p], start[1][p]),
                max_iterations,
                tolerance,
            )
            for p in parts
        ]
        return np.concatenate([w for w, _ in found], 1), np.concatenate([b for _, b in found])
    axes, values = rows.axes
    share = CURVATURE * samples.sum() / f / n  # of the photos that count
    factor = 1 / np.sqrt(share * values + 1 / strength)[:, None]
    rest = 1 / np.sqrt(share * values.min(initial=np.inf if axes is None else 0) + 1 / strength)
    bias_factor = 1 / np.sqrt(max(share * n, 1e-12))

    def scaled(u, by, rest):
        return by * u if axes is None else rest * u + axes @ ((by - rest) * (axes.T @ u))

    truth, weights, width = np.repeat(y, f), samples.ravel(), f * classes

    def split(x):
        return scaled(x[: d * width].reshape(d, width), factor, rest), x[d * width :] * bias_factor

    def value(x):
        w, b = split(x)
        loss, g = objective((rows.forward(w) + b).reshape(n * f, classes), truth, weights)
        g = g.reshape(n, width)
        loss += 0.5 / strength * float(np.square(w).sum())
        slope = scaled(rows.back(g) + w / strength, factor, rest)
        return loss, np.concatenate([slope.ravel(), g.sum(0) * bias_factor])

    x = np.zeros((d + 1) * width)
    if start is not None:
        x[: d * width] = scaled(start[0].reshape(d, width), 1 / factor, 1 / rest).ravel()
        x[d * width :] = start[1].ravel() / bias_factor
    options = {"maxiter": max_iterations, "gtol": tolerance, "maxcor": 10}
    w, b = split(minimize(value, x, jac=True, method="L-BFGS-B", options=options).x)
    return w.reshape(d, f, classes), b.reshape(f, classes)


def ridge(
    rows: Rows, y: np.ndarray, classes: int, strength: float, objective: HeadObjective | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Fit ridge regression to one-hot labels: minimise the sum of w |Z W + b - onehot|^2, plus strength / 100 * sum(w)
    * |W|^2.

    Args:
        rows: N photos.
        y: labels, int (N,).
        classes: their number K.
        strength: the penalty in per cent of the photos' total weight.
        objective: its class weights w are used; ones by default.

    Returns:
        (W (width, K), b (K,)).
    """
    w = (objective or HeadObjective()).weights(y)
    share = w / w.sum()
    onehot = np.eye(classes)[y]
    centre = share @ onehot
    z_mean = rows.back(share[:, None])[:, 0]
    gram = rows.gram(w) - w.sum() * np.outer(z_mean, z_mean)
    gram.flat[:: rows.width + 1] += strength / 100 * w.sum()
    solution = np.linalg.solve(gram, rows.back(w[:, None] * (onehot - centre)))
    return solution, centre - z_mean @ solution


def ridge_folds(
    rows: Rows,
    y: np.ndarray,
    classes: int,
    strengths: Sequence[float],
    held_out: Sequence[np.ndarray],
    objective: HeadObjective | None = None,
) -> list[np.ndarray]:
    """Compute out-of-fold scores of `ridge` for several strengths without fitting any fold.

    With H the matrix that takes labels to predictions, those of the photos h that were left out follow from the fit to
    all photos: y_h - (I - H_hh)^-1 (y_h - p_h). That is exact, and each fold then costs a small linear system in place
    of an eigendecomposition.

    Args:
        rows: N photos in the coordinates of their principal axes.
        y: labels, int (N,).
        classes: their number K.
        strengths: as in `ridge`.
        held_out: positions of the photos of each fold.
        objective: its class weights are used; ones by default.

    Returns:
        The scores (M, K) of each strength, fold after fold.

    Reference:
        Stone 1974, Cross-validatory choice and assessment of statistical predictions, JRSS B 36, for single photos;
        for several at once the same algebra gives a matrix.
    """
    w = (objective or HeadObjective()).weights(y)
    onehot, total = np.eye(classes)[y], w.sum()
    centre, z = w / total @ onehot, rows.z - w / total @ rows.z
    values = rows.axes[1]
    if objective and objective.class_weights:  # they turn the axes
        values, vectors = np.linalg.eigh((z * w[:, None]).T @ z)
        values, z = np.maximum(values, 0), z @ vectors
    target = z.T @ (w[:, None] * (onehot - centre))
    found = []
    for strength in strengths:
        scores = []
        for h in held_out:
            own = z[h] / np.sqrt(values + strength / 100 * (total - w[h].sum()))
            fitted = own @ (target / np.sqrt(values + strength / 100 * (total - w[h].sum()))[:, None]) + centre
            hat = (own @ own.T + 1 / total) * w[h]
            scores.append(onehot[h] - np.linalg.solve(np.eye(len(h)) - hat, onehot[h] - fitted))
        found.append(np.concatenate(scores))
    return found


def prototypes(rows: Rows, y: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Express the nearest class mean as a linear classifier.

    -|x - m|^2 = 2 m.x - |m|^2 - |x|^2, where |x|^2 is the same for all classes.

    Args:
        rows: N photos.
        y: labels, int (N,). The mean of a class without photos is taken to be the mean of all.
        classes: their number K.

    Returns:
        (W (width, K), b (K,)).

    Reference:
        Snell et al. 2017, Prototypical networks for few-shot learning, arXiv:1703.05175: the mean of a class's features
        is its prototype.
    """
    onehot = np.eye(classes)[y]
    means = rows.back(onehot) / np.maximum(onehot.sum(0), 1)
    return 2 * means, -np.square(means).sum(0)


# --- the choice ------------------------------------------------------------------------------------------


def folds(y: np.ndarray, groups: np.ndarray, rng: np.random.Generator, count: int = FOLDS) -> np.ndarray:
    """Draw folds, stratified by class, that keep groups together.

    The groups of each class are dealt out in turn, starting where the last class stopped, so that the folds have about
    the same size.

    Args:
        y: labels, int (N,).
        groups: int (N,), the same number for photos that belong together, such as duplicates.
        rng: draws the order.
        count: number of folds.

    Returns:
        The fold of each photo, int (N,); -1 for photos of a class with a single group, which always train.
    """
    found, turn = np.full(len(y), -1), 0
    dealt, several = {}, set()  # a group may hold more classes than one
    for label in np.unique(y):
        own = rng.permutation(np.unique(groups[y == label]))
        if len(own) > 1:
            several.add(label)
            for g in (g for g in own if g not in dealt):
                dealt[g] = turn % count
                turn += 1
    for i, (label, g) in enumerate(zip(y, groups, strict=True)):
        if label in several and g in dealt:
            found[i] = dealt[g]
    return found


def fit_scale(scores: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
    """Fit the scale > 0 that minimises the weighted log loss of scale * scores, with slightly smoothed labels.

    Without smoothing, scores that are all right would be scaled to infinity.

    Args:
        scores: float (N, K).
        y: labels, int (N,).
        w: weights of the photos, float (N,).

    Reference:
        Platt 1999, Probabilistic outputs for support vector machines: labels are smoothed by one photo of each class.
    """
    from scipy.optimize import minimize_scalar

    n, k = scores.shape
    smoothed = HeadObjective(smoothing=k / (n + k))

    def loss(t):
        return smoothed(np.exp(t) * scores, y, w)[0]

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 5), method="bounded", options={"xatol": 0.01}).x))


def cross_validate(
    rows: Rows,
    y: np.ndarray,
    classes: int,
    groups: np.ndarray | None = None,
    *,
    seed: int = 0,
    objective: HeadObjective | None = None,
) -> tuple[list[dict[str, Any]], np.ndarray | None, np.ndarray | None]:
    """Choose kind and strength of a head by the lowest cross-validated log loss.

    The scores of ridge and prototypes become logits by one scale, which is fitted on the same folds. Because that makes
    their loss slightly optimistic, they must beat logistic regression by more than one standard error of the difference
    photo by photo. The up to CV_REPEATS draws of the folds count together.

    Args:
        rows: N photos.
        y: labels, int (N,).
        classes: their number K.
        groups: int (N,), the same number for photos that must stay in one fold; all different by default.
        seed: of the folds.
        objective: its class weights weigh the photos; ones by default.

    Returns:
        (table, logits, positions): `Head.table`, and the out-of-fold logits (M, K) of the chosen candidate with the
        positions (M,) of their photos. The table is empty and the others are None if nothing can be tested because
        each class has one photo.
    """
    groups = np.arange(len(y)) if groups is None else np.asarray(groups)
    plain = HeadObjective((objective or HeadObjective()).class_weights)
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(CV_REPEATS if len(y) <= MAX_REPEATED_CV_IMAGES else 1):
        fold = folds(y, groups, rng)
        for k in np.unique(fold[fold >= 0]):
            parts.append(np.flatnonzero(fold == k))
    if not parts:
        return [], None, None
    rows = rows.principal()
    tested = np.concatenate(parts)
    truth, w = y[tested], plain.weights(y[tested])
    found = []

    def consider(kind, strength, z, scale):
        if scale:
            scale = fit_scale(z, truth, w)
            z = z * scale
        each = w * -np.log(np.maximum(softmax(z)[np.arange(len(truth)), truth], 1e-300)) / w.mean()
        accuracy = float(w @ (z.argmax(1) == truth) / w.sum())
        row = {"kind": kind, "strength": strength, "scale": scale or 1.0, "accuracy": accuracy}
        found.append(({**row, "loss": float(each.mean())}, each, z))

    samples = np.repeat(plain.weights(y)[:, None], len(parts), 1)
    for i, held_out in enumerate(parts):
        samples[held_out, i] = 0
    light, solution = rows.light(), None
    for c in LOGISTIC_STRENGTHS:  # from strong to weak regularisation, each started from the solution before
        # Only to be compared: kinds and strengths differ by far more than this tolerance leaves.
        solution = kernels, biases = _several(light, y, classes, c, samples, plain, solution, 100, 1e-3)
        scores = [light.z[h] @ kernels[:, i].astype("float32") + biases[i] for i, h in enumerate(parts)]
        consider("logistic", c, np.concatenate(scores), None)
        if len(found) > 2 and found[-1][0]["loss"] > found[-2][0]["loss"] > found[-3][0]["loss"]:
            break  # the loss rose twice: weaker regularisation would be worse, and slower
    for strength, each in zip(
        RIDGE_STRENGTHS, ridge_folds(rows, y, classes, RIDGE_STRENGTHS, parts, plain), strict=True
    ):
        consider("ridge", strength, each, True)
    scores = []
    for h in parts:
        train = np.delete(np.arange(len(y)), h)
        kernel, bias = prototypes(rows.take(train), y[train], classes)
        scores.append(rows.z[h] @ kernel + bias)
    consider("prototypes", None, np.concatenate(scores), True)

    found.sort(key=lambda item: item[0]["loss"])
    best = next(item for item in found if item[0]["kind"] == "logistic")
    if found[0] is not best:
        # One number for each group: copies and views of a photo are not independent.
        _, one = np.unique(groups[tested], return_inverse=True)
        gain = np.bincount(one, best[1] - found[0][1])
        if gain.mean() > gain.std() / np.sqrt(len(gain)):
            best = found[0]
    found = [best] + [item for item in found if item is not best]
    once, first = np.unique(tested, return_index=True)
    return [row for row, _, _ in found], best[2][first], once


def fit_head(
    x: np.ndarray,
    y: np.ndarray,
    classes: int,
    *,
    groups: np.ndarray | None = None,
    seed: int = 0,
    objective: HeadObjective | None = None,
    like: Head | None = None,
) -> Head:
    """Choose a head by cross-validation and fit it on all photos.

    Args:
        x: features, float32 (N, D).
        y: labels, int (N,), each class at least once.
        classes: their number.
        groups: int (N,), the same number for photos that must stay in one fold; all different by default.
        seed: of the folds, and of the sample if there are more than MAX_CV_IMAGES photos.
        objective: the loss; cross-entropy by default.
        like: a head whose kind and strength are used instead of choosing.

    Returns:
        A Head.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(40, 8)).astype("float32")
        >>> y = (x[:, 0] > 0).astype(int)
        >>> head = fit_head(x, y, 2)
        >>> float(np.mean(head.logits(x).argmax(1) == y)) > 0.9
        True
    """
    with threads(x.size):
        return _head(x, Rows(x), np.asarray(y), classes, groups, seed, objective or HeadObjective(), like)


def _head(x, rows, y, classes, groups, seed, objective, like):
    """`fit_head`, with the features as Rows, too."""
    if like is None:
        table, folded, tested = _choose(x, y, rows, classes, groups=groups, seed=seed, objective=objective)
        best = table[0] if table else {"kind": "prototypes", "strength": None, "scale": 10.0}
    else:
        best = {"kind": like.kind, "strength": like.strength, "scale": like.scale}
        table, folded, tested = like.table, None, None
    kind, strength, scale, w, b = _fit(rows, y, classes, best, objective)
    kernel, bias = rows.unfold(scale * w, scale * b)
    return Head(kind, strength, kernel, bias, scale, table, folded, tested)


def fit_one_vs_rest(
    x: np.ndarray, y: np.ndarray, *, groups: np.ndarray | None = None, seed: int = 0, like: Head | None = None
) -> Head:
    """Fit a head for several labels an image: for each class one of its own, chosen by cross-validation.

    Args:
        x: features, float32 (N, D).
        y: 0 and 1 (N, K), each class at least once there and once absent.
        groups, seed: as for `fit_head`.
        like: a head of this kind whose kinds and strengths are used instead of choosing.

    Returns:
        A Head whose logits (N, K) are for a sigmoid. Its `table` has a row for each class, and `tested` has the photos
        that every class was tested on.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(60, 8)).astype("float32")
        >>> head = fit_one_vs_rest(x, (x[:, :2] > 0).astype(int))
        >>> head.kernel.shape, bool(((head.logits(x) > 0) == (x[:, :2] > 0)).mean() > 0.9)
        ((8, 2), True)
    """
    each = []
    with threads(x.size):
        rows = Rows(x)
        for k in range(y.shape[1]):
            own = None if like is None else like.each[k]
            each.append(_head(x, rows, y[:, k].astype(int), 2, groups, seed, HeadObjective(), own))
    kernel = np.stack([h.kernel[:, 1] - h.kernel[:, 0] for h in each], 1)
    bias = np.array([h.bias[1] - h.bias[0] for h in each], "float32")
    table = [{**h.table[0], "class": k} for k, h in enumerate(each) if h.table]
    folded = tested = None
    apart = [(h.tested, h.folded) for h in each if h.tested is not None and h.folded is not None]
    if len(apart) == len(each):
        tested = np.flatnonzero(np.all([np.isin(np.arange(len(y)), at) for at, _ in apart], 0))
        folded = np.stack([np.diff(z[np.searchsorted(at, tested)])[:, 0] for at, z in apart], 1)
    return Head("one-vs-rest", None, kernel, bias, 1.0, table, folded, tested, tuple(each))


@contextmanager
def threads(size: int) -> Iterator[None]:
    """Limit BLAS to one thread for small products.

    On cores that other programs use, BLAS's threads wait for each other: up to 30 times as long was measured.

    Args:
        size: number of features in all, N * D.
    """
    if size > MAX_SINGLE_THREAD:
        yield
        return
    import scipy.optimize  # noqa: F401  has a BLAS of its own, which can be limited only once it is loaded
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):
        yield


def _choose(x, y, rows, classes, *, groups, seed, objective):
    """Cross-validate all photos, or a sample of them; positions count among all."""
    if len(y) > MAX_CV_IMAGES:
        sample = _stratified_sample(y, seed)
        rows = Rows(np.ascontiguousarray(x[sample]))
    else:
        sample = np.arange(len(y))
    groups = None if groups is None else np.asarray(groups)[sample]
    table, folded, tested = cross_validate(rows, y[sample], classes, groups, seed=seed, objective=objective)
    return table, folded, None if tested is None else sample[tested]


def _fit(rows, y, classes, best, objective):
    """(kind, strength, scale, W, b) of the chosen head, fitted with the objective that was asked for."""
    kind, strength, scale = best["kind"], best["strength"], best["scale"]
    if kind == "logistic":
        w, b = logistic(rows, y, classes, strength, objective=HeadObjective(objective.class_weights))
        if not objective.plain():  # from the solution of the convex problem
            w, b = logistic(rows, y, classes, strength, objective=objective, start=(w, b))
    elif kind == "ridge":
        w, b = ridge(rows, y, classes, strength, objective)
    else:
        w, b = prototypes(rows, y, classes)
    if kind != "logistic" and not objective.plain():
        kind, strength = "logistic", DEFAULT_STRENGTH
        w, b = logistic(rows, y, classes, strength, objective=objective, start=(scale * w, scale * b))
        scale = 1.0
    return kind, strength, scale, w, b


def _stratified_sample(y, seed):
    """About MAX_CV_IMAGES positions, each class by its share and at least twice if it has two photos."""
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(y):
        own = rng.permutation(np.flatnonzero(y == label))
        chosen.append(own[: max(round(MAX_CV_IMAGES * len(own) / len(y)), min(2, len(own)))])
    return np.sort(np.concatenate(chosen))
