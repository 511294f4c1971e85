"""An identity gives its photo back; deeper layers know less; what is found is nearer than noise and other photos."""

import keras
import numpy as np
import pytest
from keras import layers
from support.style import picture

from kzoo.data.drawn import painting
from kzoo.errors import KzooError
from kzoo.interrupt import Interrupted
from kzoo.visualizing.inversion import depth_of, depths, invert
from kzoo.visualizing.network import find_network

PHOTO = picture(16, 16, 0)


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Rescaling(1 / 127.5, -1, name="scaled")(image)
    x = layers.Conv2D(8, 3, activation="relu", name="conv1")(x)
    x = layers.Conv2D(8, 3, strides=2, activation="relu", name="conv2")(x)
    x = layers.Conv2D(8, 3, strides=2, activation="relu", name="conv3")(x)
    x = layers.Dense(4, name="fc")(layers.Flatten()(x))
    return find_network(keras.Model(image, layers.Dense(3, name="predictions")(x)))


def test_an_identity_gives_the_photo_back(network):
    found = invert(network, PHOTO, "scaled", tv_weight=0, norm_weight=0, steps=60)
    assert found.errors[-1] < 1e-6 < found.errors[0]
    np.testing.assert_array_equal(found.picture, PHOTO)
    assert found.relative_error < 1e-12


def test_the_error_is_that_of_the_picture_and_less_than_of_noise_and_other_photos(network):
    conv = network.up_to("conv2")
    for seed in (0, 1):
        photo, other = picture(16, 16, seed), picture(16, 16, seed + 5)
        found = invert(network, photo, "conv2", steps=80, seed=seed, tv_weight=0)
        want, have, foreign = (
            np.asarray(conv(p[None].astype("float32")), "float64") for p in (photo, found.picture, other)
        )
        error = np.sum((have - want) ** 2) / np.sum(want**2)
        np.testing.assert_allclose(found.relative_error, error, rtol=1e-4)
        there, here = photo - 127.5, found.picture - 127.5
        np.testing.assert_allclose(found.photo_error, np.sum((here - there) ** 2) / np.sum(there**2), rtol=1e-5)
        assert error < 0.5 * np.sum((foreign - want) ** 2) / np.sum(want**2)
        assert error < 0.5 * found.errors[0], "the search begins with noise"
    vector = invert(network, PHOTO, "fc", steps=20, tv_weight=0)
    assert vector.relative_error < vector.errors[0]


def test_momentum_as_published(network):
    found = invert(network, PHOTO, "conv1", optimizer="momentum", steps=60)
    assert found.errors[-1] < 0.2 * found.errors[0] and found.settings["made"] == 60


def test_ctrl_c_goes_on_bit_for_bit(network, tmp_path):
    options = {"steps": 12}
    whole, asked, state = invert(network, PHOTO, "conv2", **options), [], tmp_path / "a.state"
    with pytest.raises(Interrupted):
        invert(network, PHOTO, "conv2", **options, state=state, interrupted=lambda: asked.append(1) or len(asked) >= 6)
    with pytest.raises(KzooError, match="another picture: photo"):
        invert(network, picture(16, 16, 9), "conv2", **options, state=state)
    resumed = invert(network, PHOTO, "conv2", **options, state=state)
    np.testing.assert_array_equal(resumed.picture, whole.picture)
    assert resumed.errors == whole.errors


def test_depths_are_even(network):
    assert [depth_of(network)[name] for name in ("scaled", "conv1", "conv3", "fc", "predictions")] == [0, 1, 3, 4, 5]
    assert depths(network, 3) == ["conv1", "conv2", "conv3"] and depths(network, 2) == ["conv1", "conv3"]
    image = keras.Input((8, 8, 1), name="image")
    flat = layers.Dense(3, name="hidden")(layers.Flatten()(image))
    assert depths(keras.Model(image, layers.Dense(2, name="out")(flat)), 5) == ["hidden", "out"]


def test_what_can_not_be_had_is_said(network):
    for options, message in (
        ({"layer": "conv9"}, "conv"),
        ({"layer": "conv1", "optimizer": "adam"}, "lbfgs"),
        ({"layer": "conv1", "tv_weight": -1}, "tv_weight"),
        ({"layer": "conv1", "steps": 0}, "steps"),
        ({"layer": "conv1", "image": np.zeros((8, 8, 3), "uint8")}, "shape"),
    ):
        with pytest.raises(KzooError, match=message):
            invert(network, **{"image": PHOTO, **options})


@pytest.mark.deep("2026-11-27")
def test_the_error_grows_with_depth():
    """The mean of four pictures, kzoo's own VGG, three depths."""
    network = find_network("vgg_cifar10")
    photos = [np.asarray(painting(name, side=32), "uint8") for name in ("glass", "strokes")]
    photos += [picture(32, 32, seed) for seed in (0, 1)]
    errors = [
        np.mean([invert(network, p, layer, steps=150).photo_error for p in photos])
        for layer in ("block1_conv1", "block3_conv1", "block5_conv1")
    ]
    assert errors == sorted(errors) and errors[0] < 0.1 < errors[-1], errors
