"""A compiled network and its epochs: from the start, or from a checkpoint, to the end of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kzoo import runs
from kzoo.catalog import Preprocessing, spec
from kzoo.data.augment import augmentation, for_targets
from kzoo.data.batches import pixels
from kzoo.data.dataset import Split, report_skipped
from kzoo.data.feed import feed, one_pair
from kzoo.distribution import Group
from kzoo.errors import RunError, out_of_memory
from kzoo.graph.inference import predictor
from kzoo.graph.ledger import ledger
from kzoo.hardware import without_tensorflow_chatter
from kzoo.progress import progress, say
from kzoo.tasks import Task
from kzoo.training.accumulation import AccumulatingModel
from kzoo.training.callbacks import RunKeeper
from kzoo.training.counted import trained
from kzoo.training.optimizers import make_optimizer
from kzoo.training.recipes import Recipe


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
    outputs = keras.ops.stack(heads, axis=1) if several else heads
    if recipe.gradient_accumulation_steps > 1:
        model = AccumulatingModel(inputs, outputs)
        model.part = recipe.batch_size
    else:
        model = trained(inputs, outputs)
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
        steps_per_execution=steps_per_execution(network, recipe.images_a_step),
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


def fit(
    network: keras.Model,
    task: Task,
    splits: Mapping[str, Split],
    settings: dict[str, Any],
    recipe: Recipe,
    group: Group,
    *,
    folder: Path,
    interrupted: Callable[[], bool],
    quiet: bool,
) -> None:
    """Train from the checkpoint, or from the start, to the end, and write the run folder.

    Args:
        network: as it was built, or begun with.
        task: gives targets, losses and metrics.
        splits: "train" and perhaps "val".
        settings: the content of config.json.
        recipe: how to train.
        group: the devices and processes that train together.
        folder: the run folder.
        interrupted: whether the training is to stop.
        quiet: no progress.

    Raises:
        RunError: images that can't be read, a loss that is not finite, or a checkpoint of another network.
    """
    seed, classes = settings["seed"], settings["classes"]
    shape, n = tuple(settings["input_shape"]), len(splits["train"])
    steps = math.ceil(n / recipe.images_a_step)
    loss_weights = () if "keras_model" in settings else spec(settings["model"]).loss_weights
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
        writes=group.first,
        left_out=left_out,
        strict=settings["strict"],
    )
    group.leaving.append(keeper.close)
    done = keeper.restore(model)
    group.check_same({"finished epochs": done, "images of the next": keeper.position}, runs.differences)
    if (settings.get("resumed") or [{}])[-1].get("after_epoch") == done:  # perhaps with other batches
        # Counted from the epoch's end, where the next one's schedule begins: the first images may fill no whole step.
        getattr(model.optimizer, "inner_optimizer", model.optimizer).iterations.assign(
            (done + 1) * steps - math.ceil((n - keeper.position) / recipe.images_a_step)
        )
    preprocessing = Preprocessing.from_dict(settings["preprocessing"])

    def targets(labels):
        return task.targets(labels, classes)

    def serve(split, images=recipe.batch_size, **options):
        return feed(split, shape, preprocessing, images, targets=targets, left_out=left_out, group=group, **options)

    def decision():
        """What the task chooses on the validation part, by the best network."""
        if not task.decides:
            return None
        split = splits.get("val", splits["train"].take(np.arange(0)))
        best, found = predictor(runs.read_model(folder / runs.MODEL)), []
        for x in pixels(split, shape, preprocessing, recipe.batch_size, left_out):
            found.append(best(x))
        outputs = np.concatenate(found) if found else np.zeros((0, task.outputs(classes)), "float32")
        read = np.array([id not in left_out for id in split.ids], bool)  # known now
        chosen = task.decide(outputs, split.labels[read], classes)
        if not quiet:
            say(chosen["reason"])
        return chosen

    def finish():
        if group.first:
            with group.alone():
                keeper.finish(decision())

    if keeper.finished():
        finish()  # a kill may have come between the last checkpoint and this
        if group.first:
            say(f"{folder} is finished: {done} epochs.")
        return
    if (done or keeper.position) and not quiet:
        within = f" and {keeper.position:,} images" if keeper.position else ""
        say(f"Continuing after epoch {done}{within}.")

    def epochs(start, first, last):
        data = serve(
            splits["train"],
            recipe.images_a_step,
            order=(seed, keeper.epoch),
            alternate_flip=recipe.alternate_flip,
            move=for_targets(recipe.augment, task.dense)[1],
            crop=recipe.crop,
            start=start,
        )
        if start:  # Keras makes the variables of metrics in the first step; what the epoch had summed up is put there
            x, y = one_pair(data)
            model.compute_metrics(x, y, keras.ops.zeros((1, *model.output_shape[1:])))
        model.fit(
            data,
            validation_data=serve(splits["val"]) if "val" in splits else None,
            epochs=last,
            initial_epoch=first,
            callbacks=[keeper],
            shuffle=False,
            verbose=0,
        )

    try:
        with without_tensorflow_chatter(), progress(quiet=quiet) as keeper.bar:
            if keeper.position:  # the rest of an epoch
                epochs(keeper.position, done, done + 1)
                done += 1
            if not keeper.finished():
                epochs(0, done, recipe.epochs)
    except Exception as e:
        if not left_out or not type(e).__module__.startswith("tensorflow") or out_of_memory(e):
            raise
        # From a thread of the input pipeline.
        raise RunError(f"No image of a batch can be read: {report_skipped(list(left_out.items()))}.") from e
    finally:
        keeper.close()
    finish()
