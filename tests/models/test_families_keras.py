"""Layer by layer against keras.applications, with random weights, at an even and an odd input size."""

import keras
import numpy as np
import pytest
from keras import applications

import kzoo

AS_IS = kzoo.Preprocessing(scale=1.0, offset=0.0)
BOTH = ((64, 64), (75, 67))  # an even and an odd size
deep = pytest.mark.deep("2026-11-26")  # the blocks are those of the shallower networks of the family


def randomise(model, seed=0):
    """Batch norm and biases as if trained; kernels keep their initial values, which let the signal through."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        for v in layer.weights:
            if v.name in ("gamma", "moving_variance"):
                v.assign(rng.uniform(0.5, 1.5, v.shape))
            elif v.name in ("beta", "bias", "moving_mean"):
                v.assign(rng.normal(0, 0.1, v.shape))


def same_names(theirs, ours):
    """Pairs of layers with the same name; MobileNet's classifier is a convolution in keras.applications."""
    rename = {"conv_preds": "predictions"} if "conv_preds" in {l.name for l in theirs.layers} else {}
    names = {l.name for l in ours.layers}
    known = [l for l in theirs.layers if rename.get(l.name, l.name) in names and l.name != "reshape_2"]
    known = [l for l in known if l.name != "predictions" or not rename]
    return [(l, ours.get_layer(rename.get(l.name, l.name))) for l in known]


def same_order(theirs, ours):
    """Pairs of layers that are the n-th of their kind: keras.applications only numbers them."""
    kinds = (keras.layers.Conv2D, keras.layers.BatchNormalization, keras.layers.Concatenate, keras.layers.Dense)
    pairs = []
    for kind in kinds:
        a, b = ([l for l in m.layers if isinstance(l, kind)] for m in (theirs, ours))
        pairs += zip(a, b, strict=True)
    return pairs


def check(ours, theirs, pairs, size):
    """Copy theirs to ours, run both, compare the output of every pair of layers to 1e-4 of its largest value."""
    randomise(theirs)
    copied = set()
    for a, b in pairs:
        variables = {v.name: v for v in b.weights}
        assert [v.name for v in a.weights] == list(variables), (a.name, b.name)
        for v in a.weights:
            variables[v.name].assign(np.reshape(v, variables[v.name].shape))
            copied.add(variables[v.name].path)
    assert copied == {v.path for v in ours.weights}
    assert sum(np.prod(v.shape) for v in theirs.weights) == sum(np.prod(v.shape) for v in ours.weights)

    x = np.random.default_rng(1).uniform(-1, 1, (2, *size, 3)).astype("float32")
    expected = keras.Model(theirs.input, [a.output for a, _ in pairs])(x, training=False)
    actual = keras.Model(ours.input, [b.output for _, b in pairs])(x, training=False)
    errors = {}
    for (a, _), e, y in zip(pairs, expected, actual, strict=True):
        e, y = np.asarray(e), np.asarray(y)
        errors[a.name] = np.abs(y.reshape(e.shape) - e).max() / np.abs(e).max()
    worst = max(errors, key=errors.get)
    assert errors[worst] < 1e-4, (worst, errors[worst])
    return errors[worst]


@pytest.mark.parametrize(
    ("ours", "theirs", "pair", "sizes"),
    [
        ("vgg16", "VGG16", same_names, BOTH),
        pytest.param("vgg19", "VGG19", same_names, BOTH, marks=deep),
        ("resnet50", "ResNet50", same_names, BOTH),
        ("resnet101", "ResNet101", same_names, ((75, 67),)),
        pytest.param("resnet152", "ResNet152", same_names, BOTH, marks=deep),
        ("resnet50_v2", "ResNet50V2", same_names, BOTH),
        pytest.param("resnet101_v2", "ResNet101V2", same_names, BOTH, marks=deep),
        pytest.param("resnet152_v2", "ResNet152V2", same_names, BOTH, marks=deep),
        ("inception_v3", "InceptionV3", same_order, ((96, 96), (107, 89))),
        ("inception_resnet_v2", "InceptionResNetV2", same_order, ((107, 89),)),
        ("mobilenet_v1", "MobileNet", same_names, BOTH),
        ("mobilenet_v2", "MobileNetV2", same_names, BOTH),
        ("nasnet_mobile", "NASNetMobile", same_names, BOTH),
        pytest.param("nasnet_large", "NASNetLarge", same_names, ((75, 67),), marks=deep),
    ],
)
def test_equals_keras_applications(ours, theirs, pair, sizes):
    for size in sizes:
        keras.backend.clear_session()
        a = getattr(applications, theirs)(weights=None, input_shape=(*size, 3), classes=7, classifier_activation=None)
        b = kzoo.build(ours, num_classes=7, input_shape=(*size, 3), preprocessing=AS_IS)
        print(ours, size, check(b, a, pair(a, b), size))
