"""What all tests share: quiet TensorFlow, the shared data where it exists, commands in this process, small runs."""

import gc
import os
from pathlib import Path

import pytest
from support import deep

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Real data for those tests that can use it: where the environment says, else beside the checkout.
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
if SHARED.is_dir():
    os.environ.setdefault("KZOO_DATA", str(SHARED))


def pytest_collection_modifyitems(config, items):
    deep.deselect(config, items)


def pytest_collection_finish(session):
    """Collect garbage less often: building networks makes many objects that live on (a sixth of the suite's time)."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 10)


@pytest.fixture(scope="session")
def shared():
    """The folder with real data; tests that need it skip where it is missing."""
    from kzoo.files import data_folders

    found = data_folders()
    if not found:
        pytest.skip("needs the shared data: set KZOO_DATA to its folder")
    return found[0]


@pytest.fixture
def kzoo_command(capfd):
    """Runs a kzoo command line in this process: (exit code, stdout, stderr)."""
    from kzoo.cli import main

    def run(*args):
        capfd.readouterr()
        try:
            main([str(a) for a in args])
            code = 0
        except SystemExit as e:
            code = e.code or 0
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="session", autouse=True)
def features_of_the_tests(tmp_path_factory):
    """The cache of features that tests fill is not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KZOO_FEATURES", str(tmp_path_factory.mktemp("features")))
        yield


@pytest.fixture(scope="session", autouse=True)
def graphs_are_run_as_they_are():
    """TensorFlow would optimise each graph before its first run, which takes longer than the few runs of a test."""
    if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
        import tensorflow as tf

        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


@pytest.fixture
def graphs_are_optimised(graphs_are_run_as_they_are):
    """As for a user, and as in a process of its own: optimised graphs may round otherwise."""
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


@pytest.fixture(scope="session", autouse=True)
def exports_are_checked_in_this_process():
    """Importing TensorFlow in a new process for each export would take a sixth of the suite's time."""
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":  # nothing is exported there
        yield None
        return
    from kzoo.exporting import check, write

    original = write.run_check
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "run_check", lambda folder, modules, *more: check.check_written(folder, *more))
        yield original


@pytest.fixture
def exports_are_checked_in_a_new_process(exports_are_checked_in_this_process, monkeypatch):
    """As for a user."""
    from kzoo.exporting import write

    monkeypatch.setattr(write, "run_check", exports_are_checked_in_this_process)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A small network with dropout, trained with augmentation for three epochs. Tests copy it before they change it."""
    from support.training import QUICK

    import kzoo

    folder = tmp_path_factory.mktemp("runs") / "mlp"
    kzoo.train("mnist_mlp", "digits", recipe=QUICK, out=folder, quiet=True)
    return folder


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A folder with photos and the weights of a small residual network, to fine-tune."""
    import numpy as np
    from support.tuning import SHAPE, draw

    import kzoo

    folder = tmp_path_factory.mktemp("world")
    draw(folder / "photos", {(p, c): n for p, n in (("train", 24), ("val", 8)) for c in ("red", "blue")})
    model = kzoo.build("resnet20", num_classes=None, input_shape=SHAPE, seed=1)
    np.savez(folder / "weights.npz", **{v.path: v.numpy() for v in model.weights})
    return folder


@pytest.fixture(scope="session")
def head_only(world, tmp_path_factory):
    """A run in which the head alone was trained. Tests copy it before they change it."""
    from support.tuning import tune

    return tune(world, tmp_path_factory.mktemp("runs") / "head", unfreeze="none")


@pytest.fixture(scope="session")
def members(tmp_path_factory):
    """A folder with three small runs on the same digits, which have a validation and a test part of their own.

    "softmax" and "mlp" take the same pictures, "small" takes smaller ones; "mlp" records a temperature of 2. Tests copy
    what they change.
    """
    import json

    import numpy as np

    import kzoo

    folder = tmp_path_factory.mktemp("members")
    digits = kzoo.load_data("digits").whole()
    order = np.random.default_rng(0).permutation(len(digits))
    parts = {"train": order[:600], "val": order[600:700], "test": order[700:900]}
    arrays = {f"{x}_{p}": a[i] for p, i in parts.items() for x, a in (("x", digits.images), ("y", digits.labels))}
    np.savez(folder / "digits.npz", **arrays)
    for name, model, shape in (
        ("softmax", "mnist_softmax", None),
        ("mlp", "mnist_mlp", None),
        ("small", "mnist_softmax", (14, 14, 1)),
    ):
        options = {"epochs": 1, "input_shape": shape, "precision": "float32", "quiet": True}
        kzoo.train(model, folder / "digits.npz", out=folder / name, **options)
    report = {"temperature": 2.0, "temperature_choice": {"reason": "A test."}}
    (folder / "mlp" / "report.json").write_text(json.dumps(report), "utf-8")
    return folder
