"""Classification: an image has exactly one of several classes; a network gives a logit for each class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kzoo.data.guards import shown
from kzoo.errors import ExportError, RunError
from kzoo.files import write_atomically
from kzoo.metrics import log_losses, negative_log_likelihood, possible, softmax, top_k_hits, wilson
from kzoo.tasks.task import Evaluation, Task, refuse_probabilities

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from kzoo.data.dataset import DataSet

MAX_PRINTED_CLASSES = 12  # a larger confusion matrix is not printed


@dataclass
class ClassificationEvaluation(Evaluation):
    """Accuracy, precision and recall of each class, and the confusion matrix.

    Attributes:
        top1, top5: accuracies in 0..1; top5 is None for five classes or fewer.
        per_class: a dict for each class: class, precision, recall, f1, images.
        confusion: counts (C, C), true classes in rows; images with outputs that are not finite are left out.
        not_finite: the number of images with outputs that are not finite; they count as wrong.
    """

    top1: float
    top5: float | None
    per_class: list[dict] = field(repr=False)
    confusion: np.ndarray = field(repr=False)
    not_finite: int = 0

    def files(self) -> list[str]:
        """The names of the JSON file and of the plot of the confusion matrix."""
        return [*super().files(), f"confusion-{self.stem or self.split}.png"]

    def write(self, folder: str | Path) -> None:
        """Write the results as JSON, and the confusion matrix as PNG."""
        from kzoo.plots import confusion_matrix

        super().write(folder)
        title = f"{self.split}: top-1 {self.top1:.2%} of {self.images:,} images"
        with write_atomically(Path(folder) / self.files()[1]) as f:
            f.write(confusion_matrix(self.confusion, self.classes, title))

    def __str__(self):
        names = [shown(c)[:24] for c in self.classes]
        width = max(5, *map(len, names))
        top5 = f", top-5 {self.top5:.2%}" if self.top5 is not None else ""
        lines = [
            f"{self.run} on {self.data} ({self.split}, {self.images:,} images): "
            f"top-1 {self.top1:.2%}{top5}, cross-entropy {self.loss:.4f}",
            "",
            f"{'class':{width}}  precision  recall      F1  images",
        ]
        if self.not_finite:
            lines.insert(1, f"{self.not_finite:,} images have outputs that are NaN or infinite: counted as wrong.")
        for name, row in zip(names, self.per_class, strict=True):
            lines.append(
                f"{name:{width}}  {row['precision']:9.2%} {row['recall']:7.2%} {row['f1']:7.2%} {row['images']:7,}"
            )
        if len(names) <= MAX_PRINTED_CLASSES:
            cell = max(len(f"{self.confusion.max()}"), 3)
            lines += ["", "Confusion (rows: true, columns: predicted)"]
            lines.append(" " * width + " ".join(f"{n[:cell]:>{cell}}" for n in ["", *names])[cell:])
            for name, row in zip(names, self.confusion, strict=True):
                lines.append(f"{name:{width}} " + " ".join(f"{n if n else '·':>{cell}}" for n in row))
        return "\n".join(lines)


def cross_entropy(recipe: Any = None, weights: np.ndarray | None = None) -> Callable:
    """Cross-entropy of one-hot targets and logits.

    Args:
        recipe: a `kzoo.training.recipes.Recipe`, which gives label smoothing and the rubbish class; None: neither.
        weights: of the classes, (C,): an image counts as often as its class; None: all count once.

    Returns:
        A loss: (targets (B, C), logits (B, C)) to a scalar.
    """
    import keras

    weight = _weight_of(weights)

    smoothing = recipe.label_smoothing if recipe else 0.0
    entropy = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    rubbish = recipe.rubbish if recipe else None
    if rubbish is None:
        return entropy if weights is None else lambda y, z: entropy(y, z, weight(y))

    def with_rubbish(y, z):
        zeros = keras.ops.zeros_like(z[:, :1])
        more = keras.ops.concatenate([y, zeros], 1), keras.ops.concatenate([z, zeros - rubbish], 1)
        return entropy(*more, None if weights is None else weight(y))

    return with_rubbish


def _weight_of(weights):
    """A function of one-hot targets (B, C) to the weights of the images (B,), those of their classes; else to 1."""
    if weights is None:
        return lambda y: 1.0
    from keras import ops

    given = np.asarray(weights, "float32")
    return lambda y: ops.sum(ops.cast(y, "float32") * given, -1)


def hinge(recipe: Any = None, weights: np.ndarray | None = None) -> Callable:
    """The multi-class SVM loss of one-hot targets and logits s: the sum over j != y of max(0, s_j - s_y + 1).

    Args:
        recipe: a `kzoo.training.recipes.Recipe`, which must not smooth labels or have a rubbish class.
        weights: as for `cross_entropy`.

    Returns:
        A loss: (targets (B, C), logits (B, C)) to (B,).

    Raises:
        RunError: the recipe does.

    Example:
        >>> scores = [[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]]
        >>> [round(float(x), 4) for x in hinge()(np.eye(3, dtype="float32"), np.array(scores, "float32"))]
        [2.9, 0.0, 12.9]

    Reference:
        Weston and Watkins 1999; CS231n, lecture 3.
    """
    from keras import ops

    _needs_one_hot("hinge", recipe)
    weight = _weight_of(weights)

    def loss(y, z):
        own = ops.sum(y * z, -1, keepdims=True)
        return weight(y) * ops.sum((1 - y) * ops.maximum(z - own + 1, 0), -1)

    return loss


def mse(recipe: Any = None, weights: np.ndarray | None = None) -> Callable:
    """The mean squared error of the softmax of logits and one-hot targets.

    It is here to be compared: where the softmax is certain of the wrong class its gradient vanishes, and that of
    cross-entropy does not.

    Args:
        recipe: as for `hinge`.
        weights: as for `cross_entropy`.

    Returns:
        A loss: (targets (B, C), logits (B, C)) to (B,).

    Raises:
        RunError: as for `hinge`.
    """
    from keras import ops

    _needs_one_hot("mse", recipe)
    weight = _weight_of(weights)
    return lambda y, z: weight(y) * ops.mean(ops.square(ops.softmax(z) - y), -1)


def _needs_one_hot(loss, recipe):
    if recipe and (recipe.label_smoothing or recipe.rubbish is not None):
        what = "a rubbish class" if recipe.rubbish is not None else f"labels smoothed by {recipe.label_smoothing:g}"
        raise RunError(
            f"The loss {loss} takes one class for each image, and the recipe {recipe.name} has {what}: choose a recipe "
            "without, such as lecture_cnn or alexnet."
        )


def accuracy(y: keras.KerasTensor, z: keras.KerasTensor) -> keras.KerasTensor:
    """1 where the largest of the logits z (B, C) is that of the target in y (B, C), else 0: (B,)."""
    import keras

    return keras.metrics.categorical_accuracy(y, z)


def check_logits(model: keras.Model, classes: Sequence[str], name: str) -> None:
    """Raise an ExportError unless a network's output is a logit for each class, (B, C).

    Args:
        model: the network.
        classes: names, by number.
        name: of the network, for the message.
    """
    refuse_probabilities(model, name)
    if len(model.output_shape) != 2 or model.output_shape[1] != len(classes):
        raise ExportError(
            f"The output of {name} has the shape {model.output_shape}, but there are {len(classes)} class names."
        )


class Classification(Task):
    """One of several classes: softmax over logits, with one-hot targets. The methods are described in `Task`."""

    name = "classification"
    output = "logits"
    ending = "softmax"
    losses = {"cross_entropy": cross_entropy, "hinge": hinge, "mse": mse}  # noqa: RUF012  never changed
    about_losses = {  # noqa: RUF012
        "hinge": "Its logits are margins, and their softmax is no estimate of a probability until kzoo export fits a "
        "temperature on the validation images.",
    }
    metrics = {"accuracy": accuracy}  # noqa: RUF012
    weighted = True
    judged_by = ("log loss", "accuracy", "accuracy")
    calibrated = True
    headline_name = "Top-1 [95 %]"
    example = 'print(out["labels"][0], out["probabilities"][0], out["error"][0])'
    array_example = 'best = out["probabilities"][0].argmax()\nprint(labels[best], out["probabilities"][0, best])'

    # --- training ---

    def outputs(self, classes: Sequence[str]) -> int:
        return len(classes)

    def targets(self, labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
        found = np.zeros((len(labels), len(classes)), "float32")
        found[np.arange(len(labels)), labels] = 1
        return found

    def head(self, features: keras.KerasTensor, classes: Sequence[str], **options) -> keras.KerasTensor:
        from kzoo.layers import classifier

        return classifier(features, len(classes), **options)

    def check_data(self, data: DataSet) -> None:
        if data.masks:
            raise RunError(
                f"'{data.name}' has a mask for each picture and not one class: train a network for segmentation on it."
            )

    def check_labels(self, labels: np.ndarray, classes: Sequence[str]) -> None:
        counts = np.bincount(labels, minlength=len(classes))
        if not counts.all():
            empty = [c for c, n in zip(classes, counts, strict=True) if not n]
            raise RunError(f"No usable training image is left of class {', '.join(map(repr, empty[:5]))}.")

    def shown(self, metric: str, value: float) -> str:
        return f"{value:.2%}"

    def judge(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, float]:
        """(the log loss of each image, the accuracy)."""
        logits, labels = (np.concatenate(x) for x in zip(*batches, strict=True))
        return log_losses(logits, labels), float(top_k_hits(logits, labels).mean())

    # --- answers ---

    def answer(self, outputs: np.ndarray, classes: Sequence[str], top: int, temperature: float = 1.0) -> list[dict]:
        probabilities = softmax(np.asarray(outputs, "float64") / temperature)
        order = np.argsort(-probabilities, axis=-1, kind="stable")[:, :top]
        return [
            {"top": [{"class": classes[i], "probability": float(p[i])} for i in best]}
            for p, best in zip(probabilities, order, strict=True)
        ]

    def row_text(self, row: Mapping[str, Any]) -> str:
        classes = ", ".join(f"{shown(t['class'])} {t['probability']:.1%}" for t in row["top"])
        return f"{'(abstains) ' if row.get('abstain') else ''}{classes}"

    def columns(self, top: int) -> list[str]:
        return [f"{what}_{i + 1}" for i in range(top) for what in ("class", "probability")] + ["abstain"]

    def cells(self, row: Mapping[str, Any], top: int) -> list[str]:
        cells = [x for t in row.get("top", ()) for x in (t["class"], f"{t['probability']:.6f}")]
        return [*cells, *[""] * (2 * top - len(cells)), row.get("abstain", "")]

    # --- measuring ---

    def evaluate(self, outputs: np.ndarray, labels: np.ndarray, classes: Sequence[str], **about: str) -> Evaluation:
        from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

        finite = np.isfinite(outputs).all(-1)
        predicted = np.where(finite, np.nan_to_num(outputs).argmax(-1), -1)
        everything = np.arange(len(classes))
        precision, recall, f1, support = precision_recall_fscore_support(
            labels, predicted, labels=everything, zero_division=0
        )
        confusion = confusion_matrix(labels[finite], predicted[finite], labels=everything)
        per_class = [
            {"class": c, "precision": float(p), "recall": float(r), "f1": float(f), "images": int(n)}
            for c, p, r, f, n in zip(classes, precision, recall, f1, support, strict=True)
        ]
        return ClassificationEvaluation(
            **about,
            classes=tuple(classes),
            images=len(labels),
            loss=negative_log_likelihood(outputs, labels),
            top1=float(top_k_hits(outputs, labels).mean()),
            top5=float(top_k_hits(outputs, labels, 5).mean()) if len(classes) > 5 else None,
            per_class=per_class,
            confusion=confusion,
            not_finite=int((~finite).sum()),
        )

    def scores(self, outputs: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        n = len(labels)
        right = int(top_k_hits(outputs, labels).sum())
        found: dict[str, Any] = {"images": n, "top1": right / n, "top1_interval": list(wilson(right, n))}
        if outputs.shape[1] > 5:
            five = int(top_k_hits(outputs, labels, 5).sum())
            found.update(top5=five / n, top5_interval=list(wilson(five, n)))
        return found

    def abstention(
        self, outputs: np.ndarray, labels: np.ndarray, temperature: float, threshold: float
    ) -> dict[str, float | None]:
        """Measure abstention by conformal prediction.

        Args:
            outputs: logits (N, C).
            labels: int (N,).
            temperature: by which the logits are divided.
            threshold: q: the prediction set has the best class and all classes with a probability of at least 1 - q.

        Returns:
            "covered": the share of images whose set has the true class; "abstained": the share whose set has several
            classes; "top1_of_the_rest": the accuracy on the others, or None if there are none.
        """
        inside = possible(softmax(outputs / temperature), threshold)
        alone = inside.sum(-1) == 1
        right = top_k_hits(outputs, labels)
        return {
            "covered": float(inside[np.arange(len(labels)), labels].mean()),
            "abstained": float(1 - alone.mean()),
            "top1_of_the_rest": float(right[alone].mean()) if alone.any() else None,
        }

    def described(self, classes: Sequence[str]) -> str:
        more = ", ..." if len(classes) > 10 else ""
        return f"An image classifier, {len(classes)} classes: {', '.join(classes[:10])}{more}."

    def about_answers(self, temperature: float) -> str:
        return f"Temperature {temperature:.4g}: probabilities are softmax(logits / temperature)."

    def headline(self, scores: Mapping[str, Any]) -> str:
        low, high = scores["top1_interval"]
        return f"{scores['top1']:.2%} [{low:.2%}, {high:.2%}]"

    # --- export ---

    def check_network(self, model: keras.Model, classes: Sequence[str], name: str) -> None:
        check_logits(model, classes, name)

    def signature(
        self, outputs: tf.Tensor, classes: Sequence[str], *, top: int, temperature: float, threshold: float | None
    ) -> dict[str, tf.Tensor]:
        """The outputs of a SavedModel.

        Args:
            outputs: logits (B, C).
            classes: names, by number.
            top: the number of classes in an answer.
            temperature: by which the logits are divided.
            threshold: q of conformal prediction, or None.

        Returns:
            "labels" and "probabilities" (B, top): the best classes, best first, by softmax(logits / temperature).
            "logits" (B, C). With a threshold also "set_size" (B,), the number of classes with a probability of at
            least 1 - q, or 1 if there are none, and "abstain" (B,), whether set_size is above 1.
        """
        import tensorflow as tf

        p = tf.nn.softmax(outputs / temperature)
        best = tf.math.top_k(p, min(top, len(classes)))
        found = {
            "labels": tf.gather(tf.constant(list(classes)), best.indices),
            "probabilities": best.values,
            "logits": outputs,
        }
        if threshold is not None:
            found["set_size"] = tf.maximum(tf.reduce_sum(tf.cast(p >= 1 - threshold, tf.int32), -1), 1)
            found["abstain"] = found["set_size"] > 1
        return found

    def probabilities(self, outputs: tf.Tensor, temperature: float) -> tf.Tensor | None:
        import tensorflow as tf

        return tf.nn.softmax(outputs / temperature)

    def masked(self, found: Mapping[str, tf.Tensor], good: tf.Tensor) -> dict[str, tf.Tensor]:
        found = super().masked(found, good)
        if "abstain" in found:
            found["abstain"] |= ~good
        return found

    def check_signature(self, found: Mapping[str, np.ndarray], expected: np.ndarray, card: Mapping) -> list[tuple]:
        best, logits = found["probabilities"], found["logits"]
        sorted_ = -np.sort(-softmax(logits / card["temperature"]), -1)[:, : best.shape[1]]
        difference = float(np.abs(best - sorted_).max())
        labels = [label.decode() for label in found["labels"][:, 0]]
        right = [card["classes"][i] for i in expected.argmax(-1)]
        wrong = sum(a != b for a, b in zip(labels, right, strict=True))
        return [
            (
                "probabilities",
                difference <= 1e-3,
                f"softmax(logits / {card['temperature']:.4g}) up to {difference:.2g}",
            ),
            ("labels", not wrong, f"{wrong} are wrong" if wrong else "as in the card"),
        ]

    def same(self, outputs: np.ndarray, expected: np.ndarray) -> np.ndarray:
        return outputs.argmax(-1) == expected.argmax(-1)

    def certainty(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ordered = np.sort(outputs, -1)
        margin = ordered[:, -1] - ordered[:, -2] if outputs.shape[1] > 1 else ordered[:, -1]
        return outputs.argmax(-1), margin


TASK = Classification()
