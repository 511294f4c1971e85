"""Augmentation: the crops and holes of the papers."""

import numpy as np
import pytest

import kzoo
from kzoo.data.augment import augmentation, for_targets, moves


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


def blocks(n=16, side=24):
    """Masks of blocks, and pictures of 20 x class + 40, which is no colour of what comes in from outside."""
    masks = np.random.default_rng(1).integers(0, 5, (n, 3, 3)).repeat(side // 3, 1).repeat(side // 3, 2).astype("uint8")
    return np.repeat(masks[..., None] * 20 + 40, 3, -1).astype("uint8"), masks


@pytest.mark.parametrize("pair", [("flip", 0.5), ("shift", 0.2), ("crop", 0.2), ("zoom", 0.3), ("rotate", 25)])
def test_pictures_and_masks_move_alike(pair):
    import tensorflow as tf

    x, y = blocks()
    move = moves([pair, ("brightness", 0.5)])
    seed = tf.constant([3, 4], tf.int64)
    moved, mask = (np.asarray(v) for v in move(tf.constant(x), tf.constant(y), seed))
    assert moved.dtype == mask.dtype == np.uint8 and moved.shape == x.shape and mask.shape == y.shape
    assert (moved != x).any((1, 2, 3)).mean() > 0.3, "they move"
    inside = mask != 255
    assert (pair[0] == "flip") == inside.all(), "what comes in from outside has no label"
    right = moved[..., 0] == mask * 20 + 40
    if pair[0] in ("flip", "shift", "crop"):
        assert right[inside].all() and (moved[~inside] == (128 if pair[0] == "crop" else 0)).all()
    else:  # pictures are interpolated at the edges of blocks
        assert right[inside].mean() > 0.7
        pure = np.isin(moved[..., 0], np.arange(40, 121, 20)) & inside
        assert right[pure].mean() > 0.98
    again = move(tf.constant(x), tf.constant(y), seed)
    np.testing.assert_array_equal(again[0], moved)
    assert (np.asarray(move(tf.constant(x), tf.constant(y), seed + 1)[1]) != mask).any()


def test_a_shift_is_that_of_the_padded_picture_and_all_shifts_occur():
    import tensorflow as tf

    x, y = np.random.default_rng(0).integers(1, 255, (500, 8, 8, 1)).astype("uint8"), np.zeros((500, 8, 8), "uint8")
    moved = np.asarray(moves([("shift", 0.25)])(tf.constant(x), tf.constant(y), tf.constant([0, 0], tf.int64))[0])
    found = set()
    for picture, out in zip(np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0))), moved, strict=True):
        (fits,) = [(i, j) for i in range(5) for j in range(5) if (picture[i : i + 8, j : j + 8] == out).all()]
        found.add(fits)
    assert len(found) == 25


def test_what_can_not_be_done_to_a_mask_is_refused():
    with pytest.raises(kzoo.KzooError, match="augmentation cutout hides pixels whose labels a mask keeps"):
        moves([("flip", 0.5), ("cutout", 0.2)])
    with pytest.raises(kzoo.KzooError, match="Unknown augmentation 'flop'"):
        moves([("flop", 0.5)])
    with pytest.raises(kzoo.KzooError, match=r"its amount is 0\.5"):
        moves([("flip", 0.3)])
    pairs = [("brightness", 0.1), ("shift", 0.1), ("contrast", 0.1)]
    layers, move = for_targets(pairs, True)
    assert layers == [pairs[0], pairs[2]] and moves(layers) is None and move is not None
    assert for_targets(pairs, False) == (pairs, None)


def test_lighting_adds_the_principal_colours():
    """Krizhevsky et al. 2012: p1 a1 d1 + p2 a2 d2 + p3 a3 d3 to every pixel of a picture, while training only."""
    (layer,) = augmentation([("lighting", 0.1)], seed=3)
    x = np.full((2000, 2, 2, 3), 100.0, "float32")
    added = np.asarray(layer(x, training=True)) - x
    assert np.ptp(added, axis=(1, 2)).max() < 1e-3 and np.abs(np.asarray(layer(x)) - x).max() == 0
    p = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    amounts = added[:, 0, 0] @ p / 255  # the components are orthonormal
    np.testing.assert_allclose(amounts.std(0), 0.1 * np.array([0.2175, 0.0188, 0.0045]), rtol=0.06)
    assert np.abs(np.corrcoef(amounts.T) - np.eye(3)).max() < 0.08
    with pytest.raises(kzoo.KzooError, match="RGB pictures, not of 1 channels"):
        layer.build((None, 8, 8, 1))
