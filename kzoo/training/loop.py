"""The training loop: from a name and data to a run folder."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kzoo import runs
from kzoo.builder import build, check_options, options
from kzoo.catalog import Preprocessing, spec
from kzoo.data.augment import augmentation
from kzoo.data.batches import batches, decode_split
from kzoo.data.dataset import report_skipped
from kzoo.data.loading import load_data
from kzoo.errors import RunError
from kzoo.graph.ledger import ledger
from kzoo.hardware import auto_precision, describe
from kzoo.interrupt import Interrupted, interruptible
from kzoo.progress import progress, say
from kzoo.training.optimizers import make_optimizer, plateau_rate
from kzoo.training.recipes import recipe as find_recipe

# What must be the same for a run to be resumed.
SAME = (
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
    "val_fraction",
    "test_fraction",
    "backend",
)


def train(
    model=None,
    data=None,
    *,
    recipe=None,
    epochs=None,
    batch_size=None,
    learning_rate=None,
    patience=None,
    seed=None,
    precision=None,
    input_shape=None,
    val_fraction=None,
    test_fraction=None,
    strict=False,
    out=None,
    resume=False,
    quiet=False,
    **config,
):
    """Train a model of the catalog and leave a run folder.

    model: a name or ModelSpec. data: what `kzoo.load_data` takes; "digits" by default.
    recipe: a name of `kzoo.training.RECIPES` or a Recipe; the model's own by default. epochs, batch_size,
        learning_rate: in place of the recipe's. patience: stop after so many epochs without better validation accuracy.
    seed: of the initial weights, the order of the images, augmentation and dropout; 0 by default. The same seed gives
        the same numbers on the same machine.
    precision: "float32", "bfloat16", or "auto": what this machine is fast in (default).
    out: the run folder; runs/MODEL-DATA by default. resume: go on with the run in `out`; everything that is not given
        is taken from it, and what is given must be the same.
    config: keywords of the architecture. Networks with auxiliary classifiers (googlenet) train with them and leave
        them out of the saved model; aux=False trains without.

    Returns the Run, with the weights of its best epoch (highest validation accuracy, then lowest validation loss).
    Raises KzooError: RunError for a run that can't start, go on, or diverged (its last good checkpoint stays),
    Interrupted after Ctrl-C or SIGTERM.

    >>> run = kzoo.train("mnist_softmax", "digits", epochs=1, out="runs/example", quiet=True)
    >>> run.classes[:2]
    ('0', '1')
    """
    before = None
    if resume:
        if out is None:
            raise RunError("--resume needs --out, the folder of the run to go on with.")
        before = runs.read_json(Path(out) / runs.CONFIG)
        if not {*SAME, "data"} <= before.keys():
            raise RunError(f"{out} was not left by kzoo train, so it can't go on with it.")
        before["recipe"] = find_recipe(before["recipe"]).to_dict()  # with the fields that came since
        model, data = model or before["model"], data or before["data"]
        seed = before["seed"] if seed is None else seed
        patience = before["patience"] if patience is None else patience
        precision = before["precision"] if precision in (None, "auto") else precision
        input_shape = input_shape or before["input_shape"]
        val_fraction = before["val_fraction"] if val_fraction is None else val_fraction
        test_fraction = before["test_fraction"] if test_fraction is None else test_fraction
        recipe = recipe or before["recipe"]
        if spec(model).name == before["model"]:  # else it is refused below, and its options are of no use
            config = {**before["options"], **config}
    elif model is None:
        raise RunError("Say which model to train; kzoo list shows all.")
    row = spec(spec(model).name)  # also a ModelSpec must be registered: whoever reads the run will look it up
    known = options(row)
    check_options(row, config)
    if "aux" in known:
        config = {"aux": True, **config}
    data = "digits" if data is None else os.fspath(data)
    seed = 0 if seed is None else seed
    plan = find_recipe(recipe or row.recipe).changed(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate)
    fractions = {
        "val_fraction": 0.1 if val_fraction is None else val_fraction,
        "test_fraction": 0.2 if test_fraction is None else test_fraction,
    }
    dataset = load_data(data, seed=seed, strict=strict, **fractions)
    if patience is not None and "val" not in dataset.splits:
        raise RunError("patience waits for a better validation accuracy, and there is no validation part.")
    shape = tuple(input_shape or row.input_shape)

    precision, why = auto_precision() if precision in (None, "auto") else (precision, "as asked")
    wanted = {"num_classes": len(dataset.classes), "input_shape": shape, "seed": seed, **config}
    network = build(row, precision=precision, **wanted)
    if why != "as asked" and auto_precision(network)[0] != precision:
        precision, why = auto_precision(network)
        network = build(row, precision=precision, **wanted)
    prep = network.get_layer("preprocessing")

    settings = {
        "model": row.name,
        "options": {**known, **config},
        "classes": list(dataset.classes),
        "input_shape": list(shape),
        "preprocessing": {**row.preprocessing.to_dict(), "scale": prep.scale, "offset": prep.offset},
        "recipe": plan.to_dict(),
        "data": data,
        "fingerprint": dataset.fingerprint(),
        "seed": seed,
        "precision": precision,
        "patience": patience,
        **fractions,
        "backend": keras.backend.backend(),
        "hardware": describe(),
        "versions": runs.versions(),
        "command": runs.command("train"),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    trained = Preprocessing(**{**settings["preprocessing"], "channel_order": prep.channel_order})
    settings["preprocessing"] = trained.to_dict()
    settings["preprocessing_sha256"] = trained.fingerprint(shape)
    if before:
        wrong = runs.differences(settings, before, SAME)
        if wrong:
            raise RunError(f"{out} can't be resumed with other settings. {'; '.join(wrong)}.")
        folder = Path(out)
    else:
        folder = runs.new_folder(out, row.name, data)

    with runs.locked(folder):
        if not before or not (folder / runs.SPLITS).is_file():  # a kill may have come in between
            runs.record(folder, settings, dataset)
        if not quiet:
            sizes = ", ".join(f"{len(split):,} {name}" for name, split in dataset.splits.items())
            say(f"{row.name} on {data}: {len(dataset.classes)} classes, {sizes} images.")
            plural = "s" if plan.epochs > 1 else ""
            say(
                f"Recipe {plan.name}, {plan.epochs} epoch{plural} of batches of {plan.batch_size}; "
                f"computing in {precision}: {why}."
            )
        splits = _prepare(dataset, shape, row.preprocessing, strict, folder, quiet)
        with interruptible() as interrupted:
            _fit(network, splits, settings, plan, folder, interrupted, quiet)
    return runs.load_run(folder)


def _prepare(dataset, shape, preprocessing, strict, folder, quiet):
    """The training and validation parts with their images decoded where they fit into memory."""
    splits, skipped = {}, list(dataset.skipped)
    with progress(quiet=quiet) as bar:
        for name in ("train", "val"):
            if name in dataset.splits:
                bar.start(f"reading {name}", len(dataset.splits[name]))
                splits[name], bad = decode_split(dataset.splits[name], shape, preprocessing, bar.advance)
                skipped += bad
    if skipped:
        if strict:
            raise RunError(report_skipped(skipped) + " (--strict)")
        say(f"Left out {report_skipped(skipped)}. All are listed in {folder / 'skipped.csv'}.")
        rows = [{"id": name, "reason": reason} for name, reason in skipped]
        runs.write_csv(folder / "skipped.csv", rows, ("id", "reason"))
    counts = np.bincount(splits["train"].labels, minlength=len(dataset.classes))
    if not counts.all():
        empty = [c for c, n in zip(dataset.classes, counts, strict=True) if not n]
        raise RunError(f"No usable training image is left of class {', '.join(map(repr, empty[:5]))}.")
    return splits


def training_model(network, plan, steps, seed, *, loss_weights=()):
    """The network behind its augmentation, compiled to train by a recipe. Augmentation is no part of the network.

    Its output is (B, classes), or (B, heads, classes) for a network with auxiliary classifiers, the main one first.
    """
    x = inputs = keras.Input(network.input_shape[1:], dtype="float32", name="image")
    for layer in augmentation(plan.augment, seed):
        x = layer(x)
    heads = network(x)
    several = isinstance(heads, (list, tuple))
    model = keras.Model(inputs, keras.ops.stack(heads, axis=1) if several else heads)

    entropy = loss_of(plan)
    accuracy = keras.metrics.categorical_accuracy

    def weighted_entropy(y, z):
        weights = loss_weights or (1.0,) * z.shape[1]
        return sum(w * entropy(y, z[:, i]) for i, w in zip(range(z.shape[1]), weights, strict=True))

    def main_accuracy(y, z):
        return accuracy(y, z[:, 0])

    model.compile(
        make_optimizer(plan, steps),
        weighted_entropy if several else entropy,
        metrics=[keras.metrics.MeanMetricWrapper(main_accuracy if several else accuracy, name="accuracy")],
        # XLA on a CPU computes convolutions several times slower than TensorFlow's own library does.
        jit_compile=keras.backend.backend() != "tensorflow",
        steps_per_execution=together(network, plan.batch_size),
    )
    model.optimizer.build(model.trainable_variables)
    return model


def loss_of(plan):
    """The loss of a recipe, of one-hot labels and logits (B, classes)."""
    entropy = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=plan.label_smoothing)
    if plan.rubbish is None:
        return entropy

    def with_rubbish(y, z):
        none = keras.ops.zeros_like(z[:, :1])
        return entropy(keras.ops.concatenate([y, none], 1), keras.ops.concatenate([z, none - plan.rubbish], 1))

    return with_rubbish


def together(network, batch_size):
    """How many batches to compute in one call, so that Python's share stays small: 16 for a perceptron, 1 for a ResNet.

    A call of 5e9 multiply-adds takes about 0.05 s on a laptop; interruption and the check for NaN come between calls.
    """
    if keras.backend.backend() != "tensorflow":
        return 1
    return int(min(16, max(1, 5e9 // (3 * batch_size * max(1, ledger(network).totals.known_multiply_adds)))))


def _fit(network, splits, settings, plan, folder, interrupted, quiet):
    seed, classes = settings["seed"], len(settings["classes"])
    shape, n = tuple(settings["input_shape"]), len(splits["train"])
    steps = math.ceil(n / plan.batch_size)
    model = training_model(network, plan, steps, seed, loss_weights=spec(settings["model"]).loss_weights)
    keeper = Keeper(network, plan, settings, folder, n, interrupted)
    done = keeper.restore(model)
    if keeper.finished():
        keeper.finish()  # a kill may have come between the last checkpoint and this
        say(f"{folder} is finished: {done} epochs.")
        return
    if done and not quiet:
        say(f"Going on after epoch {done}.")
    preprocessing = Preprocessing(**settings["preprocessing"])

    def serve(split, **kw):
        return batches(split, shape, preprocessing, plan.batch_size, num_classes=classes, **kw)

    with progress(quiet=quiet) as keeper.bar:
        model.fit(
            serve(splits["train"], order=(seed, keeper.epoch), alternate_flip=plan.alternate_flip),
            validation_data=serve(splits["val"]) if "val" in splits else None,
            epochs=plan.epochs,
            initial_epoch=done,
            callbacks=[keeper],
            shuffle=False,
            verbose=0,
        )
    keeper.finish()


class Keeper(keras.callbacks.Callback):
    """Keeps the run folder while the model trains: checkpoint, best model, history, progress; stops what must stop."""

    def __init__(self, network, plan, settings, folder, images, interrupted):
        super().__init__()
        self.network, self.plan, self.settings, self.folder = network, plan, settings, folder
        self.images, self.interrupted = images, interrupted
        self.history = []  # one dict for each finished epoch
        self.epoch = tf.Variable(0, dtype=tf.int64)  # the data's order depends on it
        self.bar = None

    # --- state ---

    def _variables(self, model):
        found = {f"model/{v.path}": v for v in self.network.weights}
        # By number: Keras numbers the optimisers of a process, so their paths differ from run to run.
        found.update({f"optimizer/{i}": v for i, v in enumerate(model.optimizer.variables)})
        return found

    def restore(self, model):
        """Load the checkpoint if there is one; the number of finished epochs."""
        path = self.folder / runs.CHECKPOINT
        self.seeds = [v for v in model.variables if "seed_generator" in v.path]
        if not path.exists():
            return 0
        arrays, state = runs.load_checkpoint(path)
        variables = self._variables(model)
        if {k: tuple(a.shape) for k, a in arrays.items()} != {k: tuple(v.shape) for k, v in variables.items()}:
            raise RunError(f"{path} holds other variables than {self.settings['model']} has.")
        for key, variable in variables.items():
            variable.assign(arrays[key])
        self.history = state["history"]
        self._write_history()  # a kill may have come between the checkpoint and the table
        return len(self.history)

    def best(self):
        """The best epoch's row: NaN is never best."""

        def score(row):
            return (row.get("val_accuracy", row["epoch"]), -row.get("val_loss", 0))

        return max(self.history, key=score)

    def finished(self):
        if not self.history:
            return False
        stale = self.history[-1]["epoch"] - self.best()["epoch"]
        patience = self.settings["patience"]
        return len(self.history) >= self.plan.epochs or (patience is not None and stale >= patience)

    # --- Keras calls these ---

    def on_epoch_begin(self, epoch, logs=None):
        # Random numbers depend on the seed and the epoch only, so a resumed run draws the same.
        for i, v in enumerate(self.seeds):
            v.assign(np.random.SeedSequence([self.settings["seed"], epoch, i]).generate_state(2).astype("uint32") >> 1)
        if self.plan.schedule == "plateau":
            self.model.optimizer.learning_rate = plateau_rate(self.plan, self.history)
        self.epoch.assign(epoch)
        self.seen, self.began = 0, time.monotonic()
        self.bar.start(f"epoch {epoch + 1}/{self.plan.epochs}", self.images)

    def on_train_batch_end(self, batch, logs=None):
        self._check(logs["loss"], "training", len(self.history) + 1)
        if self.interrupted():
            raise Interrupted("")  # said in full where the signal's number is known
        seen = min(
            (batch + 1) * self.plan.batch_size, self.images
        )  # several batches may have passed since the last call
        self.bar.advance(seen - self.seen, loss=logs["loss"], accuracy=logs["accuracy"])
        self.seen = seen

    def on_epoch_end(self, epoch, logs=None):
        if "val_loss" in logs:
            self._check(logs["val_loss"], "validation", epoch + 1)
        seconds = time.monotonic() - self.began
        row = {"epoch": epoch + 1, **{k: float(v) for k, v in logs.items()}}
        row["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row["seconds"] = round(seconds, 3)
        arrays = {k: keras.ops.convert_to_numpy(v) for k, v in self._variables(self.model).items()}
        bad = next((k for k, a in arrays.items() if not np.isfinite(a.astype("float32")).all()), None)
        if bad:  # a ReLU turns NaN into 0 on some processors, so the loss alone does not tell
            self._stop(f"{bad.partition('/')[2]} became NaN or infinite", epoch + 1)
        self.history.append(row)
        # The best model first, the checkpoint second: after a kill between the two the epoch runs again and writes
        # the same best model again.
        if self.best() is row:
            main = self.network
            if len(main.outputs) > 1:  # auxiliary classifiers are for training only
                main = keras.Model(main.inputs[0], main.outputs[0], name=main.name)
            runs.save_model(main, self.folder / runs.MODEL)
        runs.save_checkpoint(self.folder / runs.CHECKPOINT, arrays, {"history": self.history})
        self._write_history()
        self._write_events(row)
        validation = f", val loss {row['val_loss']:.4f} accuracy {row['val_accuracy']:.2%}" if "val_loss" in row else ""
        self.bar.done(
            f"epoch {epoch + 1}/{self.plan.epochs}: loss {row['loss']:.4f} accuracy {row['accuracy']:.2%}"
            f"{validation} ({seconds:.1f} s, {self.images / seconds:,.0f} images/s)"
        )
        if self.finished():
            self.model.stop_training = True

    # --- files ---

    def _check(self, loss, part, epoch):
        if not math.isfinite(loss):
            self._stop(f"The {part} loss became {loss}", epoch)

    def _stop(self, what, epoch):
        kept = f"The last good checkpoint, after epoch {epoch - 1}, is in {self.folder}."
        raise RunError(
            f"{what} in epoch {epoch}: lower the learning rate, or use --precision float32. "
            + (kept if epoch > 1 else "No epoch was finished.")
        )

    def _write_history(self):
        columns = list(dict.fromkeys(k for row in self.history for k in row))
        runs.write_csv(self.folder / runs.HISTORY, self.history, columns)

    def _write_events(self, row):
        """TensorBoard's event file, without the tensorboard package: tf.summary.scalar would need it."""
        import tensorflow as tf
        from tensorflow.core.framework.summary_pb2 import SummaryMetadata

        scalar = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"), data_class=1)
        writer = tf.summary.create_file_writer(str(self.folder / "logs"), filename_suffix=f".epoch{row['epoch']}")
        with writer.as_default():
            for key, value in row.items():
                if key != "epoch":
                    tf.summary.write(key, tf.constant(value, tf.float32), row["epoch"], scalar)
        writer.close()

    def finish(self):
        best = self.best()
        numbers = {k: best[k] for k in ("loss", "accuracy", "val_loss", "val_accuracy") if k in best}
        runs.write_json(
            self.folder / runs.METRICS,
            {
                "epochs": len(self.history),
                "best_epoch": best["epoch"],
                **numbers,
                "seconds": round(sum(r["seconds"] for r in self.history), 1),
            },
        )
