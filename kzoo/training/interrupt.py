"""Ctrl-C and SIGTERM as a question that a loop asks. Standard library only."""

import os
import signal
import threading
from contextlib import contextmanager

from kzoo.errors import RunError
from kzoo.progress import say


class Interrupted(RunError):
    """Ctrl-C or SIGTERM; exit_code is 128 + the signal's number."""


@contextmanager
def interruptible(kept="the finished epochs are kept, and --resume goes on from there"):
    """Turns the first SIGINT or SIGTERM into a question that the loop asks; the second one ends the process at once."""
    received = []

    def handler(number, frame):
        if received:
            os._exit(128 + number)
        received.append(number)
        say("Stopping. Once more ends it at once.")

    main = threading.current_thread() is threading.main_thread()
    old = {n: signal.signal(n, handler) for n in (signal.SIGINT, signal.SIGTERM)} if main else {}
    try:
        yield lambda: bool(received)
    except Interrupted:
        error = Interrupted(f"Stopped before the end; {kept}.")
        error.exit_code = 128 + received[0]
        raise error from None
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)
