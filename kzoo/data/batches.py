"""From a Split to batches: prepared once and kept in memory where it fits, else prepared on the way."""

from __future__ import annotations

import math
import os

import numpy as np
import tensorflow as tf

from kzoo.data import images
from kzoo.data.scan import in_order
from kzoo.data.sources import Split
from kzoo.errors import DataError

MEMORY = 2 << 30  # bytes of prepared images that are kept


def prepared(split, shape, preprocessing, progress=None):
    """Decode, resize and crop every image of a split once.

    Returns (split, skipped): the split with a uint8 array (N, *shape) in place of files where that takes at most
    MEMORY bytes (else the split as it was), without the images that can't be decoded; those are in `skipped`, as
    (id, reason). progress: called with 1 for each image.
    """
    height, width, channels = shape
    fits = len(split) * height * width * channels <= MEMORY
    if not split.files:
        have = split.images.shape[-1]
        if have != channels and {have, channels} != {1, 3}:
            raise DataError(f"The images have {have} channels, the model takes {channels}; kzoo converts only 1 and 3.")
        if split.images.shape[1:] == tuple(shape) or not fits:
            return split, []
        out = np.empty((len(split), *shape), np.uint8)
        for i in range(0, len(split), 256):
            x = split.images[i : i + 256]
            x = x if have == channels else images.with_channels(x, channels)
            out[i : i + 256] = images.fit(x, height, width, preprocessing)
        return Split(out, split.labels, split.ids), []

    one = images.preparer(shape, preprocessing)

    def attempt(source):
        try:
            return one(source if isinstance(source, bytes) else images.read(source)), None
        except (DataError, OSError) as e:
            return None, str(e)

    good, skipped = [], []
    out = np.empty((len(split) if fits else 0, *shape), np.uint8)
    for i, (image, reason) in enumerate(in_order(attempt, split.images)):
        if reason is None:
            if fits:
                out[len(good)] = image
            good.append(i)
        else:
            skipped.append((split.ids[i], reason))
        if progress:
            progress(1)
    kept = split.take(np.array(good, int)) if skipped else split
    return (Split(out[: len(good)], kept.labels, kept.ids) if fits else kept), skipped


def _images_at(split, shape, preprocessing):
    """A graph function: indices (B,) to uint8 images (B, *shape)."""
    height, width, channels = shape
    if not split.files:
        store = split.images

        def gather(indices):  # NumPy gathers rows several times faster than tf.gather on a CPU, and copies nothing else
            return store[indices]

        def rows(indices):
            x = tf.numpy_function(gather, [indices], tf.uint8, stateful=False)
            x.set_shape((None, *store.shape[1:]))
            if store.shape[1:] == tuple(shape):
                return x
            return images.fit(images.with_channels(x, channels), height, width, preprocessing)

        return rows
    encoded = isinstance(split.images[0], bytes)
    stored = tf.constant(split.images if encoded else [os.fsencode(path) for path in split.images])
    load = (lambda x: x) if encoded else tf.io.read_file

    def decoded(indices):
        return tf.map_fn(
            lambda i: images.prepare(load(stored[i]), shape, preprocessing),
            indices, fn_output_signature=tf.TensorSpec(shape, tf.uint8), parallel_iterations=os.cpu_count(),
        )  # fmt: skip

    return decoded


def batches(split, shape, preprocessing, batch_size, *, num_classes, order=None):
    """A tf.data.Dataset of (uint8 images (B, *shape), one-hot float32 labels (B, num_classes)).

    order: None for one pass in the stored order; else (seed, first epoch, last epoch): one pass for each epoch, each
    in a permutation that depends on the seed and the number of the epoch only, so that a resumed run sees the same.
    """
    if split.files:
        images.check_shape(shape)
    n = len(split)
    rows = _images_at(split, shape, preprocessing)
    labels = tf.constant(split.labels)

    def one_pass(epoch):
        if order is None:
            indices = tf.data.Dataset.range(n)
        else:
            seed = tf.stack([tf.constant(order[0], tf.int64), epoch])
            permutation = tf.random.experimental.stateless_shuffle(tf.range(n, dtype=tf.int64), seed)
            indices = tf.data.Dataset.from_tensor_slices(permutation)
        return indices.batch(batch_size)

    epochs = tf.data.Dataset.range(*order[1:]) if order else tf.data.Dataset.range(1)
    dataset = epochs.flat_map(one_pass).map(
        lambda i: (rows(i), tf.one_hot(tf.gather(labels, i), num_classes)), num_parallel_calls=2, deterministic=True
    )
    passes = order[2] - order[1] if order else 1
    return dataset.apply(tf.data.experimental.assert_cardinality(passes * math.ceil(n / batch_size))).prefetch(2)
