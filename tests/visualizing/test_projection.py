"""Projections back to the pixels, beside networks computed by hand and in NumPy."""

import keras
import numpy as np
import pytest
from keras import layers
from visualizing.conftest import filled

from kzoo.errors import KzooError
from kzoo.visualizing.attribution import gradient
from kzoo.visualizing.projection import deconvnet, guided_backpropagation, project_unit


def by_hand():
    """Three pixels; two hidden units, h1 = x1 - x2 and h2 = x3 - x1; the logit is h1+ - 2 h2+."""
    inputs = keras.Input((1, 3, 1))
    x = layers.Dense(2, activation="relu", name="hidden")(layers.Flatten()(inputs))
    model = keras.Model(inputs, layers.Dense(1, name="logit")(x))
    zero = np.zeros
    model.set_weights([np.array([[1.0, -1], [-1, 0], [0, 1]]), zero(2), np.array([[1.0], [-2]]), zero(1)])
    return model


@pytest.mark.parametrize(
    ("pixels", "plain", "guided", "deconv"),
    [  # h1 and h2 of each: (1, 1), (1, -1), (-1, 1)
        ((1, 0, 2), (3, -1, -2), (1, -1, 0), (1, -1, 0)),
        ((1, 0, 0), (1, -1, 0), (1, -1, 0), (1, -1, 0)),
        ((0, 1, 1), (2, 0, -2), (0, 0, 0), (1, -1, 0)),
    ],
)
def test_a_network_computed_by_hand(pixels, plain, guided, deconv):
    x = np.array(pixels, "float32").reshape(1, 1, 3, 1)
    model = by_hand()
    np.testing.assert_array_equal(gradient(model, x, 0).reshape(-1), plain)
    np.testing.assert_array_equal(guided_backpropagation(model, x, 0).maps.reshape(-1), guided)
    np.testing.assert_array_equal(deconvnet(model, x, 0).maps.reshape(-1), deconv)
    assert deconvnet(model, x, 0).replaced == ("hidden",)


def test_without_a_relu_it_is_refused_and_the_rule_counts_all_of_them(pooled, pictures):
    assert guided_backpropagation(pooled, pictures, 0).replaced == ("relu1", "conv2")
    inputs = keras.Input((4, 4, 1))
    flat = filled(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(inputs))))
    with pytest.raises(KzooError, match="has no ReLU"):
        guided_backpropagation(flat, np.ones((1, 4, 4, 1)))
    # By the plain rule a projection is the gradient.
    x = np.ones((1, 4, 4, 1))
    np.testing.assert_allclose(project_unit(flat, x, flat.layers[-1].name, 1, rule="plain").maps, gradient(flat, x, 1))


def test_the_deconvnet_is_transposed_convolution_and_unpooling_by_switches():
    """In NumPy: rectify, put each value at its pool's maximum, convolve with the transposed kernel."""
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(3, 3, activation="relu", name="conv")(inputs)
    model = filled(keras.Model(inputs, layers.MaxPooling2D(2, name="pool")(x)))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(model.outputs[0])))
    x = np.random.default_rng(0).normal(0, 1, (1, 6, 6, 2)).astype("float32")
    kernel, bias = (np.asarray(w, "float64") for w in model.get_layer("conv").weights)
    maps = np.zeros((4, 4, 3))
    for i, j in np.ndindex(4, 4):
        maps[i, j] = np.maximum(np.tensordot(x[0, i : i + 3, j : j + 3], kernel, 3) + bias, 0)
    unit, found = 1, np.zeros((6, 6, 2))
    pools = maps[..., unit].reshape(2, 2, 2, 2).swapaxes(1, 2)  # (row, column) of the pool, then within it
    r, c = np.unravel_index(pools.max((2, 3)).argmax(), (2, 2))
    i, j = np.unravel_index(pools[r, c].argmax(), (2, 2))
    at = 2 * r + i, 2 * c + j
    found[at[0] : at[0] + 3, at[1] : at[1] + 3] = kernel[..., unit]  # a seed of 1, through one switch
    np.testing.assert_allclose(project_unit(model, x, "pool", unit).maps[0], found, rtol=1e-5, atol=1e-7)
    there = project_unit(model, x, "pool", unit, positions=np.array([[1 - r, c]])).maps[0]
    assert np.abs(there - found).max() > 1e-3
    with pytest.raises(KzooError, match="units 0 to 2; got 3"):
        project_unit(model, x, "pool", 3)


def test_max_pooling_sends_the_gradient_to_the_first_maximum():
    """Ties go to the first position in row-major order, and nothing of the gradient is lost."""
    inputs = keras.Input((4, 4, 1))
    weights = np.array([1.0, 2.0, 4.0, 8.0], "float32").reshape(4, 1)
    model = keras.Model(inputs, layers.Dense(1, use_bias=False)(layers.Flatten()(layers.MaxPooling2D(2)(inputs))))
    model.set_weights([weights])
    x = np.array([[5, 5, 1, 2], [5, 5, 7, 7], [0, 0, 3, 3], [0, 0, 3, 3]], "float32")[None, ..., None]
    expected = np.zeros((4, 4))
    expected[0, 0], expected[1, 2], expected[2, 0], expected[2, 2] = 1, 2, 4, 8
    found = gradient(model, x, 0)[0, ..., 0]
    np.testing.assert_array_equal(found, expected)
    assert found.sum() == weights.sum()
