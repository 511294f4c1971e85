"""Figures of the papers and of the lecture, from networks that are trained for them: minutes each."""

from __future__ import annotations

import csv
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kzoo import runs
from kzoo.catalog import spec
from kzoo.checks import check_count, check_seed
from kzoo.data.batches import decode_split
from kzoo.data.dataset import DataSet
from kzoo.data.loading import load_data
from kzoo.errors import KzooError, RunError, unknown
from kzoo.files import write_atomically
from kzoo.interrupt import Interrupted
from kzoo.plots import curves
from kzoo.progress import say
from kzoo.training.loop import train

Curves = Mapping[str, tuple[Sequence[float], Sequence[float]]]


@dataclass
class Figure:
    """What a figure shows, and the numbers in it.

    Attributes:
        name: a key of `FIGURES`.
        panels: (title, x axis, y axis, {curve: (x, y)}) of each.
        notes: a sentence on each result.
        data: the data set and how many images of it.
        epochs: of each training.
        seed: likewise.
        seconds: that it took.
    """

    name: str
    panels: list[tuple[str, str, str, Curves]] = field(repr=False)
    notes: list[str]
    data: str
    epochs: int
    seed: int
    seconds: float = field(default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return dict(self.__dict__)

    def __str__(self):
        return "\n".join([f"{self.name}: {self.data}, {self.epochs} epochs, seed {self.seed}", *self.notes])


def relu_tanh(
    data: str | DataSet = "cifar10",
    *,
    epochs: int = 20,
    images: int | None = None,
    seed: int = 0,
    rates: Sequence[float] = (0.0025, 0.005, 0.01, 0.02, 0.04),
    quiet: bool = False,
) -> Figure:
    """Training error by epoch of a network with ReLUs and with tanh, each at its best rate.

    The best rate is the one with which 25 % training error is reached first; if none reaches it, that with the lowest
    error in the end. As in the paper there is no regularisation.

    Args:
        data: of pictures, such as CIFAR-10.
        epochs: of each of the 2 * len(rates) trainings.
        images: training images, spread evenly over the set; None takes all.
        seed: of each training.
        rates: learning rates to try.
        quiet: no progress.

    Returns:
        The Figure.

    Raises:
        KzooError: a value that can't be used.
        RunError: with no rate a network trains.

    Reference:
        Krizhevsky et al. 2012, Figure 1.
    """
    part, about = _part(data, images, seed, validation=False)

    def score(history):
        errors = [1 - row["accuracy"] for row in history]
        first = next((i for i, e in enumerate(errors, 1) if e <= 0.25), float("inf"))
        return -first, -errors[-1]

    lines, notes = {}, []
    for activation in ("relu", "tanh"):
        options = {"activation": activation, "epochs": epochs, "seed": seed, "val_fraction": 0.0, "quiet": quiet}
        rate, history = best_rate("figure1_cifar", part, rates, score, **options)
        errors = [1 - row["accuracy"] for row in history]
        first = -score(history)[0]
        lines[f"{activation}, rate {rate:g}"] = (list(range(1, len(errors) + 1)), errors)
        reached = f"25 % training error in epoch {first}" if first < float("inf") else "25 % not reached"
        notes.append(f"{activation:5} at rate {rate:g}: {reached}, {errors[-1]:.1%} in the end")
    panel = ("Training error with ReLU and tanh", "epoch", "training error", lines)
    return Figure("relu-tanh", [panel], notes, about, epochs, seed)


def losses(
    data: str | DataSet = "mnist",
    *,
    epochs: int = 10,
    images: int | None = None,
    seed: int = 0,
    rates: Sequence[float] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
    quiet: bool = False,
) -> Figure:
    """Cross-entropy, hinge and mean squared error: the size of their gradients, and what `mnist_mlp` learns by them.

    Behind a softmax the gradient of the squared error vanishes where the network is sure and wrong; that of the others
    is largest there. The networks are trained with plain SGD, each at the rate with the best validation accuracy. From
    small weights few digits are ever far on the wrong side, so `unlearn` then starts, with these rates, from a network
    that is sure and wrong.

    Args:
        data: such as MNIST, or "digits".
        epochs: of each of the 3 * len(rates) trainings.
        images: as in `relu_tanh`.
        seed: likewise.
        rates: likewise.
        quiet: no progress.

    Returns:
        The Figure.

    Raises:
        KzooError: a value that can't be used.
        RunError: with no rate a network trains.
    """
    part, about = _part(data, images, seed, validation=True)
    lines: dict[str, tuple[list[int], list[float]]] = {}
    best: dict[str, float] = {}
    notes = []
    for loss in LOSSES:
        options: dict[str, Any] = {"loss": loss, "epochs": epochs, "seed": seed, "quiet": quiet}
        rate, history = best_rate(
            "mnist_mlp", part, rates, lambda h: h[-1]["val_accuracy"], recipe="lecture_softmax", **options
        )
        accuracy = [row["val_accuracy"] for row in history]
        best[loss] = rate
        lines[f"{loss}, rate {rate:g}"] = (list(range(1, len(accuracy) + 1)), accuracy)
        notes.append(
            f"{loss:13} at rate {rate:g}: validation accuracy {accuracy[0]:.1%} after one epoch, "
            f"{accuracy[-1]:.1%} in the end"
        )
    margins = np.linspace(-10, 10, 21)
    sizes: Curves = {loss: (margins.tolist(), gradient_sizes(loss, margins).tolist()) for loss in LOSSES}
    notes += [f"{loss:13} gradient where the right class is 10 behind: {y[0]:.2g}" for loss, (_, y) in sizes.items()]
    again: dict[str, tuple[list[int], list[float]]] = {}
    trials = [*best.items(), ("mse", best["cross_entropy"])]  # the last with no other change than the loss
    for (loss, rate), (size, accuracy) in zip(trials, unlearn(part, trials, epochs=epochs, seed=seed), strict=True):
        again[f"{loss}, rate {rate:g}"] = (list(range(len(accuracy))), accuracy)
        notes.append(
            f"{loss:13} at rate {rate:g} from a sure and wrong network: gradient {size:.2g}, validation accuracy "
            f"{accuracy[0]:.1%}, {accuracy[1]:.1%} after one epoch, {accuracy[-1]:.1%} in the end"
        )
    panels = [
        ("Gradient by how far the right class is ahead", "logit of the right class - largest other", "norm", sizes),
        ("Validation accuracy from small weights", "epoch", "accuracy", lines),
        ("Validation accuracy from a network that is sure and wrong", "epoch", "accuracy", again),
    ]
    return Figure("losses", panels, notes, about, epochs, seed)


LOSSES = ("cross_entropy", "hinge", "mse")


def unlearn(
    data: DataSet, trials: Sequence[tuple[str, float]], *, epochs: int, seed: int = 0
) -> list[tuple[float, list[float]]]:
    """Train `mnist_mlp` from a network that is sure and wrong: it has learned each class as the next one.

    It learned by cross-entropy and plain SGD, for as many epochs, at a rate of WRONG_RATE; then its logits were made
    SURE times as large.

    Args:
        data: with the parts train and val.
        trials: (loss, learning rate) of each training.
        epochs: of each training.
        seed: of the weights, and of the order of the images.

    Returns:
        For each training the norm of the loss' gradient by the logits before it, the mean over SAMPLE training images;
        and the validation accuracy before it and after each epoch.
    """
    import keras

    from kzoo.builder import build
    from kzoo.tasks import find

    task, row, classes = find("classification"), spec("mnist_mlp"), data.classes
    height, width, channels = row.input_shape
    shape = (height, width, channels)
    parts = {n: decode_split(data.splits[n], shape, row.preprocessing)[0] for n in ("train", "val")}
    x, labels = np.asarray(parts["train"].images), parts["train"].labels
    model = build("mnist_mlp", num_classes=len(classes), seed=seed)

    def fit(loss, rate, labels, epochs):
        keras.utils.set_random_seed(seed)
        model.compile(keras.optimizers.SGD(rate), task.losses[loss](None))
        targets, found = task.targets(labels, classes), [accuracy()]
        for _ in range(epochs):
            model.fit(x, targets, batch_size=BATCH, verbose=0)
            found.append(accuracy())
        return found

    def accuracy():
        return float(np.mean(logits(parts["val"].images).argmax(-1) == parts["val"].labels))

    def logits(images):  # predict() would be traced again for each loss
        return keras.ops.convert_to_numpy(model(np.asarray(images), training=False))

    fit("cross_entropy", WRONG_RATE, (labels + 1) % len(classes), epochs)
    last = model.get_layer("predictions")
    last.set_weights([SURE * w for w in last.get_weights()])
    start = model.get_weights()
    some = np.arange(min(SAMPLE, len(x))) * len(x) // min(SAMPLE, len(x))
    z, right = logits(x[some]).astype("float64"), task.targets(labels[some], classes)
    found = []
    for loss, rate in trials:
        model.set_weights(start)
        size = np.linalg.norm(logit_gradients(loss, z, right), axis=-1).mean()
        found.append((float(size), fit(loss, rate, labels, epochs)))
    return found


BATCH, SAMPLE, WRONG_RATE, SURE = 100, 50, 0.5, 3


def gradient_sizes(loss: str, margins: Sequence[float] | np.ndarray, classes: int = 10) -> np.ndarray:
    """The norm of a loss' gradient by the logits, where one class is ahead of or behind the right one, all others far.

    Args:
        loss: of classification.
        margins: (M,), the logit of the right class minus that of the other.
        classes: how many logits; all but two are 20 below both.

    Returns:
        (M,).
    """
    z = np.full((len(margins), classes), -20.0) - np.abs(margins)[:, None] / 2
    z[:, 0], z[:, 1] = np.asarray(margins) / 2, -np.asarray(margins) / 2
    right = np.tile(np.eye(classes)[0], (len(z), 1))
    return np.linalg.norm(logit_gradients(loss, z, right), axis=-1)


def logit_gradients(loss: str, logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The gradient (N, C) of a loss of classification by the logits (N, C) of each image, by central differences.

    Args:
        loss: its name.
        logits: (N, C).
        targets: one-hot (N, C).
    """
    from keras import ops

    from kzoo.tasks import find

    function, step = find("classification").losses[loss](None), 1e-2
    targets = np.asarray(targets, "float32")

    def value(z, y):
        return float(np.mean(ops.convert_to_numpy(function(y, z[None].astype("float32")))))

    steps = step * np.eye(logits.shape[1])
    pairs = zip(logits, targets[:, None], strict=True)
    return np.array([[value(z + d, y) - value(z - d, y) for d in steps] for z, y in pairs]) / (2 * step)


def shift(
    data: str | DataSet = "mnist",
    *,
    epochs: int = 3,
    images: int | None = None,
    seed: int = 0,
    most: int = 4,
    quiet: bool = False,
) -> Figure:
    """Test accuracy of `mnist_shift` and `mnist_cnn` on pictures that are moved by 0 to `most` pixels.

    Args:
        data: with a test part, such as MNIST.
        epochs: of each of the two trainings.
        images: as in `relu_tanh`.
        seed: likewise.
        most: pixels. What leaves the picture is lost, and black comes in.
        quiet: no progress.

    Returns:
        The Figure: the mean over the four directions.

    Raises:
        KzooError: a value that can't be used, or data without a test part.
    """
    from kzoo.graph.inference import predictor

    check_count("most", most, 0)
    whole = data if isinstance(data, DataSet) else load_data(data, seed=seed)
    if "test" not in whole.splits:
        raise KzooError(f"shift measures on the test part, and {whole.name} has none.")
    part, about = _part(whole, images, seed, validation=True)
    height, width, channels = spec("mnist_cnn").input_shape
    test, _ = decode_split(whole.splits["test"], (height, width, channels), spec("mnist_cnn").preprocessing)
    pictures = np.asarray(test.images)
    lines, notes = {}, []
    for name in ("mnist_shift", "mnist_cnn"):
        with tempfile.TemporaryDirectory() as folder:
            run = train(name, part, epochs=epochs, seed=seed, out=Path(folder) / "run", quiet=quiet)
            network = predictor(run.model)
        accuracy = [
            float(np.mean([np.mean(network(x).argmax(-1) == test.labels) for x in moved(pictures, pixels)]))
            for pixels in range(most + 1)
        ]
        lines[name] = (list(range(most + 1)), accuracy)
        notes.append(f"{name:11} " + ", ".join(f"{a:.2%} by {p}" for p, a in enumerate(accuracy)) + " pixels")
    panel = ("Pictures moved in four directions", "pixels", "test accuracy", lines)
    return Figure("shift", [panel], notes, about, epochs, seed)


def moved(images: np.ndarray, pixels: int) -> list[np.ndarray]:
    """Move pictures (N, H, W, C) down, up, right and left; what leaves them is lost, and zeros come in.

    Example:
        >>> [x.ravel().tolist() for x in moved(np.array([1, 2, 3, 4]).reshape(1, 2, 2, 1), 1)]
        [[0, 0, 1, 2], [3, 4, 0, 0], [0, 1, 0, 3], [2, 0, 4, 0]]
    """
    if not pixels:
        return [images]
    height, width = images.shape[1:3]
    wide = np.pad(images, [(0, 0), (pixels, pixels), (pixels, pixels), (0, 0)])
    at = [(0, pixels), (2 * pixels, pixels), (pixels, 0), (pixels, 2 * pixels)]
    return [wide[:, y : y + height, x : x + width] for y, x in at]


FIGURES: dict[str, Callable[..., Figure]] = {"relu-tanh": relu_tanh, "losses": losses, "shift": shift}


def draw(name: str, out: str | os.PathLike | None = None, **options: Any) -> Figure:
    """Train for a figure, and draw it as PNG.

    Args:
        name: a key of `FIGURES`.
        out: the file; NAME.png by default.
        options: of its function: data, epochs, images, seed, ..., as in `relu_tanh`. None takes its default.

    Returns:
        The Figure.

    Raises:
        UnknownName: there is no such figure.
        KzooError: the file exists, or can't be written; a value that can't be used.
    """
    if name not in FIGURES:
        raise unknown("figure", name, FIGURES, f"It is one of {', '.join(FIGURES)}.")
    path = Path(out or f"{name}.png")
    if path.exists() or not path.parent.is_dir():
        reason = "exists already" if path.exists() else f"can't be written: there is no folder {path.parent}"
        raise KzooError(f"{path} {reason}; give another --out.")
    started = time.perf_counter()
    try:
        figure = FIGURES[name](**{k: v for k, v in options.items() if v is not None})
    except Interrupted as e:  # a training says that its run can be resumed, and it is deleted
        e.args = ("The figure was stopped before the end; nothing of it is kept.",)
        raise
    figure.seconds = round(time.perf_counter() - started, 1)
    with write_atomically(path) as f:
        f.write(curves(figure.panels))
    return figure


# --- Parts -----------------------------------------------------------------------------------------------


def _part(data, images, seed, *, validation):
    """(the training part, and the validation part if wanted, of which fewer images; what to call it)."""
    check_count("images", images, 1)
    check_seed(seed)
    whole = (
        data
        if isinstance(data, DataSet)
        else load_data(data, seed=seed, **({} if validation else {"val_fraction": 0.0}))
    )
    if whole.several or any(split.masks for split in whole.splits.values()):
        raise KzooError(f"A figure is of one class an image, and {whole.name} has others: give data such as mnist.")
    if "train" not in whole.splits or (validation and "val" not in whole.splits):
        raise KzooError(f"A figure needs images to train on and to validate on, and {whole.name} lacks such a part.")
    train_part = whole.splits["train"]
    if images is not None and images < len(train_part):
        train_part = train_part.take(np.arange(images) * len(train_part) // images)
    splits = {"train": train_part}
    if validation:
        splits["val"] = whole.splits["val"]
    return DataSet(whole.name, whole.classes, splits), f"{whole.name}, {len(train_part):,} training images"


def best_rate(
    model: str, data: DataSet, rates: Sequence[float], score: Callable[[list[dict]], Any], **options: Any
) -> tuple[float, list[dict[str, float]]]:
    """Train with each learning rate, and keep the history that scores highest.

    Args:
        model: of the catalog.
        data: to train on.
        rates: to try. One with which the training fails is named and left out.
        score: of a history, a row for each epoch.
        options: for `kzoo.train`.

    Returns:
        (the rate, its history).

    Raises:
        RunError: a training does not start, or all fail.
    """
    best = None
    for rate in rates:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            try:
                train(model, data, learning_rate=rate, out=out, **options)
            except RunError as e:
                if isinstance(e, Interrupted) or not (out / runs.CONFIG).is_file():  # stopped, or it did not start
                    raise
                say(f"Left out rate {rate:g}: {e}")
                continue
            with open(out / runs.HISTORY, encoding="utf-8") as f:
                history = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(f)]
        if best is None or score(history) > score(best[1]):
            best = rate, history
    if best is None:
        raise RunError(f"{model} trains at none of the rates {', '.join(f'{r:g}' for r in rates)}.")
    return best
