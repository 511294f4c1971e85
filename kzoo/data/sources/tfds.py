"""Sets of TensorFlow Datasets, as tfds:NAME: prepared ones are read, others downloaded."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from kzoo.data.dataset import PARTS, DataSet, Split
from kzoo.errors import DataError
from kzoo.files import data_folders

# The server that TensorFlow Datasets asks first, for every set, whether a prepared copy exists.
HOST = "https://storage.googleapis.com"


def matches(source: str) -> bool:
    """Return whether this kind reads the source: tfds:NAME."""
    return source.startswith("tfds:")


def read(source: str) -> DataSet:
    """Read the data set that "tfds:NAME" names, see `read_prepared`."""
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


def read_prepared(name: str) -> DataSet:
    """Read a set of TensorFlow Datasets that has the features image and label; download it if it is not prepared.

    Args:
        name: As `tfds.builder` takes it.

    Returns:
        A DataSet of encoded images, with the splits that TensorFlow Datasets has under a name that kzoo knows.

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
            f"'{name}' is in none of $KZOO_DATA and the Keras cache, and TensorFlow Datasets can't load it ({reason})."
        ) from e
    return DataSet(name, tuple(features["label"].names), splits)
