"""Layer by layer against PyTorch, with random weights, at an even and an odd input size."""

import keras
import numpy as np
import pytest

import kzoo
from kzoo.catalog.rows import wrn
from kzoo.weights.maps import rename

torch = pytest.importorskip("torch")
import torch_models  # noqa: E402  (needs torch)

AS_IS = kzoo.Preprocessing(scale=1.0, offset=0.0)


def randomise(network, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for name, array in network.state_dict().items():
        if array.ndim > 1:
            array.normal_(0, (2 / array[0].numel()) ** 0.5, generator=generator)
        elif name.endswith(("running_var", "weight")):
            array.uniform_(0.5, 1.5, generator=generator)
        elif array.is_floating_point():
            array.normal_(0, 0.1, generator=generator)
    return network.eval()


def run(network, x):
    """Outputs of every convolution, batch norm and dense layer: {module name: array with the channels last}."""
    outputs = {}

    def keep(name):
        def hook(module, inputs, output):
            array = output.detach().numpy().copy()  # a copy: a ReLU may work in place
            outputs[name] = np.moveaxis(array, 1, -1)

        return hook

    kinds = (torch.nn.Conv2d, torch.nn.BatchNorm2d, torch.nn.Linear)
    handles = [m.register_forward_hook(keep(n)) for n, m in network.named_modules() if isinstance(m, kinds)]
    with torch.no_grad():
        network(torch.from_numpy(np.moveaxis(x, -1, 1).copy()))
    for handle in handles:
        handle.remove()
    return outputs


def check(model, network, place, flat=None):
    """Copy the network's arrays to the model, run both, compare all layers to 1e-4 of their largest value.

    place: a torch module's name to our layer's. flat: {our dense layer: (C, H, W)} behind a Flatten.
    """
    randomise(network)
    arrays = network.state_dict()
    layers = {name.rpartition(".")[0] for name in arrays}
    assert sorted(place(name) for name in layers) == sorted(l.name for l in model.layers if l.weights)
    for theirs in layers:
        layer = model.get_layer(place(theirs))

        def array(name):
            return arrays[f"{theirs}.{name}"].numpy()  # noqa: B023

        if isinstance(layer, keras.layers.BatchNormalization):
            values = [array(n) for n in ("weight", "bias", "running_mean", "running_var")]
        else:
            kernel = array("weight")
            if kernel.ndim == 2 and layer.name in (flat or {}):
                kernel = np.moveaxis(kernel.reshape(-1, *flat[layer.name]), 1, 3).reshape(kernel.shape)
            values = [kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel.T]
            values += [array("bias")] if f"{theirs}.bias" in arrays else []
        layer.set_weights(values)

    x = np.random.default_rng(1).uniform(-1, 1, (2, *model.input_shape[1:])).astype("float32")
    expected = run(network, x)
    assert set(expected) == layers
    names = list(expected)
    actual = keras.Model(model.input, [model.get_layer(place(n)).output for n in names])(x, training=False)
    errors = {}
    for name, y in zip(names, actual, strict=True):
        e = expected[name]
        layer = model.get_layer(place(name))
        if getattr(layer, "activation", None) is keras.activations.relu:
            e = np.maximum(e, 0)
        errors[name] = np.abs(np.asarray(y) - e).max() / np.abs(e).max()
    worst = max(errors, key=errors.get)
    assert errors[worst] < 1e-4, (worst, errors[worst])
    return errors[worst]


def by_map(names):
    """Our layer for a torch module, by the map with which published files are read."""
    return lambda module: next(iter(rename({f"{module}.weight": np.zeros(1)}, names).arrays)).rpartition("/")[0]


SIZES = ((64, 64), (75, 67))
LARGER = ((96, 96), (107, 89))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("name", "blocks", "bottleneck"),
    [
        ("resnet18", (2, 2, 2, 2), False),
        ("resnet34", (3, 4, 6, 3), False),
        ("resnet50_v1_5", (3, 4, 6, 3), True),
    ],
)
def test_resnet(name, blocks, bottleneck, size):
    model = kzoo.build(name, num_classes=7, input_shape=(*size, 3), preprocessing=AS_IS)
    print(name, size, check(model, torch_models.ResNet(blocks, bottleneck, 7), by_map("torch_resnet")))


@pytest.mark.parametrize("size", [(32, 32), (37, 33)])
@pytest.mark.parametrize(("depth", "k"), [(16, 2), (10, 1)])
def test_wide_resnet(depth, k, size):
    model = kzoo.build(wrn(depth, k), num_classes=7, input_shape=(*size, 3), preprocessing=AS_IS)
    print(check(model, torch_models.WideResNet(depth, k, 7), lambda module: module))


@pytest.mark.parametrize("size", LARGER)
def test_googlenet_bn(size):
    model = kzoo.build("googlenet_bn", num_classes=7, input_shape=(*size, 3), preprocessing=AS_IS)
    print(check(model, torch_models.GoogLeNet(7), by_map("torch_googlenet")))


@pytest.mark.parametrize(("size", "aux"), [((96, 96), 128), ((107, 89), None), ((155, 161), 512)])
def test_googlenet_as_published(size, aux):
    """With local response normalisation, 5x5 convolutions and, for training, the auxiliary classifiers."""
    model = kzoo.build("googlenet", num_classes=7, input_shape=(*size, 3), preprocessing=AS_IS, aux=bool(aux))

    def place(module):
        if module.startswith("aux"):
            return module.replace(".conv.conv", "_conv").replace(".fc1", "_fc").replace(".fc2", "_predictions")
        return by_map("torch_googlenet")(module).removesuffix("_conv")

    side = aux and round((aux / 128) ** 0.5)
    flat = {f"aux{i}_fc": (128, side, side) for i in (1, 2)} if aux else None
    print(check(model, torch_models.GoogLeNet(7, published=True, aux=aux), place, flat=flat))


@pytest.mark.parametrize("size", LARGER)
def test_inception_v4(size):
    model = kzoo.build("inception_v4", num_classes=7, input_shape=(*size, 3), preprocessing=AS_IS)
    print(check(model, torch_models.InceptionV4(7), by_map("timm_inception_v4")))


@pytest.mark.parametrize("size", LARGER)
@pytest.mark.parametrize("version", ["1_0", "1_1"])
def test_squeezenet(version, size):
    name = "squeezenet" + version
    model = kzoo.build(name, num_classes=7, input_shape=(*size, 3), preprocessing=AS_IS)
    print(check(model, torch_models.SqueezeNet(version, 7), by_map(f"torch_{name}")))


@pytest.mark.parametrize(("size", "pool5"), [((132, 100), (3, 2)), ((131, 99), (3, 2))])
def test_alexnet_towers(size, pool5):
    model = kzoo.build("alexnet", num_classes=7, input_shape=(*size, 3), preprocessing=AS_IS)
    print(check(model, torch_models.AlexNet(pool5, 7), lambda module: module, flat={"fc6": (256, *pool5)}))


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("zfnet", lambda: torch_models.ZFNet(96, (6, 6), 4096, 1000)),
        ("nin", lambda: torch_models.NetworkInNetwork(192, 10)),
        ("deepface", lambda: torch_models.DeepFace(16, (152, 152), 4096, 4030)),
        ("c3d", lambda: torch_models.C3D(64, (4, 4), 4096, 101)),
    ],
)
def test_published_sizes_have_as_many_parameters(name, network):
    with torch.device("meta"):  # shapes only
        theirs = network()
    assert sum(p.numel() for p in theirs.parameters()) == kzoo.ledger(name).totals.params
