"""What the tests of exports share: one small network and its export."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from support.exports import CLASSES, LARGE, PREP, SHAPE

import kzoo
from kzoo.exporting import check, write
from kzoo.source import Source
from kzoo.tasks.classification import TASK


@pytest.fixture(scope="session")
def model():
    """A small network with batch norm, dropout, random statistics."""
    network = kzoo.build(
        "resnet20", depth=8, num_classes=4, input_shape=SHAPE, preprocessing=PREP, precision="float32", seed=0
    )
    rng = np.random.default_rng(0)  # of its own, so that it is the same network whichever test comes first
    for v in network.weights:
        if v.name in ("gamma", "moving_variance"):
            v.assign(rng.uniform(0.5, 1.5, v.shape))
        elif v.name in ("beta", "moving_mean", "bias"):
            v.assign(rng.normal(0, 0.3, v.shape))
    return network


@pytest.fixture(scope="session")
def exported(model, tmp_path_factory):
    """(folder, card) of an export in every format that is installed; the kernels of two layers are variables."""
    out = tmp_path_factory.mktemp("exports") / "small"
    want = Source("small", model, CLASSES, PREP, TASK)
    found = pytest.MonkeyPatch()
    found.setattr(write, "find_source", lambda *args, **kwargs: want)
    found.setattr("kzoo.graph.inference.MAX_CONSTANT", LARGE)
    try:
        kzoo.export(model, ("saved_model", "keras", "onnx", "litert"), out, quiet=True)
    finally:
        found.undo()
    return out, json.loads((out / "card.json").read_text("utf-8"))


@pytest.fixture(scope="session")
def serve(exported):
    """The signatures of the SavedModel."""
    return tf.saved_model.load(str(exported[0])).signatures


@pytest.fixture
def the_graph_is_loaded_once(serve, monkeypatch):
    """For verify on copies whose graph is as it was: to load it and run it first takes two seconds each time."""
    monkeypatch.setattr(check, "load_saved_model", lambda *_, **__: SimpleNamespace(signatures=serve))
