"""The TensorFlow operations that an export may consist of. Standard library only.

A SavedModel is a program, and most of TensorFlow's 1,900 operations are of no use to a classifier; some of them read or
write files, open connections or call Python. So what is allowed is listed, not what is forbidden.
tests/exporting/test_operations.py holds the lists against the exports of the whole catalog.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensorflow.core.framework.function_pb2 import FunctionDef
    from tensorflow.core.framework.node_def_pb2 import NodeDef
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# From encoded images to pixels, and from outputs to labels: in every export.
AROUND = _words(
    """
    Abs AddN AddV2 All Any ArgMax AsString Assert BatchDatasetV2 Case Cast ConcatV2 ConcatenateDataset Const
    DatasetToSingleElement DecodeBmp DecodeGif DecodeJpeg DecodePng DecodeRaw DecodeWebP EncodePng EnsureShape Equal
    ExpandDims ExtractJpegShape Fill FloorDiv FloorMod GatherV2 Greater GreaterEqual Identity If IgnoreErrorsDataset
    Less LessEqual LogicalAnd LogicalNot LogicalOr LowerBound MatMul Max Maximum Min Minimum Mul Neg NoOp NotEqual
    OptionsDataset Pack PadV2 ParallelMapDatasetV2 PartitionedCall Placeholder Pow Prod Range RangeDataset RealDiv
    Reshape ReverseV2 Round ScaleAndTranslate SelectV2 Shape Size Softmax Square Squeeze StatefulPartitionedCall
    StatelessIf StatelessWhile StaticRegexFullMatch StaticRegexReplace StridedSlice StringJoin StringLength
    StringToNumber Sub Substr Sum TensorDataset TensorScatterUpdate Tile TopKV2 Transpose Where ZerosLike
    """
)
# The networks of the catalog that take pictures.
NETWORKS = _words(
    """
    AddV2 AvgPool BiasAdd Cast ConcatV2 Const Conv2D Conv2DBackpropInput DepthwiseConv2dNative Einsum FusedBatchNormV3
    GatherV2 Identity MatMul MaxPool Mean Mul Pack Pad PadV2 Placeholder Pow Prod Relu Relu6 Reshape Shape Split Square
    Squeeze StridedSlice Sub Sum Tanh Transpose
    """
)
# What Keras' layers and activations add, for networks that are not in the catalog (`kzoo.export(keras.Model)`).
KERAS = _words(
    """
    BatchMatMulV2 BatchToSpaceND Bitcast BitwiseAnd Ceil Cos Cumsum Einsum Elu Erf Erfc Exp
    ExpandDims Expm1 Floor IdentityN IsFinite IsNan LeakyRelu Log Log1p LogSoftmax MirrorPad OneHot OnesLike
    Reciprocal ResizeBicubic ResizeBilinear ResizeNearestNeighbor ReverseV2 Roll Rsqrt Selu Sigmoid Sign Sin Slice
    Softplus Softsign SpaceToBatchND Sqrt SquaredDifference StopGradient
    """
)
# The largest arrays are variables, which can be read and not written: those of a SavedModel are not shared by name, so
# that a graph reads its own only.
VARIABLES = _words("ReadVariableOp VarHandleOp")
ALLOWED = AROUND | NETWORKS | KERAS | VARIABLES
# TensorFlow writes two functions for its checkpoints into every SavedModel, which nothing in an export calls.
SAVER = _words(
    """
    AssignVariableOp Const DisableCopyOnRead Identity MergeV2Checkpoints NoOp Pack ReadVariableOp RestoreV2 SaveV2
    Select ShardedFilename StaticRegexFullMatch StringJoin
    """
)
SAVER_NAME = re.compile(r"__inference__traced_(save|restore)_\d+")
VARIANT, RESOURCE = 21, 20  # values of TensorFlow's DataType that stand for objects, not for numbers


def foreign(meta: MetaGraphDef) -> list[str]:
    """What a graph would run that no export of kzoo does.

    Looked at are the main graph and all functions, also those that nothing calls: a gradient or an optimiser may call
    them. A name that an operation gives for a function must be that of a function of the graph, because TensorFlow
    takes an operation's name there, too.

    Args:
        meta: of a SavedModel.

    Returns:
        The names of operations (or what else is wrong), sorted; [] for a graph that may be loaded.
    """
    library = meta.graph_def.library
    named = {f.signature.name for f in library.function}
    savers = {f.signature.name for f in library.function if _is_saver(f)} - _called(meta)
    found = set()
    for node in _nodes(meta, without=savers):
        found |= {node.op} - ALLOWED  # also a function's name in its place: no export calls one so
        found |= set(_functions(node.attr)) - ALLOWED - named
        if any(_holds_objects(value) for value in node.attr.values()):
            found.add(f"{node.op} of an object")
    for f in library.function:
        found |= set(_functions(f.attr)) - ALLOWED - named
    for gradient in library.gradient:
        found |= {gradient.function_name, gradient.gradient_func} - ALLOWED - named
    if library.registered_gradients:
        found.add("a gradient of its own")
    return sorted(found)


def _nodes(meta: MetaGraphDef, without: set[str]) -> Iterator[NodeDef]:
    yield from meta.graph_def.node
    for f in meta.graph_def.library.function:
        if f.signature.name not in without:
            yield from f.node_def


def _functions(attributes: Any) -> Iterator[str]:
    """The functions that attributes name as such, those within the attributes of a name included."""
    for value in attributes.values():
        for function in (*([value.func] if value.HasField("func") else ()), *value.list.func):
            yield function.name
            yield from _functions(function.attr)


def _holds_objects(value: Any) -> bool:
    tensors = (*([value.tensor] if value.HasField("tensor") else ()), *value.list.tensor)
    return any(t.dtype in (VARIANT, RESOURCE) or t.variant_val or t.resource_handle_val for t in tensors)


def _is_saver(function: FunctionDef) -> bool:
    """Whether a function is as TensorFlow writes those for its checkpoints."""
    return (
        SAVER_NAME.fullmatch(function.signature.name) is not None
        and [a.name for a in function.signature.input_arg[:1]] == ["file_prefix"]
        and all(node.op in SAVER and not any(_functions(node.attr)) for node in function.node_def)
        and set(function.attr) <= {"_construction_context", "_input_shapes"}
    )


def _called(meta: MetaGraphDef) -> set[str]:
    """All names by which anything but the saver's own nodes of the main graph might call a function."""
    graph, objects = meta.graph_def, meta.object_graph_def
    own = {meta.saver_def.save_tensor_name.partition(":")[0], meta.saver_def.restore_op_name.partition(":")[0]}
    found = set(objects.concrete_functions)
    for n in objects.nodes:
        found |= {*n.function.concrete_functions, n.bare_concrete_function.concrete_function_name}
    for gradient in [*graph.library.gradient, *graph.library.registered_gradients]:
        found |= {value for _, value in gradient.ListFields()}
    attributes = [n.attr for f in graph.library.function for n in f.node_def]
    attributes += [f.attr for f in graph.library.function]
    attributes += [n.attr for n in graph.node if n.name not in own]
    for attr in attributes:
        found |= set(_functions(attr))
        for value in attr.values():  # a function may also be named by a text
            found |= {text.decode("utf-8", "replace") for text in (value.s, *value.list.s)}
    found |= {n.op for n in graph.node} | {n.op for f in graph.library.function for n in f.node_def}
    return found
