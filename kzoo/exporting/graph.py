"""The classifier as TensorFlow graphs: encoded images in, labels and probabilities out."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import keras
import tensorflow as tf

from kzoo.catalog import Preprocessing
from kzoo.data import images
from kzoo.data.header import refusal
from kzoo.graph.inference import inference_form, weights_in_graph
from kzoo.layers import LogMeanSoftmax
from kzoo.source import Source
from kzoo.tasks.task import zero_where_bad
from kzoo.walk import calls

PARALLEL_DECODES = 4  # bounds the memory: each of the images that are decoded at once may have MAX_PIXELS


@lru_cache(4)
def _refusal_graph(max_pixels):
    """`refusal` compiled, once in a process for all exports."""
    return tf.function(
        lambda data: refusal(data, max_pixels), input_signature=[tf.TensorSpec((), tf.string)], autograph=False
    )


def decode_batch(
    encoded: tf.Tensor, shape: tuple[int, int, int], preprocessing: Preprocessing
) -> tuple[tf.Tensor, tf.Tensor]:
    """`decode_sized` without the sizes."""
    pixels, reasons, _ = decode_sized(encoded, shape, preprocessing)
    return pixels, reasons


def decode_sized(
    encoded: tf.Tensor, shape: tuple[int, int, int], preprocessing: Preprocessing
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Decode, resize and crop encoded images as in training.

    An image that can't be decoded does not raise: each image is an element of a tf.data.Dataset that ignores errors.
    Headers are checked before anything is decoded.

    Args:
        encoded: strings (B,).
        shape: (height, width, channels) of the prepared images.
        preprocessing: how they are resized and cropped.

    Returns:
        (uint8 images (B, *shape), strings (B,), int32 (B, 2)): zeros, the reason and 1 x 1 for an image that can't be
        decoded, else "" as the reason and the height and width that the image had.
    """
    blank = tf.zeros(shape, tf.uint8)

    @tf.autograph.experimental.do_not_convert  # as in `images.make_preparer`
    def one(i):
        reason = _refusal_graph(images.MAX_PIXELS)(encoded[i])
        ready, reason, size = tf.cond(
            reason == "",
            lambda: images.attempt(encoded[i], shape, preprocessing),
            lambda: (blank, reason, tf.ones(2, tf.int32)),
        )
        return i, reason, tf.ensure_shape(ready, shape), tf.ensure_shape(size, (2,))

    n = tf.size(encoded, tf.int64)
    # TensorFlow's convolutions give wrong shapes for no images at all.
    with tf.control_dependencies([tf.debugging.Assert(n > 0, ["The batch is empty."])]):
        n = tf.identity(n)
    with tf.device("CPU"):
        found = (
            tf.data.Dataset.range(n).map(one, num_parallel_calls=PARALLEL_DECODES, deterministic=True).ignore_errors()
        )
        # Images that are missing, because decoding failed, are taken from this last element.
        nothing = (n, tf.constant("can't be decoded"), blank, tf.ones(2, tf.int32))
        found = found.concatenate(tf.data.Dataset.from_tensors(nothing))
        still = tf.data.Options()
        still.autotune.enabled = False  # the end of a pass would wait for its threads
        indices, reasons, pixels, sizes = found.batch(n + 1).with_options(still).get_single_element()
        last = tf.size(indices) - 1
        row = tf.tensor_scatter_nd_update(tf.fill([n + 1], last), indices[:, None], tf.range(last + 1))[:n]
        ready = tf.ensure_shape(tf.gather(pixels, row), (None, *shape))
        return ready, tf.gather(reasons, row), tf.gather(sizes, row)


def penultimate(model: keras.Model) -> keras.KerasTensor:
    """The features in front of a model's classifier: the input of its layer `predictions`.

    For a model without such a layer, the input of its last layer with weights, or else the model's input. Those of the
    members of an ensemble stand side by side.

    Returns:
        A (B, D) float32 KerasTensor; feature maps are averaged.
    """
    last = calls(model.inputs, [model.outputs[0]])[-1:]
    if last and isinstance(last[0].operation, LogMeanSoftmax):
        return keras.ops.concatenate([_in_front(model, logits) for logits in last[0].input_tensors], axis=-1)
    return _in_front(model, model.outputs[0])


def _in_front(model, output):
    nodes = calls(model.inputs, [output])
    weighted = [n for n in nodes if getattr(n.operation, "weights", None)]
    named = [n for n in weighted if n.operation.name.endswith("predictions")]
    x = (named or weighted[-1:] or nodes[:1])[-1].input_tensors[0]
    x = keras.ops.mean(x, (1, 2)) if len(x.shape) == 4 else x  # SqueezeNet's classifier is a convolution
    return keras.ops.cast(x, "float32")


def network(model: keras.Model, precision: str, *, constants_only: bool = False) -> tuple[Any, keras.Model]:
    """A model's inference form as a tf.function whose weights are constants, except for the largest.

    Those are variables of the SavedModel: see `kzoo.graph.inference.weights_in_graph`.

    Args:
        model: images (B, H, W, C) to outputs (B, ...).
        precision: "float32", "bfloat16" or "float16".
        constants_only: make constants of the largest, too.

    Returns:
        (function, the inference form). The function takes prepared float32 images (B, H, W, C) and returns
        {"outputs": float32 (B, ...), "features": float32 (B, D)}.
    """
    form = inference_form(model, precision)
    both = keras.Model(form.inputs[0], {"outputs": form.outputs[0], "features": penultimate(form)})

    @tf.function(input_signature=[tf.TensorSpec((None, *form.input_shape[1:]), "float32", "tensor")], autograph=False)
    def function(tensor):
        found = both.stateless_call(*weights_in_graph(both, constants_only=constants_only), tensor, training=False)[0]
        return {"outputs": tf.cast(found["outputs"], "float32"), "features": found["features"]}

    return function, form


def module(
    function: Any, source: Source, *, top: int = 5, temperature: float = 1.0, threshold: float | None = None
) -> tuple[tf.Module, dict[str, Callable]]:
    """What `tf.saved_model.save` needs for an export.

    Args:
        function: of `network`.
        source: gives task, shape, preprocessing and classes.
        top: how many labels the signatures return.
        temperature: by which logits are divided.
        threshold: of conformal prediction, or None; see `Task.signature`.

    Returns:
        (a tf.Module, its signatures):

        - serving_default: image (B,), encoded, to the tensors of the task's signature and error (B,). The error is ""
          for an image that can be read; for another one the tensors have zeros and empty strings.
        - images: image (B, H, W, 3), uint8 RGB of any one size, to the tensors of the task's signature; for a network
          of other than 1 or 3 channels (B, H, W, channels).
        - tensor: tensor (B, *shape), prepared float32 in 0..255, to the same.
        - features: image (B,), encoded, to features (B, D) and error (B,).
    """
    task, shape, preprocessing = source.task, source.shape, source.preprocessing

    def out(outputs):
        return task.signature(outputs, source.classes, top=top, temperature=temperature, threshold=threshold)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image")], autograph=False)
    def decoded(image):  # a function of its own, so that the graph has it once
        return decode_sized(image, shape, preprocessing)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image")], autograph=False)
    def serving_default(image):
        pixels, error, sizes = decoded(image)
        outputs = function(tf.cast(pixels, "float32"))["outputs"]
        found = {**out(outputs), **task.of_pictures(outputs, sizes, shape, preprocessing)}
        return {**task.masked(found, error == ""), "error": error}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image")], autograph=False)
    def features(image):
        pixels, error, _ = decoded(image)
        found = function(tf.cast(pixels, "float32"))["features"]
        return {"features": zero_where_bad(found, error == ""), "error": error}

    given = images.given_channels(shape[2])

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, given], tf.uint8, "image")], autograph=False)
    def of_images(image):
        pixels = images.fit(images.with_channels(image, shape[2]), shape[0], shape[1], preprocessing)
        outputs = function(tf.cast(pixels, "float32"))["outputs"]
        sizes = tf.repeat(tf.shape(image)[None, 1:3], tf.shape(image)[0], 0)
        return {**out(outputs), **task.of_pictures(outputs, sizes, shape, preprocessing)}

    @tf.function(input_signature=[tf.TensorSpec([None, *shape], tf.float32, "tensor")], autograph=False)
    def tensor(tensor):
        return out(function(tensor)["outputs"])

    whole, graph = tf.Module(), function.get_concrete_function()
    read = {id(handle) for handle in graph.captured_inputs}
    # What a SavedModel does not list, it can't save. graph.variables also has those that became constants.
    whole.arrays = [v for v in graph.variables if id(v.handle) in read]
    whole.functions = {"serving_default": serving_default, "images": of_images, "tensor": tensor, "features": features}
    return whole, whole.functions
