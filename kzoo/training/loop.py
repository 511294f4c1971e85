"""The training loop: from a name and data to a run folder."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kzoo import runs
from kzoo.builder import build, check_options, computing_in
from kzoo.builder import options as network_options
from kzoo.catalog import RULES, ModelSpec, Preprocessing, Weights, image_spec, imports_of, spec
from kzoo.checks import changed
from kzoo.data.augment import augmentation, for_targets
from kzoo.data.batches import batches, decode_split
from kzoo.data.dataset import DataSet, report_skipped
from kzoo.data.divide import DIVISION
from kzoo.data.loading import load_data
from kzoo.data.scan import bits_note, bits_used
from kzoo.errors import RunError
from kzoo.files import sha256
from kzoo.graph.inference import predictor
from kzoo.graph.ledger import ledger
from kzoo.hardware import auto_precision, cores, describe
from kzoo.interrupt import interruptible
from kzoo.progress import progress, say
from kzoo.runs import Run
from kzoo.tasks import Task, task_for
from kzoo.training.callbacks import RunKeeper
from kzoo.training.optimizers import make_optimizer
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


def train(
    model: str | ModelSpec | None = None,
    data: Any = None,
    *,
    recipe: str | Recipe | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    loss: str | None = None,
    class_weights: str | Mapping[str, float] | None = None,
    weights: str | os.PathLike | Weights | None = None,
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
    **config: Any,
) -> Run:
    """Train a model of the catalog and leave a run folder.

    Args:
        model: a name or ModelSpec.
        data: what `kzoo.load_data` takes, such as a folder, (images, labels) or a tf.data set, or a DataSet; "digits"
            by default.
        recipe: a name of `kzoo.training.recipes.RECIPES` or a Recipe; the model's own by default.
        epochs, batch_size, learning_rate: in place of the recipe's.
        loss: in place of the recipe's: for classes "cross_entropy" (the default), "hinge" or "mse"; for masks
            "cross_entropy", "focal", "dice", "jaccard" or a sum such as "cross_entropy+dice".
        class_weights: of the loss: None; "balanced", n / (classes * n_c), n_c being the training images of a class, of
            masks the pixels; or {class: weight}, 1 for those that are not listed. Not for several labels an image.
        weights: to start from, a tag of the model or a file, with the preprocessing that they need; a classifier for
            other classes is new. None starts from random weights.
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
            what they were, but for `epochs` (more, also after the end) and `batch_size`, whose change config.json
            records; the learning rate then follows the schedule of the new number of epochs.
        quiet: no progress.
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
        learning_rate=learning_rate,
        loss=loss,
        class_weights=class_weights,
        weights=weights,
        patience=patience,
        seed=seed,
        precision=precision,
        input_shape=input_shape,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        strict=strict,
        bits=bits,
    )
    return train_run(model, data, changed(options), config, out=out, resume=resume, quiet=quiet)


def train_run(model, data, given: dict, config: dict, *, out=None, resume=False, quiet=False) -> Run:
    """`train`, with the options as a dict of those that were given: the command knows which these are."""
    before = resumed(out) if resume else None
    if before:
        model, data = model or before["model"], data or before["data"]
        asked = {k: v for k, v in given.items() if (k, v) != ("precision", "auto")}
        given = {**_options_of(before), **asked}
        if spec(model).name == before["model"]:  # else it is refused below, and its options are of no use
            config = {**before["options"], **config}
    elif model is None:
        raise RunError("Which model to train is missing; kzoo list shows all.")
    options = TrainOptions(**given)
    row = image_spec(spec(model).name)  # a ModelSpec must be registered, too: evaluate and export look it up
    known = network_options(row)
    check_options(row, config, train)
    if before and row.name == before["model"]:  # with the options that were added since
        before["options"] = {**known, **before["options"]}
    if "aux" in known:
        config = {"aux": True, **config}
    recipe = find_recipe(options.recipe or row.recipe).changed(**options.changes())
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
    task.check_class_weights(options.class_weights, dataset.classes)
    task.loss(recipe)  # a name or a recipe that does not fit is refused before the images are read
    for_targets(recipe.augment, task.dense)
    if recipe.crop is not None and task.dense:
        raise RunError(f"Recipe {recipe.name} crops pictures at random, and not their masks: choose another one.")
    if options.patience is not None and "val" not in dataset.splits:
        raise RunError("patience waits for a better validation metric, and there is no validation part.")
    shape = tuple(options.input_shape or row.input_shape)
    network, precision, why = _network(row, options, task.outputs(dataset.classes), shape, config, chosen)
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
    if before:
        folder = Path(out)
        changes = _changed_on_resume(before, settings, folder)
        wrong = runs.differences(settings, {**before, "recipe": {**before["recipe"], **changes}}, RESUME_KEYS)
        if wrong:
            raise RunError(f"{out} can't be resumed with other settings. {'; '.join(wrong)}.")
    else:
        folder = runs.new_folder(out, row.name, dataset.name)

    with runs.locked(folder):
        if not before or not (folder / runs.SPLITS).is_file():  # a kill may have come in between
            runs.record(folder, settings, dataset)
        elif changes:
            settings = _record_changes(before, changes, folder)
        else:
            settings["resumed"] = before.get("resumed", [])
        if not quiet:
            sizes = ", ".join(f"{len(split):,} {name}" for name, split in dataset.splits.items())
            classes = f"{len(dataset.classes)} classes, " if dataset.classes else ""
            say(f"{row.name} on {dataset.name}: {classes}{sizes} images.")
            if task.name != row.task:
                say(f"Task: {task.name}, because of the labels of {dataset.name}.")
            plural = "s" if recipe.epochs > 1 else ""
            say(
                f"Recipe {recipe.name}, {recipe.epochs} epoch{plural} of batches of {recipe.batch_size}; "
                f"computing in {precision}: {why}."
            )
            if recipe.loss:
                say(f"Loss {recipe.loss}. {task.about_losses.get(recipe.loss, '')}".rstrip())
        splits = _read(dataset, task, recipe, shape, row.preprocessing, options.strict, folder=folder, quiet=quiet)
        task.prepare(network, splits["train"].labels)  # a resumed run's weights come over it
        with interruptible() as interrupted, computing_in():  # losses and metrics follow Keras' global settings
            _fit(network, task, splits, settings, recipe, folder=folder, interrupted=interrupted, quiet=quiet)
    return runs.load_run(folder)


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
    return {**{n: before[n] for n in names}, "input_shape": tuple(before["input_shape"]), "bits": before.get("bits")}


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
    """{name: new value} of the recipe's epochs and batch size, which may change when a run is resumed."""
    old, new = before["recipe"], settings["recipe"]
    changes = {name: new[name] for name in ("epochs", "batch_size") if new[name] != old[name]}
    done = _epochs_done(folder)
    if changes.get("epochs", done) < done:
        raise RunError(f"{folder} has {done} epochs already; --epochs {changes['epochs']} would be fewer.")
    return changes


def _epochs_done(folder):
    return len(runs.history_of(folder).get("epoch", ())) if (folder / runs.HISTORY).is_file() else 0


def _record_changes(before, changes, folder):
    """Write what changes on resuming into config.json; the new settings."""
    change = {"after_epoch": _epochs_done(folder), **{k: [before["recipe"][k], v] for k, v in changes.items()}}
    settings = {**before, "recipe": {**before["recipe"], **changes}, "resumed": [*before.get("resumed", []), change]}
    runs.write_json(folder / runs.CONFIG, settings)
    words = {"epochs": "epochs", "batch_size": "images a batch"}
    what = " and ".join(f"{before['recipe'][k]} -> {v} {words[k]}" for k, v in changes.items())
    say(
        f"From epoch {change['after_epoch'] + 1} on: {what}; the learning rate follows the schedule of the new numbers."
    )
    return settings


def _network(row, options, outputs, shape, config, weights):
    """(the network, its precision, why that one)."""

    def make(precision):
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
    layer = network.get_layer("preprocessing")
    trained = replace(row.preprocessing, channel_order=layer.channel_order, scale=layer.scale, offset=layer.offset)
    return {
        "model": row.name,
        "imports": imports_of(row.name),
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

    The others are read while training, and so are those that a recipe crops at random.
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
    if skipped:
        if strict:
            raise RunError(report_skipped(skipped) + " (--strict)")
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


def training_model(
    network: keras.Model,
    task: Task,
    recipe: Recipe,
    *,
    steps: int,
    seed: int,
    loss_weights: tuple[float, ...] = (),
    class_weights: np.ndarray | None = None,
) -> keras.Model:
    """The network behind its augmentation, compiled to train by a recipe. Augmentation is no part of the network.

    What moves pixels is done to pictures and masks alike in `kzoo.data.batches`, for a task that is `dense`.

    Args:
        network: one output (B, ...), or several of one shape, the main one first, for auxiliary classifiers.
        task: gives losses and metrics.
        recipe: gives augmentation, loss options, optimizer and schedule.
        steps: in one epoch.
        seed: of the augmentation.
        loss_weights: of the losses of several outputs; () weighs all alike.
        class_weights: (C,), of `Task.class_weights`.

    Returns:
        A compiled model with the output (B, ...), or (B, heads, ...) for several.
    """
    x = inputs = keras.Input(network.input_shape[1:], dtype="float32", name="image")
    for layer in augmentation(for_targets(recipe.augment, task.dense)[0], seed):
        x = layer(x)
    heads = network(x)
    several = isinstance(heads, (list, tuple))
    model = keras.Model(inputs, keras.ops.stack(heads, axis=1) if several else heads)
    loss = task.loss(recipe, class_weights)

    def weighted_loss(y, z):
        weights = loss_weights or (1.0,) * z.shape[1]
        return sum(w * loss(y, z[:, i]) for i, w in zip(range(z.shape[1]), weights, strict=True))

    model.compile(
        make_optimizer(recipe, steps),
        weighted_loss if several else loss,
        metrics=task.trackers(network.outputs[0].shape[-1], several),
        # XLA on a CPU computes convolutions several times slower than TensorFlow's own library does.
        jit_compile=keras.backend.backend() != "tensorflow",
        steps_per_execution=steps_per_execution(network, recipe.batch_size),
    )
    model.optimizer.build(model.trainable_variables)
    return model


def steps_per_execution(network: keras.Model, batch_size: int) -> int:
    """How many batches to compute in one call, so that Python's share stays small: 16 for a perceptron, 1 for a ResNet.

    A call of 5e9 multiply-adds takes about 0.05 s on a laptop; interruption and the check for NaN come between calls.
    """
    if keras.backend.backend() != "tensorflow":
        return 1
    return int(min(16, max(1, 5e9 // (3 * batch_size * max(1, ledger(network).totals.known_multiply_adds)))))


def _fit(network, task, splits, settings, recipe, *, folder, interrupted, quiet):
    """Train from the checkpoint, or from the start, to the end."""
    seed, classes = settings["seed"], settings["classes"]
    shape, n = tuple(settings["input_shape"]), len(splits["train"])
    steps, loss_weights = math.ceil(n / recipe.batch_size), spec(settings["model"]).loss_weights
    model = training_model(
        network,
        task,
        recipe,
        steps=steps,
        seed=seed,
        loss_weights=loss_weights,
        class_weights=task.class_weights(settings["class_weights"], splits["train"].labels, classes),
    )
    left_out: dict[str, str] = {}
    keeper = RunKeeper(
        network,
        task=task,
        recipe=recipe,
        settings=settings,
        folder=folder,
        images=n,
        interrupted=interrupted,
        left_out=left_out,
        strict=settings["strict"],
    )
    done = keeper.restore(model)
    if (settings.get("resumed") or [{}])[-1].get("after_epoch") == done:  # perhaps with other batches
        getattr(model.optimizer, "inner_optimizer", model.optimizer).iterations.assign(
            done * steps + keeper.position // recipe.batch_size
        )
    preprocessing = Preprocessing.from_dict(settings["preprocessing"])

    def targets(labels):
        return task.targets(labels, classes)

    def serve(split, **options):
        return batches(split, shape, preprocessing, recipe.batch_size, targets=targets, left_out=left_out, **options)

    def decision():
        """What the task chooses on the validation part, by the best network."""
        if not task.decides:
            return None
        split = splits.get("val", splits["train"].take(np.arange(0)))
        best, found = predictor(runs.read_model(folder / runs.MODEL)), []
        for x, _ in serve(split) if len(split) else ():
            found.append(best(x))
        outputs = np.concatenate(found) if found else np.zeros((0, task.outputs(classes)), "float32")
        read = np.array([id not in left_out for id in split.ids], bool)  # known now
        chosen = task.decide(outputs, split.labels[read], classes)
        if not quiet:
            say(chosen["reason"])
        return chosen

    if keeper.finished():
        keeper.finish(decision())  # a kill may have come between the last checkpoint and this
        say(f"{folder} is finished: {done} epochs.")
        return
    if (done or keeper.position) and not quiet:
        within = f" and {keeper.position:,} images" if keeper.position else ""
        say(f"Continuing after epoch {done}{within}.")

    def fit(start, first, last):
        data = serve(
            splits["train"],
            order=(seed, keeper.epoch),
            alternate_flip=recipe.alternate_flip,
            move=for_targets(recipe.augment, task.dense)[1],
            crop=recipe.crop,
            start=start,
        )
        if start:  # Keras makes the variables of metrics in the first step; what the epoch had summed up is put there
            x, y = (tf.zeros((1, *s.shape[1:]), s.dtype) for s in data.element_spec)
            model.compute_metrics(x, y, tf.zeros((1, *model.output_shape[1:])))
        model.fit(
            data,
            validation_data=serve(splits["val"]) if "val" in splits else None,
            epochs=last,
            initial_epoch=first,
            callbacks=[keeper],
            shuffle=False,
            verbose=0,
        )

    with progress(quiet=quiet) as keeper.bar:
        try:
            if keeper.position:  # the rest of an epoch
                fit(keeper.position, done, done + 1)
                done += 1
            if not keeper.finished():
                fit(0, done, recipe.epochs)
        except tf.errors.OpError as e:  # from a thread of the input pipeline
            if not left_out:
                raise
            raise RunError(f"No image of a batch can be read: {report_skipped(list(left_out.items()))}.") from e
    keeper.finish(decision())
