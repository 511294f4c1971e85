"""Training on JAX: images that fill up a batch count nowhere; one device and two agree. test_jax.py runs it."""

import importlib.util

import keras
import numpy as np
import pytest
from support.processes import ROOT

from kzoo.catalog import Preprocessing
from kzoo.data.dataset import Split
from kzoo.data.feed import feed
from kzoo.distribution import Together
from kzoo.tasks import find
from kzoo.training.fitting import training_model
from kzoo.training.recipes import Recipe

if keras.backend.backend() != "jax":
    pytest.skip("runs on JAX", allow_module_level=True)

spec = importlib.util.spec_from_file_location("devices", ROOT / "scripts/devices.py")
devices = importlib.util.module_from_spec(spec)
spec.loader.exec_module(devices)


def network(norm=True, outputs=3):
    x = inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(4, 3, strides=2)(x)
    x = keras.layers.BatchNormalization()(x) if norm else x
    x = keras.layers.GlobalAveragePooling2D()(keras.ops.relu(x / 255))
    return keras.Model(inputs, keras.layers.Dense(outputs)(x))


def test_two_devices_agree_with_one():
    """In a batch that one image fills up; scripts/devices.py measures more, and two processes."""
    one, two = (devices.measured(network, Together(n), images=5, batch=6, steps=5) for n in (1, 2))
    assert len(one["losses"]) == 5 and np.abs(one["gradients"]).max() > 1e-3
    for what, most in (("loss", 1e-6), ("gradients", 1e-5), ("losses", 1e-3), ("weights", 1e-3)):
        np.testing.assert_allclose(two[what], one[what], rtol=0, atol=most, err_msg=what)


@pytest.mark.parametrize("several", [False, True])
def test_images_that_fill_up_a_batch_count_nowhere(several):
    """The loss, which may be one number for a batch, metrics and the step are those of the images alone."""
    task = find("classification")
    rng = np.random.default_rng(0)
    x, labels = rng.integers(0, 256, (5, 6, 6, 2)).astype("uint8"), np.array([0, 1, 2, 2, 0])
    y = task.targets(labels, "abc")
    keras.utils.set_random_seed(0)
    made = network(norm=False)
    if several:
        made = keras.Model(made.inputs[0], [made.output, -made.output])
    first = [np.array(v) for v in made.weights]
    recipe = Recipe("", "", "sgd", 1.0, 0.0, batch_size=4, label_smoothing=0.1)
    model = training_model(made, task, recipe, steps=2, seed=0)
    split = Split(x, labels, list("abcde"), prepared=True)
    data = feed(split, (6, 6, 2), Preprocessing(), 4, targets=lambda labels: task.targets(labels, "abc"))

    entropy = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)

    def loss_of(rows):
        z = made(x[rows].astype("float32"))
        z = z if several else [z]
        return sum(float(entropy(y[rows], part)) for part in z), np.asarray(z[0]).argmax(-1) == labels[rows]

    want, right = loss_of(slice(0, 5))
    found = model.evaluate(data, return_dict=True, verbose=0)
    np.testing.assert_allclose(found["loss"], want, rtol=1e-5)
    assert found["accuracy"] == pytest.approx(right.mean())

    last = model.train_on_batch(*data[1], return_dict=True)  # one image and three that fill up
    for v, value in zip(made.weights, first, strict=True):
        v.assign(value)
    np.testing.assert_allclose(last["loss"], loss_of(slice(4, 5))[0], rtol=1e-5)
