"""The operations that an export may consist of: what kzoo's own exports need, and nothing that reaches further."""

import json
import re
import shutil
import zipfile

import keras
import pytest
import tensorflow as tf
from support.deep import DEEP
from support.exports import SHAPE
from support.networks import architecture, small
from support.processes import ROOT
from tensorflow.core.framework import op_def_pb2
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.client import pywrap_tf_session

import kzoo
from kzoo import source
from kzoo.errors import ExportError
from kzoo.exporting import graph, reader
from kzoo.exporting.operations import ALLOWED, AROUND, NETWORKS, SAVER, VARIABLES, foreign
from kzoo.files import sha256

LENET = ROOT / "saved_models" / "lenet5"
# The rows that can be exported: those that take pictures.
PICTURES = [name for name in kzoo.list_models() if len(kzoo.spec(name).input_shape) == 3]
# A row of each architecture that is built within a second or two; all rows in a deep run.
ROWS = {architecture(name): name for name in reversed(PICTURES) if not re.search("cept|google|nasnet", name)}


def registered():
    """All operations of this TensorFlow: name -> its OpDef."""
    found = op_def_pb2.OpList.FromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList()))
    return {op.name: op for op in found.op}


def program(path=LENET / "saved_model.pb"):
    return SavedModel.FromString(path.read_bytes())


def operations(function):
    """The operations of a tf.function with all that it calls."""
    found = function.get_concrete_function().graph.as_graph_def()
    return {n.op for n in found.node} | {n.op for f in found.library.function for n in f.node_def}


@pytest.mark.parametrize("name", PICTURES if DEEP else ROWS.values())
def test_every_network_consists_of_the_listed_operations(name):
    model = kzoo.build(name, precision="float32", seed=0, **small(name))
    for precision in ("float32", "bfloat16"):  # float16 differs from bfloat16 in types only
        assert operations(graph.network(model, precision)[0]) <= NETWORKS | {"ReadVariableOp", "NoOp"}


@pytest.mark.parametrize(("shape", "interpolation"), [((40, 32, 3), "bicubic"), ((28, 28, 1), "bilinear")])
@pytest.mark.parametrize("threshold", [None, 0.9])
def test_what_is_around_a_network_consists_of_the_listed_operations(shape, interpolation, threshold):
    prep = kzoo.Preprocessing(crop=0.875, interpolation=interpolation)
    model = kzoo.build("mnist_softmax", input_shape=shape, preprocessing=prep, seed=0)
    network = graph.network(model, "float32")[0]
    whole = graph.module(network, source.find_source(model), top=5, temperature=1.5, threshold=threshold)[1]
    found = set().union(*map(operations, whole.values()))
    assert found <= AROUND | NETWORKS
    assert len(whole) == 4


@pytest.mark.parametrize("name", ["lenet5", "mnist_cnn", "plain20", "resnet20", "vgg_cifar10"])
def test_what_kzoo_ships_is_accepted(name):
    assert foreign(program(ROOT / "saved_models" / name / "saved_model.pb").meta_graphs[0]) == []


def test_an_export_of_0_1_0_is_accepted(tmp_path):
    with zipfile.ZipFile(ROOT / "tests" / "fixtures" / "kzoo-0.1.0.zip") as archive:
        archive.extract("exported/saved_model.pb", tmp_path)
    assert reader.foreign_operations(tmp_path / "exported" / "saved_model.pb") == []


@pytest.mark.parametrize("activation", ["gelu", "silu", "softplus", "selu", "mish", "hard_swish", "log_softmax"])
def test_networks_of_keras_layers_consist_of_the_listed_operations(activation):
    layers = keras.layers
    x = inputs = keras.Input(SHAPE)
    x = layers.LayerNormalization()(layers.Conv2D(8, 3, activation=activation, dilation_rate=2, padding="same")(x))
    x = layers.GroupNormalization(4)(layers.Conv2DTranspose(8, 3, strides=2, padding="same")(x))
    x = layers.Multiply()([x, layers.Activation("sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))])
    x = layers.Reshape((-1, 8))(layers.UpSampling2D(2, interpolation="bilinear")(x))
    x = layers.Dense(4)(layers.GlobalMaxPooling1D()(layers.MultiHeadAttention(2, 4)(x, x)))
    found = operations(graph.network(keras.Model(inputs, x), "float32")[0])
    assert found <= ALLOWED


def test_nothing_that_reaches_outside_is_listed():
    """By the registry: whatever is stateful, or has a resource, a file's name or an address, with few exceptions."""
    everything, listed = registered(), ALLOWED - VARIABLES
    assert {"ReadVariableOp", "VarHandleOp"} == VARIABLES  # which read what the SavedModel itself brought
    assert listed - everything.keys() == set() and len(everything) > 1500
    names = re.compile(
        "File|Dump|Debug|Print|Log(?!1p|Softmax|ical)|Py|Read|Write|Save|Restore|Load|Record|Snapshot|Cache|Service|Rpc|"
        "Send|Recv|Table|Var|Queue|Stack|Barrier|Iterator|Summary|Xla|Tpu|TPU|Collective|Lookup|Python|Http|Socket|Sql|"
        "LMDB|CSV|Checkpoint|Abort|Custom|Remote|Host|Mutex|Tensor(Array|List|Map)|Generator|Stage"
    )
    assert [op for op in listed if names.search(op) and op != "Log"] == []
    resources = [
        op for op in listed if any(a.type == 20 for a in (*everything[op].input_arg, *everything[op].output_arg))
    ]
    assert resources == []
    arguments = {a.name for op in listed for a in (*everything[op].input_arg, *everything[op].attr)}
    assert not {a for a in arguments if re.search("file|path|directory|address|url|token|shared_name|container", a)}
    stateful = {op for op in listed if everything[op].is_stateful}
    # An assertion fails, and a data set of tensors is in memory; the others run functions of the graph.
    runs = {"Case", "If", "StatefulPartitionedCall"}
    assert stateful == {"Assert", "DatasetToSingleElement", "RangeDataset", "TensorDataset"} | runs


def node(graph, op, name="planted", **strings):
    planted = graph.add() if hasattr(graph, "add") else graph.node.add()
    planted.op, planted.name = op, name
    for key, value in strings.items():
        planted.attr[key].s = value.encode()
    return planted


def plant_main(meta):
    node(meta.graph_def, "DumpTensor")


def plant_function(meta):
    node(meta.graph_def.library.function[0].node_def, "DumpTensor")


def plant_uncalled(meta):
    f = meta.graph_def.library.function.add()
    f.signature.name = "nobody"
    node(f.node_def, "DumpTensor")


def plant_by_name(meta):  # TensorFlow takes the name of an operation for that of a function
    node(meta.graph_def.library.function[0].node_def, "PartitionedCall").attr["f"].func.name = "DumpTensor"


def plant_in_list(meta):
    node(meta.graph_def, "Case").attr["branches"].list.func.add().name = "DumpTensor"


def plant_within(meta):
    function = node(meta.graph_def, "PartitionedCall").attr["f"].func
    function.name = meta.graph_def.library.function[0].signature.name
    function.attr["g"].func.name = "DumpTensor"


def plant_gradient(meta):
    found = meta.graph_def.library.gradient.add()
    found.function_name, found.gradient_func = meta.graph_def.library.function[0].signature.name, "DumpTensor"


def plant_attribute(meta):
    meta.graph_def.library.function[0].attr["api_implements"].func.name = "DumpTensor"


def saver_of(meta):
    return next(f for f in meta.graph_def.library.function if "traced_save" in f.signature.name)


def plant_in_saver(meta):
    node(saver_of(meta).node_def, "DumpTensor")


def plant_saver_under_its_name(meta):
    f = meta.graph_def.library.function.add()
    f.signature.name = "__inference__traced_save_1"
    f.signature.input_arg.add().name = "image"
    node(f.node_def, "SaveV2")


def call_saver(meta):
    node(meta.graph_def.library.function[0].node_def, "PartitionedCall").attr["f"].func.name = saver_of(
        meta
    ).signature.name


def call_saver_in_main(meta):
    node(meta.graph_def, "StatefulPartitionedCall").attr["f"].func.name = saver_of(meta).signature.name


def call_saver_by_text(meta):
    meta.graph_def.library.function[0].attr["forward_function_name"].s = saver_of(meta).signature.name.encode()


def call_saver_from_objects(meta):
    found = next(n for n in meta.object_graph_def.nodes if n.WhichOneof("kind") == "bare_concrete_function")
    found.bare_concrete_function.concrete_function_name = saver_of(meta).signature.name


def call_saver_as_gradient(meta):
    found = meta.graph_def.library.gradient.add()
    found.function_name, found.gradient_func = (
        meta.graph_def.library.function[0].signature.name,
        saver_of(meta).signature.name,
    )


def plant_object(meta):
    node(meta.graph_def, "Const").attr["value"].tensor.dtype = 21


PLANTED = {
    "DumpTensor": [
        plant_main,
        plant_function,
        plant_uncalled,
        plant_by_name,
        plant_in_list,
        plant_within,
        plant_gradient,
        plant_attribute,
        plant_in_saver,
    ],
    "SaveV2": [
        plant_saver_under_its_name,
        call_saver,
        call_saver_in_main,
        call_saver_by_text,
        call_saver_from_objects,
        call_saver_as_gradient,
    ],
    "Const of an object": [plant_object],
}


@pytest.mark.parametrize(("op", "plant"), [(op, plant) for op, plants in PLANTED.items() for plant in plants])
def test_an_operation_is_found_wherever_it_stands(op, plant):
    found = program()
    plant(found.meta_graphs[0])
    assert op in foreign(found.meta_graphs[0])


def test_a_saver_has_only_its_own_operations():
    own = {"MergeV2Checkpoints", "RestoreV2", "SaveV2", "Select", "ShardedFilename"}
    own |= {"AssignVariableOp", "DisableCopyOnRead"}
    assert own == SAVER - ALLOWED


@pytest.fixture
def hostile(tmp_path):
    """A copy of an export whose graph writes a file when it is asked, its card in order."""
    folder = shutil.copytree(LENET, tmp_path / "hostile")
    found = program()
    spare = node(found.meta_graphs[0].graph_def, "Print\x1b[31m" + "Tensor" * 40)
    spare.input.append("x")
    for i in range(7):
        node(found.meta_graphs[0].graph_def, f"Op{i}", f"n{i}")
    (folder / "saved_model.pb").write_bytes(found.SerializeToString())
    card = json.loads((folder / "card.json").read_text())
    card["files"]["saved_model.pb"]["sha256"] = sha256(folder / "saved_model.pb")
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def test_the_refusal_is_one_line_that_names_the_operations(hostile, kzoo_command):
    with pytest.raises(ExportError) as caught:
        reader.Export(hostile)
    said = str(caught.value)
    assert "operations that no kzoo export has: Op0, Op1, Op2, Op3, Op4 and 3 more." in said
    assert "--trust" in said and "\n" not in said and "\x1b" not in said
    longest = max(registered(), key=len)
    assert reader.listed([longest]) == longest
    for verb, *more in (("predict", hostile / "card.md"), ("verify",), ("serve", "--port", "0")):
        code, out, err = kzoo_command(verb, hostile, *more)
        assert code == 1 and "Op0, Op1" in out + err and "Traceback" not in err


def test_trust_runs_it_all_the_same(tmp_path):
    spy = tf.Module()
    spy.f = tf.function(lambda x: tf.io.read_file(x), input_signature=[tf.TensorSpec((), tf.string)])
    tf.saved_model.save(spy, str(tmp_path))
    with pytest.raises(ExportError, match="no kzoo export has: ReadFile"):
        reader.load_saved_model(tmp_path)
    loaded = reader.load_saved_model(tmp_path, trust=True)
    assert loaded.f(str(ROOT / "README.md")).numpy().startswith(b"#")
