"""Drawn photos in folders and tables, and sources that must fail."""

import numpy as np
import pytest
from PIL import Image

from kzoo.catalog import Preprocessing
from kzoo.data.loading import load_data
from kzoo.errors import DataError

PLAIN = Preprocessing()


def picture(seed=0, size=(12, 9)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype("uint8"))


def photos(root, counts, suffix=".png"):
    """A folder for each class with so many pictures, of which no two in a class or in two classes are alike."""
    for k, (name, n) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for i in range(n):
            picture(1000 * k + i).save(root / name / f"{i:03}{suffix}")
    return root


def table(root, text, encoding="utf-8", name="photos.csv"):
    (root / name).write_bytes(text.encode(encoding) if isinstance(text, str) else text)
    return root / name


def parts_of(data):
    return {id: part for part, split in data.splits.items() for id in split.ids}


def fails(source, message, **options):
    with pytest.raises(DataError) as e:
        load_data(source, **options)
    assert message in str(e.value), str(e.value)
