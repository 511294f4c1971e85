"""The features of a picture: a network of the catalog, cut behind the deepest layer that is used."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from kzoo.builder import build, computing_in
from kzoo.catalog import Weights, image_spec
from kzoo.errors import KzooError, WeightsError, unknown
from kzoo.graph.ledger import ledger, without_values
from kzoo.weights import assign, fetch, read, resolve
from kzoo.weights.assign import best, is_extra

POOLING, PADDING = ("average", "max"), ("replicate", "zeros")
CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)


@dataclass(frozen=True)
class CatalogModel:
    """A whole model of the catalog without values, and the arrays that its weights have for it.

    Args:
        model: the network, for pictures of its published size.
        arrays: {path of a variable: array}; None for random weights.
        weights: the tag or path that was asked for, for messages.
    """

    model: keras.Model
    arrays: dict[str, np.ndarray] | None
    weights: str

    @property
    def layers(self) -> list[str]:
        """The names of all layers, in order."""
        return [layer.name for layer in self.model.layers]

    def reaches(self, name: str) -> bool:
        """Whether the weights have values for a layer and for all layers before it."""
        needed = keras.Model(self.model.inputs[0], self.model.get_layer(name).output).layers
        return self.arrays is None or all(v.path in self.arrays for layer in needed for v in layer.weights)

    def check_layers(self, names: Iterable[str]) -> None:
        """Refuse layers that can't be used.

        Raises:
            UnknownName: the model has no layer of that name.
            WeightsError: the weights do not reach it.
            KzooError: its output is not a feature map.
        """
        model = self.model
        for name in names:
            if name not in self.layers:
                raise unknown(f"layer of {model.name}", name, self.layers, f"kzoo info {model.name} shows all.")
            if not self.reaches(name):
                raise WeightsError(f"{self.weights} does not hold all layers up to {name}: choose an earlier one.")
            if len(model.get_layer(name).output.shape) != 4:
                raise KzooError(f"{name} of {model.name} is not a feature map: choose an earlier layer.")


@dataclass(frozen=True)
class FeatureNetwork:
    """A network that gives the feature maps of a picture, and what the objective needs to know about it.

    Args:
        model: pictures (1, H, W, C) in 0..255 to one feature map for each name in `layers`.
        content: the names of the content layers.
        style: the names of the style layers.
        strides: {layer: its stride in pixels}.
        halo: how many pixels beyond a tile its features depend on, a multiple of the largest stride; None: on all.
        values: how many numbers a forward pass computes for each pixel.
    """

    model: keras.Model
    content: tuple[str, ...]
    style: tuple[str, ...]
    strides: dict[str, int]
    halo: int | None
    values: float

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of content and style layers, each once."""
        return tuple(dict.fromkeys(self.content + self.style))

    @property
    def stride(self) -> int:
        """The largest stride, in pixels."""
        return max(self.strides.values())

    def named_shapes(self, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """{layer: (1, h, w, N)}, the shapes of the feature maps of a picture (height, width)."""
        try:
            shapes = self.model.compute_output_shape((1, height, width, self.model.inputs[0].shape[-1]))
        except ValueError as e:
            raise self.misfit(height, width) from e
        return dict(zip(self.layers, shapes if isinstance(shapes, list) else [shapes], strict=True))

    def misfit(self, height: int, width: int) -> KzooError:
        """The error for a picture of a size that the network can't take. It is returned, not raised."""
        return KzooError(
            f"{self.model.name} can't take pictures of {width}x{height} pixels up to {', '.join(self.layers)}, where "
            "branches of different sizes meet: choose earlier layers, or another size."
        )

    def named(self, outputs: Any) -> dict[str, Any]:
        """{layer: feature map} of the model's outputs."""
        return dict(zip(self.layers, keras.tree.flatten(outputs), strict=True))


def catalog_model(name: str, weights: str, *, precision: str = "float32") -> CatalogModel:
    """Read a model of the catalog and its weights, for `cut_network`.

    Args:
        name: of the catalog; it must take pictures of 3 channels.
        weights: a tag ("imagenet"), the path of a file, or "random". A file that has only the first layers is enough.
        precision: what the model computes in, "float32" or "bfloat16".

    Returns:
        A CatalogModel.

    Raises:
        UnknownName: there is no such model.
        KzooError: the model does not take colour pictures.
        WeightsError: the weights can't be had, or have arrays that the model does not.
    """
    row = image_spec(name)
    if row.input_shape[2] != 3:
        raise KzooError(f"{row.name} takes pictures with {row.input_shape[2]} channel(s); style transfer needs colour.")
    if weights == "random":
        return CatalogModel(without_values(lambda: build(row, precision=precision, preprocessing=None)), None, weights)
    source = resolve(row, weights)
    model = without_values(lambda: build(row, precision=precision, preprocessing=source.preprocessing, **source.config))
    return CatalogModel(model, arrays_for(model, source), str(weights))


def source_of(model: keras.Model) -> CatalogModel:
    """A model that is there, with its values, for `cut_network`. The model itself is not changed."""
    arrays = {v.path: ops.convert_to_numpy(v) for v in model.weights}
    return CatalogModel(model, arrays, model.name)


def at_own_size(model: keras.Model, layers: Sequence[str]) -> FeatureNetwork:
    """The feature network of a model that keeps its input size: its outputs may be vectors, and it has no tiles.

    Args:
        model: a functional model with an output for each of the layers; it is used as it is.
        layers: names for its outputs.
    """
    return FeatureNetwork(model, tuple(layers), (), dict.fromkeys(layers, 1), None, 0.0)


def arrays_for(model: keras.Model, source: Weights) -> dict[str, np.ndarray]:
    """Read the arrays of a weights file under the names of a model's variables.

    Args:
        model: the whole network; the file may have its first layers only.
        source: what `kzoo.weights.resolve` gave.

    Returns:
        {path of a variable: array}.

    Raises:
        WeightsError: the file has an array that the model does not have, or none that it has.
    """
    variables = {v.path: v for v in model.weights}
    layers = {layer.name: [v.path for v in layer.weights] for layer in model.layers if layer.weights}
    path = fetch(source)
    choice = best(read(path), source.names, variables, layers)
    found = choice.found
    for name in [n for n in found if n not in variables and is_extra(n, choice, layers)]:
        del found[name]
    problems = choice.problems + [f"unexpected: {p}, shape {a.shape}" for p, a in found.items() if p not in variables]
    if problems:
        raise WeightsError("\n  ".join([f"{path} does not fit {model.name}; nothing was loaded.", *problems]))
    if not found:
        raise WeightsError(f"{path} holds no layer of {model.name}.")
    return found


def cut_network(
    source: CatalogModel,
    *,
    content_layers: Sequence[str],
    style_layers: Sequence[str],
    pooling: str = "average",
    padding: str = "replicate",
    seed: int = 0,
    picture: np.ndarray | None = None,
) -> FeatureNetwork:
    """Cut a model of the catalog behind the deepest layer that is used, for pictures of any size.

    Args:
        source: what `catalog_model` read.
        content_layers: names of layers whose features are compared position by position.
        style_layers: names of layers whose Gram matrices are compared.
        pooling: "average" or "max", in place of the model's max pooling.
        padding: of convolutions: "replicate" repeats the border; "zeros", as in training, darkens the features there.
        seed: for random weights.
        picture: (H, W, 3) in 0..255, for random weights: each layer is scaled to a mean activation of 1 on it.

    Returns:
        A FeatureNetwork, not trainable.

    Raises:
        UnknownName: a layer, pooling or padding that does not exist.
        WeightsError: the weights do not reach a layer.
        KzooError: a layer that is not a feature map, or a model that can't take pictures of any size.
    """
    for kind, value, known in (("pooling", pooling, POOLING), ("padding", padding, PADDING)):
        if value not in known:
            raise unknown(kind, value, known, f"It is one of {', '.join(known)}.")
    source.check_layers([*content_layers, *style_layers])
    content, style, full = tuple(content_layers), tuple(style_layers), source.model
    layers = tuple(dict.fromkeys(content + style))
    part = keras.Model(full.inputs[0], [full.get_layer(n).output for n in layers], name=full.name)
    model = resizable(part, pooling, padding, seed)
    if source.arrays is not None:
        paths = {v.path for v in model.weights}
        assign(model, {k: v for k, v in source.arrays.items() if k in paths}, source=source.weights)
    else:
        scale_to_one(model, picture)
    model.trainable = False
    return FeatureNetwork(model, content, style, *geometry(part, layers))


@computing_in()
def resizable(part: keras.Model, pooling: str, padding: str, seed: int) -> keras.Model:
    """A copy of a model that takes pictures of any size, with values, its pooling and padding replaced."""

    def copy(layer):
        if not isinstance(layer, keras.layers.Layer):
            return layer
        config = layer.get_config()
        if isinstance(layer, keras.layers.MaxPooling2D) and pooling == "average":
            return keras.layers.AveragePooling2D.from_config(config)
        if padding == "replicate" and isinstance(layer, keras.layers.ZeroPadding2D):
            return ReplicatedBorder(layer.padding, name=layer.name, dtype=layer.dtype_policy)
        if replicates(layer):
            config["padding"] = "valid"
        return type(layer).from_config(config)

    def replicates(layer):
        return padding == "replicate" and isinstance(layer, CONVOLUTIONS) and layer.padding == "same"

    originals = {layer.name: layer for layer in part.layers}

    def call(layer, *args, **kwargs):
        original = originals.get(layer.name)
        if original is not None and replicates(original):
            reach = [1 + d * (k - 1) for k, d in zip(original.kernel_size, original.dilation_rate, strict=True)]
            border = ReplicatedBorder(
                [((n - 1) // 2, n // 2) for n in reach],
                original.strides,
                name=f"{layer.name}_border",
                dtype=original.dtype_policy,
            )
            args = (border(args[0]), *args[1:])
        return layer(*args, **kwargs)

    keras.utils.set_random_seed(seed)
    try:
        picture = keras.Input((None, None, part.inputs[0].shape[-1]), dtype="float32", name="image")
        return keras.models.clone_model(part, input_tensors=picture, clone_function=copy, call_function=call)
    except ValueError as e:
        raise KzooError(f"{part.name} can't take pictures of any size: {str(e).splitlines()[0]}") from e


class ReplicatedBorder(keras.layers.Layer):
    """Pads (B, H, W, C) with its own border, so that a flat picture stays flat, where a network pads with zeros.

    Args:
        sides: ((above, below), (left, right)), positions to add; with strides those that a convolution at "same" needs
            at most.
        strides: (vertical, horizontal) of that convolution: the fewer positions its last step lacks, the fewer are
            added. 1 adds all.
    """

    def __init__(self, sides: Sequence[Sequence[int]], strides: Sequence[int] = (1, 1), **options: Any) -> None:
        super().__init__(**options)
        self.sides, self.strides = tuple(map(tuple, sides)), tuple(strides)

    def missing(self, size: Any, axis: int) -> Any:
        """How many of the positions that are added at most an axis of a size lacks."""
        most, stride = sum(self.sides[axis]), self.strides[axis]
        total = most - (size - 1) % stride
        return (total + abs(total)) // 2  # max(total, 0), for a tensor as well

    def call(self, x):
        for axis, (before, after) in ((2, self.sides[1]), (1, self.sides[0])):  # rows last: they are copied faster
            size = ops.shape(x)[axis]
            x = replicated(x, axis, before, after)
            if self.strides[axis - 1] > 1:
                total, kept = self.missing(size, axis - 1), [slice(None)] * 4
                kept[axis] = slice(before - total // 2, before - total // 2 + size + total)
                x = x[tuple(kept)]
        return x

    def compute_output_shape(self, input_shape):
        grown = [None if n is None else n + self.missing(n, i) for i, n in enumerate(input_shape[1:3])]
        return (input_shape[0], *grown, input_shape[3])


def replicated(x: Any, axis: int, before: int, after: int) -> Any:
    """x with its first position repeated `before` times and its last `after` times, along an axis.

    Its gradient is written out: that of a concatenation of slices adds up three arrays of the size of x.
    """

    def part(x, first, last):
        return x[(slice(None),) * axis + (slice(first, last),)]

    @ops.custom_gradient
    def grown(x):
        size = ops.shape(x)[axis]
        several = 1 - 1 // size  # 0 where one position is the first and the last

        def gradient(*args, upstream=None):
            g = args[0] if upstream is None else upstream
            end = several * (before + size - 1)
            first, last = (ops.sum(s, axis, keepdims=True) for s in (part(g, 0, before + 1), part(g, end, None)))
            return ops.concatenate([part(first, 0, several), part(g, before + 1, end), last], axis)

        return ops.concatenate([part(x, 0, 1)] * before + [x] + [part(x, -1, None)] * after, axis), gradient

    return grown(x) if before or after else x


def scale_to_one(model: keras.Model, picture: np.ndarray) -> None:
    """Scale the kernel of each layer in turn so that its mean absolute activation on a picture is 1.

    Args:
        model: with random weights; its kernels are changed in place.
        picture: (H, W, 3) in 0..255.
    """
    x = np.asarray(picture, "float32")[None]
    for layer in model.layers:
        if getattr(layer, "kernel", None) is None:
            continue
        y = keras.Model(model.inputs[0], layer.output)(x)
        mean = float(np.mean(np.abs(ops.convert_to_numpy(ops.cast(y, "float32")))))
        if mean > 0:
            layer.kernel.assign(layer.kernel / mean)


def geometry(part: keras.Model, layers: Sequence[str]) -> tuple[dict[str, int], int | None, float]:
    """The geometry of feature maps, from the ledger of a model at its published size.

    Args:
        part: a model for pictures of a fixed size.
        layers: names of its layers.

    Returns:
        (strides, halo, values), as in `FeatureNetwork`.
    """
    table = ledger(part)
    rows = {row.name: row for row in table.rows}
    height, width = part.inputs[0].shape[1:3]
    values = sum(row.values for row in table.rows) / (height * width)
    strides, halo, exact = {}, 0, True
    for name in layers:
        field = rows[name].receptive_field
        if field is None or any(s.everything or s.dim is None or len(s.first) > 1 for s in field.axes):
            exact = False
            strides[name] = 1
            continue
        strides[name] = max(s.shift for s in field.axes)
        halo = max(halo, *(max(-s.first[0], s.last[0] - s.shift + 1) for s in field.axes))
    # At "same" with a stride the padding depends on whether the size is even, so a tile's grid may be shifted.
    shifted = any(getattr(l, "padding", "") == "same" and max(_strides(l)) > 1 for l in part.layers)
    step = max(strides.values())
    return strides, None if shifted or not exact else math.ceil(halo / step) * step, values


def _strides(layer):
    strides = getattr(layer, "strides", 1)
    return strides if isinstance(strides, (tuple, list)) else (strides,)
