"""The template: the network's file, with a head put in without Keras."""

import zipfile

import numpy as np
import pytest
from support.tuning import SHAPE

import kzoo
from kzoo.finetuning import template
from kzoo.finetuning.features import Cache

CLASSES = ("blue", "red")


class Extractor:
    """Stands for `FeatureExtractor`: a network that is ready."""

    def __init__(self):
        self.model = kzoo.build("resnet20", depth=8, num_classes=None, input_shape=SHAPE, seed=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(the template, the network that it was made of, its cache)."""
    extractor, cache = Extractor(), Cache({"model": "test"}, tmp_path_factory.mktemp("cache"))
    return template.template(extractor, CLASSES, cache), extractor.model, cache


def test_a_filled_template_is_the_network_with_that_head(made, tmp_path):
    import keras

    file, network, _ = made
    rng = np.random.default_rng(5)  # not 0, which the template draws with
    kernel, bias = rng.normal(size=(64, 2)).astype("float32"), rng.normal(size=2).astype("float32")
    template.fill(file, kernel, bias, tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")
    found = {v.path: np.asarray(v) for v in model.weights}
    np.testing.assert_array_equal(found.pop("predictions/kernel"), kernel)
    np.testing.assert_array_equal(found.pop("predictions/bias"), bias)
    assert found.keys() == {v.path for v in network.weights}
    for v in network.weights:
        np.testing.assert_array_equal(found[v.path], v)
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert template.TEMPLATE not in archive.namelist()
    audit = template.audit_file(tmp_path / "model.keras", file)
    assert audit["ok"] and audit["frozen_checked"] == len(network.weights) and audit["moved"] == 2
    assert template.parameters(file) == model.count_params()


def test_it_is_built_once_and_again_if_it_is_corrupt(made, tmp_path):
    file, _, cache = made
    assert template.template(None, CLASSES, cache) == file, "no network is needed"
    copy = tmp_path / "copy.keras"
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    for damaged in (bytes(raw), file.read_bytes()[:-100], b""):
        copy.write_bytes(damaged)
        assert not template.is_intact(copy)
    assert template.is_intact(file) and not template.is_intact(tmp_path / "missing.keras")
