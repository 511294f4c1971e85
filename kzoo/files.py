"""Files written whole or not at all, and their hashes. Standard library only."""

import ctypes
import hashlib
import os
import re
import secrets
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

from kzoo.errors import KzooError

LEFT = re.compile(r"\.tmp-[0-9a-f]{8}-")  # how the names begin of what a kill leaves of the writers below


def _temporary(path):
    """Where something is written before it is renamed to `path`."""
    return path.parent / f".tmp-{secrets.token_hex(4)}-{path.name}"


@contextmanager
def write_atomically(path, mode="wb", **options):
    """Give a file open for writing (mode "wb" or "w") that takes the name `path` only when the block ends well.

    The file is written beside the target, flushed to the disk and renamed, so that a reader, a kill or a full disk
    finds the old file or the new one, byte for byte. On any error the temporary file (.tmp-*) is removed and the old
    one stays. For a library that wants a path: `f.name`, which ends in the target's name, hence its suffix.
    A link keeps pointing where it does; what is no file, such as /dev/stdout or a pipe, is written to as it is.
    options: for open(), such as newline.

    Raises KzooError, naming the file and the reason, where the system refuses: disk full, read-only, a size limit.
    An OSError about another file, such as an input that the block reads, passes through.

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
    temporary = _temporary(path)
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


def check_writable(path):
    """KzooError unless `write_atomically` could write a file of that name; leaves nothing behind.

    >>> check_writable("/dev/null/x")
    Traceback (most recent call last):
        ...
    kzoo.errors.KzooError: Can't write /dev/null/x: Not a directory.
    """
    path = Path(path)
    probe = _temporary(path)
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as e:
        raise KzooError(f"Can't write {path}: {e.strerror}.") from e


def make_folder(path):
    """A folder with its parents, if it is not there; KzooError where the system refuses.

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
def write_folder(path, replace=None):
    """Give an empty folder beside `path` that takes its name only when the block ends well.

    replace: a function that raises if the folder that is there may not be replaced; None allows no folder there, unless
    it is empty. On any error the temporary folder (.tmp-*) is removed and the old one stays. Where the system can
    exchange two names (Linux), a kill at any moment leaves the old folder or the new one under the name, whole.

    Raises KzooError, naming the folder and the reason, where the system refuses.

    >>> with write_folder("/tmp/kzoo-doctest", replace=lambda: None) as folder:
    ...     _ = (folder / "a.txt").write_text("whole")
    >>> Path("/tmp/kzoo-doctest/a.txt").read_text()
    'whole'
    """
    path = Path(path)
    temporary = _temporary(path)

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


def exchange(new, old):
    """Let two folders swap names: at once where the system can, else through a third name."""
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


def sync(path):
    """Flush a file or a folder to the disk. Some file systems can't for a folder; then the rename has to do."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not os.path.isdir(path):
            raise
    finally:
        os.close(handle)


def digest(path, algorithm="sha256"):
    """The hash of a file as hex digits, read in pieces."""
    state = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as f:
        while piece := f.read(1 << 20):
            state.update(piece)
    return state.hexdigest()


def sha256(path):
    """The SHA-256 of a file as hex digits.

    >>> Path("/tmp/kzoo-doctest.txt").write_text("whole") and sha256("/tmp/kzoo-doctest.txt")[:8]
    '5d5766cf'
    """
    return digest(path, "sha256")


@contextmanager
def hold_lock(path, on_busy):
    """Hold a file's lock for this process while the block runs. The system releases the lock of a process that dies.

    Args:
        path: The lock file, made if it does not exist; it stays.
        on_busy: Called with no arguments if another process holds the lock. What it raises passes through, so that a
            caller can refuse; if it returns, this waits until the other process releases the lock.

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
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_busy()
            fcntl.flock(f, fcntl.LOCK_EX)
        yield True


def data_folders():
    """Folders where named data sets and downloaded weights may lie, beside the caches: that of $KZOO_DATA."""
    found = os.environ.get("KZOO_DATA")
    return [Path(found)] if found and os.path.isdir(found) else []


def escaped(text):
    """A name as files written with `backslashreplace` have it: undecodable bytes as escapes."""
    return str(text).encode("utf-8", "backslashreplace").decode()
