"""U-Net: the sizes of its figure, tiles without seams, and networks of the catalog as its contracting path."""

import logging

import keras
import numpy as np
import pytest
from support.networks import randomise

import kzoo
from kzoo.builder import options as known_options
from kzoo.errors import WeightsError
from kzoo.graph.ledger import without_values
from kzoo.models.unet import encoder


def test_the_sizes_are_those_of_figure_1():
    table = kzoo.ledger("unet")
    sides = {row.name: row.output[0] for row in table.rows}
    down = [[sides[f"down{i}_conv{k}"] for k in (1, 2)] for i in range(1, 6)]
    assert down == [[570, 568], [282, 280], [138, 136], [66, 64], [30, 28]]
    up = [[sides[f"up{i}_{k}"] for k in ("upconv", "crop", "conv1", "conv2")] for i in range(4, 0, -1)]
    assert up == [[56, 56, 54, 52], [104, 104, 102, 100], [200, 200, 198, 196], [392, 392, 390, 388]]
    assert table["predictions"].output == (388, 388, 2)
    assert table["up3_concat"].output[-1] == 512 and table["up3_upconv"].output[-1] == 256
    # Each input pixel of an up-convolution meets the 2x2 kernel once.
    assert table["up4_upconv"].multiply_adds == 28 * 28 * 1024 * 2 * 2 * 512
    # Two paths of 3x3 convolutions and 2x2 pools: 1 + 2 * (2 + 4 + 8 + 16 + 32), 1 for each pool's step, back up.
    assert table["down5_conv2"].receptive_field.size == (140, 140)
    assert table["predictions"].receptive_field.stride == (1, 1)


def test_tiles_fit_together_without_seams():
    """Overlap-tile (Figure 2): the logits of a tile are those of the whole picture, since nothing is padded."""
    x = np.random.default_rng(0).integers(0, 256, (1, 60, 52, 1)).astype("float32")
    options = {"width": 4, "depth": 2, "seed": 0}
    whole, tile = (kzoo.build("unet", input_shape=shape, **options) for shape in ((60, 52, 1), (44, 44, 1)))
    randomise(whole)
    tile.set_weights(whole.get_weights())
    logits = np.asarray(whole(x))
    assert logits.shape == (1, 20, 12, 2)
    for top, left in ((0, 0), (16, 8), (8, 4)):  # by whole steps of the pools
        part = np.asarray(tile(x[:, top : top + 44, left : left + 44]))
        np.testing.assert_allclose(part, logits[:, top : top + 4, left : left + 4], rtol=0, atol=1e-5)


def test_up_convolutions_start_with_the_deviation_of_the_paper():
    """sqrt(2 / N), N the inputs of a unit: the channels of one pixel."""
    model = kzoo.build("unet", input_shape=(44, 44, 1), depth=2, seed=0)
    kernel = model.get_layer("up2_upconv").kernel.numpy()
    assert kernel.shape == (2, 2, 128, 256)
    assert kernel.std() == pytest.approx((2 / 256) ** 0.5, rel=0.01)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("unet", {"input_shape": (570, 572, 1)}, "16 n + 60 pixels from 188"),
        ("unet", {"input_shape": (172, 172, 1)}, "from 188"),
        ("unet", {"depth": 0}, "an integer from 1 to 8"),
        ("unet", {"depth": "4"}, "an integer from 1 to 8"),
        ("unet", {"width": 0}, "can't be built"),
        ("unet", {"backbone": "vgg16"}, "Unknown option of unet 'backbone'"),
        ("unet", {"backbone_weights": "imagenet"}, "was given none"),
        ("unet_same", {"input_shape": (40, 32, 3)}, "multiples of 16; got 40x32"),
        ("unet_same", {"backbone": "resnet21"}, "Did you mean 'resnet"),
        ("unet_same", {"backbone": 3}, "a model's name"),
        ("unet_same", {"backbone": "vgg16", "backbone_options": 3}, "its options by name"),
        ("unet_same", {"backbone_options": {"depth": 8}}, "none is named"),
        ("unet_same", {"backbone": "resnet20", "depth": 3}, "a depth and dropout of its own"),
        ("unet_same", {"backbone": "resnet20", "backbone_options": {"alpha": 1}}, "can't be built"),
        ("unet_same", {"backbone": "mobilenet_v2", "input_shape": (40, 40, 3)}, "Take multiples of 32"),
        ("unet_same", {"backbone": "resnet20", "input_shape": (None, None, 3)}, "fixed height and width"),
        ("unet_same", {"backbone": "zfnet"}, "its maps"),
        ("unet_same", {"backbone": "c3d"}, "fixed height and width"),
        ("unet_same", {"backbone": "unet_same"}, "its maps"),
        ("unet_same", {"backbone": "resnet20", "weights": "a.npz", "backbone_weights": "cifar10"}, "the whole network"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(name, options, message):
    with pytest.raises(kzoo.KzooError) as e:
        without_values(lambda: kzoo.build(name, **options))
    assert message in str(e.value) and "\n" not in str(e.value)


def test_unet_same_takes_any_multiple_and_pictures_of_open_size():
    model = kzoo.build("unet_same", input_shape=(None, None, 1), width=2, num_classes=3)
    assert model(np.zeros((1, 16, 48, 1), "float32")).shape == (1, 16, 48, 3)


@pytest.mark.parametrize(
    ("backbone", "maps"),
    [
        ("resnet20", ["conv2_block3_out", "conv3_block3_out", "conv4_block3_out"]),
        ("vgg16", ["block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3"]),
        (
            "resnet50_v1_5",
            [None, "conv1_relu", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"],
        ),
        (
            "resnet50_v2",  # the stride in the last block of a stage
            [None, "conv1_conv", "conv2_block2_out", "conv3_block3_out", "conv4_block5_out", "post_relu"],
        ),
        ("mobilenet_v2", [None, *(f"block_{i}_expand_relu" for i in (1, 3, 6, 13)), "out_relu"]),
    ],
)
def test_a_backbones_maps_are_the_last_of_each_stride(backbone, maps):
    model = without_values(lambda: kzoo.build("unet_same", backbone=backbone, input_shape=(64, 96, 3), width=4))
    assert model.output_shape == (None, 64, 96, 2)
    joined = {layer.name: layer.input for layer in model.layers if layer.name.startswith("up")}
    tensors = [joined.get(f"up{level}_concat", [None])[0] for level in range(1, len(maps))]
    tensors.append(joined[f"up{len(maps) - 1}_upconv"])
    assert [t if t is None else t._keras_history.operation.name for t in tensors] == maps
    own = without_values(lambda: kzoo.build(backbone, num_classes=None, input_shape=(64, 96, 3)))
    contributed = {layer.name for layer in encoder(model, backbone).layers if layer.weights}
    assert contributed == {layer.name for layer in own.layers if layer.weights and not layer.name.startswith("fc")}


# --- Weights of a backbone -------------------------------------------------------------------------------

SMALL = {
    "resnet20": {"depth": 8},
    "mobilenet_v2": {"alpha": 0.35},
    "vgg11": {"width": 4, "units": 8},
}


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory):
    """By name: a network with random weights and statistics, and the file that holds them."""
    found = {}
    for name, options in SMALL.items():
        model = randomise(kzoo.build(name, input_shape=(32, 32, 3), seed=3, **options))
        file = tmp_path_factory.mktemp("weights") / f"{name}.npz"
        np.savez(file, **{v.path: v.numpy() for v in model.weights})
        found[name] = model, file
    return found


@pytest.mark.parametrize("name", SMALL)
def test_the_weights_of_a_backbone_load_into_the_contracting_path(classifiers, name, caplog):
    classifier, file = classifiers[name]
    options = {"backbone": name, "backbone_options": SMALL[name], "width": 4, "num_classes": 3, "seed": 0}
    with caplog.at_level(logging.WARNING, "kzoo"):
        model = kzoo.build("unet_same", input_shape=(32, 32, 3), backbone_weights=file, **options)
    part = encoder(model, name)
    theirs = {v.path: v.numpy() for v in classifier.weights}
    assert len(part.weights) == len(theirs) - (6 if name == "vgg11" else 2)  # fc1, fc2, predictions
    for v in part.weights:
        np.testing.assert_array_equal(v.numpy(), theirs[v.path], err_msg=v.path)
    # It computes what the classifier's last map has, of pictures prepared as the classifier does.
    x = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype("uint8")
    last = part.output._keras_history.operation.name
    whole = keras.Model(classifier.input, classifier.get_layer(last).output)
    np.testing.assert_allclose(part(x, training=False), whole(x, training=False), rtol=0, atol=1e-5)
    new = [v.path for v in model.weights if v.path not in {w.path for w in part.weights}]
    assert {path.partition("/")[0].partition("_")[0] for path in new} - {"predictions"} <= {
        f"up{i}" for i in range(1, 6)
    }
    said = [r.getMessage() for r in caplog.records if "new are" in r.getMessage()]
    assert said == [
        f"unet_same: All {len(part.weights)} variables of the backbone {name} are loaded; new are: {', '.join(new)}."
    ]


def test_weights_that_are_not_all_of_a_backbones_are_refused(classifiers, tmp_path):
    _, file = classifiers["resnet20"]
    arrays = dict(np.load(file))
    del arrays["conv4_block1_2_conv/kernel"]
    np.savez(tmp_path / "less.npz", **arrays)
    options = {"backbone": "resnet20", "backbone_options": {"depth": 8}, "input_shape": (32, 32, 3), "width": 2}
    with pytest.raises(WeightsError, match="missing: conv4_block1_2_conv/kernel"):
        kzoo.build("unet_same", backbone_weights=tmp_path / "less.npz", **options)
    with pytest.raises(WeightsError, match="does not fit resnet20"):
        kzoo.build("unet_same", backbone_weights=classifiers["vgg11"][1], **options)
    with pytest.raises(kzoo.KzooError, match="Unknown weights 'imagenet'"):
        kzoo.build("unet_same", backbone_weights="imagenet", **options)


def test_shipped_weights_of_a_backbone_load_by_their_tag():
    """And options of a network with a backbone name the weights, too, so that kzoo train --set takes them."""
    model = kzoo.build("unet_same", backbone="resnet20", backbone_weights="cifar10", input_shape=(32, 32, 3), width=2)
    own = kzoo.build("resnet20", weights="cifar10")
    np.testing.assert_array_equal(
        model.get_layer("conv4_block3_2_conv").kernel.numpy(), own.get_layer("conv4_block3_2_conv").kernel.numpy()
    )
    assert model.get_layer("preprocessing").get_config() == own.get_layer("preprocessing").get_config()
    grey = kzoo.build(
        "unet_same", backbone="resnet20", backbone_weights="cifar10", adapt_input=True, input_shape=(32, 32, 1), width=2
    )
    kernels = [m.get_layer("conv1_conv").kernel.numpy().sum(2) for m in (grey, own)]
    np.testing.assert_allclose(*kernels, rtol=0, atol=5e-3)  # summed in the file's 16 bits
    assert {"backbone", "backbone_options", "backbone_weights"} <= known_options(kzoo.spec("unet_same")).keys()


def test_weights_of_a_whole_u_net_load_for_other_classes(tmp_path):
    options = {"input_shape": (16, 16, 3), "width": 2, "backbone": "resnet20", "backbone_options": {"depth": 8}}
    whole = randomise(kzoo.build("unet_same", seed=1, **options))
    np.savez(tmp_path / "whole.npz", **{v.path: v.numpy() for v in whole.weights})
    again = kzoo.build("unet_same", weights=tmp_path / "whole.npz", num_classes=5, **options)
    theirs = {v.path: v.numpy() for v in whole.weights}
    for v in again.weights:
        if not v.path.startswith("predictions/"):
            np.testing.assert_array_equal(v.numpy(), theirs[v.path])
    with pytest.raises(WeightsError, match="wrong shape: predictions/kernel"):
        kzoo.build("unet_same", weights=tmp_path / "whole.npz", num_classes=5, new_classifier=False, **options)
