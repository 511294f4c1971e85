"""From a Split to batches: prepared once and kept, in memory or on disk, else prepared on the way."""

from __future__ import annotations

import math
import os
import shutil
import tempfile

import numpy as np
import tensorflow as tf

from kzoo.data import images
from kzoo.data.dataset import Split
from kzoo.data.guards import check_channels
from kzoo.data.scan import in_order
from kzoo.errors import DataError
from kzoo.hardware import cores

MEMORY = 2 << 30  # bytes of prepared images that are kept in memory
DISK = 32 << 30  # ... and on disk, but at most half of what is free there


def prepared(split, shape, preprocessing, progress=None):
    """Decode, resize and crop every image of a split once.

    Returns (split, skipped): the split with a uint8 array (N, *shape) in place of files where that takes at most
    MEMORY bytes, or, on disk, DISK bytes (else the split as it was), without the images that can't be decoded; those
    are in `skipped`, as (id, reason). What is on disk is a file without a name in Python's temporary folder ($TMPDIR),
    gone with the process. progress: called with 1 for each image.
    """
    height, width, channels = shape
    size = len(split) * height * width * channels
    fits = size <= MEMORY
    if not split.files:
        have = split.images.shape[-1]
        check_channels(have, channels)
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
    store = _Store(shape, len(split), size)
    for i, (image, reason) in enumerate(in_order(attempt, split.images)):
        if reason is None:
            store.add(image)
            good.append(i)
        else:
            skipped.append((split.ids[i], reason))
        if progress:
            progress(1)
    kept = split.take(np.array(good, int)) if skipped else split
    images_ = store.array()
    return (kept if images_ is None else Split(images_, kept.labels, kept.ids)), skipped


class _Store:
    """Takes images (uint8, all of one shape) and gives them back as one array: in memory, on disk, or not at all."""

    def __init__(self, shape, most, size):
        self.shape, self.n, self.out, self.file = shape, 0, None, None
        if size <= MEMORY:
            self.out = np.empty((most, *shape), np.uint8)
        elif size <= min(DISK, shutil.disk_usage(tempfile.gettempdir()).free // 2):
            self.file = tempfile.TemporaryFile()  # noqa: SIM115, lives as long as the array

    def add(self, image):
        if self.out is not None:
            self.out[self.n] = image
        elif self.file:
            try:
                self.file.write(np.ascontiguousarray(image).data)
            except OSError:  # others filled the disk meanwhile: then the images are prepared on the way
                self.file.close()
                self.file = None
        self.n += 1

    def array(self):
        if self.file:
            self.file.flush()
            return np.memmap(self.file, np.uint8, "r", shape=(self.n, *self.shape))
        return None if self.out is None else self.out[: self.n]


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
            indices,
            fn_output_signature=tf.TensorSpec(shape, tf.uint8),
            parallel_iterations=cores(),
        )

    return decoded


def _targets_at(labels, targets):
    """A graph function: indices (B,) to targets (B, ...)."""
    if targets is None:
        stored = tf.constant(labels)
        return lambda indices: tf.gather(stored, indices)
    like = targets(labels[:1])

    def rows(indices):
        y = tf.numpy_function(lambda i: targets(labels[i]), [indices], like.dtype, stateful=False)
        y.set_shape((None, *like.shape[1:]))
        return y

    return rows


def batches(split, shape, preprocessing, batch_size, *, targets=None, order=None, alternate_flip=False):
    """A tf.data.Dataset of (uint8 images (B, *shape), float32 targets (B, ...)).

    targets: a function of labels (B, ...) that gives them, such as a task's; None gives the labels as they are.
    order: None for the stored order; else (seed, epoch): a permutation that depends on these two only, so that a
    resumed run sees the same. epoch may be a tf.Variable (int64), which is read when a pass begins.
    alternate_flip: mirror each image from left to right in every other epoch; which half of the images begins is drawn
    with the seed. So two epochs show every image both ways, where a coin for each time shows a half of them twice the
    same way (Jordan 2024, arXiv:2404.00498, section 3.6). Needs an order.
    """
    if split.files:
        images.check_shape(shape)
    n = len(split)
    rows = _images_at(split, shape, preprocessing)
    targets_at = _targets_at(split.labels, targets)
    if alternate_flip:
        begins = tf.constant(np.random.default_rng(order[0]).random(n) < 0.5)

    def one_pass(_):
        if order is None:
            return tf.data.Dataset.range(n).map(lambda i: (i, False)).batch(batch_size)
        epoch = tf.cast(order[1], tf.int64)
        seed = tf.stack([tf.constant(order[0], tf.int64), epoch])
        permutation = tf.random.experimental.stateless_shuffle(tf.range(n, dtype=tf.int64), seed)
        flips = tf.zeros(n, bool)
        if alternate_flip:
            flips = tf.gather(begins, permutation) ^ (epoch % 2 == 1)
        return tf.data.Dataset.from_tensor_slices((permutation, flips)).batch(batch_size)

    def one_batch(indices, flips):
        x = rows(indices)
        if alternate_flip:
            x = tf.where(flips[:, None, None, None], tf.reverse(x, [2]), x)
        return x, targets_at(indices)

    dataset = (
        tf.data.Dataset.range(1)
        .flat_map(one_pass)  # flat_map: the permutation is drawn when a pass begins
        .map(one_batch, num_parallel_calls=2, deterministic=True)
    )
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(math.ceil(n / batch_size))).prefetch(2)
    # The tuner sleeps 10 ms, 20 ms, 40 ms, ..., and the end of a pass waits until it wakes: up to twice the time of the
    # pass. There is nothing to tune here.
    tuning = tf.data.Options()
    tuning.autotune.enabled = False
    return dataset.with_options(tuning)
