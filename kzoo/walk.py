"""The calls of layers in the graph of a functional Keras model, and how it ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras import KerasTensor, Model
    from keras.src.ops.node import Node


def calls(inputs: Sequence[KerasTensor], outputs: Sequence[KerasTensor]) -> list[Node]:
    """List the calls (Keras nodes) between tensors in the order of the computation, branch by branch.

    Args:
        inputs: Where the computation begins.
        outputs: Where it ends.

    Returns:
        Nodes with `operation`, `input_tensors` and `output_tensors`, each behind those that it needs.
    """
    done, stack, order = {id(t) for t in inputs}, [(t, False) for t in reversed(outputs)], []
    while stack:  # depth first, without recursion: a DenseNet has hundreds of layers in a row
        tensor, ready = stack.pop()
        if id(tensor) in done:
            continue
        operation, index, _ = tensor._keras_history
        node = operation._inbound_nodes[index]
        if ready:
            order.append(node)
            done.update(map(id, node.output_tensors))
        else:
            stack.append((tensor, True))
            stack.extend((t, False) for t in reversed(node.input_tensors))
    return order


def is_model(operation: Any) -> bool:
    """Return whether an operation in a graph is a model with a graph of its own (functional or Sequential)."""
    from keras import Model

    return isinstance(operation, Model) and bool(getattr(operation, "inputs", None))


def probabilities(model: Model) -> tuple[Any, str]:
    """Find out whether the first output of a model is a softmax or sigmoid.

    Args:
        model: A functional model; its last layer may stand in a nested one.

    Returns:
        (the last layer or operation, "softmax" or "sigmoid", or "" for another).
    """
    import keras

    operation, _, index = model.outputs[0]._keras_history
    while is_model(operation):
        operation, _, index = operation.outputs[index]._keras_history
    for name in ("softmax", "sigmoid"):
        function = getattr(keras.activations, name)
        if type(operation).__name__ == name.title() or getattr(operation, "activation", None) is function:
            return operation, name
    return operation, ""
