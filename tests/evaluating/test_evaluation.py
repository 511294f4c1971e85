"""Evaluation: what is counted, and on which images."""

import json

import numpy as np
import pytest
from PIL import Image
from support.tuning import draw, tune

import kzoo
from kzoo.errors import DataError, RunError


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
