"""Mixtures of pictures and labels within a batch: mixup and CutMix."""

from __future__ import annotations

import tensorflow as tf

from kzoo.errors import unknown

ALPHA = {"mixup": 0.2, "cutmix": 1.0}  # of the Beta distribution, as both papers use for ImageNet


def mixed(dataset: tf.data.Dataset, kind: str, seed: int, epoch: int | tf.Variable = 0) -> tf.data.Dataset:
    """Mix the pictures and labels of each batch with others of the same batch.

    Each batch has one share l and one random pairing i -> j, drawn from the seed, the epoch and the batch's number.

    - "mixup": x = l x_i + (1 - l) x_j, and the labels likewise, l from Beta(0.2, 0.2).
    - "cutmix": a rectangle of x_j replaces that of x_i. Its area is 1 - l before it is clipped at the border, l from
      Beta(1, 1); labels are mixed by the area that remains.

    Args:
        dataset: Batches of (images (B, H, W, C), one-hot labels (B, K)).
        kind: "mixup" or "cutmix".
        seed: Of the random numbers.
        epoch: A number, or a tf.Variable that is read for each batch.

    Returns:
        The same batches, mixed; images are float32.

    Raises:
        UnknownName: No mixture has that name.

    Reference:
        Zhang et al. 2018, arXiv:1710.09412 (mixup). Yun et al. 2019, arXiv:1905.04899 (CutMix).
    """
    if kind not in ALPHA:
        raise unknown("mixture", kind, ALPHA, f"There are {', '.join(ALPHA)}.")
    function = mixup if kind == "mixup" else cutmix

    def mix(i, batch):
        first = tf.constant(seed, tf.int64) + tf.cast(epoch, tf.int64) * 2**32
        return function(*batch, tf.stack([first, i]))

    return dataset.enumerate().map(mix)


def _share(alpha, seed):
    """One number from Beta(alpha, alpha)."""
    a, b = tf.unstack(tf.random.stateless_gamma([2], seed, alpha))
    return a / tf.maximum(a + b, 1e-12)


def _partners(n, seed):
    return tf.random.experimental.stateless_shuffle(tf.range(n), seed + 1)


def mixup(x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mix one batch by mixup, see `mixed`.

    Args:
        x: Images (B, H, W, C).
        y: One-hot labels (B, K), float32.
        seed: int64 (2,).

    Returns:
        (images, labels) of the same shapes, float32.
    """
    x, share, other = tf.cast(x, tf.float32), _share(ALPHA["mixup"], seed), _partners(tf.shape(x)[0], seed)

    def mix(v):
        return share * v + (1 - share) * tf.gather(v, other)

    return mix(x), mix(y)


def cutmix(x: tf.Tensor, y: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mix one batch by CutMix, see `mixed`.

    Args:
        x: Images (B, H, W, C) of a fixed H and W.
        y: One-hot labels (B, K), float32.
        seed: int64 (2,).

    Returns:
        (images, labels) of the same shapes, float32.
    """
    x, share, other = tf.cast(x, tf.float32), _share(ALPHA["cutmix"], seed), _partners(tf.shape(x)[0], seed)
    height, width = x.shape[1:3]
    side = tf.sqrt(1 - share)
    centre = tf.random.stateless_uniform([2], seed + 2)

    def inside(n, c):
        return tf.abs((tf.range(n, dtype=tf.float32) + 0.5) / n - c) < side / 2

    box = inside(height, centre[0])[:, None] & inside(width, centre[1])
    left = 1 - tf.reduce_mean(tf.cast(box, tf.float32))
    x = tf.where(box[..., None], tf.gather(x, other), x)
    return x, left * y + (1 - left) * tf.gather(y, other)
