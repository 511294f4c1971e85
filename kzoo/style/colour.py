"""Preserving the colours of the content (Gatys et al. 2016, arXiv:1606.05897). Pictures are (H, W, 3) RGB in 0..255."""

from __future__ import annotations

import numpy as np

# Rows Y, I, Q of the NTSC space, the paper's choice for luminance.
YIQ = np.array([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
MODES = ("none", "luminance", "histogram")


def matched(style: np.ndarray, content: np.ndarray) -> np.ndarray:
    """Give the style picture the content's mean colour and colour covariance, by a linear map of its pixels.

    x' = S_c^(1/2) S_s^(-1/2) (x - m_s) + m_c, with the symmetric square roots, which the paper prefers to Cholesky's.

    Args:
        style: (h, w, 3) in 0..255.
        content: (H, W, 3) in 0..255.

    Returns:
        (h, w, 3) float32, clipped to 0..255.

    Reference:
        Gatys et al. 2016 (arXiv:1606.05897), section 3.1.
    """

    def pixels(picture):
        return picture.reshape(-1, 3).astype("float64")

    (mean_s, root_s), (mean_c, root_c) = (moments(pixels(p)) for p in (style, content))
    mapped = (pixels(style) - mean_s) @ np.linalg.inv(root_s) @ root_c + mean_c
    return np.clip(mapped, 0, 255).reshape(style.shape).astype("float32")


def one_hue(picture: np.ndarray) -> bool:
    """Whether a picture is grey or a tone of one hue (sepia), so that `matched` can't give it the content's colours.

    Its colours lie on a line: across it they vary by less than two grey levels, as JPEG's rounding does.

    Args:
        picture: (H, W, 3) in 0..255.

    Example:
        >>> one_hue(np.arange(256).reshape(16, 16, 1).repeat(3, -1))
        True
    """
    return bool(np.sqrt(max(np.linalg.eigvalsh(np.cov(picture.reshape(-1, 3).T.astype("float64")))[1], 0)) < 2)


def moments(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean colour, and the symmetric square root of the colour covariance.

    A little is added to the covariance, so that it can be inverted for pictures of fewer than three colours.

    Args:
        pixels: (n, 3).

    Returns:
        (mean (3,), root (3, 3)).
    """
    values, vectors = np.linalg.eigh(np.cov(pixels.T) + 1e-2 * np.eye(3))
    return pixels.mean(0), vectors @ np.diag(np.sqrt(np.maximum(values, 1e-2))) @ vectors.T


def luminance(picture: np.ndarray) -> np.ndarray:
    """The luminance Y of a picture (H, W, 3), as a grey picture (H, W, 3) float32."""
    return np.repeat(picture.astype("float32") @ YIQ[0].astype("float32")[:, None], 3, -1)


def luminance_matched(style: np.ndarray, content: np.ndarray) -> np.ndarray:
    """The luminance of the style with the mean and the standard deviation of the content's.

    Args:
        style: (h, w, 3) in 0..255.
        content: (H, W, 3) in 0..255.

    Returns:
        A grey picture (h, w, 3), clipped to 0..255.

    Reference:
        Gatys et al. 2016 (arXiv:1606.05897), section 3.2.
    """
    s, c = luminance(style), luminance(content)
    return np.clip((s - s.mean()) * (c.std() / max(s.std(), 1e-3)) + c.mean(), 0, 255)


def recoloured(grey: np.ndarray, content: np.ndarray) -> np.ndarray:
    """The luminance of one picture with the colour (I and Q) of another.

    Args:
        grey: (H, W, 3) in 0..255.
        content: (H, W, 3) in 0..255.

    Returns:
        (H, W, 3) float32, clipped to 0..255.
    """
    yiq = content.astype("float64") @ YIQ.T
    yiq[..., 0] = grey.astype("float64") @ YIQ[0]
    return np.clip(yiq @ np.linalg.inv(YIQ).T, 0, 255).astype("float32")
