"""Files and folders written completely or not at all, their hashes, and locks. Standard library only."""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from kzoo.errors import KzooError

LEFT = re.compile(r"\.tmp-[0-9a-f]{8}-")  # names of temporary files that a killed process may leave


def temporary_name(path: Path) -> Path:
    """Return where something is written before it is renamed to `path`, or goes before it is deleted."""
    return path.parent / f".tmp-{secrets.token_hex(4)}-{path.name}"


@contextmanager
def write_atomically(path: str | os.PathLike, mode: str = "wb", **options: Any) -> Iterator[IO]:
    """Open a file for writing that takes the name `path` only if the block ends without an error.

    The file is written beside the target, flushed to the disk and renamed, so that a reader, a kill or a full disk
    finds the old file or the new one, byte for byte. On any error the temporary file (.tmp-*) is removed and the old
    one stays. For a library that needs a path there is `f.name`, which ends in the target's name, and hence in its
    suffix. A symbolic link keeps its target. What is not a regular file, such as /dev/stdout or a pipe, is written to
    directly.

    Args:
        path: The file. Its folder must exist.
        mode: "wb" for bytes or "w" for UTF-8 text.
        options: For open(), such as newline.

    Returns:
        A context manager that gives the open file.

    Raises:
        KzooError: The system refuses: disk full, read-only, a size limit. An OSError about another file, such as an
            input that the block reads, passes through.

    Example:
        >>> with write_atomically("/tmp/kzoo-doctest.txt", "w") as f:
        ...     _ = f.write("whole")
        >>> Path("/tmp/kzoo-doctest.txt").read_text()
        'whole'
    """
    path = Path(path)
    if path.is_dir():
        raise KzooError(f"Can't write {path}: it is a folder; give the name of a file.")
    options = {**({} if "b" in mode else {"encoding": "utf-8"}), **options}
    if path.exists() and not path.is_file():
        try:
            with open(path, mode, **options) as f:
                yield f
        except OSError as e:
            raise KzooError(f"Can't write {path}: {e.strerror or e}.") from e
        return
    path = Path(os.path.realpath(path))
    # Beside the target: a rename is atomic only within one file system.
    temporary = temporary_name(path)
    try:
        with open(temporary, mode.replace("w", "x"), **options) as f:
            yield f
        if path.exists():
            os.chmod(temporary, path.stat().st_mode & 0o777)
        sync(temporary)  # by name: a library that was given the path may have put another file there
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as e:
        if e.filename is not None and Path(e.filename) not in (temporary, path, path.parent):
            raise
        raise KzooError(f"Can't write {path}: {e.strerror or e}. What was there before is unchanged.") from e
    finally:
        with suppress(OSError):
            temporary.unlink()


def check_writable(path: str | os.PathLike) -> None:
    """Check that `write_atomically` could write a file of that name. Nothing is left behind.

    Raises:
        KzooError: It could not.

    Example:
        >>> check_writable("/dev/null/x")
        Traceback (most recent call last):
            ...
        kzoo.errors.KzooError: Can't write /dev/null/x: Not a directory.
    """
    path = Path(path)
    probe = temporary_name(path)
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as e:
        raise KzooError(f"Can't write {path}: {e.strerror}.") from e


def make_folder(path: str | os.PathLike) -> None:
    """Make a folder with its parents, if it does not exist.

    Raises:
        KzooError: The system refuses.

    Example:
        >>> make_folder("/dev/null/x")
        Traceback (most recent call last):
            ...
        kzoo.errors.KzooError: Can't make the folder /dev/null/x: Not a directory.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise KzooError(f"Can't make the folder {path}: {e.strerror or e}.") from e


@contextmanager
def write_folder(path: str | os.PathLike, replace: Callable[[], object] | None = None) -> Iterator[Path]:
    """Give an empty folder beside `path` that takes this name only if the block ends without an error.

    On any error the temporary folder (.tmp-*) is removed and the old one stays. Where the system can exchange two names
    (Linux), a kill at any moment leaves the old folder or the new one under the name, complete.

    Args:
        path: The folder.
        replace: Called if a folder that is not empty exists there; raises if it may not be replaced. None refuses any.

    Returns:
        A context manager that gives the path of the temporary folder.

    Raises:
        KzooError: The folder exists and may not be replaced, or the system refuses.

    Example:
        >>> with write_folder("/tmp/kzoo-doctest", replace=lambda: None) as folder:
        ...     _ = (folder / "a.txt").write_text("whole")
        >>> Path("/tmp/kzoo-doctest/a.txt").read_text()
        'whole'
    """
    path = Path(path)
    temporary = temporary_name(path)

    def allowed():
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise KzooError(f"Can't write the folder {path}: there is a file or a link of that name.")
        there = path.is_dir() and any(path.iterdir())
        if there and replace is None:
            raise KzooError(f"{path} exists.")
        if there:
            replace()
        return there

    try:
        allowed()  # at once, not after the work
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        for where, _, names in os.walk(temporary):
            for name in names:
                sync(os.path.join(where, name))
            sync(where)
        if allowed():
            exchange(temporary, path)
        else:
            os.replace(temporary, path)
        sync(path.parent)
    except OSError as e:
        raise KzooError(f"Can't write {path}: {e.strerror or e}. What was there before is unchanged.") from e
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def exchange(new: Path, old: Path) -> None:
    """Swap the names of two folders: in one step if the system can, else through a third name.

    Args:
        new: A folder.
        old: Another folder on the same file system.

    Raises:
        OSError: The system refuses; both folders keep their names.
    """
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        # Linux: renameat2(AT_FDCWD, new, AT_FDCWD, old, RENAME_EXCHANGE).
        if libc.renameat2(-100, os.fsencode(new), -100, os.fsencode(old), 2) == 0:
            return
    except (OSError, AttributeError, TypeError):
        pass
    third = new.with_name(f"{new.name}-old")
    os.replace(old, third)
    try:
        os.replace(new, old)
    except OSError:
        os.replace(third, old)
        raise
    os.replace(third, new)


def sync(path: str | os.PathLike) -> None:
    """Flush a file or a folder to the disk. File systems that can't flush a folder are accepted.

    Raises:
        OSError: The file can't be opened or flushed.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not os.path.isdir(path):
            raise
    finally:
        os.close(handle)


def digest(path: str | os.PathLike, algorithm: str = "sha256") -> str:
    """Hash a file, read in pieces.

    Args:
        path: The file.
        algorithm: A name that hashlib knows, such as "sha256" or "md5".

    Returns:
        Hex digits.
    """
    state = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as f:
        while piece := f.read(1 << 20):
            state.update(piece)
    return state.hexdigest()


def sha256(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file as hex digits.

    Example:
        >>> Path("/tmp/kzoo-doctest.txt").write_text("whole") and sha256("/tmp/kzoo-doctest.txt")[:8]
        '5d5766cf'
    """
    return digest(path, "sha256")


@contextmanager
def hold_lock(path: str | os.PathLike, on_busy: Callable[[], object], *, shared: bool = False) -> Iterator[bool]:
    """Hold a file's lock for this process while the block runs. The system releases the lock of a process that dies.

    Args:
        path: The lock file, made if it does not exist; it stays.
        on_busy: Called with no arguments if another process holds the lock. What it raises passes through, so that a
            caller can refuse; if it returns, this waits until the other process releases the lock.
        shared: Whether others may hold it, too, if theirs is shared as well.

    Returns:
        A context manager that gives whether there is a lock: False where the system has no `flock` (Windows).

    Raises:
        OSError: The file can't be opened (`filename` is set), or its file system has no locks.

    Example:
        >>> with hold_lock("/tmp/kzoo-doctest.lock", on_busy=lambda: print("waiting")) as held:
        ...     pass
    """
    with open(path, "a") as f:
        try:
            import fcntl
        except ImportError:
            yield False
            return
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(f, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            on_busy()
            fcntl.flock(f, kind)
        yield True


def data_folders() -> list[Path]:
    """Return the folders besides the caches where named data sets may be: $KZOO_DATA, if it is a folder."""
    found = os.environ.get("KZOO_DATA")
    return [Path(found)] if found and os.path.isdir(found) else []


def is_model_file(path: Any) -> bool:
    """Whether something is a path that ends as a Keras model's file does, see `kzoo.keras_files`."""
    return isinstance(path, (str, os.PathLike)) and os.fspath(path).lower().endswith((".keras", ".h5", ".hdf5", ".zip"))


def finite(data: Any) -> Any:
    """Return data for JSON, which has no NaN and no infinity, with None in their places.

    Example:
        >>> finite({"a": [1.0, float("nan")], "b": float("inf")})
        {'a': [1.0, None], 'b': None}
    """
    if isinstance(data, dict):
        return {k: finite(v) for k, v in data.items()}
    if isinstance(data, (list, tuple)):
        return [finite(v) for v in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def escaped(text: object) -> str:
    """Return a name as files written with `backslashreplace` have it: undecodable bytes as escapes."""
    return str(text).encode("utf-8", "backslashreplace").decode()
