"""Keras is imported without TensorFlow's messages, and nothing else is lost."""

import gc
import json
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from kzoo import hardware
from kzoo.cli import options

ROOT = Path(__file__).resolve().parents[1]
NOISE = """WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795738028.803820   25758 port.cc:153] oneDNN custom operations are on.
E0000 00:00:1795738053.328176   25758 cuda_platform.cc:52] failed call to cuInit: UNKNOWN ERROR (303)
2026-11-26 10:11:12.131415: I tensorflow/core/platform/cpu_feature_guard.cc:210] This TensorFlow binary is optimized.
To enable the following instructions: AVX2, in other operations, rebuild TensorFlow with other flags.
"""
OTHERS = "epoch 3 of another thread\nWARNING: the user's own\n"


@pytest.fixture
def imported(monkeypatch, capfd):
    """Runs load_keras as if Keras was imported for the first time and wrote a text meanwhile: what is shown of it."""

    def run(text, error=None):
        def write():
            os.write(2, text.encode())
            if error:
                raise error

        monkeypatch.setattr(hardware, "_loaded", False)
        monkeypatch.setattr(hardware, "_import_keras", write)
        try:
            hardware.load_keras()
        finally:
            os.write(2, b"behind\n")
            shown = capfd.readouterr().err
            assert shown.endswith("behind\n"), "stderr is back"
            run.shown = shown.removesuffix("behind\n")
        return run.shown

    return run


def test_tensorflows_messages_are_dropped_and_those_of_others_are_not(imported):
    assert imported(NOISE + OTHERS) == OTHERS
    assert imported("without its end") == "without its end"


def test_everything_is_shown_where_the_import_fails_or_the_user_asks_for_it(imported, monkeypatch):
    with pytest.raises(ImportError):
        imported(NOISE + OTHERS, ImportError("no such library"))
    assert imported.shown == NOISE + OTHERS
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    assert imported(NOISE) == NOISE


def test_without_a_stderr_it_is_imported_all_the_same(imported, monkeypatch):
    def closed(descriptor):
        raise OSError("Bad file descriptor")

    monkeypatch.setattr(hardware, "os", SimpleNamespace(environ=os.environ, dup=closed))
    assert imported(OTHERS) == OTHERS


def test_a_command_leaves_out_what_keras_imports_for_others(monkeypatch):
    """Meanwhile, in that thread, and not what is there or computes; a program that imports kzoo keeps all of it."""
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(hardware, "UNUSED", ("wave", "json", "sched"))
    monkeypatch.setattr(hardware, "backend", lambda: "sched")

    def can_import(name):
        monkeypatch.delitem(sys.modules, name, raising=False)
        try:
            return import_module(name).__name__ == name
        except ImportError:
            return False

    monkeypatch.setattr(hardware, "_in_own_process", False)
    monkeypatch.setattr(options, "load_imports", list)
    monkeypatch.setattr(options, "load_keras", list)
    with_code = partial(options._import, None, None, ["own.py"])  # --import: wrappers of scikit-learn may be used there
    for own, begin in ((False, list), (True, hardware.in_own_process), (False, with_code)):
        begin()
        with hardware._importing_quickly():
            assert can_import("wave") is not own
            assert find_spec("wave") and ("wave" in sys.modules) is not own
            assert can_import("sched") and import_module("json") is json and not gc.isenabled()
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(can_import, "wave").result()
        assert can_import("wave") and gc.isenabled()


@pytest.mark.parametrize(("size", "count", "within"), [(3e8, 2, "1"), (3e8, 8, "4"), (3e8, 1, "1"), (4e9, 8, None)])
def test_two_batches_at_once_share_the_cores(size, count, within, monkeypatch):
    monkeypatch.setattr(hardware, "cores", lambda: count)
    names = ("TF_NUM_INTEROP_THREADS", "TF_NUM_INTRAOP_THREADS")
    for name in names:
        monkeypatch.setenv(name, "-")  # so that it is taken back afterwards
        monkeypatch.delenv(name)
    hardware.two_at_once(size)
    assert [os.environ.get(name) for name in names] == [str(2 * count), within]
    monkeypatch.setenv(names[1], "7")
    hardware.two_at_once(size)
    assert os.environ[names[1]] == "7", "the user's"


def test_the_users_log_level_is_kept(monkeypatch):
    for name, value, left in (("json", None, "3"), ("json", "1", "1"), ("tensorflow", None, None)):
        with monkeypatch.context() as patch:
            patch.delitem(sys.modules, "tensorflow", raising=False)
            patch.setitem(sys.modules, name, sys)
            patch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
            if value:
                patch.setenv("TF_CPP_MIN_LOG_LEVEL", value)
            hardware.quiet_tensorflow()
            assert os.environ.get("TF_CPP_MIN_LOG_LEVEL") == left


@pytest.mark.deep("2026-11-27")
def test_training_from_python_prints_its_progress_only(tmp_path):
    code = f"import kzoo; kzoo.train('lenet5', data='digits', epochs=1, out={str(tmp_path / 'run')!r})"
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT)
    lines = done.stderr.splitlines()
    starts = ("lenet5 on digits: ", "Recipe lenet, 1 epoch ", "Images are decoded", "epoch 1/1: ")
    assert done.returncode == 0 and done.stdout == "" and len(lines) == len(starts), done.stderr
    for line, start in zip(lines, starts, strict=True):
        assert line.startswith(start)


def test_only_what_says_nothing_to_a_user_is_dropped(caplog):
    logger, retraced = (
        logging.getLogger("tensorflow"),
        "5 out of the last 9 calls to f triggered tf.function retracing.",
    )
    with hardware.without_tensorflow_chatter():
        logger.warning(retraced)
        logger.warning("Assets written to: .tmp-1/assets")
        logger.warning("another")
    logger.warning(retraced)
    assert [record.getMessage() for record in caplog.records] == ["another", retraced]
