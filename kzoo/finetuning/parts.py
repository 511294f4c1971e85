"""From photos to the parts: training, validation and held-out test, with duplicates on one side.

`test` is used for the final measurement only. It is the source's test part; without one, its validation part; from an
undivided folder, photos drawn by kzoo. `val` decides how deep to train and which epoch is kept. It is the source's
validation part if there is a test part, too; otherwise a fifth of the training photos. The result of checking the
photos is cached, so that a second run decodes none. `kzoo.scout` takes its photos from here as well, so that it never
sees the test part of a fine-tuning with the same seed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass

import numpy as np

from kzoo.data.dataset import DataSet, Split
from kzoo.data.divide import divide
from kzoo.data.labels import images_by_class
from kzoo.data.passport import Passport, check_data
from kzoo.data.scan import scan_images
from kzoo.errors import DataError
from kzoo.files import escaped, write_atomically
from kzoo.finetuning.features import cache_dir, hashes_of
from kzoo.finetuning.options import FinetuneOptions
from kzoo.hardware import load_keras
from kzoo.progress import Deferred, progress

TEST_FRACTION, VAL_FRACTION = 0.2, 0.2  # where kzoo divides
MIN_PER_CLASS = 10  # photos of a class below which no validation part is drawn, and deeper layers stay frozen


@dataclass(frozen=True)
class Parts:
    """The parts of a fine-tuning, and what is known of their photos.

    Attributes:
        splits: "train", and "val" and "test" where there are such.
        pool: all photos that may train, in the source's order: "train" and what kzoo draws or leaves out of it ("val",
            and with `shots` those that were not chosen).
        pool_groups: a number for each photo of the pool (N,), the same for duplicates.
        val_given: whether the validation part is the user's own.
        test_from: whose the held-out part is: "your test", "your val", or "drawn by kzoo".
        groups: a number for each training photo (N,), the same for duplicates.
        hashes: {id: SHA-256 of the photo, None for one that can't be read}.
        passport: of the whole data set.
        skipped: (id, reason) of photos that can't be used.
        images: {id: path, encoded bytes or array} of every photo.
    """

    splits: dict[str, Split]
    pool: Split
    pool_groups: np.ndarray
    val_given: bool
    test_from: str
    groups: np.ndarray
    hashes: dict[str, bytes | None]
    passport: Passport
    skipped: list[tuple[str, str]]
    images: dict

    def describe(self, classes: Sequence[str]) -> str:
        """The parts in one sentence."""
        n = {name: len(split) for name, split in self.splits.items()}
        text = f"{len(classes)} classes; {n['train']:,} training"
        if "val" in n:
            text += f", {n['val']:,} validation ({'your val' if self.val_given else 'drawn from your training photos'})"
        if "test" in n:
            text += f", {n['test']:,} held-out test ({self.test_from})"
        return f"{text} photos."


def make_parts(
    data: DataSet,
    *,
    options: FinetuneOptions,
    needs_network: Callable[[Iterable[bytes | None]], bool],
    quiet: bool,
    timed: Callable[[str], AbstractContextManager],
    recorded: Sequence[Mapping[str, str]] | None = None,
) -> Parts:
    """Hash all photos, check them unless the result of an earlier check is cached, and make the parts.

    Args:
        data: undivided, or in the user's own parts.
        options: a `FinetuneOptions`.
        needs_network: a function of hashes that tells whether the network will have to run, so that Keras is imported
            while the photos are checked.
        quiet: no progress.
        timed: a context manager for the seconds of "hashing" and "passport".
        recorded: the rows of splits.csv (`kzoo.runs.Run.division`) of a run that is resumed: what kzoo drew there is
            taken from them, so that it keeps its parts where the rules have changed since. None draws.
    """
    known_parts = None if recorded is None else {row["id"]: row["split"] for row in recorded}
    with timed("hashing"):
        hashes, gone = {}, []
        for split in data.splits.values():
            found, reasons = hashes_of(split.images)
            hashes.update(zip(split.ids, found, strict=True))
            gone += [(split.ids[i], reason) for i, reason in reasons.items()]
    with timed("passport"):
        memo = _memo_path(data, options, hashes)
        known = None if data.masks else _read_memo(memo)  # the key does not know what is in masks
        seen = RememberedGroups(known["groups"]) if known else _scan(data, needs_network(hashes.values()), quiet)
        divided = DataSet(data.name, data.classes, dict(data.splits), data.skipped + gone, scan=None if known else seen)
        # A DataSet that was loaded with parts drawn for it has them: they are taken as they are.
        if "test" in data.drawn and data.splits.keys() == {"train"}:
            undivided = DataSet(data.name, data.classes, {"all": data.splits["train"]}, scan=seen)
            if known_parts is None:
                divided.splits = divide(undivided, 0.0, TEST_FRACTION, options.seed).splits
            else:
                divided.splits = _as_recorded(data.splits["train"], known_parts, "test", otherwise="train")
            divided.drawn = ("train", "test")
        if known is None:
            passport = check_data(divided, seed=options.seed, bits=options.bits)
        if known is None and not data.masks:
            _write_memo(memo, {"passport": asdict(passport), "groups": passport.groups})
        elif known:
            passport = Passport(**known["passport"])
    user, drawn = divided.splits, bool(divided.drawn)
    splits, val_given = _choose_parts(data, user, seen, options, known_parts)
    test_from = "drawn by kzoo" if drawn else "your test" if "test" in user else "your val"
    return Parts(
        splits=splits,
        pool=user["train"],
        pool_groups=_numbered(seen, user["train"]),
        val_given=val_given,
        test_from=test_from,
        groups=_numbered(seen, splits["train"]),
        hashes=hashes,
        passport=passport,
        skipped=divided.skipped,
        images={id: split.images[i] for split in data.splits.values() for i, id in enumerate(split.ids)},
    )


def _choose_parts(data, user, seen, options, recorded):
    """({"train", "val", "test": Split}, whether val is the user's)."""
    train, test = user["train"], user.get("test")
    val = user.get("val") if test is not None else None
    test = user.get("val") if test is None else test
    val_given = val is not None and not options.shots
    if recorded is not None:
        found = _as_recorded(train, recorded, "train", "val")
        train, val = found["train"], val if val_given else found["val"]
    elif options.shots:
        check_shots(train, options.shots, data.classes)
        train, val = _draw(train, options.shots, options.seed), None
    counts = np.array([len(train)]) if train.masks else images_by_class(train.labels, len(data.classes))
    if recorded is None and val is None and not options.shots and counts.min() >= MIN_PER_CLASS:
        whole = DataSet(data.name, data.classes, {"train": train}, scan=seen)
        rest = divide(whole, options.val_fraction or VAL_FRACTION, 0.0, options.seed).splits
        train, val = rest["train"], rest.get("val")
    found = {"train": train, "val": val, "test": test}
    return {k: v for k, v in found.items() if v is not None and len(v)}, val_given


def _as_recorded(split, recorded, *parts, otherwise=None):
    """{part: Split}: a split's photos by the part that a run's splits.csv, {id: part}, has them in."""
    names = [recorded.get(escaped(i)) for i in split.ids]
    names = [n if n in parts else otherwise for n in names]
    return {p: split.take(np.flatnonzero([n == p for n in names])) for p in (otherwise, *parts) if p is not None}


def _numbered(seen, split):
    """A number for each photo, the same for duplicates: the position of their first.

    A scan and the cached result of one number them differently, and folds are drawn by these numbers.
    """
    _, first, member = np.unique(seen.groups_of(split.ids), return_index=True, return_inverse=True)
    return first[member]


def check_shots(train: Split, shots: int, classes: Sequence[str]) -> None:
    """Check that each class has as many training photos as shall be drawn.

    Args:
        train: the training part, or what it will be drawn from.
        shots: number of photos of each class.
        classes: names of the classes.

    Raises:
        DataError: a class has fewer; the message names it.
    """
    counts = np.bincount(train.labels, minlength=len(classes))
    least = int(counts.argmin())
    if counts[least] < shots:
        raise DataError(
            f"--shots {shots} needs {shots} training photos of each class, and {classes[least]!r} has {counts[least]}: "
            f"--shots {max(1, counts[least])}, or more photos."
        )


def _draw(split, shots, seed):
    """`shots` photos of each class."""
    rng = np.random.default_rng(seed)
    own = [np.flatnonzero(split.labels == k) for k in np.unique(split.labels)]
    own = [rng.choice(i, shots, replace=False) for i in own]
    return split.take(np.sort(np.concatenate(own)))


def _scan(data, keras_too, quiet):
    """Check each photo, in one thread, while another imports Keras if the network will have to run."""
    bar = Deferred()
    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(scan_images, data.splits, bar)
        if keras_too:
            load_keras()  # nothing may be shown meanwhile: it holds stderr back
        with progress(quiet=quiet) as shown:
            bar.show(shown)
            return looking.result()


class RememberedGroups:
    """Groups of duplicates from an earlier scan, in place of that scan. A photo that is not listed has no duplicate."""

    def __init__(self, groups):
        self.number = {i: n for n, ids in enumerate(groups) for i in ids}
        self.alone = len(groups)

    def groups_of(self, ids):
        """A number for each photo (N,), the same for duplicates."""
        return np.array([self.number.get(i, self.alone + n) for n, i in enumerate(ids)], int)


# --- the cached check ------------------------------------------------------------------------------------


def _memo_path(data, options, hashes):
    key = {
        "version": 3,
        "seed": options.seed,
        "shots": options.shots,
        "bits": options.bits,
        "name": data.name,
        "classes": data.classes,
        "skipped": data.skipped,
        "fingerprint": data.fingerprint(),
        "hashes": [h and h.hex() for h in hashes.values()],
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return cache_dir() / "passports" / f"{name}.json"


def _read_memo(path):
    try:
        data = json.loads(path.read_text("utf-8"))
        Passport(**data["passport"])
        return data if data["sha256"] == _memo_hash(data) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _memo_hash(data):
    text = json.dumps({k: data[k] for k in ("passport", "groups")}, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _write_memo(path, data):
    data = json.loads(json.dumps(data))
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path, "w", errors="surrogateescape") as f:
        json.dump({**data, "sha256": _memo_hash(data)}, f)
