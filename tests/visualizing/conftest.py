"""What these tests share: two small networks with a known inside, and the network that kzoo ships for CIFAR-10."""

import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from kzoo.visualizing.network import find_network


def filled(model, seed=0):
    """The model with weights and biases from a normal distribution."""
    rng = np.random.default_rng(seed)
    for v in model.weights:
        values = rng.normal(0, 0.3, v.shape)
        v.assign(1 + 0.2 * np.abs(values) if v.name in ("gamma", "moving_variance") else values)
    return model


@pytest.fixture(scope="package")
def pooled():
    """Convolutions, batch norm, ReLUs, max pooling, then global average pooling and a dense layer: 12 x 10 pixels."""
    x = inputs = keras.Input((12, 10, 3), name="image")
    x = layers.Conv2D(5, 3, padding="same", use_bias=False, name="conv1")(x)
    x = layers.ReLU(name="relu1")(layers.BatchNormalization(name="bn1")(x))
    x = layers.MaxPooling2D(2, name="pool1")(x)
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="conv2")(x)
    x = layers.GlobalAveragePooling2D(name="gap")(x)
    x = layers.Dense(3, name="predictions")(layers.Dropout(0.5, name="drop")(x))
    return find_network(filled(keras.Model(inputs, x, name="pooled")), classes=["ant", "bee", "cat"])


@pytest.fixture(scope="package")
def old_runs(tmp_path_factory):
    """The folder with runs of kzoo 0.1.0: "run" is a classifier of 48 digits in "photos"."""
    folder = tmp_path_factory.mktemp("old")
    with zipfile.ZipFile(Path(__file__).parents[1] / "fixtures" / "kzoo-0.1.0.zip") as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="package")
def pictures():
    """Two pictures for `pooled`, whole numbers in 0..255."""
    return np.random.default_rng(1).integers(0, 256, (2, 12, 10, 3)).astype("float32")


@pytest.fixture(scope="package")
def shipped():
    """vgg_cifar10 with its weights, and four pictures for it."""
    network = find_network("vgg_cifar10")
    blocks = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype("float32")
    return network, blocks.repeat(4, 1).repeat(4, 2)


def linear(weights, shape, bias=0.0):
    """A network whose logit of class 0 is the sum of weights (h, w, c) times pixels; class 1 has minus that."""
    inputs = keras.Input(shape)
    dense = layers.Dense(2, name="predictions")
    model = keras.Model(inputs, dense(layers.Flatten()(inputs)), name="linear")
    flat = np.asarray(weights, "float32").reshape(-1)
    dense.set_weights([np.stack([flat, -flat], 1), np.array([bias, -bias], "float32")])
    return find_network(model)
