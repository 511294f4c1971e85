"""The formats: how each is written, and how it is run when it is checked.

A runner takes prepared images, uint8 (B, H, W, C), and returns outputs (B, ...); a picture runner takes decoded
pictures of any one size and returns what the file gives. They need only that format's library, and TensorFlow.
"""

from __future__ import annotations

import contextlib
import io
import os
import pkgutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from kzoo.data.images import given_channels
from kzoo.errors import ExportError
from kzoo.exporting import litert_file, onnx_file
from kzoo.exporting.pictures import IMAGE, preparation
from kzoo.hardware import cores, without_tensorflow_chatter

if TYPE_CHECKING:
    import keras

    from kzoo.source import Source

# The largest allowed difference of an output, as a share of the largest reference output. What an export differs by
# when it is written may be up to HIGHEST: more is a fault of the format. Afterwards it may differ by MARGIN times what
# was measured then, since another machine rounds differently, and by LOWEST in any case. Measured, in float32: up to
# 8e-7 over the networks that kzoo ships.
HIGHEST = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.06, "int8": 0.35}
LOWEST = {"float32": 3e-5, "float16": 2e-3, "bfloat16": 1e-2, "int8": 0.02}
MARGIN = 3.0
REQUIRED_PACKAGES = {"onnx": (("tf2onnx", "onnx", "onnxruntime"), "onnx"), "litert": (("ai_edge_litert",), "litert")}
LITERT_VARIANTS = ("float32", "float16", "int8")
ONNX_FILE = "model.onnx"
PROBABILITIES = "probabilities"  # what the outputs beside the task's are called
PICTURES = "pictures"  # what a variant "takes" by the card: decoded pictures of any size; earlier ones prepared images


@dataclass
class FormatInputs:
    """What the formats are written from.

    Attributes:
        module, signatures: for the SavedModel, from `kzoo.exporting.graph.module`.
        form: the inference form in float32; of no use to a SavedModel, for which it may be in another precision.
        outputs: the same as a tf.function, without features.
        precision: of the SavedModel.
        representative: prepared uint8 images (N, H, W, C), for the ranges of int8.
        source: gives task, shape, preprocessing and classes.
        temperature: by which logits are divided.
        facts: JSON values for the metadata of ONNX and LiteRT files, with "labels".
    """

    module: tf.Module
    signatures: dict[str, Callable]
    form: keras.Model
    outputs: Callable
    precision: str
    representative: np.ndarray
    source: Source
    temperature: float
    facts: dict[str, Any]


def missing(format: str) -> str | None:
    """The error message for a format whose packages are not installed; None if they are."""
    packages, extra = REQUIRED_PACKAGES.get(format, ((), ""))
    lacking = [p for p in packages if find_spec(p) is None]
    return f"{format} needs {', '.join(lacking)}: pip install 'kzoo[{extra}]'." if lacking else None


def tolerance(precision: str | None, moved: float | None = None) -> float:
    """How far the outputs of a format may be from the reference, as a share of the largest reference output.

    Args:
        precision: of the format; the tolerance of an unknown one is 0.
        moved: how far they were when the export was written; None while it is written.

    Example:
        >>> tolerance("int8"), tolerance("int8", 0.05), tolerance("float32", 1e-7)
        (0.35, 0.15, 3e-05)
    """
    highest = HIGHEST.get(precision or "", 0.0)
    return highest if moved is None else min(highest, max(LOWEST.get(precision or "", 0.0), round(MARGIN * moved, 9)))


def write(format: str, folder: Path, parts: FormatInputs) -> dict[str, dict[str, Any]]:
    """Write one format into a folder.

    Args:
        format: "saved_model", "keras", "onnx" or "litert".
        folder: an existing folder.
        parts: what the formats are written from.

    Returns:
        For each variant of the format, {"files": names, "precision": such as "float32"}, and "takes": "pictures" for
        those that take decoded pictures. LiteRT has three variants.
    """
    return {"saved_model": _saved_model, "keras": _keras, "onnx": _onnx, "litert": _litert}[format](folder, parts)


@without_tensorflow_chatter()
def _saved_model(folder, parts):
    tf.saved_model.save(parts.module, str(folder), signatures=parts.signatures)
    _decode_on_one_device(folder / "saved_model.pb")
    arrays = sorted(f"variables/{p.name}" for p in (folder / "variables").iterdir()) if parts.module.arrays else []
    return {"saved_model": {"files": ["saved_model.pb", *arrays], "precision": parts.precision}}


def _decode_on_one_device(file):
    """Say of the functions that decode images that they run on one device, which is the CPU.

    tf.data would find it out at every call, from each of their operations: that was 3 ms of the 7 of one photo.
    """
    saved = SavedModel.FromString(file.read_bytes())
    for function in saved.meta_graphs[0].graph_def.library.function:
        if "Dataset_map" in function.signature.name:
            function.attr["experimental_ints_on_device"].b = True
    file.write_bytes(saved.SerializeToString(deterministic=True))


def _keras(folder, parts):
    import keras

    from kzoo.runs import save_model

    form = parts.form
    save_model(keras.Model(form.inputs[0], form.outputs[0], name=form.name), folder / "model.keras")
    return {"keras": {"files": ["model.keras"], "precision": "float32"}}


def _onnx(folder, parts):
    source, task = parts.source, parts.source.task

    @tf.function(input_signature=parts.outputs.input_signature, autograph=False)
    def answers(tensor):
        outputs = parts.outputs(tensor)[task.output]
        found = task.probabilities(outputs, parts.temperature)
        return (outputs,) if found is None else (found, outputs)

    shapes = [tuple(x.shape[1:]) for x in answers.get_concrete_function().outputs]
    names = [task.output] if len(shapes) == 1 else [PROBABILITIES, task.output]
    prepare = preparation(source.shape, given_channels(source.shape[2]), source.preprocessing)
    with _silent():
        import onnx
        import tf2onnx

        prepare, network = (
            tf2onnx.convert.from_function(f, input_signature=f.input_signature, opset=onnx_file.OPSET)[0]
            for f in (prepare, answers)
        )
        outputs = dict(zip(names, shapes, strict=True))
        onnx.save(onnx_file.joined(prepare, network, source.shape, outputs, parts.facts), str(folder / ONNX_FILE))
    return {"onnx": {"files": [ONNX_FILE], "precision": "float32", "takes": PICTURES}}


def _litert(folder, parts):
    """float32; float16 weights; int8 weights and activations, with ranges measured on representative images."""
    source, network = parts.source, parts.outputs.get_concrete_function()
    shape, task = source.shape, source.task

    @tf.function(input_signature=[tf.TensorSpec(network.outputs[0].shape, tf.float32)], autograph=False)
    def probabilities(outputs):
        return task.probabilities(outputs, parts.temperature)

    prepare = preparation(shape, given_channels(shape[2]), source.preprocessing).get_concrete_function()
    behind = probabilities.get_concrete_function()
    first, last = _converted(prepare), [] if behind.structured_outputs is None else [_converted(behind)]
    outputs = {PROBABILITIES: 2, task.output: 1} if last else {task.output: 1}

    def for_float16(converter):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]

    def for_int8(converter):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([x[None].astype("float32")] for x in parts.representative)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]

    found = {}
    for kind, options in zip(LITERT_VARIANTS, (None, for_float16, for_int8), strict=True):
        name = f"model-{kind}.tflite"
        content = litert_file.joined([first, _converted(network, options), *last], outputs, parts.facts)
        (folder / name).write_bytes(content)
        found[f"litert_{kind}"] = {"files": [name], "precision": kind, "takes": PICTURES}
    return found


def _converted(function, options=None):
    """A concrete function as a LiteRT model; `options` changes the converter."""
    with _silent():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
        if options:
            options(converter)
        return converter.convert()


@contextlib.contextmanager
def _silent():
    """Suppress what the converters print and log."""
    import logging

    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        # The LiteRT converter writes to the file descriptor itself.
        stderr, devnull = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            os.close(devnull)
            logging.disable(before)


# --- runners -----------------------------------------------------------------------------------------------


def runner(
    variant: str, folder: Path, loaded: Any = None, output: str = "logits"
) -> Callable[[np.ndarray], np.ndarray]:
    """A function that runs a variant of an export on prepared images.

    Args:
        variant: "saved_model", "keras", "onnx", or "litert_" and a precision.
        folder: the export.
        loaded: the loaded SavedModel; needed for "saved_model" only.
        output: the key of the outputs in the SavedModel's signatures, `Task.output`.

    Returns:
        A function from images (B, H, W, C) to outputs (B, ...), float32.

    Raises:
        ExportError: the format's library is not installed.
    """
    if variant == "saved_model":
        signature = loaded.signatures["tensor"]
        return lambda x: signature(tensor=_float(x))[output].numpy()
    reason = missing(variant.partition("_")[0])
    if reason:
        raise ExportError(reason)
    return {"keras": _run_keras, "onnx": _run_onnx}.get(variant, _run_litert)(folder, variant, output)


def _float(x):
    return tf.cast(tf.constant(x), tf.float32)


def _run_keras(folder, variant, output):
    import keras

    import kzoo.layers
    import kzoo.models

    for module in pkgutil.iter_modules(kzoo.models.__path__):  # importing them registers their layers with Keras
        import_module(f"kzoo.models.{module.name}")
    model = keras.saving.load_model(folder / "model.keras", compile=False, safe_mode=True)
    return lambda x: np.asarray(keras.ops.convert_to_numpy(model(x.astype("float32"), training=False)), "float32")


def _run_onnx(folder, variant, output):
    import onnx

    model = onnx.load(str(folder / ONNX_FILE))
    if model.graph.input[0].name == IMAGE:
        model = onnx_file.without_preparation(model, [output])
    session = _session(model.SerializeToString())
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x.astype("float32")})[0]


def _session(model):
    import onnxruntime

    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def _run_litert(folder, variant, output):
    content = (folder / f"model-{variant.removeprefix('litert_')}.tflite").read_bytes()
    if litert_file.is_joined(content):
        content = litert_file.without_preparation(content, output)
    network = _interpreter(content)
    out = network.get_output_details()[0]["index"]

    def run(x):
        _give(network, x.astype("float32"))
        return network.get_tensor(out).copy()

    return run


def _interpreter(content):
    with _silent():
        from ai_edge_litert.interpreter import Interpreter

        network = Interpreter(model_content=content, num_threads=cores())
        network.allocate_tensors()
    return network


def _give(network, x):
    """Run a LiteRT network on an array of any shape that it takes."""
    into = network.get_input_details()[0]
    if tuple(into["shape"]) != x.shape:
        with _silent():
            network.resize_tensor_input(into["index"], x.shape)
            network.allocate_tensors()
    network.set_tensor(into["index"], x)
    network.invoke()


def picture_runner(variant: str, folder: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A function that runs a variant which takes pictures.

    Args:
        variant: "onnx", or "litert_" and a precision.
        folder: the export.

    Returns:
        A function from decoded pictures, uint8 (B, H, W, channels), to what the file gives: arrays (B, ...) by name.

    Raises:
        ExportError: the format's library is not installed.
    """
    reason = missing(variant.partition("_")[0])
    if reason:
        raise ExportError(reason)
    if variant == "onnx":
        session = _session(str(folder / ONNX_FILE))
        names = [x.name for x in session.get_outputs()]
        return lambda x: dict(zip(names, session.run(None, {IMAGE: x}), strict=True))
    network = _interpreter((folder / f"model-{variant.removeprefix('litert_')}.tflite").read_bytes())

    def run(x):
        _give(network, x)
        return {out["name"]: network.get_tensor(out["index"]).copy() for out in network.get_output_details()}

    return run
