"""Pictures drawn by code: paintings for the demo, tests and examples, and scenes of digits with their masks."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from kzoo.errors import unknown

NIGHT = np.array([[16, 24, 72], [26, 58, 130], [52, 110, 180], [120, 170, 205], [238, 205, 90], [250, 235, 170]], float)
GLASS = np.array([[200, 40, 40], [240, 170, 30], [40, 120, 70], [30, 70, 150], [235, 225, 200], [120, 40, 110]], float)

PAPER, INKS = np.array([240, 230, 208.0]), np.array([[28, 30, 48], [120, 44, 34]], float)
JOINT = np.array([58, 52, 48.0])
STONES = np.array(
    [[24, 52, 96], [38, 118, 140], [120, 176, 168], [232, 222, 196], [214, 164, 58], [176, 72, 44], [92, 32, 36]], float
)


def strokes(rng: np.random.Generator, side: int) -> Image.Image:
    """Draw brush strokes along a field with vortices, dark blue to yellow where it turns fastest: (side, side) RGB."""
    centres, turns = rng.uniform(0, 1, (7, 2)), rng.choice([-1, 1], 7)
    picture = Image.new("RGB", (side, side), tuple(int(v) for v in NIGHT[1]))
    draw = ImageDraw.Draw(picture)
    for i in range(5600):
        at, colour = rng.uniform(-0.06, 1.04, 2), 0.0
        path = [at]
        for step in range(8):
            away = path[-1] - centres
            near = np.exp(-(away**2).sum(1) / 0.02)
            field = (near * turns) @ np.stack([-away[:, 1], away[:, 0]], 1) * 8 + [0.5, 0.15 * np.sin(9 * path[-1][0])]
            colour = near.max() if step == 0 else colour
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


def ink(rng: np.random.Generator, side: int) -> Image.Image:
    """Draw hatching in blue-black and red ink on paper, (side, side) RGB: each darker tone has one more layer."""
    n = 2 * side  # drawn at twice the size: lines are smooth
    tone = 0.75 * _smooth(rng, 5) + 0.25 * _smooth(rng, 11)
    tone = (tone - tone.min()) / (tone.max() - tone.min())
    bend, hue = _smooth(rng, 4), _smooth(rng, 5)
    paper = np.clip(PAPER + rng.normal(0, 3, (side, side, 1)), 0, 255)
    picture = Image.fromarray(paper.astype("uint8")).resize((n, n), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for angle, least in ((0.6, 0.2), (2.2, 0.42), (1.35, 0.6), (0.0, 0.76)):
        first = at = rng.uniform(-0.03, 1.03, (5200, 2))
        step, paths = rng.uniform(0.004, 0.011, (len(at), 1)), [at]
        for _ in range(5):
            turned = angle + 1.6 * (_values(bend, at) - 0.5)
            at = at + step * np.stack([np.cos(turned), np.sin(turned)], -1)
            paths.append(at)
        lines = np.stack(paths, 1)
        dark = _values(tone, lines) > least + rng.normal(0, 0.03, (len(at), 1))
        points = np.where(dark.all(1), dark.shape[1], dark.argmin(1))  # a line ends where the tone is light
        red = _values(hue, first) + rng.normal(0, 0.05, len(at)) > 0.6
        colours = np.clip(INKS[red.astype(int)] + rng.normal(0, 10, (len(at), 3)), 0, 255)
        widths = np.maximum(1, np.round(n * rng.choice([0.002, 0.0026, 0.0034], len(at))))
        for line, drawn, rgb, width in zip(lines, points, colours, widths, strict=True):
            if drawn > 3:
                ends = [tuple(point) for point in line[:drawn] * n]
                draw.line(ends, tuple(int(v) for v in rgb), int(width), joint="curve")
    return picture.resize((side, side), Image.Resampling.LANCZOS)


def mosaic(rng: np.random.Generator, side: int) -> Image.Image:
    """Draw a mosaic, (side, side) RGB: square stones along a field of directions, each tilted a little to the light.

    The stones are the cells of points in the maximum norm, turned by the field, each point the middle of its cell
    (Hausner 2001, Simulating decorative mosaics).
    """
    from scipy.spatial import cKDTree

    across = 46  # stones
    level, angle = _smooth(rng, 4), 1.3 * np.pi * _smooth(rng, 3)
    grid = np.stack(np.meshgrid(np.arange(across), np.arange(across)), -1).reshape(-1, 2)
    stones = (grid + rng.uniform(0.2, 0.8, grid.shape)) / across

    def cells(side):
        """The pixels (n, 2), the stone of each, and its distance to the nearest two (n, 2)."""
        y, x = np.mgrid[:side, :side]
        pixels = (np.stack([x.ravel(), y.ravel()], 1) + 0.5) / side
        _, near = cKDTree(stones).query(pixels, k=6)
        turned, away = _values(angle, stones)[near], pixels[:, None] - stones[near]
        cos, sin = np.cos(turned), np.sin(turned)
        distance = np.maximum(
            np.abs(away[..., 0] * cos + away[..., 1] * sin), np.abs(away[..., 1] * cos - away[..., 0] * sin)
        )
        order = np.argsort(distance, 1)[:, :2]
        return pixels, np.take_along_axis(near, order, 1)[:, 0], np.take_along_axis(distance, order, 1)

    for _ in range(8):
        pixels, cell, _ = cells(192)
        count = np.maximum(np.bincount(cell, minlength=len(stones)), 1)
        stones = np.stack([np.bincount(cell, at, len(stones)) / count for at in pixels.T], 1)
    pixels, cell, distance = cells(side)
    kind = np.clip((_values(level, stones) - 0.15) / 0.7, 0, 0.999) * len(STONES) + rng.normal(0, 0.35, len(stones))
    colours = STONES[np.clip(kind.astype(int), 0, len(STONES) - 1)] * rng.normal(1, 0.1, (len(stones), 1))
    colours += rng.normal(0, 6, colours.shape)
    tilt = rng.normal(0, 0.1 * across, stones.shape)
    light = 1 + ((pixels - stones[cell]) * tilt[cell]).sum(1, keepdims=True)
    rgb = colours[cell] * light + rng.normal(0, 4, (side * side, 1))
    stone = np.clip((distance[:, 1:] - distance[:, :1]) * 427 - 1, 0, 1)
    rgb = rgb * stone + JOINT * (1 - stone)
    return Image.fromarray(np.clip(rgb, 0, 255).astype("uint8").reshape(side, side, 3))


def _smooth(rng, cells):
    """A smooth random field in 0..1, (256, 256)."""
    coarse = Image.fromarray(rng.uniform(0, 255, (cells, cells)).astype("uint8"))
    return np.asarray(coarse.resize((256, 256), Image.Resampling.BICUBIC), float) / 255


def _values(field, points):
    """A field at points (..., 2) in 0..1, that of the border beyond."""
    index = np.clip((points * len(field)).astype(int), 0, len(field) - 1)
    return field[index[..., 1], index[..., 0]]


PAINTINGS = {"strokes": strokes, "glass": glass, "ink": ink, "mosaic": mosaic}


def painting(name: str = "strokes", *, side: int = 512, seed: int = 0) -> Image.Image:
    """Draw a square painting, the same for the same arguments.

    Args:
        name: One of PAINTINGS: "strokes", "glass", "ink" or "mosaic".
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


SCENES = {"train": 1800, "val": 200, "test": 300}
OWN = {"train": 6, "val": 1, "test": 2}  # ninths of the handwritten digits
SIDE, PLACES = 64, 20  # places that are tried for a digit


def digit_scenes(seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Draw scikit-learn's handwritten digits, one to three in a picture, in random colours on textured grounds.

    The digits of a part are in no other part. A pixel that a stroke covers by less than half, but visibly, has no
    label, as along the outlines of PASCAL VOC. Digits do not touch; one that finds no room is left out.

    Args:
        seed: Of the random numbers.

    Returns:
        {part: (pictures uint8 (N, 64, 64, 3), masks uint8 (N, 64, 64))}: 0 is the ground, 1 to 10 are the digits 0 to
        9, 255 has no label.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(digits.images))
    ends = np.cumsum(list(OWN.values()))
    own = np.split(order, ends[:-1] * len(order) // ends[-1])
    found = {}
    for (part, n), members in zip(SCENES.items(), own, strict=True):
        scenes = [_scene(rng, digits, members) for _ in range(n)]
        pictures, masks = zip(*scenes, strict=True)
        found[part] = np.stack(pictures), np.stack(masks)
    return found


def _scene(rng, digits, members):
    """A picture (64, 64, 3) and its mask (64, 64), of one to three of these digits."""
    along = np.arange(SIDE)
    base = rng.uniform(30, 225, 3)
    picture = 6 * rng.standard_normal((SIDE, SIDE, 3), np.float32) + base.astype(np.float32)
    for _ in range(3):  # waves of any direction and colour
        angle, length, phase = rng.uniform(0, np.pi), rng.uniform(5, 40), rng.uniform(0, 2 * np.pi)
        across = np.exp(1j * (along * np.cos(angle) * 2 * np.pi / length + phase))
        down = np.exp(1j * along * np.sin(angle) * 2 * np.pi / length)
        wave = np.outer(down, across).imag.astype(np.float32)  # sin(down + across)
        picture += wave[..., None] * rng.uniform(-18, 18, 3).astype(np.float32)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for i in rng.choice(members, rng.integers(1, 4), replace=False):
        side = int(rng.integers(20, 37))
        strokes = Image.fromarray((digits.images[i] * (255 / 16)).astype(np.uint8))
        cover = np.asarray(strokes.resize((side, side), Image.Resampling.BICUBIC)) / 255
        colour = (base + rng.choice([-1, 1], 3) * rng.uniform(70, 150, 3)) % 256
        corners = rng.integers(0, SIDE - side + 1, (PLACES, 2))
        places = [np.s_[top : top + side, left : left + side] for left, top in corners]
        place = next((p for p in places if not mask[p][cover > 0.25].any()), None)
        if place is None:
            continue
        picture[place] += cover[..., None] * (colour - picture[place])
        mask[place] = np.where(cover > 0.5, digits.target[i] + 1, np.where(cover > 0.25, 255, mask[place]))
    return np.clip(np.round(picture), 0, 255).astype(np.uint8), mask
