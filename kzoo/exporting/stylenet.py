"""A trained stylenet as a SavedModel: pictures in, painted pictures out."""

from pathlib import Path

import keras
import tensorflow as tf

import kzoo.models.stylenet  # noqa: F401  its layers register themselves with Keras
from kzoo.errors import KzooError, RunError
from kzoo.files import write_folder
from kzoo.runs import MODEL, read_model


def export_stylenet(net, out, *, force=False):
    """Write a trained stylenet as a SavedModel that runs without kzoo and Keras.

    Its signature serving_default takes images (B, H, W, 3) uint8 of any size and gives painted, the same shape and
    type. out: the folder; force: replace the SavedModel that is there. Returns its path.
    """
    if keras.backend.backend() != "tensorflow":
        raise KzooError("A SavedModel is written by the TensorFlow backend: unset KERAS_BACKEND.")
    out = Path(out)
    model = read_model(Path(net) / MODEL)
    if model.name != "stylenet":
        raise RunError(f"{net} holds {model.name}, no stylenet: kzoo stylenet train writes one.")

    def replaceable():
        if not force:
            raise KzooError(f"{out} exists: choose another --out, or --force.")
        if not (out / "saved_model.pb").is_file():
            raise KzooError(f"{out} is no SavedModel, so it is not replaced: choose another --out.")

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")])
    def painted(images):
        h, w = tf.shape(images)[1], tf.shape(images)[2]
        x = tf.pad(tf.cast(images, tf.float32), [[0, 0], [0, -h % 4], [0, -w % 4], [0, 0]], mode="REFLECT")
        y = model(x, training=False)[:, :h, :w]
        return {"painted": tf.cast(tf.clip_by_value(tf.round(y), 0, 255), tf.uint8)}

    module = tf.Module()
    module.model, module.painted = model, painted
    with write_folder(out, replace=replaceable) as folder:
        tf.saved_model.save(module, str(folder), signatures={"serving_default": painted})
    return out
