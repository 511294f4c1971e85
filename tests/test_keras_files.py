"""Keras models of other tools: whole models in HDF5, and Teachable Machine's export, made by hand."""

import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

import kzoo
from kzoo.errors import KzooError, RunError
from kzoo.keras_files import features_of, in_precision, load_file, to_train
from kzoo.source import find_source


def as_keras_2(config):
    """A config as Keras 2 wrote it: no modules, dtypes by name, groups of depthwise convolutions, batch_input_shape."""
    if isinstance(config, list):
        return [as_keras_2(item) for item in config]
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy":
        return config["config"]["name"]
    if config.get("class_name") == "__keras_tensor__":
        return config
    new = {k: as_keras_2(v) for k, v in config.items() if k not in ("module", "registered_name", "build_config")}
    if new.get("class_name") == "DepthwiseConv2D":
        new["config"]["groups"] = 1
    if new.get("class_name") == "InputLayer":
        new["config"]["batch_input_shape"] = new["config"].pop("batch_shape")
        new["config"].pop("optional", None)
    return new


@pytest.fixture(scope="module")
def teachable(tmp_path_factory):
    """(folder with keras_model.h5 and labels.txt, the model).

    By Teachable Machine's public description: a Sequential of two Sequentials, the first with a functional MobileNet
    and a global average pool, the second with two dense layers, a softmax at the end.
    """
    folder = tmp_path_factory.mktemp("teachable")
    image = keras.Input((16, 16, 3), name="input_1")
    x = layers.ZeroPadding2D(((0, 1), (0, 1)), name="Conv1_pad")(image)
    x = layers.Conv2D(4, 3, strides=2, use_bias=False, name="Conv1")(x)
    x = layers.ReLU(6.0, name="Conv1_relu")(layers.BatchNormalization(name="bn_Conv1")(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="expanded_conv_depthwise")(x)
    inner = keras.Model(image, x, name="model1")
    features = keras.Sequential([inner, layers.GlobalAveragePooling2D(name="pool")], name="sequential_1")
    head = [layers.Dense(5, activation="relu", name="dense_Dense1")]
    head += [layers.Dense(3, activation="softmax", use_bias=False, name="dense_Dense2")]
    model = keras.Sequential([features, keras.Sequential([keras.Input((4,)), *head], name="sequential_3")])
    rng = np.random.default_rng(0)
    for v in model.weights:
        v.assign(rng.uniform(0.5, 1.5, v.shape) if v.name in ("gamma", "moving_variance") else rng.normal(size=v.shape))
    with h5py.File(folder / "keras_model.h5", "w") as f:
        config = {"class_name": "Sequential", "config": as_keras_2(model.get_config())}
        f.attrs["model_config"] = json.dumps(config)
        f.attrs["keras_version"] = "2.4.0"
        group = f.create_group("model_weights")
        group.attrs["layer_names"] = [b"sequential_1", b"sequential_3"]
        for part in model.layers:
            below = group.create_group(part.name)
            weights = {"/".join(v.path.split("/")[-2:]) + ":0": np.asarray(v) for v in part.weights}
            below.attrs["weight_names"] = [name.encode() for name in weights]
            for name, array in weights.items():
                below[name] = array
    (folder / "labels.txt").write_text("0 Cat\n1 My dog\n2 Neither\n")
    return folder, model


def test_what_teachable_machine_exports(teachable, tmp_path):
    folder, model = teachable
    with zipfile.ZipFile(tmp_path / "converted_keras.zip", "w") as z:
        for name in ("keras_model.h5", "labels.txt"):
            z.write(folder / name, name)
    pixels = np.random.default_rng(1).integers(0, 256, (1, 16, 16, 3)).astype("uint8")
    expected = np.asarray(model((pixels / 127.5 - 1).astype("float32")))[0]  # x / 127.5 - 1
    for path in (folder / "keras_model.h5", tmp_path / "converted_keras.zip"):
        loaded = kzoo.load(path)
        assert loaded.classes == ("Cat", "My dog", "Neither")
        row = {a["class"]: a["probability"] for a in loaded.predict(pixels[0])[0]["top"]}
        np.testing.assert_allclose([row[c] for c in loaded.classes], expected, atol=1e-5)
    found = load_file(tmp_path / "converted_keras.zip")
    assert found.notes[0].startswith("It is Teachable Machine's: pixels are scaled to -1..1")
    # What an export takes: a flat model of 0..255 to logits.
    source = find_source(tmp_path / "converted_keras.zip")
    assert source.name == "converted_keras" and source.model.layers[1].name == "preprocessing"


def test_a_model_of_keras_2_without_labels_asks_for_its_pixels(teachable, tmp_path):
    folder, _ = teachable
    (tmp_path / "keras_model.h5").write_bytes((folder / "keras_model.h5").read_bytes())
    with pytest.raises(KzooError, match=r"keras_model\.h5 has no layer that scales pixels"):
        load_file(tmp_path / "keras_model.h5")
    assert load_file(tmp_path / "keras_model.h5", "-1..1").classes is None


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ("0 a\n1 b\n", "has 2 lines, the model has 3 outputs"),
        ("cat\ndog\nfish\n", "lines such as '0 Cats'"),
        ("0 a\n1 a\n2 b\n", "a name twice"),
        ("0 a\n2 b\n1 c\n", "lines such as '0 Cats'"),
    ],
)
def test_labels_that_do_not_fit(teachable, labels, reason, tmp_path):
    (tmp_path / "keras_model.h5").write_bytes((teachable[0] / "keras_model.h5").read_bytes())
    (tmp_path / "labels.txt").write_text(labels)
    with pytest.raises(RunError, match=reason):
        load_file(tmp_path / "keras_model.h5")


def test_what_is_no_model(teachable, tmp_path):
    keras.Sequential([keras.Input((4,)), layers.Dense(2)]).save_weights(tmp_path / "a.weights.h5")
    (tmp_path / "b.h5").write_bytes(b"nothing")
    (tmp_path / "c.zip").write_bytes(b"nothing")
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as z:
        z.writestr("model.tflite", b"")
    with h5py.File(teachable[0] / "keras_model.h5") as f, h5py.File(tmp_path / "e.h5", "w") as g:
        f.copy("model_weights", g)
        config = json.loads(f.attrs["model_config"])
        config["config"]["layers"].append({"class_name": "Lambda", "config": {"name": "l", "function": "x"}})
        g.attrs["model_config"] = json.dumps(config)
    for name, reason in (
        ("a.weights.h5", "it holds weights and no model"),
        ("b.h5", "it is not an HDF5 file"),
        ("c.zip", "not a zip file"),
        ("d.zip", "holds no keras_model.h5 and labels.txt"),
        ("e.h5", "it holds a Lambda, which can run code"),
        ("f.h5", "There is no file"),
    ):
        with pytest.raises(RunError, match=reason):
            load_file(tmp_path / name)


def test_a_model_that_scales_itself_needs_no_word(tmp_path):
    image = keras.Input((8, 8, 3))
    x = layers.Flatten()(layers.Rescaling(1 / 255)(image))
    keras.Model(image, layers.Dense(2)(x)).save(tmp_path / "a.keras")
    (note,) = load_file(tmp_path / "a.keras").notes
    assert note.startswith("It scales pixels itself (rescaling") and note.endswith(": it is given 0..255.")
    (note,) = load_file(tmp_path / "a.keras", "0..1").notes  # as asked, but not in silence: perhaps it is scaled twice
    assert note.startswith("It is given 0..1, as asked, and scales that itself (rescaling")


def small(*more, scales=True):
    scaling = [layers.Rescaling(1 / 255, name="scale")] if scales else []
    return keras.Sequential([keras.Input((8, 8, 1)), *scaling, *more, layers.Flatten(name="flat")], name="small")


@keras.saving.register_keras_serializable(package="of_a_test")
class Own(layers.Layer):
    def call(self, x):
        return x


def own_function(x):
    return x


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: layers.Lambda(lambda x: x, name="l"), r"has a Lambda layer \(l\)"),
        (lambda: Own(name="o"), r"has Own \(o\), which is not Keras' own"),
        (lambda: layers.Conv2D(1, 1, activation=lambda x: x, name="c"), r"has the function <lambda> \(c\)"),
        (lambda: layers.Conv2D(1, 1, activation=own_function, name="c"), r"has the function own_function \(c\)"),
        (lambda: keras.Sequential([keras.Input((8, 8, 1)), Own(name="o")]), r"has Own \(o\)"),  # in a nested model
    ],
    ids=["Lambda", "layer", "lambda", "function", "nested"],
)
def test_a_model_that_needs_code_is_not_trained(layer, reason):
    with pytest.raises(KzooError, match=reason):
        to_train(small(layer()))


def test_other_models_that_are_not_trained(tmp_path):
    image = keras.Input((None, None, 1))
    open_sizes = keras.Model(image, layers.GlobalAveragePooling2D()(layers.Rescaling(1 / 255)(image)), name="any")
    with pytest.raises(RunError, match="any leaves the size of its pictures open: give it, --input-shape"):
        to_train(open_sizes)
    assert to_train(open_sizes, input_shape=(8, 8, 1)).model.input_shape == (None, 8, 8, 1)
    with pytest.raises(RunError, match="takes pictures of 8 x 8 x 1, which input_shape 9 x 9 x 1 can't change"):
        to_train(small(), input_shape=(9, 9, 1))
    with pytest.raises(KzooError, match="small has no layer that scales pixels"):
        to_train(small(scales=False))
    with pytest.raises(KzooError, match="bare has no graph: kzoo needs a functional"):
        to_train(keras.Sequential([layers.Dense(2)], name="bare"))
    two = small()
    with pytest.raises(RunError, match="two has 2 outputs"):
        to_train(keras.Model(two.inputs, [two.outputs[0], two.outputs[0] * 2], name="two"))


def test_in_16_bits_pixels_are_scaled_and_logits_given_in_32():
    found = to_train(small(layers.Conv2D(2, 3, name="conv")))
    half = in_precision(found.model, "bfloat16")
    computes = {layer.name: layer.compute_dtype for layer in half.layers}
    assert computes["scale"] == "float32" and computes["conv"] == "bfloat16"
    assert half.outputs[0].dtype == "float32" and {v.dtype for v in half.weights} == {"float32"}
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 1)).astype("float32")
    np.testing.assert_allclose(half(pixels), found.model(pixels), atol=0.02)


def test_features_stand_in_front_of_the_classifier():
    model = small(layers.Conv2D(2, 3, name="conv"))
    classifier = keras.Model(model.inputs, layers.Dense(3, activation="softmax", name="end")(model.outputs[0]))
    found = features_of(to_train(classifier))
    assert found.notes[-1] == "Its last layer, end with 3 outputs, is left out: a new classifier replaces it."
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 1)).astype("float32")
    np.testing.assert_allclose(found.model(pixels), model(pixels), rtol=1e-5)
    found = features_of(to_train(model))
    assert found.notes[-1] == "Its features are what its last layer, flat, gives." and found.model.output_shape[1] == 72
