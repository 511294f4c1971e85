"""Class scores of pictures and their gradients, for pixels and for feature maps: what attributions are made from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from kzoo.errors import KzooError
from kzoo.progress import Silent
from kzoo.synthesis.objective import differentiable, forward
from kzoo.visualizing.network import Network
from kzoo.walk import calls

VALUES_AT_ONCE = 1 << 28  # numbers of feature maps that a batch may have: 1 GiB in float32
MOST_AT_ONCE = 32  # pictures

Target = int | str | Sequence[int | str] | None


def batch_size(model: keras.Model) -> int:
    """How many pictures may be differentiated at once, by the size of the feature maps."""
    outputs = [t for layer in model.layers for t in keras.tree.flatten(layer.output)]
    values = sum(math.prod(t.shape[1:]) for t in outputs)
    return max(1, min(MOST_AT_ONCE, VALUES_AT_ONCE // max(1, values)))


def scores_of(outputs):
    """(B, C): a network's logits, of a network for segmentation their means over the positions."""
    return ops.mean(outputs, axis=(1, 2)) if len(outputs.shape) == 4 else outputs


def scores(network: Network, x: np.ndarray) -> np.ndarray:
    """The class scores of pictures.

    Args:
        network: a Network.
        x: (B, H, W, C) in 0..255.

    Returns:
        (B, classes): logits; of a network for segmentation their means over the positions.
    """
    run = network.compiled("scores", lambda: forward(network.model, lambda outputs, _: scores_of(outputs)))
    return np.concatenate([ops.convert_to_numpy(run(part, ())) for part in parts(network.model, x)])


def parts(model: keras.Model, x: np.ndarray) -> list[np.ndarray]:
    """Split a batch into such as can be computed at once, in the model's type."""
    size, x = batch_size(model), np.asarray(x, keras.backend.standardize_dtype(model.inputs[0].dtype))
    return [x[i : i + size] for i in range(0, len(x), size)]


def targets_of(network: Network, x: np.ndarray, target: Target) -> np.ndarray:
    """The class of each picture that is to be explained.

    Args:
        network: a Network.
        x: (B, H, W, C) in 0..255.
        target: a class, by number or name, or one for each picture; None: the class with the highest score.

    Returns:
        Class numbers (B,).

    Raises:
        UnknownName: there is no such class.
        KzooError: there are more or fewer targets than pictures.
    """
    if target is None:
        return scores(network, x).argmax(-1)
    if isinstance(target, (int, str, np.integer)):
        return np.full(len(x), network.class_number(target))
    if len(target) != len(x):
        raise KzooError(f"There are {len(target)} targets for {len(x)} pictures: give one for all, or one for each.")
    return np.array([network.class_number(t) for t in target])


def one_hot(network: Network, targets: np.ndarray) -> np.ndarray:
    """(B, classes) float32: 1 at the target of each picture."""
    return np.eye(len(network.classes), dtype="float32")[targets]


def weighted_scores(outputs, arguments):
    """(the sum of class scores by weights, the scores (B, C)) of a network's outputs, for `differentiable`."""
    found = scores_of(outputs)
    return ops.sum(found * ops.cast(arguments["weights"], found.dtype)), found


def pixel_gradients(
    network: Network, x: np.ndarray, weights: np.ndarray, progress: Silent | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The gradients of weighted sums of class scores for the pixels.

    Args:
        network: a Network.
        x: (B, H, W, C) in 0..255.
        weights: (B, classes).
        progress: counts the pictures.

    Returns:
        (the scores (B, classes), the gradients (B, H, W, C)).
    """
    run = network.compiled("pixels", lambda: differentiable(network.model, weighted_scores))
    found, gradients, done = [], [], 0
    for part in parts(network.model, x):
        (_, values), gradient = run(part, {"weights": weights[done : done + len(part)]})
        found.append(ops.convert_to_numpy(values))
        gradients.append(ops.convert_to_numpy(gradient))
        done += len(part)
        if progress is not None:
            progress.advance(len(part))
    return np.concatenate(found), np.concatenate(gradients)


class Probed(keras.Model):
    """A model of (pictures, zeros) that adds the zeros to the output of a layer: their gradient is the feature map's.

    It calls the layers of the model, which is not changed, one by one.

    Args:
        model: functional and flat.
        layer: the name of one of its layers.
    """

    def __init__(self, model: keras.Model, layer: str) -> None:
        super().__init__()
        self.inner, self.built = model, True
        self.at = keras.tree.flatten(model.get_layer(layer).output)[0]
        self.nodes = calls(model.inputs, model.outputs)

    def call(self, inputs, training=False):
        x, zeros = inputs
        tensors = {id(self.inner.inputs[0]): x}
        for node in self.nodes:
            args, kwargs = node.arguments.fill_in(tensors)
            results = keras.tree.flatten(node.operation(*args, **kwargs))
            for tensor, result in zip(node.outputs, results, strict=True):
                tensors[id(tensor)] = result + zeros if tensor is self.at else result
        return tensors[id(self.inner.outputs[0])], tensors[id(self.at)]


def map_gradients(
    network: Network, x: np.ndarray, weights: np.ndarray, layer: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The feature maps of a layer and the gradients of weighted sums of class scores for them.

    Args:
        network: a Network.
        x: (B, H, W, C) in 0..255.
        weights: (B, classes).
        layer: a name.

    Returns:
        (the scores (B, classes), the maps (B, h, w, K), their gradients (B, h, w, K)).

    Raises:
        UnknownName: there is no such layer.
        KzooError: it has no feature maps.
    """
    model, output = network.model, network.output_of(layer)
    if len(output.shape) != 4:
        raise KzooError(
            f"{layer} of {network.name} gives {tuple(output.shape)}, no feature maps: choose an earlier layer."
        )

    def weighted(outputs, arguments):
        value, found = weighted_scores(outputs[0], arguments)
        return value, (found, outputs[1])

    run = network.compiled(f"maps of {layer}", lambda: differentiable(Probed(model, layer), weighted))
    results, done = [], 0
    for part in parts(model, x):
        zeros = np.zeros((len(part), *output.shape[1:]), part.dtype)
        (_, (values, maps)), (_, gradient) = run([part, zeros], {"weights": weights[done : done + len(part)]})
        results.append([ops.convert_to_numpy(a) for a in (values, maps, gradient)])
        done += len(part)
    return tuple(np.concatenate(arrays) for arrays in zip(*results, strict=True))
