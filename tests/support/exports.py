"""A small export and encoded images for it."""

import io
import json
import shutil

import numpy as np
from PIL import Image

import kzoo
from kzoo.data import images

RNG = np.random.default_rng(0)


PREP = kzoo.Preprocessing(crop=0.875, scale=1 / 64, offset=-1.0)


SHAPE = (40, 32, 3)


LARGE = 100_000  # bytes of an array that is a variable of the export, in place of the megabytes of dense layers


CLASSES = ("ant", "bee", "käfer", "d")


def encoded(size=(61, 47), format="JPEG", mode="RGB", **options):
    buffer = io.BytesIO()
    pixels = Image.fromarray(RNG.integers(0, 256, (9, 11, 3)).astype("uint8")).resize(size, Image.Resampling.BICUBIC)
    pixels.convert(mode).save(buffer, format, **options)
    return buffer.getvalue()


def prepare():
    return images.make_preparer(SHAPE, PREP)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def changed(exported, tmp_path):
    """A copy of the export to damage."""
    shutil.copytree(exported[0], tmp_path / "copy")
    return tmp_path / "copy"


def saved_model_alone(exported, tmp_path):
    """A copy to damage that has no other format, which would be loaded and run by every verify."""
    folder = changed(exported, tmp_path)
    card = json.loads((folder / "card.json").read_text("utf-8"))
    for name in [name for name in card["formats"] if name != "saved_model"]:
        for file in card["formats"].pop(name)["files"]:
            (folder / file).unlink(missing_ok=True)
            card["files"].pop(file, None)
    (folder / "card.json").write_text(json.dumps(card), "utf-8")
    return folder
