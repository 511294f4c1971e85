"""Classify any number of pictures into one file of rows: in shards, in parts that a kill can't spoil, resumable.

What is finished stands in parts beside the file, .NAME.parts/000001.jsonl, ..., each written whole or not at all. At
the end they are joined into the file, which takes its name when it is complete.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from kzoo import runs
from kzoo.data.guards import shown
from kzoo.errors import DataError, KzooError, RunError, first_line
from kzoo.evaluating.inputs import of_arrays
from kzoo.evaluating.loading import load_model
from kzoo.evaluating.names import Seen, named, shard_of
from kzoo.evaluating.prediction import answered, answering
from kzoo.evaluating.rows import csv_header, csv_row
from kzoo.files import finite, make_folder, sync, temporary_name, write_atomically
from kzoo.hardware import cores
from kzoo.interrupt import Interrupted, interruptible
from kzoo.progress import Lines, progress, say

SUFFIXES = (".jsonl", ".csv")
PART = 1000  # rows of a part, about: what a kill loses at most
MAX_PART_BYTES = 1 << 26  # masks make long rows
RECORD, VERSION = "job.json", 1
SAID_EVERY = 60.0  # seconds between lines in a log
MOST_THREADS = 4  # each holds a batch


@dataclass(frozen=True)
class Written:
    """What `predict_files` wrote.

    Attributes:
        path: the file.
        images: the number of its rows.
        unreadable: those with an error.
    """

    path: Path
    images: int
    unreadable: int


def predict_files(
    model: Any,
    images: str | os.PathLike | Iterable[str | os.PathLike],
    out: str | os.PathLike,
    *,
    shards: int | None = None,
    shard: int | None = None,
    resume: bool = False,
    force: bool = False,
    top: int = 5,
    batch_size: int = 32,
    tiles: bool = False,
    quiet: bool = False,
) -> Written:
    """Classify any number of pictures, and write a row for each of them into one file.

    The memory does not grow with their number, but for 16 bytes each. Batches are read and decoded in threads. A kill
    at any moment loses at most the last thousand rows or so, and with `resume` the next call goes on.

    Args:
        model: as for `kzoo.predict`.
        images: folders, lists of names (NAME.txt) and files, see `kzoo.evaluating.names.named`; an .npz stands for the
            images in its arrays. A name that comes several times is classified once.
        out: NAME.jsonl, the rows of `kzoo.predict` as JSON, one a line, or NAME.csv.
        shards: divide the pictures into so many parts by `kzoo.evaluating.names.shard_of`, and classify one of them.
            The file is then called NAME-SHARD-of-SHARDS.jsonl.
        shard: which one, from 0.
        resume: go on where an earlier call with the same arguments ended; if there was none, begin.
        force: replace a file that exists, and what an earlier call has finished.
        top, batch_size, tiles: as for `kzoo.predict`.
        quiet: no progress.

    Returns:
        The `Written`.

    Raises:
        DataError: a folder, list or file that does not exist; another suffix; a file that exists.
        RunError: another process writes the same file, or an earlier call had other arguments.
        Interrupted: Ctrl-C or SIGTERM; what is done is kept.
        KzooError: the model can't be read, or the disk is full.

    Example:
        >>> from kzoo.data.drawn import painting
        >>> painting("glass", side=28).save("glass.png")
        >>> predict_files("lenet5", "glass.png", "rows.jsonl", quiet=True).images
        1
    """
    if (shards is None) != (shard is None):
        raise DataError("shards and shard belong together: how many there are, and which one is meant, from 0.")
    if shards is not None and shard is not None and not 0 <= shard < shards:
        raise DataError(f"shard must be 0 to {shards - 1} for {shards} shards, got {shard}.")
    if resume and force:
        raise DataError("resume goes on with what there is, force starts again: use one of them.")
    if top < 1 or batch_size < 1:
        raise DataError(f"top and batch_size must be at least 1, got {top} and {batch_size}.")
    sources = [os.fspath(x) for x in ([images] if isinstance(images, (str, os.PathLike)) else images)]
    path = file_of(out, shards, shard)
    parts = path.with_name(f".{path.name}.parts")
    if path.is_dir() or (path.exists() and not path.is_file()):
        raise DataError(f"{shown(path)} is no file: give --out another name.")
    if path.exists() and resume and not (parts / RECORD).exists():
        if not quiet:
            say(f"{shown(path)} is complete, and is kept whatever model made it: --force starts again.")
        return _counted(path)
    _check_free(path, parts, resume, force)
    total = _count(sources, shards, shard)
    model = load_model(model)
    answer = answering(model, top, batch_size, tiles)
    job = {
        "kzoo_predict": VERSION,
        "model": model.identity(),
        "classes": list(model.classes),
        "images": sources,
        **{"top": top, "tiles": tiles, "shards": shards, "shard": shard},
    }

    def lines(batch):
        rows = answered(batch, answer, batch_size)
        return [(json.dumps(finite(row)).encode() + b"\n", "error" in row) for row in rows]

    make_folder(parts)
    kept = "what is done is kept, and --resume continues from there"
    with runs.locked(parts), interruptible(kept) as interrupted, progress(quiet=quiet) as bar:
        _begin(path, parts, job, resume, force)
        earlier, images_done, bad = _earlier(parts)
        if images_done and not quiet:
            say(f"{images_done:,} images were done before.")
        found = _Names(sources, shards, shard, file_of(out, None, None), earlier)
        clock = _Clock(bar, total, images_done)
        writer = _Writer(parts)
        for batch in _in_threads(lines, found.batches(batch_size)):
            writer.add([line for line, _ in batch])
            bad += sum(is_bad for _, is_bad in batch)
            clock.advance(len(batch))
            if interrupted():
                writer.flush()
                raise Interrupted()
        writer.flush()
        _join(parts, path, model.task, top)
        if found.twice:
            plural = "s" if found.twice > 1 else ""
            say(f"{found.twice:,} name{plural} had come before; each name has one row.")
        speed = f", {clock.rate(clock.began):,.0f} images/s" if clock.done > images_done else ""
        bar.done(f"{shown(path)}: {clock.done:,} images, {bad:,} of them unreadable{speed}.")
        gone = temporary_name(parts.with_name("parts"))  # short: names end at 255 bytes
        os.replace(parts, gone)  # in one step, so that no half of it is left for the next call to find
        shutil.rmtree(gone, ignore_errors=True)
    return Written(path, clock.done, bad)


def file_of(out: str | os.PathLike, shards: int | None, shard: int | None) -> Path:
    """The file that is written: `out` itself, or NAME-SHARD-of-SHARDS.SUFFIX beside it.

    Raises:
        DataError: a suffix other than .jsonl or .csv.
    """
    path = Path(os.path.realpath(out))
    if path.suffix not in SUFFIXES:
        raise DataError(f"The rows go into a file NAME.jsonl or NAME.csv, not into '{shown(out)}'.")
    return path if shards is None else path.with_name(f"{path.stem}-{shard}-of-{shards}{path.suffix}")


def _count(sources, shards, shard):
    every = ours = 0
    for key, _ in named(sources):
        every += 1
        ours += shards is None or shard_of(key, shards) == shard
    if not every:
        raise DataError(f"There are no files in {', '.join(map(shown, sources))}.")
    return ours


def _check_free(path, parts, resume, force):
    if not resume and not force and (parts / RECORD).exists():
        raise RunError(
            f"An earlier call has begun {shown(path)}: --resume (resume=True) goes on, --force (force=True) starts "
            "again."
        )
    if not force and path.exists() and not (resume and (parts / RECORD).exists()):
        raise DataError(f"{shown(path)} exists: --force (force=True) replaces it, or give another --out.")


def _begin(path, parts, job, resume, force):
    """Write what this call is, if it is the first one; else check that it is the same."""
    _check_free(path, parts, resume, force)
    record = parts / RECORD
    if record.exists() and resume:
        try:
            before = json.loads(record.read_text("utf-8"))
        except (OSError, ValueError) as e:
            raise RunError(f"{shown(record)} can't be read ({first_line(e)}): --force starts again.") from e
        other = [key for key, value in job.items() if before.get(key) != value]
        if other:
            raise RunError(
                f"{shown(path)} was begun with other settings ({', '.join(other)}): give the same ones, another --out, "
                "or --force to start again."
            )
        return
    for file in [record, *_files(parts)]:  # the record first: without it parts count for nothing
        file.unlink(missing_ok=True)
    with write_atomically(record, "w") as f:
        json.dump(job, f)


def _files(parts):
    """The finished parts, in order."""
    return sorted((p for p in parts.iterdir() if re.fullmatch(r"\d+\.jsonl", p.name)), key=lambda p: int(p.stem))


def _rows(file):
    try:
        with open(file, encoding="utf-8") as f:
            for line in f:
                yield json.loads(line)
    except (OSError, ValueError) as e:
        raise _unreadable(file, e) from e


def _unreadable(file, error):
    return RunError(f"{shown(file)} can't be read ({first_line(error)}): delete it and start again.")


def _earlier(parts):
    """(the names that have a row, how many they are, how many of the rows have an error)."""
    seen, images, bad = Seen(), 0, 0
    for file in _files(parts):
        rows = list(_rows(file))
        seen.new(row["image"] for row in rows)
        images += len(rows)
        bad += sum("error" in row for row in rows)
    return seen, images, bad


def _counted(path):
    """The `Written` of a complete file."""
    if path.suffix == ".jsonl":
        errors = ("error" in row for row in _rows(path))
    else:
        try:
            with open(path, encoding="utf-8", newline="") as f:
                errors = [bool(row[1]) for row in csv.reader(f)][1:]
        except (OSError, ValueError, csv.Error, IndexError) as e:
            raise _unreadable(path, e) from e
    images = bad = 0
    for error in errors:
        images += 1
        bad += error
    return Written(path, images, bad)


class _Names:
    """The pictures of a shard that have no row yet; `twice` counts names that had come before."""

    def __init__(self, sources, shards, shard, out, earlier):
        self.sources, self.shards, self.shard, self.out, self.earlier = sources, shards, shard, out, earlier
        number = "" if shards is None else f"-(0|[1-9][0-9]*)-of-{shards}"
        self.own_name = re.compile(re.escape(out.stem) + number + re.escape(out.suffix))
        self.twice = 0

    def batches(self, size):
        seen, fresh = Seen(), self._fresh()
        batch = []
        while some := list(islice(fresh, PART)):
            for item, new in zip(some, seen.new(name for name, _ in some), strict=True):
                self.twice += not new
                if new and item[0] not in self.earlier:
                    batch.append(item)
                    if len(batch) == size:
                        yield batch
                        batch = []
        if batch:
            yield batch

    def _fresh(self):
        for key, path in named(self.sources):
            if self._written(path):
                continue
            if path.endswith(".npz"):
                yield from self._of_arrays(key, path)
            elif self._mine(key):
                yield path, path

    def _of_arrays(self, key, path):
        try:
            found = of_arrays(path)
        except DataError as e:
            found = [(path, e)]
        for name, data in found:
            if self._mine(key + name[len(path) :]):
                yield name, data

    def _written(self, path):
        """Whether it is a file of this or another shard, which may stand among the pictures."""
        name = os.path.basename(path)
        own = self.own_name.fullmatch(name)
        if not own or (self.shards is not None and int(own[1]) >= self.shards):
            return False
        return os.path.realpath(path) == os.path.realpath(self.out.with_name(name))

    def _mine(self, key):
        return self.shards is None or shard_of(key, self.shards) == self.shard


def _in_threads(work, batches):
    """The results of `work` in order; while one batch is decoded, another one is computed."""
    pool = ThreadPoolExecutor(min(MOST_THREADS, cores()))
    waiting = deque()
    try:
        for batch in batches:
            waiting.append(pool.submit(work, batch))
            if len(waiting) > MOST_THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class _Writer:
    """Collects rows, and writes them as parts."""

    def __init__(self, parts):
        self.parts, self.lines, self.size = parts, [], 0
        self.number = max((int(p.stem) for p in _files(parts)), default=0)

    def add(self, lines):
        self.lines += lines
        self.size += sum(map(len, lines))
        if len(self.lines) >= PART or self.size >= MAX_PART_BYTES:
            self.flush()

    def flush(self):
        if self.lines:
            self.number += 1
            with write_atomically(self.parts / f"{self.number:06}.jsonl") as f:
                f.writelines(self.lines)
            self.lines, self.size = [], 0


class _Clock:
    """Shows progress: the bar, and a line now and then in a log."""

    def __init__(self, bar, total, done):
        self.bar, self.total, self.done = bar, total, done
        self.began = self.said = (time.monotonic(), done)
        bar.start("classifying", total, done=done)

    def advance(self, n):
        self.done += n
        self.bar.advance(n)
        if isinstance(self.bar, Lines) and time.monotonic() - self.said[0] > SAID_EVERY:
            rate = self.rate(self.said)
            minutes = max(0, self.total - self.done) / rate / 60
            say(f"{self.done:,} of {self.total:,} images, {rate:,.0f} images/s, {minutes:,.0f} minutes left.")
            self.said = (time.monotonic(), self.done)

    def rate(self, since):
        """Images a second since (time, images done)."""
        return (self.done - since[1]) / max(time.monotonic() - since[0], 1e-9)


def _join(parts, path, task, top):
    """Make one file of the parts."""
    whole = parts / path.name  # here a killed process leaves nothing that nobody removes
    if path.suffix == ".jsonl":
        with write_atomically(whole) as f:
            for part in _files(parts):
                with open(part, "rb") as rows:
                    shutil.copyfileobj(rows, f)
    else:
        with write_atomically(whole, "w", newline="") as f:
            table = csv.writer(f)
            table.writerow(csv_header(task, top))
            for part in _files(parts):
                table.writerows(csv_row(task, top, row) for row in _rows(part))
    try:
        os.replace(whole, path)
        sync(path.parent)
    except OSError as e:
        raise KzooError(f"Can't write {shown(path)}: {e.strerror or e}.") from e
