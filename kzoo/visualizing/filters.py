"""Filters and feature maps: the kernels of a layer, and what layers give for a picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from kzoo.errors import KzooError
from kzoo.layers import Preprocess
from kzoo.visualizing import drawing
from kzoo.visualizing.cam import MERE
from kzoo.visualizing.gradients import parts
from kzoo.visualizing.network import find_network

MOST_FILTERS, MOST_SLICES, MOST_MAPS = 96, 16, 32  # in a picture
SIDE = 28  # pixels of a filter's tile, about
PASSED = (*MERE, layers.Rescaling, layers.Normalization)  # layers whose maps are not shown


@dataclass(frozen=True)
class Filters:
    """The kernels of a layer.

    Attributes:
        kernels: (K, h, w, C), one for each unit, over RGB where the layer sees the picture.
        layer: its name.
        of_pixels: whether the layer sees the picture itself, so that a kernel is a small picture.
    """

    kernels: np.ndarray
    layer: str
    of_pixels: bool

    @property
    def scale(self) -> float:
        """The largest absolute value of all kernels: their one scale."""
        return drawing.scale_of(self.kernels)

    def tiles(self) -> list[np.ndarray]:
        """A picture of each kernel, (h, w, 3) uint8, all on one scale, grey for 0.

        A kernel of three channels that sees the picture is in colour; of one channel in grey; of others the first 16
        channels are side by side.
        """
        kernels = self.kernels[:MOST_FILTERS]
        if self.of_pixels and kernels.shape[-1] in (1, 3):
            return list(drawing.as_rgb(k) for k in drawing.around_grey(kernels, self.scale))
        kernels = kernels[:MOST_SLICES, ..., :MOST_SLICES]
        pixels = drawing.around_grey(kernels, self.scale)
        return [drawing.as_rgb(k[..., c : c + 1]) for k in pixels for c in range(k.shape[-1])]

    def picture(self) -> np.ndarray:
        """All tiles in a grid, (H, W, 3) uint8."""
        tiles = self.tiles()
        own = self.of_pixels and self.kernels.shape[-1] in (1, 3)
        columns = None if own else min(MOST_SLICES, self.kernels.shape[-1])
        if own and len(tiles) > 4:
            columns = math.ceil(math.sqrt(2 * len(tiles)))
        return drawing.grid(tiles, columns, enlarge=max(1, round(SIDE / max(tiles[0].shape[:2]))))


def filters(network: Any, layer: str | None = None) -> Filters:
    """The kernels of a layer: of the first one that has any, unless another is named.

    A dense layer directly behind the picture has a kernel of the picture's size for each unit.

    Args:
        network: a Network, or anything that `find_network` takes.
        layer: a convolution, or a dense layer behind the picture; None: the first layer with a kernel.

    Returns:
        A Filters.

    Raises:
        KzooError: a layer that does not exist or has no kernels to look at.

    Example:
        >>> import kzoo
        >>> filters(kzoo.build("resnet20", depth=8, seed=0)).kernels.shape
        (16, 3, 3, 3)

    Reference:
        Krizhevsky et al. 2012, figure 3.
    """
    network = find_network(network)
    if layer is None:
        with_kernels = (each for each in network.model.layers if kernel_of(each) is not None)
        first = next(with_kernels, None)
        if first is None:
            raise KzooError(f"{network.name} has no layer with kernels, so there are no filters to show.")
        layer = first.name
    network.output_of(layer)  # refuses an unknown name
    found = network.model.get_layer(layer)
    variable = kernel_of(found)
    if variable is None:
        raise KzooError(f"{layer} of {network.name} has no kernel: choose a convolution.")
    kernel, sees = ops.convert_to_numpy(variable).astype("float32"), sees_pixels(found)
    if kernel.ndim == 2:
        if not sees:
            raise KzooError(f"{layer} of {network.name} is a dense layer behind others: choose a convolution.")
        kernel = kernel.reshape(*network.shape, -1)
    if kernel.ndim != 4:
        raise KzooError(f"{layer} of {network.name} has kernels of the shape {kernel.shape}: choose a convolution.")
    if isinstance(found, layers.DepthwiseConv2D):  # (h, w, C, multiplier): each of its kernels sees one channel
        kernel = kernel.reshape(*kernel.shape[:2], 1, -1)
    if isinstance(found, layers.Conv2DTranspose):  # (h, w, out, in)
        kernel = kernel.swapaxes(2, 3)
    entrance = next((each for each in network.model.layers if isinstance(each, Preprocess)), None)
    if sees and entrance is not None and entrance.channel_order == "bgr":
        kernel = kernel[:, :, ::-1]
    return Filters(np.ascontiguousarray(np.moveaxis(kernel, -1, 0)), layer, sees)


def kernel_of(layer: Any) -> keras.Variable | None:
    """The kernel of a convolution or dense layer; of a separable convolution the depthwise one."""
    found = getattr(layer, "kernel", None)
    found = getattr(layer, "depthwise_kernel", None) if found is None else found
    return found if isinstance(found, keras.Variable) else None


def sees_pixels(layer: layers.Layer) -> bool:
    """Whether only scaling, padding and reshaping stand between the picture and a layer."""
    passing = (Preprocess, layers.Rescaling, layers.Normalization, layers.Flatten, layers.InputLayer, *MERE)
    pools = (layers.MaxPooling2D, layers.AveragePooling2D, layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)
    tensor = layer.input
    while not isinstance(tensor, list):
        operation = tensor._keras_history.operation
        if isinstance(operation, layers.InputLayer):
            return True
        if not isinstance(operation, passing) or isinstance(operation, pools):
            return False
        tensor = operation.input
    return False


def feature_maps(network: Any, images: Any, layer: str) -> np.ndarray:
    """What a layer gives for pictures.

    Args:
        network: a Network, or anything that `find_network` takes.
        images: (B, H, W, C) in 0..255, or one picture or several, arrays or files.
        layer: its name.

    Returns:
        (B, h, w, K), or (B, K) of a layer without positions.

    Raises:
        KzooError: a network, picture or layer that does not exist or can't be used.
    """
    network = find_network(network)
    part = network.up_to(layer)
    found = [part(some, training=False) for some in parts(network.model, network.batch(images))]
    return np.concatenate([ops.convert_to_numpy(some) for some in found])


def layers_to_show(network: Any, most: int = 5) -> list[str]:
    """Layers whose feature maps show how a picture is taken apart: the last of each size, from shallow to deep.

    Args:
        network: a Network, or anything that `find_network` takes.
        most: how many; of more, some between the first and the last are left out.

    Returns:
        Names of layers.
    """
    network = find_network(network)
    last: dict[tuple, str] = {}
    for layer in network.model.layers[1:]:
        shape = tuple(keras.tree.flatten(layer.output)[0].shape)[1:]
        if len(shape) == 3 and None not in shape and shape[0] * shape[1] > 1 and not isinstance(layer, PASSED):
            last.pop(shape[:2], None)
            last[shape[:2]] = layer.name
    found = list(last.values())
    at = np.unique(np.linspace(0, len(found) - 1, most).round().astype(int)) if len(found) > most else range(len(found))
    return [found[i] for i in at]


def picture_of_maps(maps: np.ndarray, most: int = MOST_MAPS) -> tuple[np.ndarray, list[int], float]:
    """Draw the feature maps of a picture that have the most contrast, on one scale.

    Args:
        maps: (h, w, K).
        most: how many are drawn.

    Returns:
        (a picture (H, W, 3) uint8, the numbers of the maps, that with the largest standard deviation first, the value
        that gets the full colour). Maps with values below 0 are drawn with signs.
    """
    order = np.argsort(-maps.std((0, 1)), kind="stable")[:most]
    chosen = np.moveaxis(maps[..., order], -1, 0)
    scale = drawing.scale_of(chosen, drawing.GREATEST)
    coloured = (drawing.signed if chosen.min() < 0 else drawing.unsigned)(chosen, scale)
    enlarge = max(1, round(56 / max(maps.shape[:2])))
    return drawing.grid(list(coloured), min(8, len(order)), enlarge=enlarge), order.tolist(), scale
