"""The terms of the objective, as published: Gatys, Ecker and Bethge 2015 (arXiv:1508.06576) and CVPR 2016.

Features are (1, H, W, N): N filters at M = H * W positions. Everything is summed in float32 at least: a Gram matrix
adds up hundreds of thousands of products, which 16 bits can't hold.
"""

import keras
from keras import ops


def at_least_float32(x):
    return x if keras.backend.standardize_dtype(x.dtype) == "float64" else ops.cast(x, "float32")


def content_loss(features, target, mask=None):
    """1/2 sum (F - P)^2 (eq. 1), over the positions that the mask (1, H, W, 1) keeps."""
    square = ops.square(at_least_float32(features) - at_least_float32(target))
    return ops.sum(square if mask is None else square * mask) / 2


def gram(features, masks=None):
    """G = F F^T, summed over positions (eq. 3): (R, N, N) for R masks (1, H, W, 1), one for each region; R = 1 without.

    A region's Gram is the sum of m f f^T over positions: the guided Gram of Gatys et al. 2017 (arXiv:1611.07865,
    eq. 4) with T^2 = m.
    """
    f = ops.reshape(at_least_float32(features), (-1, features.shape[-1]))
    weighted = [f] if masks is None else [f * ops.reshape(m, (-1, 1)) for m in masks]
    return ops.stack([ops.matmul(ops.transpose(g), f) for g in weighted])


def style_loss(mean_gram, target):
    """E = 1/(4 N^2) sum (G/M - A/M')^2, averaged over the regions; mean_gram = G/M and target = A/M' are (R, N, N).

    For pictures of one size (M = M') it is eq. 4, 1/(4 N^2 M^2) sum (G - A)^2. M is taken for each picture, so that a
    painting of another size can be a target.
    """
    regions, filters, _ = mean_gram.shape
    return ops.sum(ops.square(mean_gram - target)) / (4 * filters**2 * regions)


def style_slope(mean_gram, target, positions):
    """dE/dG of style_loss, (R, N, N): (G/M - A/M') / (2 N^2 M R). positions: M of each region, (R,)."""
    regions, filters, _ = mean_gram.shape
    return (mean_gram - target) / (2 * filters**2 * regions * positions[:, None, None])


def total_variation(x):
    """Sum of the squared differences between neighbours, down and across (Mahendran and Vedaldi 2015, beta = 2)."""
    x = at_least_float32(x)
    return ops.sum(ops.square(x[:, 1:] - x[:, :-1])) + ops.sum(ops.square(x[:, :, 1:] - x[:, :, :-1]))


def out_of_range(x):
    """Sum of the squared distances of pixels from 0..255: what a file would cut off."""
    x = at_least_float32(x)
    return ops.sum(ops.square(x - ops.clip(x, 0, 255)))
