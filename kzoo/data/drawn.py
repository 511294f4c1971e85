"""Paintings drawn by code, free for any use: styles for the demo, tests and example pictures."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from kzoo.errors import unknown

NIGHT = np.array([[16, 24, 72], [26, 58, 130], [52, 110, 180], [120, 170, 205], [238, 205, 90], [250, 235, 170]], float)
GLASS = np.array([[200, 40, 40], [240, 170, 30], [40, 120, 70], [30, 70, 150], [235, 225, 200], [120, 40, 110]], float)


def strokes(rng: np.random.Generator, side: int) -> Image.Image:
    """Draw brush strokes along a field with vortices, dark blue to yellow where it turns fastest: (side, side) RGB."""
    centres, turns = rng.uniform(0, 1, (7, 2)), rng.choice([-1, 1], 7)
    picture = Image.new("RGB", (side, side), tuple(int(v) for v in NIGHT[1]))
    draw = ImageDraw.Draw(picture)
    for i in range(5600):
        at, colour = rng.uniform(-0.06, 1.04, 2), None
        path = [at]
        for _ in range(8):
            away = path[-1] - centres
            near = np.exp(-(away**2).sum(1) / 0.02)
            field = (near * turns) @ np.stack([-away[:, 1], away[:, 0]], 1) * 8 + [0.5, 0.15 * np.sin(9 * path[-1][0])]
            colour = near.max() if colour is None else colour
            path.append(path[-1] + field / (np.linalg.norm(field) + 1e-9) * 0.008)
        tone = np.clip(colour * 5 + rng.normal(0, 0.7), 0, 5)
        low = int(min(tone, 4))
        rgb = NIGHT[low] + (NIGHT[low + 1] - NIGHT[low]) * (tone - low) + rng.normal(0, 12)
        width = max(1, round(side * (0.012 if i < 2800 else 0.006)))
        draw.line([tuple(p * side) for p in path], tuple(int(v) for v in np.clip(rgb, 0, 255)), width, joint="curve")
    return picture


def glass(rng: np.random.Generator, side: int) -> Image.Image:
    """Draw leaded glass, (side, side) RGB: cells around random points, each of one colour, with dark joints."""
    grid = np.stack(np.meshgrid(np.arange(14), np.arange(14)), -1).reshape(-1, 2)
    points = (grid + rng.uniform(0.1, 0.9, grid.shape)) / 14
    kinds = rng.integers(0, len(GLASS), len(points))
    y, x = np.mgrid[:side, :side] / side
    nearest = np.full((2, side, side), np.inf)
    cell = np.zeros((side, side), int)
    for i, (px, py) in enumerate(points):
        away = np.hypot(x - px, y - py)
        closer = away < nearest[0]
        nearest[1] = np.where(closer, nearest[0], np.minimum(nearest[1], away))
        nearest[0], cell = np.where(closer, away, nearest[0]), np.where(closer, i, cell)
    shine = 1.25 - 0.6 * (nearest[0] / nearest[1])[..., None] + rng.normal(0, 0.04, (side, side, 1))
    rgb = GLASS[kinds[cell]] * shine
    rgb[nearest[1] - nearest[0] < 0.007] = (20, 18, 22)
    return Image.fromarray(np.clip(rgb, 0, 255).astype("uint8"))


PAINTINGS = {"strokes": strokes, "glass": glass}


def painting(name: str = "strokes", *, side: int = 512, seed: int = 0) -> Image.Image:
    """Draw a square painting, the same for the same arguments.

    Args:
        name: One of PAINTINGS: "strokes" or "glass".
        side: Width and height in pixels.
        seed: Of the random numbers.

    Raises:
        UnknownName: No painting has that name.

    Example:
        >>> painting("glass", side=64).size
        (64, 64)
    """
    if name not in PAINTINGS:
        raise unknown("painting", name, PAINTINGS, f"There are {', '.join(PAINTINGS)}.")
    return PAINTINGS[name](np.random.default_rng(seed), side)
