"""A trained stylenet as a SavedModel: pictures in, painted pictures out."""

from __future__ import annotations

import os
from pathlib import Path

import keras
import tensorflow as tf

import kzoo.models.stylenet  # noqa: F401  its layers register themselves with Keras
from kzoo.errors import KzooError, RunError
from kzoo.files import write_folder
from kzoo.hardware import without_tensorflow_chatter
from kzoo.runs import MODEL, read_model


def export_stylenet(net: str | os.PathLike, out: str | os.PathLike, *, force: bool = False) -> Path:
    """Write a trained stylenet as a SavedModel that runs without kzoo and Keras.

    Its signature serving_default takes images (B, H, W, 3) uint8 of any size and gives painted, of the same shape and
    type.

    Args:
        net: a folder that `kzoo.train_stylenet` wrote.
        out: the folder to write.
        force: replace a SavedModel that is there.

    Returns:
        The path of the folder.

    Raises:
        KzooError: the folder exists, or Keras runs on another backend than TensorFlow.
        RunError: there is no stylenet in `net`.
    """
    if keras.backend.backend() != "tensorflow":
        raise KzooError("A SavedModel is written by the TensorFlow backend: unset KERAS_BACKEND.")
    out = Path(out)
    model = read_model(Path(net) / MODEL)
    if model.name != "stylenet":
        raise RunError(f"{net} holds {model.name}, not a stylenet: kzoo stylenet train writes one.")

    def replaceable():
        if not force:
            raise KzooError(f"{out} exists: choose another --out, or --force.")
        if not (out / "saved_model.pb").is_file():
            raise KzooError(f"{out} is not a SavedModel, so it is not replaced: choose another --out.")

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")])
    def painted(images):
        h, w = tf.shape(images)[1], tf.shape(images)[2]
        x = tf.pad(tf.cast(images, tf.float32), [[0, 0], [0, -h % 4], [0, -w % 4], [0, 0]], mode="REFLECT")
        y = model(x, training=False)[:, :h, :w]
        return {"painted": tf.cast(tf.clip_by_value(tf.round(y), 0, 255), tf.uint8)}

    module = tf.Module()
    module.model, module.painted = model, painted
    with without_tensorflow_chatter(), write_folder(out, replace=replaceable) as folder:
        tf.saved_model.save(module, str(folder), signatures={"serving_default": painted})
    return out
