"""A network's stages from the top, and those that `unfreeze` selects to train with the head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras

from kzoo.errors import unknown
from kzoo.walk import calls

HEAD = "predictions"
HEAD_RATE, STAGE_RATE = 3e-4, 1e-4  # learning rates of AdamW, for the head and the top stage
DEPTH_FACTOR = 0.3  # of the learning rate, from a stage to the one below


@dataclass(frozen=True)
class Stage:
    """Layers with weights whose outputs have one size.

    Attributes:
        name: that size, such as "7x7"; "dense" for flat outputs.
        layers: their names, from the input up.
    """

    name: str
    layers: tuple[str, ...]


def stages(model: keras.Model) -> list[Stage]:
    """List the stages of a network from the top, without the head.

    One rule holds for all networks: a stage is the layers whose outputs have the same height and width (a ResNet's
    conv5 is 7x7, conv4 14x14; VGG's fc layers are "dense"). Batch norm belongs to no stage: it stays frozen.

    Example:
        >>> import kzoo
        >>> [s.name for s in stages(kzoo.build("resnet20", depth=8))]
        ['8x8', '16x16', '32x32']
    """
    found = {}
    for node in calls(model.inputs, model.outputs[:1]):
        layer, shape = node.operation, node.outputs[0].shape
        if not getattr(layer, "weights", None) or layer.name == HEAD or not _trains(layer):
            continue
        name = "x".join(str(n) for n in shape[1:3]) if len(shape) == 4 else "dense"
        layers = found.setdefault(name, [])
        if layer.name not in layers:
            layers.append(layer.name)
    return [Stage(name, tuple(layers)) for name, layers in reversed(list(found.items()))]


def _trains(layer):
    return not isinstance(layer, keras.layers.BatchNormalization)


def selected_stages(model: keras.Model, unfreeze: str) -> list[Stage]:
    """Select stages from the top.

    Args:
        model: the network.
        unfreeze: "auto" and "all" select every stage; a stage's name ("7x7") all down to that one; the start of layers'
            names ("conv5", "block_16", "fire9") all from the first such layer up.

    Raises:
        UnknownName: nothing has that name; the message lists the stages.
    """
    found = stages(model)
    if unfreeze in ("auto", "all"):
        return found
    names = [s.name for s in found]
    if unfreeze in names:
        return found[: names.index(unfreeze) + 1]
    for i in range(len(found) - 1, -1, -1):
        first = next((j for j, name in enumerate(found[i].layers) if name.startswith(unfreeze)), None)
        if first is not None:
            return [*found[:i], Stage(found[i].name, found[i].layers[first:])]
    listed = "; ".join(f"{s.name}: {s.layers[0]} to {s.layers[-1]}" for s in found)
    everything = [*names, *(name for s in found for name in s.layers)]
    hint = f"Give none, auto, all, a stage, or how a layer's name begins: {listed}."
    raise unknown("stage", unfreeze, everything, hint)


def set_trainable(network: keras.Model, stage_list: Sequence[Stage], head: Sequence[str] = (HEAD,)) -> dict[str, float]:
    """Unfreeze the head and the layers of some stages, and freeze all others.

    Args:
        network: with the head.
        stage_list: from the top.
        head: names of the head's layers: the classifier, or a decoder.

    Returns:
        {path of a trainable variable: factor of its learning rate}, relative to the top stage's.
    """
    moving = dict.fromkeys(head, HEAD_RATE / STAGE_RATE)
    for depth, stage in enumerate(stage_list):
        moving.update(dict.fromkeys(stage.layers, DEPTH_FACTOR**depth))
    for layer in network.layers:
        layer.trainable = layer.name in moving
    return {v.path: moving[layer.name] for layer in network.layers for v in layer.trainable_variables}


def moving_variables(network: keras.Model) -> dict[str, keras.Variable]:
    """{path: variable} of all that training may change: of a batch norm that trains, its statistics as well."""
    return {v.path: v for layer in network.layers if layer.trainable for v in layer.weights}
