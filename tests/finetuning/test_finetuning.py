"""Fine-tuning: from photos to an honest run; what is frozen stays; what fails is said; kills cost little."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import kzoo
from kzoo import runs
from kzoo.errors import DataError, RunError, UnknownName
from kzoo.finetuning import audit, backbone, deeper, stages
from kzoo.finetuning.finetuning import finetune_folder
from kzoo.finetuning.heads import Objective

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (16, 16, 3)


def draw(folder, counts, seed=0, noise=60):
    """Photos of class red and blue: noise with a tint; counts by part and class."""
    rng = np.random.default_rng(seed)
    for (part, name), n in counts.items():
        where = folder / part / name
        where.mkdir(parents=True, exist_ok=True)
        for i in range(n):
            x = rng.normal(110, noise, (20, 20, 3))
            x[..., 0 if name == "red" else 2] += 50
            Image.fromarray(np.clip(x, 0, 255).astype("uint8")).save(where / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Photos, weights of a small residual network, and a cache of its own."""
    folder = tmp_path_factory.mktemp("world")
    draw(folder / "photos", {(p, c): n for p, n in (("train", 24), ("val", 8)) for c in ("red", "blue")})
    model = kzoo.build("resnet20", num_classes=None, input_shape=SHAPE, seed=1)
    np.savez(folder / "weights.npz", **{v.path: np.asarray(v) for v in model.weights})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KZOO_FEATURES", str(folder / "features"))
        yield folder


def tune(world, out, photos=None, **options):
    options = {"weights": world / "weights.npz", "input_shape": SHAPE, "precision": "float32", "quiet": True, **options}
    return finetune_folder(photos or world / "photos", "resnet20", out=out, **options)


def weights_of(folder):
    return {v.path: np.asarray(v) for v in kzoo.load_run(folder).model.weights}


@pytest.fixture(scope="module")
def head_only(world, tmp_path_factory):
    return tune(world, tmp_path_factory.mktemp("runs") / "head", unfreeze="none")


def test_a_run_is_complete_and_serves(world, head_only, kzoo_command):
    names = {p.name for p in head_only.iterdir()}
    assert {
        "config.json",
        "labels.txt",
        "splits.csv",
        "history.csv",
        "metrics.json",
        "model.keras",
        "passport.json",
        "report.html",
        "report.json",
    } <= names
    metrics = json.loads((head_only / "metrics.json").read_text())
    result = kzoo.evaluate(head_only, quiet=True)
    assert result.images == 16 and result.split == "val"
    np.testing.assert_allclose(result.top1, metrics["test_accuracy"])
    np.testing.assert_allclose(result.loss, metrics["test_loss"], rtol=1e-3)
    parts = [row["split"] for row in runs.read_csv(head_only / "splits.csv")]
    assert {p: parts.count(p) for p in set(parts)} == {"train": 38, "choose": 10, "val": 16}
    assert kzoo.evaluate(head_only, split="train", quiet=True).images == 38
    code, out, _ = kzoo_command("predict", head_only, world / "photos/val/red/0.png", "--json")
    assert code == 0 and len(json.loads(out)[0]["top"]) == 2
    assert json.loads((head_only / "report.json").read_text())["phases"][0]["audit"]["ok"]


def test_the_model_is_the_frozen_network_with_the_head_on_its_features(world, head_only):
    network = kzoo.build("resnet20", num_classes=None, input_shape=SHAPE, weights=world / "weights.npz")
    found = weights_of(head_only)
    for v in network.weights:
        np.testing.assert_array_equal(found.pop(v.path), v)
    assert set(found) == {"predictions/kernel", "predictions/bias"}
    x = np.random.default_rng(0).integers(0, 256, (4, *SHAPE)).astype("float32")
    expected = np.asarray(network(x, training=False)) @ found["predictions/kernel"] + found["predictions/bias"]
    np.testing.assert_allclose(kzoo.load_run(head_only).model(x, training=False), expected, atol=1e-3)


def test_a_second_run_needs_no_network_and_gives_the_same(world, head_only, tmp_path, monkeypatch):
    monkeypatch.setattr(backbone, "feature_network", lambda _: pytest.fail("the network was built again"))
    again = tune(world, tmp_path / "r", unfreeze="none")
    assert json.loads((again / "metrics.json").read_text())["features_computed"] == 0
    a, b = weights_of(head_only), weights_of(again)
    for path in a:
        np.testing.assert_array_equal(a[path], b[path])


def test_the_measuring_part_chooses_nothing(world, head_only, tmp_path):
    other = tmp_path / "photos"
    shutil.copytree(world / "photos/train", other / "train")
    draw(other, {("val", "red"): 5, ("val", "blue"): 3}, seed=9)
    a, b = weights_of(head_only), weights_of(tune(world, tmp_path / "r", other, unfreeze="none"))
    for path in a:
        np.testing.assert_array_equal(a[path], b[path])


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


def test_what_does_not_help_is_not_kept(world, head_only, tmp_path, monkeypatch):
    monkeypatch.setattr(deeper, "SURE", 1e9)
    folder = tune(world, tmp_path / "r", epochs=1)
    assert "The head alone is best" in json.loads((folder / "metrics.json").read_text())["outcome"]
    a, b = weights_of(head_only), weights_of(folder)
    for path in a:
        np.testing.assert_array_equal(a[path], b[path])


@pytest.mark.parametrize("victim", ["conv1_conv/kernel", "moving_mean"])
def test_a_moved_frozen_variable_stops_the_run(world, tmp_path, monkeypatch, victim):
    class Sabotaged(stages.StageKeeper):
        def take_best(self):
            super().take_best()
            v = next(v for v in self.network.weights if v.path.endswith(victim) or victim in v.path)
            v.assign(np.nextafter(np.asarray(v), np.inf))  # the smallest step there is

    monkeypatch.setattr(stages, "StageKeeper", Sabotaged)
    with pytest.raises(RunError, match=r"freeze audit after the phase '4x4' failed: 1 of \d+ frozen variables changed"):
        tune(world, tmp_path / "r", epochs=1)


def test_the_audit_of_the_written_head(world, tmp_path, monkeypatch):
    from kzoo.finetuning import finetuning as module

    def wrong(path, kernel, bias, out):
        backbone.fill(path, kernel, bias, out)
        other = backbone.with_head(kzoo.build("resnet20", num_classes=None, input_shape=SHAPE, seed=5), 2)
        runs.save_model(other, out)

    monkeypatch.setattr(module, "fill", wrong)
    with pytest.raises(RunError, match="freeze audit after the phase 'head' failed"):
        tune(world, tmp_path / "r", unfreeze="none")
    assert not audit.compare({"a": "1", "b": "2"}, {"a": "1", "b": "2"}, {"b"})["ok"], "nothing moved"


def test_rates_and_decay_fall_together():
    """By hand: the first step of AdamW is w - r d w - r sign(g), r = rate * factor."""
    w0, rate, decay = 2.0, 0.1, 0.5
    variables = [keras.Variable([w0], name="kernel") for _ in range(2)] + [keras.Variable([w0], name="bias")]
    factors = {variables[1].path: 0.01}
    layers = [keras.layers.Dense(1, name=n) for n in ("top", "low")]
    for layer in layers:
        layer.build((None, 1))
        layer.kernel.assign([[w0]])
        layer.bias.assign([w0])
    trainable = [v for layer in layers for v in layer.trainable_variables]
    factors = {"low/kernel": 0.01, "low/bias": 0.01}
    optimizer = stages.StageAdamW(rate, decay, factors, epsilon=1e-12)
    optimizer.build(trainable)
    optimizer.apply([keras.ops.ones_like(v) for v in trainable])
    for v in trainable:
        r = rate * factors.get(v.path, 1.0)
        expected = w0 - (r * decay * w0 if v.path.endswith("kernel") else 0) - r
        np.testing.assert_allclose(np.asarray(v).item(), expected, rtol=1e-6, err_msg=v.path)


@pytest.mark.parametrize("objective", [Objective(), Objective((1.0, 3.0), 0.1, 2.0)])
def test_keras_loss_is_the_heads(objective):
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(6, 2)).astype("float32"), np.array([0, 1, 1, 0, 1, 0])
    total, _ = objective(z.astype("float64"), y, objective.weights(y))
    ours = stages.loss_of(objective)(np.eye(2, dtype="float32")[y], z)
    np.testing.assert_allclose(np.asarray(ours).sum(), total, rtol=1e-5)


def test_stages_of_the_families():
    def first(name, n):
        return [s.name for s in stages.stages(kzoo.build(name, num_classes=3))][:n]

    assert first("mobilenet_v2", 2) == ["7x7", "14x14"]
    assert first("squeezenet1_1", 2) == ["14x14", "28x28"] or first("squeezenet1_1", 1) == ["13x13"]
    model = kzoo.build("resnet20", num_classes=3)
    top = stages.chosen(model, "conv4")
    assert len(top) == 1 and all(name.startswith("conv4") for name in top[0].layers)
    with pytest.raises(UnknownName, match=r"Unknown stage 'conv9'.*8x8: "):
        stages.chosen(model, "conv9")


def test_mixtures():
    import tensorflow as tf

    from kzoo.data.mix import mixed

    x = np.stack([np.full((8, 8, 3), v, "uint8") for v in (0, 80, 160, 240)])
    data = tf.data.Dataset.from_tensors((x, np.eye(4, dtype="float32"))).repeat(6)
    for kind in ("mixup", "cutmix"):
        for a, b in zip(mixed(data, kind, 3), mixed(data, kind, 3), strict=True):
            pixels, labels = (t.numpy() for t in a)
            np.testing.assert_array_equal(pixels, b[0])
            np.testing.assert_allclose(labels.sum(1), 1, atol=1e-6)
            np.testing.assert_allclose(pixels.mean((1, 2, 3)), labels @ [0, 80, 160, 240], atol=1e-3)
            later = next(iter(mixed(data, kind, 3, epoch=1)))
            assert not np.array_equal(later[1], next(iter(mixed(data, kind, 3)))[1])
            if kind == "cutmix":
                assert set(np.unique(pixels)) <= {0, 80, 160, 240}


# --- data that is not as it should be ---


def test_a_tenth_of_the_photos_unreadable(world, tmp_path):
    photos = tmp_path / "photos"
    draw(photos, {("", "red"): 20, ("", "blue"): 20})
    for i, data in ((0, b""), (1, b"text"), (2, None), (3, None)):
        path = photos / "red" / f"{i}.png"
        path.write_bytes(path.read_bytes()[:-60] if data is None else data)
    folder = tune(world, tmp_path / "r", photos, unfreeze="none")
    skipped = {row["id"] for row in runs.read_csv(folder / "skipped.csv")}
    assert skipped == {f"red/{i}.png" for i in range(4)}
    assert json.loads((folder / "report.json").read_text())["phases"]
    with pytest.raises(DataError, match="strict"):
        tune(world, tmp_path / "s", photos, strict=True)


def test_a_class_with_one_photo(world, tmp_path):
    photos = draw(
        tmp_path / "photos", {("train", "red"): 1, ("train", "blue"): 12, ("val", "red"): 4, ("val", "blue"): 4}
    )
    folder = tune(world, tmp_path / "r", photos)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert "too few photos" in metrics["outcome"] and np.isfinite(metrics["test_loss"])
    with pytest.raises(RunError, match="needs photos to choose by"):
        tune(world, tmp_path / "s", photos, unfreeze="all")


def test_shots_use_so_many_photos_and_no_others(world, tmp_path):
    folder = tune(world, tmp_path / "r", shots=3, seed=4)
    rows = runs.read_csv(folder / "splits.csv")
    assert [r["label"] for r in rows if r["split"] == "train"].count("red") == 3
    assert sum(r["split"] == "train" for r in rows) == 6 and sum(r["split"] == "val" for r in rows) == 16
    with pytest.raises(kzoo.KzooError, match="too few photos to choose"):
        tune(world, tmp_path / "s", shots=3, unfreeze="all")


def test_duplicates_stay_together_and_the_test_part_is_drawn(world, tmp_path):
    photos = draw(tmp_path / "photos", {("", "red"): 20, ("", "blue"): 20})
    for i in range(10):
        shutil.copy(photos / "red" / f"{i}.png", photos / "red" / f"copy{i}.png")
    folder = tune(world, tmp_path / "r", photos, unfreeze="none")
    part = {row["id"]: row["split"] for row in runs.read_csv(folder / "splits.csv")}
    assert set(part.values()) == {"train", "choose", "test"}
    for i in range(10):
        assert part[f"red/{i}.png"] == part[f"red/copy{i}.png"]
    metrics = json.loads((folder / "metrics.json").read_text())
    np.testing.assert_allclose(kzoo.evaluate(folder, quiet=True).top1, metrics["test_accuracy"])


def test_wrong_options_are_named(world, tmp_path, kzoo_command):
    with pytest.raises(UnknownName, match="Did you mean 'light'"):
        tune(world, tmp_path / "r", augment="ligt")
    with pytest.raises(DataError, match="class_weights names 'green'"):
        tune(world, tmp_path / "r", class_weights={"green": 2.0})
    code, _, err = kzoo_command("finetune", world / "photos", "--model", "resnet5")
    assert code == 1 and "Unknown model 'resnet5'" in err
    code, _, err = kzoo_command("finetune", world / "photos", "--model", "allcnn_c")
    assert code == 1 and "No pretrained weights are at hand for allcnn_c" in err


def test_an_export_has_the_parts_of_the_run_and_the_licence_of_its_weights(head_only):
    """What only measured is the test part, whatever its owner called it; what chose and then trained is neither."""
    from kzoo.exporting.source import find

    source = find(head_only)
    parts = {
        name: {row["id"] for row in runs.read_csv(head_only / "splits.csv") if row["split"] == name}
        for name in ("train", "choose", "val", "test")
    }
    assert parts["choose"] and set(map(str, source.splits["seen"].ids)) == parts["choose"]
    assert "val" not in source.splits
    assert set(map(str, source.splits["test"].ids)) == parts["test"] | parts["val"]
    assert not parts["train"] & (parts["choose"] | parts["test"] | parts["val"])
    assert source.facts["weights_sha256"] and source.facts["finetune"]["unfreeze"] == "none"


def test_nothing_is_calibrated_on_photos_that_the_head_was_fitted_on(head_only, world, tmp_path, kzoo_command):
    code, _, err = kzoo_command("export", head_only, "--out", tmp_path / "x", "--abstain", "0.8")
    assert code == 1 and "not trained on" in err and "val/ and test/" in err and not (tmp_path / "x").exists()
    draw(tmp_path / "photos", {(p, c): n for p, n in (("train", 24), ("val", 6), ("test", 4)) for c in ("red", "blue")})
    run = tune(world, tmp_path / "r", tmp_path / "photos", unfreeze="none")
    from kzoo.exporting.source import find

    assert {k: len(s) for k, s in find(run).splits.items()} == {"val": 12, "test": 8}, "no training on one's own val"


def test_evaluate_knows_the_photos_by_another_path_and_says_what_was_trained_on(world, tmp_path, capsys):
    photos = draw(tmp_path / "photos", {("red", "."): 20, ("blue", "."): 20})
    folder = tune(world, tmp_path / "r", photos, unfreeze="none")
    own = kzoo.evaluate(folder, quiet=True)
    other = kzoo.evaluate(folder, f"{photos}/.", quiet=True)
    assert (own.split, own.images, own.top1) == (other.split, other.images, other.top1) and own.split == "test"
    assert "was made with images of this part" not in capsys.readouterr().err
    kzoo.evaluate(folder, split="choose", quiet=True)
    assert "was made with images of this part (choose)" in capsys.readouterr().err
    for name in ("red", "blue"):
        for n in range(20):
            (photos / name / f"{n}.png").rename(photos / name / f"new{n}.png")
    with pytest.raises(DataError, match=r"None of the images .* renamed\?"):
        kzoo.evaluate(folder, quiet=True)


def test_duplicates_stay_together_in_the_same_way_when_the_photos_were_seen_before(world, tmp_path, monkeypatch):
    """Folds are drawn by the numbers of groups: a scan and what is remembered of it must give the same."""
    from kzoo.finetuning import finetuning as module

    photos = draw(tmp_path / "photos", {(p, c): n for p, n in (("train", 12), ("val", 4)) for c in ("red", "blue")})
    for a, b in (("3", "7"), ("9", "10")):
        shutil.copyfile(photos / "train/red" / f"{a}.png", photos / "train/red" / f"{b}.png")
    seen, original = [], module.fit_head
    monkeypatch.setattr(module, "fit_head", lambda *a, **k: seen.append(k.get("groups")) or original(*a, **k))
    for name in "ab":
        tune(world, tmp_path / name, photos, unfreeze="none")
    first, second = [g for g in seen if g is not None]
    np.testing.assert_array_equal(first, second)
    assert len(np.unique(first)) == len(first) - 2


def test_resuming_takes_published_weights_by_their_name(world, tmp_path, monkeypatch):
    """By the file alone they would come without their preprocessing."""
    from dataclasses import replace

    from kzoo.catalog import registry

    own = kzoo.Weights("mine", str(world / "weights.npz"), preprocessing=kzoo.Preprocessing(scale=0.01, offset=0.5))
    row = replace(kzoo.spec("resnet20"), name="own_resnet", weights=(own,))
    monkeypatch.setitem(registry._rows, "own_resnet", row)
    options = {"weights": "mine", "input_shape": SHAPE, "precision": "float32", "unfreeze": "none", "quiet": True}
    folder = finetune_folder(world / "photos", "own_resnet", out=tmp_path / "r", **options)
    before = (folder / "model.keras").stat().st_mtime_ns
    (folder / "metrics.json").unlink()  # as a kill before the end leaves it
    finetune_folder(out=folder, resume=True, quiet=True)
    assert (folder / "metrics.json").exists() and (folder / "model.keras").stat().st_mtime_ns > before


def test_a_broken_download_is_not_at_hand(world, tmp_path, monkeypatch):
    """Keras may leave half of one under the final name."""
    from kzoo.files import digest

    good = kzoo.Weights("a", str(world / "weights.npz"), f"sha256:{digest(world / 'weights.npz')}")
    (tmp_path / "half.npz").write_bytes((world / "weights.npz").read_bytes()[:999])
    row = kzoo.spec("resnet20")
    monkeypatch.setattr(
        backbone, "at_hand", lambda model=None: [(row, good, tmp_path / "half.npz"), (row, good, world / "weights.npz")]
    )
    assert backbone.backbone("resnet20", precision="float32").path == world / "weights.npz"


def test_arrays_of_other_channels_are_refused_in_one_line(world, tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 4)).astype("uint8")
    np.savez(tmp_path / "a.npz", images=x, labels=np.arange(40) % 2)
    with pytest.raises(DataError, match="have 4 channels, the model takes 3"):
        tune(world, tmp_path / "r", tmp_path / "a.npz")


def test_a_budget_that_is_too_short_for_deeper_layers(world, head_only, tmp_path):  # head_only made the features
    folder = tune(world, tmp_path / "r", budget=1.0)
    assert "budget left no time" in json.loads((folder / "metrics.json").read_text())["outcome"]


def test_scout_ranks(world, monkeypatch):
    from kzoo.finetuning import scouting

    def named(name, **_):
        return backbone.backbone(name, str(world / "weights.npz"), input_shape=SHAPE, precision="float32")

    monkeypatch.setattr(scouting, "backbone", named)
    found = kzoo.scout(world / "photos", ["resnet20"], quiet=True)
    row = found.rows[0]
    assert row["low"] < row["accuracy"] <= row["high"] <= 1 and found.images == 48 and row["features"] == 64
    assert "resnet20" in str(found)


# --- killed, resumed, interrupted ---


class Killed(BaseException):
    """What a kill is to a test in one process: nothing catches it."""


@pytest.fixture(scope="module")
def deep(world, tmp_path_factory):
    """An uninterrupted run that keeps two stages, and its options."""
    options = {"unfreeze": "8x8", "epochs": 2, "seed": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deeper, "SURE", -100.0)
        return tune(world, tmp_path_factory.mktemp("runs") / "deep", **options), options


def same(a, b):
    """Whether two runs have the same weights, bit for bit, and the same history."""
    x, y = weights_of(a), weights_of(b)
    for path in x:
        np.testing.assert_array_equal(x[path], y[path], err_msg=path)
    for row, other in zip(runs.read_csv(a / "history.csv"), runs.read_csv(b / "history.csv"), strict=True):
        assert {**row, "seconds": ""} == {**other, "seconds": ""}


@pytest.mark.parametrize("phase", ["features", "head", "report"])
def test_killed_before_deeper_layers_and_resumed(world, head_only, tmp_path, monkeypatch, phase):
    from kzoo.finetuning import finetuning as module

    if phase == "features":
        monkeypatch.setenv("KZOO_FEATURES", str(tmp_path / "cache"))
    place = {"features": (module, "features"), "head": (module, "fill"), "report": (module.Job, "_report")}[phase]
    original, calls = getattr(*place), []

    def kill(*args, **kwargs):
        if phase == "features" and not calls:
            calls.append(1)
            return original(*args, **kwargs)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(*place, kill)
        with pytest.raises(Killed):
            tune(world, tmp_path / "r", unfreeze="none")
    same(head_only, finetune_folder(out=tmp_path / "r", resume=True, quiet=True))


@pytest.mark.parametrize("method", ["save_stage", "finish_stage"])
def test_killed_while_deeper_layers_train_and_resumed(world, deep, tmp_path, monkeypatch, method):
    monkeypatch.setattr(deeper, "SURE", -100.0)
    whole, options = deep
    original = getattr(stages.Store, method)

    def kill(*args):
        original(*args)  # the file is written, then the power goes
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(stages.Store, method, kill)
        with pytest.raises(Killed):
            tune(world, tmp_path / "r", **options)
    same(whole, finetune_folder(out=tmp_path / "r", resume=True, quiet=True))


def test_resuming_with_other_settings_is_refused(world, head_only):
    with pytest.raises(RunError, match="seed: the run has 0, this command 5"):
        finetune_folder(out=head_only, resume=True, seed=5, quiet=True)
    assert finetune_folder(out=head_only, resume=True, quiet=True) == head_only, "finished"
    with pytest.raises(RunError, match="holds a run already"):
        tune(world, head_only)


@pytest.mark.slow
def test_kill_9_and_ctrl_c_for_real(world, tmp_path):
    out = tmp_path / "r"
    args = [
        "finetune",
        world / "photos",
        "--model",
        "resnet20",
        "--weights",
        world / "weights.npz",
        "--input-shape",
        "16",
        "--precision",
        "float32",
        "--unfreeze",
        "all",
        "--epochs",
        "40",
        "--out",
        out,
    ]
    command = [sys.executable, "-c", "from kzoo.cli import main; main()"]
    for number, code in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
        extra = ["--resume"] if out.exists() else []
        process = subprocess.Popen([*command, *map(str, args), *extra], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        before = (out / "checkpoint.npz").stat().st_mtime if (out / "checkpoint.npz").exists() else 0
        while not (out / "checkpoint.npz").exists() or (out / "checkpoint.npz").stat().st_mtime <= before:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code, err
    assert "--resume goes on" in err and "Traceback" not in err
    rows = runs.load_checkpoint(out / "checkpoint.npz")[1]["stage"]["rows"]
    assert [r["epoch"] for r in rows] == list(range(1, len(rows) + 1)) and len(rows) >= 2


# --- real photos ---


@pytest.mark.slow
def test_ants_and_bees(shared, tmp_path, monkeypatch):
    if not (shared / "hymenoptera").is_dir() or not (shared / "weights").is_dir():
        pytest.skip("needs hymenoptera and weights in the shared data")
    monkeypatch.setenv("KZOO_FEATURES", os.environ.get("KZOO_FEATURES") or str(tmp_path / "features"))
    for model, least in (("mobilenet_v2", 0.96), ("squeezenet1_1", 0.89)):
        folder = finetune_folder(shared / "hymenoptera", model, out=tmp_path / model, unfreeze="none", quiet=True)
        assert json.loads((folder / "metrics.json").read_text())["test_accuracy"] >= least
