"""The loop: what a run computes, and what survives a kill, a full disk, a NaN."""

import csv
import json
import math
import os
import shutil
import signal

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image
from support.photos import photos
from support.processes import started, wait_for
from support.training import QUICK, history_of, same_run, weights_of

import kzoo
from kzoo import runs
from kzoo.catalog import registry
from kzoo.errors import KzooError, RunError
from kzoo.interrupt import Interrupted
from kzoo.tasks.classification import cross_entropy
from kzoo.training import fitting, loop
from kzoo.training.callbacks import RunKeeper
from kzoo.training.recipes import Recipe, find_recipe


def test_the_rubbish_class_is_lecuns_criterion():
    """Equation 9: y_D + log(exp(-j) + sum_i exp(-y_i)), for logits -y."""
    rng = np.random.default_rng(0)
    distances, labels, j = rng.uniform(0, 20, (6, 10)).astype("float32"), rng.integers(0, 10, 6), 3.0
    expected = np.mean(
        [y[d] + np.log(np.exp(-j) + np.exp(-y).sum()) for y, d in zip(distances.astype(float), labels, strict=True)]
    )
    loss = cross_entropy(find_recipe("lenet").changed(rubbish=j))(np.eye(10, dtype="float32")[labels], -distances)
    np.testing.assert_allclose(float(loss), expected, rtol=1e-5)


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


@pytest.fixture
def small_aux():
    """A row whose network is auxiliary.py's, registered for a test only."""
    paper = kzoo.Paper("None", "Nobody", 2026)
    kzoo.register(
        kzoo.ModelSpec("small_aux", "support.auxiliary:network", (96, 96, 3), 2, paper, loss_weights=(1.0, 0.3))
    )
    yield
    del registry.ROWS["small_aux"]


@pytest.mark.parametrize("name", ["small_aux", pytest.param("googlenet", marks=pytest.mark.deep("2026-11-27"))])
@pytest.mark.usefixtures("small_aux")
def test_a_network_with_auxiliary_classifiers_leaves_them_out(tmp_path, name):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", images=rng.integers(0, 256, (20, 96, 96, 3)).astype("uint8"), labels=np.arange(20) % 2)
    run = kzoo.train(
        name,
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


LONG = {"recipe": "modern", "epochs": 20, "batch_size": 32, "seed": 3}
OPTIONS = [x for key, value in LONG.items() for x in (f"--{key.replace('_', '-')}", value)]


def epochs(folder):
    path = folder / "history.csv"
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


@pytest.mark.usefixtures("graphs_are_optimised")
def test_killed_and_stopped_and_resumed_it_gives_the_uninterrupted_run(tmp_path, kzoo_command, monkeypatch):
    """After kill -9, Ctrl-C and a polite kill; the last two keep what is finished and say how to continue."""
    out = tmp_path / "stopped"
    command = ("train", "mnist_mlp", "--data", "digits", *OPTIONS, "--out", out)
    process = started(*command)
    wait_for(lambda: epochs(out) >= 2, process)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -9 and 2 <= epochs(out) < 20
    (out / ".tmp-0123abcd-checkpoint.npz").write_bytes(b"half")  # what a kill inside a write leaves

    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        n = epochs(out) + 2

        class Stopped(RunKeeper):
            def on_train_batch_begin(self, batch, logs=None, n=n, number=number):
                super().on_train_batch_begin(batch, logs)
                if epochs(out) == n:  # an epoch has begun
                    os.kill(os.getpid(), number)

        monkeypatch.setattr(fitting, "RunKeeper", Stopped)
        found, _, err = kzoo_command(*command, "--resume")
        monkeypatch.undo()
        assert found == code and n <= epochs(out) < 20
        assert "Traceback" not in err and "--resume continues" in err
        assert len(runs.load_checkpoint(out / "checkpoint.npz")[1]["history"]) == epochs(out)
    kzoo.train(out=out, resume=True, quiet=True)
    kzoo.train("mnist_mlp", "digits", **LONG, out=tmp_path / "whole", quiet=True)
    same_run(tmp_path / "whole", out)


def stopping(monkeypatch, at):
    """Sends Ctrl-C in the `at`-th call of on_train_batch_end."""
    original, calls = RunKeeper.on_train_batch_end, []

    def stop(self, batch, logs=None):
        calls.append(batch)
        if len(calls) == at:
            signal.raise_signal(signal.SIGINT)
        original(self, batch, logs)

    monkeypatch.setattr(RunKeeper, "on_train_batch_end", stop)


def test_an_epoch_that_was_stopped_in_the_middle_goes_on_from_there(trained, tmp_path, monkeypatch):
    """Be it the first: the same weights, loss, metrics and random numbers, to the bit."""
    out = tmp_path / "r"
    stopping(monkeypatch, 1)
    with pytest.raises(Interrupted, match="1,024 of 1,258 images of epoch 1 are kept, and --resume continues") as e:
        kzoo.train("mnist_mlp", "digits", recipe=QUICK, out=out, quiet=True)
    assert e.value.exit_code == 130 and epochs(out) == 0
    assert not any((out / name).exists() for name in ("metrics.json", "model.keras"))
    with pytest.raises(RunError, match=r"no epoch was finished\. Continue with kzoo train --resume"):
        kzoo.evaluate(out)
    monkeypatch.undo()
    stopping(monkeypatch, 2)
    with pytest.raises(Interrupted, match="1,024 of 1,258 images of epoch 2 are kept"):  # the first call ends epoch 1
        kzoo.train(out=out, resume=True, quiet=True)
    assert runs.load_checkpoint(out / "checkpoint.npz")[1]["position"]["images"] == 1024
    monkeypatch.undo()
    written, original = [], runs.save_checkpoint

    def save(path, arrays, state):
        written.append(state.get("position", {}).get("images"))
        original(path, arrays, state)

    monkeypatch.setattr("kzoo.training.callbacks.EVERY", 0.0)  # seconds: a checkpoint at each step changes nothing
    monkeypatch.setattr(runs, "save_checkpoint", save)
    kzoo.train(out=out, resume=True, quiet=True)
    assert written == [None, 1024, None]
    same_run(trained, out)


def test_a_full_disk_leaves_the_last_checkpoint_as_it_was(trained, tmp_path, kzoo_command):
    resource = pytest.importorskip("resource")
    out = tmp_path / "run"
    shutil.copytree(trained, out)
    arrays, state = runs.load_checkpoint(out / "checkpoint.npz")
    runs.save_checkpoint(out / "checkpoint.npz", arrays, {"history": state["history"][:1]})  # as if stopped after one
    kept = {name: (out / name).read_bytes() for name in ("checkpoint.npz", "model.keras")}

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        code, _, err = kzoo_command("train", "--resume", "--out", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 1
    assert f"Error: Can't write {out}" in err and "unchanged" in err and "Traceback" not in err
    assert kept == {name: (out / name).read_bytes() for name in kept}
    assert not list(out.glob(".tmp*"))


def test_patience_needs_a_validation_part(tmp_path):
    with pytest.raises(RunError, match="there is no validation part"):
        kzoo.train("mnist_softmax", "digits", epochs=1, val_fraction=0.0, patience=1, out=tmp_path / "r", quiet=True)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 5}, "seed: the run has 0, this command 5"),
        ({"model": "mnist_softmax"}, 'model: the run has "mnist_mlp", this command "mnist_softmax"'),
        ({"learning_rate": 9.0}, "recipe.learning_rate: the run has"),
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


def test_a_diverging_run_stops_with_a_clear_word(tmp_path):
    plan = Recipe("wild", "a test", optimizer="sgd", learning_rate=1e30, epochs=3)
    with pytest.raises(
        RunError, match=r"loss became (nan|inf) in epoch 1.*lower the learning rate.*No epoch was finished"
    ):
        kzoo.train("mnist_mlp", "digits", recipe=plan, out=tmp_path / "r", quiet=True)
    assert not (tmp_path / "r" / "model.keras").exists()


def test_a_run_that_diverges_later_keeps_its_last_good_checkpoint(tmp_path, monkeypatch):

    class Poisoned(RunKeeper):
        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch)
            if epoch == 2:
                self.network.weights[0].assign(self.network.weights[0] * np.nan)

    monkeypatch.setattr(fitting, "RunKeeper", Poisoned)
    with pytest.raises(RunError, match=r"in epoch 3.*last good checkpoint, after epoch 2"):
        kzoo.train("mnist_mlp", "digits", recipe=QUICK, out=tmp_path / "r", quiet=True)
    arrays, state = runs.load_checkpoint(tmp_path / "r" / "checkpoint.npz")
    assert len(state["history"]) == 2 and all(np.isfinite(a).all() for a in arrays.values())
    assert all(np.isfinite(a).all() for a in weights_of(tmp_path / "r").values())


def test_photos_that_are_read_while_training(tmp_path, capfd):
    """As a recipe with crops reads them: a broken one is missing in its batch, or ends a strict run."""
    folder = photos(tmp_path / "photos", {"a": 10, "b": 10}, ".jpg")
    broken = folder / "a" / "003.jpg"
    broken.write_bytes(broken.read_bytes()[:-40])
    plan = Recipe("own", "a test", batch_size=8, epochs=1, crop=("area", 0.5, 1.0))
    options = {"recipe": plan, "test_fraction": 0.0, "val_fraction": 0.0}
    run = kzoo.train("mnist_softmax", folder, **options, out=tmp_path / "r")
    assert runs.read_csv(run.path / "skipped.csv")[0]["id"] == os.path.join("a", "003.jpg")
    err = capfd.readouterr().err
    assert "Images are read from files by" in err and "in an order of all 20 by seed and epoch" in err
    assert f"Left out 1 unusable file: a{os.sep}003.jpg can't be decoded" in err
    assert run.config["recipe"]["crop"] == ["area", 0.5, 1.0]
    with pytest.raises(RunError, match=r"1 unusable file: a.003\.jpg can't be decoded.* \(--strict\)"):
        kzoo.train("mnist_softmax", folder, **options, strict=True, out=tmp_path / "strict", quiet=True)
    options["recipe"] = plan.changed(batch_size=1)
    with pytest.raises(RunError, match=r"No image of a batch can be read: 1 unusable file: a.003\.jpg"):
        kzoo.train("mnist_softmax", folder, **options, out=tmp_path / "one", quiet=True)
    with pytest.raises(RunError, match="Recipe own crops pictures at random, and not their masks"):
        kzoo.train("unet", "digits_segmentation", recipe=plan, out=tmp_path / "masks", quiet=True)


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


def test_it_trains_and_measures_on_this_backend(tmp_path):
    """tests/catalog/test_jax.py runs it on JAX."""
    run = kzoo.train("mnist_softmax", "digits", epochs=2, out=tmp_path / "r", quiet=True)
    assert run.config["backend"] == os.environ.get("KERAS_BACKEND", "tensorflow")
    assert kzoo.evaluate(run, quiet=True).images == 359
    assert float(history_of(run.path)[-1]["val_accuracy"]) > 0.2


def test_pictures_of_fewer_than_16_bits_are_warned_of_unless_bits_are_given(tmp_path, monkeypatch, capsys):
    for label, c in enumerate("ab"):
        (tmp_path / "d" / c).mkdir(parents=True)
        for i in range(6):
            image = np.full((8, 8), 3000 + 1000 * label + i, "uint16")
            Image.fromarray(image).save(tmp_path / "d" / c / f"{i}.png")
    monkeypatch.setattr(loop, "fit", lambda *args, **kwargs: None)
    monkeypatch.setattr(runs, "load_run", lambda folder: None)
    note = (
        "Warning: The 16-bit images use 12 of 16 bits, and kzoo keeps the upper 8 (and refuses arrays), which leaves "
    )
    for bits, said in ((None, True), (12, False)):
        kzoo.train("mnist_softmax", tmp_path / "d", out=tmp_path / f"r{bits}", bits=bits, quiet=True)
        (line,) = [*capsys.readouterr().err.splitlines(), ""][:1]
        assert line == (f"{note}16 grey levels: use --bits 12 (bits=12) in training." if said else "")


def test_training_starts_from_weights_with_the_preprocessing_that_they_need(tmp_path):
    shipped = kzoo.build("lenet5", weights="mnist")
    run = kzoo.train(
        "lenet5",
        "digits",
        weights="mnist",
        epochs=1,
        learning_rate=1e-12,
        out=tmp_path / "r",
        precision="float32",
        quiet=True,
    )
    for ours, theirs in zip(run.model.weights, shipped.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    known = run.config["weights"]
    assert known["tag"] == "mnist" and len(known["sha256"]) == 64 and run.config["seed"] == 0
    more = kzoo.train(out=tmp_path / "r", resume=True, epochs=2, quiet=True)  # without the weights, which it has
    assert len(more.history["epoch"]) == 2 and more.config["weights"] == known
    with pytest.raises(RunError, match="A resumed run has its own weights"):
        kzoo.train(out=tmp_path / "r", resume=True, weights="mnist")


def test_a_run_is_resumed_with_more_epochs_and_another_batch_size(tmp_path, capsys):
    kzoo.train("mnist_softmax", "digits", epochs=1, batch_size=256, out=tmp_path / "r", quiet=True)
    with pytest.raises(RunError, match="other settings"):
        kzoo.train(out=tmp_path / "r", resume=True, epochs=2, seed=1)
    run = kzoo.train(out=tmp_path / "r", resume=True, epochs=3, batch_size=512, quiet=True)
    assert "From epoch 2 on: 1 -> 3 epochs and 256 -> 512 images a batch" in capsys.readouterr().err
    assert run.config["resumed"] == [{"after_epoch": 1, "epochs": [1, 3], "batch_size": [256, 512]}]
    assert (run.config["recipe"]["epochs"], run.metrics["epochs"]) == (3, 3)
    arrays, _ = runs.load_checkpoint(run.path / runs.CHECKPOINT)
    images = len(kzoo.load_data("digits").splits["train"])
    assert arrays["optimizer/0"] == 3 * math.ceil(images / 512), "the steps that three epochs of the new batches have"
    with pytest.raises(RunError, match=r"has 3 epochs already; --epochs 2 would be fewer"):
        kzoo.train(out=tmp_path / "r", resume=True, epochs=2)
    again = kzoo.train(recipe="lecture_softmax", out=tmp_path / "r", resume=True, quiet=True)  # not its own numbers
    assert again.config["resumed"] == run.config["resumed"] and again.metrics["epochs"] == 3


def test_training_and_evaluation_take_arrays(tmp_path):
    digits = kzoo.load_data("digits").splits["train"]
    pair = digits.images[:200], digits.labels[:200]
    run = kzoo.train("mnist_softmax", pair, epochs=1, out=tmp_path / "r", quiet=True)
    assert run.config["data"] == "arrays" and kzoo.evaluate(run, pair, split="test", quiet=True).images == 40
    more = kzoo.train(data=pair, out=tmp_path / "r", resume=True, epochs=2, quiet=True)
    assert more.metrics["epochs"] == 2
    with pytest.raises(kzoo.KzooError, match=r"are needed again: data=\(images, labels\)"):
        kzoo.evaluate(run, quiet=True)


# --- a Keras model of the user's own ------------------------------------------------------------------------


def mine(end="softmax", outputs=10):
    """As in a notebook: augmentation, scaling, a nested model, dropout, a regulariser."""
    inner = [keras.Input((28, 28, 1)), layers.Conv2D(2, 3, strides=2), layers.BatchNormalization(), layers.ReLU()]
    more = [layers.Flatten(), layers.Dropout(0.2), layers.Dense(outputs, activation=end, kernel_regularizer="l2")]
    front = [keras.Input((28, 28, 1)), layers.RandomTranslation(0.1, 0.1), layers.Rescaling(1 / 255)]
    return keras.Sequential([*front, keras.Sequential(inner, name="inner"), *more], name="mine")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """(a Keras model, the folder of its run)."""
    model, folder = mine(), tmp_path_factory.mktemp("own") / "r"
    kzoo.train(model, "digits", epochs=2, precision="float32", out=folder, quiet=True)
    return model, folder


def test_a_copy_of_a_keras_model_is_trained_from_its_weights(own):
    model, folder = own
    pixels = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1)).astype("float32")
    start = runs.read_model(folder / "start.keras")  # as the user's model is, before and after
    logits = keras.ops.convert_to_numpy(start(pixels, training=False))
    np.testing.assert_allclose(keras.ops.softmax(logits), model(pixels, training=False), rtol=1e-4)
    run = kzoo.load_run(folder)
    assert run.config["model"] == "mine" and not np.allclose(run.model(pixels, training=False), logits)
    assert kzoo.load(folder).evaluate(split="val").images == 180
    assert run.preprocessing.scale == 1.0 and run.config["keras_model"]["notes"][1].startswith("The softmax at its end")


@pytest.mark.deep("2026-11-27")
def test_a_run_of_a_keras_model_resumes_to_the_bit(own, tmp_path, monkeypatch):
    model, folder = own
    with monkeypatch.context() as patch:
        finish = RunKeeper.on_epoch_end
        patch.setattr(
            RunKeeper, "on_epoch_end", lambda self, *a: (os.kill(os.getpid(), signal.SIGINT), finish(self, *a))
        )
        with pytest.raises(Interrupted):
            kzoo.train(model, "digits", epochs=2, precision="float32", out=tmp_path / "r", quiet=True)
    with pytest.raises(RunError, match="did not begin with this model or these weights: leave it out"):
        kzoo.train(mine(), out=tmp_path / "r", resume=True)
    kzoo.train(out=tmp_path / "r", resume=True, quiet=True)
    same_run(folder, tmp_path / "r")


@pytest.mark.parametrize(
    ("end", "outputs", "options", "reason"),
    [
        (
            None,
            7,
            {},
            r"mine has 7 outputs, and digits needs 10, one for each class: end it with keras.layers.Dense\(10",
        ),
        ("sigmoid", 10, {}, r"mine ends in sigmoid; classification takes logits \(no activation\) or softmax"),
        ("relu", 10, {}, "mine ends in relu; classification takes"),
        (None, 10, {"weights": "imagenet"}, "begins with the weights that it has"),
        (None, 10, {"depth": 3}, "Unknown option of mine 'depth'"),
    ],
)
def test_keras_models_that_do_not_fit(end, outputs, options, reason, tmp_path):
    with pytest.raises(KzooError, match=reason):
        kzoo.train(mine(end, outputs), "digits", out=tmp_path / "r", **options)
    assert not (tmp_path / "r").exists()


def test_a_keras_model_whose_layers_are_all_frozen_is_refused(tmp_path):
    model = mine("softmax", 10)
    model.trainable = False
    with pytest.raises(KzooError, match="Nothing of mine trains"):
        kzoo.train(model, "digits", out=tmp_path / "r")


def test_the_command_takes_a_file_of_a_keras_model(tmp_path, kzoo_command):
    model = keras.Sequential([keras.Input((28, 28, 1)), layers.Flatten(), layers.Dense(10)])
    model.save(tmp_path / "flat.keras")
    given = ("train", tmp_path / "flat.keras", "--data", "digits", "--epochs", 1, "--out", tmp_path / "r")
    code, _, err = kzoo_command(*given)
    assert code == 1 and "flat.keras has no layer that scales pixels" in err
    code, _, err = kzoo_command(*given, "--pixels", "0..1")
    assert code == 0 and err.startswith("flat on digits: 10 classes")
    assert kzoo.load_run(tmp_path / "r").preprocessing.scale == 1 / 255
    code, _, err = kzoo_command("train", "mnist_softmax", "--pixels", "0..1", "--out", tmp_path / "s")
    assert code == 1 and "networks of the catalog know it" in err
