"""The formats: how each is written, and what runs it when it is checked.

A runner takes prepared images, uint8 (B, H, W, C), and gives logits (B, classes); it needs that format's library only.
"""

from __future__ import annotations

import contextlib
import io
import os
import pkgutil
import warnings
from importlib import import_module
from importlib.util import find_spec

import numpy as np

from kzoo.errors import ExportError
from kzoo.hardware import cores

# What logits may move by, as a share of the largest reference logit: what the arithmetic rounds, and some room.
TOLERANCES = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.06, "int8": 0.35}
NEEDS = {"onnx": (("tf2onnx", "onnx", "onnxruntime"), "onnx"), "litert": (("ai_edge_litert",), "litert")}
LITERT = ("float32", "float16", "int8")
OPSET = 18


def missing(format):
    """What to say if a format's packages are not installed; None if they are."""
    packages, extra = NEEDS.get(format, ((), ""))
    lacking = [p for p in packages if find_spec(p) is None]
    return f"{format} needs {', '.join(lacking)}: pip install 'kzoo[{extra}]'." if lacking else None


def write(format, folder, parts):
    """Write one format into a folder. Returns {variant: {"files": names, "precision": ...}}."""
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
            opset=OPSET,
            output_path=str(folder / "model.onnx"),
        )
    return {"onnx": {"files": ["model.onnx"], "precision": "float32"}}


def _litert(folder, parts):
    """float32; float16 weights; int8 weights and activations, their ranges from representative images."""
    import tensorflow as tf

    found = {}
    for kind in LITERT:
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
    """Without what the converters print and log about themselves."""
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
        kept, hole = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(hole, 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(hole)
            logging.disable(before)


# --- runners -----------------------------------------------------------------------------------------------


def runner(variant, folder, loaded=None, output="logits"):
    """The function that computes logits with a variant of an export; ExportError if its library is missing.

    loaded: the SavedModel, if it was loaded already. output: the task's name of what the network gives.
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

    for module in pkgutil.iter_modules(kzoo.models.__path__):  # their layers register themselves with Keras
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
