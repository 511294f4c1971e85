"""Keras models from elsewhere: a user's own, .keras files, .h5 files of Keras 2 and 3, Teachable Machine's exports.

Nothing in a file may run code: .keras files are read in safe mode; of an .h5 the arrays and the config are read in a
process of its own, and the layers are made by Keras' own classes only.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from types import FunctionType
from typing import Any

import keras
import numpy as np

from kzoo.builder import computing_in
from kzoo.catalog import ModelSpec, Paper, Preprocessing, spec
from kzoo.catalog.pretrained import ABOUT_PIXELS, PIXELS, check_pixels
from kzoo.errors import KzooError, RunError, WeightsError, first_line
from kzoo.graph.flat import flat_copy, to_logits
from kzoo.layers import Preprocess
from kzoo.walk import calls, is_model
from kzoo.weights.assign import assign
from kzoo.weights.read import checked_members, extract, member, read_hdf5_model

SCALING = (Preprocess, keras.layers.Rescaling, keras.layers.Normalization)  # layers that scale pixels
TEACHABLE, TEACHABLE_LABELS = "keras_model.h5", "labels.txt"
MODEL_BYTES = 4 << 30  # of a model inside a zip file


@dataclass(frozen=True)
class KerasFile:
    """A Keras model of a file, or of a user's own.

    Attributes:
        model: images (B, H, W, C) in 0..255 to logits.
        classes: their names, where the file has them.
        notes: what was found and done, in sentences.
        ending: "softmax" or "sigmoid", which stood at the end and is left out; "" for another end.
        name: of the model, or of the file.
    """

    model: keras.Model
    classes: tuple[str, ...] | None
    notes: tuple[str, ...]
    ending: str = ""
    name: str = ""


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
    found = from_pixels(model, pixels, name=name, teachable=classes is not None)
    n = found.model.outputs[0].shape[-1]
    if classes is not None and len(classes) != n:
        raise RunError(f"{TEACHABLE_LABELS} beside {name} has {len(classes)} lines, the model has {n} outputs.")
    return replace(found, classes=classes)


def from_pixels(
    model: keras.Model,
    pixels: str | None = None,
    *,
    name: str = "",
    teachable: bool = False,
    input_shape: Sequence[int] | None = None,
) -> KerasFile:
    """Make of a Keras model a flat one, with weights of its own, from pixels in 0..255 to logits.

    Args:
        model: Functional or built Sequential, with one input, a picture. It stays as it is.
        pixels: What it takes, a key of PIXELS; needed where it does not scale pixels itself.
        name: In messages; the model's own by default.
        teachable: Whether Teachable Machine made it.
        input_shape: (height, width, channels), where the model leaves sizes open.

    Returns:
        The KerasFile, without classes.

    Raises:
        KzooError: It has no graph, another input, or nobody says what its pixels are.
    """
    check_pixels(pixels)
    name = name or model.name
    if not is_model(model):
        raise KzooError(
            f"{name} has no graph: kzoo needs a functional keras.Model, or a Sequential that is built "
            "(keras.Sequential([keras.Input((32, 32, 3)), ...]))."
        )
    if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
        raise RunError(f"{name} takes {[tuple(t.shape) for t in model.inputs]}; kzoo needs one input, a picture.")
    wanted = _sizes(model, name, input_shape)
    notes = []
    scaling = _scales(model)
    if pixels is None and teachable:
        pixels = "-1..1"
        notes.append("It is Teachable Machine's: pixels are scaled to -1..1, of the central square of a picture.")
    elif scaling and pixels is None:
        notes.append(f"It scales pixels itself ({scaling}): it is given 0..255.")
    elif scaling and pixels != "0..255":
        notes.append(f"It is given {pixels}, as asked, and scales that itself ({scaling}).")
    elif pixels is None:
        raise KzooError(
            f"{name} has no layer that scales pixels, and does not say what it was trained on: say it with --pixels "
            f"(pixels=): {ABOUT_PIXELS}."
        )
    change, _, ending = to_logits(model)
    flat = flat_copy(model, change, outputs=1, input_shape=wanted)
    if pixels not in (None, "0..255"):
        flat = _behind(flat, PIXELS[pixels])
    if ending:
        notes.append(f"The {ending} at its end is left out, and computed by kzoo.")
    return KerasFile(flat, None, tuple(notes), ending, name)


def _sizes(model, name, input_shape):
    """(height, width, channels) in place of a model's own, None to leave them."""
    own = tuple(model.inputs[0].shape[1:])
    if input_shape is None or tuple(input_shape) == own:
        return None
    if any(n not in (None, m) for n, m in zip(own, input_shape, strict=True)):
        raise RunError(f"{name} takes pictures of {_by(own)}, which input_shape {_by(input_shape)} can't change.")
    return tuple(input_shape)


def _by(shape):
    return " x ".join("any" if n is None else str(n) for n in shape)


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


def _behind(flat: keras.Model, prep: Preprocessing) -> keras.Model:
    """A flat model with scaling in front of it."""
    image = keras.Input(flat.inputs[0].shape[1:], name="image")
    layer = Preprocess(prep.channel_order, prep.scale, prep.offset, name="preprocessing")
    return flat_copy(keras.Model(image, flat(layer(image)), name=flat.name))


def preprocessing_of(model: keras.Model) -> Preprocessing:
    """How pictures are prepared for a Keras model: what its Preprocess layer, if any, scales, and its row's crop.

    Any other model gets 0..255, as kzoo's own do, and must scale inside.

    Args:
        model: Flat. One with the name of a network of the catalog is taken to be that, for crop and interpolation.
    """
    layer = next((x for x in model.layers if isinstance(x, Preprocess)), None)
    prep = Preprocessing(
        channel_order=layer.channel_order if layer else "rgb",
        scale=layer.scale if layer else 1.0,
        offset=layer.offset if layer else 0.0,
    )
    with suppress(KzooError):  # a model of the catalog, by its name
        known = spec(model.name).preprocessing
        prep = replace(prep, crop=known.crop, interpolation=known.interpolation)
    return prep


# --- a model of the user's own to train ----------------------------------------------------------------------


def to_train(
    model: keras.Model | str | os.PathLike, pixels: str | None = None, input_shape: Sequence[int] | None = None
) -> KerasFile:
    """Make of a user's Keras model, or a file of one, what a run can keep: read again anywhere, it runs no code.

    Args:
        model: Functional or built Sequential, or a file that `load_file` reads. It stays as it is.
        pixels: What it takes, see `from_pixels`.
        input_shape: (height, width, channels), where the model leaves sizes open.

    Returns:
        The KerasFile, a flat copy with the model's weights.

    Raises:
        KzooError: As `from_pixels`; or a size stays open, there are several outputs, or layers or functions that are
            neither Keras' nor kzoo's.
    """
    if isinstance(model, keras.Model):
        if is_model(model):
            _check_layers(model)
            if len(model.outputs) > 1:
                raise RunError(f"{model.name} has {len(model.outputs)} outputs; kzoo trains models with one.")
        found = from_pixels(model, pixels, input_shape=input_shape)
    else:
        found = load_file(model, pixels)
        _check_layers(found.model)
        if (wanted := _sizes(found.model, found.name, input_shape)) is not None:
            found = replace(found, model=flat_copy(found.model, input_shape=wanted))
        found = replace(found, name=Path(model).stem)
    if None in found.model.inputs[0].shape[1:]:
        raise RunError(
            f"{found.name} leaves the size of its pictures open: give it, --input-shape 224x224x3 (input_shape=)."
        )
    # Keras numbers the inputs of a process: under one name the same model has the same fingerprint everywhere.
    image = keras.Input(found.model.inputs[0].shape[1:], name="image")
    return replace(found, model=flat_copy(keras.Model(image, found.model(image), name=found.model.name)))


def row_of(found: KerasFile) -> ModelSpec:
    """A row such as those of the catalog, which is not registered, for a user's model."""
    output = found.model.outputs[0].shape
    return ModelSpec(
        found.name,
        "",
        tuple(found.model.inputs[0].shape[1:]),
        output[-1] or 1,
        Paper("a Keras model of your own", "you", date.today().year),
        preprocessing=preprocessing_of(found.model),
        task="segmentation" if len(output) == 4 else "classification",
    )


def features_of(found: KerasFile) -> KerasFile:
    """A user's model up to its features: without the linear Dense layer at its end, which a new classifier replaces.

    Args:
        found: Of `to_train`.
    """
    flat, notes = found.model, found.notes[:-1] if found.ending else found.notes
    last = flat.outputs[0]._keras_history.operation
    if isinstance(last, keras.layers.Dense) and last.activation is keras.activations.linear:
        notes += (f"Its last layer, {last.name} with {last.units} outputs, is left out: a new classifier replaces it.",)
        flat = keras.Model(flat.inputs[0], last.input, name=flat.name)
    else:
        notes += (f"Its features are what its last layer, {last.name}, gives.",)
    if len(flat.outputs[0].shape) not in (2, 4):
        raise RunError(
            f"{found.name} gives {tuple(flat.outputs[0].shape)}; features are (batch, numbers) or (batch, height, "
            "width, numbers)."
        )
    if taken := {"predictions", "features_pool"} & {operation.name for operation in flat.operations}:
        raise RunError(f"{found.name} has a layer {taken.pop()!r}, a name that kzoo gives to its own: rename it.")
    return replace(found, model=flat, notes=notes)


def fingerprint(model: keras.Model) -> str:
    """SHA-256 in hex of a flat model's layers and weights."""
    digest = hashlib.sha256(json.dumps(model.get_config(), sort_keys=True, default=str).encode())
    for v in model.weights:
        digest.update(np.asarray(keras.ops.convert_to_numpy(v)).tobytes())
    return digest.hexdigest()


def in_precision(model: keras.Model, precision: str) -> keras.Model:
    """Copy a flat model so that it computes in a precision; pixels are scaled, and outputs given, in float32.

    Args:
        model: Of `to_train`.
        precision: "float32", "bfloat16" or "float16".
    """
    copied = flat_copy(model, precision=precision, full=SCALING)
    if precision == "float32":
        return copied
    name = "outputs"
    while any(operation.name == name for operation in copied.operations):
        name += "_"
    output = keras.layers.Activation("linear", dtype="float32", name=name)(copied.outputs[0])
    return keras.Model(copied.inputs[0], output, name=copied.name)


def _check_layers(model):
    """KzooError for a Lambda, and for layers and functions that are neither Keras' nor kzoo's."""
    for operation in _operations(model):
        kind = type(operation)
        if isinstance(operation, keras.layers.Lambda):
            raise KzooError(
                f"{model.name} has a Lambda layer ({operation.name}), which runs code when it is read again: use a "
                "layer of Keras or an operation of keras.ops in its place."
            )
        foreign = None if _ours(kind) else kind.__name__
        functions = [value for value in vars(operation).values() if isinstance(value, FunctionType)]
        if function := next((f.__name__ for f in functions if not _ours(f)), None):
            foreign = f"the function {function}"
        if foreign is None and isinstance(operation, keras.layers.Layer):
            foreign = next(_foreign(operation.get_config()), None)
        if foreign:
            raise KzooError(
                f"{model.name} has {foreign} ({operation.name}), which is not Keras' own, and a run keeps no code: use "
                "what Keras has, or register the network as a function, kzoo.register(my_net, input_shape=...)."
            )


def _ours(thing: Any) -> bool:
    """Whether a class or function is Keras' or kzoo's."""
    return thing.__module__.partition(".")[0] in ("keras", "kzoo")


def _operations(model) -> Iterator[Any]:
    """All layers and operations that a model calls, those of nested models included."""
    for node in calls(model.inputs, model.outputs):
        if is_model(node.operation):
            yield from _operations(node.operation)
        else:
            yield node.operation


def _foreign(config) -> Iterator[str]:
    """The names of what a layer's config holds that Keras would look for outside of itself and kzoo."""
    if isinstance(config, dict):
        if "class_name" in config and "config" in config:
            registered, module = config.get("registered_name") or "", config.get("module") or "keras"
            inner = config["config"]
            if config["class_name"] == "function":
                yield f"the function {inner}"
            elif module.partition(".")[0] not in ("keras", "kzoo") and not registered.startswith("kzoo>"):
                yield str(config["class_name"])
        for value in config.values():
            yield from _foreign(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            yield from _foreign(value)
