"""A copy of a functional model as one flat graph: nested models taken apart, layers exchanged on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import keras
from keras import KerasTensor

from kzoo.builder import computing_in
from kzoo.errors import KzooError, first_line
from kzoo.hardware import POLICIES
from kzoo.walk import calls, is_model, probabilities

# A function of a layer (or operation) of the model and of its copy: what takes the copy's place; mostly the copy.
Change = Callable[[Any, Any], Any]


def nested_models(model: keras.Model) -> list[str]:
    """The names of the models that are called as layers of a model, or of one of those.

    Args:
        model: A functional or built Sequential model.
    """
    inside = [node.operation for node in calls(model.inputs, model.outputs) if is_model(node.operation)]
    found = [name for each in inside for name in (each.name, *nested_models(each))]
    return list(dict.fromkeys(found))


@computing_in()
def flat_copy(
    model: keras.Model,
    change: Change | None = None,
    *,
    outputs: int | None = None,
    input_shape: Sequence[int] | None = None,
    precision: str = "float32",
    full: tuple[type, ...] = (),
) -> keras.Model:
    """Copy a functional model, with layers and weights of its own, into one flat graph that computes in float32.

    Layers of nested models keep their names; where one is taken, the nested model's name stands before it. The model
    stays as it is.

    Args:
        model: A functional or built Sequential model, flat or nested.
        change: Called with each layer and its copy, before that is used; returns what stands in its place.
        outputs: How many of the model's outputs are kept; None keeps all.
        input_shape: (height, width, channels) in place of the model's own, for one that leaves sizes open.
        precision: What its layers compute in, "float32", "bfloat16" or "float16"; variables are float32.
        full: Classes of layers that compute in float32 all the same.

    Returns:
        The copy, of the same inputs.

    Raises:
        KzooError: The model has no graph, or a layer that can't be copied.

    Example:
        >>> inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")], name="inner")
        >>> outer = keras.Sequential([keras.Input((4,)), inner, keras.layers.Dense(2, name="b")])
        >>> [layer.name for layer in flat_copy(outer).layers[1:]]
        ['a', 'b']
    """
    if not is_model(model):
        raise KzooError(
            f"{getattr(model, 'name', model)!r} has no graph: only a functional keras.Model can be taken apart."
        )
    # The model's own layers keep their names.
    copies, names = {}, {operation.name for operation in getattr(model, "operations", model.layers)}

    def copied(operation, prefix):
        if id(operation) not in copies:
            name = operation.name
            while prefix and name in names:
                name = f"{prefix}_{name}"
            names.add(name)
            new = renamed(operation, name, "float32" if isinstance(operation, full) else precision)
            copies[id(operation)] = operation, new, change(operation, new) if change else new
        return copies[id(operation)][2]

    def run(inputs, ends, values, prefix):
        tensors = {id(t): value for t, value in zip(inputs, values, strict=True)}
        for node in calls(inputs, ends):
            args, kwargs = node.arguments.fill_in(tensors)
            if is_model(node.operation):
                inner = node.operation
                if kwargs.get("training"):
                    raise KzooError(f"{inner.name} is called as in training, which a flat copy can't be.")
                given = keras.tree.flatten(args[0] if args else kwargs.get("inputs"))
                results = run(inner.inputs, inner.outputs, given, inner.name)
            else:
                results = keras.tree.flatten(copied(node.operation, prefix)(*args, **kwargs))
            tensors.update((id(t), new) for t, new in zip(node.outputs, results, strict=True))
        return [tensors[id(t)] for t in ends]

    shape = None if input_shape is None else (None, *input_shape)
    inputs = [keras.Input(batch_shape=shape or t.shape, dtype=t.dtype, name=t.name) for t in model.inputs]
    try:
        ends = run(model.inputs, model.outputs[:outputs], inputs, "")
    except (ValueError, TypeError, NotImplementedError) as e:
        raise KzooError(f"{model.name} can't be copied into a flat graph: {first_line(e)}") from e
    for operation, new, _ in copies.values():
        if isinstance(new, keras.layers.Layer) and new.weights:
            new.set_weights([keras.ops.convert_to_numpy(v) for v in operation.weights])
    return keras.Model(_alone(inputs), _alone(ends), name=model.name)


def to_logits(model: keras.Model) -> tuple[Change | None, str, str]:
    """What `flat_copy` changes so that a softmax or sigmoid at the end is left out.

    Args:
        model: A functional model, flat or nested.

    Returns:
        (the change, the name of the last layer, "softmax" or "sigmoid"); (None, the name, "") for another end.
    """
    last, ending = probabilities(model)
    if not ending:
        return None, last.name, ""

    def change(original, copied):
        if original is not last:
            return copied
        if getattr(copied, "activation", None) is None or isinstance(copied, keras.layers.Activation):
            return lambda x, **options: x
        copied.activation = keras.activations.linear
        return copied

    return change, last.name, ending


def _alone(tensors: list[KerasTensor]) -> KerasTensor | list[KerasTensor]:
    return tensors[0] if len(tensors) == 1 else tensors


def renamed(operation: Any, name: str, precision: str = "float32") -> Any:
    """A copy of a layer that is not built yet, in this precision, or of an operation, under another name."""
    if not isinstance(operation, keras.layers.Layer):
        new = copy(operation)
        new.name = name
        new._inbound_nodes, new._outbound_nodes = [], []  # its calls in the model's graph
        return new
    config = operation.get_config()
    # Random numbers for 138 million weights would take longer than anything else here.
    config.update((key, "zeros") for key in list(config) if key.endswith("_initializer"))
    return type(operation).from_config({**config, "name": name, "dtype": POLICIES[precision]})
