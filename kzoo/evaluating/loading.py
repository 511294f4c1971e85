"""One object for whatever can answer: a run, an export, or a name of the catalog with weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
    """What answers for images.

    Attributes:
        task: says what an answer is, and how it is shown.
        classes: names, by number.
        answer: a list of encoded images, and how many classes, to a list of answers, or of {"error": reason}.
    """

    task: Task
    classes: tuple[str, ...]
    answer: Callable[[Sequence[bytes], int], list[dict]]


def load_model(what, weights=None) -> LoadedModel:
    """A LoadedModel for a run or its folder, an export or its folder, or a name of the catalog.

    Args:
        what: as above.
        weights: for a name: a tag or a file; by default the first published set.

    Raises:
        RunError, ExportError, WeightsError: for what can't be read.
        DataError: weights for something that brings its own.
    """
    named = isinstance(what, (str, os.PathLike))
    if named and weights is None and is_export(what):
        what = Export(what)
    if isinstance(what, Export):
        return LoadedModel(what.task, what.classes, what.answer)
    if named and not os.path.isdir(what) and os.sep not in os.fspath(what):
        source = find_source(what, weights=weights)
        return _of_network(source.model, source.task, source.classes, source.shape, source.preprocessing)
    if weights is not None:
        raise DataError("weights go with a name of the catalog; a run or an export brings its own.")
    run = what if isinstance(what, runs.Run) else runs.load_run(what)
    return _of_network(run.model, run.task, run.classes, run.input_shape, run.preprocessing)


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
        answers = iter(task.answer(network(np.stack(good)), classes, top) if good else ())
        return [next(answers) if result is None else result for result in results]

    return LoadedModel(task, tuple(classes), answer)
