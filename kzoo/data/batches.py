"""Batches of a Split: images are decoded once and kept in memory or on disk, else decoded on the fly."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kzoo.data.dataset import Split
from kzoo.data.guards import check_channels, is_ready
from kzoo.data.masks import MaskFile
from kzoo.data.scan import in_order
from kzoo.errors import DataError
from kzoo.hardware import backend

if TYPE_CHECKING:
    import tensorflow as tf

    from kzoo.catalog import Preprocessing

MEMORY = 2 << 30  # bytes of decoded images that are kept in memory
DISK = 32 << 30  # ... and on disk, but at most half of what is free there


def decode_split(
    split: Split,
    shape: tuple[int, int, int],
    preprocessing: Preprocessing,
    progress: Callable[[int], object] | None = None,
    *,
    lazily: bool = False,
) -> tuple[Split, list[tuple[str, str]]]:
    """Decode, resize and crop every image of a split once, and keep the result. Masks are treated like their images.

    The decoded images are kept in memory up to `MEMORY` bytes, else on disk up to `DISK` bytes (at most half of the
    free space). The file on disk is an unnamed one in Python's temporary folder ($TMPDIR) and disappears with the
    process. A split that needs more than that is returned as it was, and `batches` decodes it on the fly.

    Args:
        split: The images.
        shape: (height, width, channels) of the model's input.
        preprocessing: Crop and interpolation.
        progress: Called with 1 after each image.
        lazily: Return files that need more than that at once, without looking for those that can't be decoded, which
            `batches` then finds.

    Returns:
        (split, skipped). `split` is `prepared`: it has a uint8 array (N, *shape) in place of files, without the images
        that can't be decoded; those are in `skipped`, as (id, reason). Masks are uint8 (N, height, width).

    Raises:
        DataError: The number of channels does not fit.
    """
    height, width, channels = shape
    size = len(split) * height * width * (channels + split.masks)
    fits = size <= MEMORY
    if isinstance(split.images, np.ndarray):
        have = split.images.shape[-1]
        check_channels(have, channels)
        _check_masks(split)
        if split.prepared or is_ready(split.images.shape[1:], shape, preprocessing):
            return Split(split.images, split.labels, split.ids, prepared=True), []
        if not fits:
            return split, []
        images = _tensorflow_images()
        out = np.empty((len(split), *shape), np.uint8)
        for i in range(0, len(split), 256):
            x = split.images[i : i + 256]
            x = x if have == channels else images.with_channels(x, channels)
            out[i : i + 256] = images.fit(x, height, width, preprocessing)
        labels = images.fit_masks(split.labels, height, width, preprocessing) if split.masks else split.labels
        return Split(out, labels, split.ids, prepared=True), []

    if lazily and not fits and not _fits_on_disk(size):
        return split, []
    images = _tensorflow_images()
    one = images.make_preparer(shape, preprocessing)

    def attempt(i):
        source = split.images[i]
        try:
            image = one(source if isinstance(source, bytes) else images.read(source))
            return image, _mask(split.labels[i], shape, preprocessing) if split.masks else None, None
        except (DataError, OSError) as e:
            return None, None, str(e)

    good, skipped = [], []
    store = _Store(shape, len(split), size)
    masks = _Store(shape[:2], len(split), size) if split.masks else None
    for i, (image, mask, reason) in enumerate(in_order(attempt, range(len(split)))):
        if reason is None:
            store.add(image)
            if masks:
                masks.add(mask)
            good.append(i)
        else:
            skipped.append((split.ids[i], reason))
        if progress:
            progress(1)
    kept = split.take(np.array(good, int)) if skipped else split
    images_, labels = store.array(), masks.array() if masks else kept.labels
    if images_ is None or labels is None:
        return kept, skipped
    return Split(images_, labels, kept.ids, prepared=True), skipped


def _tensorflow_images():
    """The module that decodes, resizes and crops, by TensorFlow: arrays that are a model's input need none of it."""
    try:
        from kzoo.data import images
    except ModuleNotFoundError as e:
        if e.name != "tensorflow":
            raise
        raise DataError(
            "Images are decoded, resized and cropped by TensorFlow, which is not installed: pip install tensorflow, or "
            "give arrays that are as large as the model's input."
        ) from e
    return images


def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order of n images in an epoch on JAX, int (n,); it depends on these numbers only."""
    return np.random.default_rng([seed, epoch]).permutation(n)


def begins_mirrored(n: int, seed: int) -> np.ndarray:
    """Which of n images are mirrored in the even epochs, where flips alternate, bool (n,)."""
    return np.random.default_rng(seed).random(n) < 0.5


def _fits_on_disk(size):
    return size <= min(DISK, shutil.disk_usage(tempfile.gettempdir()).free // 2)


def _check_masks(split):
    """DataError if arrays of images and of masks have different sizes."""
    have = split.images.shape[1:3]
    if split.masks and split.labels.shape[1:] != have:
        raise DataError(f"The images have {have[0]} x {have[1]} pixels, and their masks {split.labels.shape[1:]}.")


def _mask(label, shape, preprocessing):
    """A mask in the size of a model's input, uint8 (height, width)."""
    images = _tensorflow_images()
    mask = label.read() if isinstance(label, MaskFile) else label
    return images.fit_masks(mask, shape[0], shape[1], preprocessing)


class _Store:
    """Collects images (uint8, all of one shape) into one array: in memory, on disk, or not at all."""

    def __init__(self, shape, most, size):
        self.shape, self.n, self.out, self.file = shape, 0, None, None
        if size <= MEMORY:
            self.out = np.empty((most, *shape), np.uint8)
        elif _fits_on_disk(size):
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
    """A graph function: indices (B,) of arrays to uint8 images (B, *shape)."""
    import tensorflow as tf

    from kzoo.data import images

    height, width, channels = shape
    store = split.images

    def gather(indices):  # NumPy gathers rows several times faster than tf.gather on a CPU, and copies nothing else
        return store[indices]

    def rows(indices):
        x = tf.numpy_function(gather, [indices], tf.uint8, stateful=False)
        x.set_shape((None, *store.shape[1:]))
        if split.prepared or is_ready(store.shape[1:], shape, preprocessing):
            return x
        return images.fit(images.with_channels(x, channels), height, width, preprocessing)

    return rows


def _targets_at(split, shape, preprocessing, targets):
    """A graph function: indices (B,) to targets (B, ...)."""
    import tensorflow as tf

    labels = split.labels
    if targets is None and not split.masks:
        stored = tf.constant(labels)
        return lambda indices: tf.gather(stored, indices)
    ready = split.prepared or (not split.files and is_ready(split.images.shape[1:], shape, preprocessing))

    def labels_at(i):
        if split.masks and not ready:
            return np.stack([_mask(label, shape, preprocessing) for label in labels[i]])
        return labels[i]

    def made(i):
        return labels_at(i) if targets is None else targets(labels_at(i))

    like = made(np.arange(1))

    def rows(indices):
        y = tf.numpy_function(made, [indices], like.dtype, stateful=False)
        y.set_shape((None, *like.shape[1:]))
        return y

    return rows


def pixels(
    split: Split,
    shape: tuple[int, int, int],
    preprocessing: Preprocessing,
    batch_size: int,
    left_out: dict[str, str] | None = None,
) -> Iterator[np.ndarray]:
    """The images of a split in their stored order, in batches, for prediction: uint8 (B, *shape).

    Those of a `prepared` split need no TensorFlow. `left_out` is that of `batches`.
    """
    if split.prepared and isinstance(split.images, np.ndarray):
        for start in range(0, len(split), batch_size):
            yield split.images[start : start + batch_size]
    elif len(split):
        for x, _ in batches(split, shape, preprocessing, batch_size, left_out=left_out):
            yield x.numpy()


def batches(
    split: Split,
    shape: tuple[int, int, int],
    preprocessing: Preprocessing,
    batch_size: int,
    *,
    targets: Callable[[np.ndarray], np.ndarray] | None = None,
    order: tuple[int, int | tf.Variable] | None = None,
    alternate_flip: bool = False,
    move: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]] | None = None,
    crop: Sequence | None = None,
    start: int = 0,
    left_out: dict[str, str] | None = None,
) -> tf.data.Dataset:
    """Serve a split in batches. Of images that are not decoded yet only those of a few batches are in memory.

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
            drawn from the seed. Needs an `order`. Masks are mirrored with their images.
        move: Of `kzoo.data.augment.moves`, for masks. Its seed depends on `order` and on the first image of the batch.
        crop: Of `kzoo.data.crops.draw_region`: a part of each image is drawn from seed, epoch and image. Needs an
            `order`, and images that are not `prepared`.
        start: Of an `order`, how many images are passed by, as when an epoch goes on that was interrupted.
        left_out: Gets {id: reason} of files that can't be decoded, which are missing in their batches. By default
            the pass ends with an error.

    Returns:
        A tf.data.Dataset of (uint8 images (B, *shape), targets (B, ...)).

    Reference:
        Alternating flip: Jordan 2024, arXiv:2404.00498, section 3.6. Two epochs show every image both ways; a random
        flip shows half of the images the same way twice.
    """
    import tensorflow as tf

    n = len(split)
    streamed = split.files or crop is not None
    if streamed:
        from kzoo.data.reading import Reader

        reader = Reader(split, shape, preprocessing, crop, left_out)
    else:
        rows = _images_at(split, shape, preprocessing)
    targets_at = _targets_at(split, shape, preprocessing, targets)
    if alternate_flip:
        assert order is not None, "flips alternate from epoch to epoch"
        begins = tf.constant(begins_mirrored(n, order[0]))

    @tf.autograph.experimental.do_not_convert
    def one_pass(_):
        if order is None:
            assert not start and crop is None, "only an order has a position and draws crops"
            return tf.data.Dataset.range(n).map(lambda i: (i, False)).batch(batch_size).map(lambda i, f: (i, f, [0, 0]))
        epoch = tf.cast(order[1], tf.int64)
        seed = tf.stack([tf.constant(order[0], tf.int64), epoch])
        if backend() == "jax":  # the same order as that of arrays, which need no TensorFlow
            shuffled = tf.numpy_function(lambda s: permutation(n, *s), [seed], tf.int64)
            shuffled.set_shape([n])
        else:
            shuffled = tf.random.experimental.stateless_shuffle(tf.range(n, dtype=tf.int64), seed)
        flips = tf.zeros(n, bool)
        if alternate_flip:
            flips = tf.gather(begins, shuffled) ^ (epoch % 2 == 1)
        rows = tf.data.Dataset.from_tensor_slices((shuffled[start:], flips[start:])).batch(batch_size)
        return rows.map(lambda i, f: (i, f, seed))

    @tf.autograph.experimental.do_not_convert
    def one_batch(indices, flips, seed):
        if streamed:
            x, kept = tf.numpy_function(reader, [indices, seed], [tf.uint8, tf.bool], stateful=False)
            x, kept = tf.ensure_shape(x, (None, *shape)), tf.ensure_shape(kept, (None,))
            indices, flips = tf.boolean_mask(indices, kept), tf.boolean_mask(flips, kept)
        else:
            x = rows(indices)
        y = targets_at(indices)
        if alternate_flip:
            x = tf.where(flips[:, None, None, None], tf.reverse(x, [2]), x)
            if split.masks:
                y = tf.where(flips[:, None, None], tf.reverse(y, [2]), y)
        return (x, y) if move is None else move(x, y, tf.random.experimental.stateless_fold_in(seed, indices[0]))

    dataset = (
        tf.data.Dataset.range(1)
        .flat_map(one_pass)  # flat_map: the permutation is drawn when a pass begins
        .map(one_batch, num_parallel_calls=2, deterministic=True)
    )
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(math.ceil((n - start) / batch_size))).prefetch(2)
    # tf.data's autotuner sleeps 10 ms, 20 ms, 40 ms, ..., and the end of a pass waits until it wakes: up to twice the
    # time of the pass. There is nothing to tune here.
    tuning = tf.data.Options()
    tuning.autotune.enabled = False
    if streamed:  # its threads wait for decoders, which need TensorFlow's own ones
        tuning.threading.private_threadpool_size = 4
    return dataset.with_options(tuning)
