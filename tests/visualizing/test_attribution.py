"""Gradients of class scores, beside finite differences, closed forms, and sums that must come out."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers
from visualizing.conftest import filled, linear

from kzoo.errors import KzooError, UnknownName
from kzoo.progress import Silent
from kzoo.visualizing import attribution
from kzoo.visualizing.attribution import (
    full_gradient,
    gradient,
    gradient_times_input,
    integrated_gradients,
    mean_pixel,
    saliency,
    smoothgrad,
)
from kzoo.visualizing.gradients import scores
from kzoo.visualizing.network import find_network


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has no float64 by default")
def test_saliency_is_the_largest_finite_difference():
    """In float64, against (f(x + h) - f(x - h)) / 2h; the absolute value, not the signed maximum."""
    inputs = keras.Input((4, 4, 3), dtype="float64")
    x = layers.Conv2D(3, 3, activation="tanh", dtype="float64")(inputs)
    x = layers.Dense(2, dtype="float64")(layers.Flatten(dtype="float64")(x))
    network = find_network(filled(keras.Model(inputs, x)))
    x, h = np.random.default_rng(0).integers(-2, 3, (1, 4, 4, 3)).astype("float64"), 1e-5
    steps = h * np.eye(48).reshape(48, 4, 4, 3)
    slopes = np.asarray((network.model(x + steps) - network.model(x - steps)) / (2 * h))[:, 1].reshape(4, 4, 3)
    np.testing.assert_allclose(gradient(network, x, 1)[0], slopes, rtol=1e-6, atol=1e-9)
    found = saliency(network, x, 1)[0]
    np.testing.assert_allclose(found, np.abs(slopes).max(-1), rtol=1e-6)
    assert (found > slopes.max(-1) + 1e-6).any(), "somewhere the largest gradient is negative"


def test_the_gradient_is_that_of_the_logit_not_of_the_softmax(pooled, pictures):
    """A certain network has no gradient behind its softmax."""
    inputs = pooled.model.inputs[0]
    certain = keras.Model(inputs, layers.Softmax()(pooled.model(inputs) * 1e4))
    assert np.abs(gradient(certain, pictures, 0)).max() > 1


def test_each_picture_has_its_own_target_and_gradient(pooled, pictures):
    both = gradient(pooled, pictures, ["cat", 0])
    for i, target in enumerate((2, 0)):
        np.testing.assert_allclose(both[i], gradient(pooled, pictures[i], target)[0], rtol=1e-5, atol=1e-9)
    best = scores(pooled, pictures).argmax(-1)
    np.testing.assert_array_equal(gradient(pooled, pictures), gradient(pooled, pictures, best))
    with pytest.raises(KzooError, match="3 targets for 2 pictures"):
        gradient(pooled, pictures, [0, 1, 2])


def test_smoothgrad_of_a_linear_network_is_its_weights(pooled, pictures):
    w = np.random.default_rng(0).normal(0, 1, (4, 5, 1))
    x = np.random.default_rng(1).integers(0, 256, (1, 4, 5, 1))
    np.testing.assert_allclose(smoothgrad(linear(w, (4, 5, 1)), x, 0, samples=3)[0], w, rtol=1e-5)
    np.testing.assert_allclose(
        smoothgrad(pooled, pictures, 0, noise=0.0, samples=2), gradient(pooled, pictures, 0), rtol=1e-5, atol=1e-9
    )
    one, same, other = (smoothgrad(pooled, pictures[:1], 0, samples=2, seed=s) for s in (0, 0, 1))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    with pytest.raises(KzooError, match="at least 1 sample"):
        smoothgrad(pooled, pictures, samples=0)


def test_integrated_gradients_are_exact_for_linear_and_quadratic_functions():
    """Two points integrate a gradient that rises evenly; for each picture on its own, not over the batch."""
    w = np.random.default_rng(0).normal(0, 1, (3, 2, 1)).astype("float32")
    x = np.random.default_rng(1).integers(0, 256, (2, 3, 2, 1)).astype("float32")
    found = integrated_gradients(linear(w, (3, 2, 1)), x, 0, baseline=np.full((3, 2, 1), 10.0), steps=1)
    np.testing.assert_allclose(found.attributions, w * (x - 10), rtol=1e-4)
    inputs = keras.Input((3, 2, 1))
    square = keras.Model(inputs, keras.ops.sum(inputs * inputs, axis=(1, 2)))
    found = integrated_gradients(square, x / 255, 0, steps=2)
    np.testing.assert_allclose(found.attributions, (x / 255) ** 2, rtol=1e-5)
    np.testing.assert_allclose(found.delta, 0, atol=1e-5)


def test_integrated_gradients_add_up_and_say_how_nearly(pooled, pictures):
    count = Counted()
    for baseline in ("black", "mean", "blurred"):
        found = integrated_gradients(pooled, pictures, [0, 2], baseline=baseline, progress=count)
        total = found.attributions.astype("float64").sum((1, 2, 3))
        np.testing.assert_allclose(total - found.difference, found.delta, atol=1e-4)
        assert ((found.share <= 0.01) | (found.steps == 512)).all()
        assert f"{found.steps[1]} steps" in found.text(1) and "delta" in found.text(1)
    start = np.zeros_like(pictures)
    found = integrated_gradients(pooled, pictures, 0)
    np.testing.assert_allclose(found.difference, (scores(pooled, pictures) - scores(pooled, start))[:, 0], rtol=1e-4)
    assert "more than 1 %" in dataclasses.replace(found, delta=found.difference / 50).text()
    assert count.total > 0
    with pytest.raises(UnknownName, match="baseline"):
        integrated_gradients(pooled, pictures, baseline="bleck")
    with pytest.raises(KzooError, match="does not fit"):
        integrated_gradients(pooled, pictures, baseline=np.zeros((3, 3)))


class Counted(Silent):
    total = 0

    def advance(self, n, **numbers):
        self.total += n


def test_a_logit_is_the_pixels_and_the_biases(pooled, pictures, shipped):
    """FullGrad's completeness: x . dy/dx + sum b . dy/db, with batch norm folded; measured 2e-7 on vgg_cifar10."""
    network, photos = shipped
    for one, x, target in ((pooled, pictures, [0, 2]), (network, photos[:2], None)):
        found = full_gradient(one, x, target)
        gap = np.abs(found.logit - found.from_input - found.from_biases)
        print(f"{one.name}: {(gap / np.abs(found.logit)).max():.1e} of the logit is missing")
        assert (gap <= 1e-5 * np.abs(found.logit)).all() and (found.gap <= 1e-5).all()
        np.testing.assert_allclose(found.logit, scores(one, x)[[0, 1], found.targets], rtol=1e-4)
    assert np.abs(found.from_biases).min() > 0.1, "the biases do count"


def test_a_network_that_is_not_linear_has_a_gap(pictures):
    inputs = keras.Input((12, 10, 3))
    x = layers.Dense(2)(layers.Flatten()(layers.Conv2D(3, 3, activation="tanh")(layers.Rescaling(0.01)(inputs))))
    assert full_gradient(filled(keras.Model(inputs, x)), pictures, 0).gap.min() > 1e-3


def test_the_mean_pixel_is_the_one_that_the_preprocessing_makes_0(shipped, pooled):
    network, photos = shipped
    inside = network.up_to("preprocessing")
    grey = np.broadcast_to(mean_pixel(network), photos[:1].shape)
    np.testing.assert_allclose(inside(grey), 0, atol=1e-4)
    assert mean_pixel(pooled).tolist() == [127.5] * 3
    expected = gradient(pooled, grey[:, :12, :10], 0) * (grey[:, :12, :10] - 127.5)
    np.testing.assert_allclose(gradient_times_input(pooled, np.array(grey[:, :12, :10]), 0), expected, rtol=1e-5)
    assert attribution.BASELINES == ("black", "mean", "blurred")
