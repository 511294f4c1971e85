"""One interface for everything that classifies images: a run, an export, or a model of the catalog with weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from kzoo import runs
from kzoo.data import images
from kzoo.errors import DataError
from kzoo.exporting.reader import Export, is_export
from kzoo.exporting.source import find_source
from kzoo.graph.inference import predictor
from kzoo.tasks import Task


@dataclass(frozen=True)
class LoadedModel:
    """A model that answers for encoded images.

    Attributes:
        task: defines what an answer is, and how it is shown.
        classes: names, by number.
        answer: a function of a list of encoded images and the number of classes to return. It gives a list with the
            task's answer for each image, or {"error": reason} for one that can't be read.
    """

    task: Task
    classes: tuple[str, ...]
    answer: Callable[[Sequence[bytes], int], list[dict]]


def load_model(model: Any, weights: Any = None, *, trust: bool = False) -> LoadedModel:
    """Load a run, an export, or a model of the catalog.

    Args:
        model: a Run or an Export, the folder of one, or a name of the catalog.
        weights: for a name: a tag or a file; the first published set by default.
        trust: load an export with any operations, which may read and write files.

    Returns:
        The LoadedModel.

    Raises:
        RunError, ExportError, WeightsError: a run, export or weights that can't be read.
        DataError: weights for a run or an export, which has its own.
    """
    named = isinstance(model, (str, os.PathLike))
    if named and weights is None and is_export(model):
        model = _export(os.path.abspath(model), trust, _state(model))
    if isinstance(model, Export):
        return LoadedModel(model.task, model.classes, model.answer)
    if named and not os.path.isdir(model) and os.sep not in os.fspath(model):
        source = find_source(model, weights=weights)
        return _of_network(source.model, source.task, source.classes, source.shape, source.preprocessing)
    if weights is not None:
        raise DataError("weights are for names of the catalog; a run or an export has its own.")
    run = model if isinstance(model, runs.Run) else runs.load_run(model)
    return _of_network(run.model, run.task, run.classes, run.input_shape, run.preprocessing)


@lru_cache(1)
def _export(folder, trust, state):
    """The export last loaded, as long as its files stay as they are: TensorFlow frees no graph that it has loaded."""
    return Export(folder, trust)


def _state(folder):
    facts = [(e.name, e.stat().st_mtime_ns, e.stat().st_size, e.stat().st_ino) for e in os.scandir(folder)]
    return tuple(sorted(facts))


def _of_network(model, task, classes, shape, preprocessing):
    prepare, network = images.make_preparer(shape, preprocessing), predictor(model)

    def answer(encoded, top):
        results, good = [], []
        for data in encoded:
            try:
                good.append(prepare(data))
                results.append(None)
            except DataError as e:
                results.append({"error": str(e)})
        answers = iter(task.rows(network(np.stack(good)), classes, top) if good else ())
        return [next(answers) if result is None else result for result in results]

    return LoadedModel(task, tuple(classes), answer)
