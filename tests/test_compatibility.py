"""What kzoo 0.1.0 left: its runs load, resume, evaluate and predict as they did, its exports verify, its cache is
computed anew.

fixtures/kzoo-0.1.0.zip was made by 0.1.0 on 48 of scikit-learn's digits: `run` and `interrupted` (mnist_cnn of 2 and 4
filters; the second was stopped after one of two epochs), `finetuned` (lenet5's shipped weights, a new head), `exported`
(of `run`), `features` (the cache of the fine-tuning) and answers.json, what 0.1.0 answered.
"""

import json
import shutil
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

import kzoo
from kzoo import runs
from kzoo.finetuning.pipeline import finetune_run

FIXTURE = Path(__file__).parent / "fixtures" / "kzoo-0.1.0.zip"


@pytest.fixture
def old(tmp_path, monkeypatch):
    """The folder with what 0.1.0 left, as the current folder: paths in it are relative."""
    with zipfile.ZipFile(FIXTURE) as archive:
        archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answers(old, what):
    return json.loads((old / "answers.json").read_text())[what]


def pictures():
    return sorted(str(p) for p in Path("photos/val").rglob("*.png"))


def same_answers(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert a["image"] == b["image"] and [t["class"] for t in a["top"]] == [t["class"] for t in b["top"]]
        for x, y in zip(a["top"], b["top"], strict=True):
            assert abs(x["probability"] - y["probability"]) < 1e-4


def weights(folder):
    return {v.path: keras.ops.convert_to_numpy(v) for v in kzoo.load_run(folder).model.weights}


@pytest.mark.parametrize("what", ["run", "finetuned", "exported"])
def test_predicts_as_it_did(old, what):
    same_answers(kzoo.predict(what, pictures()), answers(old, what))


def test_evaluates_as_it_did(old):
    found, expected = kzoo.evaluate("run", split="val", quiet=True), answers(old, "evaluation")
    assert found.top1 == expected["top1"] and abs(found.loss - expected["loss"]) < 1e-4
    run = kzoo.load_run("run")
    assert run.task.name == "classification" and not run.refit


def test_an_interrupted_run_is_resumed_to_what_the_whole_one_became(old):
    run = kzoo.train(out="interrupted", resume=True, quiet=True)
    assert [row["epoch"] for row in runs.read_csv(run.path / "history.csv")] == ["1", "2"]
    whole = weights("run")
    for path, value in weights("interrupted").items():
        np.testing.assert_allclose(value, whole[path], atol=1e-5, err_msg=path)


def test_a_finished_run_is_finished_and_other_settings_are_refused(old, capsys):
    kzoo.train(out="run", resume=True)
    assert "is finished: 2 epochs" in capsys.readouterr().err
    with pytest.raises(kzoo.KzooError, match="seed: the run has 3, this command 4"):
        kzoo.train(out="run", resume=True, seed=4)


def test_a_fine_tuned_run_has_the_parts_that_later_ones_have(old):
    run = kzoo.load_run("finetuned")
    parts = [row["split"] for row in run.division()]
    assert {p: parts.count(p) for p in set(parts)} == {"train": 29, "val": 7, "test": 12} and run.refit
    assert kzoo.evaluate(run, quiet=True).split == "test"
    assert finetune_run(None, None, {}, out="finetuned", resume=True, quiet=True) == Path("finetuned")


def test_a_fine_tuning_that_was_killed_is_resumed(old, monkeypatch):
    monkeypatch.setenv("KZOO_FEATURES", str(old / "features"))
    before = weights("finetuned")
    (old / "finetuned" / "metrics.json").unlink()  # written last
    finetune_run(None, None, {}, out="finetuned", resume=True, quiet=True)
    metrics = json.loads((old / "finetuned" / "metrics.json").read_text())
    # Those of 0.1.0 are not found: nothing says of which code, Keras and TensorFlow they are.
    assert metrics["features_computed"] == 48
    for path, value in weights("finetuned").items():  # the head is fitted nearer to its optimum than by 0.1.0
        near = 0.02 * np.abs(before[path]).max() if path.startswith("predictions/") else 1e-5
        np.testing.assert_allclose(value, before[path], atol=near, err_msg=path)


def test_an_export_verifies_and_is_replaced_only_by_force(old):
    assert kzoo.verify("exported")["ok"]
    with pytest.raises(kzoo.KzooError, match="exists"):
        kzoo.export("run", out="exported", measure=0, quiet=True)


def test_a_run_of_another_kind_is_refused_in_one_line(old):
    with pytest.raises(kzoo.KzooError, match="is not a kzoo finetune run"):
        finetune_run(None, None, {}, out="run", resume=True)
    shutil.copy("run/config.json", "photos/config.json")
    with pytest.raises(kzoo.KzooError, match=r"has no model\.keras"):
        kzoo.load_run("photos")


def test_a_keras_file_loads_where_kzoos_layers_are_registered(old):
    model = keras.saving.load_model("run/model.keras", compile=False, safe_mode=True)
    assert model.output_shape == (None, 3)


def test_a_run_that_was_divided_by_the_rules_of_0_1_0_keeps_its_parts(tmp_path, monkeypatch, capsys):
    """0.1.0 let equal copies fall into different parts; its config.json knows no rules of division."""
    x = np.random.default_rng(0).integers(0, 256, (40, 8, 8)).astype("uint8")
    np.savez(tmp_path / "x.npz", images=np.concatenate([x, x]), labels=np.r_[np.arange(40) % 2, np.arange(40) % 2])
    monkeypatch.setattr("kzoo.training.loop.DIVISION", 1)
    run = kzoo.train("mnist_softmax", tmp_path / "x.npz", epochs=1, out=tmp_path / "run", quiet=True)
    monkeypatch.undo()
    config = runs.read_json(tmp_path / "run" / "config.json")
    assert config.pop("division") == 1
    runs.write_json(tmp_path / "run" / "config.json", config)
    assert kzoo.load_data(tmp_path / "x.npz").fingerprint() != config["fingerprint"], "else this test says nothing"
    capsys.readouterr()
    kzoo.train(None, None, out=tmp_path / "run", resume=True, quiet=True)
    assert kzoo.evaluate(tmp_path / "run", split="test", quiet=True).images == 16
    assert "has changed" not in capsys.readouterr().err
    new = kzoo.train("mnist_softmax", tmp_path / "x.npz", epochs=1, out=tmp_path / "new", quiet=True)
    assert new.config["division"] == 2
    assert new.config["fingerprint"] == kzoo.load_data(tmp_path / "x.npz").fingerprint() != run.config["fingerprint"]
