"""Fine-tuning on masks: a pretrained encoder, a new decoder, stages, and what every run can do."""

import json

import numpy as np
import pytest
from support.tuning import SHAPE, Killed, finetune_folder, same

import kzoo
from kzoo import runs
from kzoo.data.dataset import DataSet, Split
from kzoo.finetuning.backbone import MaskNetwork, backbone
from kzoo.finetuning.checkpoint import StageCheckpoint
from kzoo.finetuning.stages import moving_variables, set_trainable

COLOURS = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200]])


def blocks(**counts):
    """Pictures of 4 x 4 blocks of three colours, and their masks."""
    rng, splits = np.random.default_rng(0), {}
    for part, n in counts.items():
        masks = rng.integers(0, 3, (n, 4, 4)).astype("uint8").repeat(4, 1).repeat(4, 2)
        pictures = (COLOURS[masks] + rng.integers(0, 40, (n, 16, 16, 3))).astype("uint8")
        splits[part] = Split(pictures, masks, [f"{part}/{i}" for i in range(n)])
    return DataSet("blocks", ("red", "green", "blue"), splits)


def tune(world, out, data=None, **options):
    given = {"weights": world / "weights.npz", "precision": "float32", "quiet": True, "seed": 1, **options}
    return finetune_folder(data or blocks(train=32, val=12, test=8), "resnet20", out=out, **given)


def test_the_decoder_trains_and_the_encoder_does_not(world):
    base = backbone("resnet20", str(world / "weights.npz"), input_shape=SHAPE, precision="float32")
    made = MaskNetwork(base, ("a", "b"), seed=0)
    with np.load(world / "weights.npz") as given:
        for v in made.encoder.weights:
            np.testing.assert_array_equal(np.asarray(v), given[v.path])
    factors = set_trainable(made.model, [], made.decoder)
    assert {path.split("/")[0] for path in factors} == set(made.decoder)
    np.testing.assert_allclose(list(factors.values()), 3.0)
    moving = moving_variables(made.model)
    assert not moving.keys() & {v.path for v in made.encoder.weights}
    assert "up1_bn1/moving_mean" in moving and "up1_bn1/moving_mean" not in factors


def test_wrong_options_and_data_are_refused_in_a_line(world, tmp_path):
    cases = (
        ({"mix": "mixup", "views": 2}, r"--views 2 and --mix mixup: for one class an image, and the data has masks"),
        ({"unfreeze": "conv9"}, "Unknown stage 'conv9'"),
        ({"class_weights": {"gren": 2.0}}, "Unknown class 'gren'"),
        ({"input_shape": (18, 18, 3)}, "18x18"),
        ({"data": blocks(train=6)}, "too few pictures to validate on"),
    )
    for options, message in cases:
        with pytest.raises(kzoo.KzooError, match=message):
            tune(world, tmp_path / "r", **options)
        if "data" not in options:
            assert not (tmp_path / "r").exists()


@pytest.mark.deep("2026-11-27")
def test_a_run_on_masks_does_what_every_run_does(world, tmp_path, monkeypatch):
    data = blocks(train=32, val=12, test=8)
    options = {"epochs": 8, "unfreeze": "8x8", "class_weights": "balanced", "label_smoothing": 0.05}
    folder = tune(world, tmp_path / "run", data, **options)
    run, metrics = kzoo.load_run(folder), json.loads((folder / "metrics.json").read_text())
    assert run.task.name == "segmentation" and run.config["model"] == "unet_same" and run.input_shape == SHAPE
    assert metrics["winner"] != "decoder" and metrics["test_mean_iou"] > 0.8
    assert kzoo.evaluate(run, data, quiet=True).mean_iou == pytest.approx(metrics["test_mean_iou"], abs=1e-3)
    phases = json.loads((folder / "report.json").read_text())["phases"]
    assert phases[0]["name"] == "decoder" and all(p["audit"]["ok"] for p in phases)
    assert "mean IoU of 8 pictures" in (folder / "report.html").read_text()
    assert {row["phase"] for row in runs.read_csv(folder / "history.csv")} == {p["name"] for p in phases}
    export = kzoo.export(run, out=tmp_path / "export", quiet=True)
    assert kzoo.verify(export)["ok"]

    def kill(self, **state):
        original(self, **state)
        if len(self.done) == 1:  # after an epoch of the first stage
            raise Killed

    original = StageCheckpoint.save_stage
    monkeypatch.setattr(StageCheckpoint, "save_stage", kill)
    with pytest.raises(Killed):
        tune(world, tmp_path / "again", data, **options)
    monkeypatch.undo()
    assert finetune_folder(data, out=tmp_path / "again", resume=True, quiet=True) == tmp_path / "again"
    same(folder, tmp_path / "again")
