"""Mixtures of pictures and labels within a batch: mixup and CutMix."""

import tensorflow as tf

from kzoo.errors import unknown

ALPHA = {"mixup": 0.2, "cutmix": 1.0}  # of the Beta distribution, as both papers use for ImageNet


def mixed(dataset, kind, seed, epoch=0):
    """A tf.data.Dataset of (images (B, H, W, C), one-hot labels (B, K)) whose pictures are mixed with their batch.

    mixup (Zhang et al. 2018, arXiv:1710.09412): x = l x_i + (1 - l) x_j, and so the labels, l from Beta(0.2, 0.2).
    cutmix (Yun et al. 2019, arXiv:1905.04899): a rectangle of x_j, of 1 - l of the area before it is cut off at the
    border, stands in x_i; l from Beta(1, 1), and labels by the area that is left. One l and one pairing for a batch,
    drawn from the seed, the epoch (a number or a tf.Variable) and the batch's number. Images become float32.
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


def mixup(x, y, seed):
    x, share, other = tf.cast(x, tf.float32), _share(ALPHA["mixup"], seed), _partners(tf.shape(x)[0], seed)

    def mix(v):
        return share * v + (1 - share) * tf.gather(v, other)

    return mix(x), mix(y)


def cutmix(x, y, seed):
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
