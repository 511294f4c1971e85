"""Training the head and some stages: layer-wise learning rates, a loss with class weights, the best epoch kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

import keras
import numpy as np

from kzoo.catalog import Preprocessing
from kzoo.data.augment import augmentation, for_targets
from kzoo.data.feed import epoch_number, feed
from kzoo.distribution import Group
from kzoo.errors import RunError
from kzoo.finetuning import audit
from kzoo.finetuning.front import Front
from kzoo.finetuning.heads import HeadObjective
from kzoo.finetuning.options import BATCH, FinetuneOptions
from kzoo.finetuning.stages import HEAD, STAGE_RATE, moving_variables, set_trainable
from kzoo.graph.inference import inference_form
from kzoo.hardware import without_tensorflow_chatter
from kzoo.interrupt import Interrupted
from kzoo.tasks import Task
from kzoo.training.counted import trained
from kzoo.training.optimizers import decays
from kzoo.walk import calls

DROPOUT = (keras.layers.Dropout, keras.layers.SpatialDropout2D)  # which the inference form leaves out
WEIGHT_DECAY = 0.05

AUGMENT = {
    "none": (),
    "light": (("flip", 0.5), ("shift", 0.08), ("zoom", 0.15)),
    "strong": (("flip", 0.5), ("shift", 0.12), ("zoom", 0.3), ("rotate", 15.0), ("brightness", 0.2), ("contrast", 0.2)),
}


@keras.saving.register_keras_serializable(package="kzoo")
class StageAdamW(keras.optimizers.Adam):
    """AdamW with a layer-wise learning rate: w -= r d w, then Adam's step at rate r, with r = learning_rate * factor.

    Scaling the gradient step alone would leave the weight decay at the base rate.

    Args:
        learning_rate: the base rate, or a schedule.
        decay: d, weight decay of kernels; other variables have none.
        factors: {path of a variable: factor}, 1 for variables that are not listed.
        **kwargs: of `keras.optimizers.Adam`.

    Reference:
        Loshchilov and Hutter 2019, Decoupled weight decay regularization, arXiv:1711.05101, algorithm 2.
    """

    def __init__(self, learning_rate=1e-3, decay=0.0, factors=None, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.decay, self.factors = decay, dict(factors or {})

    def build(self, variables):
        super().build(variables)
        # By number: update_step is handed the backend's own variables, which have no path.
        self._scales = [(self.factors.get(v.path, 1.0), self.decay if decays(v) else 0.0) for v in variables]

    def update_step(self, gradient, variable, learning_rate):
        factor, decay = self._scales[self._get_variable_index(variable)]
        rate = keras.ops.cast(learning_rate, variable.dtype) * factor
        if decay:
            self.assign_sub(variable, variable * rate * decay)
        super().update_step(gradient, variable, rate)

    def get_config(self):
        return {**super().get_config(), "decay": self.decay, "factors": self.factors}


def head_loss(objective: HeadObjective) -> Callable:
    """Return a HeadObjective as a Keras loss: labels (B, K), one-hot or mixed, and logits (B, K) to losses (B,)."""
    weights = None if objective.class_weights is None else np.asarray(objective.class_weights, "float32")

    def loss(y, z):
        y, z = keras.ops.cast(y, "float32"), keras.ops.cast(z, "float32")
        log_p = keras.ops.log_softmax(z)
        t = y * (1 - objective.smoothing) + objective.smoothing / y.shape[-1]
        each = -t * log_p
        if objective.focal:
            each = each * keras.ops.power(keras.ops.maximum(1 - keras.ops.exp(log_p), 1e-7), objective.focal)
        total = keras.ops.sum(each, -1)
        return total if weights is None else total * keras.ops.sum(y * weights, -1)

    return loss


def value_of(variable) -> np.ndarray:
    """Return a copy of a Keras variable's value."""
    return np.array(keras.ops.convert_to_numpy(variable))


@dataclass
class StagePlan:
    """Settings that all stages share.

    Attributes:
        options: a `FinetuneOptions`: seed, epochs, mix.
        task: gives targets and metrics.
        loss: (targets, outputs) to (B,) or ().
        augment: (name, amount) pairs of `kzoo.data.augment`.
        classes: names, by number.
        shape, preprocessing: of the network's input.
        deadline: time.monotonic() at which training ends, None for never.
        batch: images in a step.
        head: names of the layers that train beside any stage.
        rate: the highest learning rate of the top stage.
        group: the devices that share each batch.
    """

    options: FinetuneOptions
    task: Task
    loss: Callable
    augment: tuple[tuple[str, float], ...]
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    preprocessing: Preprocessing
    deadline: float | None = None
    batch: int = BATCH
    head: tuple[str, ...] = (HEAD,)
    rate: float = STAGE_RATE
    group: Group = field(default_factory=Group)


def split(network: keras.Model) -> tuple[keras.Model, keras.Model] | None:
    """Split a network where training begins: below it is faster in inference form, and needs no gradient.

    Args:
        network: with the `trainable` of its layers set.

    Returns:
        (the frozen part below the first layer that trains, the part from there on), which share the network's layers.
        None where no single tensor leads from one to the other.
    """
    nodes = calls(network.inputs, network.outputs[:1])
    moving, between = set(), {}
    for node in nodes:
        trains = bool(getattr(node.operation, "trainable_variables", ()))
        if trains or isinstance(node.operation, DROPOUT) or any(id(t) in moving for t in node.input_tensors):
            moving.update(id(t) for t in node.outputs)
            between.update((id(t), t) for t in node.input_tensors if id(t) not in moving)
    for node in reversed(nodes):  # a shortcut without weights begins below, at the tensor that its block begins with
        if len(between) > 1 and any(between.pop(id(t), None) is not None for t in node.outputs):
            between.update((id(t), t) for t in node.input_tensors)
    (first,) = between.values() if len(between) == 1 else (network.inputs[0],)
    if any(first is t for t in network.inputs):
        return None
    return keras.Model(network.inputs[0], first), keras.Model(first, network.outputs[0])


def stage_model(network, plan, factors, steps, epochs):
    """(what stands in front of the layers that train, or None; the model that trains, compiled).

    Warm-up is over the first epoch, then the learning rate falls to 0 as a cosine. On JAX the model has all layers.
    """
    layers = augmentation(for_targets(plan.augment, plan.task.dense)[0], plan.options.seed)
    below, upper = (None if plan.group.layout else split(network)) or (None, network)
    shape, front = network.input_shape[1:], None
    if keras.backend.backend() == "tensorflow" and (layers or below):
        front = Front(layers, below, shape)
        inputs = keras.Input(front.shape, dtype="float32")
        model = trained(inputs, upper(inputs))
    else:
        x = inputs = keras.Input(shape, dtype="float32", name="image")
        for layer in layers:
            x = layer(x)
        if below:
            below = inference_form(below)
            below.trainable = False
            x = below(x)
        model = trained(inputs, upper(x))
    total, warmup = steps * epochs, min(steps, steps * epochs // 2)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else plan.rate,
        max(total - warmup, 1),
        warmup_target=plan.rate if warmup else None,
        warmup_steps=warmup,
    )
    model.compile(
        StageAdamW(rate, WEIGHT_DECAY, factors),
        plan.loss,
        metrics=plan.task.trackers(len(plan.classes)),
        jit_compile=keras.backend.backend() != "tensorflow",
    )
    model.optimizer.build(model.trainable_variables)
    return front, model


@contextmanager
def on_devices(network, group, seed):
    """The network on all devices of a group, as a copy whose weights the network gets at the end."""
    if group.layout is None:
        yield network
        return
    values = group.told_arrays([value_of(v) for v in network.weights])
    with group.layout.scope():
        keras.utils.set_random_seed(seed)  # variables must begin with the same values in all processes
        copy = keras.models.clone_model(network)
        for v, value in zip(copy.weights, values, strict=True):
            v.assign(value)
        yield copy
        values = [value_of(v) for v in copy.weights]
    for v, value in zip(network.weights, values, strict=True):
        v.assign(value)


@without_tensorflow_chatter()
def train_stage(network, stage_list, number, plan, splits, *, store, bar, interrupted, bound=None):
    """Train the head and these stages, from the network's current weights; it ends with those of the best epoch.

    Args:
        network: with the head.
        stage_list: what trains beside the head.
        number: of this phase, from 0.
        plan: settings that all stages share.
        splits: "train" and "val", with their images decoded.
        store: a `StageCheckpoint`, written after each epoch.
        bar: progress.
        interrupted: asked whether to stop.
        bound: the validation loss of the best network so far; training ends early where it will not get below that.

    Returns:
        {"rows" of the history, "audit", "seconds", "hopeless": no epoch was below the bound}; None if the budget is too
        short for one epoch.
    """
    set_trainable(network, stage_list, plan.head)
    with on_devices(network, plan.group, plan.options.seed) as copy:
        return _train_stage(copy, stage_list, number, plan, splits, store, bar, interrupted, bound)


def _train_stage(network, stage_list, number, plan, splits, store, bar, interrupted, bound):
    began = time.monotonic()
    factors = set_trainable(network, stage_list, plan.head)
    steps = math.ceil(len(splits["train"]) / plan.batch)
    before = audit.snapshot(network)
    saved = store.stage(number)
    epochs = saved["epochs"] if saved else plan.options.epochs
    front, model = stage_model(network, plan, factors, steps, epochs)
    _, move = for_targets(plan.augment, plan.task.dense)

    def targets(labels):
        return plan.task.targets(labels, plan.classes)

    def serve(split, **options):
        shape, preprocessing, batch = plan.shape, plan.preprocessing, plan.batch
        return feed(split, shape, preprocessing, batch, targets=targets, group=plan.group, **options)

    def fed(part, **options):
        data = serve(splits[part], **options)
        return front.serve(data, len(splits[part]), part == "train") if front else data

    if plan.deadline is not None and not saved:
        validations = math.ceil(len(splits["val"]) / plan.batch)
        step, check = _measured(
            network, front, model, serve(splits["train"], order=(plan.options.seed, epoch_number())), validations
        )
        left = plan.deadline - time.monotonic()
        epochs = min(epochs, int(left / max(step * steps + check, 1e-9)))
        if epochs < 1:
            return None
        front, model = stage_model(network, plan, factors, steps, epochs)
    before = saved["before"] if saved else before
    keeper = StageKeeper(
        network,
        model,
        plan,
        number=number,
        epochs=epochs,
        store=store,
        bar=bar,
        interrupted=interrupted,
        before=before,
        images=len(splits["train"]),
        bound=bound,
        seeds=front.seeds if front else (),
    )
    done = keeper.restore(saved)
    if done < epochs and not keeper.gives_up():
        try:
            model.fit(
                fed("train", order=(plan.options.seed, keeper.epoch), move=move, mix=plan.options.mix),
                callbacks=[keeper],
                validation_data=fed("val"),
                epochs=epochs,
                initial_epoch=done,
                shuffle=False,
                verbose=0,
            )
        finally:
            store.close()
    if not keeper.rows:
        return None
    keeper.take_best()
    result = audit.compare(before, audit.snapshot(network), set(moving_variables(network)))
    seconds = round(time.monotonic() - began, 3)
    return {"rows": keeper.rows, "audit": result, "seconds": seconds, "hopeless": keeper.hopeless()}


def _measured(network, front, model, data, validations):
    """(seconds of a step, seconds of `validations` batches), measured. The network's weights are restored."""
    kept = [value_of(v) for v in network.weights]
    times = []
    for batch in list(islice(data, 3)):
        start = time.monotonic()
        x, y = map(np.asarray, batch)
        model.train_on_batch(front(x, True) if front else x, y)
        times.append(time.monotonic() - start)
    for v, value in zip(network.weights, kept, strict=True):
        v.assign(value)
    step = min(times)
    # An evaluation costs at most a step for each batch, and compiling it again costs what the first step took.
    return step, step * validations + times[0] / 4


class StageKeeper(keras.callbacks.Callback):
    """Records a stage's progress, history, best weights and checkpoint; stops at Ctrl-C, deadline or divergence, and
    after a part of the epochs if the validation loss will not get below the bound."""

    def __init__(
        self,
        network,
        training,
        plan,
        *,
        number,
        epochs,
        store,
        bar,
        interrupted,
        before,
        images,
        bound=None,
        seeds=(),
    ):
        super().__init__()
        self.network, self.training, self.number, self.epochs, self.plan = network, training, number, epochs, plan
        self.store, self.bar, self.interrupted, self.before, self.images = store, bar, interrupted, before, images
        self.rows, self.best, self.bound = [], None, bound
        self.epoch = epoch_number()  # the data's order depends on it
        self.seeds = [*seeds, *(v for v in training.variables if "seed_generator" in v.path)]

    def restore(self, saved):
        """Restore an interrupted stage; returns the number of its finished epochs."""
        if not saved:
            return 0
        for path, v in moving_variables(self.network).items():
            v.assign(saved["now"][path])
        for i, v in enumerate(self.training.optimizer.variables):
            v.assign(saved["optimizer"][str(i)])
        self.rows, self.best = saved["rows"], saved["best"]
        return len(self.rows)

    def hopeless(self):
        """Whether no epoch so far has a validation loss below the bound."""
        return self.bound is not None and min(r["val_loss"] for r in self.rows) >= self.bound

    def gives_up(self):
        """Whether training ends early: half of the epochs are over, none was below the bound, and the loss rises again
        or falls too slowly to get there. The learning rate only falls from here on. Where the loss is twice the bound
        a third of the epochs is enough to know."""
        losses = [r["val_loss"] for r in self.rows]
        if len(losses) < 2 or not self.hopeless():
            return False
        if len(losses) < self.epochs / (3 if losses[-1] > 2 * self.bound else 2):
            return False
        falls, left = losses[-2] - losses[-1], self.epochs - len(losses)
        return losses[-1] > min(losses) or losses[-1] - left * falls >= self.bound

    def take_best(self):
        """Put the weights of the best epoch into the network."""
        for path, v in moving_variables(self.network).items():
            v.assign(self.best[path])

    def on_epoch_begin(self, epoch, logs=None):
        for i, v in enumerate(self.seeds):  # they depend on seed, stage and epoch only, so a resumed run draws the same
            state = np.random.SeedSequence([self.plan.options.seed, self.number, epoch, i]).generate_state(2)
            v.assign(state.astype("uint32") >> 1)
        self.epoch.assign(self.number * 1000 + epoch)  # so that no two stages see the pictures in one order
        self.began = time.monotonic()
        self.bar.start(f"{self.store.names[self.number]} {epoch + 1}/{self.epochs}", self.images)

    def on_train_batch_end(self, batch, logs=None):
        if not math.isfinite(logs["loss"]):
            raise RunError(
                f"The loss became {logs['loss']} in stage {self.store.names[self.number]}: use --precision float32, or "
                "--unfreeze none. The best weights so far are kept."
            )
        if self.interrupted():
            raise Interrupted("")
        if self.plan.deadline is not None and time.monotonic() > self.plan.deadline:
            self.model.stop_training = True
            self.incomplete = (batch + 1) * self.plan.batch < self.images
        self.bar.advance(min(self.plan.batch, self.images - batch * self.plan.batch), loss=logs["loss"])

    incomplete = False

    def on_epoch_end(self, epoch, logs=None):
        if self.incomplete:  # it counts nowhere, be it the first: its weights have not seen all images
            return
        self.store.close()  # before the next copy of the variables is made
        row = {
            "phase": self.store.names[self.number],
            "epoch": epoch + 1,
            **{k: float(v) for k, v in logs.items()},
            "learning_rate": float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)),
            "seconds": round(time.monotonic() - self.began, 3),
        }
        now = {path: value_of(v) for path, v in moving_variables(self.network).items()}
        if not math.isfinite(row["val_loss"]) or not all(np.isfinite(a).all() for a in now.values()):
            raise RunError(f"Stage {row['phase']} diverged in epoch {epoch + 1}: use --precision float32.")
        if self.best is None or row["val_loss"] < min(
            r["val_loss"] for r in self.rows
        ):  # has finer steps than accuracy
            self.best = now
        self.rows.append(row)
        optimizer = {str(i): value_of(v) for i, v in enumerate(self.training.optimizer.variables)}
        self.store.save_stage(
            number=self.number,
            now=now,
            best=self.best,
            optimizer=optimizer,
            rows=self.rows,
            epochs=self.epochs,
            before=self.before,
        )
        if self.gives_up():
            self.model.stop_training = True
        task = self.plan.task
        self.bar.done(
            f"{row['phase']} {epoch + 1}/{self.epochs}: {task.epoch_text(row)}, val {task.epoch_text(row, 'val_')} "
            f"({row['seconds']:.1f} s)"
        )
