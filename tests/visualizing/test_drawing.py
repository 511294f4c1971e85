"""Maps as pictures: RGB, one scale, signs."""

import numpy as np

from kzoo.visualizing import drawing


def test_red_is_for_and_blue_is_against():
    """RGB, not the BGR of OpenCV's colour maps."""
    red, white, blue = drawing.signed(np.array([[1.0, 0.0, -1.0]]), 1.0)[0].astype(int)
    assert red[0] > red[2] + 80 and blue[2] > blue[0] + 80 and white.tolist() == [255] * 3
    picture = np.full((2, 4, 3), 128.0)
    laid = drawing.overlay(picture, np.array([[1.0, -1.0]]), 1.0).astype(int)
    assert laid[0, 0, 0] > laid[0, 0, 2] + 50 and laid[0, -1, 2] > laid[0, -1, 0] + 50
    plain = drawing.overlay(picture, np.zeros((1, 2)), 1.0)
    assert np.ptp(plain, axis=-1).max() == 0, "the picture itself, in grey, where nothing speaks"


def test_one_scale_for_all_classes():
    """Twice the value is twice as far from white, whichever map it stands in."""
    maps = np.array([[[2.0]], [[1.0]], [[-0.5]]])
    scale = drawing.scale_of(maps)
    assert scale == 2 and drawing.scale_of(np.zeros((2, 2))) == 1
    np.testing.assert_array_equal(drawing.signed(maps[1], scale), drawing.signed(np.array([[0.5]]), 1.0))
    np.testing.assert_array_equal(
        drawing.overlay(np.zeros((1, 1, 3)), maps[1], 2.0)[0, 0, 0], 0.5 * 115 + 0.5 * 64 - 0.5
    )


def test_unsigned_rises_and_bad_numbers_do_not_break_a_picture():
    ramp = drawing.unsigned(np.linspace(0, 1, 50)[None], 1.0)[0].astype(int).sum(-1)
    assert (np.diff(ramp) > 0).all()
    bad = np.array([[np.nan, np.inf], [-np.inf, 1.0]])
    for draw in (drawing.signed, drawing.unsigned, drawing.around_grey):
        assert draw(bad, 1.0).dtype == np.uint8
    assert drawing.scale_of(np.array([np.nan])) == 1


def test_grid_and_enlarged():
    tiles = [np.full((2, 3, 3), i, "uint8") for i in range(5)]
    found = drawing.grid(tiles, 3, gap=1, enlarge=2)
    assert found.shape == (9, 20, 3) and found[0, 0, 0] == 0 and found[5, 7, 0] == 4 and found[4, 0, 0] == 255
    np.testing.assert_allclose(drawing.enlarged(np.array([[0.0, 1.0], [2.0, 3.0]]), (2, 2)), [[0, 1], [2, 3]])
    assert drawing.as_rgb(np.ones((2, 2, 1)) * 300).max() == 255
    assert drawing.png(found)[:4] == b"\x89PNG"
