"""A network as it runs when nobody trains it."""

import keras
import numpy as np


def predictor(model):
    """A function: images (B, H, W, C) to logits, a float32 array (B, classes), dropout and the like off.

    Compiled once for all batch sizes. Not with XLA on TensorFlow: its convolutions on a CPU are several times slower
    than those of oneDNN, and Keras' own predict() would choose it.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        graph = tf.function(lambda x: model(x, training=False), reduce_retracing=True)
        return lambda x: np.asarray(_first(graph(tf.convert_to_tensor(x))))
    if keras.backend.backend() == "jax":
        import jax

        trainable = [v.value for v in model.trainable_variables]
        fixed = [v.value for v in model.non_trainable_variables]
        step = jax.jit(lambda t, n, x: model.stateless_call(t, n, x, training=False)[0])
        return lambda x: np.asarray(_first(step(trainable, fixed, np.asarray(x))))
    return lambda x: keras.ops.convert_to_numpy(_first(model(x, training=False)))


def _first(outputs):
    """The main output: networks with auxiliary classifiers give a list, the main one first."""
    return outputs[0] if isinstance(outputs, (list, tuple)) else outputs


def softmax(logits):
    """Probabilities (B, classes) in float64 from logits (B, classes)."""
    logits = np.asarray(logits, "float64")
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
