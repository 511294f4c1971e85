"""A name to a Keras model: arguments, seeds, preprocessing, a user's own rows."""

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
        ({"name": "vgg16", "input_shape": (16, 16, 3)}, "shrinks to nothing"),
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
