"""The catalog and the layers on JAX, in processes of their own: Keras chooses its backend once."""

import os
import subprocess
import sys

import pytest
from support.processes import ROOT

pytest.importorskip("jax")
# One row for each architecture, in parts that two workers share; every row with KZOO_DEEP=1.
PARTS = [
    ["alexnet", "mnist_softmax", "mnist_mlp", "vgg11", "resnet18", "mobilenet_v2", "inception_v3", "googlenet"],
    ["mnist_cnn", "mnist_shift", "lenet5", "resnet50_v2", "resnet20", "wrn_16_8", "mobilenet_v1", "squeezenet1_1"],
    ["allcnn_c", "googlenet_bn", "inception_v4", "inception_resnet_v1", "inception_resnet_v2", "nasnet_mobile"],
]


def on_jax(*arguments):
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", *arguments],
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-3000:]
    return result.stdout


@pytest.mark.parametrize("names", PARTS, ids=lambda names: names[0])
def test_rows(names):
    on_jax("tests/catalog/test_rows.py", "-k", " or ".join(f"[{name}]" for name in names))


def test_layers():
    on_jax("tests/test_layers.py", "tests/test_builder.py", "tests/models/test_lenet.py", "-k", "not are_fc7")


@pytest.mark.deep("2026-11-26")
def test_every_row():
    on_jax("tests/catalog/test_rows.py")


def test_every_architecture_has_its_turn():
    import kzoo

    assert {kzoo.spec(n).architecture for names in PARTS for n in names} == {
        kzoo.spec(n).architecture for n in kzoo.list_models()
    }
