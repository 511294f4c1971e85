"""The classifier as TensorFlow graphs: encoded images in, labels and probabilities out."""

import keras
import tensorflow as tf

from kzoo.data import images
from kzoo.data.header import refusal
from kzoo.graph.inference import inference_form
from kzoo.graph.walk import calls
from kzoo.tasks.task import zero_where_bad

AT_ONCE = 4  # images that are decoded at a time: so many may be as large as MAX_PIXELS


def decode_batch(encoded, shape, preprocessing):
    """Encoded images, a string tensor (B,), to (uint8 images (B, *shape), why not (B,)), as in training.

    What can't be decoded becomes zeros and a reason; "" stands for an image that can. Nothing raises: each image is an
    element of a data set that ignores its errors. Headers are looked at before anything is decoded.
    """
    blank = tf.zeros(shape, tf.uint8)

    def one(i):
        reason = refusal(encoded[i], images.MAX_PIXELS)
        ready = tf.cond(reason == "", lambda: images.prepare(encoded[i], shape, preprocessing), lambda: blank)
        return i, reason, tf.ensure_shape(ready, shape)

    n = tf.size(encoded, tf.int64)
    # TensorFlow's convolutions give wrong shapes for no images at all.
    with tf.control_dependencies([tf.debugging.Assert(n > 0, ["The batch is empty."])]):
        n = tf.identity(n)
    with tf.device("CPU"):
        found = tf.data.Dataset.range(n).map(one, num_parallel_calls=AT_ONCE, deterministic=True).ignore_errors()
        # The last element stands in for those that are missing.
        found = found.concatenate(tf.data.Dataset.from_tensors((n, tf.constant("can't be decoded"), blank)))
        still = tf.data.Options()
        still.autotune.enabled = False  # its threads wake late: a pass would wait for them
        indices, reasons, pixels = found.batch(n + 1).with_options(still).get_single_element()
        last = tf.size(indices) - 1
        row = tf.tensor_scatter_nd_update(tf.fill([n + 1], last), indices[:, None], tf.range(last + 1))[:n]
        return tf.ensure_shape(tf.gather(pixels, row), (None, *shape)), tf.gather(reasons, row)


def penultimate(model):
    """The features that a model's classifier sees, a (B, D) KerasTensor: the input of `predictions`, as kzoo calls it.

    Of a model from elsewhere: the input of the last layer with weights, or what the model itself takes.
    """
    nodes = calls(model.inputs, [model.outputs[0]])
    weighted = [n for n in nodes if getattr(n.operation, "weights", None)]
    named = [n for n in weighted if n.operation.name == "predictions"]
    x = (named or weighted[-1:] or nodes[:1])[-1].input_tensors[0]
    x = keras.ops.mean(x, (1, 2)) if len(x.shape) == 4 else x  # SqueezeNet's classifier is a convolution
    return keras.ops.cast(x, "float32")


def network(model, precision):
    """A model's inference form as a tf.function with constant weights: images (B, H, W, C) to outputs and features.

    Returns (function, the inference form). Constants and not variables: see `kzoo.graph.inference`.
    """
    form = inference_form(model, precision)
    both = keras.Model(form.inputs[0], {"outputs": form.outputs[0], "features": penultimate(form)})
    arrays = [[v.numpy() for v in group] for group in (both.trainable_variables, both.non_trainable_variables)]

    @tf.function(input_signature=[tf.TensorSpec((None, *form.input_shape[1:]), "float32", "tensor")], autograph=False)
    def function(tensor):
        trainable, fixed = ([tf.constant(a) for a in group] for group in arrays)
        found = both.stateless_call(trainable, fixed, tensor, training=False)[0]
        return {"outputs": tf.cast(found["outputs"], "float32"), "features": found["features"]}

    return function, form


def module(function, source, *, top=5, temperature=1.0, threshold=None):
    """(a tf.Module, its signatures) for `tf.saved_model.save`.

    function: of `network`. source: a `kzoo.exporting.source.Source`. Other arguments as in `Task.signature`.

    serving_default: image (B,), encoded, to what the task's signature gives and error (B,), "" for a good image; a bad
    one has empty labels and zeros. images: image (B, H, W, 3), uint8 RGB, any one size. tensor: tensor (B, *shape),
    prepared, 0..255. features: image (B,), encoded, to features (B, D) and error.
    """
    task, shape, preprocessing = source.task, source.shape, source.preprocessing

    def out(outputs):
        return task.signature(outputs, source.classes, top=top, temperature=temperature, threshold=threshold)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image")], autograph=False)
    def serving_default(image):
        pixels, error = decode_batch(image, shape, preprocessing)
        found = out(function(tf.cast(pixels, "float32"))["outputs"])
        return {**task.masked(found, error == ""), "error": error}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image")], autograph=False)
    def features(image):
        pixels, error = decode_batch(image, shape, preprocessing)
        found = function(tf.cast(pixels, "float32"))["features"]
        return {"features": zero_where_bad(found, error == ""), "error": error}

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, "image")], autograph=False)
    def of_images(image):
        pixels = images.fit(images.with_channels(image, shape[2]), shape[0], shape[1], preprocessing)
        return out(function(tf.cast(pixels, "float32"))["outputs"])

    @tf.function(input_signature=[tf.TensorSpec([None, *shape], tf.float32, "tensor")], autograph=False)
    def tensor(tensor):
        return out(function(tensor)["outputs"])

    whole = tf.Module()
    whole.functions = {"serving_default": serving_default, "images": of_images, "tensor": tensor, "features": features}
    return whole, whole.functions
