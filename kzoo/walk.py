"""The calls of layers in the graph of a functional Keras model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras import KerasTensor
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
