"""Names of the classes of published weights."""

import json
from pathlib import Path

from kzoo.catalog import Weights, shipped
from kzoo.errors import ExportError, KzooError
from kzoo.files import data_folders
from kzoo.weights.fetch import fetch

# As keras.applications publishes it: {"0": ["n01440764", "tench"], ...}.
IMAGENET = Weights(
    "classes",
    "https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json",
    "md5:c2c37ea517e94d9795004a39431a14cb",
)
MOST = 1 << 26  # bytes of a file of names


def class_names(classes, n):
    """n names, by label: those of ImageNet if `classes` says so and they can be had, else the numbers.

    Looked for as weights are (kzoo's cache, Keras', a download), then in the shared data. Of the data that kzoo's own
    weights were trained on, their cards have the names.
    """
    for card in shipped.cards().values():
        if card["data"] == classes and len(card["classes"]) == n:
            return tuple(card["classes"])
    if classes == "imagenet" and n == 1000:
        local = [p / "imagenet_sample" / "class_index.json" for p in data_folders()]
        for path in local:
            if path.is_file():
                return read_names(path)
        try:
            return read_names(fetch(IMAGENET, progress=False))
        except KzooError:
            pass
    return tuple(str(i) for i in range(n))


def read_names(path):
    """Names from a text file, a line for each, or from a JSON list or index {"0": [synset, name], ...}."""
    path = Path(path)
    try:
        if path.stat().st_size > MOST:
            raise ExportError(f"{path} is too large for a list of class names.")
        text = path.read_text("utf-8")
        if path.suffix != ".json":
            return tuple(text.splitlines())
        data = json.loads(text)
        rows = [data[str(i)] for i in range(len(data))] if isinstance(data, dict) else data
        return tuple(row if isinstance(row, str) else str(row[-1]) for row in rows)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as e:
        raise ExportError(f"{path} holds no class names ({type(e).__name__}: {e}).") from e
