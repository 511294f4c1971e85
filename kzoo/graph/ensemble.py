"""Several classifiers as one network, which averages their probabilities."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import keras

from kzoo.builder import computing_in
from kzoo.layers import LogMeanSoftmax
from kzoo.walk import calls


@computing_in()
def ensemble(models: Sequence[keras.Model], temperatures: Sequence[float], name: str = "ensemble") -> keras.Model:
    """Join classifiers into one flat functional model: log(mean_m softmax(logits_m / T_m)).

    Args:
        models: functional models of one input shape, images (B, H, W, C) in 0..255 to logits (B, classes). Their
            weights are copied; of several outputs the first counts.
        temperatures: one for each, above 0.
        name: of the model.

    Returns:
        A model whose layers are those of the members, with the prefix "member1_", "member2_", ...

    Example:
        >>> import kzoo
        >>> members = [kzoo.build("mnist_softmax", seed=seed) for seed in (0, 1)]
        >>> model = ensemble(members, [1.0, 1.0])
        >>> model.output_shape, [layer.name for layer in model.layers][-1]
        ((None, 10), 'ensemble')
    """
    image = keras.Input(models[0].inputs[0].shape[1:], dtype="float32", name="image")
    logits = [_repeated(model, image, f"member{number}_") for number, model in enumerate(models, 1)]
    return keras.Model(image, LogMeanSoftmax(temperatures, name="ensemble")(logits), name=name)


def _repeated(model, image, prefix):
    """The main output of a copy of a model on an image; its layers get a prefix, since names in a model are unique."""
    copies, tensors = {}, {id(model.inputs[0]): image}
    for node in calls(model.inputs, [model.outputs[0]]):
        layer = node.operation
        first = id(layer) not in copies
        if first:
            copies[id(layer)] = _copied(layer, prefix + layer.name)
        args, kwargs = node.arguments.fill_in(tensors)
        results = keras.tree.flatten(copies[id(layer)](*args, **kwargs))
        tensors.update((id(t), new) for t, new in zip(node.outputs, results, strict=True))
        if first and isinstance(layer, keras.layers.Layer):
            copies[id(layer)].set_weights(layer.get_weights())
    return tensors[id(model.outputs[0])]


def _copied(layer, name):
    if isinstance(layer, keras.layers.Layer):
        return type(layer).from_config({**layer.get_config(), "name": name})
    operation = copy.copy(layer)  # operations such as padding (LeNet-5's) have no weights and no precision
    operation.name, operation._inbound_nodes, operation._outbound_nodes = name, [], []
    return operation
