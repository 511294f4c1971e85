"""What all tests share: quiet TensorFlow, the shared data where it exists, command lines in this process."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Real data for those tests that can use it: where the environment says, else beside the checkout.
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
if SHARED.is_dir():
    os.environ.setdefault("KZOO_DATA", str(SHARED))

import pytest


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
