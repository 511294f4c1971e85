"""Gradient accumulation: the gradient of a batch as the mean over parts of it, of which one is in memory at a time."""

from __future__ import annotations

from typing import Any

import keras

from kzoo.training.counted import Counted


class AccumulatingModel(Counted):
    """A functional model that is trained on each batch part by part, with one step of the optimizer at the end.

    The gradient is that of the mean loss of all images: parts count by their numbers of images. So everything but batch
    norm, whose statistics are those of a part, and losses that are no mean over images is as for the whole batch:
    schedule, weight decay, the last and smaller batch of an epoch, and what a checkpoint holds. (Keras' own
    gradient_accumulation_steps, an option of its optimizers, lets parts left at the end of an epoch run into the
    next one, drops those at the end of training, and runs through the learning rate's schedule by parts.)

    Attributes:
        part: images that are computed at once. It must be set before the training starts.
    """

    part: int = 0

    def train_step(self, *args: Any) -> Any:
        """Train on one batch; the arguments and the result are those of the backend's `keras.Model.train_step`."""
        return (_on_jax if keras.backend.backend() == "jax" else _on_tensorflow)(self, *args)


def _on_tensorflow(model, data):
    import tensorflow as tf

    x, y = data
    images, variables = tf.shape(x)[0], [v.value for v in model.trainable_variables]

    def one(at, *sums):
        a, b = x[at : at + model.part], y[at : at + model.part]
        with tf.GradientTape() as tape:
            outputs = model(a, training=True)
            loss = model.compute_loss(a, b, outputs, training=True)
            scaled = model.optimizer.scale_loss(loss)
        model.compute_metrics(a, b, outputs)
        share = tf.shape(a)[0] / images
        found = tape.gradient(scaled, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return at + model.part, *(s + tf.cast(share, g.dtype) * g for s, g in zip(sums, found, strict=True))

    # A loop of the graph, and one turn after the other: unrolled parts could all be in memory at the same time.
    start = tf.constant(0), *(tf.zeros_like(v) for v in variables)
    _, *gradients = tf.while_loop(lambda at, *_: at < images, one, start, parallel_iterations=1)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
    return model.get_metrics_result()


def _on_jax(model, state, data):
    import jax

    trainable, fixed, optimizer, metrics = state
    x, y, counted = data
    x, y = (t[: counted.shape[1]] for t in (x, y))  # the others fill up the batch
    gradient = jax.value_and_grad(model.compute_loss_and_updates, has_aux=True)

    def one(carry, part):
        fixed, metrics, sums = carry
        a, b = part
        count = jax.numpy.zeros((1, len(a)), "uint8")
        (_, (_, outputs, fixed, metrics)), found = gradient(
            trainable, fixed, metrics, a, b, count, training=True, optimizer_variables=optimizer
        )
        with keras.StatelessScope(zip(model.metrics_variables, metrics, strict=True)) as scope:
            model.compute_metrics(a, b, outputs, count)
        metrics = [scope.get_current_value(v) for v in model.metrics_variables]
        share = len(a) / len(x)
        return (fixed, metrics, [s + share * g for s, g in zip(sums, found, strict=True)]), None

    whole = len(x) // model.part
    cut = whole * model.part
    carry = fixed, metrics, [jax.numpy.zeros_like(v) for v in trainable]
    if whole:
        parts = [t[:cut].reshape(whole, model.part, *t.shape[1:]) for t in (x, y)]
        carry, _ = jax.lax.scan(one, carry, parts)
    if cut < len(x):
        carry, _ = one(carry, (x[cut:], y[cut:]))
    fixed, metrics, gradients = carry
    trainable, optimizer = model.optimizer.stateless_apply(optimizer, gradients, trainable)
    with keras.StatelessScope(zip(model.metrics_variables, metrics, strict=True)):
        logs = model.get_metrics_result()
    return logs, (trainable, fixed, optimizer, metrics)
