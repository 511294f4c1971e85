"""A name to a Keras model: arguments, seeds, preprocessing, a user's own rows."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import kzoo
from kzoo.builder import computing_in
from kzoo.catalog import registry


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet5"}, "Did you mean 'resnet"),
        ({"name": "vgg16", "width_": 8}, "Did you mean 'width'?"),
        ({"name": "vgg16", "input_shape": (16, 16, 3)}, "would be empty"),
        ({"name": "vgg16", "input_shape": (16, 16)}, "must be (height, width, channels)"),
        ({"name": "vgg16", "num_classes": 0}, "num_classes must be a positive integer"),
        ({"name": "mnist_cnn", "precision": "int3"}, "Unknown precision 'int3'"),
    ],
)
def test_wrong_arguments_of_build_are_named(arguments, message):
    with pytest.raises(kzoo.KzooError) as e:
        kzoo.build(**arguments)
    assert message in str(e.value) and "\n" not in str(e.value)


def test_the_same_seed_gives_the_same_weights_and_another_does_not():
    a, b, c = (kzoo.build("mnist_mlp", seed=s).get_layer("fc1").get_weights()[0] for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_a_model_takes_uint8_and_float32_alike():
    model = kzoo.build("mnist_cnn", seed=0)
    x = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 1)).astype("uint8")
    np.testing.assert_array_equal(model(x), model(x.astype("float32")))


def test_bgr_and_means_sit_inside_the_model():
    model = kzoo.build("vgg11", input_shape=(32, 32, 3), num_classes=2)
    x = np.zeros((1, 32, 32, 3), "uint8")
    x[..., 0] = 255  # red
    out = np.asarray(model.get_layer("preprocessing")(x))[0, 0, 0]
    np.testing.assert_allclose(out, [-103.939, -116.779, 255 - 123.68], rtol=1e-6)


def test_a_users_own_model_registers_and_builds():
    row = kzoo.ModelSpec(
        "tiny_vgg_of_a_test",
        "kzoo.models.vgg:vgg",
        (16, 16, 3),
        4,
        kzoo.Paper("Test", "Me", 2026),
        config={"blocks": (1, 1), "width": 4, "units": 8},
    )
    kzoo.register(row)
    try:
        assert kzoo.build("tiny_vgg_of_a_test").output_shape == (None, 4)
        with pytest.raises(kzoo.KzooError, match="registered already"):
            kzoo.register(row)
    finally:
        del registry.ROWS[row.name]


def test_features_of_vgg_and_alexnet_are_fc7():
    with computing_in("float32"):
        assert kzoo.build("alexnet", input_shape=(67, 67, 3), num_classes=None).output_shape == (None, 4096)
        assert kzoo.build("vgg11", input_shape=(32, 32, 3), num_classes=None).output_shape == (None, 4096)


# --- Keras' global settings ------------------------------------------------------------------------------

SETTINGS = {
    "image_data_format": (keras.config.image_data_format, keras.config.set_image_data_format),
    "floatx": (keras.config.floatx, keras.config.set_floatx),
    "dtype_policy": (keras.config.dtype_policy, keras.config.set_dtype_policy),
}


@pytest.fixture
def settings():
    """A function that changes global settings of Keras until the test ends."""
    before = {name: get() for name, (get, _) in SETTINGS.items()}

    def change(**values):
        for name, value in values.items():
            SETTINGS[name][1](value)

    yield change
    change(**before)


FAMILIES = {
    "mnist_cnn": {"filters": (2, 3), "units": 4},
    "lenet5": {},
    "vgg_cifar10": {},
    "resnet20": {"depth": 8},
    "resnet18": {"width": 8, "input_shape": (33, 33, 3)},
    "resnet50_v2": {"width": 4, "blocks": (1, 1), "input_shape": (33, 33, 3)},
    "allcnn_c": {},
    "wrn_28_10": {"depth": 10, "k": 1},
    "mobilenet_v1": {"alpha": 0.25, "input_shape": (33, 33, 3)},
    "squeezenet1_1": {"input_shape": (67, 67, 3)},
    "googlenet": {"aux": False, "input_shape": (64, 64, 3)},
    "alexnet": {"num_classes": 2, "input_shape": (67, 67, 3)},
}
HOSTILE = (
    {"image_data_format": "channels_first", "floatx": "float16", "dtype_policy": "mixed_bfloat16"},
    {"floatx": "float64", "dtype_policy": "float64"},
)


def variables(model):
    return [(v.path, tuple(v.shape), v.dtype) for v in model.weights]


@pytest.mark.parametrize("name", FAMILIES)
def test_global_settings_change_neither_what_is_built_nor_what_it_computes(name, settings):
    options = {"seed": 1, **FAMILIES[name]}
    model = kzoo.build(name, **options)
    x = np.random.default_rng(0).integers(0, 256, (2, *model.input_shape[1:])).astype("uint8")
    expected = np.asarray(model(x, training=False))
    for hostile in HOSTILE:
        settings(**hostile)
        other = kzoo.build(name, **options)
        assert [(v.path, v.shape, v.dtype) for v in other.weights] == [
            (v.path, v.shape, v.dtype) for v in model.weights
        ]
        y = other(x, training=False)
        assert keras.backend.standardize_dtype(y.dtype) == "float32"
        np.testing.assert_array_equal(y, expected)
        assert {k: str(getattr(get(), "name", get())) for k, (get, _) in SETTINGS.items() if k in hostile} == hostile


def test_copies_loading_and_the_ledger_do_not_depend_on_global_settings(settings, tmp_path):
    from kzoo.graph.inference import inference_form
    from kzoo.runs import read_model, save_model

    model = kzoo.build("resnet20", depth=8, seed=1)
    x = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    expected, totals = np.asarray(inference_form(model)(x)), kzoo.ledger("resnet20", depth=8).totals
    settings(**HOSTILE[0])
    np.testing.assert_array_equal(inference_form(model)(x), expected)
    assert kzoo.ledger("resnet20", depth=8).totals == totals
    assert kzoo.ledger(model, input_shape=(32, 32, 3)).totals == totals
    save_model(model, tmp_path / "model.keras")
    again = read_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(x, training=False), model(x, training=False))


def test_training_does_not_depend_on_global_settings(settings, tmp_path):
    def weights(name):
        run = kzoo.train("mnist_softmax", "digits", epochs=1, out=tmp_path / name, precision="float32", quiet=True)
        return run.model.get_weights(), (tmp_path / name / "history.csv").read_text().splitlines()[0]

    expected = weights("a")
    settings(**HOSTILE[0])
    found = weights("b")
    assert found[1] == expected[1]
    for a, b in zip(found[0], expected[0], strict=True):
        np.testing.assert_array_equal(a, b)


def test_two_threads_do_not_lose_the_users_settings(settings):
    settings(image_data_format="channels_first")
    first, second = computing_in(), computing_in("bfloat16")
    with first:
        second.__enter__()
    assert keras.config.image_data_format() == "channels_last"  # one is still building
    second.__exit__(None, None, None)
    assert keras.config.image_data_format() == "channels_first"


def test_a_keras_json_changes_nothing(tmp_path):
    (tmp_path / "keras.json").write_text(
        '{"image_data_format": "channels_first", "floatx": "float64", "backend": "tensorflow", "epsilon": 1e-7}'
    )
    code = (
        "import keras, kzoo; m = kzoo.build('mobilenet_v2', input_shape=(64, 64, 3), num_classes=10); "
        "print(keras.config.image_data_format(), m.count_params(), {v.dtype for v in m.weights})"
    )
    environment = {**os.environ, "KERAS_HOME": str(tmp_path), "KERAS_BACKEND": keras.backend.backend()}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "channels_first 2270794 {'float32'}"
