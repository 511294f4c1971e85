"""A flat copy computes the same, has weights of its own, and leaves the model as it was."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from kzoo.errors import KzooError
from kzoo.graph.flat import flat_copy, nested_models


def nested():
    """A user's fine-tuned model: a backbone within a model within a model; two layers are called "a"."""
    inner = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3, name="a")], name="inner")
    x = inputs = keras.Input((8, 8, 3))
    middle = keras.Model(inputs, layers.ReLU(name="relu")(inner(x)), name="middle")
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Flatten(name="flat")(middle(x, training=False) * 2.0)
    return keras.Model(inputs, layers.Dense(3, name="a")(x), name="outer")


def state(model):
    """Everything of a model that a copy could have touched."""
    models = [model, *(layer for layer in model.layers if isinstance(layer, keras.Model))]
    operations = [operation for each in models for operation in each.operations]
    return (
        [(o.name, len(o._inbound_nodes), len(o._outbound_nodes)) for o in operations],
        [np.asarray(v).copy() for v in model.weights],
        [v.trainable for v in model.weights],
        str(model.get_config()),
    )


def assert_unchanged(before, model):
    for a, b in zip(before, state(model), strict=True):
        if isinstance(a, list) and a and isinstance(a[0], np.ndarray):
            for x, y in zip(a, b, strict=True):
                np.testing.assert_array_equal(x, y)
        else:
            assert a == b


def test_nested_models_become_one_flat_graph():
    model = nested()
    before = state(model)
    copied = flat_copy(model)
    assert nested_models(model) == ["middle", "inner"] and nested_models(copied) == []
    assert [layer.name for layer in copied.layers if layer.weights] == ["inner_a", "a"]
    x = np.random.default_rng(0).normal(0, 1, (2, 8, 8, 3)).astype("float32")
    np.testing.assert_array_equal(copied(x), model(x))
    assert keras.Model(copied.inputs[0], copied.get_layer("relu").output)(x).shape == (
        2,
        6,
        6,
        4,
    )  # no graph disconnected
    copied.weights[0].assign(0 * copied.weights[0])
    assert_unchanged(before, model)


def test_what_has_no_graph_is_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(KzooError, match="has no graph"):
        flat_copy(Own())


def test_operations_and_shared_layers_are_copied_once():
    inputs = keras.Input((4,))
    twice = layers.Dense(4, name="twice")
    model = keras.Model(inputs, ops.relu(twice(twice(inputs)) + inputs))
    copied = flat_copy(model)
    x = np.random.default_rng(0).normal(0, 1, (3, 4)).astype("float32")
    np.testing.assert_array_equal(copied(x), model(x))
    assert len(copied.weights) == 2
