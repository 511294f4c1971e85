"""What an export is made from: a run's parts, its classes, its weights."""

from types import SimpleNamespace

import numpy as np
import pytest
from support.tuning import draw, tune

import kzoo
from kzoo import runs


def test_an_export_has_the_parts_of_the_run_and_the_licence_of_its_weights(head_only):
    """What only measured is the test part, whatever its owner called it; what chose and then trained is neither."""
    from kzoo.source import find_source

    source = find_source(head_only)
    parts = {
        name: {row["id"] for row in runs.read_csv(head_only / "splits.csv") if row["split"] == name}
        for name in ("train", "val", "test")
    }
    assert parts["val"] and set(map(str, source.splits["refit"].ids)) == parts["val"]
    assert "val" not in source.splits
    assert set(map(str, source.splits["test"].ids)) == parts["test"]
    assert not parts["train"] & (parts["val"] | parts["test"])
    assert source.facts["weights_sha256"] and source.facts["finetune"]["unfreeze"] == "none"


def test_nothing_is_calibrated_on_photos_that_the_head_was_fitted_on(head_only, world, tmp_path, kzoo_command):
    code, _, err = kzoo_command("export", head_only, "--out", tmp_path / "x", "--abstain", "0.8")
    assert code == 1 and "not trained on" in err and "val/ and test/" in err and not (tmp_path / "x").exists()
    draw(tmp_path / "photos", {(p, c): n for p, n in (("train", 24), ("val", 6), ("test", 4)) for c in ("red", "blue")})
    run = tune(world, tmp_path / "r", tmp_path / "photos", unfreeze="none")
    from kzoo.source import find_source

    assert {k: len(s) for k, s in find_source(run).splits.items()} == {"val": 12, "test": 8}, (
        "no training on one's own val"
    )


def test_the_test_part_only_measures(tmp_path):
    """Without a validation part, golden images and int8 ranges come from the training part."""
    from kzoo import source as module
    from kzoo.exporting.write import representative_images
    from kzoo.tasks.classification import TASK

    folder = str(draw(tmp_path / "photos", {("", c): 8 for c in ("red", "blue")}))
    data = kzoo.load_data(folder, val_fraction=0.0, test_fraction=0.25, seed=3)
    config = dict(data=folder, seed=3, val_fraction=0.0, test_fraction=0.25, division=2, fingerprint=data.fingerprint())
    prep = kzoo.Preprocessing()
    run = SimpleNamespace(config=config, path=tmp_path / "run", classes=data.classes, preprocessing=prep)
    splits = module._splits(run)
    assert {name: split.ids for name, split in splits.items()} == {n: s.ids for n, s in data.splits.items()}
    assert {*splits} == {"train", "test"}
    model = SimpleNamespace(input_shape=(None, 20, 20, 3))
    source = module.Source("x", model, data.classes, kzoo.Preprocessing(), TASK, splits)
    assert {name for name, _, _ in module.candidates(source)} == set(splits["train"].ids)
    assert representative_images(source).shape == (12, 20, 20, 3)
    source.splits = {"test": splits["test"]}
    assert representative_images(source) is None
    assert not {name for name, _, _ in module.candidates(source)} & set(splits["test"].ids)


def test_a_classifier_of_other_classes_is_not_exported_as_one_of_imagenet(tmp_path):
    own = kzoo.build("mnist_softmax", num_classes=4, seed=1)
    own.save_weights(tmp_path / "own.weights.h5")
    with pytest.raises(kzoo.KzooError, match=r"wrong shape: predictions/kernel has \(784, 4\)"):
        kzoo.export("mnist_softmax", weights=tmp_path / "own.weights.h5", out=tmp_path / "x", quiet=True)
    assert not (tmp_path / "x").exists()
    from kzoo.source import find_source

    source = find_source("mnist_softmax", weights=tmp_path / "own.weights.h5", classes=list("abcd"))
    assert source.classes == tuple("abcd") and "published" not in source.facts
    np.testing.assert_array_equal(source.model.get_layer("predictions").kernel, own.get_layer("predictions").kernel)
