"""Logits whose calibration is known."""

import numpy as np
from scipy.special import softmax


def drawn(n, classes, temperature, seed=0):
    """Logits whose labels are drawn from softmax(logits / temperature), so that this temperature is the true one."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 3, (n, classes))
    p = softmax(z / temperature, -1)
    return z, (p.cumsum(1) > rng.random((n, 1))).argmax(1)
