"""Keras models from elsewhere: .keras files, .h5 files of Keras 2 and 3, and what Teachable Machine exports.

Nothing in them may run code: .keras files are read in safe mode; of an .h5 the arrays and the config are read in a
process of its own, and the layers are made by Keras' own classes only.
"""

from __future__ import annotations

import os
import re
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from kzoo.builder import computing_in
from kzoo.catalog import Preprocessing
from kzoo.catalog.pretrained import ABOUT_PIXELS, PIXELS, check_pixels
from kzoo.errors import KzooError, RunError, WeightsError, first_line
from kzoo.graph.flat import flat_copy, to_logits
from kzoo.layers import Preprocess
from kzoo.walk import calls, is_model
from kzoo.weights.assign import assign
from kzoo.weights.read import checked_members, extract, member, read_hdf5_model

SUFFIXES = (".keras", ".h5", ".hdf5", ".zip")
SCALING = (Preprocess, keras.layers.Rescaling, keras.layers.Normalization)  # layers that scale pixels
TEACHABLE, TEACHABLE_LABELS = "keras_model.h5", "labels.txt"
MODEL_BYTES = 4 << 30  # of a model inside a zip file


@dataclass(frozen=True)
class KerasFile:
    """A Keras model of a file.

    Attributes:
        model: images (B, H, W, C) in 0..255 to logits.
        classes: their names, where the file has them.
        notes: what was found and done, in sentences.
    """

    model: keras.Model
    classes: tuple[str, ...] | None
    notes: tuple[str, ...]


def is_model_file(path: Any) -> bool:
    """Whether something is a path that ends as a Keras model's file does."""
    return isinstance(path, (str, os.PathLike)) and os.fspath(path).lower().endswith(SUFFIXES)


def load_file(path: str | os.PathLike, pixels: str | None = None) -> KerasFile:
    """Read a Keras model from a file, made flat, from pixels in 0..255 to logits.

    Args:
        path: A .keras file, a whole model in .h5, or Teachable Machine's converted_keras.zip (or its keras_model.h5,
            beside its labels.txt).
        pixels: What the model takes, a key of PIXELS; needed where the model does not scale pixels itself and is not
            Teachable Machine's.

    Returns:
        The KerasFile.

    Raises:
        KzooError: It can't be read, holds weights only or what could run code, or nobody says what its pixels are.
    """
    name = Path(path).name
    check_pixels(pixels)
    if not os.path.isfile(path):
        raise RunError(f"There is no file '{os.fspath(path)}'.")
    lower, classes = name.lower(), None
    try:
        if lower.endswith(".keras"):
            model = read_keras(path)
        elif lower.endswith(".zip"):
            model, classes = _teachable(path)
        else:
            model = _of_h5(path)
            labels = Path(path).with_name(TEACHABLE_LABELS)
            if lower == TEACHABLE and labels.is_file():
                classes = _labels(labels.read_bytes())
    except (WeightsError, OSError, zipfile.BadZipFile) as e:
        raise RunError(f"{os.fspath(path)} can't be read as a Keras model: {first_line(e)}") from e
    notes = []
    if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
        raise RunError(f"{name} takes {[tuple(t.shape) for t in model.inputs]}; kzoo needs one input, a picture.")
    scaling = _scales(model)
    if pixels is None and classes is not None:
        pixels = "-1..1"
        notes.append("It is Teachable Machine's: pixels are scaled to -1..1, of the central square of a picture.")
    elif scaling and pixels is None:
        notes.append(f"It scales pixels itself ({scaling}): it is given 0..255.")
    elif pixels is None:
        raise KzooError(
            f"{name} has no layer that scales pixels, and the file does not say what it was trained on: say it with "
            f"--pixels (pixels=): {ABOUT_PIXELS}."
        )
    model, ending = _from_pixels(model, PIXELS[pixels] if pixels not in (None, "0..255") else None)
    if ending:
        notes.append(f"The {ending} at its end is left out, and computed by kzoo.")
    n = model.outputs[0].shape[-1]
    if classes is not None and len(classes) != n:
        raise RunError(f"{TEACHABLE_LABELS} beside {name} has {len(classes)} lines, the model has {n} outputs.")
    return KerasFile(model, classes, tuple(notes))


def read_keras(path: str | os.PathLike) -> keras.Model:
    """Read a .keras file in Keras' safe mode.

    Raises:
        RunError: It is missing or can't be read.
    """
    if not os.path.isfile(path):
        raise RunError(f"There is no file '{os.fspath(path)}'.")
    try:
        with computing_in():
            return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as e:  # zipfile, json, h5py and Keras each have their own ways to fail
        raise RunError(f"{os.fspath(path)} can't be read as a Keras model ({first_line(e)}).") from e


def _of_h5(path: str | os.PathLike) -> keras.Model:
    """A whole model in HDF5, of Keras 2 or 3, flat."""
    arrays, config = read_hdf5_model(path)
    if config is None:
        raise WeightsError("it holds weights and no model; kzoo.build(NAME, weights=FILE) loads them into a network.")
    if not isinstance(config, dict) or config.get("class_name") not in ("Sequential", "Functional", "Model"):
        raise WeightsError("its model is neither Sequential nor functional.")
    _as_keras_3(config)
    kind = keras.Sequential if config["class_name"] == "Sequential" else keras.Model
    try:
        with computing_in():
            model = flat_copy(kind.from_config(config["config"]))
    except KzooError:
        raise
    except Exception as e:  # Keras raises anything for a config that it can't make a model of
        raise WeightsError(f"Keras can't make a model of its config ({first_line(e)}).") from e
    assign(model, arrays, new_classifier=False, source=Path(path).name)
    return model


def _as_keras_3(config: Any) -> None:
    """Take out what Keras 2 wrote and Keras 3 refuses: groups of a depthwise convolution, always 1 there."""
    stack = [config]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack += item
        elif isinstance(item, dict):
            inner = item.get("config")
            if item.get("class_name") == "DepthwiseConv2D" and isinstance(inner, dict) and inner.get("groups") == 1:
                del inner["groups"]
            stack += item.values()


def _teachable(path: str | os.PathLike) -> tuple[keras.Model, tuple[str, ...]]:
    """(model, classes) of Teachable Machine's zip file for Keras."""
    with zipfile.ZipFile(path) as z:
        members = checked_members(z, path)
        found = {Path(name).name: info for name, info in members.items() if not name.endswith("/")}
        if TEACHABLE not in found or TEACHABLE_LABELS not in found:
            others = ", ".join(sorted(found)[:5])
            raise WeightsError(
                f"it holds no {TEACHABLE} and {TEACHABLE_LABELS} (but {others}); in Teachable Machine choose Export "
                "Model, Tensorflow, Keras."
            )
        classes = _labels(member(z, found[TEACHABLE_LABELS], 1 << 20))
        with tempfile.TemporaryDirectory(prefix="kzoo-") as folder:
            file = Path(folder) / TEACHABLE
            extract(z, found[TEACHABLE], file, MODEL_BYTES)
            return _of_h5(file), classes


def _labels(text: bytes) -> tuple[str, ...]:
    """The classes of Teachable Machine's labels.txt, whose lines are "0 Name"."""
    lines = [line for line in text.decode("utf-8", "replace").splitlines() if line.strip()]
    matches = [re.fullmatch(r"\s*(\d+)\s+(.*\S)\s*", line) for line in lines]
    if not all(matches) or [int(m[1]) for m in matches if m] != list(range(len(lines))):
        raise WeightsError(f"{TEACHABLE_LABELS} is not as Teachable Machine writes it: lines such as '0 Cats'.")
    names = tuple(m[2] for m in matches if m)
    if len(set(names)) != len(names):
        raise WeightsError(f"{TEACHABLE_LABELS} has a name twice.")
    return names


def _scales(model: keras.Model) -> str:
    """The name of the first layer that scales pixels; "" if there is none in front of other weights."""
    for node in calls(model.inputs, model.outputs):
        operation = node.operation
        if is_model(operation):
            if found := _scales(operation):
                return found
        elif isinstance(operation, SCALING):
            return operation.name
        elif getattr(operation, "weights", None):
            return ""
    return ""


def _from_pixels(model: keras.Model, prep: Preprocessing | None) -> tuple[keras.Model, str]:
    """A flat model to logits, with scaling in front where it is given; and what stood at the end."""
    change, _, ending = to_logits(model)
    flat = flat_copy(model, change, outputs=1)
    if prep is not None:
        image = keras.Input(flat.inputs[0].shape[1:], name="image")
        layer = Preprocess(prep.channel_order, prep.scale, prep.offset, name="preprocessing")
        flat = flat_copy(keras.Model(image, flat(layer(image)), name=flat.name))
    return flat, ending
