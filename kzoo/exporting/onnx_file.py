"""An ONNX file that takes pictures of any size: preparation and network as one model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kzoo.exporting.pictures import IMAGE, PREPARED

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18


def joined(
    prepare: ModelProto,
    network: ModelProto,
    shape: Sequence[int],
    outputs: Mapping[str, Sequence[int]],
    facts: Mapping[str, Any],
) -> ModelProto:
    """Put the preparation in front of a network.

    Args:
        prepare: from pictures to prepared images, with one input and one output.
        network: takes what that gives.
        shape: (height, width, channels) of that.
        outputs: name -> shape without the batch, of the network's outputs in its order.
        facts: JSON values for the file's metadata.

    Returns:
        One model with the input "image", the outputs by name, and one batch dimension for all.
    """
    import onnx
    from onnx import TensorProto, compose, helper

    def ends(model):
        return [value.name for value in (*model.graph.input, *model.graph.output)]

    given = prepare.graph.input[0].type.tensor_type.shape.dim[3].dim_value
    prepare = _renamed(prepare, "prepare/", dict(zip(ends(prepare), (IMAGE, PREPARED), strict=True)))
    network = _renamed(network, "network/", dict(zip(ends(network), ("network/input", *outputs), strict=True)))
    whole = compose.merge_models(prepare, network, io_map=[(PREPARED, "network/input")])
    graph = whole.graph
    del whole.opset_import[:]  # those of both parts
    whole.opset_import.append(helper.make_opsetid("", OPSET))
    del graph.input[:], graph.output[:], graph.value_info[:]  # each part has a batch dimension of its own
    graph.input.append(helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, ["batch", "height", "width", given]))
    graph.value_info.append(helper.make_tensor_value_info(PREPARED, TensorProto.FLOAT, ["batch", *shape]))
    for name, size in outputs.items():
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *size]))
    graph.name = whole.producer_name = "kzoo"
    for key, value in facts.items():
        whole.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    onnx.checker.check_model(whole)
    return whole


def _renamed(model, prefix, names):
    """A copy with other names: those of `names`, and the prefix before all others, of tensors and nodes."""
    from onnx import compose

    model = compose.add_prefix(model, prefix)
    names = {prefix + old: new for old, new in names.items()}
    for node in model.graph.node:
        for tensors in (node.input, node.output):
            tensors[:] = [names.get(name, name) for name in tensors]
    for value in (*model.graph.input, *model.graph.output):
        value.name = names[value.name]
    return model


def without_preparation(whole: ModelProto, outputs: Sequence[str]) -> ModelProto:
    """The network of a model of `joined`, from "prepared" to some of its outputs."""
    from onnx.utils import Extractor

    return Extractor(whole).extract_model([PREPARED], list(outputs))
