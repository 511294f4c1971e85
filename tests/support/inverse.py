"""A tiny task with a value for each pixel: the negative of an image; and a network for it."""

from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

from kzoo.data.dataset import DataSet, Split
from kzoo.tasks import Evaluation, Task


@dataclass
class InverseEvaluation(Evaluation):
    """The mean absolute difference of a pixel."""

    difference: float


class Inverse(Task):
    """(B, H, W, 1) to (B, H, W, 1) in 0..1."""

    name = "inverse"
    output = "negative"
    losses = {"squared_error": lambda recipe: keras.losses.MeanSquaredError()}  # noqa: RUF012
    metrics = {"difference": lambda y, z: keras.ops.mean(keras.ops.abs(y - z), (1, 2, 3))}  # noqa: RUF012
    higher_is_better = False

    def outputs(self, classes):
        return 1

    def targets(self, labels, classes):
        return labels.astype("float32")

    def answer(self, outputs, classes, top, temperature=1.0):
        return [{"mean": float(z.mean()), "shape": list(z.shape)} for z in outputs]

    def row_text(self, row):
        return f"{row['shape']}, mean {row['mean']:.3f}"

    def columns(self, top):
        return ["mean"]

    def cells(self, row, top):
        return [row.get("mean", "")]

    def evaluate(self, outputs, labels, classes, **about):
        difference = float(np.abs(outputs - labels).mean())
        return InverseEvaluation(**about, classes=(), images=len(labels), loss=difference**2, difference=difference)

    def scores(self, outputs, labels):
        return {"images": len(labels), "difference": float(np.abs(outputs - labels).mean())}


def network(x, *, num_classes):
    """(B, H, W, C) to (B, H, W, num_classes) by a 1x1 convolution."""
    return layers.Conv2D(num_classes, 1, dtype="float32", name="predictions")(x)


def data():
    """80 images of noise with their negatives."""
    images = np.random.default_rng(0).integers(0, 256, (80, 8, 8, 1)).astype("uint8")
    labels = (255 - images) / 255
    parts = {"train": range(60), "val": range(60, 70), "test": range(70, 80)}
    splits = {name: Split(images[list(i)], labels[list(i)], [f"{n}" for n in i]) for name, i in parts.items()}
    return DataSet("noise", (), splits)


TASK = Inverse()
