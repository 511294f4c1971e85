"""`kzoo finetune`: wrong options, found before anything is written; a kill and Ctrl-C in a process of its own."""

import signal

import pytest
from support.processes import started, wait_for
from support.tuning import tune

from kzoo import runs
from kzoo.errors import DataError, UnknownName


def test_wrong_options_are_named(world, tmp_path, kzoo_command):
    with pytest.raises(UnknownName, match="Did you mean 'light'"):
        tune(world, tmp_path / "r", augment="ligt")
    with pytest.raises(UnknownName, match=r"Unknown class 'gred'\. Did you mean 'red'"):
        tune(world, tmp_path / "r", class_weights={"gred": 2.0})
    with pytest.raises(DataError, match=r"needs 25 training photos of each class, and '\w+' has 24: --shots 24"):
        tune(world, tmp_path / "r", shots=25)
    with pytest.raises(UnknownName, match="Unknown stage 'conv9'"):
        tune(world, tmp_path / "r", unfreeze="conv9")
    with pytest.raises(DataError):
        tune(world, tmp_path / "r", tmp_path / "missing")
    assert not (tmp_path / "r").exists()
    code, _, err = kzoo_command("finetune", world / "photos", "--model", "resnet5")
    assert code == 1 and "Unknown model 'resnet5'" in err
    code, _, err = kzoo_command("finetune", world / "photos", "--model", "allcnn_c")
    assert code == 1 and "No pretrained weights were found locally for allcnn_c" in err


def changed(out):
    """When the checkpoint was written, in nanoseconds; 0 where there is none."""
    return (out / "checkpoint.npz").stat().st_mtime_ns if (out / "checkpoint.npz").exists() else 0


@pytest.mark.deep("2026-11-27")
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
        "16x16x3",
        "--precision",
        "float32",
        "--unfreeze",
        "all",
        "--epochs",
        "40",
        "--out",
        out,
    ]
    for number, code in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
        extra = ["--resume"] if out.exists() else []
        before = changed(out)
        process = started(*args, *extra)
        wait_for(lambda before=before: changed(out) > before, process)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code, err
    assert "--resume continues" in err and "Traceback" not in err
    rows = runs.load_checkpoint(out / "checkpoint.npz")[1]["stage"]["rows"]
    assert [r["epoch"] for r in rows] == list(range(1, len(rows) + 1)) and len(rows) >= 2
