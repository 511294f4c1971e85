"""Parameterisations against NumPy written out, and their pullbacks against finite differences."""

import numpy as np
import pytest

from kzoo.synthesis.parameterisations import PARAMETERISATIONS, Ball, Fourier, decorrelation


def by_hand(parameters, height, width):
    """lucid's picture as a sum of cosines, frequency by frequency, in 0..255."""
    rows, columns = np.mgrid[:height, :width]
    plane = np.zeros((height, width, parameters.shape[-1]))
    for u in range(height):
        for v in range(width // 2 + 1):
            fy, fx = (u if u <= height // 2 else u - height) / height, v / width
            amount = np.sqrt(width * height) / max(np.hypot(fy, fx), 1 / max(width, height)) / 4
            angle = 2 * np.pi * (u * rows / height + v * columns / width)[..., None]
            twice = 1 if v == 0 or 2 * v == width else 2
            wave = parameters[0, u, v] * np.cos(angle) - parameters[1, u, v] * np.sin(angle)
            plane += twice * amount * wave / (height * width)
    if parameters.shape[-1] == 3:
        norm = np.sqrt(0.26**2 + 2 * 0.27**2)  # of the first column, the largest
        matrix = np.array([[0.26, 0.09, 0.02], [0.27, 0, -0.05], [0.27, -0.09, 0.03]]) / norm
        plane = np.einsum("hwc,dc->hwd", plane, matrix)
    return 255 / (1 + np.exp(-plane))


@pytest.mark.parametrize("shape", [(6, 8, 3), (5, 7, 3), (4, 6, 1)])
def test_fourier_is_a_sum_of_waves(shape):
    fourier = Fourier(shape)
    start = fourier.start(3)
    assert start.shape == (2, shape[0], shape[1] // 2 + 1, shape[2]) and abs(start.std() - 0.01) < 0.003
    np.testing.assert_allclose(
        fourier(100 * start)[0][0], by_hand(100 * start.astype("float64"), *shape[:2]), atol=1e-4
    )


def test_colours_are_lucids():
    matrix = decorrelation()
    np.testing.assert_allclose(np.linalg.norm(matrix, axis=0).max(), 1)
    np.testing.assert_allclose(matrix[2] / matrix[0, 0], np.array([0.27, -0.09, 0.03]) / 0.26)


@pytest.mark.parametrize("kind", PARAMETERISATIONS)
@pytest.mark.parametrize("shape", [(4, 6, 3), (5, 7, 1)])
def test_pullback_is_the_gradient(kind, shape):
    rng = np.random.default_rng(0)
    picture = PARAMETERISATIONS[kind](shape)
    p = picture.start(1).astype("float64") * (30 if kind == "fourier" else 1)
    g = rng.normal(size=(1, *shape))
    x, pullback = picture(p)
    assert x.shape == (1, *shape) and x.dtype == "float32"
    slope, step = pullback(g), rng.normal(size=p.shape)
    h = 1e-2 * np.linalg.norm(p) / np.linalg.norm(step)
    moved = [picture(p + sign * h * step)[0].astype("float64") for sign in (1, -1)]
    np.testing.assert_allclose(np.vdot(slope, step), np.vdot(g, moved[0] - moved[1]) / (2 * h), rtol=2e-3)


def test_ball_keeps_its_radius():
    picture = Ball((4, 4, 3), radius=10.0)
    np.testing.assert_allclose(np.linalg.norm(picture(7 * picture.start())[0] - 127.5), 10, rtol=1e-5)
