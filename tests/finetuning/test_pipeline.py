"""Fine-tuning: from photos to an honest run; what is frozen stays; what fails is said; kills cost little."""

import json
import os
import shutil

import keras
import numpy as np
import pytest
from keras import layers
from support import tags
from support.training import weights_of
from support.tuning import SHAPE, Killed, draw, finetune_folder, same, tune

import kzoo
from kzoo import runs
from kzoo.errors import DataError, RunError
from kzoo.finetuning import backbone, stage_training


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
    assert result.images == 16 and result.split == "test"
    np.testing.assert_allclose(result.top1, metrics["test_accuracy"])
    np.testing.assert_allclose(result.loss, metrics["test_loss"], rtol=1e-3)
    parts = [row["split"] for row in runs.read_csv(head_only / "splits.csv")]
    assert {p: parts.count(p) for p in set(parts)} == {"train": 38, "val": 10, "test": 16}
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
    with pytest.raises(RunError, match="needs validation photos"):
        tune(world, tmp_path / "s", photos, unfreeze="all")


def test_shots_use_so_many_photos_and_no_others(world, tmp_path):
    folder = tune(world, tmp_path / "r", shots=3, seed=4)
    rows = runs.read_csv(folder / "splits.csv")
    assert [r["label"] for r in rows if r["split"] == "train"].count("red") == 3
    assert sum(r["split"] == "train" for r in rows) == 6 and sum(r["split"] == "test" for r in rows) == 16
    with pytest.raises(kzoo.KzooError, match="too few photos to validate"):
        tune(world, tmp_path / "s", shots=3, unfreeze="all")


def test_data_that_can_not_be_used_leave_no_folder(world, tmp_path):
    photos = draw(tmp_path / "photos", {("", "red"): 6, ("", "blue"): 6})
    with pytest.raises(DataError, match="needs 6 training photos of each class"):
        tune(world, tmp_path / "r", photos, shots=6)  # some of the six are the test part
    assert not (tmp_path / "r").exists()
    kept = tmp_path / "kept"
    with pytest.raises(ZeroDivisionError), runs.locked(runs.new_folder(kept, "m", "d")):
        (kept / "config.json").write_text("{}")
        raise ZeroDivisionError
    assert (kept / "config.json").exists()
    with pytest.raises(ZeroDivisionError), runs.locked(kept):  # that the folder is gone hides no error
        shutil.rmtree(kept)
        raise ZeroDivisionError


def test_duplicates_stay_together_and_the_test_part_is_drawn(world, tmp_path):
    photos = draw(tmp_path / "photos", {("", "red"): 20, ("", "blue"): 20})
    for i in range(10):
        shutil.copy(photos / "red" / f"{i}.png", photos / "red" / f"copy{i}.png")
    folder = tune(world, tmp_path / "r", photos, unfreeze="none")
    part = {row["id"]: row["split"] for row in runs.read_csv(folder / "splits.csv")}
    assert set(part.values()) == {"train", "val", "test"}
    for i in range(10):
        assert part[f"red/{i}.png"] == part[f"red/copy{i}.png"]
    metrics = json.loads((folder / "metrics.json").read_text())
    np.testing.assert_allclose(kzoo.evaluate(folder, quiet=True).top1, metrics["test_accuracy"])


def test_duplicates_stay_together_in_the_same_way_when_the_photos_were_seen_before(world, tmp_path, monkeypatch):
    """Folds are drawn by the numbers of groups: a scan and what is remembered of it must give the same."""
    from kzoo.finetuning import pipeline as module

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
    monkeypatch.setitem(registry.ROWS, "own_resnet", row)
    options = {"weights": "mine", "input_shape": SHAPE, "precision": "float32", "unfreeze": "none", "quiet": True}
    folder = finetune_folder(world / "photos", "own_resnet", out=tmp_path / "r", **options)
    before = (folder / "model.keras").stat().st_mtime_ns
    (folder / "metrics.json").unlink()  # as a kill before the end leaves it
    finetune_folder(out=folder, resume=True, quiet=True)
    assert (folder / "metrics.json").exists() and (folder / "model.keras").stat().st_mtime_ns > before


def test_arrays_of_other_channels_are_refused_in_one_line(world, tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 4)).astype("uint8")
    np.savez(tmp_path / "a.npz", images=x, labels=np.arange(40) % 2)
    with pytest.raises(DataError, match="have 4 channels, the model takes 3"):
        tune(world, tmp_path / "r", tmp_path / "a.npz")


@pytest.mark.parametrize(
    "shape, reason",
    [((28, 28, 4), "they take 1 channels"), ((40, 40, 1), "fc1 takes 3,136 features, the model's 6,400")],
)
def test_an_input_shape_that_the_weights_do_not_fit_is_refused_before_there_is_a_folder(
    world, tmp_path, monkeypatch, shape, reason
):
    monkeypatch.setenv("KZOO_FEATURES", str(tmp_path / "cache"))
    with pytest.raises(RunError) as e:
        kzoo.finetune(world / "photos", "mnist_cnn", out=tmp_path / "r", input_shape=shape, quiet=True)
    assert reason in str(e.value).replace("the model's takes", "the model's") and "\n" not in str(e.value)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("phase", ["features", "head", "report"])
def test_killed_before_deeper_layers_and_resumed(world, head_only, tmp_path, monkeypatch, phase):
    from kzoo.finetuning import features
    from kzoo.finetuning import pipeline as module

    if phase == "features":  # behind the first segment
        monkeypatch.setenv("KZOO_FEATURES", str(tmp_path / "cache"))
        monkeypatch.setattr(features, "MAX_SEGMENT_IMAGES", features.BATCH)
    place = {"features": (features.Cache, "add"), "head": (module, "fill"), "report": (module, "_report")}[phase]
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


def test_resuming_with_other_settings_is_refused(world, head_only):
    with pytest.raises(RunError, match="seed: the run has 0, this command 5"):
        finetune_folder(out=head_only, resume=True, seed=5, quiet=True)
    assert finetune_folder(out=head_only, resume=True, quiet=True) == head_only, "finished"
    with pytest.raises(RunError, match="holds a run already"):
        tune(world, head_only)


@pytest.mark.slow
@pytest.mark.deep("2026-11-27")
def test_ants_and_bees(shared, tmp_path, monkeypatch):
    if not (shared / "hymenoptera").is_dir() or not (shared / "weights").is_dir():
        pytest.skip("needs hymenoptera and weights in the shared data")
    monkeypatch.setenv("KZOO_FEATURES", os.environ.get("KZOO_FEATURES") or str(tmp_path / "features"))
    for model, least in (("mobilenet_v2", 0.96), ("squeezenet1_1", 0.89)):
        folder = finetune_folder(shared / "hymenoptera", model, out=tmp_path / model, unfreeze="none", quiet=True)
        assert json.loads((folder / "metrics.json").read_text())["test_accuracy"] >= least


@pytest.fixture(scope="module")
def several(world, tmp_path_factory):
    """A run with several labels a photo: drawn stripes, of which the tint of a stripe is a label."""
    root = tmp_path_factory.mktemp("several")
    return tune(world, root / "run", tags.write(root / "data", 200, parts=True), unfreeze="none")


def test_several_labels_get_a_head_for_each_class(several, kzoo_command):
    config, metrics = (json.loads((several / f"{n}.json").read_text()) for n in ("config", "metrics"))
    assert config["task"] == "multilabel" and metrics["winner"] == "head" and metrics["refit"]
    run = kzoo.load_run(several)
    assert run.task.decision == metrics["decision"] and "validation images" in metrics["decision"]["reason"]
    result = kzoo.evaluate(run, quiet=True)
    assert result.images == 100 and result.split == "test"
    np.testing.assert_allclose(result.mean_average_precision, metrics["test_mean_average_precision"], rtol=1e-3)
    np.testing.assert_allclose(result.loss, metrics["test_loss"], rtol=1e-3)
    assert result.mean_average_precision > 0.6, "random features of stripes tell something"
    report = json.loads((several / "report.json").read_text())
    assert [r["class"] for r in report["several"]["test"]["per_class"]] == list(tags.CLASSES)
    page = (several / "report.html").read_text()
    assert "average precision" in page and "Confusion" not in page and metrics["decision"]["reason"][:30] in page
    assert [r["kind"] for r in report["head"]["cross_validation"]] and report["head"]["kind"] == "one-vs-rest"
    assert runs.read_csv(several / "history.csv")[0]["val_mean_average_precision"]
    code, out, _ = kzoo_command("predict", several, several.parent / "data/p/000.png", "--json")
    assert code == 0 and "labels" in json.loads(out)[0]


def test_options_for_one_class_are_refused_with_several_labels(world, several, tmp_path):
    table = several.parent / "data/tags.csv"
    for name, value, said in (
        ("shots", 3, "--shots 3"),
        ("class_weights", "balanced", "--class-weights"),
        ("label_smoothing", 0.1, "--label-smoothing 0.1"),
        ("focal", 2.0, "--focal 2"),
        ("mix", "mixup", "--mix mixup"),
    ):
        with pytest.raises(RunError, match=f"{said}: for one class an image"):
            tune(world, tmp_path / "r", table, **{name: value})
    assert not (tmp_path / "r").exists()


def test_a_label_of_every_photo_is_refused(world, tmp_path):
    images, labels = tags.drawn(30)
    labels[:, 1] = 1
    np.savez(tmp_path / "x.npz", images=images, labels=labels)
    with pytest.raises(DataError, match="Every training photo has the class '1'"):
        tune(world, tmp_path / "r", tmp_path / "x.npz")


def test_a_run_is_not_resumed_from_other_weights(world, head_only, tmp_path):
    arrays = dict(np.load(world / "weights.npz"))
    np.savez(tmp_path / "other.npz", **{name: array + 1 for name, array in arrays.items()})
    for changed, reason in (
        ({"weights": tmp_path / "other.npz"}, "did not begin with this model or these weights: leave it out"),
        ({"model": "plain20"}, 'model: the run has "resnet20", this command "plain20"'),
    ):
        options = {"model": "resnet20", "weights": world / "weights.npz", **changed}
        with pytest.raises(RunError, match=reason):
            finetune_folder(out=head_only, resume=True, quiet=True, **options)


# --- a Keras model of the user's own ------------------------------------------------------------------------


def mine():
    inner = [keras.Input(SHAPE), layers.Conv2D(6, 3, strides=2), layers.BatchNormalization(), layers.ReLU()]
    end = [layers.GlobalAveragePooling2D(), layers.Dropout(0.2), layers.Dense(3, activation="softmax", name="end")]
    return keras.Sequential(
        [keras.Input(SHAPE), layers.RandomFlip(), layers.Rescaling(1 / 255), keras.Sequential(inner), *end], name="mine"
    )


def test_a_keras_model_is_a_backbone(world, tmp_path, kzoo_command):
    model = mine()
    run = kzoo.finetune(world / "photos", model, unfreeze="none", precision="float32", out=tmp_path / "r", quiet=True)
    assert run.config["model"] == "mine" and run.classes == ("blue", "red")
    pixels = np.random.default_rng(0).integers(0, 256, (4, *SHAPE)).astype("float32")
    features = keras.Model(model.inputs[0], model.get_layer("end").input)(pixels, training=False)
    head = run.model.get_layer("predictions")
    np.testing.assert_allclose(run.model(pixels, training=False), head(features), rtol=1e-4)
    # The file of the same model has the same features, and a finished run says so without the model.
    model.save(tmp_path / "mine.keras")
    given = ("--model", tmp_path / "mine.keras", "--unfreeze", "none", "--precision", "float32")
    code, _, err = kzoo_command("finetune", world / "photos", *given, "--out", tmp_path / "s")
    assert code == 0 and "Its last layer, end with 3 outputs, is left out" in err and "Features: 0 computed" in err
    code, _, err = kzoo_command("finetune", "--resume", "--out", tmp_path / "r")
    assert code == 0 and f"{tmp_path / 'r'} is finished." in err
    for other in (mine(), "resnet20"):
        with pytest.raises(RunError, match="did not begin with this model or these weights: leave it out"):
            kzoo.finetune(model=other, out=tmp_path / "r", resume=True, quiet=True)
    with pytest.raises(RunError, match="begins with the weights that it has"):
        kzoo.finetune(world / "photos", model, weights="imagenet")
    with pytest.raises(RunError, match="networks of the catalog know it"):
        kzoo.finetune(world / "photos", "resnet20", pixels="0..1")


@pytest.mark.slow
@pytest.mark.deep("2026-11-27")
def test_deeper_layers_of_a_keras_model_resume_to_the_bit(world, tmp_path, monkeypatch):
    model, options = mine(), {"unfreeze": "all", "epochs": 2, "precision": "float32", "quiet": True}
    kzoo.finetune(world / "photos", model, out=tmp_path / "whole", **options)
    count, finish = iter(range(9)), stage_training.StageKeeper.on_epoch_end

    def kill(self, *args):
        finish(self, *args)
        if next(count) == 1:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(stage_training.StageKeeper, "on_epoch_end", kill)
        kzoo.finetune(world / "photos", model, out=tmp_path / "part", **options)
    kzoo.finetune(out=tmp_path / "part", resume=True, quiet=True)
    same(tmp_path / "whole", tmp_path / "part")
