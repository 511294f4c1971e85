"""L-BFGS lowers every loss at every step, finds minima, and goes on from its state bit for bit; so does Adam."""

from itertools import pairwise

import numpy as np
import pytest

from kzoo.synthesis.optimise import LBFGS, ArrayAdam, ArrayMomentum, NormalisedSteps


def momentum(x):
    return ArrayMomentum(x, [1e-4] * 10 + [1e-5])


def normalised(x):
    return NormalisedSteps(x, 0.1, (-2, 2))


def rosenbrock(x):
    a, b = x[0::2].astype("float64"), x[1::2].astype("float64")
    loss = np.sum(100 * (b - a**2) ** 2 + (1 - a) ** 2)
    gradient = np.empty(x.shape, "float64")
    gradient[0::2], gradient[1::2] = -400 * a * (b - a**2) - 2 * (1 - a), 200 * (b - a**2)
    return float(loss), {"loss": float(loss)}, gradient.astype(x.dtype)


def quadratic(x):
    curvature = np.linspace(1, 1000, x.size)
    return float(np.sum(curvature * (x - 3.0) ** 2) / 2), {}, (curvature * (x - 3)).astype(x.dtype)


@pytest.mark.parametrize(("function", "steps"), [(rosenbrock, 120), (quadratic, 150)])
def test_lbfgs_finds_the_minimum_and_never_climbs(function, steps):
    optimiser = LBFGS(np.full(20, -1.2), first=0.1)
    losses = []
    for _ in range(steps):
        if not optimiser.step(function):
            break
        losses.append(optimiser.loss)
    assert all(b < a for a, b in pairwise(losses))
    np.testing.assert_allclose(optimiser.x, 1.0 if function is rosenbrock else 3.0, rtol=1e-3)
    assert len(optimiser.pairs) <= 10


def test_lbfgs_stops_where_nothing_is_left():
    optimiser = LBFGS(np.full(4, 3.0, "float32"))
    assert not optimiser.step(quadratic)
    lost = LBFGS(np.zeros(4, "float32"))
    assert not lost.step(lambda x: (float("nan"), {}, np.full(4, np.nan, "float32")))


def test_a_step_that_is_no_descent_is_not_taken():
    """A gradient that points the wrong way, as a rounded one may: x stays where it was."""

    def wrong(x):
        return (quadratic(x)[0], {}, -quadratic(x)[2])

    optimiser = LBFGS(np.ones(5, "float32"))
    assert not optimiser.step(wrong)
    np.testing.assert_array_equal(optimiser.x, 1)


@pytest.mark.parametrize("make", [LBFGS, ArrayAdam, momentum, normalised])
def test_goes_on_bit_for_bit(make):
    start = np.full(20, -1.2, "float32")
    whole = make(start.copy())
    for _ in range(30):
        whole.step(rosenbrock)
    half = make(start.copy())
    for _ in range(13):
        half.step(rosenbrock)
    resumed = make(None) if make is LBFGS else make(start)
    resumed.restore({k: v.copy() for k, v in half.state().items()})
    for _ in range(17):
        resumed.step(rosenbrock)
    np.testing.assert_array_equal(resumed.x, whole.x)
    assert resumed.loss == whole.loss and resumed.parts == whole.parts


def test_adam_is_the_papers():
    """Algorithm 1, in float64."""
    x, m, v = np.full(6, -1.0), np.zeros(6), np.zeros(6)
    optimiser = ArrayAdam(x.astype("float32"), rate=0.1)
    for t in range(1, 6):
        g = quadratic(x)[2]
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        x = x - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        optimiser.step(quadratic)
    np.testing.assert_allclose(optimiser.x, x, rtol=1e-5)


def test_momentum_is_forgotten_where_the_rate_changes():
    x, velocity = np.full(6, -1.0), np.zeros(6)
    optimiser = ArrayMomentum(x.astype("float32"), [1e-4, 1e-4, 1e-5])
    for rate, kept in ((1e-4, 0), (1e-4, 0.9), (1e-5, 0), (1e-5, 0.9)):
        velocity = kept * velocity - rate * quadratic(x)[2]
        x = x + velocity
        optimiser.step(quadratic)
    np.testing.assert_allclose(optimiser.x, x, rtol=1e-5)


def test_normalised_steps_are_equally_long_and_stay_within_limits():
    optimiser = NormalisedSteps(np.full(6, -1.0, "float32"), 0.5, (-2, 1))
    for expected in (0.5, 0.5):
        before = optimiser.x
        assert optimiser.step(quadratic)
        np.testing.assert_allclose(np.abs(optimiser.x - before).mean(), expected, rtol=1e-5)
    for _ in range(20):
        optimiser.step(quadratic)
    assert optimiser.x.max() == 1, "the minimum lies at 3"
    assert not NormalisedSteps(np.full(4, 3.0, "float32"), 0.5).step(quadratic)
