"""Gradient rules at ReLUs, beside what they say in NumPy."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from kzoo.errors import KzooError, UnknownName
from kzoo.synthesis.gradient_rules import with_rule
from kzoo.synthesis.objective import differentiable

X = np.array([[-2.0, -0.5, 0.5, 2.0, 7.0, 9.0]], "float32")
UP = np.array([[1.0, -1.0, 1.0, -1.0, 1.0, -1.0]], "float32")  # the gradient that arrives


def through(model, rule, x=X, up=UP):
    """(values, gradient of the input) of a model under a rule, and where it was replaced."""
    copied, replaced = with_rule(model, rule)
    (_, y), gradient = differentiable(copied, lambda y, a: (ops.sum(y * a), y))(x, up)
    return np.asarray(y), np.asarray(gradient), replaced


def unit(activation):
    inputs = keras.Input((6,))
    return keras.Model(inputs, activation(inputs))


KINDS = {  # name -> (activation, f, f')
    "relu": (layers.ReLU(name="r"), lambda x: np.maximum(x, 0), lambda x: x > 0),
    "relu6": (layers.ReLU(6.0, name="r"), lambda x: np.clip(x, 0, 6), lambda x: (x > 0) & (x < 6)),
    "activation": (layers.Activation("relu6", name="r"), lambda x: np.clip(x, 0, 6), lambda x: (x > 0) & (x < 6)),
    "leaky": (layers.LeakyReLU(0.1, name="r"), lambda x: np.where(x > 0, x, x / 10), lambda x: np.where(x > 0, 1, 0.1)),
    "prelu": (
        layers.PReLU(keras.initializers.Constant(0.25), name="r"),
        lambda x: np.where(x > 0, x, x / 4),
        lambda x: np.where(x > 0, 1, 0.25),
    ),
    "operation": (keras.ops.relu, lambda x: np.maximum(x, 0), lambda x: x > 0),
    "function": (keras.activations.relu, lambda x: np.maximum(x, 0), lambda x: x > 0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_relu_follows_the_rule_and_keeps_its_values(kind):
    activation, f, slope = KINDS[kind]
    model = unit(activation)
    for rule, expected in {"guided": slope(X) * np.maximum(UP, 0), "deconvnet": np.maximum(UP, 0)}.items():
        y, gradient, replaced = through(model, rule)
        np.testing.assert_allclose(y, f(X), rtol=1e-6)
        np.testing.assert_allclose(gradient, expected, rtol=1e-6)
        assert len(replaced) == 1


def test_an_activation_inside_a_layer_is_replaced_and_counted():
    """Elsewhere guided backpropagation replaces ReLU layers alone, and is the plain gradient here."""
    inputs = keras.Input((4, 4, 1))
    x = layers.Conv2D(2, 3, activation="relu", name="conv")(inputs)
    x = layers.DepthwiseConv2D(2, activation=layers.LeakyReLU(0.5), name="depthwise")(x)
    x = layers.Dense(1, activation="sigmoid", name="top")(layers.Flatten()(x))
    model = keras.Model(inputs, x)
    picture = np.random.default_rng(0).normal(0, 1, (1, 4, 4, 1)).astype("float32")
    before = [len(o._inbound_nodes) + len(o._outbound_nodes) for o in model.operations], model.get_config()
    found = {rule: through(model, rule, picture, np.ones((1, 1), "float32")) for rule in ("plain", "guided")}
    assert found["guided"][2] == ("conv", "depthwise") and found["plain"][2] == ()
    np.testing.assert_array_equal(found["guided"][0], found["plain"][0])
    assert np.abs(found["guided"][1] - found["plain"][1]).max() > 1e-3
    assert before == ([len(o._inbound_nodes) + len(o._outbound_nodes) for o in model.operations], model.get_config())


def test_a_redirected_relu_lets_a_dead_unit_revive():
    """Lucid's rule, for a loss that is minimised: only where a picture's gradient is stopped everywhere."""
    x = np.array([[-1.0, -1.0, 7.0, 7.0], [-1.0, -1.0, 1.0, 7.0]], "float32")
    up = np.array([[-1.0, 1.0, 1.0, -1.0], [-1.0, 1.0, 1.0, 1.0]], "float32")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.ReLU(6.0)(inputs))
    # Downhill the first unit rises and the third falls, towards the range where ReLU6 has a slope.
    np.testing.assert_array_equal(through(model, "redirected", x, up)[1], [[-1, 0, 1, 0], [0, 0, 1, 0]])
    np.testing.assert_array_equal(through(model, "plain", x, up)[1], [[0, 0, 0, 0], [0, 0, 1, 0]])


def test_what_can_not_be_replaced_is_refused():
    class Block(layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.act = layers.ReLU()

        def call(self, x):
            return self.act(x)

    with pytest.raises(UnknownName, match="Did you mean 'guided'"):
        with_rule(unit(layers.ReLU()), "guide")
    with pytest.raises(KzooError, match="has no ReLU"):
        with_rule(unit(layers.Activation("tanh")), "guided")
    with pytest.raises(KzooError, match=r"block .* is a layer with a ReLU inside"):
        with_rule(unit(Block(name="block")), "guided")
