"""Ctrl-C and SIGTERM as a question that a loop asks. Standard library only."""

import os
import signal
import sys
import threading
from contextlib import contextmanager

from kzoo.errors import RunError
from kzoo.progress import say


class Interrupted(RunError):
    """Ctrl-C or SIGTERM; exit_code is 128 + the signal's number."""


_received = []  # of each interruptible() that is entered, its signals


@contextmanager
def interruptible(kept="the finished epochs are kept, and --resume continues from there"):
    """Turns the first SIGINT or SIGTERM into a question that the loop asks; the second one ends the process at once.

    Within another one the question is the outer one's: what came too late for a part is asked by the whole.
    """
    main = threading.current_thread() is threading.main_thread()
    received = _received[-1] if main and _received else []

    def handler(number, frame):
        if received:
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
        if hasattr(e, "exit_code"):  # said by the part that was stopped
            raise
        error = Interrupted(f"Stopped before the end; {kept}.")
        error.exit_code = 128 + received[0]
        raise error from None
    finally:
        if main:
            _received.pop()
        for number, previous in old.items():
            signal.signal(number, previous)
