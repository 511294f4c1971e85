"""What a linear unit likes most is its own weights; values rise; dead units are woken; a search goes on bit for bit."""

import keras
import numpy as np
import pytest
from keras import layers

from kzoo.errors import KzooError
from kzoo.interrupt import Interrupted
from kzoo.synthesis.parameterisations import GREY
from kzoo.visualizing.maximisation import direction, maximise
from kzoo.visualizing.network import find_network


@pytest.fixture(scope="module")
def network():
    """A convolution whose third channel is dead for every picture near grey, and two linear classes of its pixels."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Rescaling(1 / 255)(image)
    x = layers.Conv2D(3, 3, padding="same", activation="relu", name="conv")(x)
    out = layers.Dense(2, name="predictions")(layers.Concatenate()([layers.Flatten()(image), layers.Flatten()(x)]))
    model = keras.Model(image, out)
    kernel, bias = model.get_layer("conv").get_weights()
    bias[2] = -0.8 * np.maximum(kernel[..., 2], 0).sum()  # white where the kernel is positive would pass
    model.get_layer("conv").set_weights([kernel, bias])
    dense = model.get_layer("predictions")
    weights, bias = dense.get_weights()
    weights[16 * 16 * 3 :] = 0  # the classes see the pixels only
    dense.set_weights([weights, bias])
    return find_network(model)


def test_a_linear_unit_ends_at_its_weights(network):
    found = maximise(network, target_class=1, parameterisation="ball", transforms=False, steps=150)
    w = network.model.get_layer("predictions").get_weights()[0][: 16 * 16 * 3, 1]
    x = found.picture.ravel() - GREY
    cosine = x @ w / np.linalg.norm(x) / np.linalg.norm(w)
    assert cosine > 0.999 and found.value > found.start and found.complete
    assert found.values[-1] == max(found.values) and len(found.values) == found.settings["made"] <= 150


def test_the_value_rises_and_is_that_of_the_picture(network):
    found = maximise(network, layer="conv", unit=0, steps=40)
    assert found.picture.shape == (16, 16, 3) and found.picture.dtype == "uint8"
    assert found.values[-1] > found.values[0] and found.value > found.start and found.redirected == 0
    conv = network.up_to("conv")
    np.testing.assert_allclose(found.value, np.mean(conv(found.picture[None].astype("float32"))[..., 0]), rtol=1e-5)
    assert found.settings["transforms"]["jitter"] == 1, "lucid's 8 pixels are for pictures of 128"
    large = maximise(network, layer="conv", unit=0, position="centre", size=(40, 48), steps=3)
    assert large.picture.shape == (40, 48, 3) and large.value > large.start


def test_a_dead_unit_is_woken(network):
    options = {"position": "centre", "transforms": False}
    found = maximise(network, layer="conv", unit=2, steps=60, **options)
    assert found.start == 0 and found.values[0] == 0 and found.redirected > 0 and found.value > 0


def test_ctrl_c_and_the_budget(network, tmp_path):
    options = {"layer": "conv", "unit": np.int64(1), "steps": 8}
    whole, asked, state = maximise(network, **options), [], tmp_path / "unit.state"

    def interrupted():
        asked.append(1)
        return len(asked) >= 5

    with pytest.raises(Interrupted, match=r"unit\.state"):
        maximise(network, **options, interrupted=interrupted, state=state)
    with pytest.raises(KzooError, match="another picture"):
        maximise(network, **{**options, "seed": 1}, state=state)
    resumed = maximise(network, **options, state=state)
    np.testing.assert_array_equal(resumed.picture, whole.picture)
    assert resumed.values == whole.values and not state.exists()
    late = maximise(network, **options, budget=1e-6)
    assert not late.complete and late.settings["made"] < 8


def test_directions():
    assert np.sum(direction((1, 3, 4, 5), 2, None)) == pytest.approx(-1 / 12)
    centre = direction((1, 3, 4, 5), 2, "centre")
    assert centre[0, 1, 2, 2] == -1 and np.abs(centre).sum() == 1
    np.testing.assert_array_equal(direction((1, 3), 1, None), [[0, -1, 0]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "conv", "unit": 3}, "units 0 to 2"),
        ({"layer": "conv", "unit": 0, "position": (16, 0)}, "16 rows"),
        ({"layer": "cnov", "unit": 0}, "conv"),
        ({"layer": "conv"}, "unit of it"),
        ({"layer": "conv", "unit": 0, "target_class": 1}, "or a target_class"),
        ({"target_class": "bird"}, "bird"),
        ({"target_class": 0, "size": 40}, "16x16"),
        ({"target_class": 0, "steps": 0}, "steps"),
        ({"target_class": 0, "parameterisation": "furier"}, "fourier"),
    ],
)
def test_what_can_not_be_had_is_said(network, options, message):
    with pytest.raises(KzooError, match=message):
        maximise(network, **options)
