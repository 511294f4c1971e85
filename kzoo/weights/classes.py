"""Names of the classes of published weights."""

from __future__ import annotations

import json
import os
from pathlib import Path

import kzoo.catalog
from kzoo.catalog import shipped
from kzoo.errors import ExportError

# The 1,000 names of ILSVRC-2012 in the order of its class numbers, one a line. They are words of WordNet, Copyright
# 2006 Princeton University. Its licence allows anyone to use, copy, modify and distribute them for any purpose and
# without fee, with that notice (https://wordnet.princeton.edu/license-and-commercial-use).
IMAGENET = Path(kzoo.catalog.__file__).with_name("imagenet_classes.txt")
MAX_BYTES = 1 << 26  # of a file of names


def class_names(classes: str, n: int) -> tuple[str, ...]:
    """The names of the classes that published weights tell apart, by label.

    Nothing is downloaded: the names of ImageNet and of the data that kzoo's own weights were trained on are part of the
    package.

    Args:
        classes: What the weights were trained on, as `kzoo.Weights.classes` has it, such as "imagenet" or "cifar10".
        n: How many classes they have.

    Returns:
        `n` names. Numbers as text ("0", "1", ...) where kzoo does not know the names, or knows another number of them.

    Example:
        >>> class_names("imagenet", 1000)[:2], class_names("unknown", 3)
        (('tench', 'goldfish'), ('0', '1', '2'))
    """
    for card in shipped.cards().values():
        if card["data"] == classes and len(card["classes"]) == n:
            return tuple(card["classes"])
    if classes == "imagenet" and n == 1000:
        return read_names(IMAGENET)
    return tuple(str(i) for i in range(n))


def read_names(path: str | os.PathLike) -> tuple[str, ...]:
    """Read class names from a file.

    Args:
        path: A text file with one name a line, or a .json file with a list of names or with an index
            `{"0": [synset, name], ...}`, as keras.applications publishes it.

    Returns:
        The names, by label.

    Raises:
        ExportError: The file is missing, is larger than 64 MiB, or holds something else.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ExportError(f"{path} is too large for a list of class names.")
        text = path.read_text("utf-8")
        if path.suffix != ".json":
            return tuple(text.splitlines())
        data = json.loads(text)
        rows = [data[str(i)] for i in range(len(data))] if isinstance(data, dict) else data
        return tuple(row if isinstance(row, str) else str(row[-1]) for row in rows)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as e:
        raise ExportError(f"{path} holds no class names ({type(e).__name__}: {e}).") from e
