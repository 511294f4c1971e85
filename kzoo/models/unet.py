"""U-Net (Ronneberger, Fischer and Brox 2015, arXiv:1505.04597, Figure 1), and one that keeps the size of the picture.

Level i has 1/2^(i - 1) of the picture's height and width: down1 is the upper left corner of Figure 1, down5 its bottom,
up1 its upper right corner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import keras
from keras import KerasTensor, layers

from kzoo.catalog import spec
from kzoo.catalog.imports import architecture
from kzoo.errors import KzooError
from kzoo.layers import BatchNormalization
from kzoo.walk import calls

# --- Parts -----------------------------------------------------------------------------------------------


def two_convs(x: KerasTensor, filters: int, *, name: str, padding: str, batch_norm: bool = False) -> KerasTensor:
    """Two 3x3 convolutions, each with a ReLU; He initialisation (section 3).

    Args:
        x: (B, H, W, C).
        filters: Channels of the result.
        name: Prefix of the layers.
        padding: "valid", as published, or "same".
        batch_norm: Whether batch norm stands between each convolution and its ReLU.

    Returns:
        (B, H, W, filters), 4 rows and columns less if "valid".
    """
    for i in (1, 2):
        x = layers.Conv2D(
            filters,
            3,
            padding=padding,
            activation=None if batch_norm else "relu",
            use_bias=not batch_norm,
            kernel_initializer="he_normal",
            name=f"{name}_conv{i}",
        )(x)
        if batch_norm:
            x = BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn{i}")(x)
            x = layers.ReLU(name=f"{name}_relu{i}")(x)
    return x


def up_convolution(x: KerasTensor, filters: int, *, name: str) -> KerasTensor:
    """The up-convolution 2x2: each pixel becomes 2x2 pixels by a transposed convolution.

    Args:
        x: (B, H, W, C).
        filters: Channels of the result.
        name: Of the layer.

    Returns:
        (B, 2 H, 2 W, filters).
    """
    # A unit has C inputs. Keras' he_normal takes a transposed kernel (2, 2, filters, C) for one with 4 * filters.
    start = keras.initializers.RandomNormal(stddev=(2 / x.shape[-1]) ** 0.5)
    return layers.Conv2DTranspose(filters, 2, strides=2, kernel_initializer=start, name=name)(x)


def contracting(
    x: KerasTensor, *, width: int, depth: int, padding: str, dropout: float, batch_norm: bool = False
) -> list[KerasTensor]:
    """The contracting path: `depth` times two convolutions and a max pool 2x2, and two convolutions at the bottom.

    Args:
        x: (B, H, W, C).
        width: Filters of the first level; they double from level to level.
        depth: How many pools.
        padding: See `two_convs`.
        dropout: Share that is dropped at the end of the path: behind the last two levels.
        batch_norm: See `two_convs`.

    Returns:
        The maps of the levels, the finest first.
    """
    maps = []
    for level in range(1, depth + 2):
        if level > 1:
            x = layers.MaxPooling2D(2, name=f"down{level - 1}_pool")(x)
        x = two_convs(x, width * 2 ** (level - 1), name=f"down{level}", padding=padding, batch_norm=batch_norm)
        if dropout and level >= depth:
            x = layers.Dropout(dropout, name=f"down{level}_drop")(x)
        maps.append(x)
    return maps


def expanding(maps: Sequence[KerasTensor | None], *, width: int, padding: str, batch_norm: bool = False) -> KerasTensor:
    """The expanding path: up-convolution, concatenation with the map of that level, two convolutions.

    Args:
        maps: Of the levels, the finest first; None where a level has none to concatenate.
        width: Filters of the first level; they double from level to level.
        padding: See `two_convs`; with "valid" the maps are cropped to what is left.
        batch_norm: See `two_convs`.

    Returns:
        (B, H, W, width).
    """
    x, crop = maps[-1], 4  # pixels of a map that the two convolutions below it cost on each side
    for level in range(len(maps) - 1, 0, -1):
        filters = width * 2 ** (level - 1)
        x = up_convolution(x, filters, name=f"up{level}_upconv")
        skip = maps[level - 1]
        if skip is not None:
            if padding == "valid":
                skip = layers.Cropping2D(crop, name=f"up{level}_crop")(skip)
            x = layers.Concatenate(name=f"up{level}_concat")([skip, x])
        x = two_convs(x, filters, name=f"up{level}", padding=padding, batch_norm=batch_norm)
        crop = 2 * crop + 8  # this level's two convolutions, and those of the next, on both paths
    return x


def pixelwise(x: KerasTensor, num_classes: int | None) -> KerasTensor:
    """The last layer: a 1x1 convolution.

    Args:
        x: (B, H, W, C).
        num_classes: How many logits; None returns the features.

    Returns:
        float32 logits (B, H, W, num_classes).
    """
    if num_classes is None:
        return x
    return layers.Conv2D(num_classes, 1, dtype="float32", name="predictions")(x)


def check_depth(depth: int) -> None:
    """Check a number of pools.

    Raises:
        KzooError: It is no integer from 1 to 8.
    """
    if type(depth) is not int or not 1 <= depth <= 8:
        raise KzooError(f"depth is how many pools a U-Net has, an integer from 1 to 8; got {depth!r}.")


# --- Networks --------------------------------------------------------------------------------------------


def unet(
    x: KerasTensor, *, num_classes: int | None, width: int = 64, depth: int = 4, dropout: float = 0.5
) -> KerasTensor:
    """U-Net as published: no convolution is padded, so that the maps of the contracting path are cropped.

    Args:
        x: (B, H, W, C). H and W are multiples of 16 plus 60, from 188 (with depth d: of 2^d plus 4 * (2^d - 1), from
            12 * 2^d - 4).
        num_classes: How many logits; None stops at the features.
        width: Filters of the first level.
        depth: How many pools.
        dropout: Share that is dropped at the end of the contracting path.

    Returns:
        Logits (B, H - 184, W - 184, num_classes) of the pixels in the middle, or features (B, H - 184, W - 184, width).

    Raises:
        KzooError: H or W is another number, or `depth` is none.

    Reference:
        Ronneberger, Fischer and Brox 2015, arXiv:1505.04597, Figure 1.
    """
    check_depth(depth)
    step, sides = 2**depth, x.shape[1:3]
    border, least = 4 * (step - 1), 12 * step - 4
    if any(n is not None and (n < least or (n - border) % step) for n in sides):
        raise KzooError(
            f"unet of depth {depth} takes heights and widths of {step} n + {border} pixels from {least}, so that every "
            f"pool halves an even number; got {sides[0]}x{sides[1]}. unet_same takes multiples of {step}."
        )
    maps = contracting(x, width=width, depth=depth, padding="valid", dropout=dropout)
    return pixelwise(expanding(maps, width=width, padding="valid"), num_classes)


def unet_same(
    x: KerasTensor,
    *,
    num_classes: int | None,
    width: int = 64,
    depth: int | None = None,
    dropout: float = 0.0,
    batch_norm: bool = True,
    backbone: str | None = None,
    backbone_options: Mapping[str, Any] | None = None,
) -> KerasTensor:
    """U-Net with padded convolutions: logits of every pixel. A network of the catalog may be its contracting path.

    A backbone's layers keep their names. Its map at each stride is the last one that everything behind it depends on
    (of a ResNet: the end of a stage).

    Args:
        x: (B, H, W, C). H and W are multiples of 2^depth (16); with a backbone of its last stride (32, mostly).
        num_classes: How many logits; None stops at the features.
        width: Filters of the first level; they double from level to level.
        depth: How many pools, 4 by default; a backbone has its own.
        dropout: Share that is dropped at the end of the contracting path; a backbone has its own.
        batch_norm: Whether batch norm stands between each convolution and its ReLU (of a backbone: in the expanding
            path).
        backbone: A model of the catalog whose maps halve exactly: resnet20, mobilenet_v2, vgg16, ...
        backbone_options: Options of its architecture.

    Returns:
        Logits (B, H, W, num_classes), or features (B, H, W, width).

    Raises:
        KzooError: H or W is another number, options exclude each other, or the network can't be a backbone.
        UnknownName: There is no such backbone.

    Reference:
        Ronneberger, Fischer and Brox 2015, arXiv:1505.04597, with "same" padding.
    """
    if backbone is not None:
        if depth is not None or dropout:
            raise KzooError(f"The backbone {backbone} has a depth and dropout of its own: leave depth and dropout out.")
        maps = backbone_maps(x, backbone, backbone_options or {})
    elif backbone_options:
        raise KzooError(f"backbone_options are those of a backbone, and none is named; got {dict(backbone_options)}.")
    else:
        depth = 4 if depth is None else depth
        check_depth(depth)
        sides = x.shape[1:3]
        if any(n is not None and n % 2**depth for n in sides):
            raise KzooError(
                f"unet_same of depth {depth} takes heights and widths that are multiples of {2**depth}; got "
                f"{sides[0]}x{sides[1]}."
            )
        maps = contracting(x, width=width, depth=depth, padding="same", dropout=dropout, batch_norm=batch_norm)
    return pixelwise(expanding(maps, width=width, padding="same", batch_norm=batch_norm), num_classes)


# --- Backbones -------------------------------------------------------------------------------------------


def backbone_maps(x: KerasTensor, name: str, options: Mapping[str, Any]) -> list[KerasTensor | None]:
    """Build a network of the catalog up to its last map, and return the map of each level.

    Args:
        x: (B, H, W, C), preprocessed.
        name: A model of the catalog.
        options: Of its architecture, in place of the row's.

    Returns:
        The maps of the strides 1, 2, 4, ...; None for 1 if the network begins with a stride.

    Raises:
        KzooError: H or W are open, or the network's maps are not 1/2, 1/4, ... of the picture.
        UnknownName: There is no such model.
    """
    row = spec(name)
    network, sides = architecture(row), tuple(x.shape[1:3])
    if len(x.shape) != len(row.input_shape) + 1 or None in sides:
        raise KzooError(f"A backbone needs a picture of fixed height and width; {name} was given {tuple(x.shape[1:])}.")
    options = {**row.config, **options}
    if "hidden" in signature(network).parameters:
        options["hidden"] = 0  # VGG's dense layers: a hundred million weights behind the maps
    out = network(x, num_classes=None, **options)
    nodes = calls([x], keras.tree.flatten(out)[:1])
    last_use = {id(t): i for i, node in enumerate(nodes) for t in node.input_tensors}
    needed, found, deepest = last_use.get(id(x), 0), {}, sides
    for i, node in enumerate(nodes):
        y = node.output_tensors[0]
        # All that follows depends on y alone. What a pool gives is the map in front of it.
        if needed <= i and len(y.shape) == 4 and not isinstance(node.operation, layers.MaxPooling2D):
            deepest, factor = y.shape[1:3], sides[0] // y.shape[1]
            if tuple(n * factor for n in deepest) == sides and factor & (factor - 1) == 0:
                found[factor] = y
        needed = max(needed, last_use.get(id(y), i))
    stride = max(found, default=1)
    halved = all(2**level in found for level in range(1, stride.bit_length()))
    if stride == 1 or not halved or tuple(n * stride for n in deepest) != sides:
        raise KzooError(
            f"{name} can't be the backbone for {sides[0]}x{sides[1]} pixels: its maps, the last of {deepest[0]}x"
            f"{deepest[1]}, are not 1/2, 1/4, ... of that. Take multiples of 32, and a network that pads its "
            "convolutions (resnet, mobilenet, vgg; not Inception or AlexNet)."
        )
    return [found.get(2**level) for level in range(stride.bit_length())]


def encoder(model: keras.Model, name: str) -> keras.Model:
    """The contracting path of a built U-Net, which shares its layers and weights.

    Args:
        model: The U-Net.
        name: Of the result.

    Returns:
        From the picture to the last map in front of the first up-convolution.
    """
    first = next(layer for layer in model.layers if isinstance(layer, layers.Conv2DTranspose))
    return keras.Model(model.input, first.input, name=name)
