"""The network that style transfer compares pictures with: the paper's layers of VGG by default."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kzoo.catalog.pretrained import OFFLINE_STYLE
from kzoo.errors import KzooError, WeightsError
from kzoo.synthesis.network import CatalogModel, FeatureNetwork, catalog_model, cut_network

# Gatys et al. 2016, section 3; behind the ReLU, which VGG with batch norm has as a layer of its own.
CONTENT, STYLE = ("block4_conv2",), tuple(f"block{i}_conv1" for i in range(1, 6))
# kzoo's own network saw 32 pixels, at which a window is one position of block4: there alone, houses melt.
OWN_CONTENT = ("block2_conv2", "block4_conv2")


def model_of(name: str, weights: str) -> str:
    """The name of the model that weights are for: kzoo's own weights are not for VGG-19, the default.

    Example:
        >>> model_of("vgg19", "cifar10"), model_of("vgg19", "imagenet")
        ('vgg_cifar10', 'vgg19')
    """
    return OFFLINE_STYLE[0] if name == "vgg19" and weights == OFFLINE_STYLE[1] else name


def style_network(
    name: str = "vgg19",
    weights: str = "imagenet",
    *,
    content_layers: Sequence[str] | None = None,
    style_layers: Sequence[str] | None = None,
    pooling: str = "average",
    padding: str = "replicate",
    precision: str = "float32",
    seed: int = 0,
    picture: np.ndarray | None = None,
) -> tuple[FeatureNetwork, list[str]]:
    """The feature network of a model of the catalog, with the paper's layers by default.

    Args:
        name: of the model.
        weights: a tag ("imagenet"), the path of a file, or "random". A file that has only the first layers is enough:
            of the default layers those are used that it has, and a note says so.
        content_layers, style_layers: names of layers; None: the paper's, for VGG.
        pooling: "average", as the paper's pictures were made with, or "max", as the network was trained with.
        padding: of convolutions: "replicate" repeats the border; "zeros", as in training, darkens the features there.
        precision: "float32" or "bfloat16".
        seed: for random weights.
        picture: (H, W, 3) in 0..255, for random weights: each layer is scaled to a mean activation of 1 on it.

    Returns:
        (the network, notes for the user).

    Raises:
        UnknownName: a model, layer, pooling or padding that does not exist.
        WeightsError: weights that can't be had, do not fit, or do not reach a layer.
        KzooError: a model without the paper's layers, where none are given; one that can't take pictures of any size.
    """
    source = catalog_model(name, weights, precision=precision)
    content, style, notes = layers_for(source, content_layers, style_layers)
    network = cut_network(
        source,
        content_layers=content,
        style_layers=style,
        pooling=pooling,
        padding=padding,
        seed=seed,
        picture=picture,
    )
    return network, notes


def layers_for(
    source: CatalogModel, content: Sequence[str] | None = None, style: Sequence[str] | None = None
) -> tuple[tuple[str, ...], tuple[str, ...], list[str]]:
    """Fill in the paper's layers, those that the weights reach, where none are given.

    Args:
        source: the model and its weights.
        content, style: names of layers; None: the paper's, and of kzoo's own weights `OWN_CONTENT`.

    Returns:
        (content layers, style layers, notes on departures from the paper's).

    Raises:
        KzooError: the model does not have the paper's layers.
        WeightsError: the weights reach none of them, or not a layer that was asked for.
    """
    source.check_layers([*(content or ()), *(style or ())])

    def relu(n):
        return n.replace("conv", "relu") if "block1_relu1" in source.layers else n

    usual = OWN_CONTENT if (source.model.name, source.weights) == OFFLINE_STYLE else CONTENT
    paper_content, paper_style = tuple(map(relu, usual)), tuple(map(relu, STYLE))
    notes = []
    if style is None:
        if not set(paper_style) <= set(source.layers):
            name = source.model.name
            raise KzooError(f"The paper's layers are VGG's: name {name}'s style layers. kzoo info {name} shows all.")
        style = tuple(n for n in paper_style if source.reaches(n))
        if not style:
            raise WeightsError(f"{source.weights} holds none of the style layers {', '.join(paper_style)}.")
        if style != paper_style:
            notes.append(f"{source.weights} holds the first layers only. Style layers: {', '.join(style)}.")
    if content is None:
        content = paper_content
        if not set(content) <= set(source.layers) or not all(map(source.reaches, content)):
            content = (style[-1],)
            notes.append(f"Content layer: {content[0]}, in place of {paper_content[0]}.")
    return tuple(content), tuple(style), notes
