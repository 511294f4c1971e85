"""What maximisation, inversion and DeepDream share: the compiled features of a network, and pictures in and out."""

from __future__ import annotations

import math
import os
import time
from dataclasses import replace
from typing import Any

import numpy as np

from kzoo.data.images import with_channels
from kzoo.errors import KzooError
from kzoo.synthesis import pictures
from kzoo.synthesis.gradient_rules import with_rule
from kzoo.synthesis.network import at_own_size, cut_network, source_of
from kzoo.synthesis.objective import CompiledNetwork
from kzoo.visualizing.network import Network

LOGITS = "logits"  # in place of a layer's name
KEY = "kzoo-visualize"  # of the record that a PNG carries


def compiled_features(
    network: Network, layer: str, *, any_size: bool = False, tile: int | None = None, rule: str = "plain"
) -> CompiledNetwork:
    """Compile a network from its input to a layer; the network keeps the result.

    Args:
        network: what is looked at; its model is not changed.
        layer: the name of a layer, or "logits".
        any_size: for pictures of any size; the layer must be a feature map. Pooling and padding stay.
        tile: see `CompiledNetwork`.
        rule: of the gradients, see `with_rule`.

    Raises:
        UnknownName: there is no such layer or rule.
        KzooError: the layer can't be had at any size, or not in tiles.
    """

    def make():
        part = network.model if layer == LOGITS else network.up_to(layer)
        if any_size and len(part.outputs[0].shape) != 4:
            raise KzooError(f"{layer} of {network.name} is not a feature map, so it needs pictures of its own size.")
        if any_size:
            found = cut_network(
                source_of(part), content_layers=(layer,), style_layers=(), pooling="max", padding="zeros"
            )
        else:
            found = at_own_size(part, (layer,))
        if rule != "plain":
            found = replace(found, model=with_rule(found.model, rule)[0])
        return CompiledNetwork(found, tile)

    found: Any = network.compiled(f"features {layer} {any_size} {tile} {rule}", make)
    return found


def until(budget: float | None) -> float | None:
    """When a budget of seconds is over, on the clock of time.monotonic; None for None.

    Raises:
        KzooError: it is not above 0.
    """
    if budget is not None and not budget > 0:
        raise KzooError(f"budget must be a number of seconds above 0, got {budget!r}.")
    return None if budget is None else time.monotonic() + budget


def check_weight(name: str, value: float) -> None:
    """Raise a KzooError unless a number is finite and not below 0."""
    if not (isinstance(value, (int, float)) and math.isfinite(value) and value >= 0):
        raise KzooError(f"{name} must be a number, 0 or above, got {value!r}.")


def output_shape(compiled: CompiledNetwork, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the features of a picture (1, H, W, C): (1, h, w, N) or (1, N)."""
    return tuple(compiled.shapes(*shape[1:3])[compiled.network.layers[0]])


def photo(picture: str | os.PathLike | np.ndarray, channels: int) -> np.ndarray:
    """A picture of the user's at its own size, (H, W, channels) uint8.

    Raises:
        DataError: it can't be read, or is too small.
    """
    return np.asarray(with_channels(pictures.given(picture), channels))


def write(path: str | os.PathLike, picture: np.ndarray, settings: dict[str, Any]) -> None:
    """Write a picture as a PNG that carries how it was made."""
    from kzoo import __version__

    pictures.write_picture(path, picture, {"kzoo": __version__, "settings": settings}, key=KEY)
