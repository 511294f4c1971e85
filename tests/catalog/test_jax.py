"""The catalog and the layers on JAX, in processes of their own: Keras chooses its backend once."""

import os
import subprocess
import sys

import pytest
from support.processes import ROOT

pytest.importorskip("jax")
# Rows that have every kind of layer between them, in parts that two workers share. KZOO_DEEP=1 takes all rows.
PARTS = [
    [
        "alexnet",
        "mnist_softmax",
        "mnist_mlp",
        "vgg11",
        "resnet18",
        "inception_v3",
        "inception_resnet_v1",
        "googlenet_bn",
    ],
    ["mnist_cnn", "mnist_shift", "lenet5", "resnet50_v2", "resnet20", "mobilenet_v2", "squeezenet1_1", "nasnet_mobile"],
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
    # Keras' global settings are the same for every backend, so one network with them is enough here.
    chosen = "not are_fc7 and (not global_settings_change or lenet5)"
    on_jax("tests/test_layers.py", "tests/test_builder.py", "tests/models/test_lenet.py", "-k", chosen)


@pytest.mark.deep("2026-11-26")
def test_every_row():
    on_jax("tests/catalog/test_rows.py")
