"""The inference form against the model that it comes from; catalog/test_rows.py puts every row through it."""

import keras
import numpy as np
import pytest
from keras import layers
from support.networks import error, logits_of, norms, randomise, small

import kzoo
from kzoo.catalog.rows import wrn
from kzoo.errors import KzooError, UnknownName
from kzoo.graph.inference import MAX_CONSTANT, inference_form, predictor, weights_in_graph
from kzoo.layers import BatchNormalization, GroupedConv2D

tensorflow_only = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="one backend is enough")


def pictures(model, count=2, seed=1):
    return np.random.default_rng(seed).uniform(0, 255, (count, *model.input_shape[1:])).astype("float32")


def test_auxiliary_classifiers_are_left_out():
    model = randomise(kzoo.build("googlenet", num_classes=7, input_shape=(96, 96, 3), seed=0, aux=True))
    x = pictures(model)
    assert inference_form(model).output_shape == (None, 7)
    assert error(predictor(model)(x), logits_of(model, x)) < 1e-5


@pytest.mark.parametrize("name", ["resnet20", "squeezenet1_1", "vgg11_bn"])
def test_features(name):
    model = randomise(kzoo.build(name, num_classes=None, seed=0, **small(name)))
    x = pictures(model)
    assert error(predictor(model)(x), logits_of(model, x)) < 1e-5
    assert keras.backend.standardize_dtype(inference_form(model, "bfloat16").output.dtype) == "float32"


def by_hand(function, shape=(6, 7, 5), **options):
    inputs = keras.Input(shape)
    return randomise(keras.Model(inputs, function(inputs), **options), seed=3)


def conv(**options):
    return layers.Conv2D(4, 3, padding="same", name="conv", **options)


def two_consumers(x):
    y = conv()(x)
    return layers.Add()([y, BatchNormalization()(y)])


def an_output(x):
    y = conv()(x)
    return [y, layers.Add()([BatchNormalization()(y), y])]


def shared_conv(x):
    c = layers.Conv2D(5, 3, padding="same")
    return BatchNormalization(name="b")(c(BatchNormalization(name="a")(c(x))))


def shared_norm(x):
    b = BatchNormalization()
    y = b(layers.Conv2D(5, 1)(x))
    return b(layers.Add()([x, b(layers.Conv2D(5, 3, padding="same")(y))]))


@pytest.mark.parametrize(
    ("function", "left"),
    [
        (lambda x: BatchNormalization()(conv()(x)), 0),
        (lambda x: BatchNormalization()(conv(use_bias=False)(x)), 0),
        (lambda x: BatchNormalization(scale=False)(conv()(x)), 0),
        (lambda x: BatchNormalization(center=False)(conv()(x)), 0),
        (lambda x: layers.BatchNormalization()(conv()(x)), 0),  # Keras' own
        (lambda x: BatchNormalization(name="b")(BatchNormalization(name="a")(conv()(x))), 0),
        (lambda x: BatchNormalization()(layers.Rescaling(0.3, offset=2)(conv()(x))), 0),
        (lambda x: BatchNormalization()(layers.Dense(3)(x)), 0),
        (lambda x: BatchNormalization()(layers.Dense(3)(layers.Flatten()(x))), 0),
        (lambda x: BatchNormalization()(layers.DepthwiseConv2D(3, depth_multiplier=2)(x)), 0),
        (lambda x: BatchNormalization()(layers.SeparableConv2D(6, 3, depth_multiplier=2)(x)), 0),
        (lambda x: BatchNormalization()(GroupedConv2D(10, 3, groups=5)(x)), 0),
        (lambda x: BatchNormalization()(conv(activation="relu")(x)), 1),
        (lambda x: BatchNormalization(axis=1)(conv()(x)), 1),
        (lambda x: BatchNormalization()(layers.Conv2DTranspose(4, 3)(x)), 1),
        (two_consumers, 1),
        (an_output, 0),  # the second output, with its batch norm, is left out
        (shared_conv, 2),
        (shared_norm, 1),
    ],
)
def test_folds_what_nothing_else_sees(function, left):
    model = by_hand(function)
    x = np.random.default_rng(0).normal(size=(3, 6, 7, 5)).astype("float32")
    before = [np.asarray(w) for w in model.weights]
    expected = logits_of(model, x)
    assert norms(inference_form(model)) == left
    np.testing.assert_allclose(predictor(model)(x), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    for v, w in zip(model.weights, before, strict=True):  # the model itself is left alone
        np.testing.assert_array_equal(v, w)


def test_a_layer_used_elsewhere_is_still_folded_here():
    """Calls that do not lead to the model's output don't count."""
    model = by_hand(lambda x: BatchNormalization()(conv()(x)))
    keras.Model(model.input, layers.ReLU()(model.get_layer("conv").output))
    assert norms(inference_form(model)) == 0


@pytest.mark.parametrize(
    ("order", "scale", "offset"),
    [
        ("rgb", 1 / 127.5, -1.0),
        ("bgr", (0.1, 0.2, 0.3), (1.0, -2.0, 3.0)),
        ("bgr", 1.0, (-103.9, -116.8, -123.7)),
    ],
)
@pytest.mark.parametrize("name", ["vgg11", "resnet18"])  # a convolution padded with zeros, and padding of its own
def test_preprocessing_goes_into_the_first_convolution(name, order, scale, offset):
    prep = kzoo.Preprocessing(channel_order=order, scale=scale, offset=offset)
    model = randomise(kzoo.build(name, num_classes=5, input_shape=(40, 40, 3), width=8, preprocessing=prep, seed=0))
    layer = inference_form(model).get_layer("preprocessing")
    assert (layer.channel_order, layer.scale) == ("rgb", 1.0)
    x = pictures(model)
    assert error(predictor(model)(x), logits_of(model, x)) < 1e-5


def test_three_dimensions():
    """Behind the preprocessing, through padding and dropout of whole maps, as in two."""

    def clips(x):
        x = kzoo.layers.Preprocess("bgr", (0.1, 0.2, 0.3), (1.0, -2.0, 3.0), name="preprocessing")(x)
        x = layers.Conv3D(4, 3, strides=2, name="conv")(layers.ZeroPadding3D(1)(x))
        x = layers.SpatialDropout3D(0.5)(layers.ReLU()(BatchNormalization()(x)))
        return layers.Dense(2)(layers.Flatten()(layers.MaxPooling3D(2)(x)))

    model = by_hand(clips, (5, 7, 6, 3))
    form = inference_form(model)
    assert norms(form) == 0 and not [l for l in form.layers if isinstance(l, layers.SpatialDropout3D)]
    layer = form.get_layer("preprocessing")
    assert (layer.channel_order, layer.scale) == ("rgb", 1.0)
    x = pictures(model)
    assert error(predictor(model)(x), logits_of(model, x)) < 1e-5


def test_preprocessing_stays_if_several_layers_use_it():
    def two(x):
        x = kzoo.layers.Preprocess("bgr", 0.5, 1.0, name="preprocessing")(x)
        return layers.Concatenate()([layers.Conv2D(4, 1)(x), x])

    model = by_hand(two, (5, 5, 3))
    assert inference_form(model).get_layer("preprocessing").scale == 0.5
    x = pictures(model)
    np.testing.assert_allclose(predictor(model)(x), logits_of(model, x), rtol=1e-5)


def test_precision_is_that_of_the_model_unless_asked():
    model = kzoo.build("resnet20", depth=8, precision="bfloat16", seed=0)
    form = inference_form(model)
    assert {v.dtype for l in form.layers for v in l.weights if l.name != "predictions"} == {"bfloat16"}
    assert {v.dtype for v in form.get_layer("predictions").weights} == {"float32"}
    assert {v.dtype for v in inference_form(model, "float32").weights} == {"float32"}
    left = inference_form(kzoo.build(wrn(10, 1)), "bfloat16")
    statistics = [v for l in left.layers if isinstance(l, layers.BatchNormalization) for v in l.weights]
    assert {v.dtype for v in statistics} == {"float32"}
    with pytest.raises(UnknownName, match="float32"):
        predictor(model, "float23")


@pytest.mark.parametrize("most", [MAX_CONSTANT, 1000])  # all weights are constants; the larger ones are arguments
def test_takes_any_batch_and_bytes_and_keeps_its_weights(most, monkeypatch):
    monkeypatch.setattr("kzoo.graph.inference.MAX_CONSTANT", most)
    model = randomise(kzoo.build("resnet20", depth=8, seed=0))
    predict = predictor(model)
    x = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype("uint8")
    first = predict(x)
    np.testing.assert_allclose(predict(x.astype("float32")[:1]), first[:1], rtol=1e-4, atol=1e-5)
    assert predict(x[:0]).shape == (0, 10)
    for v in model.get_layer("predictions").weights:
        v.assign_add(np.ones(v.shape))
        if keras.backend.backend() == "tensorflow":  # in place, as optimizers do
            v.value.assign_add(np.ones(v.shape, "float32"))
    np.testing.assert_array_equal(predict(x), first)


@tensorflow_only
def test_large_arrays_are_no_constants_and_fewer_of_a_large_network(monkeypatch):
    import tensorflow as tf

    form = inference_form(kzoo.build("resnet20", depth=8))
    sizes = sorted(4 * int(np.prod(v.shape)) for v in form.weights)

    def variables():  # that the graph reads
        graph = tf.function(lambda: weights_in_graph(form), autograph=False)
        return len(graph.get_concrete_function().captured_inputs)

    assert variables() == 0
    monkeypatch.setattr("kzoo.graph.inference.MAX_CONSTANT_OF_LARGE", sizes[-4] - 1)
    assert variables() == 0
    monkeypatch.setattr("kzoo.graph.inference.LARGE", form.count_params())
    assert variables() == sum(size >= sizes[-4] for size in sizes) > 3


def test_a_batch_with_large_feature_maps_goes_through_in_parts(monkeypatch):
    model = randomise(kzoo.build("resnet20", depth=8, seed=0))
    x = pictures(model, 7)
    whole = predictor(model)(x)
    monkeypatch.setattr("kzoo.graph.inference.MAX_FEATURE_MAP", 3 * 32 * 32 * 16 * 4)  # of three images
    np.testing.assert_allclose(predictor(model)(x), whole, rtol=1e-4, atol=1e-5)


def test_a_model_without_a_graph_is_refused():
    class Free(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(KzooError, match="graph"):
        predictor(Free())


@tensorflow_only
def test_the_graph_holds_constants_and_neither_norms_nor_casts_between_convolutions():
    import tensorflow as tf

    model = randomise(kzoo.build("resnet20", depth=8, seed=0))
    form = inference_form(model, "bfloat16")
    graph = tf.function(lambda x: form(x, training=False)).get_concrete_function(tf.TensorSpec((None, 32, 32, 3)))
    kinds = [op.type for op in graph.graph.get_operations()]
    assert "FusedBatchNormV3" not in kinds
    assert kinds.count("Cast") <= 4  # the input, the first convolution's, the average's
