"""Transforms against moves that can be written down, and the pullback as the adjoint."""

import numpy as np
import pytest

from kzoo.synthesis.transforms import Transforms, jitter, resample, rotate, scale

PICTURE = np.random.default_rng(0).uniform(0, 255, (1, 6, 7, 3)).astype("float32")


def test_whole_pixels_are_moved_and_grey_comes_in():
    shift = np.eye(3)
    shift[:2, 2] = 2, -1  # row i of the result is row i + 2 of the picture
    moved = resample(PICTURE, shift)[0]
    np.testing.assert_allclose(moved[:, :4, 1:], PICTURE[:, 2:, :6], rtol=1e-6)
    assert (moved[:, 4:] == 127.5).all() and (moved[:, :, 0] == 127.5).all()
    np.testing.assert_allclose(resample(PICTURE, np.eye(3))[0], PICTURE, atol=1e-4)
    half = np.eye(3)
    half[0, 2] = 0.5  # between two rows lies their mean
    np.testing.assert_allclose(resample(PICTURE, half)[0][:, :5], (PICTURE[:, 1:] + PICTURE[:, :-1]) / 2, rtol=1e-5)


def test_a_quarter_turn_is_numpys():
    square = PICTURE[:, :, :6]
    turned = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(resample(square, turned)[0], np.rot90(square, -1, (1, 2)), atol=1e-3)


def test_draws_are_lucids():
    rng = np.random.default_rng(0)
    shifts = np.array([jitter(8, rng)[:2, 2] for _ in range(400)])
    assert shifts.min() == -4 and shifts.max() == 4 and (shifts == shifts.astype(int)).all()
    factors = {round(1 / scale(0.1, rng)[0, 0], 3) for _ in range(400)}
    assert factors == {round(0.9 + i / 50, 3) for i in range(11)}
    angles = [round(np.degrees(np.arcsin(rotate(10, rng)[1, 0]))) for _ in range(2600)]
    assert set(angles) == set(range(-10, 11)) and 450 < angles.count(0) < 750  # 6 of 26


def test_small_pictures_are_jittered_less():
    assert Transforms().scaled_to(32) == Transforms(2, 0.1, 10.0, 1) and Transforms().scaled_to(224) == Transforms()


@pytest.mark.parametrize("seed", [1, 2])
def test_pullback_is_the_adjoint(seed):
    rng = np.random.default_rng(seed)
    matrix, g = Transforms().draw(rng), rng.normal(size=PICTURE.shape)
    moved, pullback = resample(PICTURE, matrix, outside=0.0)
    np.testing.assert_allclose(np.vdot(moved, g), np.vdot(PICTURE, pullback(g)), rtol=1e-4)
