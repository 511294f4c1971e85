"""Ctrl-C and SIGTERM as a flag that a loop checks. Standard library only."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kzoo.errors import RunError
from kzoo.progress import say


class Interrupted(RunError):
    """Work was stopped by Ctrl-C or SIGTERM. `exit_code` is 128 + the signal's number."""

    exit_code: int


def in_session() -> bool:
    """Return whether Python goes on when this work ends: in a notebook's kernel, in IPython, or at Python's prompt."""
    return hasattr(sys, "ps1") or bool({"ipykernel", "google.colab"} & sys.modules.keys()) or _ipython() is not None


def _ipython():
    module = sys.modules.get("IPython")
    return module.get_ipython() if module is not None and hasattr(module, "get_ipython") else None


_received = []  # a list of signals for each interruptible() that is active


@contextmanager
def interruptible(
    kept: str = "the finished epochs are kept, and --resume continues from there",
) -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a flag that a loop checks; the second one ends the process at once.

    In a notebook or at Python's prompt the second one raises KeyboardInterrupt, because the session is to go on.

    Within another `interruptible` the flag is the outer one's: a signal that comes too late for an inner loop stops the
    outer one.

    Args:
        kept: What is kept after a stop and how to continue, for the message.

    Returns:
        A context manager that gives a function: whether a signal has arrived. The loop raises `Interrupted` to stop.

    Raises:
        Interrupted: In place of the loop's own, with a message and `exit_code`. The loop's own message replaces `kept`.
    """
    main = threading.current_thread() is threading.main_thread()
    received = _received[-1] if main and _received else []

    def handler(number, frame):
        if received:
            if in_session():
                raise KeyboardInterrupt
            if sys.stderr.isatty():
                os.write(2, b"\x1b[?25h\n")  # a live bar hides the cursor
            os._exit(128 + number)
        received.append(number)
        say("Stopping. Press Ctrl-C again to quit.")

    old = {n: signal.signal(n, handler) for n in (signal.SIGINT, signal.SIGTERM)} if main else {}
    if main:
        _received.append(received)
    try:
        yield lambda: bool(received)
    except Interrupted as e:
        if hasattr(e, "exit_code"):  # already set where the work was stopped
            raise
        error = Interrupted(f"Stopped before the end; {str(e) or kept}.")
        error.exit_code = 128 + received[0]
        raise error from None
    finally:
        if main:
            _received.pop()
        for number, previous in old.items():
            signal.signal(number, previous)
