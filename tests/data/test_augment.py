"""Augmentation: the crops and holes of the papers."""

import numpy as np
import pytest

import kzoo
from kzoo.data.augment import augmentation


def test_crops_and_holes_are_those_of_the_papers():
    x = np.random.default_rng(0).integers(0, 100, (32, 32, 32, 3)).astype("float32")
    with pytest.raises(kzoo.KzooError, match=r"its amount is 0\.5"):
        augmentation((("flip", 0.3),), 0)
    (crop,) = augmentation((("crop", 0.125),), 0)
    padded, moves = np.pad(x, ((0, 0), (4, 4), (4, 4), (0, 0)), constant_values=128.0), set()
    for picture, out in zip(padded, np.asarray(crop(x, training=True)), strict=True):
        fits = [(i, j) for i in range(9) for j in range(9) if (picture[i : i + 32, j : j + 32] == out).all()]
        assert len(fits) == 1, "a piece of the padded picture"
        moves.update(fits)
    assert len(moves) > 16
    (cutout,) = augmentation((("cutout", 0.25),), 0)
    out = np.asarray(cutout(x, training=True))
    hole = (out == 128).all(-1)
    assert (hole.sum((1, 2)) == 64).all() and (hole.any(1).sum(1) == 8).all(), "8 x 8 in every picture"
    np.testing.assert_array_equal(out[~hole], x[~hole])
    assert len({tuple(np.argwhere(h)[0]) for h in hole}) > 16
