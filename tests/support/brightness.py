"""A tiny task: regression of one number, how bright an image is; and a network for it."""

from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

from kzoo.data.dataset import DataSet, Split
from kzoo.layers import classifier
from kzoo.tasks import Evaluation, Task


@dataclass
class BrightnessEvaluation(Evaluation):
    """How far off the number is."""

    mean_error: float

    def __str__(self):
        return f"{self.run} on {self.data} ({self.split}, {self.images} images): mean error {self.mean_error:.3f}"


class Brightness(Task):
    """One number for each image."""

    name = "brightness"
    losses = {"squared_error": lambda recipe: keras.losses.MeanSquaredError()}  # noqa: RUF012
    metrics = {"error": lambda y, z: keras.ops.abs(y - z)}  # noqa: RUF012
    higher_is_better = False

    def outputs(self, classes):
        return 1

    def targets(self, labels, classes):
        return np.asarray(labels, "float32").reshape(-1, 1)

    def head(self, features, classes, **options):
        return classifier(features, 1, **options)

    def answer(self, outputs, classes, top, temperature=1.0):
        return [{"value": float(z[0])} for z in outputs]

    def row_text(self, row):
        return f"{row['value']:.3f}"

    def columns(self, top):
        return ["value"]

    def cells(self, row, top):
        return [row.get("value", "")]

    def evaluate(self, outputs, labels, classes, **about):
        error = np.abs(outputs[:, 0] - labels)
        figures = {"classes": (), "images": len(labels), "loss": float((error**2).mean())}
        return BrightnessEvaluation(**about, **figures, mean_error=float(error.mean()))

    def scores(self, outputs, labels):
        return {"images": len(labels), "mean_error": float(np.abs(outputs[:, 0] - labels).mean())}


def network(x, *, num_classes):
    """(B, H, W, C) to (B, 1)."""
    return classifier(layers.GlobalAveragePooling2D(name="avg_pool")(x), num_classes)


def data():
    """80 images of noise of different brightness, with their mean in 0..1."""
    rng = np.random.default_rng(0)
    images = (rng.integers(0, 256, (80, 8, 8, 1)) * rng.uniform(0.1, 1, (80, 1, 1, 1))).astype("uint8")
    values = images.mean((1, 2, 3)) / 255
    parts = {"train": range(60), "val": range(60, 70), "test": range(70, 80)}
    splits = {name: Split(images[list(i)], values[list(i)], [f"{n}" for n in i]) for name, i in parts.items()}
    return DataSet("noise", (), splits)


TASK = Brightness()
