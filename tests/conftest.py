"""What all tests share: quiet TensorFlow, the shared data where it exists, command lines in this process."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest


@pytest.fixture(scope="session")
def shared():
    """The folder with real data; tests that need it skip where it is missing."""
    from kzoo.data.sources import places

    found = places()
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
