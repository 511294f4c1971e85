"""L-BFGS, Adam, momentum and normalised steps on one array, with a state that can be saved.

A resumed optimisation is the same, bit for bit.

An optimiser has `x`, `loss`, `parts`, `gradient`, and step(evaluate), where evaluate(x) gives (loss, parts, gradient).
step returns False when it can't lower the loss any further.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np

Evaluate = Callable[[np.ndarray], tuple[float, dict[str, float], np.ndarray]]


class LBFGS:
    """Limited-memory BFGS; each step lowers the loss.

    The line search halves and doubles the step length t until the weak Wolfe conditions hold: sufficient decrease,
    f(x + t d) <= f + c1 t f', and curvature, f'(x + t d) >= c2 f'. The second keeps the curvature s^T y of each pair
    positive; both are usually met by t = 1, so a step costs one evaluation.

    Args:
        x: where to start, a float array; None before `restore`.
        memory: how many pairs (s, y) are kept.
        first: the root mean square of the first step, in grey levels.
        tries: the most evaluations of one line search.

    Reference:
        Nocedal and Wright 2006, algorithm 7.4; the line search: Lewis and Overton 2013, algorithm 2.6.
    """

    C1, C2 = 1e-4, 0.9

    def __init__(self, x: np.ndarray | None, memory: int = 10, first: float = 1.0, tries: int = 20):
        self.x, self.memory, self.first, self.tries = x, memory, first, tries
        self.loss = self.parts = self.gradient = None
        self.pairs = []

    def direction(self) -> np.ndarray:
        """The search direction -H g by the two-loop recursion, with H scaled by the last pair."""
        q, factors = self.gradient.copy(), []
        for s, y in reversed(self.pairs):
            rho = 1 / dot(s, y)
            a = rho * dot(s, q)
            q -= np.float32(a) * y
            factors.append((rho, a))
        if self.pairs:
            s, y = self.pairs[-1]
            q *= np.float32(dot(s, y) / dot(y, y))
        else:
            q *= np.float32(self.first * np.sqrt(q.size / dot(q, q)))
        for (s, y), (rho, a) in zip(self.pairs, reversed(factors), strict=True):
            q += np.float32(a - rho * dot(y, q)) * s
        return -q

    def step(self, evaluate: Evaluate) -> bool:
        """Make one step.

        Args:
            evaluate: x to (loss, parts, gradient).

        Returns:
            False if no step that lowers the loss was found; x is then as it was.
        """
        if self.loss is None:
            self.loss, self.parts, self.gradient = evaluate(self.x)
        if not dot(self.gradient, self.gradient) > 0:  # nothing left to do, or NaN
            return False
        d = self.direction()
        slope = dot(self.gradient, d)
        if not slope < 0:
            return False
        low, high, t, best = 0.0, np.inf, 1.0, None
        for _ in range(self.tries):
            x = self.x + np.float32(t) * d
            loss, parts, gradient = evaluate(x)
            if not loss <= self.loss + self.C1 * t * slope:
                high = t
            else:
                if best is None or loss < best[0]:
                    best = loss, parts, gradient, x
                if dot(gradient, d) >= self.C2 * slope:
                    break
                low = t
            t = 2 * t if high == np.inf else (low + high) / 2
        if best is None or not best[0] < self.loss:
            return False
        loss, parts, gradient, x = best
        s, y = x - self.x, gradient - self.gradient
        if dot(s, y) > 1e-10 * np.sqrt(dot(s, s) * dot(y, y)):
            self.pairs = [*self.pairs[-(self.memory - 1) :], (s, y)]
        self.x, self.loss, self.parts, self.gradient = x, loss, parts, gradient
        return True

    def forget(self) -> None:
        """Drop the loss and the pairs, for a loss that has changed; x stays."""
        self.loss, self.pairs = None, []

    def state(self) -> dict[str, np.ndarray]:
        """All that `restore` needs to continue, as named arrays."""
        if self.loss is None:
            return {"x": self.x}
        arrays = {"x": self.x, "gradient": self.gradient, "scalars": scalars(self)}
        for i, (s, y) in enumerate(self.pairs):
            arrays[f"s{i}"], arrays[f"y{i}"] = s, y
        return arrays

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Continue from what `state` gave."""
        self.x, self.gradient = arrays["x"], arrays.get("gradient")
        if self.gradient is not None:
            self.loss, self.parts = from_scalars(arrays["scalars"])
        self.pairs = [(arrays[f"s{i}"], arrays[f"y{i}"]) for i in range(sum(k.startswith("y") for k in arrays))]


class ArrayAdam:
    """Adam on one array.

    Args:
        x: where to start, a float array.
        rate: the learning rate, in grey levels.

    Reference:
        Kingma and Ba 2015 (arXiv:1412.6980), algorithm 1.
    """

    BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8

    def __init__(self, x: np.ndarray, rate: float = 5.0):
        self.x, self.rate, self.steps = x, rate, 0
        self.mean, self.square = np.zeros_like(x), np.zeros_like(x)
        self.loss = self.parts = self.gradient = None

    def step(self, evaluate: Evaluate) -> bool:
        """Make one step; True. `loss` is that of the picture before the step."""
        self.loss, self.parts, g = evaluate(self.x)
        self.steps += 1
        self.mean = np.float32(self.BETA1) * self.mean + np.float32(1 - self.BETA1) * g
        self.square = np.float32(self.BETA2) * self.square + np.float32(1 - self.BETA2) * g * g
        mean = self.mean / np.float32(1 - self.BETA1**self.steps)
        square = self.square / np.float32(1 - self.BETA2**self.steps)
        self.x = self.x - np.float32(self.rate) * mean / (np.sqrt(square) + np.float32(self.EPSILON))
        return True

    def state(self) -> dict[str, np.ndarray]:
        """All that `restore` needs to continue, as named arrays."""
        return {"x": self.x, "mean": self.mean, "square": self.square, "steps": np.array(self.steps)}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Continue from what `state` gave."""
        self.x, self.mean, self.square = arrays["x"], arrays["mean"], arrays["square"]
        self.steps = int(arrays["steps"])


class ArrayMomentum:
    """Gradient descent with momentum and a rate for each step.

    Args:
        x: where to start, a float array.
        rates: a learning rate for each step; the last one goes on.
        momentum: how much of the last step is kept. It is forgotten where the rate changes.

    Reference:
        Mahendran and Vedaldi 2015 (arXiv:1412.0035), section 3.3; their code forgets the momentum.
    """

    def __init__(self, x: np.ndarray, rates: Sequence[float], momentum: float = 0.9):
        self.x, self.rates, self.momentum, self.steps = x, rates, momentum, 0
        self.velocity = np.zeros_like(x)
        self.loss = self.parts = self.gradient = None

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        return self.rates[min(step, len(self.rates) - 1)]

    def step(self, evaluate: Evaluate) -> bool:
        """Make one step; True. `loss` is that of the picture before the step."""
        self.loss, self.parts, g = evaluate(self.x)
        rate, before = self.rate(self.steps), self.rate(max(0, self.steps - 1))
        kept = np.float32(self.momentum if rate == before else 0)
        self.velocity = kept * self.velocity - np.float32(rate) * g
        self.x, self.steps = self.x + self.velocity, self.steps + 1
        return True

    def state(self) -> dict[str, np.ndarray]:
        """All that `restore` needs to continue, as named arrays."""
        return {"x": self.x, "velocity": self.velocity, "steps": np.array(self.steps)}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Continue from what `state` gave."""
        self.x, self.velocity, self.steps = arrays["x"], arrays["velocity"], int(arrays["steps"])


class NormalisedSteps:
    """Steps against the gradient, each as long as the others: rate times the gradient over its mean absolute value.

    Args:
        x: where to start, a float array.
        rate: the mean change of a step, in grey levels.
        limits: the least and the largest value of x; None: any.

    Reference:
        Mordvintsev, Olah and Tyka 2015 (DeepDream), as their notebook steps.
    """

    def __init__(self, x: np.ndarray, rate: float, limits: tuple[float, float] | None = None):
        self.x, self.rate, self.limits = x, rate, limits
        self.loss = self.parts = self.gradient = None

    def step(self, evaluate: Evaluate) -> bool:
        """Make one step; False where the gradient is 0. `loss` is that of the picture before the step."""
        self.loss, self.parts, g = evaluate(self.x)
        mean = float(np.abs(g, dtype="float64").mean())
        if not mean > 0:
            return False
        self.x = self.x - np.float32(self.rate / mean) * g
        if self.limits is not None:
            self.x = np.clip(self.x, *self.limits)
        return True

    def state(self) -> dict[str, np.ndarray]:
        """All that `restore` needs to continue, as named arrays."""
        return {"x": self.x}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Continue from what `state` gave."""
        self.x = arrays["x"]


OPTIMISERS = {"lbfgs": LBFGS, "adam": ArrayAdam}


def dot(a: np.ndarray, b: np.ndarray) -> float:
    """The scalar product of two arrays of one shape."""
    return float(np.dot(a.ravel(), b.ravel()))


def scalars(optimiser: LBFGS) -> np.ndarray:
    """Loss and parts as an array of bytes of JSON, which holds every digit of a float."""
    return np.frombuffer(json.dumps([optimiser.loss, optimiser.parts]).encode(), "uint8")


def from_scalars(array: np.ndarray) -> list:
    """[loss, parts] of what `scalars` gave."""
    return json.loads(array.tobytes())
