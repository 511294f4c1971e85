"""Pictures that kzoo draws itself."""

import numpy as np
import pytest

import kzoo
from kzoo.data import drawn
from kzoo.data.drawn import digit_scenes
from kzoo.errors import KzooError


def test_kzoos_own_paintings_are_pictures_and_always_the_same():
    for name in drawn.PAINTINGS:
        one = np.asarray(drawn.painting(name, side=128))
        np.testing.assert_array_equal(one, np.asarray(drawn.painting(name, side=128)))
        assert one.shape == (128, 128, 3) and one.dtype == np.uint8 and one.std() > 30
    assert (one != np.asarray(drawn.painting(name, side=128, seed=1))).any()
    with pytest.raises(KzooError, match="Did you mean 'glass'"):
        drawn.painting("gloss")


def test_scenes_of_digits_have_masks_and_are_the_same_for_the_same_seed(monkeypatch):
    assert drawn.SCENES == {"train": 1800, "val": 200, "test": 300}, "what the manual says"
    monkeypatch.setattr(drawn, "SCENES", {"train": 60, "val": 50, "test": 50})
    first, data = digit_scenes(), kzoo.load_data("digits_segmentation")
    assert {k: len(v[0]) for k, v in first.items()} == drawn.SCENES
    for part, (pictures, masks) in first.items():
        np.testing.assert_array_equal(pictures, data.splits[part].images)
        np.testing.assert_array_equal(masks, data.splits[part].labels)
        assert pictures.shape[1:] == (64, 64, 3) and masks.shape[1:] == (64, 64) and pictures.dtype == masks.dtype
        assert set(np.unique(masks)) == {*range(11), 255}
        assert ((masks > 0) & (masks < 255)).any((1, 2)).all(), "a digit in every picture"
    assert data.classes == ("background", *"0123456789") and data.splits["val"].ids[0] == "val/0"
