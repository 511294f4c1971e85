"""A live line for long work on stderr; one line a step where stderr is no terminal."""

import sys
import time
from contextlib import contextmanager


def say(text):
    """Talk goes to stderr; stdout is for data."""
    print(text, file=sys.stderr, flush=True)


class Silent:
    """Progress that nobody sees."""

    def start(self, text, total, done=0):
        """done: of the total, before this process: it says nothing of the speed."""

    def advance(self, n, **numbers):
        pass

    def done(self, text=None):
        pass


class Deferred(Silent):
    """Progress of work that begins before it can be shown: `show` hands on what has been done by then."""

    def __init__(self):
        self.bar, self.text, self.total, self.count = Silent(), "", None, 0

    def start(self, text, total, done=0):
        self.text, self.total, self.count = text, total, done

    def advance(self, n, **numbers):
        self.count += n
        self.bar.advance(n, **numbers)

    def show(self, bar):
        bar.start(self.text, self.total)
        bar.advance(self.count)
        self.bar = bar


class Live(Silent):
    """A rich progress bar: text, bar, share, speed, time to go, and numbers such as the loss."""

    def __init__(self, unit):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self.unit = unit
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
        self.task = None

    def start(self, text, total, done=0):
        if self.task is not None:
            self.progress.remove_task(self.task)
        self.task = self.progress.add_task(text, total=total, completed=done, speed="", numbers="")
        self.began, self.count = time.monotonic(), 0

    def advance(self, n, **numbers):
        self.count += n
        speed = self.count / max(time.monotonic() - self.began, 1e-9)
        rate = f"{speed:,.0f}" if speed >= 10 else f"{speed:.2g}"
        text = " ".join(f"{k} {v:.4g}" for k, v in numbers.items())
        self.progress.update(self.task, advance=n, speed=f"{rate} {self.unit}/s", numbers=text)

    def done(self, text=None):
        if text:
            self.progress.console.print(text, highlight=False, markup=False, soft_wrap=True)


class Lines(Silent):
    """For logs: the line that each step ends with."""

    def done(self, text=None):
        if text:
            say(text)


@contextmanager
def progress(unit="images", quiet=False):
    """A Live, Lines or Silent progress, as fits where stderr goes."""
    if quiet:
        yield Silent()
    elif sys.stderr.isatty():
        live = Live(unit)
        with live.progress:
            yield live
    else:
        yield Lines()
