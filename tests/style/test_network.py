"""The paper's layers by default, as far as the weights reach."""

import os
from pathlib import Path

import numpy as np
import pytest
from support.style import STYLE

from kzoo.errors import KzooError, WeightsError
from kzoo.style.network import CONTENT, layers_for, model_of, style_network
from kzoo.style.network import STYLE as STYLE_LAYERS
from kzoo.synthesis.network import catalog_model, cut_network

DATA = Path(os.environ.get("KZOO_DATA") or Path(__file__).parents[3] / "shared" / "data")


def test_the_papers_layers():
    net, notes = style_network("vgg11", "random", picture=STYLE)
    assert (net.content, net.style, notes) == (CONTENT, STYLE_LAYERS, [])
    with_norm, _ = style_network("vgg_cifar10_bn", "random", picture=STYLE)
    assert with_norm.content == ("block4_relu2",) and with_norm.style[0] == "block1_relu1", "behind the ReLU"
    with pytest.raises(KzooError, match="style layers"):
        style_network("resnet20", "random", picture=STYLE)


def test_of_a_file_of_the_first_layers_those_are_used_and_a_note_says_so(tmp_path):
    path = tmp_path / "front.npz"
    layers = ("block1_conv1", "block2_conv1", "block3_conv1")
    whole = cut_network(
        catalog_model("vgg11", "random"), picture=STYLE, content_layers=layers[-1:], style_layers=layers
    )
    np.savez(path, **{v.path: np.asarray(v) for l in whole.model.layers for v in l.weights})
    net, notes = style_network("vgg11", str(path))
    assert net.style == layers and net.content == ("block3_conv1",)
    assert "first layers only" in notes[0] and "block3_conv1" in notes[1]
    with pytest.raises(WeightsError, match="up to block4_conv2"):
        style_network("vgg11", str(path), content_layers=("block4_conv2",))
    np.savez(path, **{"fc1/bias": np.ones(4096, "float32")})
    with pytest.raises(WeightsError, match="none of the style layers"):
        style_network("vgg11", str(path))


def test_kzoos_own_weights_are_for_its_own_model():
    assert model_of("vgg19", "cifar10") == "vgg_cifar10"
    assert model_of("vgg16", "cifar10") == "vgg16" and model_of("vgg19", "imagenet") == "vgg19"
    own, random = (catalog_model("vgg_cifar10", weights) for weights in ("cifar10", "random"))
    assert layers_for(own) == (("block2_conv2", "block4_conv2"), STYLE_LAYERS, [])
    assert layers_for(own, content=CONTENT)[0] == layers_for(random)[0] == CONTENT


def test_the_real_front():
    path = DATA / "weights" / "vgg19_normalised_conv3_1.npz"
    if not path.is_file():
        pytest.skip(f"needs {path} (set KZOO_DATA)")
    net, _ = style_network("vgg19", str(path))
    assert net.style == ("block1_conv1", "block2_conv1", "block3_conv1") and (net.stride, net.halo) == (4, 12)
    assert len(net.model.weights) == 10
