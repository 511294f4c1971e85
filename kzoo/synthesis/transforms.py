"""Random transforms of a picture, so that what a unit likes holds a little moved, scaled and turned, too.

Each transform is a matrix from pixels of the result to pixels of the picture, around their centres. A chain of them is
one product and one resampling. NumPy only, with the exact adjoint as the pullback.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kzoo.synthesis.parameterisations import GREY, Pullback

SIDE = 128  # pixels of the pictures that lucid's numbers are for


def jitter(pixels: int, rng: np.random.Generator) -> np.ndarray:
    """A shift by whole pixels, as a random crop that is `pixels` smaller makes it: by up to half of them."""
    moved = np.eye(3)
    if pixels > 0:
        moved[:2, 2] = rng.integers(0, pixels + 1, 2) - pixels // 2
    return moved


def scale(amount: float, rng: np.random.Generator) -> np.ndarray:
    """A scaling by one of eleven factors from 1 - amount to 1 + amount."""
    factor = 1 + amount * (rng.integers(11) - 5) / 5
    return np.diag([1 / factor, 1 / factor, 1])


def rotate(degrees: float, rng: np.random.Generator) -> np.ndarray:
    """A rotation by one of 21 angles from -degrees to degrees, or by 0 in five more of 26 draws."""
    step = int(rng.integers(-10, 16))
    angle = np.radians(degrees * step / 10) if step <= 10 else 0.0
    turned = np.eye(3)
    turned[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turned


@dataclass(frozen=True)
class Transforms:
    """lucid's chain: pad, jitter, scale, rotate, jitter once more.

    Departures: padding has no number of its own, since all that is outside of the picture is grey; the result has the
    size of the picture, so that it fits networks of one size; the chain resamples once, not at each link.

    Args:
        jitter: pixels, see `jitter`.
        scale: the largest change of size, 0.1 for 0.9 to 1.1.
        degrees: the largest angle.
        last_jitter: pixels.

    Reference:
        Olah, Mordvintsev and Schubert 2017; the numbers are those of lucid's `standard_transforms`.
    """

    jitter: int = 8
    scale: float = 0.1
    degrees: float = 10.0
    last_jitter: int = 4

    def scaled_to(self, side: int) -> Transforms:
        """The same for smaller pictures: below 128 pixels, lucid's own size, the jitter shrinks with the picture.

        Args:
            side: the shorter side of the picture in pixels.

        Example:
            >>> Transforms().scaled_to(32)
            Transforms(jitter=2, scale=0.1, degrees=10.0, last_jitter=1)
        """
        share = min(1, side / SIDE)
        return replace(self, jitter=round(self.jitter * share), last_jitter=round(self.last_jitter * share))

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """A chain at random: a matrix (3, 3) from (row, column, 1) of the result to those of the picture."""
        return (
            jitter(self.jitter, rng)
            @ scale(self.scale, rng)
            @ rotate(self.degrees, rng)
            @ jitter(self.last_jitter, rng)
        )


def resample(picture: np.ndarray, matrix: np.ndarray, outside: float = GREY) -> tuple[np.ndarray, Pullback]:
    """Move a picture, with bilinear interpolation.

    Args:
        picture: (1, H, W, C).
        matrix: (3, 3), from (row, column, 1) of the result, both from its centre, to those of the picture.
        outside: the value around the picture.

    Returns:
        ((1, H, W, C) float32, pullback).
    """
    _, height, width, channels = picture.shape
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    grid = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1).reshape(-1, 2) - centre
    at = grid @ matrix[:2, :2].T + matrix[:2, 2] + centre
    low = np.floor(at).astype(int)
    far = at - low
    flat = picture.reshape(-1, channels).astype("float32") - np.float32(outside)
    places, shares = [], []
    for y in (0, 1):
        for x in (0, 1):
            row, column = low[:, 0] + y, low[:, 1] + x
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            share = np.abs(1 - y - far[:, 0]) * np.abs(1 - x - far[:, 1])
            places.append(np.where(inside, row * width + column, 0))
            shares.append(np.where(inside, share, 0).astype("float32"))
    moved = sum(flat[p] * s[:, None] for p, s in zip(places, shares, strict=True)) + np.float32(outside)

    def pullback(gradient):
        g = gradient.reshape(-1, channels)
        back = [
            sum(np.bincount(p, s * g[:, c], height * width) for p, s in zip(places, shares, strict=True))
            for c in range(channels)
        ]
        return np.stack(back, -1).reshape(picture.shape).astype("float32")

    return moved.reshape(picture.shape), pullback
