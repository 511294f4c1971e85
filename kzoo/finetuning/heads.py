"""Linear classifiers on features: ridge in closed form, logistic regression, nearest class mean; cross-validated.

NumPy and SciPy only: a second run on cached features shall not wait for TensorFlow, nor for scikit-learn's import,
which takes longer than all the fits on a few hundred photos (it is the tests' oracle instead). One objective serves
the choice and the polish, by L-BFGS: it is smooth, it has a few thousand unknowns, and all photos fit into each step,
so there is no rate to tune and nothing random.

Features are centred and divided by one number, the root of the mean squared distance from the centre; not each by its
own deviation, which measured no better on ants and bees (cross-validated log loss 0.076 and 0.069 with MobileNet v2,
0.283 and 0.288 with SqueezeNet 1.1) and would give rarely active channels more say.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

LOGISTIC = (0.1, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)  # how weakly the weights are bound
RIDGE = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # penalty in per cent of the number of photos
FOLDS = 5
SINGLE_THREAD = 4_000_000  # features in all
CHUNK = 1 << 22  # numbers that an objective looks at together
MAX_CV_IMAGES = 2000  # photos that the cross-validation looks at
REPEATED = 500  # with no more photos than this it is repeated, REPEATS times in all, as one draw of the folds is noisy
REPEATS = 3


@dataclass
class Head:
    """A linear classifier: logits = features @ kernel + bias. kernel: (D, classes), bias: (classes,), float32.

    table: a row for each candidate of the cross-validation: kind, strength, scale, accuracy, loss. folded: the winner's
    logits for the photos that the cross-validation tested, out of fold; tested: their positions.
    """

    kind: str
    strength: float | None
    kernel: np.ndarray
    bias: np.ndarray
    scale: float = 1.0
    table: list[dict] = field(default_factory=list)
    folded: np.ndarray | None = None
    tested: np.ndarray | None = None

    def logits(self, features):
        """(N, D) to float32 (N, classes)."""
        return np.asarray(features, "float32") @ self.kernel + self.bias

    def to_dict(self):
        return {"kind": self.kind, "strength": self.strength, "cross_validation": self.table}


@dataclass(frozen=True)
class HeadObjective:
    """What a head is trained for: the sum over photos of w * L, with w the weight of the photo's class.

    L = -sum_k t_k (1 - p_k)^focal log p_k, t the one-hot label smoothed by `smoothing`: t = (1 - s) onehot + s / K.
    focal 0 is cross-entropy, else the focal loss of Lin et al. 2017, arXiv:1708.02002. class_weights: (classes,) or
    None for ones.
    """

    class_weights: tuple[float, ...] | None = None
    smoothing: float = 0.0
    focal: float = 0.0

    def plain(self):
        return not self.smoothing and not self.focal

    def weights(self, y):
        return np.ones(len(y)) if self.class_weights is None else np.asarray(self.class_weights, "float64")[y]

    def __call__(self, logits, y, w):
        """(loss, its gradient by the logits (N, K)), float64."""
        n, k = logits.shape
        if n * k > CHUNK and n > 1:  # half a dozen arrays of that size, with many photos and classes gigabytes
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
    """Features centred and scaled, in coordinates as few as there are photos: all that a linear penalised fit sees.

    With fewer photos than features, the solution lies in the span of the photos; their coordinates there, by the
    eigenvectors of the Gram matrix, are exact and few. With more photos nothing is copied: mean and scale are put in
    where products are taken, so that features may lie in a file.
    """

    def __init__(self, x):
        n, d = x.shape
        # NumPy's sum over a memory-mapped array runs through it page by page.
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
        else:
            self.z, self.shift, self.factor = x, mean, self.scale

    def take(self, indices):
        part = object.__new__(Rows)
        part.__dict__ = {**self.__dict__, "z": self.z[indices]}
        return part

    def __len__(self):
        return len(self.z)

    @property
    def width(self):
        return self.z.shape[1]

    def forward(self, w):
        return (self.z @ w.astype(self.z.dtype) - self.shift @ w) / self.factor

    def back(self, g):
        return (self.z.T @ g.astype(self.z.dtype) - np.outer(self.shift, g.sum(0))) / self.factor

    def gram(self, w):
        """Z^T diag(w) Z, Z centred and scaled, (width, width)."""
        total = np.zeros((self.width, self.width))
        for i in range(0, len(self), 1024):
            z = (self.z[i : i + 1024] - self.shift) / self.factor
            total += (z * w[i : i + 1024, None]).T @ z
        return total

    def unfold(self, w, b):
        """(kernel, bias) for features as they came."""
        kernel = (w if self.basis is None else self.basis @ w) / self.scale
        return kernel.astype("float32"), (b - self.mean @ kernel).astype("float32")


# --- the three kinds ---------------------------------------------------------------------------------------


def logistic(rows, y, classes, strength, objective=None, start=None, most=300):
    """argmin over W, b of objective + |W|^2 / (2 strength): (W (width, classes), b (classes,))."""
    from scipy.optimize import minimize

    objective = objective or HeadObjective()
    sample, d = objective.weights(y), rows.width
    x = np.zeros((d + 1) * classes) if start is None else np.concatenate([start[0].ravel(), start[1]])

    def value(x):
        w, b = x[: d * classes].reshape(d, classes), x[d * classes :]
        loss, g = objective(rows.forward(w) + b, y, sample)
        loss += 0.5 / strength * float(np.square(w).sum())
        return loss, np.concatenate([(rows.back(g) + w / strength).ravel(), g.sum(0)])

    x = minimize(value, x, jac=True, method="L-BFGS-B", options={"maxiter": most, "gtol": 1e-4, "maxcor": 20}).x
    return x[: d * classes].reshape(d, classes), x[d * classes :]


def ridge_path(rows, y, classes, strengths, objective=None):
    """Least squares on one-hot labels with penalty strength * n / 100 * |W|^2: (W, b) for each strength, one solve."""
    w = (objective or HeadObjective()).weights(y)
    share = w / w.sum()
    onehot = np.eye(classes)[y]
    centre = share @ onehot
    z_mean = rows.back(share[:, None])[:, 0]
    values, vectors = np.linalg.eigh(rows.gram(w) - w.sum() * np.outer(z_mean, z_mean))
    target = vectors.T @ rows.back(w[:, None] * (onehot - centre))
    found = []
    for strength in strengths:
        solution = vectors @ (target / (np.maximum(values, 0) + strength * w.sum() / 100)[:, None])
        found.append((solution, centre - z_mean @ solution))
    return found


def prototypes(rows, y, classes):
    """Nearest class mean as a linear classifier: -|x - m|^2 = 2 m.x - |m|^2 - |x|^2, of which |x|^2 is common.

    The mean of a class's features is the prototype of Snell et al. 2017, arXiv:1703.05175.
    """
    onehot = np.eye(classes)[y]
    means = rows.back(onehot) / np.maximum(onehot.sum(0), 1)  # a class without photos stands at the centre
    return 2 * means, -np.square(means).sum(0)


# --- the choice ------------------------------------------------------------------------------------------


def folds(y, groups, rng, count=FOLDS):
    """A fold for each photo, (N,), -1 for those of a class with a single group: they always train.

    Stratified by class; a group (photos that belong together, such as duplicates) stays whole. Each class's groups are
    dealt out in turn, where the last class stopped, so that the folds are of one size.
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


def calibrated(scores, y, w):
    """The scale > 0 that minimises the weighted log loss of scale * scores, the labels smoothed by one photo a class.

    As in Platt 1999, Probabilistic outputs for support vector machines: without that, scores that happen to be all
    right would be scaled to certainty.
    """
    from scipy.optimize import minimize_scalar

    n, k = scores.shape
    smoothed = HeadObjective(smoothing=k / (n + k))

    def loss(t):
        return smoothed(np.exp(t) * scores, y, w)[0]

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 5), method="bounded", options={"xatol": 0.01}).x))


def cross_validate(rows, y, classes, groups=None, seed=0, objective=None):
    """A row for each candidate, the chosen one first: (table, out-of-fold logits (N', K), positions (N',)).

    The lowest log loss counts. Ridge and prototypes give scores that become logits by one scale, fitted on the same
    folds; so that this does not flatter them, they must beat logistic regression by more than a standard error of the
    difference, photo by photo. Photos count as much as the objective weighs their classes. The table is empty if
    nothing can be tested: every class has one photo.
    """
    groups = np.arange(len(y)) if groups is None else np.asarray(groups)
    plain = HeadObjective((objective or HeadObjective()).class_weights)
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(REPEATS if len(y) <= REPEATED else 1):
        fold = folds(y, groups, rng)
        for k in np.unique(fold[fold >= 0]):
            parts.append((np.flatnonzero(fold != k), np.flatnonzero(fold == k)))
    if not parts:
        return [], None, None
    train = [(rows.take(a), y[a]) for a, _ in parts]
    test = [rows.take(b) for _, b in parts]
    tested = np.concatenate([b for _, b in parts])
    truth, w = y[tested], plain.weights(y[tested])
    found = []

    def consider(kind, strength, solutions, scale):
        z = np.concatenate([part.forward(w) + b for part, (w, b) in zip(test, solutions, strict=True)])
        if scale:
            scale = calibrated(z, truth, w)
            z = z * scale
        each = w * -np.log(np.maximum(_softmax(z)[np.arange(len(truth)), truth], 1e-300)) / w.mean()
        accuracy = float(w @ (z.argmax(1) == truth) / w.sum())
        row = {"kind": kind, "strength": strength, "scale": scale or 1.0, "accuracy": accuracy}
        found.append(({**row, "loss": float(each.mean())}, each, z))

    starts = [None] * len(parts)
    for c in LOGISTIC:  # from strongly to weakly bound, each from the solution of the one before
        starts = [logistic(x, t, classes, c, plain, s, 100) for (x, t), s in zip(train, starts, strict=True)]
        consider("logistic", c, starts, None)
        if len(found) > 2 and found[-1][0]["loss"] > found[-2][0]["loss"] > found[-3][0]["loss"]:
            break  # it only gets worse from here, and slower
    paths = [ridge_path(x, t, classes, RIDGE, plain) for x, t in train]
    for i, strength in enumerate(RIDGE):
        consider("ridge", strength, [path[i] for path in paths], True)
    consider("prototypes", None, [prototypes(x, t, classes) for x, t in train], True)

    found.sort(key=lambda item: item[0]["loss"])
    best = next(item for item in found if item[0]["kind"] == "logistic")
    if found[0] is not best:
        # One number for each photo; what stays together, copies and views of a photo, is one.
        _, one = np.unique(groups[tested], return_inverse=True)
        gain = np.bincount(one, best[1] - found[0][1])
        if gain.mean() > gain.std() / np.sqrt(len(gain)):
            best = found[0]
    found = [best] + [item for item in found if item is not best]
    once, first = np.unique(tested, return_index=True)
    return [row for row, _, _ in found], best[2][first], once


def _softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def fit_head(x, y, classes, *, groups=None, seed=0, objective=None, like=None):
    """Choose a head by cross-validation and fit it on all of the photos.

    x: features (N, D). y: labels (N,), every class at least once. groups: (N,), photos of one number stay on one side.
    like: a Head whose kind and strength are taken instead of choosing.

    Returns a Head.

    >>> x = np.random.default_rng(0).normal(size=(40, 8)).astype("float32")
    >>> y = (x[:, 0] > 0).astype(int)
    >>> head = fit_head(x, y, 2)
    >>> float(np.mean(head.logits(x).argmax(1) == y)) > 0.9
    True
    """
    with threads(x.size):
        return _fit_head(x, np.asarray(y), classes, groups, seed, objective or HeadObjective(), like)


@contextmanager
def threads(size):
    """One thread for small products: where others use the cores, BLAS's threads wait for each other, up to 30 times."""
    if size > SINGLE_THREAD:
        yield
        return
    import scipy.optimize  # noqa: F401  brings a BLAS of its own, which must be there to be limited
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):
        yield


def _fit_head(x, y, classes, groups, seed, objective, like):
    rows = Rows(x)
    table, folded, tested = [], None, None
    if like is None:
        some = _some(y, seed) if len(y) > MAX_CV_IMAGES else np.arange(len(y))
        looked = rows if len(some) == len(y) else Rows(np.ascontiguousarray(x[some]))
        table, folded, tested = cross_validate(
            looked, y[some], classes, None if groups is None else np.asarray(groups)[some], seed, objective
        )
        tested = None if tested is None else some[tested]
        best = table[0] if table else {"kind": "prototypes", "strength": None, "scale": 10.0}
    else:
        best = {"kind": like.kind, "strength": like.strength, "scale": like.scale}
        table = like.table
    kind, strength, scale = best["kind"], best["strength"], best["scale"]
    if kind == "logistic":
        w, b = logistic(rows, y, classes, strength, HeadObjective(objective.class_weights))
        if not objective.plain():  # the polish: what was asked for, from the convex problem's solution
            w, b = logistic(rows, y, classes, strength, objective, (w, b))
    elif kind == "ridge":
        w, b = ridge_path(rows, y, classes, [strength], objective)[0]
    else:
        w, b = prototypes(rows, y, classes)
    if kind != "logistic" and not objective.plain():
        w, b = logistic(rows, y, classes, LOGISTIC[len(LOGISTIC) // 2], objective, (scale * w, scale * b))
        kind, strength, scale = "logistic", LOGISTIC[len(LOGISTIC) // 2], 1.0
    kernel, bias = rows.unfold(scale * w, scale * b)
    return Head(kind, strength, kernel, bias, scale, table, folded, tested)


def _some(y, seed):
    """MAX_CV_IMAGES positions, each class by its share and at least twice where it can be."""
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(y):
        own = rng.permutation(np.flatnonzero(y == label))
        chosen.append(own[: max(round(MAX_CV_IMAGES * len(own) / len(y)), min(2, len(own)))])
    return np.sort(np.concatenate(chosen))
