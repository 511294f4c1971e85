"""Deeper layers: a network's stages from the top, and training them at rates that fall from stage to stage."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from kzoo import runs
from kzoo.data.augment import augmentation
from kzoo.data.batches import batches
from kzoo.data.mix import mixed
from kzoo.errors import RunError, unknown
from kzoo.finetuning import audit
from kzoo.graph.walk import calls
from kzoo.interrupt import Interrupted
from kzoo.training.optimizers import decays

HEAD = "predictions"
HEAD_RATE, STAGE_RATE = 3e-4, 1e-4  # AdamW's, for the head and the top stage
FACTOR = 0.3  # from a stage to the one below
DECAY = 0.05
BATCH = 16
EPOCHS = 6
SECONDS_LEFT = 0.1  # share of a budget that is kept for what comes after the training

AUGMENT = {
    "none": (),
    "light": (("flip", 0.5), ("shift", 0.08), ("zoom", 0.15)),
    "strong": (("flip", 0.5), ("shift", 0.12), ("zoom", 0.3), ("rotate", 15.0), ("brightness", 0.2), ("contrast", 0.2)),
}


@dataclass(frozen=True)
class Stage:
    """Layers with weights whose outputs are of one size; name: that size ("7x7"), "dense" for flat outputs."""

    name: str
    layers: tuple[str, ...]


def stages(model):
    """The stages of a network, from the top, without the head.

    One rule for all networks: a stage is the layers whose output has the same height and width (a ResNet's conv5 is
    7x7, conv4 14x14; VGG's fc layers are "dense"). Batch norm is in none: it stays frozen.

    >>> import kzoo
    >>> [s.name for s in stages(kzoo.build("resnet20", depth=8))]
    ['8x8', '16x16', '32x32']
    """
    found = {}
    for node in calls(model.inputs, model.outputs[:1]):
        layer, shape = node.operation, node.outputs[0].shape
        if not getattr(layer, "weights", None) or layer.name == HEAD or not _moves(layer):
            continue
        name = "x".join(str(n) for n in shape[1:3]) if len(shape) == 4 else "dense"
        layers = found.setdefault(name, [])
        if layer.name not in layers:
            layers.append(layer.name)
    return [Stage(name, tuple(layers)) for name, layers in reversed(list(found.items()))]


def _moves(layer):
    return not isinstance(layer, keras.layers.BatchNormalization)


def chosen(model, unfreeze):
    """The stages from the top that `unfreeze` names: "auto" and "all" mean every one.

    Else the name of a stage ("7x7"), or how names of layers begin ("conv5", "block_16", "fire9"): from the first such
    layer up. Raises UnknownName with the stages.
    """
    found = stages(model)
    if unfreeze in ("auto", "all"):
        return found
    names = [s.name for s in found]
    if unfreeze in names:
        return found[: names.index(unfreeze) + 1]
    for i in range(len(found) - 1, -1, -1):
        first = next((j for j, name in enumerate(found[i].layers) if name.startswith(unfreeze)), None)
        if first is not None:
            return [*found[:i], Stage(found[i].name, found[i].layers[first:])]
    listed = "; ".join(f"{s.name}: {s.layers[0]} to {s.layers[-1]}" for s in found)
    everything = [*names, *(name for s in found for name in s.layers)]
    hint = f"Give none, auto, all, a stage, or how a layer's name begins: {listed}."
    raise unknown("stage", unfreeze, everything, hint)


@keras.saving.register_keras_serializable(package="kzoo")
class StageAdamW(keras.optimizers.Adam):
    """AdamW whose rate and weight decay are scaled for each variable: w -= r d w, then Adam's step at rate r.

    factors: {path of the variable: factor}; r = learning_rate * factor, 1 for what is not named. Scaling the rate
    alone would leave the decay at the base rate. decay: of kernels only, as in Loshchilov and Hutter,
    arXiv:1711.05101.
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


def loss_of(objective):
    """`kzoo.finetuning.heads.Objective` for Keras: labels (B, K), one-hot or mixed, and logits to losses (B,)."""
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


def value_of(variable):
    """A variable's value as an array of its own, whatever becomes of the variable."""
    return np.array(keras.ops.convert_to_numpy(variable))


def unfreeze(network, stage_list):
    """Set what trains: the head and the layers of these stages. Returns {path of a variable: factor of its rate}."""
    moving = {HEAD: HEAD_RATE / STAGE_RATE}
    for depth, stage in enumerate(stage_list):
        moving.update(dict.fromkeys(stage.layers, FACTOR**depth))
    for layer in network.layers:
        layer.trainable = layer.name in moving
    return {v.path: moving[layer.name] for layer in network.layers for v in layer.trainable_variables}


@dataclass
class Plan:
    """What all stages have in common. deadline: time.monotonic() at which training ends, None for never."""

    seed: int
    epochs: int
    augment: str
    mix: str | None
    objective: object
    deadline: float | None = None
    batch: int = BATCH


def training_model(network, plan, factors, steps, epochs):
    """The network behind its augmentation, compiled: warm-up over the first epoch, then cosine to zero."""
    x = inputs = keras.Input(network.input_shape[1:], dtype="float32", name="image")
    for layer in augmentation(AUGMENT[plan.augment], plan.seed):
        x = layer(x)
    model = keras.Model(inputs, network(x))
    total, warmup = steps * epochs, min(steps, steps * epochs // 2)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else STAGE_RATE,
        max(total - warmup, 1),
        warmup_target=STAGE_RATE if warmup else None,
        warmup_steps=warmup,
    )
    model.compile(
        StageAdamW(rate, DECAY, factors),
        loss_of(plan.objective),
        metrics=[keras.metrics.MeanMetricWrapper(keras.metrics.categorical_accuracy, name="accuracy")],
        jit_compile=keras.backend.backend() != "tensorflow",
    )
    model.optimizer.build(model.trainable_variables)
    return model


def train_stage(network, stage_list, number, plan, splits, shape, preprocessing, store, bar, interrupted):
    """Train the head and these stages, from what the network is now; leaves the best epoch in the network.

    number: of this phase, from 0. splits: "train" and "choose", prepared. store: a `Store`, which keeps what a kill
    must not lose. Returns a dict: rows of history, epochs, seconds, audit; None if the time does not suffice for one
    epoch.
    """
    began = time.monotonic()
    factors = unfreeze(network, stage_list)
    steps = math.ceil(len(splits["train"]) / plan.batch)
    before = audit.snapshot(network)
    saved = store.stage(number)
    epochs = saved["epochs"] if saved else plan.epochs
    model = training_model(network, plan, factors, steps, epochs)
    classes = network.output_shape[-1]

    def serve(split, **kw):
        return batches(split, shape, preprocessing, plan.batch, num_classes=classes, **kw)

    if plan.deadline is not None and not saved:
        step, check = _measured(network, model, serve(splits["train"], order=(plan.seed, 0)), splits)
        left = plan.deadline - time.monotonic()
        epochs = min(epochs, int(left / max(step * steps + check, 1e-9)))
        if epochs < 1:
            return None
        model = training_model(network, plan, factors, steps, epochs)
    before = saved["before"] if saved else before
    keeper = StageKeeper(network, model, number, epochs, plan, store, bar, interrupted, before, len(splits["train"]))
    done = keeper.restore(saved)
    if done < epochs:
        data = serve(splits["train"], order=(plan.seed, keeper.epoch))
        model.fit(
            mixed(data, plan.mix, plan.seed, keeper.epoch) if plan.mix else data,
            callbacks=[keeper],
            validation_data=serve(splits["choose"]),
            epochs=epochs,
            initial_epoch=done,
            shuffle=False,
            verbose=0,
        )
    if not keeper.rows:
        return None
    keeper.take_best()
    result = audit.compare(before, audit.snapshot(network), set(factors))
    return {"rows": keeper.rows, "audit": result, "seconds": round(time.monotonic() - began, 3)}


def _measured(network, model, data, splits):
    """(seconds of a step, seconds of a look at the choosing part), measured; the network is what it was before."""
    kept = [value_of(v) for v in network.weights]
    pairs = list(data.take(3))
    times = []
    for x, y in pairs:
        start = time.monotonic()
        model.train_on_batch(np.asarray(x), np.asarray(y))
        times.append(time.monotonic() - start)
    for v, value in zip(network.weights, kept, strict=True):
        v.assign(value)
    step = min(times)
    # A look costs at most a step for each batch, and compiling it again costs what the first step took.
    return step, step * math.ceil(len(splits["choose"]) / BATCH) + times[0] / 4


class StageKeeper(keras.callbacks.Callback):
    """Keeps a stage's epochs: progress, history, the best weights, the checkpoint; stops what must stop."""

    def __init__(self, network, training, number, epochs, plan, store, bar, interrupted, before, images):
        super().__init__()
        self.network, self.training, self.number, self.epochs, self.plan = network, training, number, epochs, plan
        self.store, self.bar, self.interrupted, self.before, self.images = store, bar, interrupted, before, images
        self.rows, self.best = [], None
        self.epoch = tf.Variable(0, dtype=tf.int64)  # the data's order depends on it

    def _moving(self):
        return {v.path: v for v in self.network.trainable_variables}

    def restore(self, saved):
        """Take up a stage that was interrupted; the number of its finished epochs."""
        self.seeds = [v for v in self.training.variables if "seed_generator" in v.path]
        if not saved:
            return 0
        for path, v in self._moving().items():
            v.assign(saved["now"][path])
        for i, v in enumerate(self.training.optimizer.variables):
            v.assign(saved["optimizer"][str(i)])
        self.rows, self.best = saved["rows"], saved["best"]
        return len(self.rows)

    def take_best(self):
        for path, v in self._moving().items():
            v.assign(self.best[path])

    def on_epoch_begin(self, epoch, logs=None):
        for i, v in enumerate(self.seeds):  # they depend on seed, stage and epoch only, so a resumed run draws the same
            state = np.random.SeedSequence([self.plan.seed, self.number, epoch, i]).generate_state(2)
            v.assign(state.astype("uint32") >> 1)
        self.epoch.assign(self.number * 1000 + epoch)  # so that no two stages see the pictures in one order
        self.began = time.monotonic()
        self.bar.start(f"{self.store.names[self.number]} {epoch + 1}/{self.epochs}", self.images)

    def on_train_batch_end(self, batch, logs=None):
        if not math.isfinite(logs["loss"]):
            raise RunError(
                f"The loss became {logs['loss']} in stage {self.store.names[self.number]}: use --precision float32, or "
                "--unfreeze none. What was best before is kept."
            )
        if self.interrupted():
            raise Interrupted("")
        if self.plan.deadline is not None and time.monotonic() > self.plan.deadline:
            self.model.stop_training = True
            self.late = True
        self.bar.advance(min(self.plan.batch, self.images - batch * self.plan.batch), loss=logs["loss"])

    late = False

    def on_epoch_end(self, epoch, logs=None):
        if self.late and self.rows:
            return  # a part of an epoch counts for nothing
        row = {
            "phase": self.store.names[self.number],
            "epoch": epoch + 1,
            **{k: float(v) for k, v in logs.items()},
            "learning_rate": float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)),
            "seconds": round(time.monotonic() - self.began, 3),
        }
        now = {path: value_of(v) for path, v in self._moving().items()}
        if not math.isfinite(row["val_loss"]) or not all(np.isfinite(a).all() for a in now.values()):
            raise RunError(f"Stage {row['phase']} diverged in epoch {epoch + 1}: use --precision float32.")
        if self.best is None or row["val_loss"] < min(r["val_loss"] for r in self.rows):  # finer than accuracy
            self.best = now
        self.rows.append(row)
        optimizer = {str(i): value_of(v) for i, v in enumerate(self.training.optimizer.variables)}
        self.store.save_stage(self.number, now, self.best, optimizer, self.rows, self.epochs, self.before)
        self.bar.done(
            f"{row['phase']} {epoch + 1}/{self.epochs}: loss {row['loss']:.4f} accuracy {row['accuracy']:.2%}, "
            f"chosen by {row['val_loss']:.4f} {row['val_accuracy']:.2%} ({row['seconds']:.1f} s)"
        )


class Store:
    """The checkpoint of the deeper layers: one file, so that a kill finds one consistent state.

    names: of the phases. done: records of the finished ones. winner: {path: array} of what differs from the network
    with its new head, None while that is best. Only variables that ever moved are kept.
    """

    def __init__(self, folder, names, identity):
        self.path, self.names, self.identity = folder / runs.CHECKPOINT, names, identity
        self.done, self.winner, self._stage = [], None, None
        if self.path.exists():
            arrays, state = runs.load_checkpoint(self.path)
            if state.get("identity") != identity:
                raise RunError(f"{self.path} belongs to another network or head; start again with another --out.")

            def part(kind):
                return {k.partition("/")[2]: a for k, a in arrays.items() if k.startswith(f"{kind}/")}

            self.done, self.winner = state["done"], part("winner") or None
            if state["stage"]:
                self._stage = {**state["stage"], **{k: part(k) for k in ("now", "best", "optimizer")}}

    def stage(self, number):
        """The state of an interrupted stage, or None."""
        return self._stage if self._stage and self._stage["number"] == number else None

    def save_stage(self, number, now, best, optimizer, rows, epochs, before):
        self._stage = {
            "number": number,
            "rows": rows,
            "epochs": epochs,
            "before": before,
            "now": now,
            "best": best,
            "optimizer": optimizer,
        }
        self._write()

    def finish_stage(self, record, winner):
        """Keep a finished phase's record and, if it is the best so far, its moving variables."""
        self.done.append(record)
        self.winner = winner if winner is not None else self.winner
        self._stage = None
        self._write()

    def _write(self):
        arrays = {f"winner/{k}": a for k, a in (self.winner or {}).items()}
        state = None
        if self._stage:
            for kind in ("now", "best", "optimizer"):
                arrays.update((f"{kind}/{k}", a) for k, a in self._stage[kind].items())
            state = {k: self._stage[k] for k in ("number", "rows", "epochs", "before")}
        runs.save_checkpoint(self.path, arrays, {"identity": self.identity, "done": self.done, "stage": state})
