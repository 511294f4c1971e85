"""Features once: what a frozen backbone makes of each image, on disk by content. No Keras, no TensorFlow in here.

A cache folder belongs to one backbone: the hash of its weights, architecture, options, preprocessing, input shape,
precision and VERSION name it. In it an image's features are found by the SHA-256 of its bytes, so neither the path nor
the data set matters, identical files share one entry, and ten new photos cost ten. Entries lie in segments, files that
are written once, whole or not at all, and carry a hash of themselves; two processes at worst do the same work twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kzoo.data.scan import in_order
from kzoo.errors import DataError, KzooError
from kzoo.files import write_atomically

VERSION = 2  # of the numbers: raise it when decoding, resizing or the inference form changes
MAGIC = b"kzoofeat"
HEAD = struct.Struct("<8sIIII")  # magic, version, view, rows, values in a row
SEGMENT = 512  # images in a segment, at most
LIMIT = 8 << 30  # bytes of all features on disk: the oldest used go first
IN_MEMORY = 512 << 20  # bytes of features in memory; more lie in a file that the system pages
BATCH = 32
AHEAD = 256  # images decoded before their turn: 38 MB of 224x224


def cache_dir():
    """Where features are kept: $KZOO_FEATURES, else "features" in the cache of the weights."""
    from kzoo.weights.fetch import cache_dir as weights_cache

    return Path(os.environ.get("KZOO_FEATURES") or weights_cache() / "features")


def limit():
    """The size in bytes that the cache may have: $KZOO_FEATURES_LIMIT, such as 500M or 8G (default)."""
    text = os.environ.get("KZOO_FEATURES_LIMIT", "").strip().upper().removesuffix("B")
    if not text:
        return LIMIT
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
    """features: float32 (N, D), in the order of what was asked for, without what can't be decoded.

    kept: positions (N,) of these among what was asked for. hashes: SHA-256 of each image, asked for. skipped:
    (position, reason). computed: how many passed through the network. seconds: what that took, model building included.
    """

    features: np.ndarray
    kept: np.ndarray
    hashes: list[bytes]
    skipped: list[tuple[int, str]]
    computed: int = 0
    seconds: float = 0.0


class Cache:
    """The features of one backbone on disk.

    key: a JSON-able dict that says all that the features depend on. folder: where caches lie.

    >>> cache = Cache({"model": "example"}, "features-example")
    >>> cache.add(0, [b"1" * 32], np.ones((1, 3), "float32"))
    >>> Cache({"model": "example"}, "features-example").find(0, b"1" * 32).tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(self, key, folder=None):
        self.key = {"version": VERSION, **key}
        text = json.dumps(self.key, sort_keys=True)
        self.root = Path(folder or cache_dir())
        self.folder = self.root / hashlib.sha256(text.encode()).hexdigest()[:24]
        self.index = {}  # (view, hash) -> (a segment's file, number of the row)
        self.places = {}  # a segment's file -> (where its rows begin, their number, values in each)
        self.bad = {}  # hash in hex -> why it can't be decoded
        self.damaged = []  # segments that were thrown away
        self._open(text)

    def _open(self, text):
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / "key.json").exists():
                with write_atomically(self.folder / "key.json", "w") as f:
                    f.write(text)
            os.utime(self.folder / "key.json")  # used now: `prune` keeps what was used last
        except OSError as e:
            raise KzooError(
                f"Can't write the feature cache {self.root} ({e.strerror or e}): make room there, or set "
                "KZOO_FEATURES to another folder."
            ) from e
        for path in sorted(self.folder.glob("*.features")):
            self._read(path)
        with suppress(OSError, ValueError, TypeError):
            self.bad = {str(k): str(v) for k, v in dict(json.loads((self.folder / "bad.json").read_text())).items()}

    def _read(self, path):
        try:
            view, hashes, rows = read_segment(path)
        except OSError:  # thrown away by another process, or not to be read now: no reason to throw it away
            return
        except (ValueError, struct.error):
            self.damaged.append(path.name)
            with suppress(OSError):
                path.unlink()
            return
        self._place(path, view, hashes, rows.shape)

    def _place(self, path, view, hashes, shape):
        self.places[path] = (HEAD.size + 32 * shape[0], *shape)
        for i, name in enumerate(hashes):
            self.index[view, name] = (path, i)

    def rows(self, path):
        """Features (N, D) of a segment, paged from its file: not for keeps, since each holds a file open."""
        start, n, width = self.places[path]
        try:
            return np.memmap(path, "<f4", "r", start, (n, width)) if n * width else np.zeros((n, width), "<f4")
        except (OSError, ValueError) as e:
            raise KzooError(f"{path} of the feature cache is gone or can't be read ({e}): start again.") from e

    def find(self, view, name):
        """The features (D,) of an image by its hash, or None."""
        path, i = self.index.get((view, name), (None, 0))
        return None if path is None else np.array(self.rows(path)[i])

    def add(self, view, hashes, rows):
        """Write a segment; KzooError if the disk is full. Earlier segments stay."""
        rows = np.ascontiguousarray(rows, "<f4")
        path = self.folder / f"{view}-{hashlib.sha256(b''.join(hashes)).hexdigest()[:24]}.features"
        body = HEAD.pack(MAGIC, VERSION, view, *rows.shape) + b"".join(hashes)
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
        self._place(path, view, hashes, rows.shape)

    def note_bad(self, reasons):
        """Remember what can't be decoded, so that the next run need not try; what can't be read may be next time."""
        reasons = {name: reason for name, reason in reasons.items() if not reason.startswith("can't be read")}
        if reasons:
            self.bad.update(reasons)
            with write_atomically(self.folder / "bad.json", "w") as f:
                json.dump(self.bad, f)


def read_segment(path):
    """(view, hashes, features (N, D) float32, read-only and paged from the file); ValueError if a bit is wrong."""
    size = os.path.getsize(path)
    with open(path, "rb") as f:
        magic, version, view, n, width = HEAD.unpack(f.read(HEAD.size))
        if (magic, version) != (MAGIC, VERSION) or size != HEAD.size + n * 32 + n * width * 4 + 32:
            raise ValueError("no whole segment")
        names = f.read(32 * n)
        f.seek(0)
        state, left = hashlib.sha256(), size - 32
        while left:
            piece = f.read(min(left, 1 << 20))
            if not piece:
                raise ValueError("cut while it was read")
            state.update(piece)
            left -= len(piece)
        if state.digest() != f.read(32):
            raise ValueError("wrong hash")
    rows = np.memmap(path, "<f4", "r", HEAD.size + 32 * n, (n, width)) if n * width else np.zeros((n, width), "<f4")
    return view, [names[32 * i : 32 * i + 32] for i in range(n)], rows


def prune(root, keep, most=None):
    """Delete the caches that were not used for longest until all take at most `most` bytes; never `keep`."""
    most = limit() if most is None else most
    found = []
    for folder in Path(root).iterdir():
        with suppress(OSError):
            if (folder / "key.json").is_file():
                size = sum(e.stat().st_size for e in os.scandir(folder) if e.is_file())
                found.append(((folder / "key.json").stat().st_mtime, size, folder))
    total = sum(size for _, size, _ in found)
    for _, size, folder in sorted(found, key=lambda item: item[0]):
        if total <= most:
            break
        if folder != keep:
            shutil.rmtree(folder, ignore_errors=True)
            total -= size


# --- images by content -------------------------------------------------------------------------------------


def content_hash(image):
    """SHA-256 of an image: of a file's bytes, of encoded bytes, of an array's shape and pixels (uint8)."""
    if isinstance(image, np.ndarray):
        return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).digest()
    if isinstance(image, bytes):
        return hashlib.sha256(image).digest()
    state = hashlib.sha256()
    with open(image, "rb") as f:
        while piece := f.read(1 << 20):
            state.update(piece)
    return state.digest()


def hashes_of(images):
    """(SHA-256 of each image, None for a file that is gone or can't be read; reasons by position)."""
    reasons = {}

    def attempt(item):
        i, image = item
        try:
            return content_hash(image)
        except OSError as e:
            reasons[i] = f"can't be read ({e.strerror or e})"
            return None

    return list(in_order(attempt, enumerate(images))), reasons


def features(images, cache, network, *, view=0, hashes=None, advance=None, stopped=None):
    """What a backbone makes of images, from the cache where it is there.

    images: paths, encoded bytes, or a uint8 array (N, H, W, C). cache: the backbone's `Cache`. network: called, when
    something is missing, for (prepare, build): prepare(image, view) gives a uint8 array of the network's input, or
    DataError if the image can't be decoded; build() gives a function of (B, H, W, C) to features (B, D). view: 0 for
    the image as it is; others are what `prepare` makes of it. advance: called with the number of images done. stopped:
    asked between batches; the work is kept.

    Returns Features. Raises DataError, naming the file, if one changed while it was used. Memory does not grow with
    the images, but for 32 bytes each and features of IN_MEMORY bytes.
    """
    hashes, gone = hashes_of(images) if hashes is None else (hashes, {})
    bad = {name: cache.bad[name.hex()] for name in hashes if name is not None and name.hex() in cache.bad}
    todo, began = {}, time.monotonic()
    for i, name in enumerate(hashes):
        if name is not None and name not in bad and (view, name) not in cache.index:
            todo.setdefault(name, i)
    if todo:
        bad |= _compute(images, todo, cache, network, view, advance, stopped)
    kept = [i for i, name in enumerate(hashes) if name is not None and name not in bad]
    skipped = [
        (i, bad[name] if name is not None else gone.get(i, "can't be read"))
        for i, name in enumerate(hashes)
        if name is None or name in bad
    ]
    found = gather(cache, view, [hashes[i] for i in kept])
    return Features(found, np.array(kept, int), hashes, skipped, len(todo), time.monotonic() - began)


def _compute(images, todo, cache, network, view, advance, stopped):
    """Pass what is missing through the network, a segment at a time; {hash: reason} of what can't be decoded."""
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

    decoded = in_order(attempt, todo.items(), AHEAD)
    try:
        predict = build()  # while threads decode
        for name, i, image, reason in decoded:
            if reason == "changed":
                from kzoo.data.guards import shown

                raise DataError(f"{shown(images[i])} changed while it was used: start again when nobody writes there.")
            if reason:
                bad[name] = reason
                continue
            names.append(name)
            batch.append(image)
            if len(batch) == BATCH:
                run_batch()
                if stopped and stopped():
                    break
            if len(names) >= SEGMENT and not batch:
                flush()
        run_batch()
    finally:
        decoded.close()
        del names[sum(map(len, rows)) :]  # what an error kept from being computed
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
            # The very bytes that are decoded are hashed again: what is stored belongs to its key, whatever happens.
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


def gather(cache, view, names):
    """Features (N, D) of images by their hashes; in a file without a name where they are many."""
    if not names:
        return np.zeros((0, 0), "float32")
    width = len(cache.find(view, names[0]))
    size = len(names) * width * 4
    if size <= IN_MEMORY:
        out = np.empty((len(names), width), "float32")
    else:
        with tempfile.NamedTemporaryFile(dir=cache.root, prefix=".tmp-") as f:  # unlinked at once, kept by the map
            if hasattr(os, "posix_fallocate"):  # else a disk that fills later would kill without a word
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
