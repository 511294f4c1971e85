"""L-BFGS and Adam on one array, with a state that can be saved: a resumed optimisation is the same, bit for bit.

An optimiser has `x`, `loss`, `parts`, `gradient`, and step(evaluate), where evaluate(x) gives (loss, parts, gradient).
step returns False when it can't go further.
"""

from __future__ import annotations

import json

import numpy as np


class LBFGS:
    """Limited-memory BFGS (Nocedal and Wright 2006, algorithm 7.4) whose every step lowers the loss.

    The line search halves and doubles until the weak Wolfe conditions hold (Lewis and Overton 2013, algorithm 2.6):
    enough descent, f(x + t d) <= f + c1 t f', and a slope that has flattened, f'(x + t d) >= c2 f'. The second keeps
    the curvature s^T y of each pair positive; both are usually met by t = 1, so a step costs one evaluation.

    memory: pairs kept. first: the root mean square of the first step, in grey levels. tries: evaluations of a search.
    """

    C1, C2 = 1e-4, 0.9

    def __init__(self, x, memory=10, first=1.0, tries=20):
        self.x, self.memory, self.first, self.tries = x, memory, first, tries
        self.loss = self.parts = self.gradient = None
        self.pairs = []

    def direction(self):
        """-H g by the two-loop recursion, H scaled by the last pair."""
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

    def step(self, evaluate):
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

    def forget(self):
        """Drop what was learnt about the loss, for a loss that changed; x stays."""
        self.loss, self.pairs = None, []

    def state(self):
        """Named arrays, all that a resumed optimiser needs."""
        if self.loss is None:
            return {"x": self.x}
        arrays = {"x": self.x, "gradient": self.gradient, "scalars": scalars(self)}
        for i, (s, y) in enumerate(self.pairs):
            arrays[f"s{i}"], arrays[f"y{i}"] = s, y
        return arrays

    def restore(self, arrays):
        self.x, self.gradient = arrays["x"], arrays.get("gradient")
        if self.gradient is not None:
            self.loss, self.parts = from_scalars(arrays["scalars"])
        self.pairs = [(arrays[f"s{i}"], arrays[f"y{i}"]) for i in range(sum(k.startswith("y") for k in arrays))]


class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1). rate: in grey levels."""

    BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8

    def __init__(self, x, rate=5.0):
        self.x, self.rate, self.steps = x, rate, 0
        self.mean, self.square = np.zeros_like(x), np.zeros_like(x)
        self.loss = self.parts = self.gradient = None

    def step(self, evaluate):
        self.loss, self.parts, g = evaluate(self.x)
        self.steps += 1
        self.mean = np.float32(self.BETA1) * self.mean + np.float32(1 - self.BETA1) * g
        self.square = np.float32(self.BETA2) * self.square + np.float32(1 - self.BETA2) * g * g
        mean = self.mean / np.float32(1 - self.BETA1**self.steps)
        square = self.square / np.float32(1 - self.BETA2**self.steps)
        self.x = self.x - np.float32(self.rate) * mean / (np.sqrt(square) + np.float32(self.EPSILON))
        return True

    def state(self):
        return {"x": self.x, "mean": self.mean, "square": self.square, "steps": np.array(self.steps)}

    def restore(self, arrays):
        self.x, self.mean, self.square = arrays["x"], arrays["mean"], arrays["square"]
        self.steps = int(arrays["steps"])


OPTIMISERS = {"lbfgs": LBFGS, "adam": Adam}


def dot(a, b):
    return float(np.dot(a.ravel(), b.ravel()))


def scalars(optimiser):
    """Loss and parts as an array of bytes: JSON holds every digit of a float."""
    return np.frombuffer(json.dumps([optimiser.loss, optimiser.parts]).encode(), "uint8")


def from_scalars(array):
    return json.loads(array.tobytes())
