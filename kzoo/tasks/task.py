"""What a task has to say: targets, losses and metrics for training, answers, scores, and what an export returns."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kzoo.files import write_atomically

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


@dataclass
class Evaluation:
    """What was measured on one part of a data set. A task's own has its scores as further fields.

    Attributes:
        run: the run's folder.
        data: what was measured on, as it was named.
        split: the part: "train", "val", "test" or "all".
        classes: names, by number; () for a task without classes.
        images: how many were measured.
        loss: mean over the images.
    """

    run: str
    data: str
    split: str
    classes: tuple[str, ...]
    images: int
    loss: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in self.__dict__.items()}
        return {**plain, "classes": list(self.classes)}

    def files(self) -> list[str]:
        """The names of the files that `write` writes: the numbers, and a task's drawings."""
        return [f"evaluation-{self.split}.json"]

    def write(self, folder: str | Path) -> None:
        """Write the numbers into a folder; a task's own Evaluation draws as well."""
        with write_atomically(Path(folder) / self.files()[0], "w", errors="backslashreplace") as f:
            json.dump(self.to_dict(), f, indent=2, ensure_ascii=False)
            f.write("\n")


def zero_where_bad(x: tf.Tensor, good: tf.Tensor) -> tf.Tensor:
    """x (B, ...) with zeros, or empty strings, where good (B,) is False."""
    import tensorflow as tf

    return tf.where(tf.reshape(good, [-1] + [1] * (len(x.shape) - 1)), x, tf.zeros_like(x))


class Task:
    """The interface. A task is one object of a subclass; its module has it as TASK.

    Attributes:
        name: as rows of the catalog and configurations have it.
        output: the key under which an export returns the network's outputs as they are.
        losses: name -> a function of a Recipe that gives a loss: (targets, outputs) to (B,) or (). The first is the
            default.
        metrics: name -> a function (targets, outputs) to (B, ...), of which training shows the mean. The first one
            chooses the best epoch, together with the loss.
        higher_is_better: whether that is so of the first metric.
        calibrated: whether outputs are logits whose temperature can be fitted, so that an export can abstain.
        headline_name: of the first figure of `scores`.
        example: the line of Python that prints what a SavedModel returned, as `out`, for its card.
    """

    name: str
    output: str = "outputs"
    losses: Mapping[str, Callable]
    metrics: Mapping[str, Callable]
    higher_is_better: bool = True
    calibrated: bool = False
    headline_name: str = "score"
    example: str = 'print(out["outputs"][0], out["error"][0])'

    # --- training ---

    def outputs(self, classes: Sequence[str]) -> int:
        """How many outputs a network needs: the `num_classes` of `kzoo.build`."""
        raise NotImplementedError

    def targets(self, labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
        """What the loss compares with: float32 (N, ...) from the labels (N, ...) of a Split."""
        raise NotImplementedError

    def head(self, features: keras.KerasTensor, classes: Sequence[str], **options) -> keras.KerasTensor:
        """The last layer on features (B, D). options: of that layer, such as its initializer."""
        raise NotImplementedError

    def check_labels(self, labels: np.ndarray, classes: Sequence[str]) -> None:
        """RunError if a training part can't be learnt from, for example without an image of some class."""

    def score(self, row: Mapping[str, float]) -> tuple[float, float]:
        """How good an epoch is, higher is better: by the first metric, then the loss, of the validation part.

        Without a validation part the last epoch is the best one.
        """
        metric = next(iter(self.metrics))
        value = row.get(f"val_{metric}")
        if value is None:
            return (row["epoch"], 0.0)
        return (value if self.higher_is_better else -value, -row.get("val_loss", 0.0))

    def shown(self, metric: str, value: float) -> str:
        """A metric's value for a line of text."""
        return f"{value:.4f}"

    # --- answers ---

    def answer(self, outputs: np.ndarray, classes: Sequence[str], top: int, temperature: float = 1.0) -> list[dict]:
        """The row that predict, serve and an export give for each image: plain values that JSON can hold."""
        raise NotImplementedError

    def row_text(self, row: Mapping[str, Any]) -> str:
        """An answer as text for a terminal."""
        raise NotImplementedError

    def columns(self, top: int) -> list[str]:
        """The columns of answers as CSV."""
        raise NotImplementedError

    def cells(self, row: Mapping[str, Any], top: int) -> list[str]:
        """An answer's cells, one for each column."""
        raise NotImplementedError

    # --- measuring ---

    def evaluate(self, outputs: np.ndarray, labels: np.ndarray, classes: Sequence[str], **about: str) -> Evaluation:
        """Measure outputs (N, ...) against labels (N, ...). about: run, data and split, for the Evaluation."""
        raise NotImplementedError

    def scores(self, outputs: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        """The figures of an export's card, with "images"; the first other key is the headline."""
        raise NotImplementedError

    def described(self, classes: Sequence[str]) -> str:
        """What the network is, a sentence for its card."""
        return f"A network for {self.name}."

    def headline(self, scores: Mapping[str, Any]) -> str:
        """The first figure of `scores` as text, with its interval where it has one."""
        key = next(k for k in scores if k != "images")
        return f"{key} {scores[key]:.4g}"

    # --- export ---

    def check_network(self, model: keras.Model, classes: Sequence[str], name: str) -> None:
        """ExportError for a network whose outputs are not those of the task."""

    def signature(
        self, outputs: tf.Tensor, classes: Sequence[str], *, top: int, temperature: float, threshold: float | None
    ) -> dict[str, tf.Tensor]:
        """What a SavedModel returns: tensors of B rows by name, the outputs themselves under `output`."""
        return {self.output: outputs}

    def masked(self, found: Mapping[str, tf.Tensor], good: tf.Tensor) -> dict[str, tf.Tensor]:
        """What `signature` gave, with zeros and empty strings for images that can't be read: good (B,) is False."""
        return {name: zero_where_bad(value, good) for name, value in found.items()}

    def check_signature(self, found: Mapping[str, np.ndarray], expected: np.ndarray, card: Mapping) -> list[tuple]:
        """Checks of what serving_default gave for the golden images: (name, whether it is right, detail) each."""
        return []

    def same(self, outputs: np.ndarray, expected: np.ndarray) -> np.ndarray:
        """Whether two outputs of an image mean the same answer, bool (N,); within the tolerance they are compared by
        all others. Default: yes."""
        return np.ones(len(outputs), bool)

    def certainty(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(a group of each image (N,), how sure the answer is (N,)): golden images are taken from each group, the
        surest first. Default: one group, all alike."""
        return np.zeros(len(outputs), int), np.zeros(len(outputs))
