"""Measure a trained model on a part of a data set; the task defines what is measured, printed and drawn."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from kzoo import runs
from kzoo.data.batches import batches, decode_split
from kzoo.data.dataset import DataSet, Split, report_skipped
from kzoo.data.loading import load_data
from kzoo.errors import DataError, RunError
from kzoo.graph.inference import predictor
from kzoo.progress import progress, say
from kzoo.tasks import Evaluation


def evaluate(
    run: str | os.PathLike | runs.Run,
    data: str | os.PathLike | DataSet | None = None,
    *,
    split: str | None = None,
    batch_size: int = 256,
    quiet: bool = False,
) -> Evaluation:
    """Measure the best model of a run, and write the results into the run's folder.

    Args:
        run: a run folder or a Run.
        data: what `kzoo.load_data` takes, or a DataSet; the run's own by default, split as in training. Classes are
            matched by name.
        split: "train", "val", "test" or "all"; by default test if there is such a part, else val, else all.
        batch_size: the number of images that are computed at once.
        quiet: no progress.

    Returns:
        The task's Evaluation, which is also written as evaluation-SPLIT.json and, for a classifier,
        confusion-SPLIT.png.

    Raises:
        RunError: a folder that is not a run, or data with a class that the run was not trained on.
        DataError: data or a part that does not exist or has no usable image.

    Example:
        >>> run = kzoo.train("mnist_softmax", "digits", epochs=1, out="runs/example2", quiet=True)
        >>> kzoo.evaluate(run, quiet=True).images
        359
    """
    run = run if isinstance(run, runs.Run) else runs.load_run(run)
    dataset, same = _data_of(run, data)
    name, part = _part(dataset, split)
    if same and (name in ("train", "all") or (name == "val" and run.refit)):
        say(
            f"Note: {run.path} was trained on images of this part ({name}), so its accuracy on new images may be lower."
        )
    labels = _same_classes(part.labels, dataset.classes, run)
    with progress(quiet=quiet) as bar:
        bar.start("reading", len(part))
        ready, skipped = decode_split(
            Split(part.images, labels, part.ids), run.input_shape, run.preprocessing, bar.advance
        )
        if skipped:
            say(f"Left out {report_skipped(skipped)}.")
        if not len(ready):
            raise DataError(f"No usable image is left in '{dataset.name}' ({name}).")
        bar.start("evaluating", len(ready))
        outputs = outputs_of(run, ready, batch_size, bar)
    about = {"run": str(run.path), "data": dataset.name, "split": name}
    result = run.task.evaluate(outputs, ready.labels, run.classes, **about)
    result.write(run.path)
    return result


def _data_of(run, data):
    """(the data set, split as in the run if it is the run's own; whether it is the run's own)."""
    config = run.config
    if isinstance(data, DataSet):
        return data, data.fingerprint() == config["fingerprint"]
    # The same data at another path is recognised by its fingerprint.
    own = data is None or os.fspath(data) == config["data"]
    data = config["data"] if data is None else os.fspath(data)
    dataset = load_data(
        data,
        seed=config["seed"],
        val_fraction=config["val_fraction"],
        test_fraction=config["test_fraction"],
        division=config.get("division", 1),
    )
    same = dataset.fingerprint() == config["fingerprint"]
    if own and not same:
        say(f"Note: {data} has changed since {run.path} was trained, so these images may include training images.")
    if (own or same) and config.get("divided"):
        dataset = run.divided(dataset)
    return dataset, same


def outputs_of(run: runs.Run, split: Split, batch_size: int, bar: Any) -> np.ndarray:
    """Run a network on prepared images.

    Args:
        run: has the network.
        split: prepared images, of N.
        batch_size: the number of images that are computed at once.
        bar: a progress bar, which is advanced.

    Returns:
        Outputs (N, ...), in the order of the split.
    """
    predict = predictor(run.model)
    found = []
    for x, _ in batches(split, run.input_shape, run.preprocessing, batch_size):
        found.append(predict(x))
        bar.advance(len(x))
    return np.concatenate(found)


def _part(dataset, split):
    """(name, Split) of the part that is measured."""
    if split is None:
        split = next((s for s in ("test", "val") if s in dataset.splits), "all")
    if split == "all":
        return "all", dataset.whole()
    if split not in dataset.splits:
        raise DataError(f"'{dataset.name}' has no split '{split}'; it has {', '.join(dataset.splits)}, all.")
    return split, dataset.splits[split]


def _same_classes(labels, classes, run):
    """Labels numbered as in the run; RunError if the data has a class that the run was not trained on."""
    if not run.classes:
        return labels
    foreign = [c for c in classes if c not in run.classes]
    if foreign:
        raise RunError(
            f"The data has the classes {', '.join(map(repr, foreign[:5]))}, which {run.path} was not trained on "
            f"(it knows {', '.join(map(repr, run.classes[:5]))}{', ...' if len(run.classes) > 5 else ''})."
        )
    return np.array([run.classes.index(c) for c in classes])[labels]
