"""`kzoo train`: options and folders that are refused, and networks of one's own."""

import os
import sys

import numpy as np
import pytest
from PIL import Image
from support.own import SOURCE, forgetful  # noqa: F401  a fixture
from support.processes import started

import kzoo
from kzoo import runs
from kzoo.catalog.imports import load_imports


def test_options_that_the_network_does_not_have(tmp_path, kzoo_command):
    for option, reason in (
        ("epochs=3", "epochs is not one of them: use --epochs"),
        ("num_classes=5", "Unknown option of mnist_mlp 'num_classes'"),
        ("droput=0.1", "Did you mean 'dropout'"),
        ("dropout=high", "mnist_mlp can't be built"),
    ):
        code, _, err = kzoo_command("train", "mnist_mlp", "--set", option, "--out", tmp_path / "r")
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
    assert code == 1 and "is not a kzoo train run" in err


def test_a_run_of_ones_own_network_says_what_to_import_and_runs_no_code(tmp_path, forgetful, kzoo_command):  # noqa: F811
    file, run = tmp_path / "own_of_a_test.py", tmp_path / "run"
    file.write_text(SOURCE)
    code, _, err = kzoo_command("train", "my_net", "--import", file, "--epochs", 1, "--out", run, "--quiet")
    assert code == 0, err
    assert [r["file"] for r in runs.read_json(run / "config.json")["imports"]] == [str(file)]
    forgetful()
    told = f"my_net, was registered by {file}: if you trust that code, pass --import {file}, or import it in Python"
    resume = ("train", "--resume", "--out", run, "--quiet")
    photo = tmp_path / "photo.png"
    Image.new("L", (8, 8)).save(photo)
    for line in (("evaluate", run), ("predict", run, photo), ("export", run, "--out", tmp_path / "e"), resume):
        code, _, err = kzoo_command(*line)
        assert code == 1 and told in err and err.count("\n") == 1, err
    assert "own_of_a_test" not in sys.modules
    code, _, err = kzoo_command("evaluate", run, "--import", file)
    assert code == 0 and "has changed" not in err
    code, _, err = kzoo_command("predict", run, photo)  # in this process it is known now
    assert code == 0, err
    assert kzoo_command(*resume)[0] == 0
    forgetful()
    file.write_text(SOURCE + "# changed\n")
    code, _, err = kzoo_command("evaluate", run)
    assert code == 1 and "(a file that has changed since, or is gone)" in err
    code, _, err = kzoo_command("evaluate", run, "--import", file)
    assert code == 0 and f"Note: {file}, which the network of {run} comes from, has changed since." in err


def test_what_config_json_says_of_imports_is_checked(tmp_path, forgetful):  # noqa: F811
    for imports, message in (
        ("x", "is damaged: imports can't be read"),
        ([{"module": 1}], "is damaged: imports can't be read"),
        ([{"module": "own.nets", "file": "/dev/zero", "sha256": "0"}], "registered by own.nets: .* --import own.nets,"),
        ([{"module": "a b", "file": "/dev/zero"}], "has changed since, or is gone.* --import /dev/zero"),
        ([{"module": "__main__"}], "was registered in a notebook or at Python's prompt"),
    ):
        with pytest.raises(kzoo.KzooError, match=message):
            runs.check_imports({"model": "my_net", "imports": imports}, tmp_path)
    runs.check_imports({"model": "vgg16"}, tmp_path)  # of 0.1.0
    runs.check_imports({"model": "vgg16", "imports": []}, tmp_path)
    with pytest.raises(kzoo.KzooError, match=r"vgg16, was registered by /mine\.py"):  # not the one of kzoo
        runs.check_imports({"model": "vgg16", "imports": [{"module": "mine", "file": "/mine.py"}]}, tmp_path)
    (tmp_path / "own_of_a_test.py").write_text(
        SOURCE.replace('"my_net", f', '"vgg16", f').replace("2026)))", "2026)), replace=True)")
    )
    load_imports([str(tmp_path / "own_of_a_test.py")])
    with pytest.raises(kzoo.KzooError, match=r"kzoo's own vgg16, which .*own_of_a_test\.py has replaced"):
        runs.check_imports({"model": "vgg16", "imports": []}, tmp_path)


@pytest.mark.deep("2026-11-27")
def test_the_checks_in_new_processes_know_ones_own_layers(tmp_path, forgetful, kzoo_command):  # noqa: F811
    file, run, out = tmp_path / "own_of_a_test.py", tmp_path / "run", tmp_path / "e"
    file.write_text(SOURCE)
    line = ("train", "my_net", "--import", file, "--epochs", 1, "--out", run, "--quiet")
    assert kzoo_command(*line)[0] == 0
    code, _, err = kzoo_command("export", run, "--format", "saved_model,keras", "--out", out, "--quiet")
    assert code == 0, err
    for more, code, said in ((), 1, "--import the code that registers its layers"), (("--import", file), 0, "ok"):
        process = started("verify", out, *more)
        text, err = process.communicate(timeout=300)
        assert process.returncode == code and said in text, text + err
    process = started("evaluate", run, env={**os.environ, "KZOO_IMPORT": str(file)})
    assert "top-1" in process.communicate(timeout=300)[0] and process.returncode == 0


@pytest.mark.parametrize("library", ["numpy", "tensorflow", "a function in a graph"])
def test_too_little_memory_is_one_line(library, monkeypatch, tmp_path, kzoo_command):
    import tensorflow as tf

    def allocate(*args, **kwargs):
        if library == "numpy":
            np.empty(1 << 50)
        elif library == "tensorflow":
            # As its allocator raises it; that one would try for ten seconds.
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[4096,4096]")
        tf.function(lambda: tf.numpy_function(lambda: np.empty(1 << 50), [], tf.float64))()

    monkeypatch.setattr("kzoo.training.loop.build", allocate)
    code, _, err = kzoo_command("train", "mnist_mlp", "--data", "digits", "--out", tmp_path / "r")
    assert code == 1 and err.count("\n") == 1 and "There is not enough memory (" in err, err
    assert ("llocat" in err or "memory" in err.lower()) and "Traceback" not in err
