"""Data sets that are known by name: digits, digits_segmentation, mnist, fashion_mnist, cifar10."""

from __future__ import annotations

import os
import tarfile
import zlib
from pathlib import Path

import numpy as np

from kzoo.data.dataset import DataSet, Split, part_of
from kzoo.data.guards import is_clutter
from kzoo.data.labels import class_names
from kzoo.data.sources import NAMED, arrays, tfds
from kzoo.errors import DataError
from kzoo.files import data_folders

FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def matches(source: str) -> bool:
    """Return whether this kind reads the source: one of the names in NAMED."""
    return source in NAMED


def read(name: str) -> DataSet:
    """Read the data set of that name, from $KZOO_DATA or the Keras cache, else from TensorFlow Datasets.

    Raises:
        DataError: It was found nowhere, or a file of it is corrupt.
    """
    readers = {"digits": _digits, "digits_segmentation": _scenes, "cifar10": _cifar10}
    return readers.get(name, _mnist)(name)


def keras_cache() -> Path:
    """Return the folder where Keras keeps data sets: $KERAS_HOME/datasets, by default ~/.keras/datasets."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "datasets"


def _digits(name):
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    return DataSet(name, tuple("0123456789"), {"all": arrays.split_of(images, digits.target, "digits", name)})


def _scenes(name):
    from kzoo.data.drawn import digit_scenes

    splits = {}
    for part, (images, masks) in digit_scenes().items():
        splits[part] = Split(images, masks, [f"{part}/{i}" for i in range(len(images))])
    return DataSet(name, ("background", *"0123456789"), splits)


def _mnist(name):
    folders = [p / name for p in data_folders()] + [keras_cache(), keras_cache() / name.replace("_", "-")]
    classes = FASHION if name == "fashion_mnist" else tuple("0123456789")
    for folder in folders:
        if (folder / f"{name}.npz").is_file():
            data = arrays.read(str(folder / f"{name}.npz"))
            return DataSet(name, classes, data.splits)
        files = [
            folder / f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
        ]
        if all(f.is_file() for f in files):
            x_train, y_train, x_test, y_test = map(arrays.read_idx, files)
            return DataSet(
                name,
                classes,
                {
                    "train": arrays.split_of(x_train, y_train, "train", name),
                    "test": arrays.split_of(x_test, y_test, "test", name),
                },
            )
    return tfds.read_prepared(name)


def _cifar10(name):
    for folder in [*(p / name for p in data_folders()), keras_cache()]:
        for file, read in (("cifar-10-binary.tar.gz", _cifar_binary), ("cifar10_jpg.tar.gz", _tar)):
            if (folder / file).is_file():
                return read(folder / file)
    return tfds.read_prepared(name)  # the copy that Keras itself downloads is pickled, and kzoo unpickles nothing


def _cifar_binary(path):
    """CIFAR-10's own binary version: records of a label and 32x32 bytes each of red, green and blue."""
    record = 1 + 3 * 32 * 32
    files = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
    found = {}
    for pieces, data in _members(path, lambda pieces: pieces[-1] in {*files["train"], *files["test"]}):
        if not data or len(data) % record:
            raise DataError(f"'{path}' holds a {pieces[-1]} of {len(data):,} bytes, not a multiple of {record}.")
        found[pieces[-1]] = np.frombuffer(data, np.uint8).reshape(-1, record)
    missing = [f for names in files.values() for f in names if f not in found]
    if missing:
        raise DataError(f"'{path}' lacks {', '.join(missing)}: it should be CIFAR-10's binary version.")
    splits = {}
    for part, names in files.items():
        rows = np.concatenate([found[n] for n in names])
        images = np.ascontiguousarray(rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        splits[part] = arrays.split_of(images, rows[:, 0], part, path)
    return DataSet(str(path), CIFAR, splits)


def _tar(path):
    """A .tar.gz of <part>/<class>/<name>.jpg."""
    skipped = []

    def wanted(pieces):
        if any(map(is_clutter, pieces)):
            return False
        if len(pieces) == 3 and part_of(pieces[0]):
            return True
        skipped.append(("/".join(pieces), "is not of the form PART/CLASS/NAME, with a part such as train or test"))
        return False

    found = dict(_members(path, wanted))
    names = class_names({c for _, c, _ in found}, path)
    classes = tuple(sorted(set(names.values())))
    splits = {}
    for folder in dict.fromkeys(p for p, _, _ in found):
        part = part_of(folder)
        if part in splits:
            raise DataError(f"'{path}' has {folder}/ and another folder that means the same part: keep one of them.")
        keys = sorted(k for k in found if k[0] == folder)
        labels = np.array([classes.index(names[k[1]]) for k in keys], "int64")
        splits[part] = Split([found[k] for k in keys], labels, ["/".join(k) for k in keys])
    return DataSet(str(path), classes, splits, skipped)


def _members(path, wanted):
    """(pieces of its name, bytes) of each wanted file in a .tar.gz: nothing is unpacked to paths that it names."""
    total = 0
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                pieces = tuple(member.name.removeprefix("./").strip("/").split("/"))
                if not member.isfile() or not wanted(pieces):
                    continue
                total += member.size
                if total > arrays.MAX_BYTES:
                    raise DataError(f"'{path}' holds more than {arrays.MAX_BYTES:,} bytes of images.")
                yield pieces, archive.extractfile(member).read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as e:
        raise DataError(f"'{path}' is not a readable .tar.gz archive ({e}).") from e
