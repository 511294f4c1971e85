"""A LiteRT file that takes pictures of any size: `kzoo.data.images.fit` as matrix products in front of a network.

LiteRT has no antialiased resize. Resizing and cropping are linear along the rows and along the columns, so each is a
product with a matrix, which is computed from the picture's size. No shape depends on a computed number: the tensors
keep shapes that are known when the size is, and LiteRT's fast kernels take only these.

The preparation, the network and what follows it are converted one by one and joined in the file, so that the first and
the last stay in float32 where the network is in float16 or int8.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from kzoo.data.images import GREY, LONGEST

if TYPE_CHECKING:
    from kzoo.catalog import Preprocessing

IMAGE, PREPARED, SIGNATURE, FACTS = "image", "prepared", "serving_default", "kzoo.json"


def preparation(shape: tuple[int, int, int], given: int, preprocessing: Preprocessing) -> Callable:
    """The rules of `kzoo.data.images` from decoded pictures to a network's input, as operations that LiteRT has.

    Args:
        shape: (height, width, channels) of the network's input.
        given: channels of the pictures; 3 where `shape` has 1 become grey.
        preprocessing: crop and interpolation.

    Returns:
        A tf.function from image, uint8 (B, H, W, given), to float32 whole numbers 0..255 (B, *shape).
    """
    height, width, channels = shape
    # In float32 whole numbers are exact up to 2^24, and the quotient of two is rounded as the exact one would be.
    crop = Fraction(preprocessing.crop).limit_denominator(10_000)

    def middle(length, other, side, other_side):  # (where it starts, its length)
        most = Fraction(LONGEST * side, other_side)
        kept = tf.minimum(length, tf.math.ceil(other * most.numerator / most.denominator))
        return tf.floor((length - kept) / 2), kept

    def resized(length, other, side, other_side):
        by_this = float(side) * other >= float(other_side) * length  # this side is the one that must fit
        a = other_side / crop
        longer = tf.round(length * a.numerator / (other * a.denominator))
        return tf.maximum(tf.where(by_this, float(round(side / crop)), longer), float(side))

    def weights(source, length, start, kept, new, side, axis):
        """(side, length) along the last axes, or transposed: each row has the weights of one row of the result."""
        inverse = 1 / (new / kept)
        stretch = tf.maximum(inverse, 1.0)
        place = tf.range(side, dtype=tf.float32) + 0.5
        place = tf.reshape(place, (1, 1, side, 1) if axis == 3 else (1, 1, 1, side))
        sample = (place + tf.floor((new - side) / 2)) * inverse
        inside = source - start
        w = kernel(tf.abs((inside + 0.5 - sample) / stretch))
        w *= tf.cast((inside >= 0) & (inside < kept), tf.float32)
        return w / tf.reduce_sum(w, axis, keepdims=True)

    def kernel(x):
        if preprocessing.interpolation == "bilinear":
            return tf.maximum(1 - x, 0)
        near = ((1.5 * x - 2.5) * x) * x + 1
        far = ((-0.5 * x + 2.5) * x - 4) * x + 2
        return tf.where(x < 1, near, tf.where(x < 2, far, tf.zeros_like(x)))

    def counted(pixels, axis):  # 1, 2, 3, ... along an axis
        return tf.cumsum(tf.minimum(tf.cast(pixels, tf.float32), 0) + 1, axis)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, given], tf.uint8, IMAGE)], autograph=False)
    def prepare(image):
        rows = tf.transpose(counted(image[:1, :, :1, :1], 1), (0, 2, 3, 1))  # (1, 1, 1, H)
        columns = counted(image[:1, :1, :, :1], 2)  # (1, 1, W, 1)
        h, w = (tf.reduce_max(x, (1, 2, 3), keepdims=True) for x in (rows, columns))
        (top, tall), (left, wide) = middle(h, w, height, width), middle(w, h, width, height)
        down = weights(rows - 1, h, top, tall, resized(tall, wide, height, width), height, 3)
        across = weights(columns - 1, w, left, wide, resized(wide, tall, width, height), width, 2)
        x = tf.cast(image, tf.float32)
        if given != channels:
            x = tf.round(tf.reduce_sum(x * tf.constant(GREY), -1, keepdims=True))
        x = tf.matmul(tf.matmul(down, tf.transpose(x, (0, 3, 1, 2))), across)
        return tf.transpose(tf.clip_by_value(tf.round(x), 0.0, 255.0), (0, 2, 3, 1))

    return prepare


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
