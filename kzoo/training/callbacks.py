"""What happens between the steps of a training: checkpoint, best model, history, progress, and what must stop it."""

from __future__ import annotations

import math
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kzoo import runs
from kzoo.errors import RunError
from kzoo.interrupt import Interrupted
from kzoo.tasks import Task
from kzoo.training.optimizers import plateau_rate
from kzoo.training.recipes import Recipe


class RunKeeper(keras.callbacks.Callback):
    """Keeps the run folder while the model trains: checkpoint, best model, history, progress; stops what must stop.

    Args:
        network: what is saved: the network without augmentation.
        task: says which epoch is the best.
        recipe: of the epochs, batches and the rate.
        settings: the run's config.json.
        folder: the run's.
        images: how many the training part has.
        interrupted: asked after each step whether to stop.
    """

    def __init__(self, network, *, task: Task, recipe: Recipe, settings: dict, folder: Path, images: int, interrupted):
        super().__init__()
        self.network, self.task, self.recipe, self.settings, self.folder = network, task, recipe, settings, folder
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

    def restore(self, model) -> int:
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

    def best(self) -> dict:
        """The best epoch's row: NaN is never best, since it stops the training."""
        return max(self.history, key=self.task.score)

    def finished(self) -> bool:
        """Whether all epochs are done, or early stopping has come."""
        if not self.history:
            return False
        stale = self.history[-1]["epoch"] - self.best()["epoch"]
        patience = self.settings["patience"]
        return len(self.history) >= self.recipe.epochs or (patience is not None and stale >= patience)

    # --- Keras calls these ---

    def on_epoch_begin(self, epoch, logs=None):
        # Random numbers depend on the seed and the epoch only, so a resumed run draws the same.
        for i, v in enumerate(self.seeds):
            v.assign(np.random.SeedSequence([self.settings["seed"], epoch, i]).generate_state(2).astype("uint32") >> 1)
        if self.recipe.schedule == "plateau":
            self.model.optimizer.learning_rate = plateau_rate(
                self.recipe, self.history, next(iter(self.task.metrics)), self.task.higher_is_better
            )
        self.epoch.assign(epoch)
        self.seen, self.began = 0, time.monotonic()
        self.bar.start(f"epoch {epoch + 1}/{self.recipe.epochs}", self.images)

    def on_train_batch_end(self, batch, logs=None):
        self._check(logs["loss"], "training", len(self.history) + 1)
        if self.interrupted():
            raise Interrupted("")  # said in full where the signal's number is known
        seen = min((batch + 1) * self.recipe.batch_size, self.images)  # several batches may have passed since
        self.bar.advance(seen - self.seen, **{k: logs[k] for k in ("loss", *self.task.metrics)})
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
        validation = f", val {self._said(row, 'val_')}" if "val_loss" in row else ""
        self.bar.done(
            f"epoch {epoch + 1}/{self.recipe.epochs}: {self._said(row)}{validation} "
            f"({seconds:.1f} s, {self.images / seconds:,.0f} images/s)"
        )
        if self.finished():
            self.model.stop_training = True

    def _said(self, row, part=""):
        metrics = " ".join(f"{m} {self.task.shown(m, row[part + m])}" for m in self.task.metrics)
        return f"loss {row[part + 'loss']:.4f} {metrics}"

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
        from tensorflow.core.framework.summary_pb2 import SummaryMetadata

        scalar = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"), data_class=1)
        writer = tf.summary.create_file_writer(str(self.folder / "logs"), filename_suffix=f".epoch{row['epoch']}")
        with writer.as_default():
            for key, value in row.items():
                if key != "epoch":
                    tf.summary.write(key, tf.constant(value, tf.float32), row["epoch"], scalar)
        writer.close()

    def finish(self) -> None:
        """Write metrics.json, which says that the run is finished."""
        best = self.best()
        names = ("loss", *self.task.metrics)
        numbers = {k: best[k] for k in (*names, *(f"val_{n}" for n in names)) if k in best}
        runs.write_json(
            self.folder / runs.METRICS,
            {
                "epochs": len(self.history),
                "best_epoch": best["epoch"],
                **numbers,
                "seconds": round(sum(r["seconds"] for r in self.history), 1),
            },
        )
