"""What is looked at: a run, a model of the catalog, a file or a Keras model as one flat graph from pixels to logits."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from kzoo import runs
from kzoo.builder import build
from kzoo.catalog import Preprocessing, image_spec
from kzoo.data.guards import fault, read
from kzoo.data.images import check_shape, make_preparer
from kzoo.errors import DataError, KzooError, RunError, unknown
from kzoo.graph.flat import flat_copy, nested_models, to_logits
from kzoo.keras_files import SCALING, read_keras
from kzoo.metrics import softmax
from kzoo.source import Source, describe
from kzoo.tasks import Task
from kzoo.weights.classes import class_names


@dataclass(frozen=True)
class Network:
    """A network to look into.

    Attributes:
        name: of the run, the model of the catalog, or the Keras model.
        model: a flat functional model that computes in float32: (B, H, W, C), RGB or one channel, in 0..255, to logits
            (B, classes), or (B, h, w, classes) of a network for segmentation. It is not to be changed.
        classes: names, by number.
        preprocessing: how a picture is resized and cropped; scaling sits in the model.
        task: what it was trained for.
        source: what else is known of it.
        weights: what they are, in words.
        notes: what was done to the network and what is not known of it, in sentences.
    """

    name: str
    model: keras.Model
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    task: Task
    source: Source = field(repr=False, compare=False)
    weights: str = ""
    notes: tuple[str, ...] = ()
    functions: dict = field(default_factory=dict, init=False, repr=False, compare=False)  # compiled, see `compiled`

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the input."""
        return tuple(self.model.inputs[0].shape[1:])

    @property
    def layers(self) -> list[str]:
        """The names of all layers, in order."""
        return [layer.name for layer in self.model.layers]

    @property
    def dense(self) -> bool:
        """Whether it gives logits for each position, as a network for segmentation does."""
        return len(self.model.outputs[0].shape) == 4

    def output_of(self, layer: str) -> keras.KerasTensor:
        """The (first) output of a layer, as a tensor of the graph.

        Raises:
            UnknownName: there is no such layer.
        """
        if layer not in self.layers:
            raise unknown(f"layer of {self.name}", layer, self.layers, "kzoo visualize lists those that it shows.")
        return keras.tree.flatten(self.model.get_layer(layer).output)[0]

    def up_to(self, *layers: str) -> keras.Model:
        """The part from the input to the outputs of layers, sharing all weights.

        Raises:
            UnknownName: there is no such layer.
        """
        ends = [self.output_of(name) for name in layers]
        return keras.Model(self.model.inputs[0], ends[0] if len(ends) == 1 else ends, name=self.model.name)

    def compiled(self, what: str, make: Callable[[], Any]) -> Any:
        """A compiled function of the model under a name: made at the first call, then kept."""
        if what not in self.functions:
            self.functions[what] = make()
        return self.functions[what]

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """The probabilities (..., classes) of logits: a softmax, or a sigmoid for each class where that is the task."""
        if self.task.several or len(self.classes) == 1:
            return 1 / (1 + np.exp(-np.asarray(logits, "float64")))
        return softmax(logits)

    def class_number(self, target: int | str) -> int:
        """The number of a class that is given by number or name.

        Raises:
            UnknownName: there is no such class.
        """
        if isinstance(target, str):
            if target in self.classes:
                return self.classes.index(target)
            if not target.isdecimal():
                raise unknown(f"class of {self.name}", target, self.classes, "A class is given by name or number.")
        number = int(target)
        if not 0 <= number < len(self.classes):
            raise KzooError(f"{self.name} has the classes 0 to {len(self.classes) - 1}; got {number}.")
        return number

    def class_name(self, number: int) -> str:
        """The name of a class."""
        return self.classes[number]

    def prepare(self, photo: str | os.PathLike | bytes | np.ndarray) -> np.ndarray:
        """Make the network's input of a picture.

        Args:
            photo: a file, its bytes, or an array of the input's shape in 0..255, which is taken as it is.

        Returns:
            (H, W, C), float32 in 0..255.

        Raises:
            DataError: it can't be read, or is an array of another shape.
        """
        if isinstance(photo, np.ndarray):
            if photo.shape != self.shape:
                raise DataError(f"{self.name} takes pictures of the shape {self.shape}; got an array {photo.shape}.")
            return photo.astype("float32")
        name = "the picture" if isinstance(photo, bytes) else os.fspath(photo)
        try:
            data = photo if isinstance(photo, bytes) else read(photo)
            if reason := fault(data):
                raise DataError(reason)
            return make_preparer(self.shape, self.preprocessing)(data).astype("float32")
        except (DataError, OSError) as e:
            reason = e.strerror or str(e) if isinstance(e, OSError) else str(e)
            raise DataError(f"{name} can't be used: {reason.rstrip('.')}.") from e

    def batch(self, images: Any) -> np.ndarray:
        """Make a batch (B, H, W, C) float32 of one picture or several, arrays or files (see `prepare`).

        Raises:
            DataError: one of them can't be read or has another shape.
        """
        if isinstance(images, np.ndarray) and images.ndim == 4:
            images = list(images)
        elif not isinstance(images, (list, tuple)):
            images = [images]
        return np.stack([self.prepare(each) for each in images])


def find_network(
    model: Any,
    *,
    weights: Any = None,
    classes: Sequence[str] | None = None,
    input_shape: Sequence[int] | None = None,
    with_data: bool = False,
) -> Network:
    """Find a network and make it ready to be looked into. What it is made from stays as it is.

    Nested models are flattened, a softmax or sigmoid at the end is removed, half precision becomes float32, and of
    several outputs the first one stays; each is said in `notes`.

    Args:
        model: a Run or its folder, a name of the catalog, a .keras file, a keras.Model, or a Network, which is returned
            as it is.
        weights: for a name: a tag, a file or "random"; the first published set by default, random ones without any.
        classes: class names, for models that don't record them.
        input_shape: (height, width, channels), for a model that leaves sizes open.
        with_data: whether the data of a run is looked for.

    Returns:
        The Network.

    Raises:
        KzooError: it can't be found or read, or takes no still images.

    Example:
        >>> import kzoo
        >>> network = find_network(kzoo.build("resnet20", depth=8, seed=0))
        >>> network.shape, network.layers[:2], len(network.classes)
        ((32, 32, 3), ['image', 'preprocessing'], 10)
    """
    if isinstance(model, Network):
        return model
    if isinstance(model, (str, os.PathLike)) and os.fspath(model).endswith(".keras"):
        folder = runs.folder_of(model)
        model = read_keras(model) if folder is None else runs.load_run(folder)
    if isinstance(model, keras.Model):
        if weights is not None:
            raise KzooError("weights are for names of the catalog; a model has its own.")
        words, source = f"those of {model.name}", None
    elif isinstance(model, runs.Run) or os.path.isdir(model):
        source = describe(model, weights=weights, classes=classes, with_data=with_data)
        words = f"of the run {source.name}"
    else:
        model, words, source = _of_name(os.fspath(model), weights, classes)
    given = source.model if source else model
    flat, notes = made_flat(given, input_shape)
    if source is None:  # what is known of the flat model, as of the given one
        source = describe(flat, classes=classes or _names(flat))
        if not any(isinstance(layer, SCALING) for layer in flat.layers):
            notes += ("It has no layer that scales pixels: it is given 0..255 as they are.",)
    shape = tuple(flat.inputs[0].shape[1:])
    check_shape(shape)
    outputs = flat.outputs[0].shape
    if len(outputs) not in (2, 4) or outputs[-1] is None:
        raise KzooError(
            f"{source.name} gives {tuple(outputs)}: only networks with a number for each class can be looked into."
        )
    names = tuple(map(str, source.classes))
    if len(names) != outputs[-1]:
        if classes:
            raise KzooError(f"{source.name} has {outputs[-1]} outputs, but {len(names)} class names were given.")
        names = tuple(map(str, range(outputs[-1])))
    return Network(source.name, flat, names, source.preprocessing, source.task, source, words, notes)


def _of_name(name, weights, classes):
    """(model or None, the weights in words, Source or None) for a name of the catalog."""
    if os.sep in name and not name.endswith(".keras"):
        raise RunError(f"There is no run '{name}': kzoo train writes one.")
    row = image_spec(name)
    if weights is None and row.weights:
        source = describe(name, classes=classes)
        return None, f"{row.weights[0].tag}", source
    if weights in (None, "random"):
        return build(row, seed=0, num_classes=len(classes) if classes else "published"), "random", None
    source = describe(name, weights=weights, classes=classes)
    return None, str(weights), source


def _names(model):
    """Names for the outputs of a model of which nothing else is known: those of ImageNet for its 1,000 classes."""
    outputs = model.outputs[0].shape[-1]
    return class_names("imagenet", outputs) if outputs == 1000 else None


def made_flat(model: keras.Model, input_shape: Sequence[int] | None = None) -> tuple[keras.Model, tuple[str, ...]]:
    """Make one flat float32 graph from pixels to logits of a model.

    Args:
        model: functional or built Sequential.
        input_shape: (height, width, channels), for a model that leaves sizes open.

    Returns:
        (the model itself where nothing is to do, else a copy; what was done, in sentences).

    Raises:
        KzooError: it has no graph, or more than one input.
    """
    if not getattr(model, "inputs", None):
        raise KzooError(
            f"{model.name} has no graph (a subclass of keras.Model, or not built): only functional and Sequential "
            "models can be looked into."
        )
    if len(model.inputs) != 1:
        raise KzooError(f"{model.name} has {len(model.inputs)} inputs; a network to look into has one, a picture.")
    if len(model.inputs[0].shape) != 4:
        check_shape(tuple(model.inputs[0].shape[1:]))
    notes = []
    if nested := nested_models(model):
        notes.append(f"Nested models are flattened: {', '.join(nested)}.")
    if half := {layer.compute_dtype for layer in model.layers} & {"bfloat16", "float16"}:
        notes.append(f"It is looked into in float32, not in {half.pop()}.")
    if len(model.outputs) > 1:
        notes.append(f"Of its {len(model.outputs)} outputs the first one is looked at.")
    change, last, ending = to_logits(model)
    if ending:
        notes.append(f"The {ending} at its end ({last}) is left out: what is shown belongs to logits.")

    wanted = None if input_shape is None else tuple(input_shape)
    other = wanted is not None and wanted != tuple(model.inputs[0].shape[1:])
    if not notes and not other and isinstance(model, keras.Model) and not isinstance(model, keras.Sequential):
        return model, ()
    return flat_copy(model, change, outputs=1, input_shape=wanted), tuple(notes)
