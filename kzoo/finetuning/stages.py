"""A network's stages from the top, and which of them an option names: what trains beside the head."""

from __future__ import annotations

from dataclasses import dataclass

import keras

from kzoo.errors import unknown
from kzoo.graph.walk import calls

HEAD = "predictions"
HEAD_RATE, STAGE_RATE = 3e-4, 1e-4  # AdamW's, for the head and the top stage
FACTOR = 0.3  # from a stage to the one below


@dataclass(frozen=True)
class Stage:
    """Layers with weights whose outputs are of one size; name: that size ("7x7"), "dense" for flat outputs."""

    name: str
    layers: tuple[str, ...]


def stages(model):
    """The stages of a network, from the top, without the head.

    One rule for all networks: a stage is the layers whose output has the same height and width (a ResNet's conv5 is
    7x7, conv4 14x14; VGG's fc layers are "dense"). Batch norm is in none: it stays frozen.

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


def selected_stages(model, unfreeze):
    """The stages from the top that `unfreeze` names: "auto" and "all" mean every one.

    Else the name of a stage ("7x7"), or how names of layers begin ("conv5", "block_16", "fire9"): from the first such
    layer up. Raises UnknownName with the stages.
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


def set_trainable(network, stage_list):
    """Set what trains: the head and the layers of these stages. Returns {path of a variable: factor of its rate}."""
    moving = {HEAD: HEAD_RATE / STAGE_RATE}
    for depth, stage in enumerate(stage_list):
        moving.update(dict.fromkeys(stage.layers, FACTOR**depth))
    for layer in network.layers:
        layer.trainable = layer.name in moving
    return {v.path: moving[layer.name] for layer in network.layers for v in layer.trainable_variables}
