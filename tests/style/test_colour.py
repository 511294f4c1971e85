"""Colours that are kept: the moments match, luminance and colour come apart and together again."""

import numpy as np

from kzoo.style import colour

rng = np.random.default_rng(0)
CONTENT = np.clip(rng.normal([90, 120, 150], [20, 15, 25], (30, 40, 3)), 0, 255).astype("uint8")
STYLE = np.clip(rng.normal([160, 100, 60], [10, 30, 20], (50, 20, 3)), 0, 255).astype("uint8")


def test_histogram_matches_mean_and_covariance():
    mapped = colour.matched(STYLE, CONTENT).reshape(-1, 3)
    content = CONTENT.reshape(-1, 3).astype("float64")
    np.testing.assert_allclose(mapped.mean(0), content.mean(0), atol=0.5)
    np.testing.assert_allclose(np.cov(mapped.T), np.cov(content.T), atol=5)


def test_histogram_stands_a_flat_picture():
    grey = np.full((20, 20, 3), 128, "uint8")
    assert np.isfinite(colour.matched(grey, CONTENT)).all() and np.isfinite(colour.matched(STYLE, grey)).all()
    np.testing.assert_allclose(colour.matched(grey, CONTENT).mean((0, 1)), CONTENT.mean((0, 1)), atol=1)


def test_grey_and_sepia_are_one_hue():
    grey = rng.integers(0, 256, (30, 30, 1)).repeat(3, -1)
    assert colour.one_hue(grey) and colour.one_hue(grey * [1, 0.8, 0.6]) and colour.one_hue(np.zeros((8, 8, 3)))
    assert not colour.one_hue(STYLE) and not colour.one_hue(CONTENT)


def test_luminance_and_colour_come_together_again():
    grey = colour.luminance(CONTENT)
    np.testing.assert_allclose(grey[..., 0], CONTENT @ [0.299, 0.587, 0.114], rtol=1e-5)
    np.testing.assert_allclose(colour.recoloured(grey, CONTENT), CONTENT, atol=1e-2)
    np.testing.assert_allclose(colour.luminance(colour.recoloured(np.full_like(grey, 128), CONTENT)), 128, atol=2)


def test_luminance_matched():
    matched = colour.luminance_matched(STYLE, CONTENT)
    grey = colour.luminance(CONTENT)
    np.testing.assert_allclose([matched.mean(), matched.std()], [grey.mean(), grey.std()], rtol=1e-2)
