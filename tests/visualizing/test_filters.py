"""Filters and feature maps are what the network has, and their pictures can be turned back into numbers."""

import keras
import numpy as np
import pytest
from keras import layers
from visualizing.conftest import filled

import kzoo
from kzoo.errors import KzooError, UnknownName
from kzoo.layers import Preprocess
from kzoo.visualizing import drawing
from kzoo.visualizing.filters import feature_maps, filters, layers_to_show, picture_of_maps
from kzoo.visualizing.network import find_network


def test_the_picture_turned_back_into_numbers_is_the_kernel(shipped):
    """One scale for all filters, with signs."""
    network, _ = shipped
    found = filters(network)
    kernel = np.asarray(network.model.get_layer(found.layer).kernel)
    np.testing.assert_array_equal(found.kernels, np.moveaxis(kernel, -1, 0))
    back = np.stack([drawing.from_grey(tile, found.scale) for tile in found.tiles()])
    np.testing.assert_allclose(back, found.kernels, atol=found.scale / 255 + 1e-6)
    assert found.scale == np.abs(kernel).max() and (back < 0).any() and found.of_pixels
    whole, n = found.picture(), round(28 / 3)
    np.testing.assert_array_equal(whole[: 3 * n : n, : 3 * n : n], found.tiles()[0])
    np.testing.assert_array_equal(whole[: 3 * n : n, 3 * n + 2 : 6 * n + 2 : n], found.tiles()[1])


def test_filters_of_a_network_that_reads_bgr_are_shown_in_rgb():
    inputs = keras.Input((8, 8, 3))
    model = filled(keras.Model(inputs, layers.Conv2D(4, 3, name="c")(Preprocess("bgr")(inputs))))
    kernel = np.moveaxis(np.asarray(model.get_layer("c").kernel), -1, 0)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(model.outputs[0]))
    np.testing.assert_array_equal(filters(model).kernels, kernel[..., ::-1])


def test_other_layers_and_other_first_layers(pooled):
    deep = filters(pooled, "conv2")
    assert deep.kernels.shape == (6, 3, 3, 5) and not deep.of_pixels and len(deep.tiles()) == 30
    inputs = keras.Input((8, 8, 3))
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="each")(inputs)
    depthwise = filters(keras.Model(inputs, layers.GlobalAveragePooling2D()(x)))
    assert depthwise.kernels.shape == (6, 3, 3, 1), "each kernel sees one channel"
    softmax = filters(kzoo.build("mnist_softmax", seed=0))
    assert softmax.kernels.shape == (10, 28, 28, 1) and softmax.of_pixels
    for name, match in (("gap", "has no kernel"), ("predictions", "dense layer behind others")):
        with pytest.raises(KzooError, match=match):
            filters(pooled, name)
    with pytest.raises(UnknownName, match="Did you mean 'conv2'"):
        filters(pooled, "conv22")


def test_maps_are_what_the_layer_gives(pooled, pictures):
    maps = feature_maps(pooled, pictures, "relu1")
    model = pooled.model
    x = model.get_layer("bn1")(model.get_layer("conv1")(pictures), training=False)
    np.testing.assert_allclose(maps, np.maximum(x, 0), rtol=1e-5, atol=1e-5)
    assert layers_to_show(pooled) == ["relu1", "conv2"]
    assert len(layers_to_show(find_network("vgg_cifar10"), most=3)) == 3
    picture, numbers, scale = picture_of_maps(maps[0], most=2)
    assert numbers == np.argsort(-maps[0].std((0, 1)), kind="stable")[:2].tolist()
    shown = np.clip(maps[0][..., numbers[1]] / scale, 0, 1)
    n = round(56 / 12)
    second = picture[: 12 * n : n, 10 * n + 2 :: n].astype(int).sum(-1)
    assert np.corrcoef(shown.reshape(-1), second.reshape(-1))[0, 1] > 0.9
