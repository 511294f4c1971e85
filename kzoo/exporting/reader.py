"""Read an export: its card, its SavedModel, its answers. Needs TensorFlow, but no Keras and no run."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kzoo.catalog import Preprocessing
from kzoo.errors import ExportError, first_line
from kzoo.files import sha256
from kzoo.tasks import find

if TYPE_CHECKING:
    import numpy as np

CARD, KIND = "card.json", "kzoo_export"
MAX_CARD_BYTES = 1 << 28
# A SavedModel is a program. Those that kzoo writes access no files, call no Python and open no connections.
FORBIDDEN_OPS = re.compile(
    "File|Reader|Record|TextLine|LMDB|CSV|Sql|Snapshot|Cache|Save|Restore|Checkpoint|Print|Debug|Summary|PyFunc|Rpc|"
    "DataService|ImmutableConst|Load|VocabRemapping|TableExport|FromGraph|RegisterDataset|codeProto|UnigramCandidate|"
    "^Abort$"
)
# TensorFlow writes these itself, into functions that nothing calls.
SAVER_OPS = {"MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename"}


def is_export(path: str | os.PathLike) -> bool:
    """Whether a folder is a kzoo export: whether it has a card.json that can be read."""
    try:
        return os.path.isdir(path) and KIND in read_card(path)
    except ExportError:
        return False


def read_card(folder: str | os.PathLike) -> dict[str, Any]:
    """Read and check the card.json of an export.

    Raises:
        ExportError: a folder that is not an export, or a card that is corrupt or was written by a later kzoo.
    """
    path = Path(folder) / CARD
    try:
        if path.stat().st_size > MAX_CARD_BYTES:
            raise ExportError(f"{path} is larger than any card: over {MAX_CARD_BYTES >> 20} MiB.")
        card = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ExportError(f"{folder} is not an export: it has no {CARD}. kzoo export writes one.") from None
    except (OSError, ValueError, RecursionError) as e:
        raise ExportError(f"{path} can't be read ({e}).") from e
    if not isinstance(card, dict) or not isinstance(card.get(KIND), int):
        raise ExportError(f"{path} is not the card of a kzoo export.")
    if card[KIND] != 1:
        raise ExportError(f"{path} was written by a later kzoo (format {card[KIND]}; this one knows 1).")
    wrong = [name for name, fits in FIELDS.items() if not fits(card.get(name))]
    if wrong:
        raise ExportError(f"{path} is corrupt: {', '.join(wrong)} can't be read.")
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


def check_preprocessing(card: Mapping[str, Any], folder: str | os.PathLike) -> tuple[Preprocessing, tuple[int, ...]]:
    """The preprocessing of a card, checked against its fingerprint.

    Args:
        card: of `read_card`.
        folder: for messages.

    Returns:
        (Preprocessing, (height, width, channels)).

    Raises:
        ExportError: it can't be read, or it does not match the fingerprint.
    """
    try:
        preprocessing, shape = Preprocessing(**card["preprocessing"]), tuple(int(n) for n in card["input_shape"])
        found = preprocessing.fingerprint(shape)
    except (KeyError, TypeError, ValueError) as e:
        raise ExportError(f"The preprocessing in {folder}/{CARD} can't be read ({e}).") from e
    if found != card.get("preprocessing_sha256"):
        raise ExportError(
            f"The preprocessing in {folder} does not match its fingerprint: the card was changed, or it was written "
            "by another version of kzoo. Export again."
        )
    return preprocessing, shape


def load_saved_model(folder: str | os.PathLike) -> Any:
    """Load a SavedModel after checking the operations of its graph.

    Raises:
        ExportError: a file that can't be read, or a graph with an operation that no kzoo export has, such as one that
            reads files.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    path = Path(folder) / "saved_model.pb"
    try:
        program = SavedModel.FromString(path.read_bytes())
    except FileNotFoundError:
        raise ExportError(f"{folder} has no saved_model.pb.") from None
    except (OSError, DecodeError) as e:
        raise ExportError(f"{path} can't be read ({e}).") from e
    if len(program.meta_graphs) != 1 or not program.meta_graphs[0].HasField("object_graph_def"):
        raise ExportError(f"{path} is not as TensorFlow 2 writes it.")  # other graphs would be loaded by other rules
    bad = sorted(_forbidden(program.meta_graphs[0]))
    del program
    if bad:
        raise ExportError(f"{path} was refused: its graph has operations that no kzoo export has: {', '.join(bad)}.")
    try:
        return tf.saved_model.load(str(folder))
    except Exception as e:  # TensorFlow may raise anything for a corrupt file
        raise ExportError(f"{folder} can't be loaded ({first_line(e)}).") from e


def _forbidden(meta):
    """The operations of a graph (a MetaGraphDef) that no export of kzoo has."""

    def ops(nodes):
        return {n.op for n in nodes if FORBIDDEN_OPS.search(n.op)}

    functions = meta.graph_def.library.function
    called = {c for n in meta.object_graph_def.nodes for c in n.function.concrete_functions}
    called |= {n.bare_concrete_function.concrete_function_name for n in meta.object_graph_def.nodes}
    called |= {
        n.op for f in functions for n in f.node_def
    }  # a node can call a function by having its name as its operation
    for f in functions:
        for value in (value for node in f.node_def for value in node.attr.values()):
            called |= {value.func.name, *(g.name for g in value.list.func)}
    found = ops(meta.graph_def.node)
    for f in functions:
        here = ops(f.node_def)
        found |= here if f.signature.name in called else here - SAVER_OPS
    return found


class Export:
    """A loaded export.

    Args:
        folder: an export with a SavedModel.

    Attributes:
        folder: its path.
        card: the content of card.json.
        preprocessing, input_shape: how images are prepared.
        classes: names, by number.
        task: what it was trained for.
        model: the loaded SavedModel.

    Raises:
        ExportError: a folder that is not an export, a SavedModel that differs from the one in the card, or
            preprocessing that does not match its fingerprint.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self.card = read_card(folder)
        self.preprocessing, self.input_shape = check_preprocessing(self.card, folder)
        self.classes = tuple(self.card["classes"])
        self.task = find(self.card.get("task", "classification"))  # cards of 0.1.0 have no task
        if "saved_model" not in self.card.get("formats", {}):
            raise ExportError(f"{folder} has no SavedModel (it has {', '.join(self.card.get('formats', {}))}).")
        recorded = self.card["files"].get("saved_model.pb", {}).get("sha256")
        try:
            if recorded != sha256(self.folder / "saved_model.pb"):
                raise ExportError(f"{folder}/saved_model.pb is corrupt: its hash is not that of the card.")
        except OSError as e:
            raise ExportError(f"{folder}/saved_model.pb can't be read ({e.strerror}).") from e
        self.model = load_saved_model(folder)

    def run(self, encoded: Sequence[bytes]) -> dict[str, np.ndarray]:
        """Run the signature serving_default.

        Args:
            encoded: the bytes of N image files.

        Returns:
            Arrays (N, ...) by name: those of the task's signature, and "error".
        """
        import tensorflow as tf

        found = self.model.signatures["serving_default"](image=tf.constant(encoded, tf.string))
        return {name: value.numpy() for name, value in found.items()}

    def answer(self, encoded: Sequence[bytes], top: int = 5) -> list[dict[str, Any]]:
        """The task's answer for each image, with calibrated probabilities.

        Args:
            encoded: the bytes of image files.
            top: how many classes an answer has.

        Returns:
            A dict for each image: the task's answer, with "abstain" if the export has a conformal threshold; or
            {"error": reason} for an image that can't be read.
        """
        found = self.run(encoded)
        rows = self.task.answer(found[self.task.output], self.classes, top, self.card.get("temperature", 1.0))
        for i, (row, error) in enumerate(zip(rows, found["error"], strict=True)):
            if error:
                rows[i] = {"error": error.decode("utf-8", "replace")}
            elif "abstain" in found:
                row["abstain"] = bool(found["abstain"][i])
        return rows
