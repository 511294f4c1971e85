"""Read an export: its card, its SavedModel, its answers. Needs TensorFlow, but no Keras and no run."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kzoo.catalog import Preprocessing
from kzoo.data.guards import shown
from kzoo.errors import ExportError, first_line
from kzoo.exporting.operations import foreign
from kzoo.exporting.variables import claimed
from kzoo.files import finite, sha256
from kzoo.tasks import Task, find

if TYPE_CHECKING:
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

CARD, KIND, LABELS = "card.json", "kzoo_export", "labels.txt"
STYLENET = "kzoo_stylenet"  # in place of KIND, in the card of a stylenet's export
FORMATS = (1, 2)  # of cards: 1 was 0.1.0's, without golden images near a decision and with one tolerance a precision
MAX_CARD_BYTES = 1 << 28


def is_export(path: str | os.PathLike) -> bool:
    """Whether a folder is a kzoo export: has a card.json. A damaged one is an export's, unless the folder is a run."""
    try:
        return os.path.isdir(path) and KIND in read_card(path)
    except ExportError:
        return (Path(path) / CARD).is_file() and not (Path(path) / "config.json").is_file()


def is_stylenet(folder: str | os.PathLike) -> bool:
    """Whether a folder is the export of a stylenet, as its card says."""
    path = Path(folder) / CARD
    try:
        card = json.loads(path.read_text("utf-8")) if path.stat().st_size <= MAX_CARD_BYTES else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(card, dict) and STYLENET in card


def read_card(folder: str | os.PathLike) -> dict[str, Any]:
    """Read and check the card.json of an export.

    Raises:
        ExportError: a folder that is not an export, or a card that is corrupt or was written by a later kzoo.
    """
    path = Path(folder) / CARD
    try:
        if path.stat().st_size > MAX_CARD_BYTES:
            raise ExportError(f"{path} is larger than any card: over {MAX_CARD_BYTES >> 20} MiB.")
        card = finite(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        raise ExportError(f"{folder} is not an export: it has no {CARD}. kzoo export writes one.") from None
    except (OSError, ValueError, RecursionError) as e:
        raise ExportError(f"{path} can't be read ({e}).") from e
    if isinstance(card, dict) and STYLENET in card:
        raise ExportError(
            f"{folder} is the export of a stylenet, which paints pictures and gives no answers about them."
        )
    if not isinstance(card, dict) or not isinstance(card.get(KIND), int):
        raise ExportError(f"{path} is not the card of a kzoo export.")
    if card[KIND] not in FORMATS:
        known = " and ".join(map(str, FORMATS))
        raise ExportError(f"{path} was written by a later kzoo (format {card[KIND]}; this one knows {known}).")
    wrong = [name for name, fits in FIELDS.items() if not fits(card.get(name))]
    if wrong:
        raise ExportError(f"{path} is corrupt: {', '.join(wrong)} can't be read.")
    return card


def multiply_adds(folder: str | os.PathLike) -> float:
    """Return what the network of an export computes for one image, or an upper limit to it if the card does not say it.

    Raises:
        ExportError: as `read_card`.
    """
    card = read_card(folder)
    if card.get("multiply_adds") is not None:
        return card["multiply_adds"]
    height, width, _ = card["input_shape"]
    files = [p for p in Path(folder).rglob("*") if p.name == "saved_model.pb" or p.parent.name == "variables"]
    weights = sum(p.stat().st_size for p in files) / (4 if card.get("precision") == "float32" else 2)
    return weights * height * width  # none is used more than once at each pixel


def changed_files(folder: str | os.PathLike, files: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Compare the files of an export with its card.

    Args:
        folder: the export.
        files: of its card, {path: {"sha256": hash}}.

    Returns:
        {path: what is wrong with it}; {} if all is as in the card.
    """
    folder, bad = Path(folder), {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and name != CARD and name not in files and not path.name.startswith("."):
            bad[name] = "is not in the card"
    for name, facts in files.items():
        path = folder / name
        try:
            if Path(name).is_absolute() or ".." in Path(name).parts:
                bad[name] = "lies outside the folder"
            elif sha256(path) != facts["sha256"]:
                bad[name] = "has changed"
        except OSError:
            bad[name] = "is missing"
    return bad


def described_files(bad: Mapping[str, str], files: Mapping[str, Any]) -> str:
    """What `changed_files` found, as text."""
    found = "; ".join(f"{shown(name)} {what}" for name, what in list(bad.items())[:8])
    found += f"; and {len(bad) - 8} more" if len(bad) > 8 else ""
    return found or f"{len(files)} files, all as in the card"


def _texts(values):
    return isinstance(values, list) and all(isinstance(v, str) for v in values)


def _facts(values, key, kind):
    def fits(v):
        return isinstance(v, dict) and isinstance(v.get(key), kind)

    return isinstance(values, dict) and all(map(fits, values.values()))


def _format(facts):
    moved = facts.get("moved")  # cards of 0.1.0 may hold none
    return _texts(facts["files"]) and (moved is None or (type(moved) in (int, float) and moved >= 0))


FIELDS = {
    "name": lambda v: isinstance(v, str),
    "classes": _texts,
    "input_shape": lambda v: isinstance(v, list) and len(v) == 3 and all(type(n) is int and n > 0 for n in v),
    "multiply_adds": lambda v: v is None or (type(v) is int and v >= 0),  # older cards name none
    "preprocessing": lambda v: isinstance(v, dict),
    "files": lambda v: _facts(v, "sha256", str),
    "formats": lambda v: bool(v) and _facts(v, "files", list) and all(map(_format, v.values())),
    "temperature": lambda v: type(v) in (int, float) and v > 0,
    "task": lambda v: v is None or isinstance(v, str),  # cards of 0.1.0 name none
    "conformal": lambda v: v is None or isinstance(v, dict),
}


def task_of(card: Mapping[str, Any]) -> Task:
    """The task of a card, with what it chose on the validation part.

    Raises:
        KzooError: an unknown task, or a choice that does not fit it.
    """
    task = find(card.get("task") or "classification")  # cards of 0.1.0 have none
    return task.decided(card.get("decision"), card["classes"]) if task.decides else task


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
        preprocessing, shape = (
            Preprocessing.from_dict(card["preprocessing"]),
            tuple(int(n) for n in card["input_shape"]),
        )
        found = preprocessing.fingerprint(shape)
    except (KeyError, TypeError, ValueError) as e:
        raise ExportError(f"The preprocessing in {folder}/{CARD} can't be read ({e}).") from e
    if found != card.get("preprocessing_sha256"):
        raise ExportError(
            f"The preprocessing in {folder} does not match its fingerprint: the card was changed, or it was written "
            "by another version of kzoo. Export again."
        )
    return preprocessing, shape


def load_saved_model(folder: str | os.PathLike, trust: bool = False, meta: MetaGraphDef | None = None) -> Any:
    """Load a SavedModel after checking the operations of its graph.

    Args:
        folder: an export.
        trust: load a graph with any operations, which may read and write files.
        meta: of `meta_graph`, if the file was read already.

    Raises:
        ExportError: a file that can't be read, or a graph with an operation that no kzoo export has, such as one that
            reads files.
    """
    import tensorflow as tf

    path = Path(folder) / "saved_model.pb"
    bad = foreign(meta or meta_graph(path))
    if bad and not trust:
        raise ExportError(
            f"{path} was refused: its graph has operations that no kzoo export has: {listed(bad)}. If you trust the "
            "author of the file, --trust (trust=True) loads it."
        )
    try:
        with literal_path(folder) as plain:
            _check_arrays(plain)
            return tf.saved_model.load(plain)
    except ExportError:
        raise
    except Exception as e:  # TensorFlow may raise anything for a corrupt file
        raise ExportError(f"{folder} can't be loaded ({shown(first_line(e))}).") from e


def _check_arrays(folder):
    """ExportError if the variables of a SavedModel claim more bytes, which loading them allocates, than are there."""
    files = Path(folder, "variables")
    try:
        need = claimed((files / "variables.index").read_bytes())
    except (OSError, ValueError) as e:
        raise ExportError(
            f"{folder}/variables/variables.index can't be read ({getattr(e, 'strerror', None) or e})."
        ) from e
    stored = sum(p.stat().st_size for p in files.glob("variables.data-*"))
    if need > stored:
        raise ExportError(
            f"{folder}/variables is corrupt: arrays of {need:,} bytes are listed, and its files have {stored:,}."
        )


@contextmanager
def literal_path(folder: str | os.PathLike) -> Iterator[str]:
    """A path to a folder without the characters that TensorFlow takes for a pattern, which finds other files or none.

    Args:
        folder: with any name.

    Returns:
        A context manager: the path itself, or that of a link to it while it lasts.
    """
    if not set("*?[]\\{}") & set(os.path.abspath(folder)) or os.name == "nt":
        yield str(folder)
        return
    with tempfile.TemporaryDirectory(prefix="kzoo-") as there:
        link = os.path.join(there, "export")
        os.symlink(os.path.abspath(folder), link, target_is_directory=True)
        yield link


def foreign_operations(path: str | os.PathLike) -> list[str]:
    """The operations of a saved_model.pb that no kzoo export has, sorted; ExportError if it can't be read."""
    return foreign(meta_graph(path))


def meta_graph(path: str | os.PathLike) -> MetaGraphDef:
    """The graph of a saved_model.pb; ExportError if it can't be read or is not as TensorFlow 2 writes it."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    try:
        program = SavedModel.FromString(Path(path).read_bytes())
    except FileNotFoundError:
        raise ExportError(f"{Path(path).parent} has no saved_model.pb.") from None
    except (OSError, DecodeError) as e:
        raise ExportError(f"{path} can't be read ({shown(first_line(e))}).") from e
    if len(program.meta_graphs) != 1 or not program.meta_graphs[0].HasField("object_graph_def"):
        raise ExportError(f"{path} is not as TensorFlow 2 writes it.")  # other graphs would be loaded by other rules
    return program.meta_graphs[0]


def check_labels(card: Mapping[str, Any], folder: str | os.PathLike, meta: MetaGraphDef) -> None:
    """Check that the class names of the card are those of the graph and of labels.txt.

    Raises:
        ExportError: they differ, or labels.txt can't be read. A missing labels.txt is accepted.
    """
    graph = graph_classes(meta)
    if graph is not None and card["classes"] not in graph:
        raise ExportError(
            f"The class names in {folder}/{CARD} differ from those in saved_model.pb: the card was changed."
        )
    try:
        text = (Path(folder) / LABELS).read_text("utf-8", "replace")
    except FileNotFoundError:  # nothing to compare with
        return
    except OSError as e:
        raise ExportError(f"{folder}/{LABELS} can't be read ({e.strerror or e}).") from e
    if text.split("\n")[:-1] != card["classes"]:
        raise ExportError(f"The class names in {folder}/{CARD} differ from those in {LABELS}.")


def graph_classes(meta: MetaGraphDef) -> list[list[str]] | None:
    """The lists of texts in a graph, one of which has the class names; None for a graph that returns no labels."""
    import tensorflow as tf

    if "labels" not in meta.signature_def["serving_default"].outputs:
        return None
    nodes = (n for f in meta.graph_def.library.function for n in f.node_def if n.op == "Const")
    tensors = (n.attr["value"].tensor for n in nodes if n.attr["dtype"].type == tf.string.as_datatype_enum)
    arrays = (tf.make_ndarray(t) for t in tensors if len(t.tensor_shape.dim) == 1)
    return [[text.decode("utf-8", "replace") for text in array.tolist()] for array in arrays]


def listed(operations: Sequence[str], most: int = 5) -> str:
    """Names of operations for a message, at most `most` of them."""
    more = f" and {len(operations) - most} more" if len(operations) > most else ""
    return ", ".join(shown(name)[:100] for name in operations[:most]) + more  # the longest of TensorFlow has 72


class Export:
    """A loaded export.

    Args:
        folder: an export with a SavedModel.
        trust: load a graph with any operations, which may read and write files.

    Attributes:
        folder: its path.
        card: the content of card.json.
        preprocessing, input_shape: how images are prepared.
        classes: names, by number.
        task: what it was trained for.
        model: the loaded SavedModel.

    Raises:
        ExportError: a folder that is not an export, a SavedModel that differs from the one in the card, or
            preprocessing or class names that do not match.
    """

    def __init__(self, folder: str | os.PathLike, trust: bool = False):
        self.folder = Path(folder)
        self.card = read_card(folder)
        self.preprocessing, self.input_shape = check_preprocessing(self.card, folder)
        self.classes = tuple(self.card["classes"])
        self.task = task_of(self.card)
        if "saved_model" not in self.card.get("formats", {}):
            raise ExportError(f"{folder} has no SavedModel (it has {', '.join(self.card.get('formats', {}))}).")
        arrays = {f"variables/{p.name}" for p in (self.folder / "variables").glob("*")}
        for name in ["saved_model.pb", *sorted(arrays & set(self.card["formats"]["saved_model"]["files"]))]:
            try:
                if self.card["files"].get(name, {}).get("sha256") != sha256(self.folder / name):
                    raise ExportError(f"{folder}/{name} is corrupt: its hash is not that of the card.")
            except OSError as e:
                raise ExportError(f"{folder}/{name} can't be read ({e.strerror}).") from e
        meta = meta_graph(self.folder / "saved_model.pb")
        check_labels(self.card, self.folder, meta)
        self.model = load_saved_model(folder, trust, meta)

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

    def _check_temperature(self, rows, found):
        """ExportError if the card's temperature gives other probabilities than the graph, which has its own."""
        graph = found.get("probabilities", np.zeros((len(rows), 0)))
        for row, own, error in zip(rows, graph, found["error"], strict=True):
            best = row.get("top") or [{}]
            if len(own) and not error and abs(best[0].get("probability", own[0]) - own[0]) > 1e-3:
                raise ExportError(
                    f"The temperature in {self.folder}/{CARD} is not the one of saved_model.pb: the card was changed."
                )

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
        pictures = {name: found[name] for name in self.task.pictures if name in found}
        temperature = self.card.get("temperature", 1.0)
        rows = self.task.rows(found[self.task.output], self.classes, top, temperature, pictures)
        self._check_temperature(rows, found)
        for i, (row, error) in enumerate(zip(rows, found["error"], strict=True)):
            if error:
                rows[i] = {"error": error.decode("utf-8", "replace")}
            elif "abstain" in found and "error" not in row:
                row["abstain"] = bool(found["abstain"][i])
        return rows
