"""The checkpoint of deeper layers: one file that holds a state, the same after reading."""

import numpy as np
import pytest

from kzoo.errors import RunError
from kzoo.finetuning.checkpoint import StageCheckpoint


def saved(folder):
    store = StageCheckpoint(folder, ["4x4", "8x8"], "a head")
    store.finish_stage({"kept": True, "rows": [1]}, {"conv/kernel": np.arange(3.0)})
    store.save_stage(
        number=1,
        now={"conv/kernel": np.ones(3)},
        best={"conv/kernel": np.zeros(3)},
        optimizer={"0": np.array(7)},
        rows=[{"epoch": 1}],
        epochs=5,
        before={"conv/bias": "ab"},
    )
    store.close()
    return store


def test_what_is_written_is_read(tmp_path):
    saved(tmp_path)
    again = StageCheckpoint(tmp_path, ["4x4", "8x8"], "a head")
    assert again.done == [{"kept": True, "rows": [1]}] and again.stage(0) is None
    np.testing.assert_array_equal(again.winner["conv/kernel"], np.arange(3.0))
    stage = again.stage(1)
    assert (stage["rows"], stage["epochs"], stage["before"]) == ([{"epoch": 1}], 5, {"conv/bias": "ab"})
    np.testing.assert_array_equal(stage["now"]["conv/kernel"], np.ones(3))
    np.testing.assert_array_equal(stage["best"]["conv/kernel"], np.zeros(3))
    np.testing.assert_array_equal(stage["optimizer"]["0"], 7)


def test_a_stage_that_is_not_better_keeps_the_best_so_far(tmp_path):
    saved(tmp_path).finish_stage({"kept": False}, None)
    again = StageCheckpoint(tmp_path, ["4x4", "8x8"], "a head")
    assert len(again.done) == 2 and again.stage(1) is None
    np.testing.assert_array_equal(again.winner["conv/kernel"], np.arange(3.0))


def test_another_head_and_a_corrupt_file_are_refused(tmp_path):
    store = saved(tmp_path)
    with pytest.raises(RunError, match="belongs to another network or head"):
        StageCheckpoint(tmp_path, ["4x4", "8x8"], "another head")
    store.path.write_bytes(store.path.read_bytes()[:-40])
    with pytest.raises(RunError, match="corrupt"):
        StageCheckpoint(tmp_path, ["4x4", "8x8"], "a head")
