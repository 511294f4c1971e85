"""Class activation maps: where in the last feature maps a class's logit comes from, with signs, always on logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from kzoo.errors import KzooError
from kzoo.layers import Preprocess
from kzoo.visualizing.gradients import Target, map_gradients, one_hot, parts, targets_of
from kzoo.visualizing.network import Network, find_network

POOLS = (layers.GlobalAveragePooling2D, layers.AveragePooling2D)
LEAST = 4  # positions along a side that a map should have, to show a place
# Layers whose maps say no more than those in front of them.
MERE = (
    layers.MaxPooling2D,
    layers.AveragePooling2D,
    layers.GlobalMaxPooling2D,
    layers.GlobalAveragePooling2D,
    layers.ZeroPadding2D,
    layers.Cropping2D,
    layers.Dropout,
    layers.SpatialDropout2D,
    layers.Reshape,
    layers.Identity,
    Preprocess,
)


@dataclass(frozen=True)
class ClassMaps:
    """Class activation maps of pictures.

    Attributes:
        maps: (B, h, w), with signs: above 0 speaks for the class.
        layer: whose feature maps they are made from.
        targets: class numbers (B,).
        logits: of the targets (B,).
        bias: of `cam`: what the classifier adds, (B,); mean(map) + bias is the logit.
    """

    maps: np.ndarray
    layer: str
    targets: np.ndarray
    logits: np.ndarray
    bias: np.ndarray | None = None


def default_layer(network: Any) -> str:
    """The layer that class activation maps are made from: the last whose feature maps have at least 4x4 positions.

    If none has, it is the last with more than one position. Pooling, padding and dropout do not count. In a network for
    segmentation it is the last of the smallest maps.

    Args:
        network: a Network, or anything that `find_network` takes.

    Raises:
        KzooError: no layer has feature maps.
    """
    network = find_network(network)
    found = []
    for layer in network.model.layers[1:]:
        shape = keras.tree.flatten(layer.output)[0].shape
        if len(shape) == 4 and None not in shape[1:] and shape[1] * shape[2] > 1 and not isinstance(layer, MERE):
            found.append((layer.name, min(shape[1:3]) if not network.dense else shape[1] * shape[2]))
    if not found:
        raise KzooError(f"{network.name} has no layer with feature maps, so there is no class activation map of it.")
    if network.dense:
        smallest = min(positions for _, positions in found)
        found = [pair for pair in found if pair[1] == smallest]
    else:
        found = [pair for pair in found if pair[1] >= LEAST] or found
    return found[-1][0]


def _of_gradients(function: Callable) -> Callable:
    """Make a method: its function gives the maps (B, h, w) of features and their gradients, both (B, h, w, K)."""

    def method(network, images, target, layer):
        network = find_network(network)
        x = network.batch(images)
        layer = layer or default_layer(network)
        targets = targets_of(network, x, target)
        found, features, gradients = map_gradients(network, x, one_hot(network, targets), layer)
        return ClassMaps(function(features, gradients), layer, targets, found[np.arange(len(x)), targets])

    return method


def gradcam(network: Any, images: Any, target: Target = None, *, layer: str | None = None) -> ClassMaps:
    """Grad-CAM: the feature maps of a layer, weighted by the mean gradients of a class's logit for them.

    The paper ends in a ReLU; here the sign is kept, so that a map that is negative everywhere is seen to be so.

    Args:
        network: a Network, or anything that `find_network` takes.
        images: (B, H, W, C) in 0..255, or one picture or several, arrays or files.
        target: the class, by number or name, or one for each picture; None: the class with the highest logit.
        layer: a layer with feature maps; None: see `default_layer`.

    Returns:
        A ClassMaps.

    Raises:
        KzooError: a network, picture, class or layer that does not exist or can't be used.

    Example:
        >>> import kzoo
        >>> gradcam(kzoo.build("resnet20", depth=8, seed=0), np.ones((32, 32, 3)), target=3).maps.shape
        (1, 8, 8)

    Reference:
        Selvaraju et al. 2016, arXiv:1610.02391, section 3.
    """
    return _of_gradients(lambda a, g: np.einsum("bhwk,bk->bhw", a, g.mean((1, 2))))(network, images, target, layer)


def gradcam_plus_plus(network: Any, images: Any, target: Target = None, *, layer: str | None = None) -> ClassMaps:
    """Grad-CAM++: Grad-CAM with weights that count each position where a map rises the logit.

    w = sum of alpha max(g, 0), alpha = g^2 / (2 g^2 + sum(A) g^3), for the exponential of the logit as the score. The
    sign is kept.

    Args:
        network: as for `gradcam`.
        images: as for `gradcam`.
        target: as for `gradcam`.
        layer: as for `gradcam`.

    Returns:
        A ClassMaps.

    Raises:
        KzooError: as `gradcam`.

    Reference:
        Chattopadhyay et al. 2017, arXiv:1710.11063, equations 10 and 19.
    """

    def maps(a, g):
        below = 2 * g**2 + a.sum((1, 2), keepdims=True) * g**3
        alpha = np.divide(g**2, below, out=np.zeros_like(g), where=below != 0)
        return np.einsum("bhwk,bk->bhw", a, (alpha * np.maximum(g, 0)).sum((1, 2)))

    return _of_gradients(maps)(network, images, target, layer)


def hirescam(network: Any, images: Any, target: Target = None, *, layer: str | None = None) -> ClassMaps:
    """HiResCAM: the sum over feature maps of map times gradient, position by position.

    Args:
        network: as for `gradcam`.
        images: as for `gradcam`.
        target: as for `gradcam`.
        layer: as for `gradcam`.

    Returns:
        A ClassMaps; behind global pooling and one dense layer, sum(map) + bias is the logit.

    Raises:
        KzooError: as `gradcam`.

    Reference:
        Draelos and Carin 2020, arXiv:2011.08891, section 3.
    """
    return _of_gradients(lambda a, g: (a * g).sum(-1))(network, images, target, layer)


def layercam(network: Any, images: Any, target: Target = None, *, layer: str | None = None) -> ClassMaps:
    """LayerCAM: the sum over feature maps of map times positive gradient; also for early layers.

    Args:
        network: as for `gradcam`.
        images: as for `gradcam`.
        target: as for `gradcam`.
        layer: as for `gradcam`.

    Returns:
        A ClassMaps.

    Raises:
        KzooError: as `gradcam`.

    Reference:
        Jiang et al. 2021, IEEE TIP 30, equation 6.
    """
    return _of_gradients(lambda a, g: (a * np.maximum(g, 0)).sum(-1))(network, images, target, layer)


# --- CAM ---------------------------------------------------------------------------------------------------


def cam(network: Any, images: Any, target: Target = None) -> ClassMaps:
    """CAM: the feature maps in front of global average pooling, weighted as the classifier behind it weights them.

    mean(map) + bias is the logit, exactly. Everything behind the pooling must be linear (dense layers, 1x1
    convolutions, dropout); then its weights are read off what it makes of unit vectors.

    Args:
        network: as for `gradcam`.
        images: as for `gradcam`.
        target: as for `gradcam`.

    Returns:
        A ClassMaps.

    Raises:
        KzooError: as `gradcam`, or the network has no global average pooling in front of a linear classifier.

    Reference:
        Zhou et al. 2015, arXiv:1512.04150, section 2.
    """
    network = find_network(network)
    x = network.batch(images)
    layer, weights, bias = pooled_classifier(network)
    targets = targets_of(network, x, target)
    front = network.compiled("cam", lambda: keras.Model(network.model.inputs[0], pooled(network)[0].input))
    features = np.concatenate([ops.convert_to_numpy(front(part, training=False)) for part in parts(network.model, x)])
    maps = np.einsum("bhwk,kb->bhw", features, weights[:, targets])
    return ClassMaps(maps, layer, targets, maps.mean((1, 2)) + bias[targets], bias[targets])


def class_map(network: Any, images: Any, target: Target = None, *, layer: str | None = None) -> tuple[ClassMaps, str]:
    """CAM where a network has it and no layer is asked for, else Grad-CAM.

    Args:
        network: as for `gradcam`.
        images: as for `gradcam`.
        target: as for `gradcam`.
        layer: as for `gradcam`.

    Returns:
        (the maps, "CAM" or "Grad-CAM").

    Raises:
        KzooError: as `gradcam`.
    """
    network = find_network(network)
    if layer is None and not network.dense and not why_no_cam(network):
        return cam(network, images, target), "CAM"
    return gradcam(network, images, target, layer=layer), "Grad-CAM"


def why_no_cam(network: Network) -> str:
    """Why `cam` can't be computed of a network, in a sentence; "" if it can."""
    try:
        pooled_classifier(network)
    except KzooError as e:
        return str(e)
    return ""


def pooled(network: Network) -> tuple[layers.Layer, keras.layers.Layer]:
    """The global average pooling of a network, and the part behind it.

    Raises:
        KzooError: there is none that everything behind depends on alone.
    """
    for layer in reversed(network.model.layers):
        if isinstance(layer, POOLS) and len(layer.input.shape) == 4:
            out = layer.output.shape
            if len(out) == 2 or tuple(out[1:3]) == (1, 1):
                if layer.output is network.model.outputs[0]:
                    return layer, keras.layers.Identity(dtype="float32")
                try:
                    return layer, keras.Model(layer.output, network.model.outputs[0])
                except ValueError:  # another path leads round it
                    break
    raise KzooError(
        f"{network.name} has no global average pooling in front of its classifier, so CAM can't be computed: use "
        "gradcam, which needs none."
    )


def pooled_classifier(network: Network) -> tuple[str, np.ndarray, np.ndarray]:
    """What CAM needs: the layer in front of the pooling, and weights (K, classes) and biases (classes,) behind it.

    Raises:
        KzooError: there is no global average pooling, or what stands behind it is not linear.
    """
    return network.compiled("pooled classifier", lambda: _pooled_classifier(network))


def _pooled_classifier(network):
    layer, behind = pooled(network)
    shape = tuple(layer.output.shape[1:])
    units = np.eye(shape[-1], dtype="float32").reshape(-1, *shape)
    probe = np.random.default_rng(0).standard_normal((1, *shape)).astype("float32")
    inputs = np.concatenate([np.zeros((1, *shape), "float32"), units, probe])
    found = ops.convert_to_numpy(behind(inputs, training=False))
    found = found.reshape(len(found), -1).astype("float64")
    bias, weights = found[0], found[1:-1] - found[0]
    expected = probe.reshape(-1).astype("float64") @ weights + bias
    if not np.allclose(expected, found[-1], rtol=1e-3, atol=1e-3 * np.abs(weights).max()):
        raise KzooError(
            f"What stands behind the global pooling of {network.name} is not linear, so CAM can't be computed: use "
            "gradcam."
        )
    return layer.input._keras_history.operation.name, weights, bias
