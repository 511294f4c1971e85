"""A LiteRT file that takes pictures of any size: preparation, network and what follows it as one model.

They are converted one by one and joined in the file, so that the first and the last stay in float32 where the network
is in float16 or int8, and so that `kzoo verify` can run the network alone.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from kzoo.exporting.pictures import IMAGE, PREPARED

SIGNATURE, FACTS = "serving_default", "kzoo.json"


def joined(parts: Sequence[bytes], outputs: Mapping[str, int], facts: Mapping[str, Any]) -> bytes:
    """Join LiteRT models of which each takes the first output of the one in front of it.

    Args:
        parts: the preparation, the network, and what follows it, if anything; each with one input.
        outputs: name -> the number of the part that gives it as its first output.
        facts: JSON values for the file's metadata. Like other tools' they are in a zip archive at the end of the file;
            labels.txt in it has the "labels", one on each line.

    Returns:
        The content of the file: a model with one signature.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    models = [schema.ModelT.InitFromPackedBuf(part, 0) for part in parts]
    base = models[1]  # the only one that may have subgraphs for its operations to call, which keep their numbers
    into = base.subgraphs[0]
    ends, operators, joint = [], [], None
    for model in models:
        graph = model.subgraphs[0]
        tensors, buffers, codes = (
            (0, 0, 0) if model is base else (len(into.tensors), len(base.buffers), len(base.operatorCodes))
        )
        if model is not base:
            for tensor in graph.tensors:
                tensor.buffer += buffers
            into.tensors += graph.tensors
            base.buffers += model.buffers
            base.operatorCodes += model.operatorCodes
        first = int(graph.inputs[0])

        def moved(numbers, first=first, tensors=tensors, joint=joint):
            if numbers is None:
                return None
            return [
                n if n < 0 else joint if n == first and joint is not None else n + tensors for n in map(int, numbers)
            ]

        for operator in graph.operators:
            operator.opcodeIndex += codes
            operator.inputs, operator.outputs = moved(operator.inputs), moved(operator.outputs)
            operator.intermediates = moved(operator.intermediates)
            operators.append(operator)
        ends.append((moved(graph.inputs)[0], moved(graph.outputs)[0]))
        joint = ends[-1][1]
    into.operators = operators
    named = {name: ends[number][1] for name, number in outputs.items()}
    into.inputs, into.outputs = [ends[0][0]], list(named.values())
    for name, number in {IMAGE: ends[0][0], PREPARED: ends[0][1], **named}.items():
        into.tensors[number].name = name.encode()
    base.signatureDefs = [_signature(schema, {IMAGE: ends[0][0]}, named)]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as z:  # with the time of 1980, so that the same network gives the same file
        z.writestr(zipfile.ZipInfo("labels.txt"), "".join(f"{label}\n" for label in facts["labels"]))
        z.writestr(zipfile.ZipInfo(FACTS), json.dumps(facts, indent=2))
    return _packed(base) + archive.getvalue()


def _signature(schema, inputs, outputs):
    def mapped(tensors):
        found = []
        for name, number in tensors.items():
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = name, number
            found.append(entry)
        return found

    signature = schema.SignatureDefT()
    signature.inputs, signature.outputs = mapped(inputs), mapped(outputs)
    signature.signatureKey, signature.subgraphIndex = SIGNATURE, 0
    return signature


def _packed(model):
    import flatbuffers

    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def without_preparation(content: bytes, output: str) -> bytes:
    """The network of a file of `joined`, from "prepared" to one of its outputs."""
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    number = {tensor.name: i for i, tensor in enumerate(graph.tensors)}
    ready, wanted = number[PREPARED.encode()], number[output.encode()]
    needed, kept = {wanted}, []
    for operator in reversed(graph.operators):
        if any(n in needed for n in operator.outputs if n != ready):
            kept.append(operator)
            needed.update(operator.inputs)
    graph.operators, graph.inputs, graph.outputs = kept[::-1], [ready], [wanted]
    model.signatureDefs = []
    return _packed(model)


def is_joined(content: bytes) -> bool:
    """Whether a file takes pictures; those of earlier exports take prepared images."""
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.Model.GetRootAsModel(content, 0)
    return model.SignatureDefsLength() > 0 and model.SignatureDefs(0).Inputs(0).Name() == IMAGE.encode()
