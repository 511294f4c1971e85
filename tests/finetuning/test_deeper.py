"""Deeper layers: what trains, what is kept, what a kill costs."""

import csv
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from support import tags
from support.training import weights_of
from support.tuning import Killed, finetune_folder, same, tune

import kzoo
from kzoo import runs
from kzoo.finetuning import checkpoint, deeper, judging, pipeline, stage_training
from kzoo.finetuning.front import Front
from kzoo.finetuning.options import FinetuneOptions
from kzoo.finetuning.stage_training import StageKeeper, StagePlan
from kzoo.finetuning.stages import set_trainable, stages
from kzoo.tasks import find
from kzoo.tasks.classification import TASK


@pytest.fixture(scope="module")
def deep(world, tmp_path_factory):
    """An uninterrupted run that keeps two stages, and its options."""
    options = {"unfreeze": "8x8", "epochs": 2, "seed": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "MIN_Z", -100.0)
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
    monkeypatch.setattr(judging, "MIN_Z", 1e9)
    ones = {"ones": lambda y, z: keras.ops.ones_like(z[:, 0])}
    monkeypatch.setattr(TASK, "metrics", {**TASK.metrics, **ones}, raising=False)
    folder = tune(world, tmp_path / "r", unfreeze="4x4", epochs=1)
    rows = runs.read_csv(folder / "history.csv")
    assert [row["val_ones"] for row in rows] == ["", "1.0"] and rows[1]["val_accuracy"]
    assert "The head alone is best" in json.loads((folder / "metrics.json").read_text())["outcome"]
    a, b = weights_of(head_only), weights_of(folder)
    for path in a:
        np.testing.assert_array_equal(a[path], b[path])


@pytest.mark.deep("2026-11-27")
def test_several_labels_train_deeper_layers_and_are_judged_by_their_loss_and_map(world, tmp_path, monkeypatch):
    monkeypatch.setattr(judging, "MIN_Z", -100.0)
    table = tags.write(tmp_path / "data", 120, parts=True)
    folder = tune(world, tmp_path / "r", table, unfreeze="4x4", epochs=1, augment="none")
    report = json.loads((folder / "report.json").read_text())
    head, stage = report["phases"]
    assert stage["name"] == "4x4" and stage["audit"]["ok"] and any("conv4" in n for n in stage["trainable"])
    assert "mAP" in stage["text"] and 0 < stage["val_mean_average_precision"] <= 1
    first, second = runs.read_csv(folder / "history.csv")
    np.testing.assert_allclose(float(first["val_mean_average_precision"]), head["val_mean_average_precision"])
    assert second["val_f1"] and second["val_label_accuracy"] and not second["val_accuracy"]
    metrics = json.loads((folder / "metrics.json").read_text())
    if metrics["winner"] == "4x4":  # kept unless mAP fell
        assert metrics["val_mean_average_precision"] == stage["val_mean_average_precision"]
    result = kzoo.evaluate(folder, quiet=True)
    np.testing.assert_allclose(result.mean_average_precision, metrics["test_mean_average_precision"], rtol=1e-3)
    assert report["several"]["test"]["interval"] == pytest.approx(list(result.interval), abs=1e-3)


def test_a_stage_is_kept_if_the_loss_falls_clearly_and_the_score_does_not():
    before, several = np.linspace(1, 2, 20), find("multilabel")

    def judged(task, losses, score):
        return judging.compare(judging.Judged(before, 0.8), judging.Judged(losses, score), task)

    assert judged(several, before - 0.1, 0.8) == (
        True,
        "kept: log loss 1.5000 to 1.4000, mAP 80.00% to 80.00% on 20 validation images",
    )
    kept, why = judged(several, before - 0.1, 0.79)
    assert not kept and why.endswith("; the mAP falls")
    kept, why = judged(TASK, before - 0.1, 0.75)
    assert not kept and "accuracy 80.00% to 75.00%" in why and why.endswith("the accuracy falls")
    kept, why = judged(TASK, before[::-1] - 0.1, 0.8)
    assert not kept and "within two standard errors" in why
    labels = np.array([[1, 0], [0, 1]])
    losses, score = several.judge([(np.array([[0.0, -np.log(3)], [np.log(3), 0.0]]), labels)])
    np.testing.assert_allclose(losses, [(np.log(2) - np.log(0.75)) / 2, (-np.log(0.25) + np.log(2)) / 2])
    assert score == (0.5 + 1) / 2


def test_without_room_for_a_measurable_gain_nothing_is_trained():
    """A network without any loss would gain the losses themselves: mean 0.08 here, of 50."""
    few = np.array([2.0, 2.0] + [0.0] * 48)
    needed = 2 * np.sqrt(((2 - 0.08) ** 2 * 2 + 0.08**2 * 48) / 49) / np.sqrt(50)
    assert needed > 0.08 and f"({needed:.4f}) on 50 validation photos" in judging.no_room(few)
    assert not judging.no_room(np.array([0.5] * 25 + [0.0] * 25))
    assert "fewer than 10" in judging.no_room(np.ones(9))
    assert not judging.compare(judging.Judged(few, 0.96), judging.Judged(np.zeros(50), 1.0), TASK)[0]


@pytest.mark.deep("2026-11-27")
def test_a_stage_of_auto_ends_after_half_of_its_epochs_if_none_was_better(world, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "no_room", lambda losses: "")
    monkeypatch.setattr(deeper, "_loss_of", lambda *args: -10.0)  # nothing is better than that
    folder = tune(world, tmp_path / "r", epochs=3)
    assert [row["phase"] for row in runs.read_csv(folder / "history.csv")] == ["head", "4x4", "4x4"]
    outcome = json.loads((folder / "metrics.json").read_text())["outcome"]
    assert "not kept: in 2 epochs the validation loss did not fall below -10.0000" in outcome


def test_a_stage_gives_up_where_its_loss_will_not_get_below_the_bound():
    """Of six epochs, by hand: the validation losses so far, and whether to go on towards 1."""
    keeper = object.__new__(StageKeeper)
    keeper.epochs, keeper.bound = 6, 1.0
    for losses, ends in [
        ([1.5], False),
        ([1.5, 1.6], False),  # less than half
        ([1.5, 2.1], True),  # twice the bound
        ([2.4, 2.1], False),  # 0.3 an epoch, four are left
        ([2.3, 2.1], True),
        ([1.5, 1.4, 1.29], False),  # 0.11 an epoch, three are left
        ([1.5, 1.4, 1.35], True),
        ([1.1, 1.6, 1.3], True),  # not the lowest so far
        ([0.9, 1.6, 1.3], False),  # one was below
    ]:
        keeper.rows = [{"val_loss": loss} for loss in losses]
        assert keeper.gives_up() == ends, losses
    keeper.bound = None
    assert not keeper.gives_up()


def test_below_what_trains_the_network_is_split():
    """The frozen part in inference form, then what trains: together what the network computes."""
    network = kzoo.build("resnet20", depth=8, seed=0)
    set_trainable(network, stages(network)[:1])
    below, upper = stage_training.split(network)
    x = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    mirrored = keras.layers.RandomFlip("horizontal", seed=0)
    front = Front([mirrored], below, (32, 32, 3))
    assert front.shape == (16, 16, 32) and len(front.seeds) == 1
    whole = np.asarray(network(x, training=False))
    np.testing.assert_allclose(upper(front(x, False)), whole, atol=1e-4)
    turned = np.asarray(network(x[:, :, ::-1], training=False))
    found = [np.asarray(upper(front(x, True))) for _ in range(6)]
    each = [[np.abs(a - b).max(-1) < 1e-4 for b in (whole, turned)] for a in found]
    assert np.all(np.any(each, 1)) and np.any(each, (0, 2)).all(), "each image as it is or mirrored, and both occur"
    assert {v.path for v in upper.trainable_variables} == {v.path for v in network.trainable_variables}


def test_the_frozen_part_sees_validation_images_once():
    images = np.arange(5 * 2, dtype="uint8").reshape(5, 2, 1, 1)
    data = tf.data.Dataset.from_tensor_slices((images, np.arange(5))).batch(2)
    still = tf.data.Options()
    still.autotune.enabled = False
    data = data.with_options(still)
    front, seen = Front([], None, (2, 1, 1)), []
    front._below = lambda x: seen.append(len(x)) or 2 * x
    for training, passes in ((False, [2, 2, 1]), (True, [2, 2, 1] * 2)):
        seen.clear()
        served = front.serve(data, 5, training)
        assert len(served) == 3 and not served.options().autotune.enabled
        assert served.options().threading.private_threadpool_size, "or it waits for itself"
        for _ in range(2):
            pairs = list(served.as_numpy_iterator())
            np.testing.assert_array_equal(np.concatenate([x for x, _ in pairs]), 2.0 * images)
            np.testing.assert_array_equal(np.concatenate([y for _, y in pairs]), np.arange(5))
        assert seen == passes


def test_rate_and_batches_are_the_users(world, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(deeper, "train_phases", lambda setup, network, phases, *a, **k: seen.extend(phases) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tune(world, tmp_path / "r", unfreeze="4x4", learning_rate=0.5, batch_size=7)
    assert {(phase.plan.rate, phase.plan.batch) for phase in seen} == {(0.5, 7)}
    config = json.loads((tmp_path / "r" / "config.json").read_text())["finetune"]
    assert (config["learning_rate"], config["batch_size"], config["val_fraction"]) == (0.5, 7, None)


def test_a_budget_that_is_too_short_for_deeper_layers(world, head_only, tmp_path, monkeypatch):
    monkeypatch.setattr(deeper, "deadline", lambda clock: clock.began)  # over when the first stage begins
    folder = tune(world, tmp_path / "r", unfreeze="all", budget=3600.0)
    assert "budget left no time" in json.loads((folder / "metrics.json").read_text())["outcome"]


class Recorded:
    """Stands for the network, its optimizer, the checkpoint and the bar of a stage."""

    names, layers, variables, learning_rate = ("4x4",), (), (), 0.1

    def __init__(self):
        self.optimizer, self.saved = self, 0

    def start(self, *args, **numbers):
        pass

    advance = done = close = start

    def save_stage(self, **state):
        self.saved += 1


@pytest.mark.parametrize(("late_at", "finished"), [(0, 0), (1, 0), (2, 1), (4, 1), (9, 2)])
def test_an_epoch_that_the_deadline_cuts_short_counts_nowhere(late_at, finished):
    """Two epochs of 3 steps (38 photos by 16); the deadline passes in a step of them. Be it in the first epoch."""
    parts, plan = Recorded(), StagePlan(FinetuneOptions(), TASK, None, (), ("a", "b"), (4, 4, 3), None)
    more = {"number": 0, "epochs": 2, "store": parts, "bar": parts, "before": {}, "images": 38}
    keeper = StageKeeper(parts, parts, plan, interrupted=lambda: False, **more)
    assert keeper.restore(None) == 0
    keeper.set_model(parts)
    parts.stop_training = False
    for step in range(6):
        if step % 3 == 0:
            keeper.on_epoch_begin(step // 3)
        plan.deadline = 0.0 if step >= late_at else float("inf")
        if not parts.stop_training:
            keeper.on_train_batch_end(step % 3, {"loss": 1.0})
        if step % 3 == 2 or parts.stop_training:
            keeper.on_epoch_end(step // 3, {"loss": 1.0, "accuracy": 0.5, "val_loss": 1.0, "val_accuracy": 0.5})
            if parts.stop_training:
                break
    assert len(keeper.rows) == parts.saved == finished


@pytest.mark.deep("2026-11-27")
def test_a_stage_of_an_incomplete_epoch_only_is_left_out(world, head_only, tmp_path, monkeypatch):
    monkeypatch.setattr(stage_training, "_measured", lambda *args: (0.0, 0.0))
    monkeypatch.setattr(deeper, "deadline", lambda clock: clock.began + 3600)
    original = StageKeeper.on_train_batch_end

    def late(self, batch, logs=None):
        self.plan.deadline = 0.0
        original(self, batch, logs)

    monkeypatch.setattr(StageKeeper, "on_train_batch_end", late)
    folder = tune(world, tmp_path / "r", budget=3600.0, unfreeze="4x4", epochs=1)
    assert [row["phase"] for row in runs.read_csv(folder / "history.csv")] == ["head"]
    assert "budget left no time for 4x4" in json.loads((folder / "metrics.json").read_text())["outcome"]
    a, b = weights_of(head_only), weights_of(folder)
    for path in a:
        np.testing.assert_array_equal(a[path], b[path])


@pytest.mark.parametrize("method", ["save_stage", pytest.param("finish_stage", marks=pytest.mark.deep("2026-11-27"))])
def test_killed_while_deeper_layers_train_and_resumed(world, deep, tmp_path, monkeypatch, method):
    monkeypatch.setattr(judging, "MIN_Z", -100.0)
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
