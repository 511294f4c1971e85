"""Layer by layer against what PyTorch computed, without torch: parity.json holds its outputs (see parity.py)."""

import json

import keras
import numpy as np
import parity
import pytest

import kzoo
from kzoo.catalog.rows import wrn
from kzoo.layers import LocallyConnected2D
from kzoo.weights.maps import rename

AS_IS = kzoo.Preprocessing(scale=1.0, offset=0.0)
EXPECTED = json.loads(parity.PATH.read_text())
MAPS = {
    "resnet18": "torch_resnet",
    "resnet50_v1_5": "torch_resnet",
    "googlenet_bn": "torch_googlenet",
    "inception_v4": "timm_inception_v4",
    "squeezenet1_0": "torch_squeezenet1_0",
    "squeezenet1_1": "torch_squeezenet1_1",
    "mobilenet_v1": "timm_mobilenet_v1",
    "mobilenet_v2": "torch_mobilenet_v2",
    "efficientnet_lite0": "efficientnet_lite0",
    "resnet50_v2": "timm_resnet_v2",
    "vgg11": "torch_vgg11",
    "inception_resnet_v2": "timm_inception_resnet_v2",
}
# Dense layers behind a Flatten, whose values torch orders by channel first.
FLAT = {
    ("alexnet", "fc6"): (256, 3, 2),
    ("zfnet", "fc6"): (32, 2, 2),
    ("deepface", "F7"): (4, 3, 1),
    ("c3d", "fc6"): (32, 1, 1),
}


def place(name, module):
    """Our layer for a torch module: by the map with which published files are read, or under the same name."""
    names = MAPS.get(name, "torch_googlenet" if name == "googlenet" else None)
    if names is None:
        return module
    ours = next(iter(rename({f"{module}.weight": np.zeros(1)}, names).arrays)).rpartition("/")[0]
    return ours.removesuffix("_conv") if name == "googlenet" else ours


def fill(model, name, arrays):
    """Sets each layer's arrays by hand, for networks without published files to map."""
    for module in EXPECTED[name]["layers"]:
        layer = model.get_layer(place(name, module))
        if isinstance(layer, keras.layers.BatchNormalization):
            values = [arrays[f"{module}.{n}"] for n in ("weight", "bias", "running_mean", "running_var")]
        else:
            kernel = arrays[f"{module}.weight"]
            bias = [arrays[f"{module}.bias"]] if f"{module}.bias" in arrays else []
            if (name, layer.name) in FLAT:
                kernel = np.moveaxis(kernel.reshape(-1, *FLAT[name, layer.name]), 1, 3).reshape(kernel.shape)
            if isinstance(layer, LocallyConnected2D):
                values = [np.moveaxis(kernel, (1, 2), (4, 3)).reshape(layer.kernel.shape), np.moveaxis(bias[0], 0, -1)]
            else:
                values = [np.moveaxis(kernel, (0, 1), (-1, -2)), *bias]
        layer.set_weights(values)


LONG = ("inception_resnet_v2", "inception_v4")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.deep("2026-11-27")) if n in LONG else n for n in parity.SIZES],
)
def test_equals_pytorch(name, tmp_path):
    expected, size = EXPECTED[name], parity.SIZES[name]
    arrays = {key: parity.drawn(key, shape) for key, shape in expected["arrays"].items()}
    options = {"num_classes": 7, "input_shape": (*size, 3), "preprocessing": AS_IS, **parity.OPTIONS.get(name, {})}
    if name in MAPS:  # as a published file is read
        np.savez(tmp_path / "a.npz", **arrays)
        row = kzoo.Weights("test", str(tmp_path / "a.npz"), names=MAPS[name], preprocessing=AS_IS)
        model = kzoo.build(name, weights=row, **options)
    else:
        model = kzoo.build(wrn(10, 1) if name == "wrn_10_1" else name, **options)
        fill(model, name, arrays)
    modules = list(expected["layers"])
    layers = [model.get_layer(place(name, module)) for module in modules]
    assert sorted(layer.name for layer in layers) == sorted(layer.name for layer in model.layers if layer.weights)
    *outputs, logits = keras.Model(model.input, [*(layer.output for layer in layers), model.output])(
        parity.picture(size), training=False
    )
    largest = np.abs(expected["logits"]).max()
    np.testing.assert_allclose(logits, expected["logits"], rtol=0, atol=1e-4 * largest)
    for module, layer, y in zip(modules, layers, outputs, strict=True):
        if getattr(layer, "activation", None) is keras.activations.relu:
            continue  # torch's module has no ReLU: what follows is compared
        if expected["layers"][module] is None:
            continue  # torch's module has a ReLU, our batch norm none
        highest, projection = expected["layers"][module]
        found = parity.summary(module, y)
        np.testing.assert_allclose(found, [highest, projection], rtol=0, atol=1e-4 * highest, err_msg=module)


def test_the_recorded_names_are_those_of_the_cases():
    assert EXPECTED.keys() - {"torch", "torchvision", "timm"} == parity.SIZES.keys()
