"""From a name, or a Keras model of the user's own, and data to a run folder."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kzoo import runs
from kzoo.builder import build, check_options, computing_in
from kzoo.builder import options as network_options
from kzoo.catalog import RULES, ModelSpec, Preprocessing, Weights, image_spec, imports_of, spec
from kzoo.checks import changed, unknown_option
from kzoo.data.augment import for_targets
from kzoo.data.batches import decode_split
from kzoo.data.dataset import DataSet, report_skipped
from kzoo.data.divide import DIVISION
from kzoo.data.loading import load_data
from kzoo.data.scan import bits_note, bits_used
from kzoo.distribution import ALONE, Together
from kzoo.errors import RunError
from kzoo.files import is_model_file, sha256
from kzoo.hardware import auto_precision, cores, describe
from kzoo.interrupt import interruptible
from kzoo.keras_files import KerasFile, fingerprint, in_precision, preprocessing_of, row_of, to_train
from kzoo.progress import progress, say
from kzoo.runs import Run
from kzoo.tasks import task_for
from kzoo.training.fitting import fit
from kzoo.training.options import TrainOptions
from kzoo.training.recipes import Recipe, find_recipe
from kzoo.weights import fetch, resolve

# What must be the same for a run to be resumed.
RESUME_KEYS = (
    "model",
    "options",
    "classes",
    "input_shape",
    "preprocessing",
    "recipe",
    "fingerprint",
    "seed",
    "precision",
    "patience",
    "class_weights",
    "val_fraction",
    "test_fraction",
    "backend",
)


# What may change in the recipe on resuming, in words.
CHANGEABLE = {
    "epochs": "epochs",
    "batch_size": "images a batch",
    "gradient_accumulation_steps": "batches a step",
}


def train(
    model: str | os.PathLike | ModelSpec | keras.Model | None = None,
    data: Any = None,
    *,
    recipe: str | Recipe | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    gradient_accumulation_steps: int | None = None,
    learning_rate: float | None = None,
    loss: str | None = None,
    class_weights: str | Mapping[str, float] | None = None,
    weights: str | os.PathLike | Weights | None = None,
    pixels: str | None = None,
    patience: int | None = None,
    seed: int = 0,
    precision: str = "auto",
    input_shape: tuple[int, int, int] | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    strict: bool = False,
    bits: int | None = None,
    out: str | os.PathLike | None = None,
    resume: bool = False,
    quiet: bool = False,
    devices: int | None = None,
    coordinator: str | None = None,
    process: str | None = None,
    **config: Any,
) -> Run:
    """Train a model of the catalog, or a Keras model of your own, and leave a run folder.

    Args:
        model: a name or ModelSpec; or a functional or built Sequential keras.Model with an output for each class, or a
            file of one (.keras, .h5). A copy of it is trained, from the weights that it has.
        data: what `kzoo.load_data` takes, such as a folder, (images, labels) or a tf.data set, or a DataSet; "digits"
            by default.
        recipe: a name of `kzoo.training.recipes.RECIPES` or a Recipe; the model's own by default.
        epochs, batch_size, learning_rate: in place of the recipe's.
        gradient_accumulation_steps: batches whose gradients are averaged for one step of the optimizer, 1 by default: a
            step takes that many times batch_size images, of which batch_size are in the network at once.
        loss: in place of the recipe's: for classes "cross_entropy" (the default), "hinge" or "mse"; for masks
            "cross_entropy", "focal", "dice", "jaccard" or a sum such as "cross_entropy+dice".
        class_weights: of the loss: None; "balanced", n / (classes * n_c), n_c being the training images of a class, of
            masks the pixels; or {class: weight}, 1 for those that are not listed. Not for several labels an image.
        weights: to start from, a tag of the model or a file, with the preprocessing that they need; a classifier for
            other classes is new. None starts from random weights.
        pixels: what a Keras model takes that does not scale pixels itself: "0..255", "0..1", "-1..1", "imagenet" or
            "caffe" (see `kzoo.catalog.pretrained.PIXELS`).
        patience: stop after so many epochs without a better validation metric; None never stops early.
        seed: of the initial weights, the order of the images, augmentation and dropout. The same seed gives the same
            numbers on the same machine.
        precision: "float32", "bfloat16", "float16", or "auto": what this machine is fast in.
        input_shape: (height, width, channels) in place of the model's.
        val_fraction: share of the training images to validate on, where the data has no validation part.
        test_fraction: share to test on, where the data is undivided.
        strict: refuse unusable images instead of leaving them out.
        bits: of 16-bit images (PNG, arrays), how many bits are used, such as 12: values are scaled so that
            2**bits - 1 becomes 255. None keeps the upper 8 bits of files, and refuses arrays with values above 255.
        out: the run folder; runs/MODEL-DATA by default.
        resume: continue the run in `out`. Options that are left at their defaults are taken from it; the others must be
            what they were, but for `epochs` (more, also after the end), `batch_size` and
            `gradient_accumulation_steps`, whose change config.json records; the learning rate then follows the schedule
            of the new numbers.
        quiet: no progress.
        devices: how many of this process to train on, with the JAX backend; None for one, and with a coordinator for
            all that there are. They share each batch, and a run may be resumed on another number.
        coordinator: HOST:PORT of the first of several processes, which all call this function; "env" for what
            Kubeflow or Slurm set.
        process: "i/N", the number of this process, from 0, and how many there are.
        config: keywords of the architecture. Networks with auxiliary classifiers (googlenet) train with them and leave
            them out of the saved model; aux=False trains without.

    Returns:
        The Run, with the weights of its best epoch: highest validation accuracy, then lowest validation loss.

    Raises:
        RunError: a run that can't start, continue, or that diverged; its last good checkpoint stays.
        Interrupted: after Ctrl-C or SIGTERM; what was trained on so far is kept.
        KzooError: an unknown name, an option out of range, unusable data.

    Example:
        >>> run = kzoo.train("mnist_softmax", "digits", epochs=1, out="runs/example", quiet=True)
        >>> run.classes[:2]
        ('0', '1')
    """
    options = TrainOptions(
        recipe=recipe,
        epochs=epochs,
        batch_size=batch_size,
        gradient_accumulation_steps=gradient_accumulation_steps,
        learning_rate=learning_rate,
        loss=loss,
        class_weights=class_weights,
        weights=weights,
        pixels=pixels,
        patience=patience,
        seed=seed,
        precision=precision,
        input_shape=input_shape,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        strict=strict,
        bits=bits,
    )
    together = Together(devices, coordinator, process)
    return train_run(model, data, changed(options), config, out=out, resume=resume, quiet=quiet, together=together)


def train_run(
    model, data, given: dict, config: dict, *, out=None, resume=False, quiet=False, together: Together = ALONE
) -> Run:
    """`train`, with the options as a dict of those that were given: the command knows which these are."""
    with together.group() as group:
        folder = _train(model, data, given, config, group, out=out, resume=resume, quiet=quiet or not group.first)
    return runs.load_run(folder)


def _train(model, data, given, config, group, *, out, resume, quiet):
    """`train_run` on a group of devices; the run's folder."""
    before = resumed(out) if resume else None
    if before:
        data = before["data"] if data is None else data
        if model is None and "keras_model" not in before:
            model = before["model"]
        asked = {k: v for k, v in given.items() if (k, v) != ("precision", "auto")}
        given = {**_options_of(before), **asked}
    elif model is None:
        raise RunError("Which model to train is missing; kzoo list shows all.")
    options = TrainOptions(**given)
    own = _own(model, before, out, options)
    if own:
        row, known = row_of(own), {}
        if config:
            hint = f"{row.name} is a Keras model: its options are in it; help(kzoo.train) shows the others."
            raise unknown_option(row.name, next(iter(config)), signature(train).parameters, hint)
    else:
        row = image_spec(spec(model).name)  # a ModelSpec must be registered, too: evaluate and export look it up
        known = network_options(row)
        if before and row.name == before["model"]:  # with the options that were added since; else it is refused below
            before["options"] = {**known, **before["options"]}
            config = {**before["options"], **config}
        check_options(row, config, train)
    if "aux" in known:
        config = {"aux": True, **config}
    recipe = find_recipe(options.recipe or row.recipe)
    if before and isinstance(options.recipe, str):  # its numbers are the run's, unless they are given as well
        recipe = recipe.changed(**{name: before["recipe"][name] for name in CHANGEABLE})
    recipe = recipe.changed(**options.changes())
    group.share(recipe.batch_size)
    if group.devices > 1 and recipe.gradient_accumulation_steps > 1:
        raise RunError(
            "Gradients are not accumulated on several devices, each of which has its share of a batch: use batches of "
            f"{recipe.images_a_step}."
        )
    division = before.get("division", 1) if before else DIVISION  # a run is continued with its own parts
    chosen = None
    if before:
        if options.weights is not None:
            raise RunError("A resumed run has its own weights: leave out weights.")
        row = replace(row, preprocessing=Preprocessing.from_dict(before["preprocessing"]))  # ... and its own pixels
    elif options.weights is not None:
        chosen = resolve(row, options.weights)
        config = {**chosen.config, **config}
        row = replace(row, preprocessing=chosen.preprocessing or row.preprocessing)
    rules = row.preprocessing.rules if before else RULES
    row = replace(row, preprocessing=replace(row.preprocessing, bits=options.bits, rules=rules))
    dataset = data
    if not isinstance(data, DataSet):
        dataset = _load("digits" if data is None else data, options, division)
    if options.bits is None and "train" in dataset.splits and (note := bits_note(bits_used(dataset.splits["train"]))):
        say(f"Warning: {note}")
    task = task_for(row.task, dataset)
    task.check_data(dataset)
    if own:
        _check_end(own, task, dataset)
    task.check_class_weights(options.class_weights, dataset.classes)
    task.loss(recipe)  # a name or a recipe that does not fit is refused before the images are read
    for_targets(recipe.augment, task.dense)
    if recipe.crop is not None and task.dense:
        raise RunError(f"Recipe {recipe.name} crops pictures at random, and not their masks: choose another one.")
    if options.patience is not None and "val" not in dataset.splits:
        raise RunError("patience waits for a better validation metric, and there is no validation part.")
    shape = tuple(options.input_shape or row.input_shape)
    if group.processes > 1:  # before variables are made, which must be the same in all
        mine = {k: getattr(options, k) for k in ("seed", "precision", "val_fraction", "test_fraction")}
        mine |= {"model": row.name, "options": config, "recipe": recipe.to_dict(), "data": dataset.fingerprint()}
        group.check_same({**mine, "input_shape": shape, "weights": str(options.weights)}, runs.differences)
    outputs = task.outputs(dataset.classes)
    network, precision, why = _network(own, row, options, outputs, shape, config, chosen)
    task.check_outputs(network)
    settings = _settings(
        replace(row, task=task.name),
        {**known, **config},
        options,
        recipe,
        dataset=dataset,
        division=division,
        network=network,
        precision=precision,
        shape=shape,
        weights=chosen,
    )
    if own:
        settings["keras_model"] = {"sha256": fingerprint(own.model), "notes": [*own.notes]}
    group.check_same({k: settings[k] for k in RESUME_KEYS}, runs.differences)
    settings |= {"devices": group.devices, "processes": group.processes}
    if before:
        folder = Path(out)
        changes = _changed_on_resume(before, settings, folder)
        wrong = runs.differences(settings, {**before, "recipe": {**before["recipe"], **changes}}, RESUME_KEYS)
        if wrong:
            raise RunError(f"{out} can't be resumed with other settings. {'; '.join(wrong)}.")
    else:
        folder = Path(group.told(str(runs.new_folder(out, row.name, dataset.name)) if group.first else None))

    with runs.locked(folder) if group.first else nullcontext():
        if before and changes:
            settings = _record_changes(before, changes, folder, group.first)
        elif before:
            settings["resumed"] = before.get("resumed", [])
        if group.first and (not before or not (folder / runs.SPLITS).is_file()):  # a kill may have come in between
            if own:
                runs.save_model(own.model, folder / runs.START)
            runs.record(folder, settings, dataset)
        group.told(None)
        if not (folder / runs.CONFIG).is_file():
            raise RunError(f"Process {group.process} does not see {folder}, which must be on a disk that all share.")
        if not quiet:
            sizes = ", ".join(f"{len(split):,} {name}" for name, split in dataset.splits.items())
            classes = f"{len(dataset.classes)} classes, " if dataset.classes else ""
            say(f"{row.name} on {dataset.name}: {classes}{sizes} images.")
            for note in own.notes if own else ():
                say(f"{row.name}: {note}")
            if task.name != row.task:
                say(f"Task: {task.name}, because of the labels of {dataset.name}.")
            plural = "s" if recipe.epochs > 1 else ""
            n = recipe.gradient_accumulation_steps
            together = f", {n} of them for a step" if n > 1 else ""
            say(
                f"Recipe {recipe.name}, {recipe.epochs} epoch{plural} of batches of {recipe.batch_size}{together}; "
                f"computing in {precision}: {why}."
            )
            if recipe.loss:
                say(f"Loss {recipe.loss}. {task.about_losses.get(recipe.loss, '')}".rstrip())
            if group.devices > 1:
                say(f"{group.devices} devices in {group.processes} process{'es' if group.processes > 1 else ''}.")
        report = folder if group.first else None
        splits = _read(dataset, task, recipe, shape, row.preprocessing, options.strict, folder=report, quiet=quiet)
        if not own:  # which begins with the weights that it has
            task.prepare(network, splits["train"].labels)  # a resumed run's weights come over it
        with interruptible() as interrupted, computing_in():  # losses and metrics follow Keras' global settings
            fit(network, task, splits, settings, recipe, group, folder=folder, interrupted=interrupted, quiet=quiet)
    return folder


def _own(model, before, out, options):
    """The `KerasFile` of a Keras model of the user's own, or None for a network of the catalog."""
    begun = (before or {}).get("keras_model")
    if isinstance(model, keras.Model) or is_model_file(model):
        found = to_train(model, options.pixels, options.input_shape)
        if before and fingerprint(found.model) != (begun or {}).get("sha256"):
            raise RunError(f"{out} did not begin with this model or these weights: leave it out, the run has its own.")
    elif begun and model is None:
        start = runs.read_model(Path(out) / runs.START)
        found = KerasFile(start, None, tuple(begun["notes"]), name=before["model"])
    else:
        found = None
    if found is None and options.pixels is not None:
        raise RunError("pixels says what a Keras model of your own takes; networks of the catalog know it.")
    if found is not None and options.weights is not None:
        raise RunError(f"{found.name} begins with the weights that it has: leave out weights.")
    return found


def _check_end(own, task, dataset):
    """RunError if a Keras model does not end as the task needs it, or nothing of it trains."""
    if not own.model.trainable_variables:
        raise RunError(f"Nothing of {own.name} trains: set layer.trainable = True for the layers that should.")
    wanted, n = task.outputs(dataset.classes), own.model.outputs[0].shape[-1]
    if n != wanted:
        raise RunError(
            f"{own.name} has {n} output{'s' if n != 1 else ''}, and {dataset.name} needs {wanted}, one for each class: "
            f"end it with keras.layers.{'Conv2D' if task.dense else 'Dense'}({wanted}{', 1' if task.dense else ''})."
        )
    last = own.model.outputs[0]._keras_history.operation
    function = getattr(getattr(last, "activation", None), "__name__", "linear")
    wrong = own.ending if own.ending and own.ending != task.ending else ""
    if wrong or function != "linear":
        raise RunError(
            f"{own.name} ends in {wrong or function}; {task.name} takes logits (no activation) or {task.ending} at the "
            "end."
        )


def resumed(out) -> dict:
    """The config.json of the run to continue; RunError if `kzoo train` did not write it."""
    if out is None:
        raise RunError("--resume needs --out, the folder of the run to continue.")
    before = {"class_weights": None, **runs.read_json(Path(out) / runs.CONFIG)}  # older runs record none
    if not {*RESUME_KEYS, "data"} <= before.keys():
        raise RunError(f"{out} is not a kzoo train run, so kzoo train can't continue it.")
    runs.check_imports(before, out)
    before["recipe"] = find_recipe(before["recipe"]).to_dict()  # with the fields that were added since
    return before


def _options_of(before):
    """The options that a run's config.json records."""
    names = ("recipe", "patience", "class_weights", "seed", "precision", "val_fraction", "test_fraction")
    later = {name: before.get(name) for name in ("bits", "pixels")}  # which older runs don't record
    return {**{n: before[n] for n in names}, **later, "input_shape": tuple(before["input_shape"])}


def _load(name, options, division):
    return load_data(
        name,
        division=division,
        seed=options.seed,
        strict=options.strict,
        bits=options.bits,
        val_fraction=options.val_fraction,
        test_fraction=options.test_fraction,
    )


def _changed_on_resume(before, settings, folder):
    """{name: new value} of what may change in the recipe when a run is resumed."""
    old, new = before["recipe"], settings["recipe"]
    changes = {name: new[name] for name in CHANGEABLE if new[name] != old[name]}
    done = _epochs_done(folder)
    if changes.get("epochs", done) < done:
        raise RunError(f"{folder} has {done} epochs already; --epochs {changes['epochs']} would be fewer.")
    return changes


def _epochs_done(folder):
    return len(runs.history_of(folder).get("epoch", ())) if (folder / runs.HISTORY).is_file() else 0


def _record_changes(before, changes, folder, writes):
    """Write what changes on resuming into config.json; the new settings."""
    change = {"after_epoch": _epochs_done(folder), **{k: [before["recipe"][k], v] for k, v in changes.items()}}
    settings = {**before, "recipe": {**before["recipe"], **changes}, "resumed": [*before.get("resumed", []), change]}
    if not writes:
        return settings
    runs.write_json(folder / runs.CONFIG, settings)
    what = " and ".join(f"{before['recipe'][k]} -> {v} {CHANGEABLE[k]}" for k, v in changes.items())
    say(
        f"From epoch {change['after_epoch'] + 1} on: {what}; the learning rate follows the schedule of the new numbers."
    )
    return settings


def _network(own, row, options, outputs, shape, config, weights):
    """(the network, its precision, why that one)."""

    def make(precision):
        if own:
            return in_precision(own.model, precision)
        wanted = {"num_classes": outputs, "input_shape": shape, "seed": options.seed, **config}
        return build(row, precision=precision, weights=weights, **wanted)

    if options.precision != "auto":
        return make(options.precision), options.precision, "as asked"
    precision, why = auto_precision()
    network = make(precision)
    if auto_precision(network)[0] != precision:
        precision, why = auto_precision(network)
        network = make(precision)
    return network, precision, why


def _settings(row, config, options, recipe, *, dataset, division, network, precision, shape, weights):
    """config.json."""
    inside = preprocessing_of(network)
    trained = replace(row.preprocessing, channel_order=inside.channel_order, scale=inside.scale, offset=inside.offset)
    return {
        "model": row.name,
        "imports": imports_of(row.name) if row.architecture else [],
        "task": row.task,
        "options": config,
        "classes": list(dataset.classes),
        "input_shape": list(shape),
        "preprocessing": trained.to_dict(),
        "preprocessing_sha256": trained.fingerprint(shape),
        "recipe": recipe.to_dict(),
        "data": dataset.name,
        "fingerprint": dataset.fingerprint(),
        "seed": options.seed,
        "precision": precision,
        "patience": options.patience,
        "class_weights": options.class_weights,
        "weights": _about(weights),
        "val_fraction": options.val_fraction,
        "test_fraction": options.test_fraction,
        "division": division,
        "strict": options.strict,
        "bits": options.bits,
        "pixels": options.pixels,
        "backend": keras.backend.backend(),
        "hardware": describe(),
        "versions": runs.versions(),
        "command": runs.command("train"),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _about(weights):
    """What config.json records of the weights that the training started from."""
    if weights is None:
        return None
    path = fetch(weights)  # it is there: the network was built from it
    return weights.recorded(path, sha256(path))


def _read(dataset, task, recipe, shape, preprocessing, strict, *, folder, quiet):
    """The training and validation parts with their images decoded where they fit into memory or on disk.

    The others are read while training, and so are those that a recipe crops at random. `folder` is None in all
    processes but the first, which reports what is skipped.
    """
    splits, skipped = {}, list(dataset.skipped)
    with progress(quiet=quiet) as bar:
        for name in ("train", "val"):
            split = splits[name] = dataset.splits.get(name)
            if split is None:
                del splits[name]
            elif name == "val" or recipe.crop is None:
                bar.start(f"reading {name}", len(split))
                splits[name], bad = decode_split(split, shape, preprocessing, bar.advance, lazily=True)
                skipped += bad
    if not quiet:
        say(_about_reading(splits["train"], recipe))
    if skipped and strict:
        raise RunError(report_skipped(skipped) + " (--strict)")
    if skipped and folder:
        say(f"Left out {report_skipped(skipped)}. All are listed in {runs.list_skipped(folder, skipped)}.")
    task.check_labels(splits["train"].labels, dataset.classes)
    return splits


def _about_reading(split, recipe):
    """A sentence on where the training images are while the network trains, and in which order they come."""
    order = f"in an order of all {len(split):,} by seed and epoch"
    if isinstance(split.images, np.memmap):
        return f"Images are decoded, on disk; {order}."
    if not split.files and (split.prepared or recipe.crop is None):
        return f"Images are decoded, in memory; {order}."
    where = getattr(split.images, "about", "files" if split.files else "arrays")
    return f"Images are read from {where} by {cores()} threads in every epoch, {order}."
