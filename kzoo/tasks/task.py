"""The interface of a task: targets, losses and metrics for training, answers, scores, and the outputs of an export."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from kzoo.errors import ExportError, RunError, unknown
from kzoo.files import finite, write_atomically
from kzoo.walk import probabilities

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from kzoo.catalog import Preprocessing
    from kzoo.data.dataset import DataSet


@dataclass
class Evaluation:
    """The results on one part of a data set. A task has a subclass with its scores as further fields.

    Attributes:
        run: the run's folder.
        data: the data set, as it was given.
        split: the part: "train", "val", "test" or "all".
        classes: names, by number; () for a task without classes.
        images: their number.
        loss: the mean over the images.
    """

    # What the files are called behind "evaluation-"; "" for the part's name. Other data than the run's has its own.
    stem: str = field(init=False, default="", repr=False)
    run: str
    data: str
    split: str
    classes: tuple[str, ...] = field(repr=False)  # print() shows them; in a repr a thousand would fill the screen
    images: int
    loss: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in self.__dict__.items()}
        return {**{k: v for k, v in plain.items() if k != "stem"}, "classes": list(self.classes)}

    def files(self) -> list[str]:
        """The names of the files that `write` writes."""
        return [f"evaluation-{self.stem or self.split}.json"]

    def write(self, folder: str | Path) -> None:
        """Write the results into a folder as JSON; a subclass may also write plots."""
        with write_atomically(Path(folder) / self.files()[0], "w", errors="backslashreplace") as f:
            json.dump(finite(self.to_dict()), f, indent=2, ensure_ascii=False)
            f.write("\n")


NOT_FINITE = "makes the network compute NaN or infinity, so there is no answer"


def refuse_probabilities(model: keras.Model, name: str) -> None:
    """Raise an ExportError if a network ends in a softmax or sigmoid; kzoo's tasks take logits.

    Args:
        model: the network.
        name: of the network, for the message.
    """
    last, ending = probabilities(model)
    if ending:
        raise ExportError(
            f"{name} ends in probabilities ({last.name}); kzoo exports networks that output logits. Build it "
            "without that activation (keras.applications: classifier_activation=None)."
        )


def zero_where_bad(x: tf.Tensor, good: tf.Tensor) -> tf.Tensor:
    """Replace rows by zeros or empty strings.

    Args:
        x: (B, ...), numbers or strings.
        good: bool (B,).

    Returns:
        x, with zeros or empty strings in the rows where `good` is False.
    """
    import tensorflow as tf

    return tf.where(tf.reshape(good, [-1] + [1] * (len(x.shape) - 1)), x, tf.zeros_like(x))


class Task:
    """The base class of tasks. A task is an object of a subclass, which its module has as TASK.

    Attributes:
        name: used in rows of the catalog, in config.json and in cards.
        output: the key of the network's unchanged outputs among the outputs of an export.
        losses: name -> a function of a Recipe that returns a loss: (targets, outputs) to (B,) or (). The first one is
            the default. Of a `weighted` task it is a function of a Recipe and weights of the classes, (C,) or None.
        weighted: whether the losses take weights of classes.
        about_losses: name of a loss -> a sentence that training prints if that loss is asked for.
        metrics: name -> a function (targets, outputs) to (B, ...), whose mean is shown in training (or what the
            task's `trackers` make of it). The first one and the loss select the best epoch.
        judged_by: what `judge` gives, in words: the loss of an image, and the score; and the name of the score as a
            metric.
        higher_is_better: whether a higher value of the first metric is better.
        ending: the activation, "softmax" or "sigmoid", that turns outputs into probabilities; "" for other outputs.
        dense: whether a target is a picture, too, so that an augmentation must move both alike.
        calibrated: whether outputs are logits whose temperature can be fitted, so that an export can abstain.
        several: whether an image may have several classes, with labels 0 and 1 (N, C): those of a `several` DataSet.
        decides: whether an answer needs numbers that are chosen on validation images, such as thresholds: see `decide`.
        decision: what it chose, see `decided`; None where nothing was chosen.
        pictures: names of pictures among the answers for an image, PNG files, such as "mask": see `of_pictures`.
        headline_name: the heading of the first of the `scores` in a table.
        example: a line of Python for an export's card, which prints `out`, the outputs of a SavedModel.
        array_example: lines for the card, which print the answer for one picture from `out`, the arrays that an ONNX or
            LiteRT file gives by name, and the file's `labels` and what `file_facts` adds.
    """

    name: str
    output: str = "outputs"
    losses: Mapping[str, Callable]
    about_losses: Mapping[str, str] = MappingProxyType({})
    metrics: Mapping[str, Callable]
    weighted: bool = False
    judged_by: tuple[str, str, str] = ("loss", "score", "score")
    higher_is_better: bool = True
    dense: bool = False
    ending: str = ""
    pictures: tuple[str, ...] = ()
    calibrated: bool = False
    several: bool = False
    decides: bool = False
    decision: Mapping[str, Any] | None = None
    headline_name: str = "score"
    example: str = 'print(out["outputs"][0], out["error"][0])'
    array_example: str = "print(out)"

    # --- training ---

    def loss(self, recipe: Any = None, class_weights: np.ndarray | None = None) -> Callable:
        """The loss of a recipe: (targets, outputs) to (B,) or ().

        Args:
            recipe: a `kzoo.training.recipes.Recipe`; None takes the task's first loss.
            class_weights: (C,), of `class_weights`, for a task whose losses are `weighted`.

        Raises:
            UnknownName: the task has no loss of that name.
            RunError: the loss does not go together with the rest of the recipe.
        """
        name = (recipe and recipe.loss) or next(iter(self.losses))
        if name not in self.losses:
            raise unknown("loss", name, self.losses, f"{self.name} has: {', '.join(self.losses)}.")
        return self.losses[name](recipe) if class_weights is None else self.losses[name](recipe, class_weights)

    def check_class_weights(self, given: str | Mapping[str, float] | None, classes: Sequence[str]) -> None:
        """Refuse weights that the task can't use.

        Args:
            given: None, "balanced", or weights by class.
            classes: names, by number.

        Raises:
            RunError: the losses of the task take none.
            UnknownName: there is no such class.
        """
        if given is not None and not self.weighted:
            raise RunError(f"The losses of {self.name} take no weights of classes: leave class_weights out.")
        for name in given if isinstance(given, Mapping) else ():
            if name not in classes:
                raise unknown("class", name, classes, f"--class-weights takes: {', '.join(classes[:20])}.")

    def class_weights(
        self, given: str | Mapping[str, float] | None, labels: np.ndarray, classes: Sequence[str]
    ) -> np.ndarray | None:
        """Weights of classes as numbers.

        Args:
            given: None; "balanced", n / (C * n_c) of the n labels of which n_c are of class c (of masks: pixels), so
                that the mean over the labels is 1; or weights by class, 1 for those that are not listed.
            labels: of the training part, (N, ...).
            classes: names, by number.

        Returns:
            float64 (C,); None if none are given. A class without labels has the weight 1.
        """
        if given is None:
            return None
        if isinstance(given, Mapping):
            return np.array([float(given.get(c, 1.0)) for c in classes])
        counts = self.counts(labels, len(classes))
        return np.where(counts > 0, counts.sum() / (len(classes) * np.maximum(counts, 1)), 1.0)

    def counts(self, labels: np.ndarray, classes: int) -> np.ndarray:
        """How many labels there are of each class, int (C,)."""
        return np.bincount(labels, minlength=classes)

    def trackers(self, outputs: int, several: bool = False) -> list[keras.metrics.Metric]:
        """The metrics of training as Keras' objects: the mean of each of the `metrics` over the images.

        Args:
            outputs: the number of outputs of the network.
            several: whether the network has several heads (B, heads, ...), of which the first one counts.
        """
        import keras

        def of_main(metric):
            return (lambda y, z: metric(y, z[:, 0])) if several else metric

        return [keras.metrics.MeanMetricWrapper(of_main(m), name=name) for name, m in self.metrics.items()]

    def outputs(self, classes: Sequence[str]) -> int:
        """The number of outputs of a network: the `num_classes` of `kzoo.build`."""
        raise NotImplementedError

    def targets(self, labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
        """The targets of the loss: float32 (N, ...) from the labels (N, ...) of a Split."""
        raise NotImplementedError

    def head(self, features: keras.KerasTensor, classes: Sequence[str], **options) -> keras.KerasTensor:
        """Add the last layer to features (B, D). options: keywords of that layer, such as its initializer."""
        raise NotImplementedError

    def check_data(self, data: DataSet) -> None:
        """Raise a RunError if a data set has no such labels as the task learns from."""

    def check_outputs(self, network: keras.Model) -> None:
        """Raise a RunError if a network, before it is trained, has outputs of another kind than the task needs."""

    def check_labels(self, labels: np.ndarray, classes: Sequence[str]) -> None:
        """Raise a RunError if a training part can't be used, for example if a class has no image."""

    def prepare(self, network: keras.Model, labels: np.ndarray) -> None:
        """Set initial weights of a new network that follow from the labels (N, ...) of the training part."""

    def score(self, row: Mapping[str, float]) -> tuple[float, float]:
        """The score of an epoch, for selecting the best one: by the first metric, then by the loss.

        Args:
            row: of history.csv: "epoch", and the metrics and losses, with the prefix "val_" for the validation part.

        Returns:
            A tuple that compares higher for a better epoch. Without a validation part the last epoch is the best one.
        """
        metric = next(iter(self.metrics))
        value = row.get(f"val_{metric}")
        if value is None:
            return (row["epoch"], 0.0)
        return (value if self.higher_is_better else -value, -row.get("val_loss", 0.0))

    def shown(self, metric: str, value: float) -> str:
        """A value of a metric as text."""
        return f"{value:.4f}"

    def epoch_text(self, row: Mapping[str, float], part: str = "") -> str:
        """An epoch's loss and metrics as text; of the validation part without their names, so that a line has room.

        Args:
            row: of the history.
            part: "" for training, "val_" for validation.
        """
        texts = {"loss": f"{row[part + 'loss']:.4f}", **{m: self.shown(m, row[part + m]) for m in self.metrics}}
        return " ".join(text if part else f"{name} {text}" for name, text in texts.items())

    def judge(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, float]:
        """How good a network is, for fine-tuning, which keeps deeper layers only where both do not get worse.

        Args:
            batches: (outputs (B, ...), labels (B, ...)) of the validation images.

        Returns:
            (a loss for each image, (N,); a score of all, higher is better).
        """
        raise NotImplementedError

    # --- answers ---

    def decide(self, outputs: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
        """Choose the numbers that an answer needs, for a task that `decides`.

        Args:
            outputs: of the best network for the validation part, (N, ...); N is 0 without such a part.
            labels: of that part, (N, ...).
            classes: names, by number.

        Returns:
            JSON values, which the run's metrics.json and an export's card record as "decision". "reason" is a sentence.
        """
        raise NotImplementedError

    def decided(self, decision: Mapping[str, Any] | None, classes: Sequence[str]) -> Task:
        """The task with what `decide` chose, for a run or an export; with None as it is without a choice.

        Raises:
            KzooError: the decision does not fit the classes.
        """
        return self

    def answer(self, outputs: np.ndarray, classes: Sequence[str], top: int, temperature: float = 1.0) -> list[dict]:
        """The answers of predict, serve and exports.

        Args:
            outputs: of the network, (N, ...).
            classes: names, by number.
            top: the number of classes in an answer.
            temperature: by which logits are divided.

        Returns:
            A dict of JSON values for each image.
        """
        raise NotImplementedError

    def rows(
        self,
        outputs: np.ndarray,
        classes: Sequence[str],
        top: int,
        temperature: float = 1.0,
        pictures: Mapping[str, Any] = MappingProxyType({}),
    ) -> list[dict]:
        """`answer` for outputs as they come: where one is NaN or infinite, {"error": reason} stands for the answer.

        Args:
            outputs, classes, top, temperature: as in `answer`.
            pictures: arrays (N,) of PNG files, of `of_pictures`, which an answer has as Base64 text.
        """
        good = np.isfinite(outputs).reshape(len(outputs), -1).all(1)
        answers = iter(self.answer(outputs[good], classes, top, temperature) if good.any() else ())
        found = [next(answers) if fine else {"error": NOT_FINITE} for fine in good]
        for name, files in pictures.items():
            for row, file in zip(found, files, strict=True):
                if "error" not in row:
                    row[name] = base64.b64encode(file).decode()
        return found

    def of_mask(self, mask: np.ndarray, classes: Sequence[str], top: int) -> dict[str, Any]:
        """The answer of a `dense` task for a mask that was put together from tiles.

        Args:
            mask: uint8 (H, W), class numbers.
            classes: names, by number.
            top: the number of classes in an answer.
        """
        raise NotImplementedError

    def drawn(self, row: Mapping[str, Any], encoded: bytes) -> dict[str, bytes]:
        """An answer as files for people to look at, for a task with `pictures`.

        Args:
            row: of `rows`.
            encoded: the image.

        Returns:
            PNG files by what is added to the image's name, "" for the first one.
        """
        return {}

    def row_text(self, row: Mapping[str, Any]) -> str:
        """An answer as text for a terminal."""
        raise NotImplementedError

    def columns(self, top: int) -> list[str]:
        """The names of the CSV columns of an answer."""
        raise NotImplementedError

    def cells(self, row: Mapping[str, Any], top: int) -> list[str]:
        """The CSV cells of an answer, one for each column."""
        raise NotImplementedError

    # --- measuring ---

    def evaluate(self, outputs: np.ndarray, labels: np.ndarray, classes: Sequence[str], **about: str) -> Evaluation:
        """Compare outputs with labels.

        Args:
            outputs: of the network, (N, ...).
            labels: of a Split, (N, ...).
            classes: names, by number.
            about: run, data and split, for the Evaluation.
        """
        raise NotImplementedError

    def evaluate_batches(
        self, batches: Iterable[tuple[np.ndarray, np.ndarray]], classes: Sequence[str], **about: str
    ) -> Evaluation:
        """`evaluate` for outputs that come in batches.

        The default joins them; a task whose outputs are large adds up what it needs.

        Args:
            batches: (outputs (B, ...), labels (B, ...)) of each batch.
            classes, about: as in `evaluate`.
        """
        outputs, labels = zip(*batches, strict=True)
        return self.evaluate(np.concatenate(outputs), np.concatenate(labels), classes, **about)

    def scores(self, outputs: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        """The scores in an export's card: "images", their number, and metrics, the most important one first."""
        raise NotImplementedError

    def abstention(
        self, outputs: np.ndarray, labels: np.ndarray, temperature: float, threshold: float
    ) -> dict[str, float | None]:
        """Measure abstention by conformal prediction, for a `calibrated` task.

        Args:
            outputs: logits (N, C).
            labels: int (N,).
            temperature: by which the logits are divided.
            threshold: q: the prediction set has the best class and all classes with a probability of at least 1 - q.
        """
        raise NotImplementedError

    def described(self, classes: Sequence[str]) -> str:
        """A sentence for an export's card that says what the network does."""
        return f"A network for {self.name}."

    def about_answers(self, temperature: float) -> str:
        """A sentence for an export's card that says what the numbers of an answer are; "" says nothing.

        Args:
            temperature: by which logits are divided.
        """
        return ""

    def headline(self, scores: Mapping[str, Any]) -> str:
        """The most important of the `scores` as text, with its confidence interval if it has one."""
        key = next(k for k in scores if k != "images")
        return f"{key} {scores[key]:.4g}"

    # --- export ---

    def check_network(self, model: keras.Model, classes: Sequence[str], name: str) -> None:
        """Raise an ExportError for a network whose outputs are not those of the task."""

    def signature(
        self, outputs: tf.Tensor, classes: Sequence[str], *, top: int, temperature: float, threshold: float | None
    ) -> dict[str, tf.Tensor]:
        """The outputs of a SavedModel, as TensorFlow operations.

        Args:
            outputs: of the network, float32 (B, ...).
            classes: names, by number.
            top: the number of classes in an answer.
            temperature: by which logits are divided.
            threshold: of conformal prediction, or None.

        Returns:
            Tensors (B, ...) by name; `outputs` has the name `self.output`.
        """
        return {self.output: outputs}

    def probabilities(self, outputs: tf.Tensor, temperature: float) -> tf.Tensor | None:
        """The probabilities of the classes, by number, which ONNX and LiteRT files give beside the outputs.

        Args:
            outputs: of the network, float32 (B, ...).
            temperature: by which logits are divided.

        Returns:
            A tensor (B, ...) of TensorFlow operations; None for a task whose files give the outputs alone.
        """
        return None

    def file_facts(self, classes: Sequence[str]) -> dict[str, Any]:
        """What the metadata of ONNX and LiteRT files need beside labels and temperature: JSON values by name."""
        return {}

    def of_pictures(
        self, outputs: tf.Tensor, sizes: tf.Tensor, shape: tuple[int, int, int], preprocessing: Preprocessing
    ) -> dict[str, tf.Tensor]:
        """Further outputs of a SavedModel for encoded images, whose sizes are known, as TensorFlow operations.

        Args:
            outputs: of the network, float32 (B, ...).
            sizes: int32 (B, 2), height and width of each image.
            shape: (height, width, channels) of the network's input.
            preprocessing: how the images were resized and cropped.

        Returns:
            Strings (B,), a PNG file for each image, by the names of `pictures`.
        """
        return {}

    def masked(self, found: Mapping[str, tf.Tensor], good: tf.Tensor) -> dict[str, tf.Tensor]:
        """Replace the outputs for images that can't be read by zeros and empty strings.

        Args:
            found: tensors of `signature`.
            good: bool (B,), False for an image that can't be read.
        """
        return {name: zero_where_bad(value, good) for name, value in found.items()}

    def check_signature(self, found: Mapping[str, np.ndarray], expected: np.ndarray, card: Mapping) -> list[tuple]:
        """Check further outputs of serving_default for the golden images.

        Args:
            found: arrays of `signature`, for N images.
            expected: outputs (N, ...) of the unchanged network.
            card: the content of card.json.

        Returns:
            (name, whether it is correct, detail) for each check.
        """
        return []

    def same(self, outputs: np.ndarray, expected: np.ndarray) -> np.ndarray:
        """Whether two outputs (N, ...) mean the same answer, bool (N,).

        Their values are compared elsewhere, within a tolerance. The default is True for every image.
        """
        return np.ones(len(outputs), bool)

    def certainty(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What golden images are chosen by: from each group in turn, the most certain first.

        Returns:
            (group (N,), certainty (N,)) of the images; by default one group and equal certainty.
        """
        return np.zeros(len(outputs), int), np.zeros(len(outputs))
