"""Several labels for an image: each class is there or not, independently; a network gives a logit for each class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kzoo.data.guards import shown
from kzoo.errors import KzooError, RunError
from kzoo.metrics import (
    average_precision,
    bootstrap_interval,
    choose_threshold,
    f1_of,
    label_log_losses,
    sigmoid,
    weighted_mean_average_precision,
)
from kzoo.tasks.classification import check_logits
from kzoo.tasks.task import Evaluation, Task

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

DEFAULT_THRESHOLD = 0.5
NAMED = 5  # classes that a sentence names
# Pairs of an image and a class up to which 1,000 resamples are drawn for the interval of mAP; with more of them fewer,
# at least 100, and above MAX_INTERVAL_PAIRS, where it would take a minute and is narrow, none.
INTERVAL_PAIRS, MAX_INTERVAL_PAIRS = 200_000, 10_000_000
BETWEEN = "; "  # the labels in a row of CSV: such a column can be read again


@dataclass
class MultilabelEvaluation(Evaluation):
    """Mean average precision, and average precision, precision, recall and F1 of each class.

    Attributes:
        mean_average_precision: mAP, the mean over the classes that an image has; None without labels.
        f1_macro: the mean of the F1 of the same classes.
        f1_micro: F1 over all pairs of an image and a class.
        exact: the share of images whose labels are all right.
        per_class: a dict for each class: class, average_precision (None if no image has it), precision, recall, f1,
            threshold, images.
        unlabelled: the number of images without a label.
        not_finite: the number of images with outputs that are not finite; all their labels count as wrong.
        thresholds: how the thresholds were chosen, in a sentence.
        interval: the 95 % interval of mean_average_precision, by bootstrap over the images (`INTERVAL_PAIRS`); None
            without labels, above MAX_INTERVAL_PAIRS pairs of an image and a class, and where no resample differs, as
            where every image is ranked right.
    """

    mean_average_precision: float | None
    f1_macro: float | None
    f1_micro: float
    exact: float
    per_class: list[dict] = field(repr=False)
    unlabelled: int
    not_finite: int = 0
    thresholds: str = ""
    interval: tuple[float, float] | None = None

    def __str__(self):
        names = [shown(c)[:24] for c in self.classes]
        width = max(5, *map(len, names))
        lines = [
            f"{self.run} on {self.data} ({self.split}, {self.images:,} images, {self.unlabelled:,} without a label): "
            f"mAP {_percent(self.mean_average_precision)}{self.shown_interval()}, "
            f"F1 {_percent(self.f1_macro)} (mean of the classes), {self.f1_micro:.2%} (all labels), "
            f"all labels right {self.exact:.2%}, "
            f"binary cross-entropy {self.loss:.4f}",
            "",
            f"{'class':{width}}       AP  precision  recall      F1  threshold  images",
        ]
        if self.not_finite:
            lines.insert(1, f"{self.not_finite:,} images have outputs that are NaN or infinite: counted as wrong.")
        for name, row in zip(names, self.per_class, strict=True):
            lines.append(
                f"{name:{width}}  {_percent(row['average_precision']):>7}  {row['precision']:9.2%} "
                f"{row['recall']:7.2%} {row['f1']:7.2%}  {row['threshold']:9.3f} {row['images']:7,}"
            )
        return "\n".join([*lines, "", self.thresholds] if self.thresholds else lines)

    def shown_interval(self) -> str:
        """The interval of mAP as text, " [low, high]"; "" where it is None."""
        return "" if self.interval is None else f" [{self.interval[0]:.2%}, {self.interval[1]:.2%}]"


def _percent(share):
    return "none" if share is None else f"{share:.2%}"


def binary_cross_entropy(recipe: Any = None) -> Callable:
    """Binary cross-entropy of multi-hot targets y and logits z: the mean over classes of log(1 + e^z) - y z.

    Args:
        recipe: a `kzoo.training.recipes.Recipe`, which gives label smoothing s: y becomes y (1 - s) + s / 2. It must
            not have a rubbish class. None: no smoothing.

    Returns:
        A loss: (targets (B, C), logits (B, C)) to (B,).

    Raises:
        RunError: the recipe has a rubbish class.

    Example:
        >>> loss = binary_cross_entropy()(np.array([[1.0, 0.0]], "float32"), np.array([[0.0, 0.0]], "float32"))
        >>> round(float(loss[0]), 4)
        0.6931
    """
    from keras import ops

    smoothed = _smoothing("binary_cross_entropy", recipe)
    return lambda y, z: ops.mean(ops.softplus(z) - smoothed(y) * z, -1)


def focal(recipe: Any = None) -> Callable:
    """Focal loss of multi-hot targets and logits: the mean over classes of -(1 - p_t)^2 log p_t.

    p_t is the probability of what is true, so that labels that are nearly certain count little: for classes that few
    images have.

    Args:
        recipe: as for `binary_cross_entropy`.

    Returns:
        A loss: (targets (B, C), logits (B, C)) to (B,).

    Raises:
        RunError: as for `binary_cross_entropy`.

    Reference:
        Lin et al. 2017, arXiv:1708.02002, equation 4 with gamma = 2, without alpha.
    """
    from keras import ops

    smoothed = _smoothing("focal", recipe)

    def loss(y, z):
        y = smoothed(y)
        there = ops.square(ops.sigmoid(-z)) * ops.softplus(-z)
        absent = ops.square(ops.sigmoid(z)) * ops.softplus(z)
        return ops.mean(y * there + (1 - y) * absent, -1)

    return loss


def _smoothing(loss, recipe):
    if recipe and recipe.rubbish is not None:
        raise RunError(
            f"The loss {loss} has no rubbish class, and the recipe {recipe.name} has one: choose a recipe without, "
            "such as modern or lecture_cnn."
        )
    share = recipe.label_smoothing if recipe else 0.0
    return lambda y: y * (1 - share) + share / 2


def f1(y: keras.KerasTensor, z: keras.KerasTensor) -> keras.KerasTensor:
    """F1 of the labels of each image, with targets y (B, C) and logits z (B, C) at the threshold 0.5: (B,).

    It is 1 where there is no label and none is predicted.
    """
    from keras import ops

    predicted = ops.cast(z >= 0, y.dtype)
    total = ops.sum(y + predicted, -1)
    return ops.where(total > 0, 2 * ops.sum(y * predicted, -1) / ops.maximum(total, 1), 1.0)


def label_accuracy(y: keras.KerasTensor, z: keras.KerasTensor) -> keras.KerasTensor:
    """The share of classes of each image that are right at the threshold 0.5, with y and z (B, C): (B,)."""
    from keras import ops

    return ops.mean(ops.cast(ops.equal(ops.cast(z >= 0, y.dtype), y), y.dtype), -1)


class Multilabel(Task):
    """Any number of several classes: a sigmoid of each logit, with multi-hot targets. `Task` describes the methods.

    Args:
        decision: of `decide`; None has the threshold 0.5 for every class.
    """

    name = "multilabel"
    output = "logits"
    ending = "sigmoid"
    losses = {"binary_cross_entropy": binary_cross_entropy, "focal": focal}  # noqa: RUF012  never changed
    metrics = {"f1": f1, "label_accuracy": label_accuracy}  # noqa: RUF012
    several = True
    decides = True
    judged_by = ("log loss", "mAP", "mean_average_precision")
    headline_name = "mAP"
    example = (
        'print([x for x in zip(out["labels"][0].numpy(), out["probabilities"][0].numpy()) if x[0]], out["error"][0])'
    )
    array_example = (
        'print([(name, p) for name, p, least in zip(labels, out["probabilities"][0], thresholds) if p >= least])'
    )

    def __init__(self, decision: Mapping[str, Any] | None = None):
        self.decision = decision

    def thresholds(self, classes: int) -> np.ndarray:
        """The probability of each class from which on an image has it, float64 (C,)."""
        if self.decision is None:
            return np.full(classes, DEFAULT_THRESHOLD)
        return np.array(self.decision["thresholds"], "float64")

    # --- training ---

    def outputs(self, classes: Sequence[str]) -> int:
        return len(classes)

    def targets(self, labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
        return np.asarray(labels, "float32")

    def head(self, features: keras.KerasTensor, classes: Sequence[str], **options) -> keras.KerasTensor:
        from kzoo.layers import classifier

        return classifier(features, len(classes), **options)

    def check_labels(self, labels: np.ndarray, classes: Sequence[str]) -> None:
        empty = [c for c, n in zip(classes, labels.sum(0), strict=True) if not n]
        if empty:
            raise RunError(f"No usable training image is left of class {', '.join(map(repr, empty[:5]))}.")

    def prepare(self, network: keras.Model, labels: np.ndarray) -> None:
        """Start the biases of the last layer at the log-odds of the classes' shares of the images.

        From 0 each class would first be taken to be there in half of the images. Where pixels are not centred, the
        kernel corrects that faster than the bias and keeps a part along the mean picture, so that brightness counts.

        Reference:
            Lin et al. 2017, arXiv:1708.02002, section 4.1.
        """
        layer = next((x for x in network.layers if x.name == "predictions"), None)
        bias = getattr(layer, "bias", None)
        if bias is not None and bias.shape == (labels.shape[1],):
            n = labels.sum(0, dtype="float64") + 0.5  # a class may be in all images
            bias.assign(np.log(n / (len(labels) + 1 - n)))

    def score(self, row: Mapping[str, float]) -> tuple[float, float]:
        """As `Task.score`, by the loss: thresholds are chosen after the training, so that F1 at 0.5 is not the aim."""
        if "val_loss" not in row:
            return super().score(row)
        return (-row["val_loss"], row["val_f1"])

    def shown(self, metric: str, value: float) -> str:
        return f"{value:.2%}"

    def judge(self, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, float]:
        """(the log loss of each image; the mean average precision)."""
        logits, labels = (np.concatenate(x) for x in zip(*batches, strict=True))
        # A validation part without any label says nothing of the ranking: 0 before and after.
        return label_log_losses(logits, labels), self.scores(logits, labels)["mean_average_precision"] or 0.0

    # --- answers ---

    def decide(self, outputs: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
        n = len(labels)
        p = sigmoid(np.nan_to_num(outputs)) if n else np.zeros((0, len(classes)))
        chosen = [choose_threshold(p[:, k], labels[:, k] == 1) for k in range(len(classes))]
        kept = [f"{shown(c)[:40]} ({why})" for c, (_, why) in zip(classes, chosen, strict=True) if why]
        listed = ", ".join(kept[:NAMED]) + (f" and {len(kept) - NAMED} more" if len(kept) > NAMED else "")
        reason = f"Thresholds: of highest F1 on {n:,} validation images"
        if not n:
            reason = "Thresholds: 0.5, because there are no validation images to choose them on."
        elif len(kept) == len(classes):
            reason = f"Thresholds: 0.5 for every class, by {n:,} validation images: {listed}."
        elif kept:
            reason = f"{reason} for {len(classes) - len(kept)} of {len(classes)} classes, 0.5 for {listed}."
        else:
            reason = f"{reason}."
        return {"thresholds": [t for t, _ in chosen], "images": n, "reason": reason}

    def decided(self, decision: Mapping[str, Any] | None, classes: Sequence[str]) -> Task:
        if decision is None:
            return self
        values = decision.get("thresholds") if isinstance(decision, Mapping) else None
        fits = isinstance(values, list) and len(values) == len(classes) and isinstance(decision.get("reason"), str)
        if not fits or not all(type(t) in (int, float) and 0 <= t <= 1 for t in values or ()):
            raise KzooError(f"The recorded thresholds can't be read: expected {len(classes)} numbers in 0..1.")
        return Multilabel(decision)

    def present(self, outputs: np.ndarray) -> np.ndarray:
        """Which classes an image has, bool (N, C): those whose probability is at or above the threshold."""
        return sigmoid(outputs) >= self.thresholds(outputs.shape[1])

    def answer(self, outputs: np.ndarray, classes: Sequence[str], top: int, temperature: float = 1.0) -> list[dict]:
        """As `Task.answer`: every class at or above its threshold, the most probable first; `top` does not limit it."""
        p, there = sigmoid(outputs), self.present(outputs)
        return [
            {
                "labels": [
                    {"class": classes[k], "probability": float(row[k])}
                    for k in np.argsort(-row, kind="stable")
                    if has[k]
                ]
            }
            for row, has in zip(p, there, strict=True)
        ]

    def row_text(self, row: Mapping[str, Any]) -> str:
        return ", ".join(f"{shown(t['class'])} {t['probability']:.1%}" for t in row["labels"]) or "(no label)"

    def columns(self, top: int) -> list[str]:
        return ["labels", "probabilities"]

    def cells(self, row: Mapping[str, Any], top: int) -> list[str]:
        found = row.get("labels", ())
        return [BETWEEN.join(t["class"] for t in found), BETWEEN.join(f"{t['probability']:.6f}" for t in found)]

    # --- measuring ---

    def evaluate(self, outputs: np.ndarray, labels: np.ndarray, classes: Sequence[str], **about: str) -> Evaluation:
        found, ranked = self._evaluated(outputs, labels, classes, **about)
        if found.mean_average_precision is not None and ranked.size <= MAX_INTERVAL_PAIRS:
            resamples = int(np.clip(1000 * INTERVAL_PAIRS / ranked.size, 100, 1000))
            measure = weighted_mean_average_precision(ranked, np.asarray(labels) == 1)
            low, high = bootstrap_interval(measure, len(ranked), resamples=resamples)
            found.interval = (low, high) if low < high else None
        return found

    def _evaluated(self, outputs, labels, classes, **about):
        """(the Evaluation without the interval, the scores (N, C) by which images are ranked)."""
        from sklearn.metrics import precision_recall_fscore_support

        finite = np.isfinite(outputs).all(-1)
        labels = np.asarray(labels).astype(bool)
        z = np.where(finite[:, None], np.nan_to_num(outputs), 0)
        predicted = np.where(finite[:, None], self.present(z), ~labels)
        # What has no finite output is ranked as wrong as can be: behind all if it has the label, else before all.
        ranked = np.where(finite[:, None], z, np.where(labels, z.min(initial=0) - 1, z.max(initial=0) + 1))
        precision, recall, f1s, support = precision_recall_fscore_support(labels, predicted, zero_division=0)
        per_class = [
            {
                "class": c,
                "average_precision": average_precision(ranked[:, k], labels[:, k]),
                "precision": float(precision[k]),
                "recall": float(recall[k]),
                "f1": float(f1s[k]),
                "threshold": float(threshold),
                "images": int(support[k]),
            }
            for k, (c, threshold) in enumerate(zip(classes, self.thresholds(len(classes)), strict=True))
        ]
        measured = [row for row in per_class if row["images"]]
        found = MultilabelEvaluation(
            **about,
            classes=tuple(classes),
            images=len(labels),
            loss=float(label_log_losses(z, labels).mean()) if finite.all() else float("nan"),
            mean_average_precision=_mean(measured, "average_precision"),
            f1_macro=_mean(measured, "f1"),
            f1_micro=f1_of(predicted, labels),
            exact=float((predicted == labels).all(-1).mean()),
            per_class=per_class,
            unlabelled=int((~labels.any(-1)).sum()),
            not_finite=int((~finite).sum()),
            thresholds=self.decision["reason"] if self.decision else "",
        )
        return found, ranked

    def scores(self, outputs: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        classes = [str(k) for k in range(labels.shape[1])]
        found, _ = self._evaluated(outputs, labels, classes, run="", data="", split="")
        names = ("images", "mean_average_precision", "f1_macro", "f1_micro", "exact")
        return {name: getattr(found, name) for name in names}

    def described(self, classes: Sequence[str]) -> str:
        more = ", ..." if len(classes) > 10 else ""
        return (
            f"It finds which of {len(classes)} classes an image has, none or several: {', '.join(classes[:10])}{more}."
        )

    def about_answers(self, temperature: float) -> str:
        reason = self.decision["reason"] if self.decision else "Thresholds: 0.5 for every class."
        return (
            "Probabilities are sigmoid(logits), each for itself; labels has the classes at or above their thresholds "
            f"(decision in card.json), the most probable first, then empty strings. {reason}"
        )

    def headline(self, scores: Mapping[str, Any]) -> str:
        return _percent(scores["mean_average_precision"])

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
            top, temperature, threshold: not used.

        Returns:
            "labels" (B, C): the classes at or above their thresholds, the most probable first, then empty strings.
            "probabilities" (B, C): theirs, then zeros. "logits" (B, C), by class number.
        """
        import tensorflow as tf

        p = tf.sigmoid(outputs)
        there = p >= tf.constant(self.thresholds(len(classes)), p.dtype)
        # Those that are there come first: their keys are above 1, the others' are not.
        order = tf.argsort(p + 2 * tf.cast(there, p.dtype), direction="DESCENDING", stable=True)
        there, p = (tf.gather(x, order, batch_dims=1) for x in (there, p))
        return {
            "labels": tf.where(there, tf.gather(tf.constant(list(classes)), order), ""),
            "probabilities": tf.where(there, p, tf.zeros_like(p)),
            "logits": outputs,
        }

    def probabilities(self, outputs: tf.Tensor, temperature: float) -> tf.Tensor | None:
        import tensorflow as tf

        return tf.sigmoid(outputs)

    def file_facts(self, classes: Sequence[str]) -> dict[str, Any]:
        """The threshold of each class."""
        return {"thresholds": self.thresholds(len(classes)).tolist()}

    def check_signature(self, found: Mapping[str, np.ndarray], expected: np.ndarray, card: Mapping) -> list[tuple]:
        wrong, difference = 0, 0.0
        for labels, p, row in zip(
            found["labels"], found["probabilities"], self.answer(expected, card["classes"], 0), strict=True
        ):
            got = {label.decode(): float(v) for label, v in zip(labels, p, strict=True) if label}
            right = {t["class"]: t["probability"] for t in row["labels"]}
            wrong += got.keys() != right.keys()
            difference = max([difference, *(abs(got[c] - right[c]) for c in got.keys() & right.keys())])
        return [
            ("probabilities", difference <= 1e-3, f"sigmoid(logits) up to {difference:.2g}"),
            ("labels", not wrong, f"{wrong} are wrong" if wrong else "as the thresholds in the card say"),
        ]

    def same(self, outputs: np.ndarray, expected: np.ndarray) -> np.ndarray:
        return (self.present(outputs) == self.present(expected)).all(-1)

    def certainty(self, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `Task.certainty`: how far the class that is nearest to its threshold is from it, in logits.

        The groups are images with and without a label. More groups, such as one for each class, would ask images for
        the same answer for ever of which some class is near its threshold.
        """
        t = np.clip(self.thresholds(outputs.shape[1]), 1e-7, 1 - 1e-7)
        away = outputs - np.log(t / (1 - t))
        return self.present(outputs).any(-1).astype(int), np.abs(away).min(-1)


def _mean(rows, key):
    return float(np.mean([row[key] for row in rows])) if rows else None


TASK = Multilabel()
