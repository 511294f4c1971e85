"""The calls of layers that a functional Keras model is made of."""


def calls(inputs, outputs):
    """The calls (Keras nodes) that lead from tensors to tensors, each behind those that it needs, branch by branch.

    inputs, outputs: lists of KerasTensors. A node has operation, input_tensors and output_tensors.
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
