"""Layer by layer against keras.applications, with random weights that come as a file in its published layout.

Pictures are even in one direction and odd in the other, so that both kinds of padding are seen.
"""

import re

import h5py
import keras
import numpy as np
import pytest
from keras import applications

import kzoo
from kzoo.weights import load

AS_IS = kzoo.Preprocessing(scale=1.0, offset=0.0)
deep = pytest.mark.deep("2026-11-27")  # the blocks are those of the shallower networks of the family


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


def publish(model, path, rename=lambda name: name):
    """The file as Keras 2 wrote it. rename: what the published file calls a layer."""
    with h5py.File(path, "w") as f:
        f.attrs["layer_names"] = [rename(layer.name).encode() for layer in model.layers]
        f.attrs["backend"], f.attrs["keras_version"] = b"tensorflow", b"2.1.6"
        for layer in model.layers:
            group, name = f.create_group(rename(layer.name)), rename(layer.name)
            variables = {}
            for v in layer.weights:
                depthwise = isinstance(layer, keras.layers.DepthwiseConv2D) and v.name == "kernel"
                # As TensorFlow 1 named them: a scope of its own, and the number of the output.
                variables[f"{name}_1/{'depthwise_kernel' if depthwise else v.name}:0"] = v
            group.attrs["weight_names"] = [n.encode() for n in variables]
            for n, v in variables.items():
                group[n] = np.asarray(v)


def from_one(name):
    """conv2d -> conv2d_1, conv2d_1 -> conv2d_2, ...: how the published Inception files count."""
    match = re.fullmatch(r"(conv2d|batch_normalization)(?:_(\d+))?", name)
    return f"{match[1]}_{int(match[2] or 0) + 1}" if match else name


def worst_difference(ours, theirs, pairs, size):
    """The largest difference of any layer's output, as a share of its largest value."""
    assert {v.path for v in ours.weights} == {v.path for _, b in pairs for v in b.weights}
    assert sum(np.prod(v.shape) for v in theirs.weights) == sum(np.prod(v.shape) for v in ours.weights)
    x = np.random.default_rng(1).uniform(-1, 1, (2, *size, 3)).astype("float32")
    expected = keras.Model(theirs.input, [a.output for a, _ in pairs])(x, training=False)
    actual = keras.Model(ours.input, [b.output for _, b in pairs])(x, training=False)
    errors = {}
    for (a, _), e, y in zip(pairs, expected, actual, strict=True):
        e, y = np.asarray(e), np.asarray(y)
        errors[a.name] = np.abs(y.reshape(e.shape) - e).max() / np.abs(e).max()
    worst = max(errors, key=errors.get)
    return errors[worst], worst


@pytest.mark.parametrize(
    ("ours", "theirs", "pair", "size", "options", "rename"),
    [
        ("vgg16", "VGG16", same_names, (32, 35), {}, None),
        pytest.param("vgg19", "VGG19", same_names, (32, 35), {}, None, marks=deep),
        ("resnet50", "ResNet50", same_names, (64, 67), {}, lambda n: "probs" if n == "predictions" else n),
        pytest.param("resnet101", "ResNet101", same_names, (75, 66), {}, None, marks=deep),
        pytest.param("resnet152", "ResNet152", same_names, (64, 67), {}, None, marks=deep),
        pytest.param(  # test_parity.py holds it against PyTorch
            "resnet50_v2",
            "ResNet50V2",
            same_names,
            (75, 66),
            {},
            lambda n: "probs" if n == "predictions" else n,
            marks=deep,
        ),
        pytest.param("resnet101_v2", "ResNet101V2", same_names, (64, 67), {}, None, marks=deep),
        pytest.param("resnet152_v2", "ResNet152V2", same_names, (64, 67), {}, None, marks=deep),
        ("inception_v3", "InceptionV3", same_order, (96, 89), {}, from_one),
        pytest.param("inception_resnet_v2", "InceptionResNetV2", same_order, (96, 89), {}, from_one, marks=deep),
        ("mobilenet_v1", "MobileNet", same_names, (64, 67), {"alpha": 0.25}, None),
        pytest.param("mobilenet_v1", "MobileNet", same_names, (75, 66), {}, None, marks=deep),
        ("mobilenet_v2", "MobileNetV2", same_names, (64, 67), {}, lambda n: "Logits" if n == "predictions" else n),
        pytest.param("mobilenet_v2", "MobileNetV2", same_names, (75, 66), {"alpha": 0.35}, None, marks=deep),
        pytest.param("nasnet_mobile", "NASNetMobile", same_names, (64, 67), {}, None, marks=deep),
        pytest.param("nasnet_large", "NASNetLarge", same_names, (75, 66), {}, None, marks=deep),
    ],
)
def test_equals_keras_applications(ours, theirs, pair, size, options, rename, tmp_path):
    a = getattr(applications, theirs)(
        weights=None, input_shape=(*size, 3), classes=7, classifier_activation=None, **options
    )
    randomise(a)
    publish(a, tmp_path / "a.h5", rename or (lambda name: name))
    b = kzoo.build(ours, num_classes=7, input_shape=(*size, 3), preprocessing=AS_IS, **options)
    load(b, tmp_path / "a.h5")  # strictly; the map is found without being named
    error, layer = worst_difference(b, a, pair(a, b), size)
    assert error < 1e-4, layer

    # The map by its name, and a file that has a classifier for a network that has none.
    values = {v.path: v.numpy() for v in b.weights if not v.path.startswith("predictions")}
    features = keras.Model(b.input, b.get_layer("predictions").input, name=b.name)
    for v in features.weights:
        v.assign(np.zeros(v.shape))
    load(features, kzoo.Weights("test", str(tmp_path / "a.h5"), names=kzoo.spec(ours).weights[0].names))
    assert values.keys() == {v.path for v in features.weights}
    assert all(np.array_equal(v.numpy(), values[v.path]) for v in features.weights)
