"""Windows whose cores divide a picture, and the positions of feature maps that belong to them."""

import numpy as np
import pytest

from kzoo.synthesis import tiles


@pytest.mark.parametrize("size", [5, 63, 64, 65, 97, 200, 331])
@pytest.mark.parametrize(("tile", "halo", "stride"), [(32, 12, 4), (16, 80, 16), (8, 0, 1)])
def test_spans_share_out_an_axis(size, tile, halo, stride):
    spans = tiles.spans(size, tile, halo, stride)
    assert [s.core_start for s in spans] == [0, *(s.core_stop for s in spans[:-1])]
    assert spans[-1].core_stop == size and [s.last for s in spans] == [False] * (len(spans) - 1) + [True]
    for s in spans:
        assert s.start % stride == 0 and s.core_start % stride == 0 and s.stop - s.start <= tile + 2 * halo
        assert s.core_start - s.start >= halo or s.start == 0
        assert s.stop - s.core_stop >= halo or s.stop == size


@pytest.mark.parametrize(("height", "width"), [(64, 64), (97, 70)])
def test_the_cores_of_feature_windows_divide_the_feature_map(height, width):
    stride, whole = 4, (1, height // 4, width // 4, 1)
    covered = np.zeros(whole[1:3], int)
    for window in tiles.windows((height, width), 32, 12, stride):
        local = (1, *((s.stop - s.start) // stride for s in window), 1)
        (rows, columns), mask = tiles.feature_window(window, stride, local, whole)
        covered[rows, columns] += mask[0, :, :, 0].astype(int)
    assert (covered == 1).all()


def test_without_a_tile_there_is_one_window_and_a_crop_is_a_view():
    (window,) = tiles.windows((40, 50), None, None, None)
    picture = np.zeros((1, 40, 50, 3))
    assert tiles.cropped(picture, window).shape == picture.shape
    tiles.cropped(picture, tiles.windows((40, 50), 8, 4, 4)[0])[:] += 1
    assert picture.sum() == 16 * 16 * 3
