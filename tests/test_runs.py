"""The run folder: what it holds, what may not be overwritten, what is found damaged."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
from support.training import history_of

import kzoo
from kzoo import runs
from kzoo.errors import RunError


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
    for name in ("labels.txt", "splits.csv"):  # a run's are written before config.json, without which it is no run
        (out / name).write_text("")
    with pytest.raises(RunError, match="exists and is not a kzoo run"):  # a user's files of these names
        runs.new_folder(out, "m", "d")
    (out / runs.LOCK).touch()
    kzoo.train("mnist_softmax", "digits", epochs=1, quiet=True, out=out)
    assert not list(out.glob(".tmp-*"))
    (out / "splits.csv").unlink()
    kzoo.train(out=out, resume=True, quiet=True)
    assert len(runs.read_csv(out / "splits.csv")) == 1797
    for text in ("{}", "[1]", '{"model": "mnist_softmax"}'):
        (out / "config.json").write_text(text)
        with pytest.raises(RunError, match="is not a kzoo run"):
            kzoo.load_run(out)


def test_config_json_is_written_last(tmp_path, monkeypatch):
    def full(*args):
        raise OSError("disk full")

    monkeypatch.setattr(runs, "write_csv", full)
    with pytest.raises(OSError, match="disk full"):
        runs.record(tmp_path, {"model": "m"}, kzoo.load_data("digits"))
    assert [p.name for p in tmp_path.iterdir()] == ["labels.txt"]


def test_two_processes_do_not_share_a_run(trained):
    fcntl = pytest.importorskip("fcntl")
    with open(trained / ".lock", "a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(RunError, match="in use by another"):
            kzoo.train(out=trained, resume=True, quiet=True)
    kzoo.train(out=trained, resume=True, quiet=True)  # the lock is gone, and the run is finished


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


CLASS_CHANGES = {
    "another order": (lambda config: config.update(classes=config["classes"][::-1]), "labels.txt do not agree"),
    "cut short": (lambda config: config.update(classes=config["classes"][:-1]), "9 classes, but model.keras has 10"),
    "a dict for a name": (lambda config: config.update(classes=[{}, *config["classes"][1:]]), "classes can't be read"),
    "a dict": (lambda config: config.update(classes={}), "classes can't be read"),
    "a shape of NaN": (lambda config: config.update(input_shape=[float("nan"), 28, 1]), "input_shape can't be read"),
    "a model in a list": (lambda config: config.update(model=["lenet5"]), "model can't be read"),
    "no preprocessing": (lambda config: config.update(preprocessing=None), "preprocessing can't be read"),
    "NaN": (lambda config: config["preprocessing"].update(scale=float("nan")), "preprocessing in"),
}


@pytest.mark.parametrize("what", CLASS_CHANGES)
def test_config_labels_and_network_agree_or_one_line_says_what_does_not(trained, tmp_path, what):
    change, said = CLASS_CHANGES[what]
    folder = shutil.copytree(trained, tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError) as caught:
        kzoo.load_run(folder)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_labels_that_were_changed_are_noticed(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    (folder / "labels.txt").write_text("\n".join("0123456798") + "\n")
    with pytest.raises(RunError, match="do not agree"):
        kzoo.load_run(folder)
    (folder / "labels.txt").unlink()  # nothing to compare with
    assert len(kzoo.load_run(folder).classes) == 10


def test_json_is_written_without_nan(tmp_path):
    runs.write_json(tmp_path / "a.json", {"loss": float("nan"), "all": [1.5, float("-inf")]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"loss": None, "all": [1.5, None]}


@pytest.mark.parametrize("name, value", [("data", None), ("fingerprint", 3), ("seed", "0"), ("val_fraction", 1.5)])
def test_what_evaluate_needs_of_a_run_is_checked_when_it_is_loaded(trained, tmp_path, name, value):
    config = {**json.loads((trained / "config.json").read_text()), name: value}
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    with pytest.raises(RunError, match=rf"is damaged: {name} can't be read"):
        kzoo.load_run(tmp_path)


def test_a_checkpoint_is_written_beside_the_training_one_at_a_time(tmp_path, monkeypatch):
    import threading

    path, writer, written = tmp_path / "c.npz", runs.CheckpointWriter(), []
    writer.write(path, {"a": np.zeros(3)}, 0, then=lambda: written.append(0))
    writer.wait()
    old, save, may = path.read_bytes(), runs.save_checkpoint, threading.Event()

    def slow(*args):
        assert may.wait(60)
        save(*args)

    monkeypatch.setattr(runs, "save_checkpoint", slow)
    writer.write(path, {"a": np.ones(3)}, 1, then=lambda: written.append(1))
    assert path.read_bytes() == old and written == [0], "the caller goes on, and the older one is whole"
    may.set()
    writer.write(tmp_path / "none" / "c.npz", {"a": np.ones(3)}, 2, then=lambda: written.append(2))
    assert runs.load_checkpoint(path)[1] == 1 and written == [0, 1], "one after the other"
    with pytest.raises(kzoo.KzooError, match="Can't write"):
        writer.wait()
    writer.wait()
    assert written == [0, 1]
