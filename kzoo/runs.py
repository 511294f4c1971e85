"""A run: the folder that one training leaves, written so that a kill at any moment loses at most one epoch."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import platform
import shlex
import sys
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kzoo.catalog import Preprocessing, imports_of, list_models, spec
from kzoo.errors import RunError, first_line
from kzoo.files import LEFT, escaped, finite, hold_lock, sha256, write_atomically
from kzoo.hardware import load_keras
from kzoo.progress import say

if TYPE_CHECKING:
    import keras
    import numpy as np
    from matplotlib.figure import Figure

    from kzoo.data.dataset import DataSet
    from kzoo.tasks import Task

CONFIG, MODEL, LABELS, SPLITS = "config.json", "model.keras", "labels.txt", "splits.csv"
SKIPPED = "skipped.csv"
CURVES, MAX_SHOWN = "curves.png", 4 << 20  # bytes of a picture that a notebook shows
START = "start.keras"  # the Keras model of a user's own that a run began with
HISTORY, METRICS, CHECKPOINT, LOCK = "history.csv", "metrics.json", "checkpoint.npz", ".lock"


@dataclass
class Run:
    """A run that was loaded.

    Attributes:
        path: Its folder.
        config: What its config.json holds.
        model: The keras.Model of its best epoch.
    """

    path: Path
    config: dict
    model: keras.Model

    def __repr__(self) -> str:
        return f"<Run {self.path}: {self.config['model']} on {self.config['data']}, {len(self.classes):,} classes>"

    @property
    def about(self) -> str:
        """What it is called in messages."""
        return str(self.path)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label."""
        return tuple(self.config["classes"])

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the model's input."""
        return tuple(self.config["input_shape"])

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image is prepared for the model."""
        return Preprocessing.from_dict(self.config["preprocessing"])

    @property
    def task(self) -> Task:
        """What the model was trained for, a `kzoo.tasks.Task`."""
        from kzoo.tasks import find

        task = find(self.config.get("task", "classification"))  # runs of 0.1.0 name none
        if not task.decides or not (self.path / METRICS).is_file():
            return task
        return task.decided(read_json(self.path / METRICS).get("decision"), self.classes)

    @property
    def history(self) -> dict[str, list[Any]]:
        """What history.csv holds: {column: values by epoch}, numbers where they are, None where a cell is empty.

        Raises:
            RunError: The file can't be read.
        """
        return history_of(self.path)

    @property
    def metrics(self) -> dict[str, Any]:
        """What metrics.json holds: the best epoch, loss and metrics, on the validation part with "val_" in front.

        Raises:
            RunError: The run is not finished, or the file can't be read.
        """
        return read_json(self.path / METRICS)

    def plot(self) -> Figure:
        """Draw loss and metric by epoch, training and validation.

        Returns:
            A matplotlib Figure, which a notebook shows; `run.plot().savefig("curves.png")` keeps it.

        Raises:
            RunError: history.csv can't be read.
        """
        from kzoo.plots import learning_curves

        return learning_curves({self.path.name: self.history})

    def _repr_html_(self) -> str:
        """What a notebook shows: a line, the curves, and the confusion matrix if it was evaluated."""
        import html
        from base64 import b64encode

        from kzoo.plots import png

        with suppress(RunError):
            pictures = [png(self.plot())] if len(self.history.get("loss", ())) > 1 else []
            found = next((p for s in ("test", "val") if (p := self.path / f"confusion-{s}.png").is_file()), None)
            if found and found.stat().st_size < MAX_SHOWN:
                pictures.append(found.read_bytes())
            shown = "".join(
                f'<img style="max-width: 100%" src="data:image/png;base64,{b64encode(p).decode()}">' for p in pictures
            )
            return f"<p>{html.escape(repr(self)[1:-1])}</p>{shown}"
        return html.escape(repr(self))

    def division(self) -> list[dict[str, str]]:
        """Read splits.csv: which image was in which part.

        Fine-tuning runs of 0.1.0 call a validation part that kzoo drew "choose", and then the user's val/, which
        served as the test part, "val": they are returned as "val" and "test", as later runs have them.

        Returns:
            Rows, {"split", "label", "id"}.

        Raises:
            RunError: The file can't be read.
        """
        rows = read_csv(self.path / SPLITS)
        if "finetune" not in self.config or "parts" in self.config:
            return rows
        parts = {row["split"] for row in rows}
        names = {"choose": "val"} if "test" in parts else {"choose": "val", "val": "test"}
        return [{**row, "split": names.get(row["split"], row["split"])} for row in rows]

    def divided(self, dataset: DataSet) -> DataSet:
        """Divide a data set as splits.csv says; images that it does not list are in no part.

        Args:
            dataset: The data that the run was trained on.

        Raises:
            DataError: None of the images is in splits.csv.
        """
        from kzoo.data.divide import as_divided

        return as_divided(dataset, self.division(), self.path / SPLITS)

    @property
    def refit(self) -> bool:
        """Whether the head was fitted again on the validation part, which then measures nothing (fine-tuning)."""
        metrics = read_json(self.path / METRICS) if (self.path / METRICS).is_file() else {}
        if "finetune" not in self.config or "parts" in self.config:
            return bool(metrics.get("refit"))
        drawn = any(row["split"] == "choose" for row in read_csv(self.path / SPLITS))
        return drawn and metrics.get("winner", "head") == "head"


def history_of(path: str | os.PathLike) -> dict[str, list[Any]]:
    """Read the history of a run, finished or not: {column: values by epoch}.

    Args:
        path: The run's folder.

    Raises:
        RunError: The file can't be read.
    """
    rows = read_csv(Path(path) / HISTORY)
    return {key: [_number(row.get(key)) for row in rows] for key in (rows[0] if rows else ())}


def _number(cell):
    """A cell of history.csv as a number if it is one, None if it is empty."""
    if not cell:
        return None
    try:
        return float(cell) if not cell.lstrip("-").isdecimal() else int(cell)
    except ValueError:
        return cell


def write_json(path: str | os.PathLike, data: Any) -> None:
    """Write data as indented JSON, completely or not at all; NaN and infinities become null.

    Raises:
        KzooError: The system refuses.
    """
    with write_atomically(path, "w", errors="backslashreplace") as f:
        json.dump(finite(data), f, indent=2, ensure_ascii=False)
        f.write("\n")


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """Read a file of a run that holds a JSON object.

    Raises:
        RunError: It is missing, can't be read, or holds something else.
    """
    try:
        data = finite(json.loads(Path(path).read_text("utf-8")))
    except FileNotFoundError:
        raise RunError(f"{Path(path).parent} is not a kzoo run: it has no {Path(path).name}.") from None
    except (OSError, ValueError, RecursionError) as e:
        raise RunError(f"{path} can't be read ({e}).") from e
    if not isinstance(data, dict):
        raise RunError(f"{Path(path).parent} is not a kzoo run: {Path(path).name} holds no JSON object.")
    return data


def write_csv(path: str | os.PathLike, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write rows as CSV with a header, completely or not at all.

    Raises:
        KzooError: The system refuses.
    """
    with write_atomically(path, "w", newline="", errors="backslashreplace") as f:
        writer = csv.DictWriter(f, columns)
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: str | os.PathLike) -> list[dict[str, str]]:
    """Read the rows of a CSV file by their columns.

    Raises:
        RunError: It can't be read.
    """
    try:
        with open(path, encoding="utf-8", newline="") as f:
            return list(csv.DictReader(f))
    except (OSError, ValueError, csv.Error) as e:
        raise RunError(f"{path} can't be read ({e}).") from e


@contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
    """Hold a run folder for this process, and remove what a killed process left in it, or the folder if it stays empty.

    Args:
        folder: The run; it must exist.

    Returns:
        A context manager. The system releases the lock of a process that dies.

    Raises:
        RunError: Another process holds it, or it can't be written to or locked.
    """

    def refuse():
        raise RunError(f"{folder} is in use by another kzoo process: wait for it, or choose another --out.")

    with ExitStack() as stack:
        try:
            held = stack.enter_context(hold_lock(Path(folder) / LOCK, on_busy=refuse))
        except OSError as e:
            if e.filename is not None:
                raise RunError(f"{folder} can't be written to ({e.strerror}).") from e
            raise RunError(f"{folder} can't be locked ({e.strerror}): choose an --out on another file system.") from e
        if held:
            for path in Path(folder).iterdir():  # left by a process that was killed
                if LEFT.match(path.name) and path.is_file():
                    path.unlink()
        try:
            yield
        finally:
            # An error before anything was written: an empty folder would only make the next run's name end in "-2".
            with suppress(OSError):  # an open file can't be deleted everywhere; the folder may be gone
                if os.listdir(folder) == [LOCK]:
                    (Path(folder) / LOCK).unlink()
                    Path(folder).rmdir()


# The command line that is running, set by `kzoo.cli`; also that of a script in scripts/ or a step of kzoo demo.
argv: ContextVar[tuple[str, ...]] = ContextVar("argv", default=())


def command(verb: str) -> str:
    """Return the command line that is running, else the function `kzoo.<verb>(...)`, for the record."""
    return shlex.join(["kzoo", *argv.get()]) if argv.get() else f"kzoo.{verb}(...)"


def versions() -> dict[str, str]:
    """Return the versions of the packages that compute, for the record. Nothing is imported to find them."""
    from importlib.metadata import PackageNotFoundError, version

    import kzoo

    found = {"kzoo": kzoo.__version__, "python": platform.python_version()}
    jax = ("jax",) if os.environ.get("KERAS_BACKEND") == "jax" else ()
    for name in ("keras", "tensorflow", "numpy", *jax):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # under another name, such as tensorflow-cpu
            module = sys.modules.get(name)
            found[name] = getattr(module, "__version__", "unknown")
    return found


def record(folder: Path, settings: Mapping[str, Any], dataset: DataSet) -> None:
    """Write the files that a run starts with: labels.txt, splits.csv, and config.json, which makes it a run, last.

    Args:
        folder: The run.
        settings: For config.json, JSON-able.
        dataset: A `kzoo.data.dataset.DataSet`.
    """
    from kzoo.data.labels import text_of  # imports NumPy

    with write_atomically(folder / LABELS, "w", errors="backslashreplace") as f:
        f.writelines(f"{name}\n" for name in dataset.classes)
    named = dataset.classes and not dataset.masks
    named = named and (dataset.several or all(split.labels.ndim == 1 for split in dataset.splits.values()))
    rows = (
        {"split": name, "label": text_of(label, dataset.classes) if named else _plain(label), "id": image}
        for name, split in dataset.splits.items()
        for image, label in zip(split.ids, split.labels, strict=True)
    )
    write_csv(folder / SPLITS, rows, ("split", "label", "id"))
    write_json(folder / CONFIG, settings)


def list_skipped(folder: Path, skipped: Iterable[tuple[str, str]]) -> Path:
    """Add images that are left out to skipped.csv, each once.

    Args:
        folder: The run.
        skipped: (id, reason) of each.

    Returns:
        The file.
    """
    path = folder / SKIPPED
    known = {row["id"]: row["reason"] for row in read_csv(path)} if path.is_file() else {}
    known.update((escaped(id), reason) for id, reason in skipped)
    write_csv(path, ({"id": id, "reason": reason} for id, reason in known.items()), ("id", "reason"))
    return path


def _plain(label):
    """A label that names no class: a number as it is, nothing for an array."""
    return label.item() if getattr(label, "ndim", 1) == 0 else ""


# --- the model -------------------------------------------------------------------------------------------


def save_model(model: keras.Model, path: str | os.PathLike) -> None:
    """Write a .keras file completely or not at all, with the hash of its weights inside."""
    with write_atomically(path) as f:
        model.save(f.name)
        with zipfile.ZipFile(f.name, "a") as archive:
            with archive.open("model.weights.h5") as weights:
                digest = _digest(weights)
            archive.writestr("kzoo.json", json.dumps({"weights_sha256": digest.hexdigest()}))


def _digest(f):
    digest = hashlib.sha256()
    while piece := f.read(1 << 20):
        digest.update(piece)
    return digest


def model_digest(model: keras.Model) -> str:
    """A hash of the layers and weights of a model."""
    import keras
    import numpy as np

    state = hashlib.sha256("\n".join(f"{v.path} {tuple(v.shape)}" for v in model.weights).encode())
    for v in model.weights:
        state.update(np.ascontiguousarray(keras.ops.convert_to_numpy(v)).tobytes())
    return state.hexdigest()[:16]


def load_run(path: str | os.PathLike) -> Run:
    """Load a run folder: its configuration and its best model.

    The model file is checked against the hash inside it and read in Keras' safe mode.

    Args:
        path: The folder.

    Returns:
        A Run.

    Raises:
        RunError: It is not a run, has no finished epoch, or a file of it is corrupt or was changed.
    """
    path = Path(path)
    if not path.is_dir():
        raise RunError(f"There is no run folder '{path}': kzoo train writes one.")
    config = read_json(path / CONFIG)
    if not {"model", "classes", "input_shape", "preprocessing"} <= config.keys():
        raise RunError(f"{path} is not a kzoo run: its {CONFIG} was not written by kzoo.")
    wrong = [name for name, fits in FIELDS.items() if not fits(config.get(name))]
    if wrong:
        raise RunError(f"{path / CONFIG} is damaged: {', '.join(wrong)} can't be read.")
    check_imports(config, path)
    load_keras()  # quietly: the next line imports it
    if "keras_model" not in config:
        row = spec(config["model"])
        import_module(row.architecture.partition(":")[0])  # its layers register themselves with Keras
    import_module("kzoo.layers")
    file = path / MODEL
    if not file.is_file():
        verb = "finetune" if "finetune" in config else "train"
        typed = shlex.quote(str(path))
        raise RunError(
            f"{path} has no {MODEL}: no epoch was finished. Continue with kzoo {verb} --resume --out {typed}."
        )
    run = Run(path, config, read_model(file))
    _check_preprocessing(run)
    _check_classes(run)
    return run


MAX_CODE_BYTES = 1 << 24  # of a Python file that is hashed


def check_imports(config: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Check that a run's network is registered here by what registered it there.

    A run may come from elsewhere, so the code that its config.json names is never run, but named to the user.

    Args:
        config: the run's; without "imports" (before 0.2) nothing is known.
        path: of the run, for messages.

    Raises:
        RunError: what registered the network is not imported, or something else has replaced it.
    """
    recorded, name = config.get("imports"), config["model"]
    if recorded is None or "keras_model" in config:  # the latter is whole in its file
        return
    if not isinstance(recorded, list) or not all(
        isinstance(r, dict) and isinstance(r.get("module"), str) and all(isinstance(v, str) for v in r.values())
        for r in recorded
    ):
        raise RunError(f"{Path(path) / CONFIG} is damaged: imports can't be read.")
    here = imports_of(name) if isinstance(name, str) and name in list_models() else []
    if recorded and not here:
        first = recorded[0]
        file = first.get("file")
        what = first["module"] if "." in first["module"] or not file else file
        if what == "__main__":
            raise RunError(
                f"The network of {path}, {name}, was registered in a notebook or at Python's prompt: write that into a "
                "file and pass --import FILE, or register it before this call."
            )
        said = "" if what != file or _has_hash(first) else " (a file that has changed since, or is gone)"
        raise RunError(
            f"The network of {path}, {name}, was registered by {what}{said}: if you trust that code, pass --import "
            f"{shlex.quote(what)}, or import it in Python before this call."
        )
    if here and not recorded:
        what = here[0].get("file", here[0]["module"])
        raise RunError(
            f"{path} was trained with kzoo's own {name}, which {what} has replaced in this process: leave that import "
            "out."
        )
    hashes = {r.get("sha256") for r in here}
    for r in recorded:
        if r.get("sha256") not in hashes:
            say(f"Note: {r.get('file', r['module'])}, which the network of {path} comes from, has changed since.")


def _has_hash(recorded):
    """Whether a recorded file is there as it was."""
    file = Path(recorded["file"])
    try:
        return file.is_file() and file.stat().st_size <= MAX_CODE_BYTES and sha256(file) == recorded.get("sha256")
    except (OSError, ValueError):
        return False


def _texts(values):
    return isinstance(values, list) and all(isinstance(v, str) for v in values)


# What config.json must hold: name -> whether a value can be one.
FIELDS = {
    "model": lambda v: isinstance(v, str),
    "classes": _texts,
    "input_shape": lambda v: isinstance(v, list) and len(v) == 3 and all(type(n) is int and n > 0 for n in v),
    "preprocessing": lambda v: isinstance(v, dict),
    "data": lambda v: isinstance(v, str),
    "fingerprint": lambda v: isinstance(v, str),
    "seed": lambda v: type(v) is int,
    "val_fraction": lambda v: type(v) in (int, float) and 0 <= v < 1,
    "test_fraction": lambda v: type(v) in (int, float) and 0 <= v < 1,
}


def _check_classes(run):
    """RunError if the names of the classes in config.json are not those of labels.txt, or not as many as outputs."""
    output = run.model.output_shape
    found = (output[0] if isinstance(output, list) else output)[-1]
    if run.classes and found != run.task.outputs(run.classes):
        raise RunError(
            f"{run.path / CONFIG} names {len(run.classes)} classes, but {MODEL} has {found} outputs: {CONFIG} was "
            "changed."
        )
    try:
        text = (run.path / LABELS).read_text("utf-8", "replace")
    except FileNotFoundError:  # nothing to compare with
        return
    except OSError as e:
        raise RunError(f"{run.path / LABELS} can't be read ({e.strerror or e}).") from e
    if text.splitlines() != "".join(f"{escaped(name)}\n" for name in run.classes).splitlines():
        raise RunError(
            f"The names of the classes in {run.path / CONFIG} and in {LABELS} do not agree: one of them was changed."
        )


def read_model(file: str | os.PathLike) -> keras.Model:
    """Load a model that `save_model` wrote: checked against the hash inside, read in safe mode.

    Raises:
        RunError: It is missing or corrupt.
    """
    import keras

    from kzoo.builder import computing_in

    if not Path(file).is_file():
        raise RunError(f"There is no {file}.")
    try:
        with zipfile.ZipFile(file) as archive:
            recorded = json.loads(archive.read("kzoo.json"))["weights_sha256"]
            with archive.open("model.weights.h5") as weights:
                digest = _digest(weights).hexdigest()
        if digest != recorded:
            raise RunError(f"{file} is corrupt: the hash of its weights is not the one recorded in it.")
        with computing_in():
            model = keras.saving.load_model(file, compile=False, safe_mode=True)
    except RunError:
        raise
    except Exception as e:  # zipfile, json, h5py and Keras each have their own ways to fail on a broken file
        raise RunError(f"{file} can't be read ({first_line(e)}).") from e
    return model


def _check_preprocessing(run):
    """RunError if the preprocessing in config.json is not that of the model."""
    from kzoo.layers import Preprocess

    try:
        wanted = run.preprocessing
        found = wanted.fingerprint(run.input_shape)
        recorded = run.config.get("preprocessing_sha256", found)  # old runs have none
        layer = next((x for x in run.model.layers if isinstance(x, Preprocess)), None)
        if layer is not None:
            inside = replace(wanted, channel_order=layer.channel_order, scale=layer.scale, offset=layer.offset)
            recorded = recorded if inside.fingerprint(run.input_shape) == found else "the model's"
        fits = tuple(run.model.input_shape[1:]) == run.input_shape
    except (KeyError, TypeError, ValueError) as e:
        raise RunError(f"The preprocessing in {run.path / CONFIG} can't be read ({e}).") from e
    if recorded != found or not fits:
        raise RunError(
            f"The preprocessing in {run.path / CONFIG} is not the one that {MODEL} was trained with: {CONFIG} was "
            "changed, or kzoo's rules were. Restore it, or train again."
        )


# --- the checkpoint --------------------------------------------------------------------------------------


def save_checkpoint(path: str | os.PathLike, arrays: Mapping[str, np.ndarray], state: Any) -> None:
    """Write a checkpoint completely or not at all.

    Args:
        path: The file.
        arrays: {name: array}.
        state: JSON-able.
    """
    import numpy as np

    with (
        write_atomically(path) as f,
        zipfile.ZipFile(f, "w") as archive,
    ):  # stored, not compressed: weights hardly compress
        for i, array in enumerate(arrays.values()):
            with archive.open(f"{i}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
        archive.writestr("state.json", json.dumps({"names": list(arrays), "state": state}))


class CheckpointWriter:
    """Writes checkpoints in a thread, so that the training goes on meanwhile; one at a time.

    A kill leaves the older file whole. To hold one copy in memory, not two, call `wait` before making the next one.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def write(
        self, path: Path, arrays: Mapping[str, np.ndarray], state: Any, then: Callable[[], object] | None = None
    ) -> None:
        """Begin to write one, when the one before is written.

        Args:
            path, arrays, state: as for `save_checkpoint`; nobody may change the arrays.
            then: called in the thread when the file is there.

        Raises:
            KzooError: The one before could not be written.
        """
        self.wait()

        def work():
            try:
                save_checkpoint(path, arrays, state)
                if then:
                    then()
            except BaseException as e:
                self._error = e

        self._thread = threading.Thread(target=work, name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Wait until nothing is being written.

        Raises:
            KzooError: What was written last could not be.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error


def load_checkpoint(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], Any]:
    """Load what `save_checkpoint` wrote. The archive's checksums cover every byte of the arrays.

    Returns:
        (arrays, state).

    Raises:
        RunError: The file is missing or corrupt.
    """
    import numpy as np

    try:
        with zipfile.ZipFile(path) as archive:
            meta = json.loads(archive.read("state.json"))
            arrays = {
                name: np.lib.format.read_array(io.BytesIO(archive.read(f"{i}.npy")), allow_pickle=False)
                for i, name in enumerate(meta["names"])
            }
            return arrays, meta["state"]
    except MemoryError:  # no fault of the checkpoint
        raise
    except Exception as e:
        raise RunError(
            f"The checkpoint {path} can't be read ({e}): it is corrupt. Start again with another --out."
        ) from e


def folder_of(file: str | os.PathLike) -> Path | None:
    """The folder of the run whose model a file is, None for another file."""
    path = Path(file)
    return path.parent if path.name == MODEL and (path.parent / CONFIG).is_file() else None


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    """Describe the settings that differ between this command and a run that it should resume.

    Args:
        ours: Settings of this command.
        theirs: Settings of the run.
        keys: Those to compare; dicts are compared key by key.

    Returns:
        A sentence for each difference.
    """
    found = []
    for key in keys:
        a, b = theirs.get(key), ours.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += [f"{key}.{d}" for d in differences(b, a, sorted(a.keys() | b.keys()))]
        elif json.loads(json.dumps(a)) != json.loads(json.dumps(b)):
            found.append(f"{key}: the run has {_brief(a)}, this command {_brief(b)}")
    return found


def _brief(value):
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def new_folder(out: str | os.PathLike | None, model: str, data: str) -> Path:
    """Make the folder for a new run.

    Args:
        out: The folder; None takes runs/MODEL-DATA, with a number if that exists.
        model: Name of the model.
        data: Name of the data.

    Raises:
        RunError: It holds a run or other files, or can't be made.
    """
    if out is None:
        stem = Path("runs") / f"{model}-{Path(data.replace(':', '_')).stem or 'data'}"
        out, n = stem, 1
        while out.exists():
            n += 1
            out = Path(f"{stem}-{n}")
    out = Path(out)
    if (out / CONFIG).exists():
        raise RunError(f"{out} holds a run already: add --resume to continue it, or choose another --out.")
    # What a process leaves that was killed before it wrote config.json; without its lock such files are somebody's.
    left = {LOCK, LABELS, SPLITS} if (out / LOCK).exists() else set()
    if out.exists() and (not out.is_dir() or any(p.name not in left and not LEFT.match(p.name) for p in out.iterdir())):
        raise RunError(f"{out} exists and is not a kzoo run: choose another --out.")
    try:
        os.makedirs(out, exist_ok=True)
    except OSError as e:
        raise RunError(f"Can't make the folder {out}: {e.strerror}.") from e
    return out
