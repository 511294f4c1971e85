"""What stands in front of the layers that train, on TensorFlow: augmentation, and the frozen part of the network.

It runs in a thread, ahead of the training steps, in inference form. So a step is that of the layers that train and
nothing else, and of the validation images the frozen part is computed once and not in every epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kzoo.graph.inference import predictor

if TYPE_CHECKING:
    import tensorflow as tf

AHEAD = 2  # batches that wait for the training step
KEPT = 512 << 20  # bytes of validation images, as the frozen part gives them, that are kept


class Front:
    """Makes of images what the layers that train take.

    Args:
        layers: of `kzoo.data.augment.augmentation`, for images (B, H, W, C).
        below: the frozen part of the network; None where all of it trains.
        shape: (H, W, C) of an image.

    Attributes:
        shape: of what it makes of an image.
        seeds: the variables that the augmentation draws from.
    """

    def __init__(self, layers: Sequence[keras.layers.Layer], below: keras.Model | None, shape: tuple[int, int, int]):
        import tensorflow as tf

        self.shape = tuple(shape) if below is None else tuple(below.outputs[0].shape[1:])
        self.seeds = [v for layer in layers for v in layer.variables if "seed_generator" in v.path]
        self._below = None if below is None else predictor(below)

        @tf.function(input_signature=[tf.TensorSpec((None, *shape), "float32")], autograph=False)
        def augmented(x):
            for layer in layers:
                x = layer(x, training=True)
            return x

        self._augmented = augmented if layers else None

    def __call__(self, images: np.ndarray, training: bool) -> np.ndarray:
        """Images (B, H, W, C) in 0..255, to float32 (B, *shape); augmented where they are for training."""
        x = np.asarray(images, "float32")
        if training and self._augmented is not None:
            x = self._augmented(x).numpy()
        return x if self._below is None else self._below(x)

    def serve(self, data: tf.data.Dataset, images: int, training: bool) -> tf.data.Dataset:
        """Batches of (images, targets) as batches of (what the layers that train take, targets).

        Args:
            data: of `kzoo.data.feed.feed`.
            images: their number.
            training: True augments; otherwise what is made of them is kept for the next pass, up to KEPT bytes.
        """
        import tensorflow as tf

        @tf.autograph.experimental.do_not_convert
        def one(x: Any, y: Any) -> tuple[Any, Any]:
            # Not a part of the dataset's graph, in which TensorFlow joins no convolution with what follows it.
            made = tf.numpy_function(lambda a: self(a, training), [x], tf.float32, stateful=training)
            return tf.ensure_shape(made, (None, *self.shape)), y

        made = data.map(one)
        if not training and images * int(np.prod(self.shape)) * 4 <= KEPT:
            made = made.cache()
        tuning = tf.data.Options()
        tuning.threading.private_threadpool_size = 4  # they wait for the network, which needs TensorFlow's own ones
        return made.prefetch(AHEAD).with_options(tuning)
