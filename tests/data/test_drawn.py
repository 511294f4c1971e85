"""Pictures that kzoo draws itself."""

import numpy as np
import pytest

from kzoo.data import drawn
from kzoo.errors import KzooError


def test_kzoos_own_paintings_are_pictures_and_always_the_same():
    for name in drawn.PAINTINGS:
        one = np.asarray(drawn.painting(name, side=128))
        np.testing.assert_array_equal(one, np.asarray(drawn.painting(name, side=128)))
        assert one.shape == (128, 128, 3) and one.dtype == np.uint8 and one.std() > 30
        assert (one != np.asarray(drawn.painting(name, side=128, seed=1))).any()
    with pytest.raises(KzooError, match="Did you mean 'glass'"):
        drawn.painting("gloss")
