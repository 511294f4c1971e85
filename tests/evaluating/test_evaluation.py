"""Evaluation: what is counted, and on which images."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from support.tuning import draw, tune

import kzoo
from kzoo.catalog import Preprocessing
from kzoo.data.dataset import DataSet, Split
from kzoo.errors import DataError, RunError


def test_evaluate_counts_right(trained, kzoo_command):
    result = kzoo.evaluate(trained, quiet=True)
    data = kzoo.load_data("digits").splits["test"]
    import tensorflow as tf

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


def test_evaluate_knows_the_photos_by_another_path_and_says_what_was_trained_on(world, tmp_path, capsys):
    photos = draw(tmp_path / "photos", {("red", "."): 20, ("blue", "."): 20})
    folder = tune(world, tmp_path / "r", photos, unfreeze="none")
    own = kzoo.evaluate(folder, quiet=True)
    other = kzoo.evaluate(folder, f"{photos}/.", quiet=True)
    assert (own.split, own.images, own.top1) == (other.split, other.images, other.top1) and own.split == "test"
    assert "was trained on images of this part" not in capsys.readouterr().err
    kzoo.evaluate(folder, split="val", quiet=True)
    assert "was trained on images of this part (val)" in capsys.readouterr().err
    for name in ("red", "blue"):
        for n in range(20):
            (photos / name / f"{n}.png").rename(photos / name / f"new{n}.png")
    with pytest.raises(DataError, match=r"None of the images .* renamed\?"):
        kzoo.evaluate(folder, quiet=True)


def test_other_data_is_measured_whole_and_keeps_files_of_its_own(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 6, 6, 1)).astype("uint8"), np.arange(60) % 3
    np.savez(tmp_path / "own.npz", images=images, labels=labels, classes=["a", "b", "c"])
    run = kzoo.train("mnist_softmax", tmp_path / "own.npz", epochs=1, out=tmp_path / "r", quiet=True)
    own = kzoo.evaluate(run, quiet=True)
    assert own.split == "test" and own.images == 12 and own.files() == ["evaluation-test.json", "confusion-test.png"]
    copy = tmp_path / "copy.npz"
    copy.write_bytes((tmp_path / "own.npz").read_bytes())
    assert kzoo.evaluate(run, copy, quiet=True).split == "test", "the run's own data at another path"
    before = (tmp_path / "r" / "evaluation-test.json").read_bytes()

    two = labels < 2
    np.savez(tmp_path / "other.npz", images=255 - images[two], labels=labels[two], classes=["a", "b"])
    other = kzoo.evaluate(run, tmp_path / "other.npz", quiet=True)
    assert (other.split, other.images) == ("all", 40), "never divided"
    np.savez(tmp_path / "one.npz", images=images[:8], labels=np.zeros(8, int), classes=["b"])
    one = kzoo.evaluate(run, tmp_path / "one.npz", quiet=True)
    assert one.images == 8 and one.per_class[1]["images"] == 8, "one class alone, in the run's numbering"
    np.savez(tmp_path / "test.npz", x_test=images[:9], y_test=labels[:9], classes=["a", "b", "c"])
    assert kzoo.evaluate(run, tmp_path / "test.npz", quiet=True).images == 9, "a test part alone"
    np.savez(tmp_path / "empty.npz", images=images[:9], labels=labels[:9], classes=["a", "b", "c", "never"])
    assert kzoo.evaluate(run, tmp_path / "empty.npz", quiet=True).images == 9, "a class without images is no matter"

    names = {p.name for p in (tmp_path / "r").glob("evaluation-*.json")}
    assert len(names) == 5 and {f for e in (own, other, one) for f in e.files() if f.endswith("json")} <= names
    assert (tmp_path / "r" / "evaluation-test.json").read_bytes() == before and "stem" not in other.to_dict()
    with pytest.raises(RunError, match="classes 'never', which"):
        np.savez(tmp_path / "x.npz", images=images[:4], labels=[0, 1, 2, 3], classes=["a", "b", "c", "never"])
        kzoo.evaluate(run, tmp_path / "x.npz", quiet=True)


def test_a_run_of_rules_1_says_that_it_did_not_crop_arrays(trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "r")
    config = json.loads((tmp_path / "r" / "config.json").read_text())
    before = config["preprocessing"]
    images, labels = np.zeros((10, 28, 28, 1), "uint8"), np.arange(10)
    for rules, crop, side, said in (
        (1, 0.875, 28, True),
        (1, 0.875, 27, False),
        (1, 1.0, 28, False),
        (2, 0.5, 28, False),
    ):
        config["preprocessing"] = {**before, "rules": rules, "crop": crop}
        config["preprocessing_sha256"] = Preprocessing.from_dict(config["preprocessing"]).fingerprint((28, 28, 1))
        (tmp_path / "r" / "config.json").write_text(json.dumps(config))
        part = Split(images[:, :side, :side], labels, [str(i) for i in labels])
        kzoo.evaluate(tmp_path / "r", DataSet("d", tuple(config["classes"]), {"test": part}), quiet=True)
        assert ("did not crop arrays of the model's size" in capsys.readouterr().err) == said
