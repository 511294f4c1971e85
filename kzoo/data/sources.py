"""Where images and labels come from: folders, tables, .npz, IDX, TensorFlow Datasets, and digits that need no file."""

from __future__ import annotations

import gzip
import math
import os
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np

from kzoo.data.dataset import PARTS, DataSet, Split
from kzoo.data.divide import divide
from kzoo.data.guards import as_uint8, fault, shown
from kzoo.data.table import read_table
from kzoo.errors import DataError

NAMED = ("digits", "mnist", "fashion_mnist", "cifar10")
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MAX_BYTES = 8 << 30  # of arrays read from one file
IGNORED = {"Thumbs.db", "desktop.ini"}


def load_data(source, *, val_fraction=0.1, test_fraction=0.2, seed=0, strict=False, together=False, bar=None):
    """Find and divide a data set.

    source: a folder of class folders (or of train/, val/, test/ with class folders in them), a .csv with the columns
        path, label and perhaps split (`kzoo.data.table` has its rules), "digits", "mnist", "fashion_mnist", "cifar10",
        "tfds:NAME", or an .npz (x_train, y_train, x_test, y_test; or images, labels; and perhaps classes).
    val_fraction, test_fraction: what is taken where the source is not divided itself: a validation part from the
        training part, a test part only from an undivided pile. Stratified, drawn with `seed`.
    strict: refuse files that can't be used instead of leaving them out.
    together: decode each image first (`kzoo.data.scan`), leave out those that can't be decoded, and let duplicates and
        near duplicates stay in one part where kzoo divides. How the source itself divides them is left as it is.
    bar: a `kzoo.progress` to show that on.

    Returns a DataSet. Named sets are looked for in $KZOO_DATA, ../shared/data, the Keras cache, then TensorFlow
    Datasets. Raises DataError.

    >>> data = load_data("digits")
    >>> data.classes[:3], {name: len(split) for name, split in data.splits.items()}
    (('0', '1', '2'), {'train': 1258, 'val': 180, 'test': 359})
    """
    for name, value in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= value < 1:
            raise DataError(f"{name} must be in [0, 1), got {value}.")
    name = os.fspath(source)
    if name in NAMED:
        data = {"digits": _digits, "mnist": _mnist, "fashion_mnist": _mnist, "cifar10": _cifar10}[name](name)
    elif name.startswith("tfds:"):
        data = _tfds(name[5:])
    elif not os.path.exists(name):
        raise DataError(
            f"There is no data set '{name}': give a folder, a .csv, an .npz, tfds:NAME, or one of {', '.join(NAMED)}."
        )
    elif os.path.isdir(name):
        data = _folder(Path(name))
    elif name.endswith(".npz"):
        data = _npz(name)
    elif name.lower().endswith(".csv"):
        data = read_table(name)
    else:
        raise DataError(f"'{name}' is neither a folder nor an .npz or .csv file.")
    data.name = name
    if together:
        from kzoo.data.scan import without_undecodable

        without_undecodable(data, bar)
    if data.skipped and strict:
        raise DataError(report_skipped(data.skipped) + " (--strict)")
    _check(data)
    return divide(data, val_fraction, test_fraction, seed)


def report_skipped(skipped, most=3):
    """One line that names the first few and counts the rest."""
    listed = "; ".join(f"{shown(name)} {reason}" for name, reason in skipped[:most])
    rest = f"; and {len(skipped) - most} more" if len(skipped) > most else ""
    return f"{len(skipped)} unusable file{'s' if len(skipped) > 1 else ''}: {listed}{rest}"


def _check(data):
    if len(data.classes) < 2:
        raise DataError(f"'{data.name}' has {len(data.classes)} class; a classifier needs at least two.")
    for part, split in data.splits.items():
        outside = split.labels[(split.labels < 0) | (split.labels >= len(data.classes))]
        if len(outside):
            raise DataError(
                f"'{data.name}' has {len(data.classes)} classes, so labels are 0 to {len(data.classes) - 1}, "
                f"but there is a {outside[0]} in {part}."
            )
    first = "all" if "all" in data.splits else "train"
    if first not in data.splits:
        raise DataError(f"'{data.name}' has no training part, only {', '.join(data.splits)}.")
    counts = np.bincount(data.splits[first].labels, minlength=len(data.classes))
    empty = [c for c, n in zip(data.classes, counts, strict=True) if not n]
    if empty:
        reason = f" ({report_skipped(data.skipped)})" if data.skipped else ""
        raise DataError(
            f"'{data.name}' has no usable image of class {', '.join(map(repr, empty[:5]))} to train on: "
            f"add some, or remove the class.{reason}"
        )


# --- folders ---------------------------------------------------------------------------------------------


def _folder(root):
    parts = _parts(root)
    classes = sorted({c.name for d in parts.values() for c in _subfolders(d)})
    if not classes:
        raise DataError(f"'{root}' has no class folders: put the images of each class into a folder of its own.")
    skipped, splits, seen = [], {}, set()

    def lost(e):
        return skipped.append((os.path.relpath(e.filename, root), f"can't be read ({e.strerror})"))

    for part, folder in parts.items():
        paths, labels = [], []
        for label, name in enumerate(classes):
            for path in _files(folder / name, seen, lost):
                reason = fault(path)
                if reason:
                    skipped.append((str(path.relative_to(root)), reason))
                else:
                    paths.append(str(path))
                    labels.append(label)
        splits[part] = Split(paths, np.array(labels, "int64"), [str(Path(p).relative_to(root)) for p in paths])
    return DataSet(str(root), tuple(classes), splits, skipped)


def _parts(root):
    """{part: folder}: train/, val/, test/ if it has such, else {"all": root}. A class may be called train, too."""
    inside = _subfolders(root)
    named = [d for d in inside if d.name.lower() in PARTS]
    train = [d for d in named if PARTS[d.name.lower()] == "train"]
    if not train or (len(named) < len(inside) and not any(map(_subfolders, train))):
        return {"all": root}
    parts = {}
    for d in named:
        other = parts.setdefault(PARTS[d.name.lower()], d)
        if other is not d:
            raise DataError(f"'{root}' has {other.name}/ and {d.name}/, which mean the same part: keep one of them.")
    return parts


def _subfolders(folder):
    try:
        return sorted((Path(e.path) for e in os.scandir(folder) if e.is_dir() and not e.name.startswith(".")), key=str)
    except OSError as e:
        raise DataError(f"The folder '{folder}' can't be read ({e.strerror}).") from e


def _files(folder, seen, lost=None):
    """Files below a folder, in order of name, each real file once: links to folders aren't followed.

    lost: called with the OSError of each folder that can't be read.
    """
    found = []
    for where, folders, names in os.walk(folder, onerror=lost, followlinks=False):
        folders[:] = sorted(d for d in folders if not d.startswith("."))
        for name in names:
            if name.startswith(".") or name in IGNORED:
                continue
            path = Path(where, name)
            real = os.path.realpath(path)
            if real not in seen:
                seen.add(real)
                found.append(path)
    return sorted(found, key=lambda p: os.fsencode(p))


# --- files that hold arrays --------------------------------------------------------------------------------


def read_npz(path, most=MAX_BYTES):
    """The arrays of an .npz, by name, at most `most` bytes. Never unpickles; sizes are checked before reading."""
    arrays, total = {}, 0
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if not info.filename.endswith(".npy"):
                    continue
                with archive.open(info) as member:
                    version = np.lib.format.read_magic(member)
                    read = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    shape, _, dtype = read(member)
                if dtype.hasobject:
                    raise DataError(f"'{path}' holds pickled objects ({info.filename}); kzoo reads plain arrays only.")
                total += math.prod(shape) * dtype.itemsize
                if total > most or math.prod(shape) * dtype.itemsize > info.file_size:
                    raise DataError(
                        f"'{path}' declares arrays of {total:,} bytes, more than it holds or than is accepted."
                    )
                with archive.open(info) as member:
                    arrays[info.filename[:-4]] = np.lib.format.read_array(member, allow_pickle=False)
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as e:
        raise DataError(f"'{path}' is no readable .npz file ({e}).") from e
    except Exception as e:
        if isinstance(e, DataError):
            raise
        raise DataError(f"'{path}' is no readable .npz file ({type(e).__name__}: {e}).") from e
    return arrays


def _labels(values, name):
    values = np.asarray(values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        raise DataError(f"Labels in '{name}' must be whole numbers (N,), got {values.dtype} {values.shape}.")
    return values.astype("int64")


def _part(images, labels, part, name):
    images, labels = as_uint8(images), _labels(labels, name)
    if len(images) != len(labels):
        raise DataError(f"'{name}' has {len(images)} images but {len(labels)} labels in {part}.")
    return Split(images, labels, [f"{part}/{i}" for i in range(len(labels))])


def _npz(path):
    arrays = read_npz(path)
    splits = {
        part: _part(arrays[f"x_{part}"], arrays[f"y_{part}"], part, path)
        for part in ("train", "val", "test")
        if {f"x_{part}", f"y_{part}"} <= arrays.keys()
    }
    if not splits and {"images", "labels"} <= arrays.keys():
        splits = {"all": _part(arrays["images"], arrays["labels"], "all", path)}
    if not splits:
        raise DataError(
            f"'{path}' must hold x_train and y_train (and x_val, y_val, x_test, y_test), or images and labels; "
            f"it holds {', '.join(sorted(arrays)) or 'nothing'}."
        )
    if "classes" in arrays:
        classes = tuple(str(c) for c in arrays["classes"].ravel())
    else:
        highest = max((int(s.labels.max()) for s in splits.values() if len(s)), default=-1)
        if highest > 100_000:
            raise DataError(f"'{path}' has the label {highest}, which can't be a class number.")
        classes = tuple(str(i) for i in range(highest + 1))
    return DataSet(str(path), classes, splits)


def read_idx(path):
    """An array from an IDX file, gzipped or not (http://yann.lecun.com/exdb/mnist: magic 0, 0, 8, dimensions)."""
    try:
        with (gzip.open if str(path).endswith(".gz") else open)(path, "rb") as f:
            zero, kind, dims = struct.unpack(">HBB", f.read(4))
            if zero or kind != 8 or not 1 <= dims <= 4:
                raise DataError(f"'{path}' is no IDX file of bytes.")
            shape = struct.unpack(f">{dims}I", f.read(4 * dims))
            if math.prod(shape) > MAX_BYTES:
                raise DataError(f"'{path}' declares {shape}, more than is accepted.")
            data = f.read(math.prod(shape) + 1)
    except (OSError, EOFError, struct.error, gzip.zlib.error) as e:
        raise DataError(f"'{path}' is no readable IDX file ({e}).") from e
    if len(data) != math.prod(shape):
        raise DataError(f"'{path}' declares {shape} but holds {len(data)} bytes.")
    return np.frombuffer(data, np.uint8).reshape(shape)


# --- named sets --------------------------------------------------------------------------------------------


def places():
    """Folders where named data sets may lie, in the order in which they are tried."""
    checkout = Path(__file__).resolve().parents[2]
    candidates = [Path.cwd().parent / "shared/data", checkout.parent / "shared/data"]
    if os.environ.get("KZOO_DATA"):
        candidates.insert(0, Path(os.environ["KZOO_DATA"]))
    return [p for p in dict.fromkeys(candidates) if p.is_dir()]


def keras_cache():
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "datasets"


def _digits(name):
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    return DataSet(name, tuple("0123456789"), {"all": _part(images, digits.target, "digits", name)})


def _mnist(name):
    folders = [p / name for p in places()] + [keras_cache(), keras_cache() / name.replace("_", "-")]
    classes = FASHION if name == "fashion_mnist" else tuple("0123456789")
    for folder in folders:
        if (folder / f"{name}.npz").is_file():
            data = _npz(str(folder / f"{name}.npz"))
            return DataSet(name, classes, data.splits)
        files = [
            folder / f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
        ]
        if all(f.is_file() for f in files):
            x_train, y_train, x_test, y_test = map(read_idx, files)
            return DataSet(
                name,
                classes,
                {
                    "train": _part(x_train, y_train, "train", name),
                    "test": _part(x_test, y_test, "test", name),
                },
            )
    return _tfds(name)


def _cifar10(name):
    for folder in [*(p / name for p in places()), keras_cache()]:
        for file, read in (("cifar-10-binary.tar.gz", _cifar_binary), ("cifar10_jpg.tar.gz", _tar)):
            if (folder / file).is_file():
                return read(folder / file)
    return _tfds(name)  # the copy that Keras itself downloads is pickled, and kzoo unpickles nothing


def _cifar_binary(path):
    """CIFAR-10's own binary version: records of a label and 32x32 bytes each of red, green and blue."""
    record = 1 + 3 * 32 * 32
    files = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
    found = {}
    for pieces, data in _members(path, lambda pieces: pieces[-1] in {*files["train"], *files["test"]}):
        if not data or len(data) % record:
            raise DataError(f"'{path}' holds a {pieces[-1]} of {len(data):,} bytes, no multiple of {record}.")
        found[pieces[-1]] = np.frombuffer(data, np.uint8).reshape(-1, record)
    missing = [f for names in files.values() for f in names if f not in found]
    if missing:
        raise DataError(f"'{path}' lacks {', '.join(missing)}: it should be CIFAR-10's binary version.")
    splits = {}
    for part, names in files.items():
        rows = np.concatenate([found[n] for n in names])
        images = np.ascontiguousarray(rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        splits[part] = _part(images, rows[:, 0], part, path)
    return DataSet(str(path), CIFAR, splits)


def _tar(path):
    """A .tar.gz of <part>/<class>/<name>.jpg."""
    found = dict(_members(path, lambda pieces: len(pieces) == 3 and pieces[0] in PARTS))
    classes = tuple(sorted({c for _, c, _ in found}))
    splits = {}
    for part in dict.fromkeys(p for p, _, _ in found):
        keys = sorted(k for k in found if k[0] == part)
        labels = np.array([classes.index(k[1]) for k in keys], "int64")
        splits[PARTS[part]] = Split([found[k] for k in keys], labels, ["/".join(k) for k in keys])
    return DataSet(str(path), classes, splits)


def _members(path, wanted):
    """(pieces of its name, bytes) of each wanted file in a .tar.gz: nothing is unpacked to paths that it names."""
    total = 0
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                pieces = tuple(member.name.strip("./").split("/"))
                if not member.isfile() or not wanted(pieces):
                    continue
                total += member.size
                if total > MAX_BYTES:
                    raise DataError(f"'{path}' holds more than {MAX_BYTES:,} bytes of images.")
                yield pieces, archive.extractfile(member).read()
    except (OSError, EOFError, tarfile.TarError, gzip.zlib.error) as e:
        raise DataError(f"'{path}' is no readable .tar.gz archive ({e}).") from e


# Where the sets of TensorFlow Datasets lie, for the most part; one that answers is enough to try.
HOSTS = ("https://storage.googleapis.com", "https://www.cs.toronto.edu", "https://github.com")


def _need_network(name, seconds=5):
    """DataError at once where no host answers: TensorFlow Datasets itself tries again for more than a minute."""
    import http.client
    import urllib.error
    import urllib.request
    from concurrent.futures import ThreadPoolExecutor

    def answers(address):  # through a proxy, too, where the environment names one
        try:
            urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=seconds).close()
        except urllib.error.HTTPError:
            return True
        except (OSError, ValueError, http.client.HTTPException):
            return False
        return True

    with ThreadPoolExecutor(len(HOSTS)) as pool:
        if not any(pool.map(answers, HOSTS)):
            raise DataError(
                f"'{name}' is in none of $KZOO_DATA, ../shared/data, the Keras cache and the folder of TensorFlow "
                "Datasets, and there is no network to download it."
            )


def _tfds(name):
    """A prepared (else downloaded) set of TensorFlow Datasets with the features image and label."""
    folder = name.split("/")[0].split(":")[0]
    own = Path(os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets")
    prepared = [str(p / "tfds") for p in places() if (p / "tfds" / folder).is_dir()]
    if not prepared and not (own / folder).is_dir():
        _need_network(name)
    try:
        import tensorflow_datasets as tfds
    except ImportError as e:
        raise DataError(f"'{name}' was found nowhere, and tensorflow_datasets can't be imported ({e}).") from e

    try:
        builder = tfds.builder(name, **({"data_dir": prepared[0]} if prepared else {}))
        features = builder.info.features
        if not {"image", "label"} <= set(features or ()):
            raise DataError(f"tfds:{name} has the features {', '.join(features or ())}; kzoo needs image and label.")
        if not builder.data_path.exists():
            _need_network(name)
            builder.download_and_prepare()
        encoded = {"image": tfds.decode.SkipDecoding()}
        parts = {PARTS[p]: builder.as_dataset(split=p, decoders=encoded) for p in builder.info.splits if p in PARTS}
        if "train" not in parts:
            raise DataError(f"tfds:{name} has no split named train, only {', '.join(builder.info.splits)}.")
        splits = {}
        for part, rows in parts.items():
            rows = list(rows.as_numpy_iterator())
            labels = np.array([row["label"] for row in rows], "int64")
            splits[part] = Split([row["image"] for row in rows], labels, [f"{part}/{i}" for i in range(len(rows))])
    except DataError:
        raise
    except Exception as e:  # tensorflow_datasets raises its own many kinds, and those of what it downloads with
        reason = str(e).strip().splitlines()[0][:200] if str(e).strip() else type(e).__name__
        raise DataError(
            f"'{name}' is in none of $KZOO_DATA, ../shared/data and the Keras cache, and TensorFlow Datasets can't "
            f"give it ({reason})."
        ) from e
    return DataSet(name, tuple(features["label"].names), splits)
