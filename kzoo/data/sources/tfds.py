"""Sets of TensorFlow Datasets, as tfds:NAME: prepared ones are read, others downloaded."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from kzoo.data.dataset import PARTS, DataSet, Split
from kzoo.errors import DataError
from kzoo.files import data_folders

# Whom TensorFlow Datasets asks first, for every set: whether it has been prepared already.
HOST = "https://storage.googleapis.com"


def matches(source):
    """Whether this kind reads it: tfds:NAME."""
    return source.startswith("tfds:")


def read(source):
    """The data set that "tfds:NAME" names."""
    return read_prepared(source.removeprefix("tfds:"))


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


def read_prepared(name):
    """A prepared (else downloaded) set of TensorFlow Datasets with the features image and label."""
    folder = name.split("/")[0].split(":")[0]
    own = Path(os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets")
    prepared = [str(p / "tfds") for p in data_folders() if (p / "tfds" / folder).is_dir()]
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
            f"'{name}' is in none of $KZOO_DATA and the Keras cache, and TensorFlow Datasets can't give it ({reason})."
        ) from e
    return DataSet(name, tuple(features["label"].names), splits)
