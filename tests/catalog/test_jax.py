"""The catalog, the layers and a training on JAX, in processes of their own: Keras chooses its backend once."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
from support.processes import ROOT

if find_spec("jax") is None:  # not imported, which would take each worker a second
    pytest.skip("needs jax", allow_module_level=True)
# Rows that have most kinds of layers between them; test_layers.py has kzoo's own. KZOO_DEEP=1 takes all rows.
NAMES = ["zfnet", "lenet5", "mobilenet_v2", "unet_same"]
# The same on every backend: what new processes find, Keras' own training.
LEFT_OUT = ["are_fc7", "importing_kzoo", "trains_as_a_network"]
TRAINING = "tests/training/test_loop.py::test_it_trains_and_measures_on_this_backend"
DEVICES = ["tests/data/test_feed.py", "tests/training/test_counted.py"]
FILES = ["tests/catalog/test_rows.py", "tests/test_layers.py", "tests/models/test_lenet.py", *DEVICES, TRAINING]


def on_jax(*arguments):
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", *arguments],
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",  # for DEVICES
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-3000:]
    return result.stdout


def test_rows_and_layers():
    """In one process: importing Keras and JAX takes longer than most of the tests."""
    rows = " or ".join(f"[{name}]" for name in NAMES)
    on_jax(*FILES, "-k", f"(test_rows and ({rows})) or (not test_rows and not {' and not '.join(LEFT_OUT)})")


@pytest.mark.deep("2026-11-27")
def test_every_row():
    on_jax(*FILES, "tests/test_builder.py")
