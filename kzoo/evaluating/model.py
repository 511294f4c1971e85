"""`kzoo.load`: a run, an export, a model of the catalog, a Keras file or an ensemble as one object, loaded once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from kzoo import runs
from kzoo.data.guards import shown
from kzoo.errors import ExportError, KzooError
from kzoo.evaluating.evaluation import evaluate, measure
from kzoo.evaluating.loading import LoadedModel, load_model
from kzoo.evaluating.prediction import predict
from kzoo.exporting.reader import Export, is_export
from kzoo.keras_files import read_keras
from kzoo.tasks import Evaluation


class Model:
    """What `kzoo.load` gives: `predict`, `evaluate`, and the Keras model.

    Attributes:
        origin: what it was loaded from.
        loaded: the `kzoo.evaluating.loading.LoadedModel`.
        run: the Run, if it is one.
    """

    def __init__(self, origin: Any, loaded: LoadedModel, run: runs.Run | None = None):
        self.origin, self.loaded, self.run = origin, loaded, run

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by number."""
        return self.loaded.classes

    @property
    def model(self) -> keras.Model:
        """The Keras model: images (B, height, width, channels) in 0..255 to the task's outputs.

        Raises:
            KzooError: there is none: an ensemble, or an export without the format "keras".
        """
        if self.loaded.network is not None:
            return self.loaded.network
        if isinstance(self.origin, (list, tuple)):
            raise KzooError("An ensemble is no single Keras model: load its members one by one.")
        path = Path(self.origin.folder if isinstance(self.origin, Export) else self.origin) / "model.keras"
        if not path.is_file():
            raise ExportError(f"{path.parent} has no Keras model: kzoo export --format saved_model,keras writes one.")
        return read_keras(path)

    def predict(
        self, x: Any, *, top: int = 5, batch_size: int = 32, out: str | os.PathLike | None = None
    ) -> list[dict[str, Any]]:
        """Classify images: the rows of `kzoo.predict`.

        Args:
            x: what `kzoo.predict` takes: paths, folders, encoded bytes, arrays in 0..255, PIL images, one or several,
                or a tf.data set.
            top: the number of classes in an answer, at least 1.
            batch_size: the number of images that are computed at once.
            out: a folder for the masks of segmentation.

        Returns:
            A dict for each image, in order: {"image": path or position, "top": [{"class": name, "probability": p},
            ...]} or {"image": ..., "error": reason}.

        Raises:
            DataError: a path that does not exist, or something that is no image.

        Example:
            >>> import numpy as np
            >>> model = load("resnet20")
            >>> rows = model.predict(np.zeros((2, 32, 32, 3), "uint8"), top=1)
            >>> [row["image"] for row in rows]
            ['0', '1']
        """
        return list(predict(self.loaded, x, top=top, batch_size=batch_size, out=out))

    def evaluate(
        self,
        data: Any = None,
        *,
        split: str | None = None,
        batch_size: int = 256,
        quiet: bool = True,
    ) -> Evaluation:
        """Measure it on a data set, whose classes are matched by name.

        Of a run this is `kzoo.evaluate`, which also writes the result into its folder. Nothing else is written.

        Args:
            data: what `kzoo.load_data` takes, or a DataSet; for a run by default its own.
            split: "train", "val", "test" or "all"; for data that a run was not trained on all of it by default.
            batch_size: the number of images that are computed at once.
            quiet: no progress.

        Raises:
            KzooError: no data is given for what has none, or the data has a class that the model does not know.
        """
        if self.run is not None:
            return evaluate(self.run, data, split=split, batch_size=batch_size, quiet=quiet)
        if isinstance(self.origin, (list, tuple)):
            return evaluate(list(self.origin), data, split=split, batch_size=batch_size, quiet=quiet)
        if data is None:
            raise KzooError(f"{self.loaded.about} has no data of its own: evaluate(data).")
        return measure(self.loaded, data, split=split, batch_size=batch_size, quiet=quiet)

    def __repr__(self) -> str:
        known = ", ".join(shown(name)[:20] for name in self.classes[:5])
        more = ", ..." if len(self.classes) > 5 else ""
        about = f"{shown(self.loaded.about)[:300]}: {self.loaded.task.name}"
        return f"<Model {about}, {len(self.classes):,} classes: {known}{more}>"


def load(
    model: Any,
    weights: Any = None,
    *,
    classes: Sequence[str] | None = None,
    pixels: str | None = None,
    trust: bool = False,
    abstain: float | None = None,
) -> Model:
    """Load a run, an export, a model of the catalog, a Keras file, or an ensemble, for many calls.

    Args:
        model: a run folder or a Run, an export, a name of the catalog, a keras.Model, a file of one (.keras, .h5,
            Teachable Machine's .zip); a list of these is an ensemble.
        weights: for a name of the catalog: a tag or a file; the first published set by default.
        classes: names, for a Keras model, which records none.
        pixels: what a Keras model of a file takes, where that can't be known: "0..255", "0..1", "-1..1", "imagenet" or
            "caffe" (see `kzoo.catalog.pretrained.PIXELS`).
        trust: load an export with any operations, which may read and write files.
        abstain: of a run, a level such as 0.95: answers then tell whether several classes are possible, "abstain", by a
            threshold from the run's validation images, as in `kzoo.export`.

    Returns:
        A Model: `.predict(x, top=5)`, `.evaluate(data)`, `.model`.

    Raises:
        KzooError: it can't be found or read.

    Example:
        >>> load("resnet20").classes[:2]
        ('airplane', 'automobile')
    """
    run = model if isinstance(model, runs.Run) else None
    if isinstance(model, (str, os.PathLike)) and os.path.isdir(model) and not is_export(model):
        run = runs.load_run(model)
    return Model(
        model, load_model(run or model, weights, classes=classes, pixels=pixels, trust=trust, abstain=abstain), run
    )
