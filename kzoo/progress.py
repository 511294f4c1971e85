"""Progress of long work on stderr: a live bar on a terminal, else one line at the end of each step."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kzoo.errors import printable

if TYPE_CHECKING:
    from rich.progress import TaskID


def say(text: str) -> None:
    """Print a message for the user to stderr; stdout is for data. Control characters are escaped, but line breaks."""
    print(printable(text, keep="\n"), file=sys.stderr, flush=True)


class Silent:
    """Progress that is not shown. The other kinds have the same methods."""

    def start(self, text: str, total: int | None, done: int = 0) -> None:
        """Begin a step.

        Args:
            text: What is done.
            total: Its size in units, such as images; None if unknown.
            done: How much of it an earlier process has done; it does not count for the speed.
        """

    def advance(self, n: int, **numbers: float) -> None:
        """Count `n` more units as done, and show numbers such as the loss."""

    def done(self, text: str | None = None) -> None:
        """End a step, with a line that stays, if any."""


class Deferred(Silent):
    """Progress of work that begins before it can be shown."""

    def __init__(self):
        self.bar, self.text, self.total, self.count = Silent(), "", None, 0

    def start(self, text: str, total: int | None, done: int = 0) -> None:
        self.text, self.total, self.count = text, total, done

    def advance(self, n: int, **numbers: float) -> None:
        self.count += n
        self.bar.advance(n, **numbers)

    def show(self, bar: Silent) -> None:
        """Show what has been done so far on `bar`, and everything from here on."""
        bar.start(self.text, self.total)
        bar.advance(self.count)
        self.bar = bar


BESIDE = 25  # columns of a short bar, the share, the time remaining and what is between them


class Live(Silent):
    """A rich progress bar: text, bar, percentage, speed, time remaining, and numbers such as the loss.

    Args:
        unit: What is counted, such as "images".
    """

    def __init__(self, unit: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self.unit, self.text = unit, ""
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(20),
            TaskProgressColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[numbers]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self.task: TaskID | None = None

    def start(self, text: str, total: int | None, done: int = 0) -> None:
        if self.task is not None:
            self.progress.remove_task(self.task)
        self.text = text
        self.task = self.progress.add_task(text, total=total, completed=done, speed="", numbers="")
        self.began, self.count = time.monotonic(), 0

    def advance(self, n: int, **numbers: float) -> None:
        self.count += n
        speed = self.count / max(time.monotonic() - self.began, 1e-9)
        rate = f"{speed:,.0f} {self.unit}/s" if speed >= 10 else f"{speed:.2g} {self.unit}/s"
        room = self.progress.console.width - len(self.text) - len(rate) - BESIDE
        shown = ""
        for text in (f"{k} {v:.4g} " for k, v in numbers.items()):  # whole ones, the first first
            if len(shown) + len(text) > room:
                break
            shown += text
        assert self.task is not None, "start() comes first"
        self.progress.update(self.task, advance=n, speed=rate, numbers=shown.rstrip())

    def done(self, text: str | None = None) -> None:
        if text:
            self.progress.console.print(printable(text, keep="\n"), highlight=False, markup=False, soft_wrap=True)


class Lines(Silent):
    """Progress for logs: only the line at the end of each step."""

    def done(self, text: str | None = None) -> None:
        if text:
            say(text)


@contextmanager
def progress(unit: str = "images", quiet: bool = False) -> Iterator[Silent]:
    """Show progress on stderr: a Live bar on a terminal, else Lines.

    Args:
        unit: What is counted.
        quiet: Show nothing.

    Returns:
        A context manager that gives the progress.
    """
    if quiet:
        yield Silent()
    elif sys.stderr.isatty():
        live = Live(unit)
        with live.progress:
            yield live
    else:
        yield Lines()
