"""Batch norm by the fused kernel against Keras' own layer; the layers that only old papers have."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import kzoo
from kzoo.layers import BatchNormalization, LogMeanSoftmax

tensorflow_only = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the fused kernel is TensorFlow's")


def pair(shape, *, dtype="float32", seed=0, **options):
    """Our layer and Keras', with the same random variables."""
    ours, theirs = BatchNormalization(dtype=dtype, **options), keras.layers.BatchNormalization(dtype=dtype, **options)
    rng = np.random.default_rng(seed)
    for layer in (ours, theirs):
        layer.build(shape)
    for a, b in zip(ours.weights, theirs.weights, strict=True):
        assert (a.path.split("/")[-1], a.shape, a.dtype) == (b.path.split("/")[-1], b.shape, b.dtype)
        a.assign(rng.uniform(0.5, 2.0, a.shape))
        b.assign(a)
    return ours, theirs


def picture(*shape, seed=1):
    return (np.random.default_rng(seed).normal(size=shape) * 3 + 1).astype("float32")


def gradients(layer, x, training):
    import tensorflow as tf

    weights = tf.constant(picture(*x.shape, seed=2).astype(x.dtype))
    x = tf.constant(x)

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
            loss = tf.reduce_sum(tf.cast(y, weights.dtype) * weights)
        wanted = [x, *(v.value for v in layer.trainable_variables)]
        return y, tape.gradient(loss, wanted)

    y, found = step(x)
    return [np.asarray(tf.cast(t, weights.dtype)) for t in (y, *found)]


def close(a, b, tolerance):
    # At least of 1: what goes in is of that size, and with two pixels the gradient is what its differences leave over.
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(np.abs(b).max(), 1))


@tensorflow_only
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((4, 7, 5, 16), {}),
        ((2, 1, 1, 3), {"momentum": 0.9, "epsilon": 1e-5}),  # n = 2: the two variances differ by a factor of 2
        ((1, 1, 1, 8), {}),
        ((3, 8, 8, 33), {"scale": False}),
        ((3, 8, 8, 4), {"center": False}),
        ((3, 8, 8, 4), {"center": False, "scale": False, "axis": 3}),
    ],
)
def test_equals_keras_layer(shape, options, training):
    ours, theirs = pair(shape, **options)
    x = picture(*shape)
    for a, b in zip(gradients(ours, x, training), gradients(theirs, x, training), strict=True):
        close(a, b, 1e-5)
    for a, b in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@tensorflow_only
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_16_bits_keep_their_statistics_in_float32(precision, training):
    ours, theirs = pair((8, 9, 9, 6), dtype=f"mixed_{precision}")
    x = np.asarray(keras.ops.cast(keras.ops.cast(picture(8, 9, 9, 6), precision), "float32"))
    steps = {"bfloat16": 2.0**-8, "float16": 2.0**-10}[precision]  # a rounding of the output
    for a, b in zip(gradients(ours, x, training), gradients(theirs, x, training), strict=True):
        close(a, b, 2 * steps)
    for a, b in zip(ours.weights, theirs.weights, strict=True):
        assert a.dtype == "float32"
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert keras.backend.standardize_dtype(ours(x).dtype) == precision


@tensorflow_only
@pytest.mark.parametrize("mean", [0, 100, 1000])
def test_is_as_exact_as_keras_layer_at_a_large_mean(mean):
    """Against float64: the variance is what is left of large numbers."""
    shape = (4, 8, 8, 3)
    ours, theirs = pair(shape)
    exact = keras.layers.BatchNormalization(dtype="float64")
    exact.build(shape)
    exact.set_weights(theirs.get_weights())
    x = picture(*shape) + np.float32(mean)
    found = [[*gradients(layer, x, True), *map(np.asarray, layer.weights)] for layer in (ours, theirs)]
    for a, b, c in zip(
        *found, [*gradients(exact, x.astype("float64"), True), *map(np.asarray, exact.weights)], strict=True
    ):
        close(a, c, 1e-6 + 2 * np.abs(b - c).max() / max(np.abs(c).max(), 1))


@tensorflow_only
def test_frozen_layer_infers_and_keeps_its_statistics():
    ours, theirs = pair((4, 5, 5, 3))
    ours.trainable = theirs.trainable = False
    before = [np.asarray(v) for v in ours.weights]
    x = picture(4, 5, 5, 3)
    for a, b in zip(gradients(ours, x, True), gradients(theirs, x, True), strict=True):
        close(a, b, 1e-5)
    for a, b in zip(ours.weights, before, strict=True):
        np.testing.assert_array_equal(a, b)


@tensorflow_only
def test_compiles_with_xla_and_has_second_derivatives():
    import tensorflow as tf

    ours, theirs = pair((4, 5, 5, 3))
    x = tf.constant(picture(4, 5, 5, 3))
    compiled = [tf.function(lambda x, l=l: l(x, training=True), jit_compile=True) for l in (ours, theirs)]
    close(np.asarray(compiled[0](x)), np.asarray(compiled[1](x)), 1e-5)
    for a, b in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)

    def second(layer, training):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = tf.reduce_sum(layer(x, training=training) ** 3)
            g = tf.reduce_sum(inner.gradient(y, x) ** 2)
        return outer.gradient(g, x)

    for training in (True, False):
        close(np.asarray(second(ours, training)), np.asarray(second(theirs, training)), 1e-4)


@pytest.mark.parametrize(
    ("shape", "options"), [((4, 6), {}), ((4, 5, 6), {}), ((4, 3, 5, 6), {"axis": 1}), ((2, 3, 3, 3, 4), {})]
)
def test_other_ranks_and_axes_are_computed_by_keras(shape, options):
    ours, theirs = pair(shape, **options)
    x = picture(*shape)
    np.testing.assert_array_equal(ours(x, training=True), theirs(x, training=True))
    for a, b in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_open_sizes_and_safe_saving(tmp_path):
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, BatchNormalization(momentum=0.8, name="bn")(inputs))
    x = picture(2, 4, 6, 3)
    model(x, training=True)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras", safe_mode=True)
    assert type(again.get_layer("bn")) is BatchNormalization
    np.testing.assert_array_equal(again(x), model(x))


def test_trains_as_a_network_with_keras_layer_does():
    model = kzoo.build("resnet20", depth=8, input_shape=(16, 16, 3), seed=0)

    def kind(l):
        return keras.layers.BatchNormalization if isinstance(l, BatchNormalization) else type(l)

    other = keras.models.clone_model(model, clone_function=lambda l: kind(l).from_config(l.get_config()))
    other.set_weights(model.get_weights())
    assert {type(l) for l in model.layers if "bn" in l.name} == {BatchNormalization}
    x, y = np.random.default_rng(0).uniform(0, 255, (8, 16, 16, 3)).astype("float32"), np.arange(8)
    for m in (model, other):
        m.compile(
            keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False
        )
        m.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
    for a, b in zip(model.weights, other.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4, err_msg=a.path)


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


@pytest.mark.parametrize(
    ("shape", "kernel", "strides"), [((7, 6, 3), 3, 1), ((9, 8, 2), (3, 2), (2, 3)), ((5, 4, 1), (5, 4), 1)]
)
def test_locally_connected_has_a_kernel_for_each_position(shape, kernel, strides, tmp_path):
    from kzoo.layers import LocallyConnected2D

    layer = LocallyConnected2D(4, kernel, strides, activation="tanh", bias_initializer="random_normal", name="local")
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    weights, bias = (np.asarray(v, "float64") for v in layer.weights)
    (kh, kw), (sh, sw), (rows, columns, _) = layer.kernel_size, layer.strides, bias.shape
    want = np.zeros((2, rows, columns, 4))
    for b in range(2):
        for r in range(rows):
            for c in range(columns):
                for f in range(4):
                    total = bias[r, c, f]
                    for i in range(kh):
                        for j in range(kw):
                            for k in range(shape[2]):
                                at = (i * kw + j) * shape[2] + k
                                total += x[b, r * sh + i, c * sw + j, k] * weights[r * columns + c, at, f]
                    want[b, r, c, f] = np.tanh(total)
    assert model.output_shape == layer.compute_output_shape((None, *shape)) == (None, rows, columns, 4)
    np.testing.assert_allclose(model(x), want, rtol=1e-4, atol=1e-5)
    assert kzoo.ledger(model)["local"].multiply_adds == rows * columns * kh * kw * shape[2] * 4 == weights.size
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras", safe_mode=True)
    np.testing.assert_array_equal(again(x), model(x))


def test_locally_connected_starts_with_the_fan_in_of_a_unit():
    from kzoo.layers import LocallyConnected2D

    layer = LocallyConnected2D(8, 3, kernel_initializer="he_normal")
    layer.build((None, 22, 22, 10))
    np.testing.assert_allclose(np.std(layer.kernel), (2 / 90) ** 0.5, rtol=0.01)
    with pytest.raises(ValueError, match="should be defined"):
        LocallyConnected2D(8, 3).build((None, None, 22, 10))
    with pytest.raises(ValueError, match="output size"):
        LocallyConnected2D(8, 3).build((None, 2, 22, 10))


def test_maxout_is_the_largest_of_neighbouring_channels():
    from kzoo.layers import Maxout

    x = np.random.default_rng(0).normal(size=(2, 3, 4, 12)).astype("float32")
    want = np.max([x[..., i::3] for i in range(3)], 0)
    np.testing.assert_array_equal(Maxout(3)(x), want)
    assert Maxout(3).compute_output_shape((None, 3, 4, 12)) == (None, 3, 4, 4)


# --- Models in a fresh process ---------------------------------------------------------------------------


def test_importing_kzoo_is_enough_to_load_a_model(tmp_path):
    """Neither name is used: importing kzoo registers the layers, those of the models, too, when Keras is imported."""
    kzoo.build("resnet20", depth=8, seed=1).save(tmp_path / "a.keras")
    code = (
        "import sys, kzoo; assert 'keras' not in sys.modules and 'kzoo.layers' not in sys.modules; import keras; "
        "print(keras.models.load_model('a.keras').name, sum('RegisterLayers' in str(f) for f in sys.meta_path))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["resnet20", "0"], done.stderr[-400:]


def test_looking_for_keras_does_not_import_it():
    """What asks whether Keras is installed gets the same answer, and the layers are registered all the same."""
    code = (
        "import sys, importlib.util as u, kzoo; print(u.find_spec('keras').name, u.find_spec('nothing_of_the_kind'), "
        "'keras' in sys.modules, sum('RegisterLayers' in str(f) for f in sys.meta_path))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["keras", "None", "False", "1"]


def test_the_average_of_probabilities_is_that_of_numpy():
    from kzoo.metrics import log_mean_softmax

    logits, temperatures = picture(2, 5, 4), (1.0, 2.0)
    layer = LogMeanSoftmax.from_config(LogMeanSoftmax(temperatures).get_config())
    found = keras.ops.convert_to_numpy(layer(list(logits)))
    np.testing.assert_allclose(found, log_mean_softmax(logits, temperatures), rtol=1e-5, atol=1e-6)
    far = np.array([[0, 1e4]], "float32")  # probabilities that float32 does not hold
    found = keras.ops.convert_to_numpy(layer([far, far]))
    np.testing.assert_allclose(found, log_mean_softmax([far, far], temperatures), rtol=1e-6)
