"""The feature cache: a frozen backbone's features of each image on disk, by content. No Keras, no TensorFlow in here.

A cache folder belongs to one backbone. Its name is a hash of the backbone's weights, architecture and its source code,
options, preprocessing, input shape and precision, of the versions of the pixel rules, Keras and its backend, and of
VERSION. In the folder an image's features are found by the SHA-256 of
its bytes. So neither the path nor the data set matters, identical files share one entry, and of ten new photos in a
large set only ten are computed. Entries are stored in segments. A segment is a file that is written once, completely or
not at all, and ends with a hash of its bytes. Two processes at worst do the same work twice. While a process uses a
cache it holds a shared lock on the file of its name and ".lock", so that no other process deletes the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kzoo.data.scan import in_order
from kzoo.errors import DataError, KzooError
from kzoo.files import LEFT, hold_lock, temporary_name, write_atomically

VERSION = 2  # of the values: raise it when decoding, resizing or the inference form changes
MAGIC = b"kzoofeat"
HEADER = struct.Struct("<8sIIII")  # magic, version, view, rows, values in a row
MAX_SEGMENT_IMAGES = 512
DEFAULT_LIMIT = 8 << 30  # bytes of all features on disk: the least recently used are deleted first
MAX_BYTES_IN_MEMORY = 512 << 20  # of features; more are kept in a file that the system pages
BATCH = 32
MAX_DECODED_AHEAD = 256  # images that wait for the network: 38 MB of 224x224


def cache_dir() -> Path:
    """Return the folder of all feature caches: $KZOO_FEATURES, else "features" in the cache of the weights."""
    from kzoo.weights.fetch import cache_dir as weights_cache

    return Path(os.environ.get("KZOO_FEATURES") or weights_cache() / "features")


def limit() -> int:
    """Return the size in bytes that all caches may have: $KZOO_FEATURES_LIMIT, such as 500M; 8G by default.

    Raises:
        KzooError: the variable is not a size.
    """
    text = os.environ.get("KZOO_FEATURES_LIMIT", "").strip().upper().removesuffix("B")
    if not text:
        return DEFAULT_LIMIT
    unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}.get(text[-1])
    try:
        value = float(text[:-1] if unit else text) * (unit or 1)
    except ValueError:
        value = -1
    if not 0 <= value < float("inf"):
        raise KzooError(f"$KZOO_FEATURES_LIMIT must be a size such as 500M or 8G, got '{text}'.")
    return int(value)


@dataclass
class Features:
    """Features of the images that a caller asked for.

    Attributes:
        features: float32 (N, D), in the order of the images, without those that can't be used.
        kept: int (N,), positions of these among the images.
        hashes: SHA-256 of each image, None for a file that can't be read.
        skipped: (position, reason) of the images that can't be used.
        computed: number of images that had to pass through the network; the others were cached.
        seconds: what it took, model building included.
    """

    features: np.ndarray
    kept: np.ndarray
    hashes: Sequence[bytes | None]
    skipped: list[tuple[int, str]]
    computed: int = 0
    seconds: float = 0.0


class Cache:
    """The features of one backbone on disk. No process deletes them as long as this object is alive.

    Args:
        key: a JSON-able dict of all that the features depend on.
        folder: of all caches; `cache_dir()` by default.

    Raises:
        KzooError: the folder can't be written.

    Attributes:
        root: the folder of all caches.
        folder: this cache's own.
        index: {(view, hash): (a segment's file, row)}.
        bad: {hash in hex: why the image can't be decoded}.
        damaged: names of corrupt segments that were deleted.

    Example:
        >>> cache = Cache({"model": "example"}, "features-example")
        >>> cache.add(0, [b"1" * 32], np.ones((1, 3), "float32"))
        >>> Cache({"model": "example"}, "features-example").find(0, b"1" * 32).tolist()
        [1.0, 1.0, 1.0]
    """

    def __init__(self, key: Mapping[str, Any], folder: str | os.PathLike | None = None):
        self.key = {"version": VERSION, **key}
        text = json.dumps(self.key, sort_keys=True)
        self.root = Path(folder or cache_dir())
        self.folder = self.root / hashlib.sha256(text.encode()).hexdigest()[:24]
        self.index: dict[tuple[int, bytes], tuple[Path, int]] = {}
        self._shapes: dict[Path, tuple[int, int, int]] = {}  # segment -> (offset of its rows, their number, width)
        self.bad: dict[str, str] = {}
        self.damaged: list[str] = []
        self._open(text)

    def _open(self, text):
        stack = ExitStack()
        weakref.finalize(self, stack.close)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with suppress(OSError):  # a file system without locks
                stack.enter_context(hold_lock(_lock(self.folder), on_busy=_wait, shared=True))
            self.folder.mkdir(exist_ok=True)
            if not (self.folder / "key.json").exists():
                with write_atomically(self.folder / "key.json", "w") as f:
                    f.write(text)
            os.utime(self.folder / "key.json")  # `prune` goes by the time of last use
        except OSError as e:
            raise KzooError(
                f"Can't write the feature cache {self.root} ({e.strerror or e}): make room there, or set "
                "KZOO_FEATURES to another folder."
            ) from e
        for path in sorted(self.folder.glob("*.features")):
            if not LEFT.match(path.name):  # another process is writing it: as damaged it would be deleted
                self._read(path)
        with suppress(OSError, ValueError, TypeError):
            self.bad = {str(k): str(v) for k, v in dict(json.loads((self.folder / "bad.json").read_text())).items()}

    def _read(self, path):
        try:
            view, hashes, rows = read_segment(path)
        except OSError:  # deleted by another process, or unreadable for now: not corrupt
            return
        except (ValueError, struct.error):
            self.damaged.append(path.name)
            with suppress(OSError):
                path.unlink()
            return
        self._register(path, view, hashes, rows.shape)

    def _register(self, path, view, hashes, shape):
        self._shapes[path] = (HEADER.size + 32 * shape[0], *shape)
        for i, name in enumerate(hashes):
            self.index[view, name] = (path, i)

    def rows(self, path: Path) -> np.ndarray:
        """Return the features (N, D) of a segment, mapped from its file.

        Each such array holds a file open, so copy what is needed and drop it.

        Raises:
            KzooError: the file is gone or can't be read.
        """
        start, n, width = self._shapes[path]
        try:
            return np.memmap(path, "<f4", "r", start, (n, width)) if n * width else np.zeros((n, width), "<f4")
        except (OSError, ValueError) as e:
            raise KzooError(f"{path} of the feature cache is gone or can't be read ({e}): start again.") from e

    def find(self, view: int, name: bytes) -> np.ndarray | None:
        """Return the features (D,) of an image by its hash; None if they are not cached."""
        path, i = self.index.get((view, name), (None, 0))
        return None if path is None else np.array(self.rows(path)[i])

    def add(self, view: int, hashes: Sequence[bytes], rows: np.ndarray) -> None:
        """Write a segment.

        Args:
            view: of the images.
            hashes: of the images, 32 bytes each.
            rows: features (N, D).

        Raises:
            KzooError: the disk is full or can't be written. Earlier segments stay.
        """
        rows = np.ascontiguousarray(rows, "<f4")
        path = self.folder / f"{view}-{hashlib.sha256(b''.join(hashes)).hexdigest()[:24]}.features"
        body = HEADER.pack(MAGIC, VERSION, view, *rows.shape) + b"".join(hashes)
        digest = hashlib.sha256(body)
        digest.update(rows.data)
        try:
            with write_atomically(path) as f:
                f.write(body)
                f.write(rows.data)
                f.write(digest.digest())
        except (KzooError, OSError) as e:
            raise KzooError(
                f"The feature cache {self.root} can't be written ({e}). The features computed before are kept, and the "
                "next run continues from there: make room, or set KZOO_FEATURES to another folder."
            ) from e
        self._register(path, view, hashes, rows.shape)

    def note_bad(self, reasons: Mapping[str, str]) -> None:
        """Record images that can't be decoded, so that the next run does not try again.

        A file that can't be read is not recorded: the next run may be able to read it.

        Args:
            reasons: {hash in hex: reason}.
        """
        reasons = {name: reason for name, reason in reasons.items() if not reason.startswith("can't be read")}
        if reasons:
            self.bad.update(reasons)
            with write_atomically(self.folder / "bad.json", "w") as f:
                json.dump(self.bad, f)


def read_segment(path: str | os.PathLike) -> tuple[int, list[bytes], np.ndarray]:
    """Read a segment and check its hash.

    Returns:
        (view, hashes, features): float32 (N, D), read-only and mapped from the file.

    Raises:
        ValueError: the file is corrupt. struct.error: it is shorter than a header.
        OSError: it can't be read.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as f:
        magic, version, view, n, width = HEADER.unpack(f.read(HEADER.size))
        if (magic, version) != (MAGIC, VERSION) or size != HEADER.size + n * 32 + n * width * 4 + 32:
            raise ValueError("incomplete segment")
        names = f.read(32 * n)
        f.seek(0)
        state, left = hashlib.sha256(), size - 32
        while left:
            piece = f.read(min(left, 1 << 20))
            if not piece:
                raise ValueError("truncated while it was read")
            state.update(piece)
            left -= len(piece)
        if state.digest() != f.read(32):
            raise ValueError("wrong hash")
    rows = np.memmap(path, "<f4", "r", HEADER.size + 32 * n, (n, width)) if n * width else np.zeros((n, width), "<f4")
    return view, [names[32 * i : 32 * i + 32] for i in range(n)], rows


def _lock(folder):
    """The file whose lock says that a cache is in use. It lies outside the folder and stays when that is deleted."""
    return folder.with_name(f"{folder.name}.lock")


def _wait():
    """Another process is deleting this cache, which takes a moment: it is made again afterwards."""


def _in_use():
    raise BlockingIOError


def prune(root: str | os.PathLike, keep: Path, max_bytes: int | None = None) -> None:
    """Delete the least recently used caches until all together are small enough, except for those in use.

    Several processes may do so at once: each deletes a cache only while it alone holds its lock, and what another has
    deleted meanwhile is no error. The folder is renamed first, so that a kill leaves no cache with half of its files.

    Args:
        root: the folder of all caches.
        keep: the folder of a cache that is never deleted.
        max_bytes: of all caches; `limit()` by default.
    """
    max_bytes = limit() if max_bytes is None else max_bytes
    found = []
    for folder in Path(root).iterdir():
        with suppress(OSError):
            if LEFT.match(folder.name) and folder.is_dir():  # left by a process that was killed, or is deleting it
                shutil.rmtree(folder, ignore_errors=True)
            elif (folder / "key.json").is_file():
                found.append(((folder / "key.json").stat().st_mtime, _bytes(folder), folder))
    total = sum(size for _, size, _ in found)
    for _, size, folder in sorted(found, key=lambda item: item[0]):
        if total <= max_bytes:
            break
        if folder != keep and _deleted(folder):
            total -= size


def _deleted(folder):
    """Delete a cache unless another process uses it; whether it is gone."""
    with ExitStack() as stack:
        try:
            stack.enter_context(hold_lock(_lock(folder), on_busy=_in_use))
        except BlockingIOError:
            return False
        except OSError:
            pass  # a file system without locks: nobody can say who uses it
        gone = temporary_name(folder)
        with suppress(OSError):  # another process was faster, or may delete what this one may not
            os.replace(folder, gone)
            shutil.rmtree(gone, ignore_errors=True)
    return not folder.exists()


def _bytes(folder):
    """The size of a folder's files; one that vanishes meanwhile counts nothing."""
    total = 0
    for path in folder.iterdir():
        with suppress(OSError):
            total += path.stat().st_size
    return total


# --- images by content -------------------------------------------------------------------------------------


def content_hash(image: str | os.PathLike | bytes | np.ndarray) -> bytes:
    """Return the SHA-256 of an image: of a file's bytes, of encoded bytes, or of an array's shape and uint8 pixels.

    Raises:
        OSError: the file can't be read.
    """
    if isinstance(image, np.ndarray):
        return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).digest()
    if isinstance(image, bytes):
        return hashlib.sha256(image).digest()
    state = hashlib.sha256()
    with open(image, "rb") as f:
        while piece := f.read(1 << 20):
            state.update(piece)
    return state.digest()


def hashes_of(images: Sequence | np.ndarray) -> tuple[list[bytes | None], dict[int, str]]:
    """Hash images, in threads.

    Args:
        images: paths, encoded bytes or arrays.

    Returns:
        (SHA-256 of each image, None for a file that is gone or can't be read; {position: reason} of those).
    """
    reasons = {}

    def attempt(item):
        i, image = item
        try:
            return content_hash(image)
        except OSError as e:
            reasons[i] = f"can't be read ({e.strerror or e})"
            return None

    return list(in_order(attempt, enumerate(images))), reasons


def features(
    images: Sequence | np.ndarray,
    cache: Cache,
    network: Callable[[], tuple[Callable, Callable]],
    *,
    view: int = 0,
    hashes: Sequence[bytes | None] | None = None,
    advance: Callable[[int], object] | None = None,
    stopped: Callable[[], bool] | None = None,
) -> Features:
    """Return a backbone's features of images, from the cache as far as they are there.

    Memory does not grow with the number of images, except for 32 bytes each and up to MAX_BYTES_IN_MEMORY of features.

    Args:
        images: paths, encoded bytes, or a uint8 array (N, H, W, C).
        cache: the backbone's.
        network: called without arguments if features are missing; returns (prepare, build). prepare(image, view) gives
            a uint8 array of the network's input shape, or raises DataError if the image can't be decoded. build() gives
            a function of (B, H, W, C) to features (B, D).
        view: 0 for the image itself; `prepare` defines the others.
        hashes: what `hashes_of` gave for these images, to save hashing them again.
        advance: called with the number of images that were done.
        stopped: called between batches; True ends the work, and what is done is kept.

    Returns:
        A Features.

    Raises:
        DataError: a file changed during the work; the message names it.
        Interrupted: `stopped` returned True.
        KzooError: the cache can't be written.
    """
    hashes, gone = hashes_of(images) if hashes is None else (hashes, {})
    bad = {name: cache.bad[name.hex()] for name in hashes if name is not None and name.hex() in cache.bad}
    todo, began = {}, time.monotonic()
    for i, name in enumerate(hashes):
        if name is not None and name not in bad and (view, name) not in cache.index:
            todo.setdefault(name, i)
    if todo:
        bad |= _compute(images, todo, cache, network, view=view, advance=advance, stopped=stopped)
    usable = {i: name for i, name in enumerate(hashes) if name is not None and name not in bad}
    skipped = [
        (i, bad[name] if name is not None else gone.get(i, "can't be read"))
        for i, name in enumerate(hashes)
        if name is None or name in bad
    ]
    found = gather(cache, view, list(usable.values()))
    return Features(found, np.array(list(usable), int), hashes, skipped, len(todo), time.monotonic() - began)


def _compute(images, todo, cache, network, *, view, advance, stopped):
    """Compute missing features, a segment at a time; {hash: reason} of images that can't be decoded.

    todo: {hash: position}.
    """
    prepare, build = network()
    bad, names, batch, rows = {}, [], [], []

    def attempt(item):
        name, i = item
        return name, i, *_prepared(images[i], name, view, prepare)

    def run_batch():
        if batch:
            rows.append(predict(np.stack(batch)))
            if advance:
                advance(len(batch))
            batch.clear()

    def flush():
        if names:
            cache.add(view, names, np.concatenate(rows))
            names.clear()
            rows.clear()

    decoded = in_order(attempt, todo.items(), MAX_DECODED_AHEAD)
    try:
        predict = build()  # while threads decode
        for name, i, image, reason in decoded:
            if reason == "changed":
                from kzoo.data.guards import shown

                raise DataError(
                    f"{shown(images[i])} changed while it was used: start again when no other program writes there."
                )
            if reason:
                bad[name] = reason
                continue
            names.append(name)
            batch.append(image)
            if len(batch) == BATCH:
                run_batch()
                if stopped and stopped():
                    break
            if len(names) >= MAX_SEGMENT_IMAGES and not batch:
                flush()
        run_batch()
    finally:
        decoded.close()
        del names[sum(map(len, rows)) :]  # after an error: images whose features were not computed
        flush()
        cache.note_bad({name.hex(): reason for name, reason in bad.items()})
    if stopped and stopped():
        from kzoo.interrupt import Interrupted

        raise Interrupted("")
    prune(cache.root, cache.folder)
    return bad


def _prepared(image, name, view, prepare):
    """(input array, None) or (None, reason); "changed" if the bytes are no longer those that were hashed."""
    from kzoo.data.guards import fault

    try:
        if not isinstance(image, (np.ndarray, bytes)):
            # Hash the bytes that are decoded once more: whatever happens, stored features belong to their key.
            with open(image, "rb") as f:
                data = f.read()
            if hashlib.sha256(data).digest() != name:
                return None, "changed"
            reason = fault(image)
            if reason:
                return None, reason
            image = data
        return prepare(image, view), None
    except FileNotFoundError:
        return None, "changed"
    except OSError as e:
        return None, f"can't be read ({e.strerror or e})"
    except DataError as e:
        return None, str(e)


def gather(cache: Cache, view: int, names: Sequence[bytes]) -> np.ndarray:
    """Collect cached features of images by their hashes.

    Args:
        cache: where they are.
        view: of the images.
        names: hashes (N).

    Returns:
        float32 (N, D); beyond MAX_BYTES_IN_MEMORY an array mapped from a temporary file without a name.

    Raises:
        KzooError: there is no room for that file, or a segment is gone.
    """
    if not names:
        return np.zeros((0, 0), "float32")
    width = cache.rows(cache.index[view, names[0]][0]).shape[1]
    size = len(names) * width * 4
    if size <= MAX_BYTES_IN_MEMORY:
        out = np.empty((len(names), width), "float32")
    else:
        with tempfile.NamedTemporaryFile(dir=cache.root, prefix=".tmp-") as f:  # unlinked at once, kept by the map
            if hasattr(os, "posix_fallocate"):  # otherwise a disk that fills up later would kill the process (SIGBUS)
                try:
                    os.posix_fallocate(f.fileno(), 0, size)
                except OSError as e:
                    raise KzooError(
                        f"The features take {size / 1e9:.1f} GB in {cache.root}: {e.strerror}. Make room there, or set "
                        "KZOO_FEATURES to another folder."
                    ) from e
            out = np.memmap(f, "float32", "r+", shape=(len(names), width))
    places = {}
    for k, name in enumerate(names):
        path, i = cache.index[view, name]
        places.setdefault(path, []).append((k, i))
    for path, pairs in places.items():
        to, of = np.array(pairs).T
        out[to] = cache.rows(path)[of]
    return out
