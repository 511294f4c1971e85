"""The loop around an optimiser: evaluations, time, Ctrl-C, and a state that goes on bit for bit."""

from types import SimpleNamespace

import numpy as np
import pytest

from kzoo.errors import KzooError
from kzoo.interrupt import Interrupted
from kzoo.synthesis import descent
from kzoo.synthesis.descent import Descent, Saved, descend
from kzoo.synthesis.optimise import LBFGS, ArrayAdam


def bowl(x):
    return float(((x - 3) ** 2 * np.arange(1, 7)).sum()), {"bowl": 1.0}, 2 * (x - 3) * np.arange(1, 7, dtype=x.dtype)


def start():
    return np.full(6, -1.0, "float32")


def test_evaluations_are_counted_and_limited():
    steps = Descent(ArrayAdam(start()), bowl, evaluations=5)
    curve = []
    assert descend(steps, curve) and steps.used == len(curve) == 5
    assert set(curve[0]) == {"loss", "bowl"} and curve[0]["loss"] == bowl(start())[0]
    ended = Descent(LBFGS(start()), bowl, evaluations=200)
    assert descend(ended, []) and ended.used < 200 and ended.optimiser.loss < 1e-6, "nothing is left to lower"


def test_time_is_limited(monkeypatch):
    """On a clock that only evaluations move, a second each."""
    now = [10.0]
    monkeypatch.setattr(descent, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def slow(x):
        now[0] += 1
        return bowl(x)

    steps = Descent(ArrayAdam(start()), slow, until=15.5)
    assert not descend(steps, []) and steps.used == 5 and now[0] == 15, "one more would end at 16"
    late = Descent(ArrayAdam(start()), slow, until=1.0)
    assert not descend(late, []) and late.used == 0


def test_a_loss_that_is_not_finite_is_refused():
    with pytest.raises(KzooError, match="became nan"):
        descend(Descent(ArrayAdam(start()), lambda x: (np.nan, {}, x)), [])


@pytest.mark.parametrize("make", [ArrayAdam, LBFGS])
def test_an_interrupted_descent_goes_on_bit_for_bit(tmp_path, make):
    whole = Descent(make(start()), bowl, evaluations=9)
    curve = []
    descend(whole, curve)
    asked, path, rows = [], tmp_path / "a.state", []

    def interrupted():
        asked.append(1)
        return len(asked) > 3

    with pytest.raises(Interrupted, match=r"a\.state continues"):
        stopped = Descent(make(start()), bowl, evaluations=9, interrupted=interrupted)
        descend(stopped, rows, saved=Saved(path, {"seed": 1}), more=lambda: {"note": 7})
    with pytest.raises(KzooError, match="another picture: seed"):
        Saved(path, {"seed": 2}).load()
    arrays, more = Saved(path, {"seed": 1}).load()
    assert more["note"] == 7 and more["curve"] == rows == curve[: len(rows)]
    resumed = Descent(make(start()), bowl, evaluations=9, used=more["used"])
    resumed.optimiser.restore(arrays)
    descend(resumed, rows)
    np.testing.assert_array_equal(resumed.optimiser.x, whole.optimiser.x)
    assert rows == curve and resumed.used == whole.used
    Saved(path, {}).remove()
    assert Saved(path, {}).load() is None and Saved(None, {}).load() is None
