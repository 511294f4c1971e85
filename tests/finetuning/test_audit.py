"""The freeze audit: what must not move, to the bit."""

import numpy as np
import pytest
from support.tuning import SHAPE, tune

import kzoo
from kzoo import runs
from kzoo.errors import RunError
from kzoo.finetuning import audit, backbone, stage_training, template


@pytest.mark.parametrize("victim", ["conv1_conv/kernel", "moving_mean"])
def test_a_moved_frozen_variable_stops_the_run(world, tmp_path, monkeypatch, victim):
    class Sabotaged(stage_training.StageKeeper):
        def take_best(self):
            super().take_best()
            v = next(v for v in self.network.weights if v.path.endswith(victim) or victim in v.path)
            v.assign(np.nextafter(np.asarray(v), np.inf))  # the smallest step there is

    monkeypatch.setattr(stage_training, "StageKeeper", Sabotaged)
    with pytest.raises(RunError, match=r"freeze audit after the phase '4x4' failed: 1 of \d+ frozen variables changed"):
        tune(world, tmp_path / "r", unfreeze="all", epochs=1)


def test_the_audit_of_the_written_head(world, tmp_path, monkeypatch):
    from kzoo.finetuning import pipeline as module

    def wrong(path, kernel, bias, out):
        template.fill(path, kernel, bias, out)
        other = backbone.with_head(kzoo.build("resnet20", num_classes=None, input_shape=SHAPE, seed=5), ("blue", "red"))
        runs.save_model(other, out)

    monkeypatch.setattr(module, "fill", wrong)
    with pytest.raises(RunError, match="freeze audit after the phase 'head' failed"):
        tune(world, tmp_path / "r", unfreeze="none")
    assert not audit.compare({"a": "1", "b": "2"}, {"a": "1", "b": "2"}, {"b"})["ok"], "nothing moved"
