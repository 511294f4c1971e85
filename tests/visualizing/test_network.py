"""What is looked at: any network as one flat graph to logits."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from visualizing.conftest import filled

import kzoo
from kzoo.errors import DataError, KzooError, UnknownName
from kzoo.visualizing import filters
from kzoo.visualizing.network import find_network


def classifier(ending, *, name="tuned"):
    """A user's fine-tuned model: a nested backbone, and a head that ends in probabilities."""
    inner = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(4, 3, activation="relu", name="c")], name="backbone"
    )
    inputs = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(inner(layers.Rescaling(1 / 255)(inputs)))
    return filled(keras.Model(inputs, ending(x), name=name))


@pytest.mark.parametrize(
    ("ending", "word"),
    [
        (layers.Dense(3, activation="softmax", name="top"), "softmax"),
        (lambda x: layers.Softmax(name="top")(layers.Dense(3)(x)), "softmax"),
        (lambda x: ops.softmax(layers.Dense(3)(x)), "softmax"),
        (lambda x: layers.Activation("sigmoid", name="top")(layers.Dense(3)(x)), "sigmoid"),
        (keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")], name="head"), "softmax"),
    ],
    ids=["dense", "layer", "operation", "activation", "nested"],
)
def test_a_nested_model_that_ends_in_probabilities_is_flattened_to_logits(ending, word):
    model = classifier(ending)
    config, weights = model.get_config(), [np.asarray(w).copy() for w in model.weights]
    network = find_network(model, classes=["a", "b", "c"])
    x = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3)).astype("float32")
    logits = ops.convert_to_numpy(network.model(x))
    found = 1 / (1 + np.exp(-logits)) if word == "sigmoid" else network.probabilities(logits)
    np.testing.assert_allclose(found, model(x), rtol=1e-5)
    assert np.ptp(logits) > 0.1 and (logits < 0).any(), "logits, no probabilities"
    assert any(word in note for note in network.notes) and any("backbone" in note for note in network.notes)
    # A nested and a flat model have the same feature maps; the user's model is what it was.
    expected = model.get_layer("backbone")(x / 255)
    np.testing.assert_allclose(filters.feature_maps(network, x, "c"), expected, rtol=1e-5, atol=1e-6)
    assert model.get_config() == config and all(map(np.array_equal, model.weights, weights))


def test_a_file_a_run_and_a_name_are_found(tmp_path, old_runs):
    model = classifier(layers.Dense(3))
    model.save(tmp_path / "mine.keras")
    network = find_network(tmp_path / "mine.keras")
    assert network.classes == ("0", "1", "2") and network.shape == (8, 8, 3)
    run = find_network(old_runs / "run")
    assert run.classes == kzoo.load_run(old_runs / "run").classes
    assert find_network(old_runs / "run" / "model.keras").classes == run.classes, "a run's model has the run's classes"
    assert find_network("lenet5").weights == "mnist"
    random = find_network("resnet20", weights="random")
    assert random.weights == "random" and random.name == "resnet20"
    assert find_network(random) is random


def test_half_precision_is_looked_into_in_float32():
    model = kzoo.build("resnet20", depth=8, seed=0, precision="bfloat16")
    network = find_network(model)
    assert {layer.compute_dtype for layer in network.model.layers} == {"float32"}
    assert "bfloat16" in network.notes[0]


def test_what_can_not_be_looked_into_is_refused_in_one_line(tmp_path):
    def refused(match, *args, **options):
        with pytest.raises(KzooError, match=match) as e:
            find_network(*args, **options)
        assert "\n" not in str(e.value)

    image, one = keras.Input((8, 8, 3)), keras.Input((4,))
    refused("takes clips of 16 frames", "c3d")
    refused("Did you mean 'lenet5'", "lenet4")
    refused("There is no run", tmp_path / "none")
    (tmp_path / "bad.keras").write_bytes(b"no zip")
    refused("can't be read as a Keras model", tmp_path / "bad.keras")
    refused("There is no file", tmp_path / "none.keras")
    refused("still images", keras.Model(one, layers.Dense(2)(one)))
    clips = keras.Input((4, 8, 8, 3))
    refused("still images", keras.Model(clips, layers.Dense(2)(layers.Flatten()(clips))))
    refused("has 2 inputs", keras.Model([image, one], layers.Concatenate()([layers.Flatten()(image), one])))
    refused("a number for each class", keras.Model(image, layers.Reshape((8, 24))(image)))
    refused("3 class names were given", classifier(layers.Dense(2)), classes=["a", "b", "c"])
    anysize = keras.Input((None, None, 3))
    open_model = keras.Model(anysize, layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(anysize)))
    refused("pass input_shape", open_model)
    assert find_network(open_model, input_shape=(16, 12, 3)).shape == (16, 12, 3)


def test_classes_layers_and_pictures_that_do_not_exist(pooled, tmp_path):
    assert [pooled.class_number(t) for t in ("bee", 1, "1")] == [1, 1, 1]
    with pytest.raises(UnknownName, match="Did you mean 'cat'"):
        pooled.class_number("cats")
    with pytest.raises(KzooError, match="classes 0 to 2; got 3"):
        pooled.class_number(3)
    with pytest.raises(UnknownName, match="Did you mean 'conv1'"):
        pooled.up_to("conv11")
    (tmp_path / "no.jpg").write_text("text")
    for photo, match in ((tmp_path / "no.jpg", "no.jpg can't be used"), (tmp_path / "gone.png", "gone.png")):
        with pytest.raises(DataError, match=match):
            pooled.prepare(photo)
    with pytest.raises(DataError, match=r"takes pictures of the shape \(12, 10, 3\)"):
        pooled.batch(np.zeros((2, 12, 10, 1)))
