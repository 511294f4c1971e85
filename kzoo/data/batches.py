"""Batches of a Split: images are decoded once and kept in memory or on disk, else decoded on the fly."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from kzoo.data import images
from kzoo.data.dataset import Split
from kzoo.data.guards import check_channels
from kzoo.data.scan import in_order
from kzoo.errors import DataError
from kzoo.hardware import cores

if TYPE_CHECKING:
    from kzoo.catalog import Preprocessing

MEMORY = 2 << 30  # bytes of decoded images that are kept in memory
DISK = 32 << 30  # ... and on disk, but at most half of what is free there


def decode_split(
    split: Split,
    shape: tuple[int, int, int],
    preprocessing: Preprocessing,
    progress: Callable[[int], object] | None = None,
) -> tuple[Split, list[tuple[str, str]]]:
    """Decode, resize and crop every image of a split once, and keep the result.

    The decoded images are kept in memory up to `MEMORY` bytes, else on disk up to `DISK` bytes (at most half of the
    free space). The file on disk is an unnamed one in Python's temporary folder ($TMPDIR) and disappears with the
    process. A split that needs more than that is returned as it was, and `batches` decodes it on the fly.

    Args:
        split: The images.
        shape: (height, width, channels) of the model's input.
        preprocessing: Crop and interpolation.
        progress: Called with 1 after each image.

    Returns:
        (split, skipped). `split` is `prepared`: it has a uint8 array (N, *shape) in place of files, without the images
        that can't be decoded; those are in `skipped`, as (id, reason).

    Raises:
        DataError: The number of channels does not fit.
    """
    height, width, channels = shape
    size = len(split) * height * width * channels
    fits = size <= MEMORY
    if not split.files:
        have = split.images.shape[-1]
        check_channels(have, channels)
        if split.prepared or images.is_ready(split.images.shape[1:], shape, preprocessing):
            return Split(split.images, split.labels, split.ids, prepared=True), []
        if not fits:
            return split, []
        out = np.empty((len(split), *shape), np.uint8)
        for i in range(0, len(split), 256):
            x = split.images[i : i + 256]
            x = x if have == channels else images.with_channels(x, channels)
            out[i : i + 256] = images.fit(x, height, width, preprocessing)
        return Split(out, split.labels, split.ids, prepared=True), []

    one = images.make_preparer(shape, preprocessing)

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
    return (kept if images_ is None else Split(images_, kept.labels, kept.ids, prepared=True)), skipped


class _Store:
    """Collects images (uint8, all of one shape) into one array: in memory, on disk, or not at all."""

    def __init__(self, shape, most, size):
        self.shape, self.n, self.out, self.file = shape, 0, None, None
        if size <= MEMORY:
            self.out = np.empty((most, *shape), np.uint8)
        elif size <= min(DISK, shutil.disk_usage(tempfile.gettempdir()).free // 2):
            self.file = tempfile.TemporaryFile()  # noqa: SIM115, closed once it is mapped

    def add(self, image):
        if self.out is not None:
            self.out[self.n] = image
        elif self.file:
            try:
                self.file.write(np.ascontiguousarray(image).data)
            except OSError:  # other programs filled the disk meanwhile: decode on the fly instead
                self.file.close()
                self.file = None
        self.n += 1

    def array(self):
        if self.file:
            with self.file:  # the map keeps the file, which has no name, for as long as it lives
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
            if split.prepared or images.is_ready(store.shape[1:], shape, preprocessing):
                return x
            return images.fit(images.with_channels(x, channels), height, width, preprocessing)

        return rows
    encoded = isinstance(split.images[0], bytes)
    stored = tf.constant(split.images if encoded else [os.fsencode(path) for path in split.images])

    def load(x):  # in Python, which reads TIFF, too
        read = images.readable if encoded else (lambda path: images.read(os.fsdecode(path)))
        return tf.ensure_shape(tf.numpy_function(read, [x], tf.string, stateful=False), ())

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


def batches(
    split: Split,
    shape: tuple[int, int, int],
    preprocessing: Preprocessing,
    batch_size: int,
    *,
    targets: Callable[[np.ndarray], np.ndarray] | None = None,
    order: tuple[int, int | tf.Variable] | None = None,
    alternate_flip: bool = False,
) -> tf.data.Dataset:
    """Serve a split in batches.

    Args:
        split: The images with their labels.
        shape: (height, width, channels) of the model's input.
        preprocessing: Crop and interpolation, for images that are not decoded yet.
        batch_size: Images in a batch; the last one may have fewer.
        targets: A function of labels (B, ...) that returns the targets, such as a task's; None serves the labels.
        order: None for the stored order; else (seed, epoch). The permutation depends on these two only, so that a
            resumed run serves the same batches. `epoch` may be a tf.Variable (int64), which is read when a pass
            begins.
        alternate_flip: Mirror each image horizontally in every other epoch. Which half of the images begins mirrored is
            drawn from the seed. Needs an `order`.

    Returns:
        A tf.data.Dataset of (uint8 images (B, *shape), targets (B, ...)).

    Reference:
        Alternating flip: Jordan 2024, arXiv:2404.00498, section 3.6. Two epochs show every image both ways; a random
        flip shows half of the images the same way twice.
    """
    if split.files:
        images.check_shape(shape)
    n = len(split)
    rows = _images_at(split, shape, preprocessing)
    targets_at = _targets_at(split.labels, targets)
    if alternate_flip:
        begins = tf.constant(np.random.default_rng(order[0]).random(n) < 0.5)

    @tf.autograph.experimental.do_not_convert
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

    @tf.autograph.experimental.do_not_convert
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
    # tf.data's autotuner sleeps 10 ms, 20 ms, 40 ms, ..., and the end of a pass waits until it wakes: up to twice the
    # time of the pass. There is nothing to tune here.
    tuning = tf.data.Options()
    tuning.autotune.enabled = False
    return dataset.with_options(tuning)
