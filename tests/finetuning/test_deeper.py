"""Deeper layers: what trains, what is kept, what a kill costs."""

import csv
import json

import keras
import numpy as np
import pytest
from support.training import weights_of
from support.tuning import Killed, finetune_folder, same, tune

import kzoo
from kzoo import runs
from kzoo.finetuning import checkpoint, deeper
from kzoo.tasks.classification import TASK


@pytest.fixture(scope="module")
def deep(world, tmp_path_factory):
    """An uninterrupted run that keeps two stages, and its options."""
    options = {"unfreeze": "8x8", "epochs": 2, "seed": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deeper, "MIN_Z", -100.0)
        return tune(world, tmp_path_factory.mktemp("runs") / "deep", **options), options


def test_deeper_layers_train_and_the_audit_holds(world, deep):
    folder = deep[0]
    report = json.loads((folder / "report.json").read_text())
    assert [p["name"] for p in report["phases"]] == ["head", "4x4", "8x8"]
    assert all(p["audit"]["ok"] and p["audit"]["frozen_checked"] for p in report["phases"])
    assert all("conv4" in n or n == "predictions" for n in report["phases"][1]["trainable"])
    before = dict(np.load(world / "weights.npz"))
    after = weights_of(folder)
    for path, value in before.items():
        moved = not np.array_equal(value, after[path])
        statistics = path.split("/")[-1] in ("moving_mean", "moving_variance", "gamma", "beta")
        assert not (statistics and moved), path
    assert any(not np.array_equal(before[p], after[p]) for p in before)
    with open(folder / "history.csv") as f:
        assert [r["phase"] for r in csv.DictReader(f)] == ["head", "4x4", "4x4", "8x8", "8x8"]
    metrics = json.loads((folder / "metrics.json").read_text())
    np.testing.assert_allclose(kzoo.evaluate(folder, quiet=True).top1, metrics["test_accuracy"])


def test_what_does_not_help_is_not_kept_and_another_metric_is_recorded(world, head_only, tmp_path, monkeypatch):
    monkeypatch.setattr(deeper, "MIN_Z", 1e9)
    ones = {"ones": lambda y, z: keras.ops.ones_like(z[:, 0])}
    monkeypatch.setattr(TASK, "metrics", {**TASK.metrics, **ones}, raising=False)
    folder = tune(world, tmp_path / "r", epochs=1)
    rows = runs.read_csv(folder / "history.csv")
    assert [row["val_ones"] for row in rows] == ["", "1.0"] and rows[1]["val_accuracy"]
    assert "The head alone is best" in json.loads((folder / "metrics.json").read_text())["outcome"]
    a, b = weights_of(head_only), weights_of(folder)
    for path in a:
        np.testing.assert_array_equal(a[path], b[path])


def test_a_budget_that_is_too_short_for_deeper_layers(world, head_only, tmp_path, monkeypatch):
    monkeypatch.setattr(deeper, "_deadline", lambda clock: clock.began)  # over when the first stage begins
    folder = tune(world, tmp_path / "r", budget=3600.0)
    assert "budget left no time" in json.loads((folder / "metrics.json").read_text())["outcome"]


@pytest.mark.parametrize("method", ["save_stage", pytest.param("finish_stage", marks=pytest.mark.deep("2026-11-26"))])
def test_killed_while_deeper_layers_train_and_resumed(world, deep, tmp_path, monkeypatch, method):
    monkeypatch.setattr(deeper, "MIN_Z", -100.0)
    whole, options = deep
    original = getattr(checkpoint.StageCheckpoint, method)

    def kill(*args, **kwargs):
        original(*args, **kwargs)  # the file is written, then the power goes
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.StageCheckpoint, method, kill)
        with pytest.raises(Killed):
            tune(world, tmp_path / "r", **options)
    same(whole, finetune_folder(out=tmp_path / "r", resume=True, quiet=True))
