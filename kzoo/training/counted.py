"""The model that `fit` trains on JAX: images that fill up a batch count neither in the loss nor in the metrics."""

from __future__ import annotations

import keras


def counted(x, count):
    """How many of the images x count, by the third element of a Feed's batch; all without one."""
    return x.shape[0] if count is None else count.shape[1]


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
        """The loss of the images that count."""
        n = counted(x, sample_weight)
        loss = super().compute_loss(x, y[:n], y_pred[:n], None, training)
        self.mean_loss.update_state(loss, sample_weight=n)
        return loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """The metrics, updated with the images that count."""
        n = counted(x, sample_weight)
        return super().compute_metrics(x, y[:n], y_pred[:n], None)
