"""Every row of the catalog through one contract, on the backend that KERAS_BACKEND names."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import kzoo
from kzoo.builder import computing_in

JAX = keras.backend.backend() == "jax"
# Small inputs, so that fifty networks take minutes: the least that each network's own pools and strides allow.
SIDES = {"alexnet": 67, "inception_v3": 75, "inception_v4": 75, "inception_resnet_v1": 75, "inception_resnet_v2": 75}
# Deeper or wider rows of a family: test_zoo_table.py builds and counts them; KZOO_DEEP=1 puts them through this, too.
DEEP = {
    "vgg11_bn",
    "vgg13_bn",
    "vgg16_bn",
    "vgg19_bn",
    "vgg13",
    "vgg19",
    "plain34",
    "resnet34",
    "resnet101",
    "resnet152",
    "resnet101_v1_5",
    "resnet152_v1_5",
    "resnet101_v2",
    "resnet152_v2",
    "resnet56",
    "resnet110",
    "resnet44",
    "plain56",
    "wrn_28_10",
    "wrn_40_4",
    "inception_resnet_v2",
    "nasnet_large",
}
ROWS = [name for name in kzoo.list_models() if os.environ.get("KZOO_DEEP") or name not in DEEP]
if JAX and not os.environ.get("KZOO_DEEP"):  # one for each architecture: XLA compiles for seconds to a minute
    ROWS = list({kzoo.spec(name).architecture: name for name in reversed(ROWS)}.values())


def shape(name):
    published = kzoo.spec(name).input_shape
    side = SIDES.get(name, min(64, published[0]))
    return (side, side, published[2])


def images(name, n=2):
    return np.random.default_rng(0).integers(0, 256, (n, *shape(name))).astype("uint8")


@pytest.fixture(autouse=True)
def forget():
    yield
    keras.utils.clear_session(free_memory=False)
    gc.collect()


@pytest.mark.parametrize("name", ROWS)
def test_logits_are_float32_and_finite_and_tell_images_apart(name):
    model = kzoo.build(name, input_shape=shape(name), num_classes=7, seed=0)
    if JAX:  # compiled whole: operation by operation XLA takes several times longer
        import jax

        values = [[v.value for v in vs] for vs in (model.trainable_variables, model.non_trainable_variables)]
        logits = np.asarray(jax.jit(lambda t, n, x: model.stateless_call(t, n, x)[0])(*values, images(name)))
    else:
        logits = model(images(name)).numpy()
    assert model.input_shape == (None, *shape(name)) and logits.shape == (2, 7) and logits.dtype == np.float32
    assert np.isfinite(logits).all()
    assert not np.array_equal(logits[0], logits[1])
    assert model.get_layer("predictions") is not None
    assert not any(isinstance(layer, keras.Model) for layer in model.layers), "a flat graph"
    names = [v.path for v in model.weights]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ROWS)
def test_every_trainable_variable_has_a_finite_gradient(name):
    model = kzoo.build(name, input_shape=shape(name), num_classes=7, seed=0)
    x, y = images(name), np.eye(7, dtype="float32")[[1, 4]]
    loss_of = keras.losses.CategoricalCrossentropy(from_logits=True)
    if JAX:
        import jax

        fixed = [v.value for v in model.non_trainable_variables]

        def loss(t):
            return loss_of(y, model.stateless_call(t, fixed, x, training=True)[0])

        trainable = [v.value for v in model.trainable_variables]
        if sum(v.size for v in trainable) > 1e6:  # XLA compiles for minutes: shapes and types only
            shapes = jax.eval_shape(jax.grad(loss), trainable)
            assert [s.shape for s in shapes] == [v.shape for v in trainable]
            return
        gradients = jax.grad(loss)(trainable)
    else:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    assert len(gradients) == len(model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert gradient is not None, variable.path
        assert np.isfinite(np.asarray(gradient)).all(), variable.path


@pytest.mark.parametrize("name", ROWS)
def test_save_and_load_give_the_same_bits(name, tmp_path):
    if JAX:
        pytest.skip("files do not depend on the backend; they are written and read on TensorFlow")
    model = kzoo.build(name, input_shape=shape(name), num_classes=3, seed=0)
    path = tmp_path / "model.keras"
    model.save(path)
    again = keras.saving.load_model(path, safe_mode=True)
    x = images(name, 1)
    for a, b in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    np.testing.assert_array_equal(model(x), again(x))


@pytest.mark.parametrize("name", ROWS)
def test_bfloat16_gives_float32_logits_near_those_of_float32(name):
    if JAX:
        pytest.skip("the same layers; JAX would compile each operation a second time")
    full = kzoo.build(name, input_shape=shape(name), num_classes=7, seed=0)
    half = kzoo.build(name, input_shape=shape(name), num_classes=7, seed=0, precision="bfloat16")
    assert keras.config.dtype_policy().name == "float32", "the global policy is put back"
    half.set_weights(full.get_weights())
    a, b = np.asarray(full(images(name))), np.asarray(half(images(name)))
    assert b.dtype == np.float32
    # 8 bits, some dozens of layers: a tenth of the spread of the logits, not of each of them.
    assert np.abs(a - b).max() <= 0.1 * max(np.abs(a).max(), 1e-3)


@pytest.mark.parametrize("name", ["mnist_cnn", "vgg11", "resnet20", "googlenet", "mobilenet_v2", "squeezenet1_1"])
def test_without_classes_it_stops_at_the_features(name):
    model = kzoo.build(name, input_shape=shape(name), num_classes=None)
    assert "predictions" not in [layer.name for layer in model.layers]
    assert len(model.output_shape) == 2


def test_features_of_vgg_and_alexnet_are_fc7():
    with computing_in("float32"):
        assert kzoo.build("alexnet", input_shape=(67, 67, 3), num_classes=None).output_shape == (None, 4096)
        assert kzoo.build("vgg11", input_shape=(32, 32, 3), num_classes=None).output_shape == (None, 4096)


def test_the_whole_catalog_on_jax():
    if JAX:
        pytest.skip("this is JAX")
    pytest.importorskip("jax")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", __file__],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-3000:]


# --- build ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet5"}, "Did you mean 'resnet"),
        ({"name": "vgg16", "width_": 8}, "Did you mean 'width'?"),
        ({"name": "vgg16", "input_shape": (16, 16, 3)}, "a feature map inside it would be empty"),
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
    x = images("mnist_cnn")
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
        from kzoo.catalog.registry import ROWS

        del ROWS[row.name]


# --- what the shared layers compute ---


def test_local_response_normalization_is_the_papers_formula():
    from kzoo.layers import LocalResponseNormalization

    x = np.random.default_rng(0).normal(0, 20, (2, 3, 4, 9)).astype("float32")
    want = np.empty_like(x)
    for i in range(9):
        total = (x[..., max(0, i - 2) : i + 3] ** 2).sum(-1)
        want[..., i] = x[..., i] / (2 + 1e-4 * total) ** 0.75
    np.testing.assert_allclose(LocalResponseNormalization()(x), want, rtol=1e-5)


def test_grouped_convolution_is_one_convolution_for_each_tower():
    from kzoo.layers import GroupedConv2D

    x = np.random.default_rng(0).normal(size=(1, 6, 6, 4)).astype("float32")
    layer = GroupedConv2D(6, 3, groups=2, padding="same", bias_initializer="ones")
    y = np.asarray(layer(x))
    kernel = np.asarray(layer.kernel)
    assert kernel.shape == (3, 3, 2, 6)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for r, c, f in ((0, 0, 0), (3, 2, 2), (5, 5, 3), (2, 4, 5)):
        group = f // 3
        window = padded[0, r : r + 3, c : c + 3, 2 * group : 2 * group + 2]
        np.testing.assert_allclose(y[0, r, c, f], (window * kernel[..., f]).sum() + 1, rtol=1e-4)


def test_lenet_has_the_papers_count_in_every_layer():
    model = kzoo.build("lenet5")
    counts = {layer.name: sum(int(np.prod(v.shape)) for v in layer.trainable_weights) for layer in model.layers}
    assert {k: n for k, n in counts.items() if n} == {
        "C1": 156,
        "S2": 12,
        "C3": 1_516,
        "S4": 32,
        "C5": 48_120,
        "F6": 10_164,
    }


def test_lenets_rbf_is_minus_the_squared_distance():
    from kzoo.models.lenet import RBF

    x = np.random.default_rng(0).normal(size=(3, 84)).astype("float32")
    layer = RBF(10)
    y = np.asarray(layer(x))
    codes = np.asarray(layer.codes)
    assert set(np.unique(codes)) == {-1.0, 1.0}
    np.testing.assert_allclose(y, -((x[:, None] - codes[None]) ** 2).sum(-1), rtol=1e-4)
