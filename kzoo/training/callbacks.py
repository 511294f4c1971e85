"""The Keras callback of training: checkpoint, best model, history, progress, interruption and early stopping."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kzoo import runs
from kzoo.data.dataset import report_skipped
from kzoo.data.feed import epoch_number
from kzoo.errors import RunError
from kzoo.files import write_atomically
from kzoo.interrupt import Interrupted
from kzoo.plots import learning_curves, png
from kzoo.progress import say
from kzoo.tasks import Task
from kzoo.training.optimizers import plateau_rate
from kzoo.training.recipes import Recipe

WITHIN = "within/"  # in a checkpoint's names of what an epoch needs that goes on
SMALL = 64 << 20  # bytes of a checkpoint that is written in a moment
EVERY = 600.0  # seconds between checkpoints in an epoch: one of ImageNet takes hours


class RunKeeper(keras.callbacks.Callback):
    """Writes the run folder while the model trains, and stops the training when necessary.

    After each epoch it writes the checkpoint, the history and, if the epoch is the best so far, the model. Within an
    epoch it writes a checkpoint every `EVERY` seconds and when it is interrupted; the epoch goes on from there. It
    stops the training after Ctrl-C, by early stopping, and when a loss or a variable is no longer finite. A checkpoint
    is copied, and a large one written in a thread while the training goes on: `close` waits for it.

    Args:
        network: the network that is saved, without augmentation.
        task: selects the best epoch.
        recipe: gives epochs, batch size and learning rate.
        settings: the content of config.json.
        folder: the run folder.
        images: the number of training images.
        interrupted: called after each step; True stops the training.
        writes: whether this process writes the run folder; of several only the first one does.
        left_out: {id: reason} of images that can't be read, to which the data adds; they are reported and listed.
        strict: stop at the first of them.

    Attributes:
        history: a dict for each finished epoch: a row of history.csv.
        epoch: an `epoch_number`, that of finished epochs, which determines the order of the images.
        position: the images of the next epoch that were trained on before the checkpoint was written.
        bar: the progress bar; it must be set before the training starts.
    """

    def __init__(
        self,
        network: keras.Model,
        *,
        task: Task,
        recipe: Recipe,
        settings: dict,
        folder: Path,
        images: int,
        interrupted: Callable[[], bool],
        writes: bool = True,
        left_out: dict[str, str] | None = None,
        strict: bool = False,
    ):
        super().__init__()
        self.network, self.task, self.recipe, self.settings, self.folder = network, task, recipe, settings, folder
        self.images, self.interrupted, self.writes = images, interrupted, writes
        self.history = []  # one dict for each finished epoch
        self.epoch = epoch_number()  # the data's order depends on it
        self.bar: Any = None
        self.left_out, self.strict, self.reported = {} if left_out is None else left_out, strict, 0
        self.position, self.before, self.within = 0, 0.0, {}
        self.writer = runs.CheckpointWriter()

    # --- state ---

    def _variables(self, model):
        found = {f"model/{v.path}": v for v in self.network.weights}
        # By number, because Keras numbers the optimizers of a process, so that their paths differ between runs.
        found.update({f"optimizer/{i}": v for i, v in enumerate(model.optimizer.variables)})
        return found

    def restore(self, model: keras.Model) -> int:
        """Load the checkpoint, if there is one, into the network and the optimizer.

        Args:
            model: the compiled model that is trained.

        Returns:
            The number of finished epochs. `position` is set.

        Raises:
            RunError: a checkpoint with other variables.
        """
        path = self.folder / runs.CHECKPOINT
        self.seeds = [v for v in model.variables if "seed_generator" in v.path]
        if not path.exists():
            return 0
        arrays, state = runs.load_checkpoint(path)
        self.within = {k: arrays.pop(k) for k in list(arrays) if k.startswith(WITHIN)}
        variables = self._variables(model)
        if {k: tuple(a.shape) for k, a in arrays.items()} != {k: tuple(v.shape) for k, v in variables.items()}:
            raise RunError(f"{path} does not fit {self.settings['model']}: its variables or their shapes differ.")
        for key, variable in variables.items():
            variable.assign(arrays[key])
        self.history = state["history"]
        position = state.get("position", {"images": 0, "seconds": 0.0})
        self.position, self.before = position["images"], position["seconds"]
        if self.writes:
            self._write_history()  # a kill may have come between the checkpoint and the table
        return len(self.history)

    def best(self) -> dict:
        """The row of the best epoch. It has no NaN, which stops the training."""
        return max(self.history, key=self.task.score)

    def finished(self) -> bool:
        """Whether all epochs are done, or early stopping ends the training."""
        if not self.history:
            return False
        stale = self.history[-1]["epoch"] - self.best()["epoch"]
        patience = self.settings["patience"]
        return len(self.history) >= self.recipe.epochs or (patience is not None and stale >= patience)

    # --- Keras calls these ---

    def on_epoch_begin(self, epoch, logs=None):
        """Set the random seeds, the learning rate of a plateau schedule and the progress bar."""
        # Random numbers depend on the seed and the epoch only, so a resumed run draws the same.
        for i, v in enumerate(self.seeds):
            v.assign(np.random.SeedSequence([self.settings["seed"], epoch, i]).generate_state(2).astype("uint32") >> 1)
        if self.recipe.schedule == "plateau":
            self.model.optimizer.learning_rate = plateau_rate(
                self.recipe, self.history, next(iter(self.task.metrics)), self.task.higher_is_better
            )
        self.epoch.assign(epoch)
        if self.position:
            within = self._within()
            if {k: tuple(v.shape) for k, v in within.items()} != {k: a.shape for k, a in self.within.items()}:
                raise RunError(
                    f"{self.folder / runs.CHECKPOINT} was written within an epoch by another version of Keras: "
                    "continue with that one."
                )
            for key, variable in within.items():
                variable.assign(self.within[key])
        self.began = self.saved = time.monotonic()
        self.images_done = self.position
        self.bar.start(f"epoch {epoch + 1}/{self.recipe.epochs}", self.images, self.position)

    def on_train_batch_end(self, batch, logs=None):
        """Stop after an interruption or a loss that is not finite; advance the progress bar."""
        self._check(logs["loss"], "training", len(self.history) + 1)
        self._refuse_left_out()
        # Several batches for each call.
        done = min(self.position + (batch + 1) * self.recipe.images_a_step, self.images)
        self.bar.advance(done - self.images_done, **{k: logs[k] for k in ("loss", *self.task.metrics)})
        self.images_done = done
        if done == self.images:  # the end of the epoch comes next
            return
        if self.interrupted():
            self._save_within(done)
            # `interruptible`, which knows the signal, writes the message.
            raise Interrupted(
                f"{done:,} of {self.images:,} images of epoch {len(self.history) + 1} are kept, and --resume continues "
                "from there"
            )
        if time.monotonic() - self.saved > EVERY:
            self._save_within(done)

    def on_epoch_end(self, epoch, logs=None):
        """Write the best model, the checkpoint, the history and the TensorBoard log; stop at the end."""
        self.writer.wait()  # before the next copy of the variables is made
        if "val_loss" in logs:
            self._check(logs["val_loss"], "validation", epoch + 1)
        self._refuse_left_out()
        took = time.monotonic() - self.began
        seconds = self.before + took
        row = {"epoch": epoch + 1, **{k: float(v) for k, v in logs.items()}}
        row["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row["seconds"] = round(seconds, 3)
        arrays = self._arrays(epoch + 1)
        self.history.append(row)
        if self.writes:
            self._write(row, arrays)
        validation = f", val {self.task.epoch_text(row, 'val_')}" if "val_loss" in row else ""
        self.bar.done(
            f"epoch {epoch + 1}/{self.recipe.epochs}: {self.task.epoch_text(row)}{validation} "
            f"({seconds:.1f} s, {(self.images - self.position) / took:,.0f}/s)"
        )
        self._report_left_out()
        self.position, self.before = 0, 0.0
        if self.finished():
            self.model.stop_training = True
        elif self.interrupted():
            raise Interrupted("")

    # --- files ---

    def _write(self, row, arrays):
        # The best model first, the checkpoint second: after a kill between the two the epoch runs again and writes
        # the same best model again.
        if self.best() is row:
            main = self.network
            if len(main.outputs) > 1:  # auxiliary classifiers are for training only
                main = keras.Model(main.inputs[0], main.outputs[0], name=main.name)
            runs.save_model(main, self.folder / runs.MODEL)
        self._write_events(row)
        state = {"history": list(self.history)}
        self.writer.write(self.folder / runs.CHECKPOINT, arrays, state, then=self._write_history)
        if sum(a.nbytes for a in arrays.values()) <= SMALL:  # a kill right after an epoch should not lose it
            self.writer.wait()

    def close(self) -> None:
        """Wait until the checkpoint is written.

        Raises:
            KzooError: It could not be.
        """
        self.writer.wait()

    def _arrays(self, epoch):
        """Copies of the variables, all finite."""
        arrays = {k: np.array(keras.ops.convert_to_numpy(v)) for k, v in self._variables(self.model).items()}
        bad = next((k for k, a in arrays.items() if not np.isfinite(a.astype("float32")).all()), None)
        if bad:  # on some processors a ReLU turns NaN into 0, so that the loss stays finite
            self._stop(f"{bad.partition('/')[2]} became NaN or infinite", epoch)
        return arrays

    def _within(self):
        """What an epoch that goes on needs besides: the sums of loss and metrics, and the states of random numbers."""
        found = {f"{WITHIN}metrics/{i}": v for i, v in enumerate(self.model.metrics_variables)}
        return {**found, **{f"{WITHIN}seeds/{i}": v for i, v in enumerate(self.seeds)}}

    def _save_within(self, done):
        """Write a checkpoint after so many images of this epoch."""
        if not self.writes:
            return
        self.writer.wait()
        if keras.backend.backend() == "jax":  # there the variables are behind while an epoch runs
            self.model.jax_state_sync()
        arrays = self._arrays(len(self.history) + 1)
        arrays |= {k: np.array(keras.ops.convert_to_numpy(v)) for k, v in self._within().items()}
        position = {"images": done, "seconds": round(self.before + time.monotonic() - self.began, 3)}
        state = {"history": list(self.history), "position": position}
        self.writer.write(self.folder / runs.CHECKPOINT, arrays, state)
        self.saved = time.monotonic()

    def _refuse_left_out(self):
        if self.strict and self.left_out:
            raise RunError(f"{report_skipped(list(self.left_out.items()))} (--strict)")

    def _report_left_out(self):
        """Name the images that could not be read, and list them in skipped.csv."""
        new = list(self.left_out.items())[self.reported :]
        if not new or not self.writes:
            return
        self.reported += len(new)
        say(f"Left out {report_skipped(new)}. All are listed in {runs.list_skipped(self.folder, new)}.")

    def _check(self, loss, part, epoch):
        if not math.isfinite(loss):
            self._stop(f"The {part} loss became {loss}", epoch)

    def _stop(self, what, epoch):
        within = self.position or self.saved > self.began
        kept = f"within epoch {epoch}" if within else f"after epoch {epoch - 1}" if epoch > 1 else None
        raise RunError(
            f"{what} in epoch {epoch}: lower the learning rate, or use --precision float32. "
            + (f"The last good checkpoint, {kept}, is in {self.folder}." if kept else "No epoch was finished.")
        )

    def _write_history(self):
        columns = list(dict.fromkeys(k for row in self.history for k in row))
        runs.write_csv(self.folder / runs.HISTORY, self.history, columns)

    def _write_events(self, row):
        """Write an event file for TensorBoard, without its package, which tf.summary.scalar would need."""
        try:
            import tensorflow as tf
        except ModuleNotFoundError:  # training on arrays on JAX goes without; history.csv has the numbers
            return
        from tensorflow.core.framework.summary_pb2 import SummaryMetadata

        scalar = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"), data_class=1)
        writer = tf.summary.create_file_writer(str(self.folder / "logs"), filename_suffix=f".epoch{row['epoch']}")
        with writer.as_default():
            for key, value in row.items():
                if key != "epoch":
                    tf.summary.write(key, tf.constant(value, tf.float32), row["epoch"], scalar)
        writer.close()

    def finish(self, decision: dict | None = None) -> None:
        """Write curves.png, then metrics.json, which marks the run as finished.

        Args:
            decision: what the task chose on the validation part, see `kzoo.tasks.Task.decide`.
        """
        if len(self.history) > 1:
            with write_atomically(self.folder / runs.CURVES) as f:
                columns = dict.fromkeys(k for row in self.history for k in row)
                f.write(png(learning_curves({"": {k: [row.get(k) for row in self.history] for k in columns}})))
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
                **({"decision": decision} if decision else {}),
            },
        )
