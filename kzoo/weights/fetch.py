"""Downloads: one cache, resumed after a break, verified before every use, safe for two processes at once."""

import hashlib
import http.client
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from kzoo.catalog import shipped
from kzoo.catalog.pretrained import PRETRAINED
from kzoo.errors import WeightsError
from kzoo.files import digest, hold_lock, sync
from kzoo.progress import say

TRIES = 5  # in a row without a single new byte
TIMEOUT = 30.0  # seconds without a byte
SINGLE_TIMEOUT = 5.0  # the same, for a single attempt
PAUSE = 0.2  # seconds before the next try, doubled from try to try
PIECE = 1 << 18
LARGEST = 4 << 30  # bytes of a file whose size is not published


def cache_dir():
    """Where downloads are kept: $KZOO_CACHE, or ~/.cache/kzoo."""
    return Path(os.environ.get("KZOO_CACHE") or Path.home() / ".cache" / "kzoo")


def neighbours(name):
    """Where Keras and torch keep a file of that name."""
    keras = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    torch = Path(os.environ.get("TORCH_HOME") or Path.home() / ".cache" / "torch")
    return [keras / "models" / name, torch / "hub" / "checkpoints" / name]


def fetch(weights, progress=None, single_attempt=False):
    """The local path of a `kzoo.Weights`' file, downloaded if need be and verified.

    Looks in the cache, then in Keras' and torch's own; then downloads. A download goes to <name>.part, where a later
    one takes it up, and gets its name only when its hash is right. A file without a published hash is held to the hash
    that it had when it was first downloaded (<name>.sha256): that shows later damage, not a wrong source. progress:
    whether to draw a bar on stderr; None draws it on a terminal. single_attempt: give up at the first try without an
    answer, after 5 seconds; else after about two and a half minutes.

    Raises WeightsError, one line that names the file, where to get it and where to put it.
    """
    if not is_address(weights.file):
        path = Path(weights.file).expanduser()
        if weights.file.startswith(shipped.PREFIX):
            path = shipped.path_of(weights.file)
        if not path.is_file():
            raise WeightsError(f"There is no weights file {path}.")
        verify(path, weights.hash, "It is not the file that these weights name")
        return path
    name = Path(urllib.parse.unquote(urllib.parse.urlparse(weights.file).path)).name
    if not weights.hash and not any(weights.file == w.file for rows in PRETRAINED.values() for w in rows):
        # Every second address from elsewhere ends in model.safetensors, and no hash tells them apart.
        stem, dot, suffix = name.partition(".")
        name = f"{stem}-{hashlib.sha256(weights.file.encode()).hexdigest()[:8]}{dot}{suffix}"
    folder = cache_dir()
    final = folder / name
    if final.is_file():
        return ours(final, weights)
    if weights.hash:
        for path in neighbours(name):
            if path.is_file() and matches(path, weights.hash):
                return path

    def wait():
        say(f"Another process is downloading {name}; waiting for it.")

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with hold_lock(folder / f".{name}.lock", on_busy=wait):
            if final.is_file():  # another process was first
                return ours(final, weights)
            download(weights, final, sys.stderr.isatty() if progress is None else progress, single_attempt)
    except OSError as e:
        raise WeightsError(f"Can't store {name} in {folder}: {e.strerror or e}. {advice(weights, final)}") from e
    return final


def is_address(file):
    return file.startswith(("https://", "http://"))


def advice(weights, final):
    return f"Get it from {weights.file} and put it at {final}."


def ours(final, weights):
    """A file in the cache, once verified."""
    expected = weights.hash
    first = final.with_name(final.name + ".sha256")
    if not expected and first.is_file():
        expected = "sha256:" + first.read_text().strip()
    verify(final, expected, f"Delete it, or put the right one there; it comes from {weights.file}")
    return final


def matches(path, expected):
    """Whether a file has the hash "<algorithm>:<leading hex digits>"; any file has the hash ""."""
    if not expected:
        return True
    algorithm, _, digits = expected.partition(":")
    if algorithm not in ("sha256", "md5") or len(digits) < 8:
        raise WeightsError(f"A hash is 'sha256:' or 'md5:' and eight hex digits or more, got '{expected}'.")
    return digest(path, algorithm).startswith(digits.lower())


def verify(path, expected, otherwise):
    if not matches(path, expected):
        algorithm = expected.partition(":")[0]
        raise WeightsError(
            f"{path} has the hash {algorithm}:{digest(path, algorithm)}, expected {expected}. {otherwise}."
        )


def download(weights, final, progress, single_attempt):
    """Fill <name>.part from where it stopped, verify it, rename it."""
    part = final.with_name(final.name + ".part")
    resumed = part.is_file() and part.stat().st_size > 0
    with bar(final.name, progress) as show:
        transfer(weights, final, part, show, single_attempt)
        if not matches(part, weights.hash) and resumed:
            # The half of yesterday may be of another version of the file: once from the start.
            part.unlink()
            transfer(weights, final, part, show, single_attempt)
    if not matches(part, weights.hash):
        algorithm = weights.hash.partition(":")[0]
        came = digest(part, algorithm)
        part.unlink()
        raise WeightsError(
            f"{weights.file} gave a file with the hash {algorithm}:{came}, expected {weights.hash}; it was deleted. "
            f"Put the right file at {final}."
        )
    sync(part)
    if not weights.hash:
        final.with_name(final.name + ".sha256").write_text(digest(part) + "\n")
    os.replace(part, final)
    sync(final.parent)


def transfer(weights, final, part, show, single_attempt):
    """Download until the file is whole; after a break go on where it stopped."""
    failures, tries = 0, 1 if single_attempt else TRIES
    while True:
        start = part.stat().st_size if part.is_file() else 0
        try:
            if receive(weights, part, start, show, SINGLE_TIMEOUT if single_attempt else TIMEOUT):
                return
            problem = "the connection broke"
        except urllib.error.HTTPError as e:
            if e.code == 416 and start:  # nothing behind what is there: whole, or of another file
                if matches(part, weights.hash) and weights.hash:
                    return
                part.unlink()
            problem = f"the server answers {e.code} {e.reason}"
            if e.code in (401, 403, 404, 410):
                failures = tries
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as e:
            problem = str(getattr(e, "reason", e)) or type(e).__name__
        now = part.stat().st_size if part.is_file() else 0
        failures = 0 if now > start else failures + 1
        if failures >= tries:
            raise WeightsError(f"Can't download {final.name}: {problem}. {advice(weights, final)}") from None
        time.sleep(PAUSE * 2**failures)


def receive(weights, part, start, show, timeout):
    """One request. Returns whether the file is whole."""
    request = urllib.request.Request(weights.file, headers={"User-Agent": "kzoo", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        if answer.status == 206:
            first = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
            if first != str(start):
                raise ConnectionError(f"the server sent the wrong part of the file (from {first or 'nowhere'})")
        else:
            start = 0  # the server can't resume
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else None
        largest = int(1.05 * weights.size) + (4 << 20) if weights.size else LARGEST  # published sizes are rounded
        if total is not None and total > largest:
            raise WeightsError(
                f"{weights.file} declares {total:,} bytes, expected {largest:,}; nothing was downloaded."
            )
        done = start
        show(done, total)
        with open(part, "ab" if start else "wb") as f:
            while piece := answer.read1(PIECE):
                done += len(piece)
                if done > largest:
                    f.truncate(0)
                    raise WeightsError(
                        f"{weights.file} sends more than the {largest:,} bytes expected; nothing was kept."
                    )
                f.write(piece)
                show(done, total)
    return total is None or done >= total


@contextmanager
def bar(name, progress):
    """A function (bytes done, bytes in total or None) that draws, or does nothing."""
    if not progress:
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as p:
        task = p.add_task(name, total=None)
        yield lambda done, total: p.update(task, completed=done, total=total)
