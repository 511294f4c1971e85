"""Several classifiers as one network, which averages their probabilities."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import keras

from kzoo.builder import computing_in
from kzoo.layers import LogMeanSoftmax


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
    image = keras.Input(models[0].input_shape[1:], dtype="float32", name="image")
    logits = []
    for number, model in enumerate(models, 1):
        inputs = keras.tree.map_structure(lambda _: image, model.input)
        found = keras.models.clone_model(model, input_tensors=inputs, clone_function=_renamer(f"member{number}_"))
        found.set_weights(model.get_weights())
        logits.append(found.outputs[0])
    return keras.Model(image, LogMeanSoftmax(temperatures, name="ensemble")(logits), name=name)


def _renamer(prefix):
    """A function that copies a layer under another name: the names in a model are unique."""

    def renamed(layer):
        if isinstance(layer, keras.layers.Layer):
            return type(layer).from_config({**layer.get_config(), "name": prefix + layer.name})
        operation = copy.copy(layer)  # operations such as padding (LeNet-5's) have no weights and no policy
        operation.name, operation._inbound_nodes, operation._outbound_nodes = prefix + layer.name, [], []
        return operation

    return renamed
