"""Class activation maps: their sums are the logit, their signs stay, and they follow the picture."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from visualizing.conftest import filled

import kzoo
from kzoo.errors import KzooError
from kzoo.synthesis.objective import differentiable
from kzoo.visualizing import cam
from kzoo.visualizing.gradients import map_gradients, one_hot, scores
from kzoo.visualizing.network import find_network


def test_the_maps_of_a_pooled_network_sum_to_its_logits(pooled, pictures):
    """mean(CAM) + bias = logit, sum(HiResCAM) + bias = logit, Grad-CAM is CAM divided by the positions."""
    for target in range(3):
        found, logits = cam.cam(pooled, pictures, target), scores(pooled, pictures)[:, target]
        high = cam.hirescam(pooled, pictures, target)
        assert found.layer == high.layer == "conv2" and found.maps.shape == (2, 6, 5)
        gap = np.abs(found.maps.mean((1, 2)) + found.bias - logits) / np.abs(logits)
        print(f"CAM: {gap.max():.1e} of the logit")
        assert gap.max() <= 1e-6
        np.testing.assert_allclose(high.maps.sum((1, 2)) + found.bias, logits, rtol=2e-6)
        np.testing.assert_allclose(cam.gradcam(pooled, pictures, target).maps, found.maps / 30, rtol=1e-4, atol=1e-6)


def test_gradients_of_feature_maps_are_those_of_the_part_behind(pooled, pictures):
    weights = one_hot(pooled, np.array([0, 2]))
    found, maps, gradients = map_gradients(pooled, pictures, weights, "pool1")
    np.testing.assert_allclose(found, scores(pooled, pictures), rtol=1e-5)
    np.testing.assert_allclose(maps, pooled.up_to("pool1")(pictures), rtol=1e-5)
    behind = keras.Model(pooled.output_of("pool1"), pooled.model.outputs[0])
    _, expected = differentiable(behind, lambda y, w: (ops.sum(y * w), y))(maps, weights)
    np.testing.assert_allclose(gradients, expected, rtol=1e-5, atol=1e-7)


def test_the_equations_of_the_others(pooled, pictures):
    _, a, g = (m.astype("float64") for m in map_gradients(pooled, pictures, one_hot(pooled, np.array([1, 1])), "conv2"))
    alpha = g**2 / (2 * g**2 + a.sum((1, 2), keepdims=True) * g**3)
    weights = (alpha * np.maximum(g, 0)).sum((1, 2), keepdims=True)
    np.testing.assert_allclose(cam.gradcam_plus_plus(pooled, pictures, 1).maps, (a * weights).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(cam.layercam(pooled, pictures, 1).maps, (a * np.maximum(g, 0)).sum(-1), rtol=1e-4)


def test_a_map_that_is_negative_everywhere_stays_negative(pooled, pictures):
    """Elsewhere its zero maximum makes NaN of it, or a red picture."""
    network = find_network(pooled.model)
    kernel = network.model.get_layer("predictions").kernel
    before = np.asarray(kernel).copy()
    try:
        kernel.assign(-np.abs(before))
        for method in (cam.cam, cam.gradcam, cam.hirescam):
            maps = method(network, pictures, 0).maps
            assert np.isfinite(maps).all() and (maps <= 0).all() and maps.min() < 0
    finally:
        kernel.assign(before)


def test_a_mirrored_picture_has_a_mirrored_map_where_the_kernels_are_symmetric(pictures):
    inputs = keras.Input((12, 10, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="c")(inputs)
    model = filled(keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x))))
    kernel = model.get_layer("c").kernel
    kernel.assign((np.asarray(kernel) + np.asarray(kernel)[:, ::-1]) / 2)
    for method in (cam.cam, cam.gradcam, cam.layercam):
        maps = method(model, pictures, 0).maps
        np.testing.assert_allclose(method(model, pictures[:, :, ::-1], 0).maps, maps[:, :, ::-1], rtol=1e-4, atol=1e-6)


def test_cam_says_what_to_use_where_it_can_not_be(shipped, pictures):
    network, photos = shipped
    with pytest.raises(KzooError, match=r"no global average pooling .*use gradcam") as e:
        cam.cam(network, photos)
    assert "\n" not in str(e.value)
    assert cam.gradcam(network, photos[:1]).maps.shape[1] >= 4
    inputs = keras.Input((12, 10, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs))
    hidden = filled(keras.Model(inputs, layers.Dense(2)(layers.Dense(8, activation="relu")(x))))
    with pytest.raises(KzooError, match=r"not linear.* use gradcam"):
        cam.cam(hidden, pictures)
    with pytest.raises(KzooError, match="no feature maps: choose an earlier"):
        cam.gradcam(hidden, pictures, layer=hidden.layers[-1].name)


def test_class_maps_in_front_of_the_pooling_are_cam_and_every_layer_can_be_asked():
    """All-CNN ends in a map for each class; ResNet's maps stand within branches."""
    network = find_network(kzoo.build("allcnn_c", width=8, num_classes=3, seed=0))
    x = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype("float32")
    found = cam.cam(network, x, 1)
    np.testing.assert_allclose(found.maps.mean() + found.bias[0], scores(network, x)[0, 1], rtol=1e-5)
    resnet = find_network(kzoo.build("resnet20", depth=8, seed=0))
    inside = next(name for name in resnet.layers if name.endswith("_1_conv"))
    assert cam.gradcam(resnet, x, 1, layer=inside).layer == inside


def test_segmentation_explains_the_mean_logit_of_a_class():
    network = find_network(kzoo.build("unet_same", width=4, depth=2, num_classes=3, input_shape=(16, 16, 3), seed=0))
    x = np.random.default_rng(0).uniform(0, 255, (1, 16, 16, 3)).astype("float32")
    logits = np.asarray(network.model(x))
    np.testing.assert_allclose(scores(network, x), logits.mean((1, 2)), rtol=1e-4, atol=1e-6)
    found = cam.gradcam(network, x, 2)
    assert network.dense and found.maps.shape == (1, 4, 4), "at the bottom, where maps are smallest"
    np.testing.assert_allclose(found.logits, logits[..., 2].mean(), rtol=1e-4, atol=1e-6)
