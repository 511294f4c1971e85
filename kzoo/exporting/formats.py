"""The formats: how each is written, and how it is run when it is checked.

A runner takes prepared images, uint8 (B, H, W, C), and returns outputs (B, ...); it needs only that format's library.
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

from kzoo.errors import ExportError
from kzoo.hardware import cores

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

# The largest allowed difference of an output, as a share of the largest reference output. What an export differs by
# when it is written may be up to HIGHEST: more is a fault of the format. Afterwards it may differ by MARGIN times what
# was measured then, since another machine rounds differently, and by LOWEST in any case. Measured, in float32: up to
# 8e-7 over the networks that kzoo ships.
HIGHEST = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.06, "int8": 0.35}
LOWEST = {"float32": 3e-5, "float16": 2e-3, "bfloat16": 1e-2, "int8": 0.02}
MARGIN = 3.0
REQUIRED_PACKAGES = {"onnx": (("tf2onnx", "onnx", "onnxruntime"), "onnx"), "litert": (("ai_edge_litert",), "litert")}
LITERT_VARIANTS = ("float32", "float16", "int8")
ONNX_OPSET = 18


@dataclass
class FormatInputs:
    """What the formats are written from.

    Attributes:
        module, signatures: for the SavedModel, from `kzoo.exporting.graph.module`.
        form: the inference form in float32.
        outputs: the same as a tf.function, without features.
        precision: of the SavedModel.
        representative: prepared uint8 images (N, H, W, C), for the ranges of int8.
    """

    module: tf.Module
    signatures: dict[str, Callable]
    form: keras.Model
    outputs: Callable
    precision: str
    representative: np.ndarray


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
        For each variant of the format, {"files": names, "precision": such as "float32"}. LiteRT has three variants.
    """
    return {"saved_model": _saved_model, "keras": _keras, "onnx": _onnx, "litert": _litert}[format](folder, parts)


def _saved_model(folder, parts):
    import tensorflow as tf

    tf.saved_model.save(parts.module, str(folder), signatures=parts.signatures)
    return {"saved_model": {"files": ["saved_model.pb"], "precision": parts.precision}}


def _keras(folder, parts):
    import keras

    from kzoo.runs import save_model

    form = parts.form
    save_model(keras.Model(form.inputs[0], form.outputs[0], name=form.name), folder / "model.keras")
    return {"keras": {"files": ["model.keras"], "precision": "float32"}}


def _onnx(folder, parts):
    with _silent():
        import tf2onnx

        tf2onnx.convert.from_function(
            parts.outputs,
            input_signature=parts.outputs.input_signature,
            opset=ONNX_OPSET,
            output_path=str(folder / "model.onnx"),
        )
    return {"onnx": {"files": ["model.onnx"], "precision": "float32"}}


def _litert(folder, parts):
    """float32; float16 weights; int8 weights and activations, with ranges measured on representative images."""
    import tensorflow as tf

    found = {}
    for kind in LITERT_VARIANTS:
        with _silent():
            converter = tf.lite.TFLiteConverter.from_concrete_functions([parts.outputs.get_concrete_function()])
            if kind != "float32":
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if kind == "float16":
                converter.target_spec.supported_types = [tf.float16]
            if kind == "int8":
                converter.representative_dataset = lambda: ([x[None].astype("float32")] for x in parts.representative)
                converter.target_spec.supported_ops = [
                    tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
                    tf.lite.OpsSet.TFLITE_BUILTINS,
                ]
            content = converter.convert()
        name = f"model-{kind}.tflite"
        (folder / name).write_bytes(content)
        found[f"litert_{kind}"] = {"files": [name], "precision": kind}
    return found


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
    return {"keras": _run_keras, "onnx": _run_onnx}.get(variant, _run_litert)(folder, variant)


def _float(x):
    import tensorflow as tf

    return tf.cast(tf.constant(x), tf.float32)


def _run_keras(folder, variant):
    import keras

    import kzoo.layers
    import kzoo.models

    for module in pkgutil.iter_modules(kzoo.models.__path__):  # importing them registers their layers with Keras
        import_module(f"kzoo.models.{module.name}")
    model = keras.saving.load_model(folder / "model.keras", compile=False, safe_mode=True)
    return lambda x: np.asarray(keras.ops.convert_to_numpy(model(x.astype("float32"), training=False)), "float32")


def _run_onnx(folder, variant):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x.astype("float32")})[0]


def _run_litert(folder, variant):
    with _silent():
        from ai_edge_litert.interpreter import Interpreter

        network = Interpreter(
            model_path=str(folder / f"model-{variant.removeprefix('litert_')}.tflite"), num_threads=cores()
        )
    into, out = network.get_input_details()[0]["index"], network.get_output_details()[0]["index"]
    sizes = []

    def run(x):
        if sizes != [len(x)]:
            with _silent():
                network.resize_tensor_input(into, list(x.shape))
                network.allocate_tensors()
            sizes[:] = [len(x)]
        network.set_tensor(into, x.astype("float32"))
        network.invoke()
        return network.get_tensor(out).copy()

    return run
