"""The terms of the objective, as published: Gatys, Ecker and Bethge 2015 (arXiv:1508.06576) and CVPR 2016.

Features are (1, H, W, N): N filters at M = H * W positions. Everything is summed in float32 at least: a Gram matrix
adds up hundreds of thousands of products, which 16 bits can't hold.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import KerasTensor as Tensor
from keras import ops

BLOCK = 1024  # positions whose products 16 bits add up


def at_least_float32(x: Tensor) -> Tensor:
    """`x` as float32; float64 stays float64."""
    return x if keras.backend.standardize_dtype(x.dtype) == "float64" else ops.cast(x, "float32")


def content_loss(features: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """The content loss, 1/2 sum (F - P)^2.

    Args:
        features: F, the features of the picture, (1, H, W, N).
        target: P, the features of the content picture, (1, H, W, N).
        mask: (1, H, W, 1), the weight of each position; None: 1 everywhere.

    Returns:
        A scalar.

    Reference:
        Gatys et al. 2016, equation 1.
    """
    square = ops.square(at_least_float32(features) - at_least_float32(target))
    return ops.sum(square if mask is None else square * mask) / 2


def gram(features: Tensor, masks: Sequence[Tensor] | None = None) -> Tensor:
    """The Gram matrix G = F F^T, summed over positions; with masks, one matrix for each region.

    A region's Gram matrix is the sum of m f f^T over positions, for the mask m. Features of 16 bits are multiplied in
    16 bits, which is twice as fast, and added up in float32 from blocks of 1,024 positions.

    Args:
        features: F, (1, H, W, N).
        masks: R masks (1, H, W, 1), one for each region; None: one region that is the whole picture.

    Returns:
        (R, N, N); R = 1 without masks.

    Reference:
        Gatys et al. 2016, equation 3. With masks: the guided Gram matrix of Gatys et al. 2017 (arXiv:1611.07865),
        equation 4, with T^2 = m.
    """
    f = ops.reshape(features, (-1, features.shape[-1]))
    return ops.stack([_gram(f, m) for m in ([None] if masks is None else masks)])


def _gram(f, mask):
    """The sum of m f f^T over the positions of f (M, N), (N, N)."""

    # As a plain expression its gradient for a slope S is F S and F S^T, two products of this size and a transposition.
    @ops.custom_gradient
    def of(f):
        weighted = f if mask is None else f * ops.cast(ops.reshape(mask, (-1, 1)), f.dtype)

        def gradient(*args, upstream=None):
            slope = args[0] if upstream is None else upstream
            return ops.matmul(weighted, ops.cast(slope + ops.transpose(slope), f.dtype))

        return _products(weighted, f), gradient

    return of(f)


def _products(a, b):
    """a^T b in float32 at least, for a and b (M, N)."""
    if keras.backend.standardize_dtype(a.dtype) in ("float32", "float64"):
        return ops.matmul(ops.transpose(a), b)
    # A product in 16 bits is added up in float32, but its result is rounded: to one part in 256 for each block.
    blocks, n = ops.shape(a)[0] // BLOCK, a.shape[-1]
    whole = [ops.reshape(x[: blocks * BLOCK], (blocks, BLOCK, n)) for x in (a, b)]
    rest = [x[blocks * BLOCK :] for x in (a, b)]
    of_blocks = at_least_float32(ops.matmul(ops.transpose(whole[0], (0, 2, 1)), whole[1]))
    return ops.sum(of_blocks, 0) + at_least_float32(ops.matmul(ops.transpose(rest[0]), rest[1]))


def style_loss(mean_gram: Tensor, target: Tensor) -> Tensor:
    """The style loss of one layer, E = 1/(4 N^2) sum (G/M - A/M')^2, averaged over the regions.

    For pictures of one size (M = M') it is 1/(4 N^2 M^2) sum (G - A)^2, as published. M is taken for each picture, so
    that a style picture of another size can be a target.

    Args:
        mean_gram: G/M, the Gram matrix of the picture divided by its number of positions, (R, N, N).
        target: A/M', that of the style picture, (R, N, N).

    Returns:
        A scalar.

    Reference:
        Gatys et al. 2016, equation 4. Departure: M of each picture in place of one M.
    """
    regions, filters, _ = mean_gram.shape
    return ops.sum(ops.square(mean_gram - target)) / (4 * filters**2 * regions)


def style_slope(mean_gram: Tensor, target: Tensor, positions: Tensor) -> Tensor:
    """The derivative dE/dG of `style_loss`, (G/M - A/M') / (2 N^2 M R).

    Args:
        mean_gram: G/M, (R, N, N).
        target: A/M', (R, N, N).
        positions: M, the number of positions of each region, (R,).

    Returns:
        (R, N, N).
    """
    regions, filters, _ = mean_gram.shape
    return (mean_gram - target) / (2 * filters**2 * regions * positions[:, None, None])


def total_variation(x: Tensor) -> Tensor:
    """The sum of the squared differences between neighbouring pixels, down and across.

    Args:
        x: pictures, (B, H, W, C).

    Returns:
        A scalar.

    Reference:
        Mahendran and Vedaldi 2015 (arXiv:1412.0035), section 3, with beta = 2.
    """
    x = at_least_float32(x)
    return ops.sum(ops.square(x[:, 1:] - x[:, :-1])) + ops.sum(ops.square(x[:, :, 1:] - x[:, :, :-1]))


def out_of_range(x: Tensor) -> Tensor:
    """The sum of the squared distances of pixels from the range 0..255, which is all that an image file can hold."""
    x = at_least_float32(x)
    return ops.sum(ops.square(x - ops.clip(x, 0, 255)))


def power_norm(x: Tensor, power: int = 6) -> Tensor:
    """The sum of |x - 127.5| to a power: little for pixels near grey, much for those beyond 0..255.

    Reference:
        Mahendran and Vedaldi 2015 (arXiv:1412.0035), section 3, with alpha = 6.
    """
    return ops.sum(ops.power(ops.abs(at_least_float32(x) - 127.5), power))
