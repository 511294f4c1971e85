"""An export that is read: its card, its SavedModel, its answers. Needs TensorFlow and neither Keras nor a run."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from kzoo.catalog import Preprocessing
from kzoo.errors import ExportError, first_line
from kzoo.files import sha256
from kzoo.tasks import find

CARD, KIND = "card.json", "kzoo_export"
MOST = 1 << 28  # bytes of a card
# A SavedModel is a program. Those that kzoo writes read and write no files, call no Python and reach no network.
FORBIDDEN = re.compile(
    "File|Reader|Record|TextLine|LMDB|CSV|Sql|Snapshot|Cache|Save|Restore|Checkpoint|Print|Debug|Summary|PyFunc|Rpc|"
    "DataService|ImmutableConst|Load|VocabRemapping|TableExport|FromGraph|RegisterDataset|codeProto|UnigramCandidate|"
    "^Abort$"
)
SAVER = {"MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename"}  # TensorFlow's own, in functions nobody calls


def is_export(path):
    """Whether a folder is a kzoo export, told by its card."""
    try:
        return os.path.isdir(path) and KIND in read_card(path)
    except ExportError:
        return False


def read_card(folder):
    """The card.json of an export; ExportError."""
    path = Path(folder) / CARD
    try:
        if path.stat().st_size > MOST:
            raise ExportError(f"{path} is too large for a card.")
        card = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ExportError(f"{folder} is no export: it has no {CARD}. kzoo export writes one.") from None
    except (OSError, ValueError, RecursionError) as e:
        raise ExportError(f"{path} can't be read ({e}).") from e
    if not isinstance(card, dict) or not isinstance(card.get(KIND), int):
        raise ExportError(f"{path} is no card of a kzoo export.")
    if card[KIND] != 1:
        raise ExportError(f"{path} was written by a later kzoo (format {card[KIND]}; this one knows 1).")
    wrong = [name for name, fits in FIELDS.items() if not fits(card.get(name))]
    if wrong:
        raise ExportError(f"{path} is damaged: {', '.join(wrong)} can't be read.")
    return card


def _texts(values):
    return isinstance(values, list) and all(isinstance(v, str) for v in values)


def _facts(values, key, kind):
    def fits(v):
        return isinstance(v, dict) and isinstance(v.get(key), kind)

    return isinstance(values, dict) and all(map(fits, values.values()))


FIELDS = {
    "name": lambda v: isinstance(v, str),
    "classes": _texts,
    "input_shape": lambda v: isinstance(v, list),
    "files": lambda v: _facts(v, "sha256", str),
    "formats": lambda v: bool(v) and _facts(v, "files", list),
    "temperature": lambda v: isinstance(v, (int, float)) and 0 < v < float("inf"),
}


def check_preprocessing(card, folder):
    """(Preprocessing, shape) of a card; ExportError if they are not those of its fingerprint."""
    try:
        preprocessing, shape = Preprocessing(**card["preprocessing"]), tuple(int(n) for n in card["input_shape"])
        found = preprocessing.fingerprint(shape)
    except (KeyError, TypeError, ValueError) as e:
        raise ExportError(f"The preprocessing in {folder}/{CARD} can't be read ({e}).") from e
    if found != card.get("preprocessing_sha256"):
        raise ExportError(
            f"The preprocessing in {folder} is not that of its fingerprint: the card was changed, or it was written "
            "with other rules. Export again."
        )
    return preprocessing, shape


def load_saved_model(folder):
    """A SavedModel, after a look at what its graph would do; ExportError."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    path = Path(folder) / "saved_model.pb"
    try:
        program = SavedModel.FromString(path.read_bytes())
    except FileNotFoundError:
        raise ExportError(f"{folder} holds no saved_model.pb.") from None
    except (OSError, DecodeError) as e:
        raise ExportError(f"{path} can't be read ({e}).") from e
    if len(program.meta_graphs) != 1 or not program.meta_graphs[0].HasField("object_graph_def"):
        raise ExportError(f"{path} is not as TensorFlow 2 writes it.")  # what else is there would be run by other rules
    bad = sorted(_forbidden(program.meta_graphs[0]))
    del program
    if bad:
        raise ExportError(f"{path} was refused: its graph would {', '.join(bad)}, which no kzoo export does.")
    try:
        return tf.saved_model.load(str(folder))
    except Exception as e:  # TensorFlow raises nearly anything for a broken file
        raise ExportError(f"{folder} can't be loaded ({first_line(e)}).") from e


def _forbidden(meta):
    """The operations of a graph (a MetaGraphDef) that no export of kzoo has."""

    def ops(nodes):
        return {n.op for n in nodes if FORBIDDEN.search(n.op)}

    functions = meta.graph_def.library.function
    called = {c for n in meta.object_graph_def.nodes for c in n.function.concrete_functions}
    called |= {n.bare_concrete_function.concrete_function_name for n in meta.object_graph_def.nodes}
    called |= {n.op for f in functions for n in f.node_def}  # a function's name may stand for an operation's
    for f in functions:
        for value in (value for node in f.node_def for value in node.attr.values()):
            called |= {value.func.name, *(g.name for g in value.list.func)}
    found = ops(meta.graph_def.node)
    for f in functions:
        here = ops(f.node_def)
        found |= here if f.signature.name in called else here - SAVER
    return found


class Export:
    """An export that was read.

    folder: an export with a SavedModel. Raises ExportError: for a folder that is none, for a file that is not the one
    in the card, for another preprocessing than that of the fingerprint.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.card = read_card(folder)
        self.preprocessing, self.input_shape = check_preprocessing(self.card, folder)
        self.classes = tuple(self.card["classes"])
        self.task = find(self.card.get("task", "classification"))  # cards of 0.1.0 name none
        if "saved_model" not in self.card.get("formats", {}):
            raise ExportError(f"{folder} holds no SavedModel (it holds {', '.join(self.card.get('formats', {}))}).")
        recorded = self.card["files"].get("saved_model.pb", {}).get("sha256")
        try:
            if recorded != sha256(self.folder / "saved_model.pb"):
                raise ExportError(f"{folder}/saved_model.pb is damaged: it is not the file in the card.")
        except OSError as e:
            raise ExportError(f"{folder}/saved_model.pb can't be read ({e.strerror}).") from e
        self.model = load_saved_model(folder)

    def run(self, encoded):
        """The signature serving_default on a list of encoded images: a dict of NumPy arrays."""
        import tensorflow as tf

        found = self.model.signatures["serving_default"](image=tf.constant(encoded, tf.string))
        return {name: value.numpy() for name, value in found.items()}

    def answer(self, encoded, top=5):
        """The task's answer for each encoded image, calibrated, perhaps with "abstain"; or {"error": reason}."""
        found = self.run(encoded)
        rows = self.task.answer(found[self.task.output], self.classes, top, self.card.get("temperature", 1.0))
        for i, (row, error) in enumerate(zip(rows, found["error"], strict=True)):
            if error:
                rows[i] = {"error": error.decode("utf-8", "replace")}
            elif "abstain" in found:
                row["abstain"] = bool(found["abstain"][i])
        return rows
