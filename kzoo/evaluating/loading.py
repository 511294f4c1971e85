"""One interface for what classifies images: a run, an export, a model of the catalog with weights, an ensemble."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import keras
import numpy as np

from kzoo import runs
from kzoo.catalog import Preprocessing
from kzoo.data import images
from kzoo.data.guards import upright_size
from kzoo.errors import DataError, RunError
from kzoo.evaluating.tiles import Tiling, tiling
from kzoo.exporting.ensemble import check_alike, check_distinct, member_name
from kzoo.exporting.options import ExportOptions
from kzoo.exporting.reader import CARD, Export, is_export
from kzoo.exporting.write import about_conformal, calibrate
from kzoo.files import sha256
from kzoo.graph.inference import predictor
from kzoo.metrics import abstains, log_mean_softmax, softmax
from kzoo.progress import say
from kzoo.source import describe, find_source, temperature_of
from kzoo.tasks import Task


@dataclass(frozen=True)
class LoadedModel:
    """A model that answers for encoded images.

    Attributes:
        task: defines what an answer is, and how it is shown.
        classes: names, by number.
        answer: a function of a list of encoded images and the number of classes to return. It gives a list with the
            task's answer for each image, or {"error": reason} for one that can't be read.
        outputs: a function of a list of encoded images that gives the network's outputs (...) for each image, or a
            reason; a member of an ensemble has it.
        temperature: by which a member's logits are divided.
        preprocessing: how images are prepared; None for an ensemble.
        tiling: gives how to cut large pictures into tiles (`kzoo.evaluating.tiles`); None for an ensemble.
        channels: how many it takes.
        network: the keras.Model behind it, None for an export or an ensemble.
        about: what it is, in words.
        identity: gives a hash of all that decides its answers.
    """

    task: Task
    classes: tuple[str, ...]
    answer: Callable[[Sequence[bytes], int], list[dict]]
    outputs: Callable[[Sequence[bytes]], list[np.ndarray | str]] | None = None
    temperature: float = 1.0
    preprocessing: Preprocessing | None = None
    tiling: Callable[[], Tiling] | None = None
    channels: int = 3
    network: keras.Model | None = None
    about: str = ""
    identity: Callable[[], str] = str


def load_model(
    model: Any,
    weights: Any = None,
    *,
    classes: Sequence[str] | None = None,
    pixels: str | None = None,
    trust: bool = False,
    abstain: float | None = None,
) -> LoadedModel:
    """Load a run, an export, a model of the catalog, or an ensemble of them.

    Args:
        model: a Run or an Export, the folder of one, a name of the catalog, a keras.Model or a file of one; a list of
            these is an ensemble, which averages their probabilities, each after its temperature. A LoadedModel is
            returned as it is.
        weights: for a name: a tag or a file; the first published set by default.
        classes: names, for a Keras model, which records none.
        pixels: what a Keras model of a file takes, where that can't be known, see `kzoo.keras_files`.
        trust: load an export with any operations, which may read and write files.
        abstain: of a run, a level such as 0.95 at which its answers have "abstain", as those of an export that was
            written with it: by a threshold from the run's validation images, which are read for it.

    Returns:
        The LoadedModel.

    Raises:
        RunError, ExportError, WeightsError: a run, export or weights that can't be read.
        DataError: weights for a run or an export, which has its own.
        KzooError: members of an ensemble whose probabilities can't be averaged.
        ExportError: a threshold was asked for that the run has not the images for.
    """
    model = getattr(model, "loaded", model)  # of what kzoo.load gave
    if abstain is not None and not _is_run(model):
        raise DataError(
            "abstain is for a run, by its validation images; an export abstains if it was written with kzoo export "
            "--abstain."
        )
    if isinstance(model, LoadedModel):
        return model
    if isinstance(model, (list, tuple)):
        check_distinct(model)
        return _averaged(model, [load_model(member, weights, trust=trust) for member in model])
    named = isinstance(model, (str, os.PathLike))
    if named and weights is None and is_export(model):
        model = _export(os.path.abspath(model), trust, _state(model))
    if isinstance(model, Export):
        return LoadedModel(
            model.task,
            model.classes,
            model.answer,
            _outputs_of_export(model),
            model.card.get("temperature", 1.0),
            preprocessing=model.preprocessing,
            tiling=lambda: tiling(model.input_shape),
            channels=model.input_shape[-1],
            about=f"the export {model.folder}",
            identity=lambda: sha256(model.folder / CARD),  # which has the hashes of the other files
        )
    if isinstance(model, keras.Model) or (named and not os.path.isdir(model)):
        source = find_source(model, weights=weights, classes=classes, pixels=pixels)
        about = source.name if weights is None else f"{source.name} with the weights {weights}"
        return _of_network(source.model, source.task, source.classes, source.shape, source.preprocessing, about)
    if weights is not None:
        raise DataError("weights are for names of the catalog; a run or an export has its own.")
    if not named and not isinstance(model, runs.Run):
        raise RunError(
            f"A model is a run, an export, a name, a Keras model or a file of one; got {type(model).__name__}."
        )
    run = model if isinstance(model, runs.Run) else runs.load_run(model)
    temperature = temperature_of(run)[0] or 1.0
    about = f"the run {run.path}"
    unsure = None if abstain is None else _unsure(run, abstain)
    return _of_network(run.model, run.task, run.classes, run.input_shape, run.preprocessing, about, temperature, unsure)


def _is_run(model):
    return isinstance(model, runs.Run) or (
        isinstance(model, (str, os.PathLike)) and os.path.isdir(model) and not is_export(model)
    )


def _unsure(run, level):
    """A function of logits (N, C) that tells where an answer is to abstain, as an export of the run would."""
    ExportOptions(abstain=level)  # checks it
    temperature, _, conformal = calibrate(
        describe(run), abstain=level, images=ExportOptions.measure, precision=None, quiet=True
    )
    say(about_conformal(conformal))
    return lambda logits: abstains(softmax(np.asarray(logits, "float64") / temperature), conformal["threshold"])


@lru_cache(1)
def _export(folder, trust, state):
    """The export last loaded, as long as its files stay as they are: TensorFlow frees no graph that it has loaded."""
    return Export(folder, trust)


def _state(folder):
    facts = [(e.name, e.stat().st_mtime_ns, e.stat().st_size, e.stat().st_ino) for e in os.scandir(folder)]
    return tuple(sorted(facts))


def _of_network(model, task, classes, shape, preprocessing, about, temperature=1.0, unsure=None):
    prepare, network = images.make_preparer(shape, preprocessing), predictor(model)

    def outputs(encoded):
        results, good = [], []
        for data in encoded:
            try:
                good.append(prepare(data))
                results.append("")
            except DataError as e:
                results.append(str(e))
        found = iter(network(np.stack(good)) if good else ())
        return [reason or next(found) for reason in results]

    def pictures(found, encoded):
        sizes = np.array([upright_size(data) for data in encoded], "int32")
        return {name: x.numpy() for name, x in task.of_pictures(found, sizes, shape, preprocessing).items()}

    answer = _answer(task, classes, outputs, pictures if task.pictures else None, unsure)
    return LoadedModel(
        task,
        tuple(classes),
        answer,
        outputs,
        temperature,
        preprocessing=preprocessing,
        tiling=lambda: tiling(shape, model),
        channels=shape[-1],
        network=model,
        about=about,
        identity=lambda: f"{runs.model_digest(model)} {preprocessing.fingerprint(shape)} {temperature}",
    )


def _outputs_of_export(export):
    def outputs(encoded):
        found = export.run(encoded)
        rows = zip(found[export.task.output], found["error"], strict=True)
        return [error.decode("utf-8", "replace") if error else row for row, error in rows]

    return outputs


def _answer(task, classes, outputs, pictures=None, unsure=None):
    """The function `LoadedModel.answer` of a network's outputs; pictures: as `Task.of_pictures`, of encoded images;
    unsure: of outputs, where to abstain."""

    def answer(encoded, top):
        found = outputs(encoded)
        good = [(row, data) for row, data in zip(found, encoded, strict=True) if not isinstance(row, str)]
        answers = iter(())
        if good:
            rows = np.stack([row for row, _ in good])
            more = pictures(rows, [data for _, data in good]) if pictures else {}
            answered = task.rows(rows, classes, top, pictures=more)
            if unsure:
                answered = [
                    a if "error" in a else {**a, "abstain": bool(b)}
                    for a, b in zip(answered, unsure(rows), strict=True)
                ]
            answers = iter(answered)
        return [{"error": row} if isinstance(row, str) else next(answers) for row in found]

    return answer


def _averaged(names, members):
    """The ensemble of loaded members."""
    check_alike([(member_name(name), m.task, m.classes) for name, m in zip(names, members, strict=True)])
    temperatures = [m.temperature for m in members]

    def outputs(encoded):
        found = []
        for rows in zip(*(m.outputs(encoded) for m in members), strict=True):
            reason = next((row for row in rows if isinstance(row, str)), None)
            found.append(reason or log_mean_softmax(rows, temperatures))
        return found

    task, classes = members[0].task, members[0].classes
    about = f"an ensemble of {', '.join(m.about for m in members)}"
    answer = _answer(task, classes, outputs)
    return LoadedModel(
        task,
        classes,
        answer,
        outputs,
        channels=members[0].channels,
        about=about,
        identity=lambda: ", ".join(m.identity() for m in members),
    )
