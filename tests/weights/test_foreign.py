"""Files that other programs wrote: prefixes, checkpoints, classifiers, nested backbones, and misfits."""

import itertools
import logging
import pickle
import re
import zipfile
from functools import cache
from types import SimpleNamespace

import h5py
import keras
import numpy as np
import pytest

import kzoo
from kzoo.catalog.fingerprints import FINGERPRINTS, VARIANTS
from kzoo.catalog.pretrained import TORCH_INPUT
from kzoo.errors import WeightsError
from kzoo.weights import assign, load, read, resolve, worker
from kzoo.weights.explain import fingerprint
from kzoo.weights.maps import MAPS, place, recognise, rename
from kzoo.weights.read import format_of, pickled_class

# --- Files with torch's names, made without torch ----------------------------------------------------------

# What stands for each piece of a map's patterns.
PIECES = {
    r"fc|last_linear": ("fc",),
    r"last_linear|fc": ("last_linear",),
    r"(conv|bn)": ("conv", "bn"),
    r"(\d{1,6})": tuple("0123456"),
    r"(\d)": tuple("01234"),
    r"classif|last_linear|fc": ("classif",),
    r"(fc[12])": ("fc1", "fc2"),
    "()": ("",),
    r"(\w\w)": ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"),
    r"(expand[13]x[13])": ("expand1x1", "expand3x3"),
    r"aux\d\..+": (),
    r"AuxLogits\..+": (),
}


def layers_of(names):
    """The layers that a map knows: {foreign name: our name}."""
    found = {}
    for pattern, target, *_ in MAPS[names].rows:
        parts = re.split("|".join(re.escape(p) for p in PIECES), pattern)
        pieces = re.findall("|".join(re.escape(p) for p in PIECES), pattern)
        for chosen in itertools.product(*(PIECES[p] for p in pieces)):
            layer = "".join(itertools.chain(*itertools.zip_longest(parts, chosen, fillvalue=""))).replace("\\", "")
            if target is not None:
                found[layer] = place(layer, MAPS[names].rows, {})[0]
    return found


def as_torch(model, names):
    """The variables of a model under torch's names and in torch's order of axes."""
    theirs = {}
    for foreign, ours in layers_of(names).items():
        theirs.setdefault(ours, foreign)  # a map of two sources: the first one's
    meanings = {"kernel": "weight", "gamma": "weight", "beta": "bias", "moving_mean": "running_mean"}
    arrays = {}
    for v in model.weights:
        layer, _, variable = v.path.partition("/")
        a = np.asarray(v)
        if layer == "fc1":  # behind a flatten of 7 x 7, which torch does channels first
            a = a.reshape(7, 7, -1, a.shape[-1]).transpose(2, 0, 1, 3).reshape(a.shape) if a.ndim == 2 else a
        if variable == "kernel":
            a = a.swapaxes(2, 3) if "depthwise" in layer or "_dw_" in layer else a  # a group for each channel
            a = a.transpose(3, 2, 0, 1) if a.ndim == 4 else a.T
            a = a[:, :, None, None] if theirs[layer] == "head.fc" else a  # a 1x1 convolution
        variable = {**meanings, "moving_variance": "running_var"}.get(variable, variable)
        arrays[f"{theirs[layer]}.{variable}"] = a
    return arrays


TORCH_ROWS = {
    **{f"vgg{d}{bn}": f"torch_vgg{d}{bn}" for d in (11, 13, 16, 19) for bn in ("", "_bn")},
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet50_v1_5", "resnet152_v1_5"), "torch_resnet"),
    "googlenet_bn": "torch_googlenet",
    "inception_v3": "torch_inception_v3",
    "inception_v4": "timm_inception_v4",
    "inception_resnet_v2": "timm_inception_resnet_v2",
    "squeezenet1_0": "torch_squeezenet1_0",
    "squeezenet1_1": "torch_squeezenet1_1",
    "mobilenet_v1": "timm_mobilenet_v1",
    "mobilenet_v2": "torch_mobilenet_v2",
    **dict.fromkeys(("resnet50_v2", "resnet101_v2", "resnet152_v2"), "timm_resnet_v2"),
}
# What the original networks take: timm 1.0.31's own `mean` and `std`; the others torchvision's.
HALF = {"timm_inception_v4", "timm_inception_resnet_v2", "timm_mobilenet_v1", "timm_resnet_v2"}
TORCH_MOBILENET = {"symmetric": True, "epsilon": 1e-5, "momentum": 0.9}
TORCH_OPTIONS = {
    "torch_inception_v3": {"count_padding": True, "gamma": True},
    "timm_inception_resnet_v2": {"gamma": True},
    "timm_mobilenet_v1": TORCH_MOBILENET,
    "torch_mobilenet_v2": TORCH_MOBILENET,
    "timm_mobilenet_v2": TORCH_MOBILENET,
    "timm_resnet_v2": {"stride_in": "first", "bias": False, "pool_zeros": False, "epsilon": 1e-5},
}


@pytest.mark.parametrize(("name", "names"), [*TORCH_ROWS.items(), ("mobilenet_v2", "timm_mobilenet_v2")])
def test_what_fits_a_map_brings_its_preprocessing(name, names, tmp_path):
    """The hash of a file that was saved again is unknown; its names are those of a library, which prepares so."""
    np.savez(tmp_path / "a.npz", **{f"module.{layer}.weight": np.ones(1) for layer in layers_of(names)})
    found = resolve(name, tmp_path / "a.npz")
    assert found.names == names and found.preprocessing == MAPS[names].preprocessing
    # y = x * scale + offset of pixels in 0..255
    scale, offset = (1 / 127.5, -1.0) if names in HALF else (TORCH_INPUT.scale, TORCH_INPUT.offset)
    np.testing.assert_allclose(found.preprocessing.scale, scale)
    np.testing.assert_allclose(found.preprocessing.offset, offset)
    assert dict(found.config) == TORCH_OPTIONS.get(names, {})
    own = kzoo.Preprocessing(scale=2.0)
    assert resolve(name, kzoo.Weights("mine", str(tmp_path / "a.npz"), preprocessing=own)).preprocessing == own


SMALL = {
    "vgg16": {"width": 2, "units": 4},
    "resnet18": {"width": 4, "input_shape": (33, 33, 3)},
    "resnet50_v1_5": {"width": 4, "blocks": (1, 1, 1, 1), "input_shape": (33, 33, 3)},
    "squeezenet1_1": {"input_shape": (67, 67, 3)},
    "googlenet_bn": {"input_shape": (64, 64, 3)},
    "mobilenet_v1": {"alpha": 0.1, "input_shape": (33, 33, 3)},
    "mobilenet_v2": {"alpha": 0.1, "input_shape": (33, 33, 3)},
    "resnet50_v2": {"width": 4, "blocks": (1, 1, 1, 1), "input_shape": (33, 33, 3)},
}


@pytest.mark.parametrize("name", SMALL)
def test_a_torch_file_builds_a_model_with_torchs_preprocessing(name, tmp_path, caplog):
    options = TORCH_OPTIONS.get(TORCH_ROWS[name], {})
    model = kzoo.build(name, num_classes=5, seed=1, **SMALL[name], **options)
    np.savez(tmp_path / "a.npz", **as_torch(model, TORCH_ROWS[name]))
    again = kzoo.build(name, num_classes=5, weights=tmp_path / "a.npz", **SMALL[name])
    for a, b in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.path)
    layer = again.get_layer("preprocessing")
    # (255 * x - mean) / deviation, by torchvision's documentation
    x = np.full((1, 1, 1, 3), 51, "uint8")
    expected = (51 / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    mean = "[0.485, 0.456, 0.406]"
    if TORCH_ROWS[name] in HALF:
        expected, mean = np.full(3, (51 / 255 - 0.5) / 0.5), "0.5"
    np.testing.assert_allclose(np.asarray(layer(x)).ravel(), expected, rtol=1e-5)
    assert f"so pictures are prepared as its networks take them: RGB in 0..1, minus {mean}" in caplog.text
    assert ("transform_input=True" in caplog.text) == (name == "googlenet_bn")
    assert ("timm's resnetblur18" in caplog.text) == (TORCH_ROWS[name] == "torch_resnet")
    if options:  # as published the network is another one, which computes something else: nothing is loaded into it
        other = kzoo.build(name, num_classes=5, **SMALL[name])
        before = other.get_weights()
        with pytest.raises(WeightsError, match="does not fit"):
            load(other, tmp_path / "a.npz")
        assert all(np.array_equal(a, b) for a, b in zip(before, other.get_weights(), strict=True))


def test_the_mobilenets_of_torchvision_and_timm_are_named_alike_here():
    ours = {v.path.partition("/")[0] for v in kzoo.build("mobilenet_v2", alpha=0.1, input_shape=(33, 33, 3)).weights}
    for names in ("torch_mobilenet_v2", "timm_mobilenet_v2"):
        assert set(layers_of(names).values()) == ours


def test_timms_vgg_is_torchvisions_with_convolutions_for_dense_layers():
    """Of 7x7 and 1x1, which torch orders (units, C, H, W) and a dense layer behind a flatten (H * W * C, units)."""
    kernel = np.arange(2 * 3 * 7 * 7, dtype="float32").reshape(2, 3, 7, 7)
    arrays = {
        "pre_logits.fc1.weight": kernel,
        "pre_logits.fc2.weight": np.float32([[[[1]], [[2]]], [[[3]], [[4]]]]),
        "head.fc.weight": np.float32([[5, 6]]),
    }
    found = rename(arrays, "torch_vgg16").arrays
    assert found["fc1/kernel"].shape == (147, 2)
    for unit, channel, y, x in ((0, 0, 0, 0), (1, 2, 6, 3), (0, 1, 2, 5)):
        assert found["fc1/kernel"][(y * 7 + x) * 3 + channel, unit] == kernel[unit, channel, y, x]
    np.testing.assert_array_equal(found["fc2/kernel"], [[1, 3], [2, 4]])
    np.testing.assert_array_equal(found["predictions/kernel"], [[5], [6]])
    other = rename({"classifier.0.weight": kernel.reshape(2, -1)}, "torch_vgg16").arrays["fc1/kernel"]
    np.testing.assert_array_equal(found["fc1/kernel"], other)


def test_a_depthwise_kernel():
    """torch: (C, 1, H, W), a group for each channel; here: (H, W, C, 1)."""
    kernel = np.arange(2 * 3 * 3, dtype="float32").reshape(2, 1, 3, 3)
    found = rename({"blocks.0.0.conv_dw.weight": kernel}, "timm_mobilenet_v1").arrays["conv_dw_1/kernel"]
    assert found.shape == (3, 3, 2, 1)
    np.testing.assert_array_equal(found[1, 2, :, 0], kernel[:, 0, 1, 2])


def test_a_max_pool_without_zeros():
    """torch pads by -inf on all sides: windows of rows -1..1, 1..3, 3..5 of five or six rows."""
    from kzoo.models.resnet import pool

    for size in (5, 6):
        x = -np.arange(1, size * size + 1, dtype="float32").reshape(1, size, size, 1)
        given = keras.Input((size, size, 1))
        edged = np.pad(x[0, :, :, 0], 1, constant_values=-np.inf)
        rows = [[edged[i : i + 3, j : j + 3].max() for j in range(0, size, 2)] for i in range(0, size, 2)]
        found = keras.Model(given, pool(given, zeros=False))(x)[0, :, :, 0]
        np.testing.assert_array_equal(found, rows)
        zeros = keras.Model(given, pool(given))(x)[0, :, :, 0]
        np.testing.assert_array_equal(zeros, np.where(np.isfinite(np.array(rows)), zeros, 0))
        assert zeros[0, 0] == 0 and found[0, 0] == -1


# --- Keras Hub -------------------------------------------------------------------------------------------

# The first convolutions and batch norms in the order of the models of keras-hub 0.32.0, by its own `layers`.
HUB_ORDER = {
    "keras_hub_resnet18": (
        "conv1_conv stack0_block0_1_conv stack0_block0_2_conv stack0_block1_1_conv stack0_block1_2_conv "
        "stack1_block0_1_conv stack1_block0_0_conv stack1_block0_2_conv stack1_block1_1_conv",
        "conv1_bn stack0_block0_1_bn stack0_block0_2_bn stack0_block1_1_bn stack0_block1_2_bn stack1_block0_1_bn "
        "stack1_block0_0_bn stack1_block0_2_bn",
    ),
    "keras_hub_resnet50": (
        "conv1_conv stack0_block0_1_conv stack0_block0_2_conv stack0_block0_0_conv stack0_block0_3_conv "
        "stack0_block1_1_conv stack0_block1_2_conv stack0_block1_3_conv",
        "conv1_bn stack0_block0_1_bn stack0_block0_2_bn stack0_block0_0_bn stack0_block0_3_bn stack0_block1_1_bn",
    ),
    "keras_hub_resnet50_v2": (
        "conv1_conv stack0_block0_1_conv stack0_block0_2_conv stack0_block0_0_conv stack0_block0_3_conv "
        "stack0_block1_1_conv stack0_block1_2_conv stack0_block1_3_conv",
        "stack0_block0_pre_activation_bn stack0_block0_1_bn stack0_block0_2_bn stack0_block1_pre_activation_bn "
        "stack0_block1_1_bn",
    ),
}


@pytest.mark.parametrize("names", HUB_ORDER)
def test_the_order_of_keras_hubs_layers(names):
    """By its own model.layers."""
    named = MAPS["keras_hub_resnet_v2" if names.endswith("v2") else "keras_hub_resnet"].rows
    for i, order in enumerate(HUB_ORDER[names]):
        ours = [place(layer, named, {})[0] for layer in order.split()]
        assert list(MAPS[names].rows[i][1][: len(ours)]) == ours
    convolutions, norms = HUB_COUNTS[names]
    assert len(set(MAPS[names].rows[0][1])) == convolutions and len(set(MAPS[names].rows[1][1])) == norms


HUB_COUNTS = {"keras_hub_resnet18": (20, 20), "keras_hub_resnet50": (53, 53), "keras_hub_resnet50_v2": (53, 49)}


def hub_place(layer, three):
    """(stage, block, place in the block) of a layer of ours, by which Keras Hub's are sorted, and its name there."""
    match = re.fullmatch(r"conv(\d)_block(\d)_(preact|\d)_(conv|bn)", layer)
    if not match:
        return (0 if layer.startswith("conv1") else 9,), layer
    place = {"preact": 0, "0": 2.5 if three else 1.5}.get(match[3])  # the shortcut: in front of the last convolution
    part = "pre_activation" if match[3] == "preact" else match[3]
    name = f"stack{int(match[1]) - 2}_block{int(match[2]) - 1}_{part}_{match[4]}"
    return (int(match[1]), int(match[2]), float(match[3]) if place is None else place), name


def as_hub(path, model, *, named, task=True):
    """Write a model's variables as Keras Hub and Keras 3 do; named: as Keras 3.6 and later, with the layers' names."""
    layers = [layer for layer in model.layers if layer.weights]
    three = any(layer.name.endswith("_3_conv") for layer in layers)
    layers.sort(key=lambda layer: hub_place(layer.name, three)[0])
    counts = {"Conv2D": [], "BatchNormalization": [], "Dense": []}
    snakes = {"Conv2D": "conv2d", "BatchNormalization": "batch_normalization", "Dense": "dense"}
    with h5py.File(path, "w") as f:
        f.require_group("optimizer/vars")["0"] = np.int64(3)
        whole = f.require_group("vars")
        if named:
            whole.attrs["name"] = "res_net_image_classifier" if task else "res_net_backbone"
        for layer in layers:
            kind = type(layer).__name__
            n = len(counts[kind])
            counts[kind].append(layer)
            inside = "layers/res_net_backbone/layers" if task and kind != "Dense" else "layers"
            group = f.require_group(f"{inside}/{snakes[kind]}{f'_{n}' if n else ''}/vars")
            if named:
                group.attrs["name"] = hub_place(layer.name, three)[1]
            for i, v in enumerate(layer.weights):
                group[str(i)] = np.asarray(v)


@pytest.mark.parametrize(
    ("row", "named", "task", "options"),
    [
        ("resnet18", True, True, {}),
        ("resnet18", False, False, {}),
        ("resnet50_v2", True, False, {"blocks": (2, 1, 1, 1)}),
        ("resnet50_v2", False, True, {}),
    ],
)
def test_a_resnet_of_keras_hub(row, named, task, options, tmp_path, caplog):
    """Files without names are told apart by the number of layers, hence the whole networks."""
    options = {"width": 2, "num_classes": 5 if task else None, "input_shape": (33, 33, 3), **options}
    config = TORCH_OPTIONS["timm_resnet_v2"] if row.endswith("v2") else {}
    model = kzoo.build(row, seed=1, **options, **config)
    for v in model.weights:  # no two alike, so that every layer's place shows
        v.assign(np.random.default_rng(len(v.path)).normal(size=v.shape))
    as_hub(tmp_path / "a.weights.h5", model, named=named, task=task)
    again = kzoo.build(row, weights=tmp_path / "a.weights.h5", **options)
    same(model, again)
    mean = "0.5" if config else "[0.485, 0.456, 0.406]"
    assert f"so pictures are prepared as its networks take them: RGB in 0..1, minus {mean}" in caplog.text


def test_a_file_that_does_not_say_whose_layers_it_numbers(monkeypatch):
    """Keras Hub's ResNet v2 is not the published one, and has other options: which of the two it is must be said."""
    options = {"num_classes": None, "width": 1, "input_shape": (33, 33, 3)}
    published = kzoo.build("resnet50_v2", **options, **TORCH_OPTIONS["timm_resnet_v2"])
    model = kzoo.build("resnet50_v2", **options)
    monkeypatch.setitem(VARIANTS, "resnet50_v2", fingerprint((v.path, v.shape) for v in published.weights))
    arrays = {}
    for pattern, order in MAPS["keras_hub_resnet50_v2"].rows:
        for n, layer in enumerate(order):
            key = pattern.partition("(")[0] + (f"_{n}" if n else "")
            for i, v in enumerate(published.get_layer(layer).weights):
                arrays[f"layers/{key}/{i}"] = np.broadcast_to(np.float32(0), v.shape)
    line = first_line_of(model, arrays)
    assert "Its layers are only numbered; they fit resnet50_v2 if they are those of keras_hub_resnet50_v2" in line
    assert "weights=kzoo.Weights('mine', path, names='keras_hub_resnet50_v2')" in line


def test_a_vgg_of_keras_hub(tmp_path):
    """Its layers are called as those of Keras' own VGG, whose preprocessing is another: the model's name tells."""
    model = kzoo.build("vgg11", width=2, units=4, num_classes=5, seed=1)
    for whole, convolutions, expected in (
        ("vgg_image_classifier", True, TORCH_INPUT),
        ("vgg_image_classifier", False, TORCH_INPUT),
        ("vgg11", False, None),
    ):
        path = tmp_path / f"{whole}{convolutions}.weights.h5"
        with h5py.File(path, "w") as f:
            f.require_group("vars").attrs["name"] = whole
            for n, layer in enumerate(layer for layer in model.layers if layer.weights):
                dense = isinstance(layer, keras.layers.Dense)
                inside = "layers/sequential/layers" if dense else "layers/vgg_backbone/layers" if expected else "layers"
                group = f.require_group(f"{inside}/some_{n}/vars")
                group.attrs["name"] = layer.name
                kernel, bias = (np.asarray(v) for v in layer.weights)
                if convolutions and layer.name in ("fc1", "fc2"):
                    side = 7 if layer.name == "fc1" else 1
                    kernel = kernel.reshape(side, side, -1, kernel.shape[1])
                group["0"], group["1"] = kernel, bias
        found = resolve("vgg11", path)
        assert found.preprocessing == expected and found.names == ("keras_hub_vgg" if expected else None)
        if convolutions:
            same(model, kzoo.build("vgg11", weights=path, width=2, units=4, num_classes=5))


def test_an_average_pool_that_counts_the_padding():
    """torch divides by 9 everywhere, Keras by the pixels that there are: 4 at a corner of ones, 6 at an edge."""
    from kzoo.models.inception_v3 import average_pool

    x = np.ones((1, 3, 4, 1), "float32")
    given = keras.Input((3, 4, 1))
    counted, left_out = (
        np.asarray(keras.Model(given, average_pool(given, name="p", count_padding=c))(x))[0, :, :, 0]
        for c in (True, False)
    )
    edge, corner = 6 / 9, 4 / 9
    rows = [[corner, edge, edge, corner], [edge, 1, 1, edge], [corner, edge, edge, corner]]
    np.testing.assert_allclose(counted, rows, rtol=1e-6)
    np.testing.assert_allclose(left_out, np.ones((3, 4)), rtol=1e-6)


# --- Prefixes, buffers, types ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet():
    """A narrow resnet18 and its arrays under torch's names."""
    model = built(7, seed=3)
    return model, as_torch(model, "torch_resnet")


def built(num_classes, **options):
    options = {"width": 4, "blocks": (1, 1, 1, 1), "input_shape": (33, 33, 3), **options}
    return kzoo.build("resnet18", num_classes=num_classes, **options)


@cache
def kept(num_classes):
    return built(num_classes)


def fresh(num_classes=7):
    """The network of `resnet`, all its variables 9; built once."""
    model = kept(num_classes)
    for v in model.weights:
        v.assign(np.full(v.shape, 9, "float32"))
    return model


def same(a, b, but=()):
    for v, w in zip(a.weights, b.weights, strict=True):
        if not v.path.startswith(but or "nothing"):
            np.testing.assert_array_equal(v, w, err_msg=v.path)


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "model.",
        "_orig_mod.",
        "module._orig_mod.",
        "module.module.",
        "backbone.",
        "encoder_q.",
        "resnet.",
        "a/b/",
    ],
)
def test_a_common_prefix_is_taken_off_and_said(resnet, prefix):
    model, arrays = resnet
    other = fresh()
    counters = {"n_averaged": np.int64(3), f"{prefix}bn1.num_batches_tracked": np.int64(3)}
    report = assign(other, {**{prefix + k: v for k, v in arrays.items()}, **counters})
    same(model, other)
    assert any(f"begin with '{prefix}', which was taken off" in note for note in report.notes)
    assert set(report.left_out) == {"n_averaged", "bn1.num_batches_tracked"}


def test_a_classifier_beside_the_prefix(resnet):
    model, arrays = resnet
    other = fresh()
    report = assign(other, {k if k.startswith("fc.") else f"backbone.{k}": v for k, v in arrays.items()})
    same(model, other)
    assert not report.new


def test_buffers_are_left_out_and_named_if_they_can_be_of_no_layer(resnet):
    model, arrays = resnet
    other = fresh()
    report = assign(other, {**arrays, "normalize.mean": np.zeros(3, "float32"), "mean": np.zeros(3, "float32")})
    same(model, other)
    assert "Left out, of no layer of resnet18: normalize.mean, mean." in report.notes
    for name in ("layer1.0.scale", "layer1.scale", "criterion.weight", "scale"):
        with pytest.raises(WeightsError, match=rf"unexpected: {name}"):
            assign(fresh(), {**arrays, name: np.zeros(3, "float32")})


def test_float64_is_rounded_and_said(resnet):
    model, arrays = resnet
    other = fresh()
    report = assign(other, {k: v.astype("float64") for k, v in arrays.items()})
    same(model, other)
    assert f"{len(arrays)} arrays of the file are float64; they were rounded to float32." in report.notes
    with pytest.raises(WeightsError, match="not finite: conv1_bn/beta holds 4 NaN or infinite"):
        assign(fresh(), {**arrays, "bn1.bias": np.full(4, 1e300)})


# --- Classifiers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["head.fc", "fc.1", "classifier.1", "dense", "linear", "last_linear", "module.head"])
def test_a_classifier_of_another_name(resnet, name):
    model, arrays = resnet
    renamed = {k.replace("fc.", f"{name}.", 1) if k.startswith("fc.") else k: v for k, v in arrays.items()}
    other = fresh()
    report = assign(other, renamed)
    same(model, other)
    assert name == "last_linear" or f"The classifier of the file is its layer {name}." in report.notes
    for num_classes in (3, None):
        other = fresh(num_classes)
        report = assign(other, renamed)
        assert set(report.new) == {v.path for v in other.weights if v.path.startswith("predictions")}
    with pytest.raises(
        WeightsError, match="its classifier is for 7 classes, the model's for 3: num_classes=7 takes it"
    ):
        assign(fresh(3), renamed, new_classifier=False)


def test_a_layer_that_is_no_classifier_is_not_taken_for_one(resnet):
    _, arrays = resnet
    renamed = {k.replace("fc.", "projector.") if k.startswith("fc.") else k: v for k, v in arrays.items()}
    with pytest.raises(WeightsError, match=r"unexpected: projector\.weight"):
        assign(fresh(), renamed)
    two = {**arrays, "head.0.weight": np.ones((32, 32), "float32"), "head.2.weight": np.ones((7, 32), "float32")}
    two = {k: v for k, v in two.items() if not k.startswith("fc.")}
    with pytest.raises(WeightsError, match=r"unexpected: head\.2\.weight"):
        assign(fresh(), two)
    assert len(assign(fresh(), two, new_classifier=True).left_out) == 2


# --- Dense layers behind a flatten ------------------------------------------------------------------------


def test_convolutional_bases(tmp_path, caplog):
    full = kzoo.build("vgg_cifar10", hidden=2, units=8, seed=1)
    arrays = {v.path: np.asarray(v) for v in full.weights}
    np.savez(tmp_path / "full.npz", **arrays)
    np.savez(tmp_path / "notop.npz", **{k: a for k, a in arrays.items() if not k.startswith(("fc", "pred"))})

    def build(file, **options):
        caplog.clear()
        return kzoo.build("vgg_cifar10", weights=tmp_path / file, **{"units": 8, "hidden": 2, **options})

    dense = ("fc", "predictions")
    other = build("full.npz", num_classes=5, input_shape=(64, 64, 3), new_classifier=True)
    same_base(full, other)
    assert "The classifier is new with the dense layers in front of it" in caplog.text and "fc2/kernel" in caplog.text
    same_base(full, build("notop.npz", num_classes=5))
    assert "The classifier is new with the dense layers in front of it" in caplog.text
    features = build("full.npz", hidden=0, num_classes=None)
    same_base(full, features)
    assert "was left out: fc1/kernel, fc1/bias, fc2/kernel, fc2/bias, predictions/kernel" in caplog.text
    same_base(full, build("full.npz", hidden=0, num_classes=5))
    assert "Left out with the classifier of" in caplog.text and "fc2/bias" in caplog.text
    same(full, build("full.npz", num_classes=5), but=("predictions",))  # the dense layers fit
    assert not any(v.path.startswith(dense) for v in features.weights)
    with pytest.raises(WeightsError, match="Its convolutions fit, but fc1 takes 128 features, the model's takes 512"):
        build("full.npz", num_classes=None, input_shape=(64, 64, 3))
    with pytest.raises(WeightsError, match="Its convolutions fit, but it ends in front of fc1"):
        build("notop.npz", num_classes=None)
    with pytest.raises(kzoo.KzooError, match=r"dense layers behind a Flatten.*give the height and width"):
        kzoo.build("vgg_cifar10", hidden=2, input_shape=(None, None, 3))


def same_base(a, b):
    same(SimpleNamespace(weights=base_of(a)), SimpleNamespace(weights=base_of(b)))


def base_of(model):
    return [v for v in model.weights if not v.path.startswith(("fc", "predictions"))]


# --- A backbone that is a layer of another model ------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["h5", "keras", "weights.h5"])
@pytest.mark.parametrize("kind", ["sequential", "functional"])
def test_nested_backbones(kind, suffix, tmp_path):
    base = kzoo.build("resnet20", depth=8, num_classes=None, seed=1)
    x = keras.Input((32, 32, 3))
    if kind == "sequential":
        model = keras.Sequential([x, base, keras.layers.Dropout(0.2), keras.layers.Dense(3)])
    else:
        model = keras.Model(x, keras.layers.Dense(3, name="predictions")(base(x)))
    path = tmp_path / f"a.{suffix}"
    model.save_weights(path) if "weights" in suffix else model.save(path)
    other = kzoo.build("resnet20", depth=8, num_classes=3, weights=path)
    for v in base.weights:
        np.testing.assert_array_equal(v, next(w for w in other.weights if w.path == v.path))
    for a, b in zip(model.layers[-1].weights, other.get_layer("predictions").weights, strict=True):
        np.testing.assert_array_equal(a, b)
    new = kzoo.build("resnet20", depth=8, num_classes=7, new_classifier=True, weights=path)
    np.testing.assert_array_equal(new.get_layer("conv1_conv").kernel, base.get_layer("conv1_conv").kernel)


# --- Checkpoints and refusals of torch's files, without torch -------------------------------------------------


class Tensor:
    ndim = 2


STATE = {"a.weight": Tensor(), "a.bias": Tensor()}


@pytest.mark.parametrize(
    "key", ["state_dict", "state_dict_ema", "model_ema", "net", "weights", "model_state", "model", "my"]
)
def test_the_weights_of_a_checkpoint(key):
    state, notes = worker.state_of({"epoch": 3, key: STATE, "optimizer": {"state": {}}, "best": Tensor()}, Tensor)
    if key == "my":  # with a tensor beside it only a known name is looked into
        assert list(state) == ["best"] and "my" in notes[0]
        state, notes = worker.state_of({"epoch": 3, key: STATE}, Tensor)
    assert state == STATE
    assert notes[0] == f"The weights are those under '{key}' of the checkpoint."
    assert "epoch" in notes[1]


def test_a_state_dict_with_other_things_beside_it():
    assert worker.state_of({**STATE, "epoch": 3, "optimizer": {}}, Tensor) == (
        STATE,
        ["Left out of the checkpoint: epoch, optimizer."],
    )
    nested, notes = worker.state_of({"net": {"state_dict": STATE}}, Tensor)
    assert nested == STATE and notes == ["The weights are those under 'net.state_dict' of the checkpoint."]
    both, notes = worker.state_of({"model": {}, "state_dict": STATE, "model_ema": {"b": Tensor()}}, Tensor)
    assert list(both) == ["b"] and "'model_ema'" in notes[0] and "state_dict" in notes[1]
    with pytest.raises(worker.Refused, match="'gen': dict, 'disc': dict, not a state_dict"):
        worker.state_of({"gen": STATE, "disc": STATE}, Tensor)
    with pytest.raises(worker.Refused, match="it holds a list, not a state_dict"):
        worker.state_of([1], Tensor)


def test_of_torchs_message_only_the_reason_is_passed_on():
    advice = (
        "Weights only load failed. Re-running `torch.load` with `weights_only` set to `False` will likely succeed, if "
        "you trust the source.\n\tWeightsUnpickler error: "
    )
    for text, reason in (
        (
            advice + "Unsupported global: GLOBAL my.Net was not an allowed global by default. Please use",
            "a pickled my.Net",
        ),
        (advice + "\n\nUnsupported operand 60\n\nCheck the documentation of torch.load", "Unsupported operand 60"),
        (advice.partition("\n")[0], "torch's weights-only loader refuses it (RuntimeError)"),
        ("unexpected EOF", "refuses it (RuntimeError: unexpected EOF)"),
    ):
        found = worker.reason_of(RuntimeError(text))
        assert reason in found and not re.search("weights_only|False|trust", found), found


class Net:
    """Stands for a network whose class is pickled."""


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickled_module_is_named(protocol, tmp_path):
    assert pickled_class(pickle.dumps({"a": Net()}, protocol)) == f"{__name__}.Net"
    assert pickled_class(pickle.dumps({"a": [1, "b"]}, protocol)) is None
    with zipfile.ZipFile(tmp_path / "a.pth.tar", "w") as z:
        z.writestr("a/data.pkl", pickle.dumps(Net(), protocol))
    (tmp_path / "legacy.ckpt").write_bytes(pickle.dumps(119547037146038801333356, 2) + pickle.dumps(Net(), protocol))
    for name in ("a.pth.tar", "legacy.ckpt"):
        with pytest.raises(WeightsError, match=rf"holds a pickled {__name__}\.Net, a Python object.*state_dict\(\)"):
            read(tmp_path / name)


def test_a_torchscript_archive_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as z:
        z.writestr("a/code/__torch__.py", "x")
        z.writestr("a/constants.pkl", b"")
    with pytest.raises(WeightsError, match=r"TorchScript archive.*state_dict"):
        read(tmp_path / "a.pt")


def test_suffixes():
    names = ("a.pth", "a.pt", "pytorch_model.bin", "epoch=3.ckpt", "best.PTH.TAR")
    assert [format_of(name) for name in names] == ["pth"] * 5
    assert format_of("a.tar") is None and format_of(".npz") is None


# --- What a misfit is explained by ----------------------------------------------------------------------------


def test_every_row_has_its_fingerprint():
    assert set(FINGERPRINTS) == set(kzoo.list_models())
    for name in ("mnist_cnn", "lenet5", "resnet20", "squeezenet1_1", "vgg_cifar10"):  # the others: test_zoo_table.py
        model = kzoo.build(name)
        assert fingerprint((v.path, v.shape) for v in model.weights) == FINGERPRINTS[name], name
    brought = {architecture for table in MAPS.values() for architecture in table.config}
    assert set(VARIANTS) == {n for n in FINGERPRINTS if kzoo.spec(n).architecture in brought and "mobilenet" not in n}


def first_line_of(model, arrays):
    with pytest.raises(WeightsError) as e:
        assign(model, arrays, source="x.npz")
    lines = str(e.value).splitlines()
    assert len(lines) > 1 and "nothing was loaded" in lines[0]
    return lines[0]


def test_another_row_that_fits_is_named():
    small = kzoo.build("mnist_softmax")
    other = kzoo.build("squeezenet1_0", num_classes=7, seed=1)
    arrays = {f"model.{k}": v for k, v in as_torch(other, "torch_squeezenet1_0").items()}
    for model in (small, kzoo.build("squeezenet1_1")):
        line = first_line_of(model, arrays)
        assert (
            f"x.npz does not fit {model.name}: It fits squeezenet1_0: kzoo.build('squeezenet1_0', weights=...)." in line
        )


def test_families_that_are_missing_are_named(resnet):
    one = np.ones(3, "float32")
    model, arrays = resnet
    for names, family in (
        (
            {"features.0.weight": np.ones((64, 3, 11, 11), "float32")},
            "It looks like the AlexNet of 2014 with one tower",
        ),
        (
            {"model.features.denseblock1.denselayer1.norm1.weight": one},
            "It looks like DenseNet, which kzoo does not have",
        ),
        ({"cls_token": one, "blocks.0.attn.qkv.weight": one}, "It looks like a vision transformer"),
        ({"layer1.0.conv2.weight": np.ones((128, 4, 3, 3), "float32")}, "It looks like ResNeXt"),
        ({"features.1.conv.0.0.weight": one}, "It looks like torchvision's MobileNet v2; kzoo.build('mobilenet_v2', "),
        (
            {"blocks.0.0.conv_dw.weight": one},
            "It looks like timm's MobileNet v1; kzoo.build('mobilenet_v1', alpha=...)",
        ),
        (
            {"blocks.1.0.conv_pwl.weight": one},
            "It looks like timm's MobileNet v2; kzoo.build('mobilenet_v2', alpha=...)",
        ),
        ({"blocks.1.0.conv_pwl.weight": one, "blocks.3.0.se.conv_reduce.bias": one}, "EfficientNet or MobileNet v3"),
        ({"features.1.block.0.0.weight": one}, "It looks like EfficientNet or MobileNet v3, which kzoo does not have"),
        (
            {"stages.0.blocks.0.norm1.weight": one, "stages.0.blocks.0.conv3.weight": one, "stem.conv.weight": one},
            "It looks like a ResNet v2 without the statistics of batch norm; with group norm, as in Big Transfer (BiT)",
        ),
        (
            {
                "stages.0.blocks.0.norm1.running_mean": one,
                "stages.0.blocks.0.conv3.weight": one,
                "stem.conv1.weight": one,
            },
            "It looks like a ResNet v2 with a stem of three convolutions (timm's d, t)",
        ),
        (
            {"stages.0.blocks.0.norm1.running_mean": one, "stem.conv.weight": one},
            "a ResNet v2 of blocks of two convolu",
        ),
        ({"conv1.0.weight": one, "layer1.0.bn1.running_mean": one}, "a ResNet with a stem of three convolutions"),
        (
            {"conv1.weight": one, "layer1.0.bn1.weight": one},
            "a ResNet without the statistics of batch norm; with group",
        ),
        ({"cell_stem_0.comb_iter_0_left.act_1.weight": one}, "a NASNet or PNASNet of timm; kzoo reads Keras' files"),
        ({"level2.tree1.conv1.weight": one}, "It looks like DLA, which kzoo does not have"),
        ({"layer1.0.conv1.attn.bn.bias": one}, "It looks like SK-ResNet, which kzoo does not have"),
        ({"something.weight": one}, "It holds none of the layers of this network"),
        (
            {f"{p}.{k}": v for p in ("gen", "ema") for k, v in arrays.items()},
            "It holds several networks, under 'gen.', 'ema.'",
        ),
    ):
        assert family in first_line_of(model, names)
    plain = kzoo.build("squeezenet1_1")
    line = first_line_of(kzoo.build("squeezenet1_1", stem=(64, 5)), as_torch(plain, "torch_squeezenet1_1"))
    assert "It fits the options that kzoo.build('squeezenet1_1', weights=...) sets; this model was built with" in line
    gammas = {f"{layer}.weight": np.ones(3, "float32") for layer in layers_of("torch_inception_v3")}
    assert "several networks" not in first_line_of(model, gammas)
    wider = built(7, width=5)
    assert "the layers of this network with other widths" in first_line_of(wider, arrays)
    headless = {k: v for k, v in arrays.items() if not k.startswith("fc.")}
    assert "Its layers fit, and it has no classifier: new_classifier=True" in first_line_of(model, headless)


def test_recognise_needs_most_of_the_names():
    assert recognise(["conv1.weight", "a.weight", "b.weight", "c.weight"]) is None
    assert recognise(["conv1/kernel", "conv1/bias"]) is None
    assert recognise([]) is None


def test_notes_are_logged(tmp_path, caplog, resnet):
    _, arrays = resnet
    np.savez(tmp_path / "a.npz", **{f"model.{k}": v for k, v in arrays.items()})
    with caplog.at_level(logging.WARNING, "kzoo"):
        built(7, weights=tmp_path / "a.npz")
    assert "resnet18: The names of" in caplog.text and "begin with 'model.'" in caplog.text
