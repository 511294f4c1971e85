"""How good a trained model is: top-1, top-5, loss, per class, and who is taken for whom."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from kzoo import runs
from kzoo.data.batches import batches, decode_split
from kzoo.data.dataset import Split, report_skipped
from kzoo.data.divide import as_divided
from kzoo.data.loading import load_data
from kzoo.errors import DataError, RunError
from kzoo.graph.inference import predictor
from kzoo.metrics import softmax
from kzoo.progress import progress, say


@dataclass
class Evaluation:
    """What `evaluate` found. confusion: (classes, classes) counts, true classes in rows."""

    run: str
    data: str
    split: str
    classes: tuple[str, ...]
    images: int
    top1: float
    top5: float | None
    loss: float
    per_class: list[dict]
    confusion: np.ndarray

    def to_dict(self):
        return {**self.__dict__, "classes": list(self.classes), "confusion": self.confusion.tolist()}

    def __str__(self):
        from kzoo.data.images import shown

        names = [shown(c)[:24] for c in self.classes]
        width = max(5, *map(len, names))
        top5 = f", top-5 {self.top5:.2%}" if self.top5 is not None else ""
        lines = [
            f"{self.run} on {self.data} ({self.split}, {self.images:,} images): "
            f"top-1 {self.top1:.2%}{top5}, loss {self.loss:.4f}",
            "",
            f"{'class':{width}}  precision  recall      F1  images",
        ]
        for name, row in zip(names, self.per_class, strict=True):
            lines.append(
                f"{name:{width}}  {row['precision']:9.2%} {row['recall']:7.2%} {row['f1']:7.2%} {row['images']:7,}"
            )
        if len(names) <= 12:
            cell = max(len(f"{self.confusion.max()}"), 3)
            lines += ["", "Confusion (rows: true, columns: predicted)"]
            lines.append(" " * width + " ".join(f"{n[:cell]:>{cell}}" for n in ["", *names])[cell:])
            for name, row in zip(names, self.confusion, strict=True):
                lines.append(f"{name:{width}} " + " ".join(f"{n if n else '·':>{cell}}" for n in row))
        return "\n".join(lines)


def evaluate(run, data=None, *, split=None, batch_size=256, quiet=False):
    """Measure a run's best model.

    run: a run folder or a Run. data: what `kzoo.load_data` takes; by default the run's own, divided as in training.
    split: "train", "val", "test" or "all"; by default test if there is one, else val, else all. A fine-tuned run may
        have "choose", too: what it took from the training part to choose by.

    Returns an Evaluation and writes evaluation-SPLIT.json and confusion-SPLIT.png into the run folder. Classes are
    matched by name. Raises RunError, DataError.

    >>> run = kzoo.train("mnist_softmax", "digits", epochs=1, out="runs/example2", quiet=True)
    >>> kzoo.evaluate(run, quiet=True).images
    359
    """
    run = run if isinstance(run, runs.Run) else runs.load_run(run)
    config = run.config
    own = data is None or os.fspath(data) == config["data"]  # or the same in other words, which its fingerprint tells
    data = config["data"] if data is None else os.fspath(data)
    dataset = load_data(
        data, seed=config["seed"], val_fraction=config["val_fraction"], test_fraction=config["test_fraction"]
    )
    same = dataset.fingerprint() == config["fingerprint"]
    if own and not same:
        say(f"Note: {data} has changed since {run.path} was trained, so training images may be among these.")
    if (own or same) and config.get("divided"):
        dataset = as_divided(dataset, *run.division())
    name, part = _choose(dataset, split)
    if same and name in ("train", "all", "choose"):
        say(f"Note: {run.path} was made with images of this part ({name}), so it may do worse on others.")
    labels = _same_classes(part.labels, dataset.classes, run)
    with progress(quiet=quiet) as bar:
        bar.start("reading", len(part))
        ready, skipped = decode_split(
            Split(part.images, labels, part.ids), run.input_shape, run.preprocessing, bar.advance
        )
        if skipped:
            say(f"Left out {report_skipped(skipped)}.")
        if not len(ready):
            raise DataError(f"No usable image is left in '{data}' ({name}).")
        bar.start("evaluating", len(ready))
        logits = run_over(run, ready, batch_size, bar)
    result = _measure(str(run.path), data, name, run.classes, ready.labels, logits)
    runs.write_json(run.path / f"evaluation-{name}.json", result.to_dict())
    _draw(result, run.path / f"confusion-{name}.png")
    return result


def run_over(run, split, batch_size, bar):
    """Logits (N, classes) of a prepared split, in its order."""
    predict = predictor(run.model)
    found = []
    for x, _ in batches(split, run.input_shape, run.preprocessing, batch_size, num_classes=len(run.classes)):
        found.append(predict(x))
        bar.advance(len(x))
    return np.concatenate(found)


def _choose(dataset, split):
    if split is None:
        split = next((s for s in ("test", "val") if s in dataset.splits), "all")
    if split == "all":
        return "all", dataset.whole()
    if split not in dataset.splits:
        raise DataError(f"'{dataset.name}' has no split '{split}'; it has {', '.join(dataset.splits)}, all.")
    return split, dataset.splits[split]


def _same_classes(labels, classes, run):
    """Labels in the run's numbering; RunError if the data has a class that the run does not know."""
    foreign = [c for c in classes if c not in run.classes]
    if foreign:
        raise RunError(
            f"The data has the classes {', '.join(map(repr, foreign[:5]))}, which {run.path} was not trained on "
            f"(it knows {', '.join(map(repr, run.classes[:5]))}{', ...' if len(run.classes) > 5 else ''})."
        )
    return np.array([run.classes.index(c) for c in classes])[labels]


def _measure(run, data, split, classes, labels, logits):
    from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support

    everything = np.arange(len(classes))
    probabilities = softmax(logits)
    predicted = logits.argmax(-1)
    top5 = None
    if len(classes) > 5:
        # Strictly better classes decide, so a tie counts for the model; NaN never does.
        own = np.take_along_axis(logits, labels[:, None], 1)
        top5 = float(np.mean((logits > own).sum(-1) < 5))
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=everything, zero_division=0
    )
    return Evaluation(
        run,
        data,
        split,
        tuple(classes),
        len(labels),
        float(np.mean(predicted == labels)),
        top5,
        float(log_loss(labels, probabilities, labels=everything)),
        [
            {"class": c, "precision": float(p), "recall": float(r), "f1": float(f), "images": int(n)}
            for c, p, r, f, n in zip(classes, precision, recall, f1, support, strict=True)
        ],
        confusion_matrix(labels, predicted, labels=everything),
    )


def _draw(result, path):
    """The confusion matrix as a PNG: shares of each true class, so that rare classes show."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n = len(result.classes)
    size = min(max(4.0, 0.45 * n + 2), 24)
    figure = Figure((size, size), layout="constrained")
    axes = figure.add_subplot()
    shares = result.confusion / np.maximum(result.confusion.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(
        xlabel="predicted", ylabel="true", title=f"{result.split}: top-1 {result.top1:.2%} of {result.images:,} images"
    )
    if n <= 50:
        names = [c[:20].replace("$", r"\$") for c in result.classes]
        axes.set_xticks(range(n), names, rotation=90)
        axes.set_yticks(range(n), names)
    if n <= 20:
        for i, j in np.ndindex(n, n):
            if result.confusion[i, j]:
                colour = "white" if shares[i, j] > 0.5 else "black"
                axes.text(j, i, f"{result.confusion[i, j]}", ha="center", va="center", color=colour, fontsize=7)
    with runs.write_atomically(path) as f:
        FigureCanvasAgg(figure).print_png(f)
