"""Sets of TensorFlow Datasets, as tfds:NAME: prepared ones are read, others downloaded.

tfds:NAME has the feature `label` as its labels; tfds:NAME#FEATURE another one, which may be masks.
"""

from __future__ import annotations

import os
import re
from array import array
from pathlib import Path

import numpy as np

from kzoo.data.dataset import DataSet, Split, part_of
from kzoo.data.masks import IGNORED, MaskFile, Table, values_of
from kzoo.data.records import FORMATS, Records, features_of, image_of, interleaved
from kzoo.data.sequences import Names
from kzoo.errors import DataError
from kzoo.files import data_folders

# The server that TensorFlow Datasets asks first, for every set, whether a prepared copy exists.
HOST = "https://storage.googleapis.com"
# What the pixels of masks mean, by set and feature: (name, value) of each class, in the order of their numbers. Masks
# of other sets hold the numbers 0, 1, ... of classes.
MASKS = {"oxford_iiit_pet": {"segmentation_mask": (("background", 2), ("pet", 1), ("outline", 3))}}


def matches(source: str) -> bool:
    """Return whether this kind reads the source: tfds:NAME."""
    return source.startswith("tfds:")


def read(source: str) -> DataSet:
    """Read the data set that "tfds:NAME" or "tfds:NAME#FEATURE" names, see `read_prepared`.

    NAME may have a configuration and a version.

    Raises:
        DataError: The name asks for a slice, or is none.
    """
    name, _, feature = source.removeprefix("tfds:").partition("#")
    if "[" in name or "+" in name:
        raise DataError(
            f"'{source}' asks for a slice, and kzoo reads whole sets: give tfds:{name.split('[')[0].split('+')[0]}, "
            "or take the slice in Python and give kzoo a DataSet."
        )
    if not re.fullmatch(r"[A-Za-z0-9]\w*(/[A-Za-z0-9_.*-]+){0,2}(:[0-9.*]+)?", name) or (
        "#" in source and not re.fullmatch(r"\w+", feature)
    ):
        raise DataError(
            f"'{source}' names no set: write tfds:NAME, tfds:NAME/CONFIG, tfds:NAME/VERSION or tfds:NAME#FEATURE."
        )
    return read_prepared(name, feature or "label")


def _need_network(name, seconds=5):
    """DataError at once where no host answers: TensorFlow Datasets itself tries again for more than a minute."""
    import http.client
    import urllib.error
    import urllib.request

    try:  # through a proxy, too, where the environment names one
        urllib.request.urlopen(urllib.request.Request(HOST, method="HEAD"), timeout=seconds).close()
    except urllib.error.HTTPError:
        pass  # an answer
    except (OSError, ValueError, http.client.HTTPException):
        raise DataError(
            f"'{name}' is in none of $KZOO_DATA, the Keras cache and the folder of TensorFlow Datasets, and there is "
            "no network to download it."
        ) from None


def read_prepared(name: str, label: str = "label") -> DataSet:
    """Read a set of TensorFlow Datasets that has the features image and label; download it if it is not prepared.

    Args:
        name: As `tfds.builder` takes it.
        label: The feature that is learned: a whole number, or pictures of one channel, which are masks.

    Returns:
        A DataSet of encoded images, with the splits that TensorFlow Datasets has under a name that kzoo knows; others
        are `skipped`. A label without names has the classes "0", "1", ... From files of the formats tfrecord and
        array_record images are read one by one (`kzoo.data.records`); those of others are all in memory.

    Raises:
        DataError: It has other features, or can't be had.
    """
    folder = name.split("/")[0].split(":")[0]
    own = Path(os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets")
    prepared = [str(p / "tfds") for p in data_folders() if (p / "tfds" / folder).is_dir()]
    if not prepared and not (own / folder).is_dir():
        _need_network(name)
    try:
        import tensorflow_datasets as tfds
    except ImportError as e:
        raise DataError(f"'{name}' was not found, and tensorflow_datasets can't be imported ({e}).") from e

    try:
        asked = re.sub(
            r"/(\d+(\.[\d*]+)+)$", r":\1", name
        )  # a version: after a slash TensorFlow Datasets expects a config
        builder = tfds.builder(asked, **({"data_dir": prepared[0]} if prepared else {}))
        features = builder.info.features
        if not {"image", label} <= set(features or ()):
            raise DataError(f"tfds:{name} has the features {', '.join(features or ())}; kzoo needs image and {label}.")
        if not builder.data_path.exists():
            _need_network(name)
            builder.download_and_prepare()
        dtype = str(getattr(features[label], "np_dtype", None) or getattr(features[label], "dtype", "int64"))
        shape = tuple(getattr(features[label], "shape", None) or ())
        masks = "int8" in dtype and len(shape) == 3 and shape[2] == 1
        if not masks and (not ("int" in dtype or "bool" in dtype) or shape):
            raise DataError(
                f"tfds:{name} has labels of the kind {dtype} {shape}; kzoo needs one whole number an image, or a mask."
            )
        encoded = dict.fromkeys(("image", label) if masks else ("image",), tfds.decode.SkipDecoding())
        parts, skipped = {}, []
        for split in builder.info.splits:
            part = part_of(split)
            if part is None:
                skipped.append((split, f"is none of the parts train, validation, test{_size_of(builder, split)}"))
            elif part in parts:
                raise DataError(f"tfds:{name} has the splits {parts[part]} and {split}, which mean the same part.")
            else:
                parts[part] = split
        if "train" not in parts:
            raise DataError(f"tfds:{name} has no split named train, only {', '.join(builder.info.splits)}.")
        splits = {}
        for part, split in parts.items():
            images, labels = _records(builder, split, label, masks) or _whole(builder, split, label, encoded)
            ids = Names(f"{part}/{i}" for i in range(len(labels)))
            splits[part] = Split(images, np.array(labels, object if masks else "int64"), ids)
        if masks:
            classes = _mask_classes(f"tfds:{name}#{label}", splits, MASKS.get(folder, {}).get(label))
        else:
            classes = _classes(features[label], splits)
    except DataError:
        raise
    except Exception as e:  # tensorflow_datasets raises its own many kinds, and those of what it downloads with
        reason = str(e).strip().splitlines()[0][:200] if str(e).strip() else type(e).__name__
        raise DataError(
            f"'{name}' is in none of $KZOO_DATA and the Keras cache, and TensorFlow Datasets can't load it ({reason})."
        ) from e
    return DataSet(name if label == "label" else f"{name}#{label}", classes, splits, skipped)


def _records(builder, split, label, masks):
    """(`Records`, labels), for files of which single records can be read; None for others."""
    info = builder.info
    kind = FORMATS.get(getattr(getattr(info, "file_format", None), "value", ""))
    if kind is None:
        return None
    part = info.splits[split]
    reader = kind([os.fspath(path) for path in part.filepaths], part.num_examples)
    labels, sizes = [] if masks else array("q"), array("q")
    for record in reader.all():
        features = features_of(record)
        sizes.append(len(image_of(features)))
        labels.append(features[label].bytes_list.value[0] if masks else features[label].int64_list.value[0])
    if len(labels) != part.num_examples:
        raise DataError(f"'{builder.name}' has {len(labels):,} of {part.num_examples:,} records: prepare it again.")
    # As TensorFlow Datasets itself reads them, which runs record.
    rows = interleaved(part.shard_lengths, 1 if getattr(info, "disable_shuffling", False) else 16)
    labels = [labels[i] for i in rows] if masks else np.array(labels)[rows]
    return Records(reader, rows, np.array(sizes)[rows]), labels


def _whole(builder, split, label, encoded):
    """(encoded images, labels), all read at once."""
    rows = list(builder.as_dataset(split=split, decoders=encoded).as_numpy_iterator())
    return [row["image"] for row in rows], [row[label] for row in rows]


def _mask_classes(source, splits, known):
    """The names of the classes of masks, which become `MaskFile`s; known: their (name, value) pairs, or None."""
    if known is None:
        present = np.zeros(256, bool)
        for split in splits.values():
            for png in split.labels:
                present[np.unique(values_of(png))] = True
        values = np.flatnonzero(present[:IGNORED]).tolist()
        if values != list(range(len(values))):
            raise DataError(f"'{source}' has masks of the values {', '.join(map(str, values[:8]))}, not 0, 1, ... .")
        known = [(str(v), v) for v in values]
    table = Table(tuple(c for c, _ in known), indices=tuple((value, i) for i, (_, value) in enumerate(known)))
    for split in splits.values():
        split.labels[:] = [MaskFile(png, table) for png in split.labels]
    return table.classes


def _size_of(builder, split):
    count = getattr(builder.info.splits[split], "num_examples", None)
    return f" ({count:,} images are not used)" if count else ""


def _classes(feature, splits):
    """The names of a label's classes; of a plain number "0", "1", ... up to what it declares, or to the highest."""
    names = getattr(feature, "names", None)
    if names:
        return tuple(map(str, names))
    highest = max(int(s.labels.max(initial=-1)) for s in splits.values())
    return tuple(map(str, range(getattr(feature, "num_classes", None) or highest + 1)))
