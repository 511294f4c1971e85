"""What `fit` reads: a tf.data set on TensorFlow; on JAX a Feed, whose batches all have one size.

On JAX the images stay uint8 until they are on the device, and a batch is gathered and copied while the device computes
the ones before it. Arrays need no TensorFlow for this.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from kzoo.data.batches import batches, begins_mirrored, permutation
from kzoo.data.dataset import Split
from kzoo.distribution import Group

if TYPE_CHECKING:
    import tensorflow as tf

    from kzoo.catalog import Preprocessing

AHEAD = 2  # batches that are on their way


class Epoch:
    """The number of an epoch, which the order of the images depends on, as tf.Variable has it."""

    def __init__(self) -> None:
        self.number = 0

    def assign(self, number: int) -> None:
        """Set it."""
        self.number = number


def epoch_number() -> Any:
    """What `order` takes as the epoch, with a method `assign`: a tf.Variable on TensorFlow, else an Epoch."""
    if keras.backend.backend() != "tensorflow":
        return Epoch()
    import tensorflow as tf

    return tf.Variable(0, dtype=tf.int64)


def feed(
    split: Split,
    shape: tuple[int, int, int],
    preprocessing: Preprocessing,
    batch_size: int,
    *,
    targets: Callable[[np.ndarray], np.ndarray],
    order: tuple[int, Any] | None = None,
    alternate_flip: bool = False,
    move: Callable | None = None,
    mix: str | None = None,
    crop: Sequence | None = None,
    start: int = 0,
    left_out: dict[str, str] | None = None,
    group: Group = Group(),  # noqa: B008  it is frozen
) -> tf.data.Dataset | Feed:
    """Serve a split for `fit`.

    Args:
        split, shape, preprocessing, targets: as `kzoo.data.batches.batches` takes them.
        alternate_flip, move, crop, start, left_out: likewise.
        batch_size: images in a batch of all devices.
        order: None for the stored order; else (seed, an `epoch_number`).
        mix: a mixture of `kzoo.data.mix`, or None.
        group: the devices.

    Returns:
        Batches of (uint8 images (B, *shape), targets (B, ...)); on JAX a Feed.

    Raises:
        RunError: The devices can't have equally many images of a batch.
    """

    def stream(epoch, start):
        seed = None if order is None else order[0]
        data = batches(
            split,
            shape,
            preprocessing,
            batch_size,
            targets=targets,
            order=None if order is None else (seed, epoch),
            alternate_flip=alternate_flip,
            move=move,
            crop=crop,
            start=start,
            left_out=left_out,
        )
        if mix is None:
            return data
        from kzoo.data.mix import mixed

        return mixed(data, mix, seed, epoch)

    if keras.backend.backend() != "jax":
        return stream(order and order[1], start)
    rows: _Rows | _Stream
    if split.prepared and move is None and mix is None and crop is None:
        rows = _Rows(split, targets, None if order is None else order[0], alternate_flip)
    else:
        rows = _Stream(stream, start)
    return Feed(rows, len(split), batch_size, None if order is None else order[1], group, start)


def one_pair(data: tf.data.Dataset | Feed) -> tuple[np.ndarray, np.ndarray]:
    """An image and its target as zeros, (1, ...) each, of the shapes and types that a `feed` serves."""
    pair = data[0][:2] if isinstance(data, Feed) else data.element_spec
    x, y = (np.zeros((1, *s.shape[1:]), keras.backend.standardize_dtype(s.dtype)) for s in pair)
    return x, y


class Feed(keras.utils.PyDataset):
    """Batches of one size for JAX. The last one is filled up with images of the first, which count nowhere.

    So a step is the same computation in the last batch as in the others, on any number of devices: the statistics of a
    batch norm are those of B images. Loss and metrics leave the images out that fill up
    (`kzoo.training.counted.Counted`): the third element of a batch, zeros (devices, n), says by its shape that the
    first n images count, because only shapes are known when a step is compiled.

    Args:
        rows: gives the rows of a batch.
        images: their number.
        batch_size: of all devices.
        epoch: an Epoch, or None if each pass is the same.
        group: the devices; a process serves its own rows.
        start: how many images of each pass are passed by.
    """

    def __init__(
        self, rows: _Rows | _Stream, images: int, batch_size: int, epoch: Epoch | None, group: Group, start: int = 0
    ):
        super().__init__()
        self.start = start
        self.rows, self.images, self.batch_size, self.epoch, self.group = rows, images, batch_size, epoch, group
        share = group.share(batch_size)
        self.mine = slice(group.process * share, (group.process + 1) * share)
        self.pool = ThreadPoolExecutor(1)
        self.ahead: dict[tuple[int, int], Future] = {}

    def __len__(self) -> int:
        return math.ceil((self.images - self.start) / self.batch_size)

    def __getitem__(self, index: int) -> tuple:
        epoch = self.epoch.number if self.epoch else 0
        if index == 0:  # a pass begins
            self.ahead = {}
        for i in range(index, min(index + 1 + AHEAD, len(self))):
            if (epoch, i) not in self.ahead:
                self.ahead[epoch, i] = self.pool.submit(self._batch, epoch, i)
        return self.ahead.pop((epoch, index)).result()

    def _batch(self, epoch, index):
        start, n = self.start + index * self.batch_size, self.images
        positions = (start + np.arange(self.batch_size)) % n
        x, y, counted = self.rows.take(epoch, index, positions, self.mine)
        counted = min(counted, n - start)
        count = np.zeros((self.group.devices // self.group.processes, counted), "uint8")
        return tuple(self._on_device(a) for a in (x, y, count))

    def _on_device(self, array):
        if self.group.processes > 1:  # Keras puts the arrays of several processes together
            return array
        import jax

        layout = self.group.layout
        return jax.device_put(array, None if layout is None else layout.get_data_layout(array.shape).backend_layout)


class _Rows:
    """Rows of arrays."""

    def __init__(self, split, targets, seed, alternate_flip):
        self.split, self.targets, self.seed = split, targets, seed
        self.begins = begins_mirrored(len(split), seed) if alternate_flip else None
        self.epoch, self.order = None, None

    def take(self, epoch, index, positions, mine):
        if self.seed is not None and epoch != self.epoch:
            self.epoch, self.order = epoch, permutation(len(self.split), self.seed, epoch)
        indices = positions[mine] if self.order is None else self.order[positions[mine]]
        x, y = self.split.images[indices], self.targets(self.split.labels[indices])
        if self.begins is not None:
            flips = self.begins[indices] ^ (epoch % 2 == 1)
            x[flips] = x[flips, :, ::-1]
            if self.split.masks:
                y[flips] = y[flips, :, ::-1]
        return x, y, len(positions)


class _Stream:
    """Rows of a tf.data set, pass by pass. Each process reads all of them and serves its own."""

    def __init__(self, stream, start):
        self.stream, self.start, self.data, self.epoch = stream, start, None, None

    def take(self, epoch, index, positions, mine):
        if self.data is None:
            import tensorflow as tf

            self.epoch = tf.Variable(0, dtype=tf.int64)
            self.data = self.stream(self.epoch, self.start)
        if index == 0:
            self.epoch.assign(epoch)
            self.iterator = self.data.as_numpy_iterator()
        arrays = next(self.iterator)
        if index == 0 and self.start:  # batches are filled up as in a pass from the start
            self.first = next(self.stream(self.epoch, 0).take(1).as_numpy_iterator())
        elif index == 0:
            self.first = arrays
        counted = len(arrays[0])  # fewer, too, where images can't be read
        missing = len(positions) - counted
        if missing:
            more = np.arange(missing) % len(self.first[0])
            arrays = tuple(np.concatenate([a, f[more]]) for a, f in zip(arrays, self.first, strict=True))
        x, y = (a[mine] for a in arrays)
        return x, y, counted
