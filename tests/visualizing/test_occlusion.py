"""Occlusion, deletion and insertion of networks whose answer is known."""

import numpy as np
import pytest
from visualizing.conftest import linear

from kzoo.errors import KzooError
from kzoo.visualizing.gradients import scores
from kzoo.visualizing.occlusion import deletion, insertion, occlusion, starts


def test_a_linear_network_drops_by_what_is_hidden():
    """w . (x - grey) over the square, at each place."""
    rng = np.random.default_rng(0)
    w, x = rng.normal(0, 1, (8, 6, 3)), rng.integers(0, 256, (2, 8, 6, 3)).astype("float32")
    found = occlusion(linear(w, (8, 6, 3), bias=3.0), x, 0, window=2, stride=2, fill=[10, 20, 30], precision="float32")
    lost = (w * (x - np.array([10, 20, 30]))).sum(-1).reshape(2, 4, 2, 3, 2).sum((2, 4))
    np.testing.assert_allclose(found.drop, lost, rtol=1e-3, atol=0.05)
    assert found.activity is None and found.rows.tolist() == [0, 2, 4, 6]
    np.testing.assert_allclose(found.of_pixels(found.drop, (8, 6)), found.drop.repeat(2, 1).repeat(2, 2))
    np.testing.assert_array_equal(found.best, (found.logits < 0).astype(int))


def test_a_window_as_large_as_the_picture_leaves_grey(pooled, pictures):
    found = occlusion(pooled, pictures, 1, window=12, precision="float32")
    grey = scores(pooled, np.full_like(pictures, 127.5))[:, 1]
    np.testing.assert_allclose(found.logits[:, 0, 0], grey, rtol=1e-4)
    np.testing.assert_allclose(found.whole, scores(pooled, pictures)[:, 1], rtol=1e-4)


def maps_of(network, x):
    """The sums of the last feature maps of a picture."""
    return np.asarray(network.up_to("conv2")(x))[0].sum((0, 1))


def test_in_bfloat16_the_numbers_are_those_of_float32(pooled, pictures):
    exact, half = (occlusion(pooled, pictures, 1, window=3, precision=p) for p in ("float32", "bfloat16"))
    for name in ("logits", "activity"):
        a, b = (getattr(found, name) for found in (exact, half))
        assert np.abs(a - b).max() <= 1e-2 * np.abs(a).max(), name


def test_what_is_watched(pooled, pictures):
    """The class's probability, the most probable class, the map that is strongest in the whole picture."""
    found = occlusion(pooled, pictures[:1], 1, window=4, stride=5, precision="float32")
    r, c = 1, 2
    copy = pictures[0].copy()
    copy[found.rows[r] : found.rows[r] + 4, found.columns[c] : found.columns[c] + 4] = 127.5
    logits, maps = scores(pooled, copy[None])[0], maps_of(pooled, copy[None])
    strongest = maps_of(pooled, pictures[:1]).argmax()
    np.testing.assert_allclose(found.probabilities[0, r, c], pooled.probabilities(logits)[1], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found.activity[0, r, c], maps[strongest], rtol=1e-4)
    assert found.best[0, r, c] == logits.argmax()
    assert [starts(12, 4, 5).tolist(), starts(4, 4, None).tolist(), len(starts(224, 32, None))] == [[0, 5, 8], [0], 15]
    for options, match in ((dict(window=13), "1 to 12 pixels"), (dict(stride=0), "at least 1")):
        with pytest.raises(KzooError, match=match):
            occlusion(pooled, pictures, **options)


def test_deletion_and_insertion_areas_of_a_known_ranking():
    """Four pixels that add 4, 3, 2, 1: by the true ranking 10, 6, 3, 1, 0 are left, by the reverse 10, 9, 7, 4, 0."""
    w = np.array([4.0, 3, 2, 1]).reshape(2, 2, 1) / 100
    network, x, true = linear(w, (2, 2, 1)), np.full((2, 2, 1), 227.5, "float32"), w[..., 0]
    base = 127.5 * w.sum()
    area = {}
    for name, ranking in (("true", true), ("reverse", -true)):
        found = deletion(network, x, ranking, 0, steps=4, score="logit", precision="float32")
        area[name] = found.area - base
        np.testing.assert_allclose(found.shares, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(area["true"], (10 / 2 + 6 + 3 + 1) / 4, rtol=1e-4)
    np.testing.assert_allclose(area["reverse"], (10 / 2 + 9 + 7 + 4) / 4, rtol=1e-4)
    orders = [deletion(network, x, m, 0, steps=4, score="logit", precision="float32").area for m in rankings()]
    np.testing.assert_allclose(np.mean(orders) - base, 5, rtol=1e-4)  # a random ranking lies in the middle
    # A picture that the blur leaves as it is: nothing is inserted.
    np.testing.assert_allclose(insertion(network, x, true, 0, steps=4, score="logit").area, base + 10, rtol=1e-2)
    with pytest.raises(KzooError, match="does not fit"):
        deletion(network, x, np.zeros((3, 3)), 0)


def rankings():
    """Each of four pixels first, in turn."""
    return [np.roll(np.arange(4.0), i).reshape(2, 2) for i in range(4)]
