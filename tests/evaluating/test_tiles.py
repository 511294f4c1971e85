"""Masks of large pictures by tiles: those of the whole picture."""

import numpy as np
import pytest

import kzoo
from kzoo.evaluating.tiles import Tiling, mask_of, starts, tiling

RNG = np.random.default_rng(0)


def test_the_cores_of_tiles_leave_no_gap():
    assert starts(112, 64, 8, 16) == [0, 48] and starts(64, 64, 8, 16) == [0]
    assert starts(160, 64, 8, 16) == [0, 48, 96] and starts(176, 64, 8, 32) == [0, 32, 64, 96, 112]

    def place(tiles):  # each tile answers with what it was given, and its outermost 3 pixels are wrong
        masks = np.stack(tiles)[..., 0].copy()
        masks[:, :3] = masks[:, -3:] = masks[:, :, :3] = masks[:, :, -3:] = 77
        return list(masks)

    image = RNG.integers(0, 70, (75, 133, 1)).astype("uint8")
    valid = Tiling((32, 48, 1), (3, 3), (3, 3), 2, True)
    np.testing.assert_array_equal(mask_of(image, valid, place, 4), image[..., 0])
    same = Tiling((32, 48, 1), (0, 0), (5, 3), 8, True)  # a tile's border is wrong only where the picture has its own
    found = mask_of(image, same, place, 4)
    np.testing.assert_array_equal(found[3:-3, 3:-3], image[3:-3, 3:-3, 0])
    small = RNG.integers(0, 70, (5, 1, 1)).astype("uint8")
    np.testing.assert_array_equal(mask_of(small, valid, place, 4), small[..., 0])


@pytest.mark.parametrize("name", ["unet_same", "unet"])
def test_tiles_answer_as_the_whole_picture(name):
    """The receptive field says how far tiles must overlap; the whole network is the oracle."""
    options = {"depth": 1, "width": 4, "num_classes": 3, "seed": 0}
    sizes = {"unet_same": ((32, 32, 3), (76, 90, 3)), "unet": ((36, 36, 3), (84, 98, 3))}[name]
    tile, whole = (kzoo.build(name, input_shape=size, **options) for size in sizes)
    whole.set_weights(tile.get_weights())
    how = tiling(sizes[0], tile)
    assert how.exact and how.stride == 2 and how.margin == ((0, 0) if name == "unet_same" else (8, 8))
    image = RNG.integers(0, 256, sizes[1]).astype("uint8")
    inside = image[how.margin[0] : sizes[1][0] - how.margin[0], how.margin[1] : sizes[1][1] - how.margin[1]]

    def answer(tiles):
        masks = np.asarray(tile(np.stack(tiles).astype("float32"))).argmax(-1).astype("uint8")
        return [np.pad(mask, how.margin[0], constant_values=255) for mask in masks]

    found = mask_of(inside, how, answer, 5)
    expected = np.asarray(whole(image[None].astype("float32")))[0].argmax(-1)
    edge = how.margin[0] * 2  # what lies beyond the border of `inside` was mirrored
    part = np.s_[edge : found.shape[0] - edge, edge : found.shape[1] - edge]
    assert found.shape == expected.shape and (found[part] != expected[part]).sum() <= 2  # ties, by rounding


def test_a_network_that_looks_further_than_a_tile_overlaps_by_a_quarter():
    how = tiling((32, 32, 3), kzoo.build("unet_same", input_shape=(32, 32, 3), depth=2, width=4))
    assert not how.exact and how.halo == (8, 8) and "along seams it may answer otherwise" in how.text
    assert tiling((64, 96, 3)) == Tiling((64, 96, 3), (0, 0), (16, 24), 32, False)
