"""Foreign files, written by foreign networks, give the same numbers here: PyTorch, real weights.

Those of keras.applications: tests/models/test_families_keras.py.
"""

import json
import os
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

import kzoo
from kzoo.data.images import make_preparer
from kzoo.weights import load

AS_IS = kzoo.Preprocessing(scale=1.0, offset=0.0)


def agree(ours, theirs):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    np.testing.assert_allclose(ours, theirs.reshape(ours.shape), atol=1e-4 * np.abs(theirs).max(), rtol=0)


# --- PyTorch ---------------------------------------------------------------------------------------------


def vgg(torch, batch_norm):
    """torchvision's VGG-11, an eighth as wide."""
    nn, channels, features = torch.nn, 3, []
    for width in (8, "M", 16, "M", 32, 32, "M", 64, 64, "M", 64, 64, "M"):
        if width == "M":
            features.append(nn.MaxPool2d(2))
            continue
        features += [nn.Conv2d(channels, width, 3, padding=1)] + [nn.BatchNorm2d(width)] * batch_norm + [nn.ReLU()]
        channels = width
    network = nn.Sequential()
    network.features = nn.Sequential(*features)
    network.flatten = nn.Flatten()
    network.classifier = nn.Sequential(
        nn.Linear(64 * 49, 20), nn.ReLU(), nn.Dropout(), nn.Linear(20, 20), nn.ReLU(), nn.Dropout(), nn.Linear(20, 7)
    )
    return network


@pytest.mark.parametrize(
    ("name", "make", "size", "options"),
    [
        pytest.param("resnet18", lambda t, m: m.ResNet((2, 2, 2, 2), False, 7), 64, {}, marks=pytest.mark.slow),
        ("resnet50_v1_5", lambda t, m: m.ResNet((3, 4, 6, 3), True, 7), 64, {}),
        ("googlenet_bn", lambda t, m: m.GoogLeNet(7), 96, {}),
        ("squeezenet1_1", lambda t, m: m.SqueezeNet("1_1", 7), 96, {}),
        ("vgg11", lambda t, m: vgg(t, False), 224, {"width": 8, "units": 20}),
        ("vgg11_bn", lambda t, m: vgg(t, True), 224, {"width": 8, "units": 20}),
        pytest.param("inception_v4", lambda t, m: m.InceptionV4(7), 96, {}, marks=pytest.mark.slow),
    ],
)
def test_torch(name, make, size, options, tmp_path):
    torch = pytest.importorskip("torch")
    import torch_models
    from test_families_torch import randomise as randomise_torch

    network = randomise_torch(make(torch, torch_models))
    torch.save(network.state_dict(), tmp_path / "a.pth")
    names = kzoo.spec(name).weights[0].names
    row = kzoo.Weights("test", str(tmp_path / "a.pth"), names=names, preprocessing=AS_IS)
    mine = kzoo.build(name, num_classes=7, input_shape=(size, size, 3), weights=row, **options)
    x = np.random.default_rng(1).uniform(-1, 1, (2, size, size, 3)).astype("float32")
    with torch.no_grad():
        expected = network(torch.from_numpy(np.moveaxis(x, -1, 1).copy())).numpy()
    agree(mine(x, training=False), expected)


def test_background_class_of_timm():
    from kzoo.weights.maps import rename

    one = np.arange(1001 * 4, dtype="float32").reshape(1001, 4)
    kernel = rename({"last_linear.weight": one}, "timm_inception_v4").arrays["predictions/kernel"]
    np.testing.assert_array_equal(kernel, one[1:].T)


# --- Real weights ----------------------------------------------------------------------------------------

DATA = Path(os.environ.get("KZOO_DATA") or Path(__file__).parents[3] / "shared" / "data")
real = pytest.mark.skipif(
    not (DATA / "weights").is_dir(), reason=f"needs the folder of real data {DATA} (set KZOO_DATA)"
)

# These MobileNets take (x - 128) / 128.
MOBILENET = kzoo.Preprocessing(crop=0.875, scale=1 / 128, offset=-1.0)
# The photos are small: SqueezeNet sees all of their shorter side.
SQUEEZENET = kzoo.Preprocessing(channel_order="bgr", scale=1.0, offset=(-104.0, -117.0, -123.0))


@real
@pytest.mark.parametrize(
    ("name", "file", "size", "options", "preprocessing", "top1", "top5"),
    [
        ("squeezenet1_0", "squeezenet_v1.0_imagenet.npz", 227, {"conv10_padding": 1}, SQUEEZENET, 63, 83),
        ("mobilenet_v1", "mobilenet_v1_0.25_128_imagenet.npz", 128, {"alpha": 0.25}, MOBILENET, 53, 75),
        ("mobilenet_v2", "mobilenet_v2_1.0_224_imagenet.npz", 224, {}, MOBILENET, 80, 96),
    ],
)
def test_real_weights_on_photos(name, file, size, options, preprocessing, top1, top5):
    """Within 3 points of the accuracies in the data's README (of 100 samples; here are 50, 2 points each)."""
    index = {
        synset: int(i) for i, (synset, _) in json.loads((DATA / "imagenet_sample/class_index.json").read_text()).items()
    }
    photos = sorted((DATA / "imagenet_sample").glob("*.jpg"))
    labels = np.array([index[p.name.partition("_")[0]] for p in photos])
    weights = kzoo.Weights("real", str(DATA / "weights" / file), preprocessing=preprocessing, config=options)
    model = kzoo.build(name, input_shape=(size, size, 3), weights=weights)
    prepare = make_preparer(model.input_shape[1:], preprocessing)
    x = np.stack([prepare(p.read_bytes()) for p in photos])
    best = np.argsort(-model.predict(x, verbose=0), 1)[:, :5]
    found = 100 * np.mean(best[:, 0] == labels), 100 * np.mean((best == labels[:, None]).any(1))
    print(f"{name}: {found[0]:.0f} % top-1, {found[1]:.0f} % top-5 of {len(photos)} photos")
    assert abs(found[0] - top1) <= 3 + 1e-9 and abs(found[1] - top5) <= 3 + 1e-9, found


@real
def test_a_real_legacy_file_loads_strictly():
    """SqueezeNet 1.1 without top, as Keras 1 wrote it: fire2/squeeze1x1, weights called uniform2 and ..._b."""
    path = DATA / "weights/squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5"
    model = kzoo.build("squeezenet1_1", num_classes=None)
    report = load(model, path)
    assert len(report.loaded) == 50 == len(model.weights) and not report.left_out and report.names == "squeezenet"
    with h5py.File(path) as f:
        np.testing.assert_array_equal(model.get_layer("fire9_expand3x3").kernel, f["fire9/expand3x3/uniform25"])
        np.testing.assert_array_equal(model.get_layer("conv1").bias, f["conv1/conv1_b"])


@real
def test_folded_batch_norm_only_adds_the_bias():
    from kzoo.weights import read

    path = DATA / "weights/mobilenet_v1_0.25_128_imagenet.npz"
    model = kzoo.build("mobilenet_v1", alpha=0.25, input_shape=(128, 128, 3), weights=path)
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 8)).astype("float32")
    y = np.asarray(model.get_layer("conv1_bn")(x, training=False))
    np.testing.assert_allclose(y, x + read(path)["conv1/bias"], atol=1e-6)
    assert all(l.epsilon == 0.001 for l in model.layers if isinstance(l, keras.layers.BatchNormalization))


@real
def test_part_of_a_network():
    """Gatys' normalised VGG-19 ends at block3_conv1."""
    model = kzoo.build("vgg19", num_classes=None, input_shape=(64, 64, 3))
    part = keras.Model(model.input, model.get_layer("block3_conv1").output, name="vgg19_part")
    report = load(part, DATA / "weights/vgg19_normalised_conv3_1.npz")
    assert len(report.loaded) == 10 and report.left_out == ("preprocess/kernel", "preprocess/bias")
