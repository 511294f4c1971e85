"""An ONNX file that takes pictures of any size: `kzoo.data.images.fit` as ONNX nodes in front of a converted network.

tf2onnx does not write ONNX's antialiased Resize, so the nodes are written here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kzoo.data.images import GREY, LONGEST

if TYPE_CHECKING:
    from onnx import ModelProto

    from kzoo.catalog import Preprocessing

OPSET = 18  # the first with an antialiased Resize
IMAGE, PREPARED = "image", "prepared"


def preparation(shape: tuple[int, int, int], given: int, preprocessing: Preprocessing) -> ModelProto:
    """The rules of `kzoo.data.images` from decoded pictures to a network's input, as an ONNX model.

    Args:
        shape: (height, width, channels) of the network's input.
        given: channels of the pictures; 3 where `shape` has 1 become grey.
        preprocessing: crop and interpolation.

    Returns:
        A model from "image", uint8 (batch, height, width, given), to "prepared", float32 whole numbers 0..255
        (batch, *shape).
    """
    from onnx import TensorProto, helper, numpy_helper

    height, width, channels = shape
    nodes, constants = [], []

    def constant(values, kind="int64"):
        constants.append(numpy_helper.from_array(np.array(values, kind), f"constant_{len(constants)}"))
        return constants[-1].name

    def node(kind, *inputs, out=None, **attributes):
        name = out or f"{kind.lower()}_{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [name], name=f"prepare/{name}", **attributes))
        return name

    target, two, axes = constant([height, width]), constant([2]), constant([2, 3])
    x = node("Cast", IMAGE, to=TensorProto.FLOAT)
    if given != channels:
        x = node("Round", node("MatMul", x, constant(np.reshape(GREY, (3, 1)), "float32")))
    x = node("Transpose", x, perm=[0, 3, 1, 2])
    # The middle of what is very long.
    size = node("Shape", x, start=2, end=4)
    other = node("Gather", size, constant([1, 0]))
    most = node("Mul", other, constant([LONGEST * height, LONGEST * width]))
    most = node("Div", node("Add", most, constant([width - 1, height - 1])), constant([width, height]))
    middle = node("Min", size, most)
    start = node("Div", node("Sub", size, middle), two)
    x = node("Slice", x, start, node("Add", start, middle), axes)
    # The size from which the centre is cropped, in float64 as there.
    exact = node("Cast", middle, to=TensorProto.DOUBLE)
    scale = node("ReduceMax", node("Div", constant([height, width], "float64"), exact))
    scale = node("Div", scale, constant([preprocessing.crop], "float64"))
    new = node("Cast", node("Round", node("Mul", exact, scale)), to=TensorProto.INT64)
    new = node("Max", new, target)
    whole = node("Concat", node("Shape", x, start=0, end=2), new, axis=0)
    x = node(
        "Resize",
        x,
        "",
        "",
        whole,
        mode={"bilinear": "linear", "bicubic": "cubic"}[preprocessing.interpolation],
        antialias=1,
        exclude_outside=1,
        cubic_coeff_a=-0.5,
        coordinate_transformation_mode="half_pixel",
    )
    corner = node("Div", node("Sub", new, target), two)
    x = node("Slice", x, corner, node("Add", corner, target), axes)
    x = node("Clip", node("Round", x), constant(0, "float32"), constant(255, "float32"))
    node("Transpose", x, perm=[0, 2, 3, 1], out=PREPARED)
    picture = helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, ["batch", "height", "width", given])
    ready = helper.make_tensor_value_info(PREPARED, TensorProto.FLOAT, ["batch", *shape])
    graph = helper.make_graph(nodes, "prepare", [picture], [ready], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])


def joined(
    prepare: ModelProto, network: ModelProto, outputs: Mapping[str, Sequence[int]], facts: Mapping[str, Any]
) -> ModelProto:
    """Put the preparation in front of a network.

    Args:
        prepare: of `preparation`.
        network: takes what that gives.
        outputs: the names of the network's outputs, in its order, with their shapes without the batch.
        facts: JSON values for the file's metadata.

    Returns:
        One model with the input "image", the outputs by name, and one batch dimension for all.
    """
    import onnx
    from onnx import TensorProto, compose, helper

    network.ir_version = prepare.ir_version
    whole = compose.merge_models(
        compose.add_prefix(prepare, "prepare/", rename_inputs=False, rename_outputs=False, rename_nodes=False),
        compose.add_prefix(network, "network/", rename_nodes=False),
        io_map=[(PREPARED, f"network/{network.graph.input[0].name}")],
    )
    graph, before = whole.graph, [o.name for o in whole.graph.output]
    for old, new in zip(before, outputs, strict=True):
        for node in graph.node:
            for names in (node.input, node.output):
                names[:] = [new if name == old else name for name in names]
    del graph.output[:], graph.value_info[:]
    for name, shape in outputs.items():
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape]))
    graph.value_info.append(prepare.graph.output[0])
    graph.name, whole.producer_name = "kzoo", "kzoo"
    for key, value in facts.items():
        whole.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    onnx.checker.check_model(whole)
    return whole


def without_preparation(whole: ModelProto, outputs: Sequence[str]) -> ModelProto:
    """The network of a model of `joined`, from "prepared" to some of its outputs."""
    from onnx.utils import Extractor

    return Extractor(whole).extract_model([PREPARED], list(outputs))
