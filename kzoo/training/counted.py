"""The model that `fit` trains on JAX: images that fill up a batch count neither in the loss nor in the metrics."""

from __future__ import annotations

import keras


class Counted(keras.Model):
    """A functional model for the batches of a `kzoo.data.feed.Feed`.

    Keras' sample weights would not do: a loss may be one number for the batch, such as the Dice loss, the mean would
    be over all images, and the loss of an epoch the mean over batches that are counted as full.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.mean_loss = keras.metrics.Mean("loss")

    @property
    def metrics(self):
        """Keras' own, but for the loss, which is the mean over the images that count."""
        return [self.mean_loss, *(m for m in super().metrics if m.name != "loss")]

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The loss of the images that count: all of them in batches of two elements."""
        n = None if sample_weight is None else sample_weight.shape[1]
        loss = super().compute_loss(x, y[:n], y_pred[:n], None, training)
        self.mean_loss.update_state(loss, sample_weight=keras.ops.shape(y_pred)[0] if n is None else n)
        return loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """The metrics, updated with the images that count."""
        n = None if sample_weight is None else sample_weight.shape[1]
        return super().compute_metrics(x, y[:n], y_pred[:n], None)


def trained(inputs: keras.KerasTensor, outputs: keras.KerasTensor) -> keras.Model:
    """The functional model for what `kzoo.data.feed.feed` serves: on JAX, whose batches are filled up, a Counted."""
    return (Counted if keras.backend.backend() == "jax" else keras.Model)(inputs, outputs)
