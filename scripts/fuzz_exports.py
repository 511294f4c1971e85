"""Operations from TensorFlow's own registry, planted in an export: none may be loaded unless it is allowed.

    python scripts/fuzz_exports.py --rounds 2 --seed 0

Every registered operation is planted `rounds` times, at a random place: in the main graph, in a function that
serving_default calls, in one that nothing calls, in TensorFlow's saver, or by its name where a function's name is
expected. What is refused must be refused by name; what is loaded must be on the list. It prints counts, and ends with 1
if anything else happened. A refused file costs about 20 ms.
"""

import argparse
import collections
import random
import shutil
import sys
import tempfile
from pathlib import Path

import tensorflow as tf
from tensorflow.core.framework import op_def_pb2
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.client import pywrap_tf_session

from kzoo.errors import ExportError
from kzoo.exporting import reader
from kzoo.exporting.operations import ALLOWED, SAVER

HERE = Path(__file__).resolve().parents[1]


def registry():
    """All operations of this TensorFlow, as OpDef."""
    return op_def_pb2.OpList.FromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList())).op


def fill(node, op, rng):
    """Make a NodeDef one of an operation, with its default attributes and inputs that are not there."""
    node.op, node.name = op.name, f"planted_{rng.randrange(10**9)}"
    for attribute in op.attr:
        if attribute.HasField("default_value"):
            node.attr[attribute.name].CopyFrom(attribute.default_value)
        elif attribute.type == "type":
            node.attr[attribute.name].type = rng.choice([1, 3, 7])
        elif attribute.type == "string":
            node.attr[attribute.name].s = b"/tmp/planted"
    for argument in op.input_arg:
        node.input.append(f"{argument.name}_of_nothing")


def function(meta, name):
    return next(f for f in meta.graph_def.library.function if name in f.signature.name)


def in_main(meta, op, rng):
    fill(meta.graph_def.node.add(), op, rng)


def in_function(meta, op, rng):
    name = rng.choice(["inference_serving_default", "inference_function", "Dataset_map"])
    fill(function(meta, name).node_def.add(), op, rng)


def in_nothing_called(meta, op, rng):
    found = meta.graph_def.library.function.add()
    found.signature.name = rng.choice(["nobody", "__inference__traced_save_1", "__inference__traced_restore_2"])
    fill(found.node_def.add(), op, rng)


def in_saver(meta, op, rng):
    fill(function(meta, rng.choice(["traced_save", "traced_restore"])).node_def.add(), op, rng)


def by_name(meta, op, rng):
    node = function(meta, "inference_serving_default").node_def.add()
    node.op, node.name = "PartitionedCall", "planted"
    node.attr["f"].func.name = op.name


PLACES = {
    "in the main graph": in_main,
    "in a function": in_function,
    "in a function that nothing calls": in_nothing_called,
    "in the saver": in_saver,
    "by name": by_name,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--export", default=HERE / "saved_models" / "lenet5", type=Path)
    parser.add_argument("--rounds", default=1, type=int, help="how often each operation is planted")
    parser.add_argument("--seed", default=0, type=int)
    options = parser.parse_args()
    rng, counts, wrong = random.Random(options.seed), collections.Counter(), []
    whole = (options.export / "saved_model.pb").read_bytes()

    def not_run(folder):
        counts["loaded, its operation is allowed"] += 1

    tf.saved_model.load = not_run  # planted nodes are not well formed; the question is what gets as far as here
    with tempfile.TemporaryDirectory() as folder:
        folder = shutil.copytree(options.export, Path(folder) / "export")
        for op in list(registry()) * options.rounds:
            place = rng.choice(list(PLACES))
            program = SavedModel.FromString(whole)
            PLACES[place](program.meta_graphs[0], op, rng)
            (folder / "saved_model.pb").write_bytes(program.SerializeToString())
            counts[f"planted {place}"] += 1
            before = counts["loaded, its operation is allowed"]
            try:
                reader.load_saved_model(folder)
            except ExportError as e:
                counts["refused"] += 1
                named = op.name in str(e) or place == "in the saver"  # what is no saver any more is refused by its own
                if "was refused" not in str(e) or not named or "\n" in str(e):
                    wrong.append(f"{op.name} {place}: {e}")
            loaded = counts["loaded, its operation is allowed"] > before
            own = place == "in the saver" and op.name in SAVER
            if loaded and op.name not in ALLOWED and not own:
                wrong.append(f"{op.name} {place} was loaded")
    for what, n in sorted(counts.items()):
        print(f"{n:6,}  {what}")
    for line in wrong[:20]:
        print("WRONG", line)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
