"""The objective rises on each octave, tiles change nothing, Ctrl-C goes on bit for bit."""

import keras
import numpy as np
import pytest
from keras import layers
from support.style import picture

from kzoo.errors import KzooError
from kzoo.interrupt import Interrupted
from kzoo.visualizing.dream import Rolled, dream, dream_objective
from kzoo.visualizing.features import compiled_features
from kzoo.visualizing.network import find_network

PHOTO = picture(66, 84, 0)


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 3), name="image")
    x = layers.Rescaling(1 / 127.5, -1)(image)
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="conv1")(x)
    x = layers.MaxPooling2D(2, name="pool")(x)
    x = layers.Conv2D(5, 3, padding="same", activation="relu", name="conv2")(x)
    return find_network(keras.Model(image, layers.Dense(3, name="dense")(layers.Flatten()(x))))


@pytest.mark.parametrize("unit", [None, 1])
def test_the_objective_rises_on_each_octave(network, unit):
    found = dream(network, PHOTO, layer="conv2", unit=unit, octaves=3, steps=6)
    assert found.picture.shape == PHOTO.shape and found.complete
    assert [row["size"] for row in found.octaves] == [[34, 43], [47, 60], [66, 84]]
    assert all(row["end"] > row["start"] for row in found.octaves)
    features = np.asarray(compiled_features(network, "conv2", any_size=True).features(found.picture[None])["conv2"])
    value = np.mean(features**2) if unit is None else np.mean(features[..., unit])
    np.testing.assert_allclose(found.octaves[-1]["end"], value, rtol=0.02)  # of the picture before it was rounded
    few = dream(network, PHOTO, layer="conv2", unit=unit, size=48, octaves=9, steps=1)
    assert len(few.octaves) == 1 and few.picture.shape == (38, 48, 3), "no octave is smaller than 32 pixels"


@pytest.mark.parametrize("unit", [None, 1])
def test_tiles_give_the_gradient_of_the_whole(network, unit):
    x = PHOTO[None].astype("float32")
    found = []
    towards = None if unit is None else np.arange(5.0)
    for tile in (None, 16):
        compiled = compiled_features(network, "conv2", any_size=True, tile=tile)
        assert (len(compiled.windows(PHOTO.shape[:2])) > 4) == (tile is not None)
        found.append(dream_objective(compiled, x.shape, towards)(x))
    (whole, _, gradient), (tiled, _, other) = found
    np.testing.assert_allclose(tiled, whole, rtol=1e-5)
    assert np.abs(other - gradient).max() < 1e-4 * np.abs(gradient).max() > 0


def test_a_roll_is_undone():
    x = np.random.default_rng(0).normal(size=(1, 5, 6, 3))
    slope = np.arange(x.size, dtype="float64").reshape(x.shape)
    rolled = Rolled(lambda y: (float(np.sum(slope * y)), {}, slope), 3, lambda: np.random.default_rng(4))
    loss, _, gradient = rolled(x)
    assert gradient.shape == x.shape and (gradient != slope).any()
    np.testing.assert_allclose(loss, np.sum(gradient * x))


def test_ctrl_c_goes_on_bit_for_bit(network, tmp_path):
    options = {"layer": "conv2", "octaves": 2, "steps": 4}
    whole, asked, state = dream(network, PHOTO, **options), [], tmp_path / "a.state"
    with pytest.raises(Interrupted):
        dream(network, PHOTO, **options, state=state, interrupted=lambda: asked.append(1) or len(asked) >= 6)
    resumed = dream(network, PHOTO, **options, state=state)
    np.testing.assert_array_equal(resumed.picture, whole.picture)
    assert resumed.octaves == whole.octaves and not state.exists()
    assert not dream(network, PHOTO, **options, budget=1e-6).complete


def test_a_class_rises():
    """Behind global average pooling a logit is a mean over positions, at any size."""
    image = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    model = keras.Model(image, layers.Dense(3, name="predictions")(layers.GlobalAveragePooling2D()(x)))
    model.get_layer("predictions").bias.assign([0, 0, 50])
    found = dream(model, PHOTO, target_class=2, octaves=2, steps=5)
    start, end = found.octaves[-1]["start"], found.octaves[-1]["end"]
    features = keras.Model(model.input, x)
    weights, bias = model.get_layer("predictions").get_weights()
    of_size = keras.Sequential([keras.Input((66, 84, 3)), layers.Conv2D(4, 3, activation="relu")])
    of_size.set_weights(features.get_weights())
    logit = np.mean(of_size(found.picture[None].astype("float32")), (0, 1, 2)) @ weights[:, 2] + bias[2]
    np.testing.assert_allclose(end, logit, rtol=0.02)
    assert end > start and found.settings["class"] == "2"


def test_branches_that_do_not_meet_at_a_size_are_said():
    image = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(2, 3, padding="same", name="conv")(image)
    x = layers.Concatenate(name="joined")([layers.UpSampling2D()(layers.MaxPooling2D()(x)), x])
    model = keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    with pytest.raises(KzooError, match=r"take pictures of 51x47 pixels up to joined.*earlier layers"):
        dream(model, picture(47, 51, 0), layer="joined", octaves=1, steps=1)
    assert dream(model, picture(46, 50, 0), layer="joined", octaves=1, steps=1).complete


def test_what_can_not_be_had_is_said(network):
    for options, message in (
        ({"layer": "conv8"}, "conv"),
        ({"layer": "conv2", "target_class": 1}, "or a target_class"),
        ({"layer": None, "target_class": 1}, "maximise the class"),
        ({"layer": "dense"}, "not a feature map"),
        ({"layer": "conv2", "unit": 5}, "units 0 to 4"),
        ({"layer": "conv2", "octaves": 0}, "octaves"),
        ({"layer": "conv2", "octave_scale": 1.0}, "octave_scale"),
        ({"layer": "conv2", "jitter": -1}, "jitter"),
        ({"layer": "conv2", "rate": float("nan")}, "rate"),
        ({"layer": "conv2", "budget": 0}, "budget"),
        ({"layer": "conv2", "size": 20}, "at least 32"),
        ({"layer": "conv2", "image": "no.png"}, "no.png"),
    ):
        with pytest.raises(KzooError, match=message):
            dream(network, **{"image": PHOTO, **options})
