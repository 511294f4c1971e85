"""Measure a trained model, or several, on a part of a data set; the task defines what is measured and shown."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kzoo import runs
from kzoo.data.batches import batches, decode_split
from kzoo.data.dataset import DataSet, Split, report_skipped
from kzoo.data.divide import divide
from kzoo.data.labels import images_by_class, multi_hot
from kzoo.data.loading import read_data
from kzoo.errors import DataError, KzooError, RunError
from kzoo.evaluating.ensemble import measure_ensemble
from kzoo.evaluating.loading import LoadedModel
from kzoo.exporting.ensemble import check_alike, check_distinct, part_fingerprint, pixels_of
from kzoo.graph.inference import predictor
from kzoo.progress import progress, say
from kzoo.source import encoded, temperature_of
from kzoo.tasks import Evaluation


def evaluate(
    run: str | os.PathLike | runs.Run | Sequence[str | os.PathLike | runs.Run],
    data: Any = None,
    *,
    split: str | None = None,
    batch_size: int = 256,
    quiet: bool = False,
) -> Evaluation:
    """Measure the best model of a run, and write the results into the run's folder; or measure several as an ensemble.

    Args:
        run: a run folder or a Run. A list of them is an ensemble: their probabilities, each after the temperature that
            its run records, are averaged, and the average is compared with the members. They must have the same classes
            in the same order, and the part that is measured must be the same images for all of them.
        data: what `kzoo.load_data` takes, or a DataSet; the run's own by default, split as in training. Other data is
            never divided: all of it is measured unless `split` names a part that it has, and it need not have every
            class. Classes are matched by name.
        split: "train", "val", "test" or "all"; for the run's own data by default test if there is such a part, else
            val, else all.
        batch_size: the number of images that are computed at once; for segmentation at most as many as in training.
        quiet: no progress.

    Returns:
        The task's Evaluation, which is also written as evaluation-SPLIT.json and, for a classifier,
        confusion-SPLIT.png; for other data as evaluation-NAME-HASH-SPLIT.json, so that each data set keeps its own.
        Of an ensemble a `kzoo.evaluating.ensemble.EnsembleEvaluation`, which is not written.

    Raises:
        RunError: a folder that is not a run, data with a class that the run was not trained on, or members of an
            ensemble that held out other images.
        DataError: data or a part that does not exist or has no usable image.
        KzooError: members of an ensemble with other classes, one member only, or one twice.

    Example:
        >>> run = kzoo.train("mnist_softmax", "digits", epochs=1, out="runs/example2", quiet=True)
        >>> kzoo.evaluate(run, quiet=True).images
        359
    """
    if isinstance(run, (list, tuple)):
        return _ensemble(run, data, split, batch_size, quiet)
    one = _loaded(run)
    found = _read(one, data, split, quiet)
    if one.task.dense:  # what fitted into memory in training
        batch_size = min(batch_size, one.config.get("recipe", {}).get("batch_size", 16))
    about = {"run": str(one.path), "data": found.data, "split": found.name}
    with progress(quiet=quiet) as bar:
        bar.start("evaluating", len(found.ready))
        result = one.task.evaluate_batches(outputs_of(one, found.ready, batch_size, bar), one.classes, **about)
    result.stem = found.stem
    result.write(one.path)
    return result


def measure(
    model: LoadedModel,
    data: Any,
    *,
    split: str | None = None,
    batch_size: int = 256,
    quiet: bool = False,
) -> Evaluation:
    """Measure what is no run, an export or a model of the catalog, on a data set; nothing is written.

    Args:
        model: what `kzoo.evaluating.loading.load_model` gave.
        data: as in `evaluate`.
        split: a part of the data; all of it by default.
        batch_size: as in `evaluate`.
        quiet: as in `evaluate`.

    Returns:
        The task's Evaluation.

    Raises:
        KzooError: segmentation, whose masks only runs are measured on; or data without a usable image or with a class
            that the model does not know.
    """
    if model.outputs is None or model.task.dense:
        raise KzooError(f"{model.about} is for {model.task.name}: kzoo evaluate measures runs on masks.")
    bits = model.preprocessing.bits if model.preprocessing else None
    dataset = data if isinstance(data, DataSet) else read_data(data, bits)
    model.task.check_data(dataset)
    name, part = _part(dataset, split or "all")
    labels = _same_classes(part.labels, dataset, model)
    skipped = []

    def measured():
        for start in range(0, len(part), batch_size):
            rows, kept = [], []
            items = range(start, min(start + batch_size, len(part)))
            for i in items:
                try:
                    rows.append(encoded(part.images[i]))
                    kept.append(i)
                except (DataError, OSError) as e:
                    skipped.append((str(part.ids[i]), str(e)))
            outputs = model.outputs(rows) if rows else []
            skipped.extend((str(part.ids[i]), x) for i, x in zip(kept, outputs, strict=True) if isinstance(x, str))
            good = [(x, labels[i]) for i, x in zip(kept, outputs, strict=True) if not isinstance(x, str)]
            bar.advance(len(items))
            if good:
                yield np.stack([x for x, _ in good]), np.stack([y for _, y in good])

    with progress(quiet=quiet) as bar:
        bar.start("evaluating", len(part))
        about = {"run": model.about, "data": dataset.name, "split": name}
        found = list(measured())
    if skipped:
        say(f"Left out {report_skipped(skipped)}.")
    if not found:
        raise DataError(f"No usable image is left in '{dataset.name}' ({name}).")
    return model.task.evaluate_batches(iter(found), model.classes, **about)


def _loaded(run):
    return run if isinstance(run, runs.Run) else runs.load_run(run)


def _ensemble(members, data, split, batch_size, quiet):
    check_distinct(members)
    members = [_loaded(run) for run in members]
    names = [str(run.path) for run in members]
    check_alike([(name, run.task, run.classes) for name, run in zip(names, members, strict=True)])
    found: list[_Part] = []
    for run in members:
        found.append(_read(run, data, split, quiet, member=True, before=found[0] if found else None))
    outputs = []
    for one in found:
        with progress(quiet=quiet) as bar:
            bar.start("evaluating", len(one.ready))
            outputs.append(np.concatenate([z for z, _ in outputs_of(one.run, one.ready, batch_size, bar)]))
    return measure_ensemble(
        members[0].task,
        members[0].classes,
        names,
        outputs,
        [temperature_of(run)[0] or 1.0 for run in members],
        found[0].ready.labels,
        data=found[0].data,
        split=found[0].name,
    )


@dataclass
class _Part:
    """A part of a data set, ready for a run.

    Attributes:
        run: what it is prepared for.
        ready: the prepared images, with labels in the run's numbering.
        data: the data set's name.
        name: the part's name.
        fingerprint: of the part, for members of an ensemble.
        stem: what files about it are called; "" for the run's own data.
    """

    run: runs.Run
    ready: Split
    data: str
    name: str
    fingerprint: str
    stem: str


def _read(run, data, split, quiet, *, member=False, before=None):
    """Read a part for a run: a _Part.

    member: whether of an ensemble; then `before`, the _Part of another member, must be of the same images.
    """
    dataset, same = _data_of(run, data)
    run.task.check_data(dataset)
    other = not same and dataset.name != run.config["data"]
    if other and not isinstance(data, DataSet):
        split = split or "all"
    name, part = _part(dataset, split)
    if same and (name in ("train", "all") or (name == "val" and run.refit)):
        say(
            f"Note: {run.path} was trained on images of this part ({name}), so its accuracy on new images may be lower."
        )
    old = run.preprocessing.rules == 1 and run.preprocessing.crop < 1
    if old and not part.files and part.images.shape[1:] == tuple(run.input_shape):
        say(
            f"Note: {run.path} is of kzoo 0.1.0, which did not crop arrays of the model's size in training; they are "
            f"measured like that, while predict and exports crop {run.preprocessing.crop:g} of them. Train again to "
            "have one answer."
        )
    part = Split(part.images, _same_classes(part.labels, dataset, run), part.ids)
    fingerprint = part_fingerprint(run.classes, part) if member else ""
    if before and (name, fingerprint) != (before.name, before.fingerprint):
        raise RunError(
            f"{run.path} ({name} of {dataset.name}, {len(part):,} images) and {before.run.path} ({before.name} of "
            f"{before.data}, {len(before.ready):,}) hold out different images: train on data that has a test part of "
            "its own, or give data that no member has seen (--data)."
        )
    shared = (
        before is not None
        and run.input_shape == before.run.input_shape
        and pixels_of(run.preprocessing) == pixels_of(before.run.preprocessing)
    )
    with progress(quiet=quiet) as bar:
        if shared:
            ready = before.ready
        else:
            bar.start("reading", len(part))
            ready, skipped = decode_split(part, run.input_shape, run.preprocessing, bar.advance)
            if skipped:
                say(f"Left out {report_skipped(skipped)}.")
            if not len(ready):
                raise DataError(f"No usable image is left in '{dataset.name}' ({name}).")
            if before and ready.ids != before.ready.ids:
                raise RunError(
                    f"{run.path} can read {len(ready):,} of these images and {before.run.path} {len(before.ready):,}: "
                    "remove those that one of them can't read."
                )
    return _Part(run, ready, dataset.name, name, fingerprint, _stem(dataset, name) if other else "")


def _data_of(run, data):
    """(the data set, in the run's parts if it is the run's own and as it is otherwise; whether it is the run's own)."""
    config = run.config
    if isinstance(data, DataSet):
        return data, data.fingerprint() == config["fingerprint"]
    dataset = read_data(config["data"] if data is None else data, run.preprocessing.bits)
    name = dataset.name
    divided = _divided(dataset, config)
    same = divided is not None and divided.fingerprint() == config["fingerprint"]
    own = data is None or name == config["data"]
    if own and not same:
        say(f"Note: {name} has changed since {run.path} was trained, so these images may include training images.")
    if not own and not same:  # the same data at another path is recognised by its fingerprint
        return dataset, False
    if config.get("divided"):
        return run.divided(dataset if divided is None else divided), same
    return dataset if divided is None else divided, same


def _divided(dataset, config):
    """A data set divided as the run's was; None if it can't be divided."""
    if not {"all", "train"} & dataset.splits.keys():
        return None
    try:
        return divide(
            replace(dataset, splits=dict(dataset.splits)),
            config["val_fraction"],
            config["test_fraction"],
            config["seed"],
            division=config.get("division", 1),
        )
    except DataError:
        return None


def _stem(dataset, part):
    """How the files of an evaluation on other data than the run's are called: one set for each data set."""
    name = re.sub(r"[^\w.-]+", "_", Path(dataset.name).name or "data", flags=re.ASCII)[:40]
    return f"{name}-{dataset.fingerprint()[:8]}-{part}"


def outputs_of(run: runs.Run, split: Split, batch_size: int, bar: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Run a network on prepared images, batch by batch.

    Args:
        run: has the network.
        split: prepared images, of N.
        batch_size: the number of images that are computed at once.
        bar: a progress bar, which is advanced.

    Yields:
        (outputs (B, ...), labels (B, ...)), in the order of the split.
    """
    predict = predictor(run.model)
    for x, y in batches(split, run.input_shape, run.preprocessing, batch_size):
        yield predict(x), y.numpy()
        bar.advance(len(x))


def _part(dataset, split):
    """(name, Split) of the part that is measured."""
    if split is None:
        split = next((s for s in ("test", "val") if s in dataset.splits), "all")
    if split == "all":
        return "all", dataset.whole()
    if split not in dataset.splits:
        raise DataError(f"'{dataset.name}' has no split '{split}'; it has {', '.join(dataset.splits)}, all.")
    return split, dataset.splits[split]


def _same_masks(labels, classes, run):
    """Masks with the class numbers of the run; RunError if the data has a class that it was not trained on."""
    foreign = [c for c in classes if c not in run.classes]
    if foreign:
        raise RunError(
            f"The masks have the class {foreign[0]!r}, which {run.path} was not trained on: give it the number 255 in "
            "the table of the data, or evaluate on data with the classes of the run."
        )
    numbers = {i: run.classes.index(c) for i, c in enumerate(classes)}
    if labels.dtype == object:
        found = np.empty_like(labels)
        found[:] = [replace(mask, table=mask.table.renumbered(numbers)) for mask in labels]
        return found
    table = np.full(256, 255, np.uint8)
    table[list(numbers)] = list(numbers.values())
    return table[labels]


def _same_classes(labels, dataset, run):
    """Labels numbered as in the run; RunError if the data has a class that the run was not trained on."""
    if not run.classes:
        return labels
    classes = dataset.classes
    if run.task.dense:
        return labels if tuple(classes) == run.classes else _same_masks(labels, classes, run)
    present = {c for c, n in zip(classes, images_by_class(labels, len(classes)), strict=True) if n}
    foreign = [c for c in classes if c not in run.classes and c in present]
    if foreign:
        raise RunError(
            f"The data has the classes {', '.join(map(repr, foreign[:5]))}, which {run.about} was not trained on "
            f"(it knows {', '.join(map(repr, run.classes[:5]))}{', ...' if len(run.classes) > 5 else ''})."
        )
    own = np.array([run.classes.index(c) if c in run.classes else -1 for c in classes], int)
    if dataset.several and not run.task.several:
        raise RunError(f"'{dataset.name}' has several labels an image, and {run.about} was trained for one class.")
    if run.task.several:
        if not dataset.several:
            say(f"Note: '{dataset.name}' has one label an image.")
            labels = multi_hot([[k] for k in labels], len(classes))
        if missing := [c for c in run.classes if c not in classes]:
            say(
                f"Note: '{dataset.name}' has no class {', '.join(map(repr, missing[:5]))}"
                f"{', ...' if len(missing) > 5 else ''}, which {run.path} knows: no image counts as having it, so each "
                "such answer is wrong."
            )
        found = np.zeros((len(labels), len(run.classes)), labels.dtype)
        found[:, own[own >= 0]] = labels[:, own >= 0]
        return found
    return own[labels]
