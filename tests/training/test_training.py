"""Recipes, the loop, the run folder: what they compute, and what survives a kill, a full disk, a NaN."""

import csv
import json
import os
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
from kzoo.data.augment import augmentation
from kzoo.errors import RunError
from kzoo.training.loop import loss_of
from kzoo.training.optimizers import SGDAsPrinted, plateau_rate, rate_schedule
from kzoo.training.recipes import RECIPES, Recipe, recipe

ROOT = Path(__file__).resolve().parents[2]
QUICK = Recipe(
    "quick",
    "a test",
    optimizer="adamw",
    learning_rate=2e-3,
    weight_decay=0.01,
    schedule="cosine",
    warmup=0.5,
    batch_size=64,
    epochs=3,
    label_smoothing=0.1,
    augment=(("shift", 0.1), ("rotate", 5.0)),
)


def weights_of(run):
    run = run if isinstance(run, runs.Run) else kzoo.load_run(run)
    return {v.path: np.asarray(v) for v in run.model.weights}


def history_of(folder):
    with open(Path(folder) / "history.csv") as f:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(f)]


def same_run(a, b):
    """The same final weights, best weights, optimiser state and history, to the bit."""
    assert history_of(a) == history_of(b)
    for one, two in zip(*(runs.load_checkpoint(Path(f) / "checkpoint.npz")[0].items() for f in (a, b)), strict=True):
        assert one[0] == two[0]
        np.testing.assert_array_equal(one[1], two[1], err_msg=one[0])
    wa, wb = weights_of(a), weights_of(b)
    assert wa.keys() == wb.keys() and all(np.array_equal(wa[k], wb[k]) for k in wa)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small network with dropout, trained with augmentation for three epochs."""
    folder = tmp_path_factory.mktemp("runs") / "mlp"
    kzoo.train("mnist_mlp", "digits", recipe=QUICK, out=folder, quiet=True)
    return folder


# --- recipes ---


def test_rates_by_epoch_and_step():
    lecture = rate_schedule(RECIPES["lecture_mlp"], steps=100)
    np.testing.assert_allclose([float(lecture(s)) for s in (0, 99, 100, 250)], [0.01, 0.01, 0.006, 0.0036], rtol=1e-5)
    plan = recipe("modern").changed(epochs=10)
    cosine = rate_schedule(plan, steps=10)
    assert float(cosine(0)) == 0
    np.testing.assert_allclose(float(cosine(10)), plan.learning_rate, rtol=1e-5)
    np.testing.assert_allclose(float(cosine(55)), plan.learning_rate / 2, rtol=1e-5)
    assert float(cosine(100)) < 1e-9


def test_the_plateau_divides_by_ten_after_five_epochs_without_progress():
    accuracies = [0.1, 0.2, *[0.2] * 5, 0.3, *[0.1] * 5]
    history = [{"accuracy": 0, "val_accuracy": a} for a in accuracies]
    rates = [plateau_rate(RECIPES["alexnet"], history[:n]) for n in range(len(history) + 1)]
    np.testing.assert_allclose(rates, [0.01] * 7 + [0.001] * 6 + [0.0001], rtol=1e-9)


def test_sgd_is_krizhevskys_update():
    w, v = np.array([1.0, -2.0]), np.zeros(2)
    variable = keras.Variable(w.astype("float32"), name="kernel")
    optimizer = SGDAsPrinted(0.1, 0.9, decay=0.5)
    for gradient in ([0.3, 0.1], [-0.2, 0.4], [0.0, 1.0]):
        v = 0.9 * v - 0.5 * 0.1 * w - 0.1 * np.array(gradient)
        w = w + v
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    np.testing.assert_allclose(np.asarray(variable), w, rtol=1e-5)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_the_fused_adam_is_keras_adam(name):
    from kzoo.training import optimizers

    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(5, 7)), rng.normal(size=(4, 5, 7))
    results = []
    for kind in (getattr(optimizers, name), getattr(keras.optimizers, name)):
        variable = keras.Variable(start.astype("float32"), name="kernel")
        optimizer = kind(keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5))
        for gradient in gradients:
            optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32")], [variable])
        results.append([np.asarray(v) for v in (variable, *optimizer.variables)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-6)
    assert not np.allclose(results[0][0], start)


def test_biases_decay_only_where_the_recipe_says_so():
    for decay_all, want in ((False, 1.0), (True, 0.95)):
        bias = keras.Variable(np.ones(1, "float32"), name="bias")
        SGDAsPrinted(0.1, decay=0.5, decay_all=decay_all).apply([keras.ops.zeros(1)], [bias])
        np.testing.assert_allclose(np.asarray(bias), [want], rtol=1e-6)


def test_the_rubbish_class_is_lecuns_criterion():
    """Equation 9: y_D + log(exp(-j) + sum_i exp(-y_i)), for logits -y."""
    rng = np.random.default_rng(0)
    distances, labels, j = rng.uniform(0, 20, (6, 10)).astype("float32"), rng.integers(0, 10, 6), 3.0
    expected = np.mean(
        [y[d] + np.log(np.exp(-j) + np.exp(-y).sum()) for y, d in zip(distances.astype(float), labels, strict=True)]
    )
    loss = loss_of(recipe("lenet").changed(rubbish=j))(np.eye(10, dtype="float32")[labels], -distances)
    np.testing.assert_allclose(float(loss), expected, rtol=1e-5)


def test_crops_and_holes_are_those_of_the_papers():
    x = np.random.default_rng(0).integers(0, 100, (32, 32, 32, 3)).astype("float32")
    with pytest.raises(kzoo.KzooError, match=r"its amount is 0\.5"):
        augmentation((("flip", 0.3),), 0)
    (crop,) = augmentation((("crop", 0.125),), 0)
    padded, moves = np.pad(x, ((0, 0), (4, 4), (4, 4), (0, 0)), constant_values=128.0), set()
    for picture, out in zip(padded, np.asarray(crop(x, training=True)), strict=True):
        fits = [(i, j) for i in range(9) for j in range(9) if (picture[i : i + 32, j : j + 32] == out).all()]
        assert len(fits) == 1, "a piece of the padded picture"
        moves.update(fits)
    assert len(moves) > 16
    (cutout,) = augmentation((("cutout", 0.25),), 0)
    out = np.asarray(cutout(x, training=True))
    hole = (out == 128).all(-1)
    assert (hole.sum((1, 2)) == 64).all() and (hole.any(1).sum(1) == 8).all(), "8 x 8 in every picture"
    np.testing.assert_array_equal(out[~hole], x[~hole])
    assert len({tuple(np.argwhere(h)[0]) for h in hole}) > 16


def test_every_recipe_builds_its_optimiser_and_survives_json():
    from kzoo.training.optimizers import make_optimizer

    for plan in RECIPES.values():
        assert make_optimizer(plan, 10) is not None
        assert recipe(json.loads(json.dumps(plan.to_dict()))) == plan
    with pytest.raises(kzoo.KzooError, match="Did you mean 'modern'"):
        recipe("moderm")
    with pytest.raises(kzoo.KzooError, match="epochs must be"):
        recipe("modern").changed(epochs=0)


# --- the run folder ---


def test_a_run_holds_what_the_design_says(trained):
    names = {p.name for p in trained.iterdir()}
    assert names >= {
        "config.json",
        "model.keras",
        "labels.txt",
        "metrics.json",
        "history.csv",
        "checkpoint.npz",
        "splits.csv",
        "logs",
    }
    assert not [n for n in names if n.startswith(".tmp")]
    config = json.loads((trained / "config.json").read_text())
    assert config["seed"] == 0 and config["recipe"]["name"] == "quick" and config["versions"]["keras"]
    assert config["hardware"] and config["precision"] == "float32" and len(config["fingerprint"]) == 64
    assert (trained / "labels.txt").read_text().splitlines() == list("0123456789")
    with open(trained / "splits.csv") as f:
        rows = list(csv.DictReader(f))
    assert len(rows) == 1797 and {r["split"] for r in rows} == {"train", "val", "test"}
    metrics = json.loads((trained / "metrics.json").read_text())
    best = history_of(trained)[metrics["best_epoch"] - 1]
    assert metrics["val_accuracy"] == float(best["val_accuracy"]) > 0.5


def test_tensorboard_finds_the_curves(trained):
    import tensorflow as tf
    from tensorflow.core.util.event_pb2 import Event

    found = {}
    for path in (trained / "logs").iterdir():
        for record in tf.data.TFRecordDataset(str(path)):
            event = Event.FromString(record.numpy())
            for value in event.summary.value:
                assert value.metadata.plugin_data.plugin_name == "scalars"
                found.setdefault(value.tag, {})[event.step] = float(tf.make_ndarray(value.tensor))
    assert sorted(found["val_accuracy"]) == [1, 2, 3]
    for row in history_of(trained):
        np.testing.assert_allclose(found["loss"][int(row["epoch"])], float(row["loss"]), rtol=1e-6)


def test_augmentation_is_no_part_of_the_saved_model(trained):
    model = kzoo.load_run(trained).model
    assert not [layer.name for layer in model.layers if "random" in layer.name]
    assert model.input_shape == (None, 28, 28, 1)


def test_the_same_seed_gives_the_same_run_and_another_does_not(trained, tmp_path):
    kzoo.train("mnist_mlp", "digits", recipe=QUICK, out=tmp_path / "again", quiet=True)
    same_run(trained, tmp_path / "again")
    kzoo.train("mnist_mlp", "digits", recipe=QUICK, seed=1, out=tmp_path / "other", quiet=True)
    assert history_of(trained) != history_of(tmp_path / "other")


def test_patience_stops_early(tmp_path):
    plan = QUICK.changed(learning_rate=1e-12, epochs=9)  # nothing is learned
    run = kzoo.train("mnist_softmax", "digits", recipe=plan, patience=2, out=tmp_path / "r", quiet=True)
    assert len(history_of(run.path)) == 3


def test_a_network_with_auxiliary_classifiers_leaves_them_out(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", images=rng.integers(0, 256, (20, 96, 96, 3)).astype("uint8"), labels=np.arange(20) % 2)
    run = kzoo.train(
        "googlenet",
        tmp_path / "x.npz",
        input_shape=(96, 96, 3),
        epochs=1,
        batch_size=8,
        precision="float32",
        out=tmp_path / "r",
        quiet=True,
    )
    assert run.model.output_shape == (None, 2) and not [x.name for x in run.model.layers if x.name.startswith("aux")]
    arrays, _ = runs.load_checkpoint(tmp_path / "r" / "checkpoint.npz")
    assert [k for k in arrays if k.startswith("model/aux")], "to resume, they are kept"


# --- faults ---


def command(*args):
    return [sys.executable, "-c", "from kzoo.cli import main; main()", *map(str, args)]


def started(*args, **options):
    return subprocess.Popen(
        command(*args), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def wait_for(check, process, seconds=120):
    end = time.monotonic() + seconds
    while not check():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


LONG = (
    "train",
    "mnist_mlp",
    "--data",
    "digits",
    "--recipe",
    "modern",
    "--epochs",
    "40",
    "--batch-size",
    "16",
    "--seed",
    "3",
)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    subprocess.run(command(*LONG, "--out", folder), check=True, cwd=ROOT, capture_output=True)
    return folder


def epochs(folder):
    path = folder / "history.csv"
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


@pytest.mark.slow
def test_kill_9_in_the_middle_and_resume_gives_the_uninterrupted_run(uninterrupted, tmp_path):
    out = tmp_path / "killed"
    for n in (2, 11):  # killed twice
        process = started(*LONG, "--out", out, *(["--resume"] if out.exists() else []))
        wait_for(lambda n=n: epochs(out) >= n, process)
        time.sleep(0.03)
        process.kill()
        process.communicate()
        assert n <= epochs(out) < 40
    (out / ".tmp-0123abcd-checkpoint.npz").write_bytes(b"half")  # what a kill inside a write leaves
    subprocess.run(command("train", "--resume", "--out", out), check=True, cwd=ROOT, capture_output=True)
    same_run(uninterrupted, out)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_keeps_the_finished_epochs_and_says_how_to_go_on(tmp_path, number, code):
    out = tmp_path / "run"
    process = started(*LONG, "--out", out)
    wait_for(lambda: epochs(out) >= 1, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "--resume continues" in err and "Traceback" not in err
    assert len(runs.load_checkpoint(out / "checkpoint.npz")[1]["history"]) == epochs(out) < 40


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_checkpoint_as_it_was(trained, tmp_path):
    resource = pytest.importorskip("resource")
    out = tmp_path / "run"
    kzoo.train("mnist_mlp", "digits", recipe=QUICK, out=out, quiet=True)
    arrays, state = runs.load_checkpoint(out / "checkpoint.npz")
    runs.save_checkpoint(out / "checkpoint.npz", arrays, {"history": state["history"][:1]})  # as if stopped after one
    kept = {name: (out / name).read_bytes() for name in ("checkpoint.npz", "model.keras")}

    def limit():
        return resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    process = started("train", "--resume", "--out", out, preexec_fn=limit)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"Error: Can't write {out}" in err and "unchanged" in err and "Traceback" not in err
    assert kept == {name: (out / name).read_bytes() for name in kept}
    assert not list(out.glob(".tmp*"))


def test_the_record_says_what_was_typed_and_on_what_it_ran(tmp_path, kzoo_command, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    kzoo_command("train", "mnist_softmax", "--epochs", "1", "--quiet", "--out", tmp_path / "my run")
    config = json.loads((tmp_path / "my run" / "config.json").read_text())
    assert config["command"] == f"kzoo train mnist_softmax --epochs 1 --quiet --out '{tmp_path}/my run'"
    assert config["hardware"].endswith(", 1 of 4 cores")
    monkeypatch.undo()
    kzoo.train("mnist_softmax", "digits", epochs=1, quiet=True, out=tmp_path / "b")
    assert json.loads((tmp_path / "b" / "config.json").read_text())["command"] == "kzoo.train(...)"


def test_a_kill_before_the_last_file_and_a_folder_that_takes_none(tmp_path):
    kzoo.train("mnist_softmax", "digits", epochs=1, quiet=True, out=tmp_path / "r")
    before = (tmp_path / "r" / "metrics.json").read_text()
    (tmp_path / "r" / "metrics.json").unlink()
    kzoo.train(out=tmp_path / "r", resume=True, quiet=True)
    assert (tmp_path / "r" / "metrics.json").read_text() == before
    with pytest.raises(RunError, match="can't be written to"), runs.locked("/dev/null"):
        pass


def test_what_a_kill_at_the_start_leaves_is_no_obstacle(tmp_path):
    out = tmp_path / "r"
    out.mkdir()
    (out / ".tmp-0123abcd-config.json").write_text("{")
    kzoo.train("mnist_softmax", "digits", epochs=1, quiet=True, out=out)
    assert not list(out.glob(".tmp-*"))
    (out / "splits.csv").unlink()
    kzoo.train(out=out, resume=True, quiet=True)
    assert len(runs.read_csv(out / "splits.csv")) == 1797
    for text in ("{}", "[1]", '{"model": "mnist_softmax"}'):
        (out / "config.json").write_text(text)
        with pytest.raises(RunError, match="is not a kzoo run"):
            kzoo.load_run(out)


def test_patience_needs_a_validation_part(tmp_path):
    with pytest.raises(RunError, match="there is no validation part"):
        kzoo.train("mnist_softmax", "digits", epochs=1, val_fraction=0.0, patience=1, out=tmp_path / "r", quiet=True)
    assert not (tmp_path / "r").exists()


def test_two_processes_do_not_share_a_run(trained):
    fcntl = pytest.importorskip("fcntl")
    with open(trained / ".lock", "a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="in use by another"):
            kzoo.train(out=trained, resume=True, quiet=True)
    kzoo.train(out=trained, resume=True, quiet=True)  # the lock is gone, and the run is finished


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 5}, "seed: the run has 0, this command 5"),
        ({"model": "mnist_softmax"}, 'model: the run has "mnist_mlp", this command "mnist_softmax"'),
        ({"epochs": 9}, "recipe.epochs: the run has 3, this command 9"),
        ({"val_fraction": 0.2}, "fingerprint"),
        ({"dropout": 0.5}, "options.dropout: the run has 0.2, this command 0.5"),
    ],
)
def test_resuming_with_other_settings_is_refused_and_the_difference_named(trained, changed, message):
    before = (trained / "checkpoint.npz").read_bytes()
    with pytest.raises(RunError) as e:
        kzoo.train(**{"model": "mnist_mlp", "data": "digits", **changed}, out=trained, resume=True, quiet=True)
    assert message in str(e.value)
    assert (trained / "checkpoint.npz").read_bytes() == before


def test_a_run_from_before_a_field_of_recipes_can_be_resumed(tmp_path):
    kzoo.train("mnist_softmax", "digits", epochs=1, out=tmp_path / "r", quiet=True)
    config = json.loads((tmp_path / "r" / "config.json").read_text())
    del config["recipe"]["alternate_flip"]
    (tmp_path / "r" / "config.json").write_text(json.dumps(config))
    assert len(history_of(kzoo.train(out=tmp_path / "r", resume=True, quiet=True).path)) == 1


def test_options_that_are_none_of_the_network(tmp_path, kzoo_command):
    for said, reason in (
        ("epochs=3", "epochs is none: use --epochs"),
        ("num_classes=5", "Unknown option of mnist_mlp 'num_classes'"),
        ("droput=0.1", "Did you mean 'dropout'"),
        ("dropout=high", "mnist_mlp can't be built"),
    ):
        code, _, err = kzoo_command("train", "mnist_mlp", "--set", said, "--out", tmp_path / "r")
        assert code == 1 and reason in err and "Traceback" not in err and not (tmp_path / "r").exists(), err


def test_nothing_is_overwritten(trained, tmp_path, kzoo_command):
    code, _, err = kzoo_command("train", "mnist_mlp", "--out", trained)
    assert code == 1 and "holds a run already: add --resume" in err
    (tmp_path / "mine.txt").write_text("mine")
    code, _, err = kzoo_command("train", "mnist_mlp", "--out", tmp_path)
    assert code == 1 and "exists and is not a kzoo run" in err
    code, _, err = kzoo_command("train", "--resume", "--out", tmp_path)
    assert code == 1 and "is not a kzoo run: it has no config.json" in err
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "config.json").write_text('{"style": "strokes.png", "steps": 1000, "seed": 0}')
    code, _, err = kzoo_command("train", "--resume", "--out", tmp_path)
    assert code == 1 and "was not left by kzoo train" in err


def test_a_diverging_run_stops_with_a_clear_word(tmp_path):
    plan = Recipe("wild", "a test", optimizer="sgd", learning_rate=1e30, epochs=3)
    with pytest.raises(
        RunError, match=r"loss became (nan|inf) in epoch 1.*lower the learning rate.*No epoch was finished"
    ):
        kzoo.train("mnist_mlp", "digits", recipe=plan, out=tmp_path / "r", quiet=True)
    assert not (tmp_path / "r" / "model.keras").exists()


def test_a_run_that_diverges_later_keeps_its_last_good_checkpoint(tmp_path):
    from kzoo.training.loop import Keeper

    class Poisoned(Keeper):
        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch)
            if epoch == 2:
                self.network.weights[0].assign(self.network.weights[0] * np.nan)

    from kzoo.training import loop as fit

    fit.Keeper, original = Poisoned, fit.Keeper
    try:
        with pytest.raises(RunError, match=r"in epoch 3.*last good checkpoint, after epoch 2"):
            kzoo.train("mnist_mlp", "digits", recipe=QUICK, out=tmp_path / "r", quiet=True)
    finally:
        fit.Keeper = original
    arrays, state = runs.load_checkpoint(tmp_path / "r" / "checkpoint.npz")
    assert len(state["history"]) == 2 and all(np.isfinite(a).all() for a in arrays.values())
    assert all(np.isfinite(a).all() for a in weights_of(tmp_path / "r").values())


@pytest.mark.parametrize("name", ["model.keras", "checkpoint.npz"])
def test_a_flipped_bit_is_noticed(trained, tmp_path, name):
    import shutil

    run = tmp_path / "run"
    shutil.copytree(trained, run)
    raw = bytearray((run / name).read_bytes())
    raw[len(raw) // 2] ^= 4
    (run / name).write_bytes(raw)
    with pytest.raises(RunError, match=r"damaged|can.t be read"):
        kzoo.load_run(run) if name == "model.keras" else runs.load_checkpoint(run / name)


def test_unreadable_photos_are_left_out_and_listed(tmp_path):
    rng = np.random.default_rng(0)
    for label in "ab":
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(10):
            image = Image.fromarray(rng.integers(0, 256, (40, 30, 3)).astype("uint8"))
            image.save(tmp_path / "photos" / label / f"{i}.jpg")
    victim = tmp_path / "photos" / "a" / "3.jpg"
    victim.write_bytes(victim.read_bytes()[:400])
    (tmp_path / "photos" / "b" / "0.jpg").write_bytes(b"")
    run = kzoo.train(
        "mnist_softmax",
        tmp_path / "photos",
        epochs=1,
        test_fraction=0.0,
        val_fraction=0.0,
        out=tmp_path / "r",
        quiet=True,
    )
    with open(run.path / "skipped.csv") as f:
        assert {row["id"] for row in csv.DictReader(f)} == {"a/3.jpg", "b/0.jpg"}
    with pytest.raises(kzoo.KzooError, match="strict"):
        kzoo.train("mnist_softmax", tmp_path / "photos", epochs=1, strict=True, out=tmp_path / "s", quiet=True)


# --- evaluate and predict ---


def test_evaluate_counts_right(trained, kzoo_command):
    result = kzoo.evaluate(trained, quiet=True)
    data = kzoo.load_data("digits").splits["test"]
    import tensorflow as tf

    from kzoo.catalog import Preprocessing
    from kzoo.data.images import fit

    x = fit(tf.constant(data.images), 28, 28, Preprocessing())
    logits = np.asarray(kzoo.load_run(trained).model(x))
    order = np.argsort(-logits, -1)
    assert result.images == 359
    np.testing.assert_allclose(result.top1, np.mean(order[:, 0] == data.labels))
    np.testing.assert_allclose(result.top5, np.mean((order[:, :5] == data.labels[:, None]).any(-1)))
    assert result.confusion.sum() == 359 and np.trace(result.confusion) == round(result.top1 * 359)
    three = result.per_class[3]
    np.testing.assert_allclose(three["recall"], result.confusion[3, 3] / result.confusion[3].sum())
    np.testing.assert_allclose(three["precision"], result.confusion[3, 3] / result.confusion[:, 3].sum())
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p = (p / p.sum(-1, keepdims=True))[np.arange(359), data.labels]
    np.testing.assert_allclose(result.loss, -np.log(p).mean(), rtol=1e-4)
    with Image.open(trained / "confusion-test.png") as image:
        assert min(image.size) > 300

    code, out, _ = kzoo_command("evaluate", trained, "--split", "val", "--json")
    assert code == 0 and json.loads(out)["images"] == 180
    code, out, _ = kzoo_command("evaluate", trained)
    assert code == 0 and "Confusion" in out and all(len(line) <= 80 for line in out.splitlines()[1:])


def test_evaluate_refuses_other_classes(trained, tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((4, 8, 8), "uint8"), labels=[0, 1, 0, 1], classes=["0", "cat"])
    with pytest.raises(RunError, match="classes 'cat', which"):
        kzoo.evaluate(trained, tmp_path / "x.npz", quiet=True)


def test_predict_files(trained, tmp_path, kzoo_command):
    data = kzoo.load_data("digits").splits["test"]
    for i in range(3):
        Image.fromarray(data.images[i, ..., 0]).save(tmp_path / f"{i}.png")
    (tmp_path / "note.txt").write_text("no image")
    code, out, err = kzoo_command("predict", trained, tmp_path, "--json", "--top", "2")
    results = json.loads(out)
    assert code == 1 and "1 of 4 images could not be read" in err
    assert [Path(r["image"]).name for r in results] == ["0.png", "1.png", "2.png", "note.txt"]
    assert "error" in results[3] and all(len(r["top"]) == 2 for r in results[:3])
    code, out, err = kzoo_command("predict", trained, tmp_path / "0.png")
    assert code == 0 and out.count("%") == 5 and err == ""
    code, _, err = kzoo_command("predict", trained, tmp_path / "nothing.png")
    assert code == 1 and "There is no file" in err
    code, _, err = kzoo_command("predict", tmp_path, tmp_path / "0.png")
    assert code == 1 and "not a kzoo run" in err


def test_training_runs_on_jax(tmp_path):
    pytest.importorskip("jax")
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    run = command("train", "mnist_softmax", "--epochs", 2, "--out", tmp_path / "r")
    subprocess.run(run, env=environment, cwd=ROOT, check=True, capture_output=True)
    assert float(history_of(tmp_path / "r")[-1]["val_accuracy"]) > 0.2
    out = subprocess.run(
        command("evaluate", tmp_path / "r", "--json"),
        env=environment,
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert json.loads(out)["images"] == 359


# --- what the networks are for ---


@pytest.mark.slow
def test_mnist_shift_is_less_sensitive_to_shifts_than_mnist_cnn(shared, tmp_path):
    if not (shared / "mnist").is_dir():
        pytest.skip("needs MNIST in the shared data")
    data = kzoo.load_data("mnist")
    train, test = data.splits["train"].take(np.arange(10_000)), data.splits["test"].take(np.arange(2000))
    np.savez(tmp_path / "m.npz", x_train=train.images, y_train=train.labels, x_test=test.images, y_test=test.labels)
    accuracy = {}
    for name in ("mnist_shift", "mnist_cnn"):
        run = kzoo.train(name, tmp_path / "m.npz", epochs=3, out=tmp_path / name, quiet=True)
        from kzoo.graph.inference import predictor

        network = predictor(run.model)
        for pixels in (0, 3):
            moved = np.roll(test.images, (pixels, -pixels), axis=(1, 2))
            accuracy[name, pixels] = np.mean(network(moved).argmax(-1) == test.labels)
    print(accuracy)
    assert min(accuracy["mnist_shift", 0], accuracy["mnist_cnn", 0]) > 0.9
    lost = {name: accuracy[name, 0] - accuracy[name, 3] for name in ("mnist_shift", "mnist_cnn")}
    assert lost["mnist_shift"] < lost["mnist_cnn"]


def test_the_demo_runs_and_prints_its_commands(kzoo_command, tmp_path):
    code, out, _ = kzoo_command("demo", "--out", tmp_path / "demo")
    assert code == 0
    for verb in ("list", "info", "reproduce", "finetune", "evaluate", "export", "verify", "predict", "style"):
        assert f"$ kzoo {verb}" in out
    made = tmp_path / "demo"
    assert (made / "digits" / "confusion-test.png").exists() and (made / "saved_model" / "card.md").exists()
    assert json.loads((made / "digits" / "evaluation-test.json").read_text())["top1"] > 0.9
    said = [json.loads((made / f).read_text())["command"] for f in ("digits/config.json", "saved_model/card.json")]
    assert said[0].startswith("kzoo finetune digits --model resnet20") and said[1].startswith("kzoo export ")
    with Image.open(made / "painted.png") as picture:
        assert picture.size == (256, 256)
    code, out, err = kzoo_command("demo", "--out", tmp_path / "demo")
    assert code == 1 and "is not empty" in err and "$ kzoo list" not in out
    (tmp_path / "file").touch()
    code, _, err = kzoo_command("demo", "--out", tmp_path / "file" / "demo")
    assert code == 1 and "Can't make the folder" in err
