"""The network that looks at the pictures: any of the catalog, cut behind the deepest layer that is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from kzoo.builder import build
from kzoo.catalog import spec
from kzoo.catalog.pretrained import OFFLINE_STYLE
from kzoo.errors import KzooError, WeightsError, unknown
from kzoo.graph.ledger import ledger, without_values
from kzoo.weights import assign, fetch, read, resolve
from kzoo.weights.assign import best

# Gatys et al. 2016, section 3; behind the ReLU, which VGG with batch norm has as a layer of its own.
CONTENT, STYLE = ("block4_conv2",), tuple(f"block{i}_conv1" for i in range(1, 6))
POOLING, PADDING = ("average", "max"), ("replicate", "zeros")


def model_of(name, weights):
    """The model that weights are for: kzoo's own are not VGG-19's, the default's.

    >>> model_of("vgg19", "cifar10"), model_of("vgg19", "imagenet")
    ('vgg_cifar10', 'vgg19')
    """
    return OFFLINE_STYLE[0] if name == "vgg19" and weights == OFFLINE_STYLE[1] else name


@dataclass(frozen=True)
class Network:
    """What the objective needs to know about a network.

    model: pictures (1, H, W, 3) in 0..255 to one feature map for each name of `layers`. strides: of each layer, in
    pixels. halo: how many pixels beyond a tile its features see, a multiple of the largest stride; None if they see
    everything. values: how many numbers a forward pass computes for each pixel. notes: what a user should know.
    """

    model: keras.Model
    content: tuple[str, ...]
    style: tuple[str, ...]
    strides: dict
    halo: int | None
    values: float
    notes: tuple[str, ...] = ()

    @property
    def layers(self):
        return tuple(dict.fromkeys(self.content + self.style))

    @property
    def stride(self):
        return max(self.strides.values())

    def named_shapes(self, height, width):
        """{layer: (1, h, w, N)} for a picture."""
        shapes = self.model.compute_output_shape((1, height, width, 3))
        return dict(zip(self.layers, shapes if isinstance(shapes, list) else [shapes], strict=True))

    def named(self, outputs):
        return dict(zip(self.layers, keras.tree.flatten(outputs), strict=True))


def network(
    name="vgg19",
    weights="imagenet",
    *,
    content_layers=None,
    style_layers=None,
    pooling="average",
    padding="replicate",
    precision="float32",
    seed=0,
    picture=None,
):
    """A `Network` of the catalog's model `name`.

    weights: a tag ("imagenet"), a path, or "random". A file that holds only the first layers is enough: of the default
        layers those are used that it has, and a note says so.
    content_layers, style_layers: names; None: the paper's, for VGG.
    pooling: "average", as the paper's pictures were made with, or "max", as the network was trained with.
    padding: "replicate" repeats the border at convolutions, "zeros" darkens the features there, as in training.
    seed, picture: for random weights; each layer is scaled to a mean activation of 1 on `picture` (H, W, 3).
    """
    row = spec(name)
    for kind, value, known in (("pooling", pooling, POOLING), ("padding", padding, PADDING)):
        if value not in known:
            raise unknown(kind, value, known, f"It is one of {', '.join(known)}.")
    if row.input_shape[2] != 3:
        raise KzooError(f"{row.name} takes pictures with {row.input_shape[2]} channel(s); style transfer needs colour.")
    found, config, preprocessing, source = None, {}, None, None
    if weights != "random":
        source = resolve(row, weights)
        config, preprocessing = source.config, source.preprocessing
    full = without_values(lambda: build(row, precision=precision, preprocessing=preprocessing, **config))
    if source:
        found = arrays_for(full, source)
    content, style, notes = choose(full, found, content_layers, style_layers, str(weights))
    layers = tuple(dict.fromkeys(content + style))
    part = keras.Model(full.inputs[0], [full.get_layer(n).output for n in layers], name=row.name)
    model = cut(part, pooling, padding, seed)
    if found is not None:
        paths = {v.path for v in model.weights}
        assign(model, {k: v for k, v in found.items() if k in paths}, source=str(weights))
    else:
        scale_to_one(model, picture)
    model.trainable = False
    return Network(model, content, style, *geometry(part, layers), notes)


def arrays_for(full, source):
    """The file's arrays under the network's names; WeightsError for any that the network does not have."""
    variables = {v.path: v for v in full.weights}
    layers = {layer.name: [v.path for v in layer.weights] for layer in full.layers if layer.weights}
    path = fetch(source)
    _, (found, _, problems) = best(read(path), source.names, variables, layers)
    problems += [f"unexpected: {p}, shape {a.shape}" for p, a in found.items() if p not in variables]
    if problems:
        raise WeightsError("\n  ".join([f"{path} does not fit {full.name}; nothing was loaded.", *problems]))
    return found


def choose(full, found, content, style, weights):
    """(content layers, style layers, notes): those asked for, or of the paper's those that the weights reach."""
    names = [layer.name for layer in full.layers]

    def reached(name):
        needed = keras.Model(full.inputs[0], full.get_layer(name).output).layers
        return found is None or all(v.path in found for layer in needed for v in layer.weights)

    if found is not None and not found:
        raise WeightsError(f"{weights} holds no layer of {full.name}.")
    for name in [*(content or ()), *(style or ())]:
        if name not in names:
            raise unknown(f"layer of {full.name}", name, names, f"kzoo info {full.name} shows all.")
        if not reached(name):
            raise WeightsError(f"{weights} does not hold all layers up to {name}: choose an earlier one.")
        if len(full.get_layer(name).output.shape) != 4:
            raise KzooError(f"{name} of {full.name} is no feature map: choose an earlier layer.")

    def relu(n):
        return n.replace("conv", "relu") if "block1_relu1" in names else n

    usual_content, usual_style = tuple(map(relu, CONTENT)), tuple(map(relu, STYLE))
    notes = []
    if style is None:
        if not set(usual_style) <= set(names):
            raise KzooError(
                f"The paper's layers are VGG's: name {full.name}'s style layers. kzoo info {full.name} shows all."
            )
        style = tuple(n for n in usual_style if reached(n))
        if not style:
            raise WeightsError(f"{weights} holds none of the style layers {', '.join(usual_style)}.")
        if style != usual_style:
            notes.append(f"{weights} holds the first layers only. Style layers: {', '.join(style)}.")
    if content is None:
        content = usual_content
        if not set(content) <= set(names) or not all(map(reached, content)):
            content = (style[-1],)
            notes.append(f"Content layer: {content[0]}, in place of {usual_content[0]}.")
    return tuple(content), tuple(style), tuple(notes)


def cut(part, pooling, padding, seed):
    """A copy of a model for pictures of any size, with values, its pooling and padding replaced."""

    def copy(layer):
        if not isinstance(layer, keras.layers.Layer):
            return layer
        config = layer.get_config()
        if isinstance(layer, keras.layers.MaxPooling2D) and pooling == "average":
            return keras.layers.AveragePooling2D.from_config(config)
        if replicates(layer):
            config["padding"] = "valid"
        return type(layer).from_config(config)

    def replicates(layer):
        plain = isinstance(layer, keras.layers.Conv2D) and layer.padding == "same" and layer.dilation_rate == (1, 1)
        return padding == "replicate" and plain and layer.strides == (1, 1)

    originals = {layer.name: layer for layer in part.layers}

    def call(layer, *args, **kwargs):
        original = originals.get(layer.name)
        if original is not None and replicates(original):
            args = (replicate(args[0], *original.kernel_size), *args[1:])
        return layer(*args, **kwargs)

    keras.utils.set_random_seed(seed)
    try:
        picture = keras.Input((None, None, 3), dtype="float32", name="image")
        return keras.models.clone_model(part, input_tensors=picture, clone_function=copy, call_function=call)
    except ValueError as e:
        raise KzooError(f"{part.name} can't take pictures of any size: {str(e).splitlines()[0]}") from e


def replicate(x, height, width):
    """Pad (B, H, W, C) with its own border, as convolution with a kernel of (height, width) at "same" needs."""
    for axis, size in ((1, height), (2, width)):
        first, last = [slice(None)] * 4, [slice(None)] * 4
        first[axis], last[axis] = slice(0, 1), slice(-1, None)
        before, after = (size - 1) // 2, size // 2
        x = ops.concatenate([x[tuple(first)]] * before + [x] + [x[tuple(last)]] * after, axis=axis)
    return x


def scale_to_one(model, picture):
    """Scale each layer's kernel so that its mean activation on a picture is 1: random filters, of one loudness."""
    x = np.asarray(picture, "float32")[None]
    for layer in model.layers:
        if getattr(layer, "kernel", None) is None:
            continue
        y = keras.Model(model.inputs[0], layer.output)(x)
        mean = float(np.mean(np.abs(ops.convert_to_numpy(ops.cast(y, "float32")))))
        if mean > 0:
            layer.kernel.assign(layer.kernel / mean)


def geometry(part, layers):
    """(strides, halo, values for each pixel), from the ledger of a model at its published size."""
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
