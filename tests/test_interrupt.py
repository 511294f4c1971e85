"""The second Ctrl-C: the process ends at once, but a session goes on."""

import os
import signal
import sys
from types import SimpleNamespace

import pytest

from kzoo import interrupt
from kzoo.interrupt import Interrupted, interruptible


class Ended(BaseException):
    pass


@pytest.fixture
def twice(monkeypatch):
    """Two signals within an interruptible(); what ended it, and the code that os._exit got."""
    codes = []

    def leave(code):
        codes.append(code)
        raise Ended

    monkeypatch.setattr(os, "_exit", leave)

    def run():
        before = signal.getsignal(signal.SIGINT)
        try:
            with interruptible() as stopped:
                os.kill(os.getpid(), signal.SIGINT)
                assert stopped()
                os.kill(os.getpid(), signal.SIGINT)
        except BaseException as e:
            assert signal.getsignal(signal.SIGINT) is before
            return type(e), codes
        return None, codes

    return run


def test_a_command_ends_at_once(twice, monkeypatch):
    monkeypatch.setattr(interrupt, "in_session", lambda: False)
    assert twice() == (Ended, [130])


@pytest.mark.parametrize("session", ["ipykernel", "IPython", "prompt"])
def test_a_session_goes_on(twice, monkeypatch, session):
    if session == "ipykernel":
        monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())
    elif session == "IPython":
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: object()))
    else:
        monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    assert twice() == (KeyboardInterrupt, [])


def test_the_first_signal_stops_the_work_with_a_code():
    with pytest.raises(Interrupted) as caught, interruptible("all is kept") as stopped:
        assert not stopped()
        os.kill(os.getpid(), signal.SIGTERM)
        if stopped():
            raise Interrupted
    assert caught.value.exit_code == 143 and "all is kept" in str(caught.value)


def test_a_script_is_no_session(monkeypatch):
    monkeypatch.delattr(sys, "ps1", raising=False)
    for name in ("IPython", "ipykernel", "google.colab"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert not interrupt.in_session()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))  # imported, not running
    assert not interrupt.in_session()
