"""A network for inference: batch norm folded, dropout removed, weights constant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import layers

from kzoo.builder import computing_in
from kzoo.errors import KzooError, unknown
from kzoo.hardware import POLICIES, auto_precision
from kzoo.layers import GroupedConv2D, Preprocess
from kzoo.walk import calls

# Layers that a scale and an offset can be folded into: the variable to scale, and its axes of output channels.
KERNELS = {
    layers.Conv2D: ("kernel", (3,)),
    layers.Conv3D: ("kernel", (4,)),
    GroupedConv2D: ("kernel", (3,)),
    layers.Dense: ("kernel", (1,)),
    layers.SeparableConv2D: ("pointwise_kernel", (3,)),
    layers.DepthwiseConv2D: ("kernel", (2, 3)),
}
# Layers that return their input at inference.
IDENTITIES = (
    layers.Identity,
    layers.Dropout,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.GaussianDropout,
    layers.GaussianNoise,
)

MAX_CONSTANT = 12 << 20  # bytes of an array that becomes a constant of the graph: kernels of ResNets have 9 MiB at most
LARGE = 100_000_000  # parameters of a network in which less becomes one: the VGGs, DeepFace
MAX_CONSTANT_OF_LARGE = 4 << 20
DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "uint8": 1}
MAX_FEATURE_MAP = 256 << 20  # bytes of the largest feature map of the images that go through the graph at once


def predictor(model: keras.Model, precision: str | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """Compile a network for inference, once for all batch sizes.

    On TensorFlow it is not compiled with XLA, whose convolutions on a CPU are several times slower than those of
    oneDNN, and which Keras' own predict() would choose.

    Args:
        model: A functional model. The function keeps the weights that the model has now.
        precision: "float32", "bfloat16", "float16", "auto" for what this machine is fast in, or None for what the model
            computes in.

    Returns:
        A function from images (B, H, W, C) to logits, a float32 array (B, classes), as at inference (without dropout).

    Raises:
        KzooError: The model has no graph.
        UnknownName: Another precision.
    """
    model = inference_form(model, precision)
    if keras.backend.backend() == "tensorflow":
        return _frozen(model)
    if keras.backend.backend() == "jax":
        import jax

        trainable = [v.value for v in model.trainable_variables]
        fixed = [v.value for v in model.non_trainable_variables]
        step = jax.jit(lambda t, n, x: model.stateless_call(t, n, x, training=False)[0])
        return lambda x: np.asarray(step(trainable, fixed, np.asarray(x)), "float32")
    return lambda x: np.asarray(keras.ops.convert_to_numpy(model(x, training=False)), "float32")


def _frozen(model):
    """The network as one TensorFlow graph with the weights of `weights_in_graph`.

    A batch goes through it in equal parts whose largest feature map has MAX_FEATURE_MAP at most: VGG-16 has 12 MiB an
    image there, twice, and its convolutions are as fast for 16 images as for 32.
    """
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec(model.inputs[0].shape, "float32")], autograph=False)
    def graph(x):
        return model.stateless_call(*weights_in_graph(model), x, training=False)[0]

    step = graph.get_concrete_function()
    maps = [t for node in calls(model.inputs, model.outputs) for t in node.outputs]
    most = max(1, MAX_FEATURE_MAP // max(map(_bytes, maps), default=1))

    def predict(x):
        if not len(x):  # oneDNN's fused convolutions take no empty batch
            return predict(np.zeros((1, *np.shape(x)[1:]), "float32"))[:0]
        parts = np.array_split(x, -(-len(x) // most)) if len(x) > most else [x]
        outputs = [step(tf.cast(part, "float32")).numpy() for part in parts]
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)

    predict.model = model  # whose variables the graph reads: without a reference to them they are gone
    return predict


def weights_in_graph(model: keras.Model, *, constants_only: bool = False) -> tuple[list, list]:
    """The weights of an inference form as constants of the TensorFlow graph that is being made, except for the largest.

    oneDNN converts a constant kernel of a convolution to the layout that it prefers once, not at every call. Arrays
    above MAX_CONSTANT, which are those of dense layers, are read from the model's variables instead. For one, each of
    the optimiser's passes copies the graph with its constants: 500 MB became 8 GB. For another, oneDNN keeps the layout
    that suits the first batch size, and converts the whole array again at every call with another batch size that
    prefers another layout, on one thread: 0.1 to 0.2 s for VGG-16. Fifteen copies of VGG-16's 59 MB of convolutions are
    another 0.9 GB, so those of a LARGE network above MAX_CONSTANT_OF_LARGE are read from variables, too, which makes a
    call with one image 2 to 4 % slower.

    Args:
        model: The inference form. Whoever runs the graph keeps a reference to it.
        constants_only: Make constants of the largest, too.

    Returns:
        The values of its trainable and of its other variables, as `stateless_call` takes them.
    """
    import tensorflow as tf

    most = MAX_CONSTANT if model.count_params() < LARGE else MAX_CONSTANT_OF_LARGE

    def value(v):
        if _bytes(v) > most and not constants_only:
            return v.value.read_value()
        with tf.init_scope():  # outside of the graph
            array = v.value.numpy()
        return tf.constant(array)

    return [value(v) for v in model.trainable_variables], [value(v) for v in model.non_trainable_variables]


def _bytes(tensor):
    """The size of a variable, or of a tensor for one image."""
    return int(np.prod([n for n in tensor.shape if n])) * DTYPE_BYTES.get(
        keras.backend.standardize_dtype(tensor.dtype), 4
    )


@computing_in()
def inference_form(model: keras.Model, precision: str | None = None) -> keras.Model:
    """Copy a functional model for inference: the same input and main output, with fewer layers.

    Batch norm and a constant factor (Rescaling) are folded into the convolution or dense layer in front of them, if
    nothing else uses its output: s * (W x + b) + t = (s * W) x + (s * b + t) with s = gamma / sqrt(variance + epsilon)
    and t = beta - s * mean, computed in float64. Behind anything else (a sum, as in pre-activation networks, or a
    concatenation) they stay. The scale and the channel order of the preprocessing go into the first convolution, if
    only padding stands between: x + offset / scale is left. Dropout and auxiliary classifiers are removed. The
    remaining layers keep their names.

    Args:
        model: A functional or built Sequential model.
        precision: As in `predictor`. In 16 bits the weights are stored in them, too, so that no cast stands between
            two convolutions. The preprocessing, the statistics of a batch norm that stays, the classifier
            ("predictions") and the layer that gives the output are float32.

    Returns:
        The copy.

    Raises:
        KzooError: The model has no graph (a subclass of keras.Model with a call of its own).
        UnknownName: Another precision.

    Example:
        >>> import kzoo
        >>> model = kzoo.build("resnet20", depth=8)
        >>> [sum("bn" in layer.name for layer in m.layers) for m in (model, inference_form(model))]
        [7, 0]
    """
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise KzooError(f"The inference form needs a keras.Model with a graph; {type(model).__name__} has none.")
    if precision is None:
        computes = {layer.compute_dtype for layer in model.layers}
        precision = next((p for p in ("bfloat16", "float16") if p in computes), "float32")
    elif precision == "auto":
        precision = auto_precision(model)[0]
    if precision not in POLICIES:
        raise unknown("precision", precision, POLICIES, f"It is auto or one of {', '.join(POLICIES)}.")

    output = model.outputs[0]
    nodes = calls(model.inputs, [output])
    gone, folded = _foldable(nodes, output)
    entrance, first_conv = _entrance(nodes)
    exact = {id(output)}  # the output, and what becomes the output when the layers behind it are gone
    for node in reversed(nodes):
        if id(node) in gone and id(node.outputs[0]) in exact:
            exact.add(id(node.input_tensors[0]))

    renewed = {}  # id of a layer -> its copy
    inputs = [keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name) for t in model.inputs]
    tensors = {id(t): new for t, new in zip(model.inputs, inputs, strict=True)}
    for node in nodes:
        layer = node.operation
        if id(node) in gone:
            tensors[id(node.outputs[0])] = tensors[id(node.input_tensors[0])]
            continue
        first = id(layer) not in renewed
        if first:
            in_float32 = precision == "float32" or any(id(t) in exact for t in node.outputs)
            renewed[id(layer)] = _renew(layer, "float32" if in_float32 else precision)
            if layer is entrance:
                renewed[id(layer)] = _without_scale(layer)
            elif id(layer) in folded or layer is first_conv:
                renewed[id(layer)].use_bias = True
        args, kwargs = node.arguments.fill_in(tensors)
        results = renewed[id(layer)](*args, **kwargs)
        tensors.update((id(t), new) for t, new in zip(node.outputs, keras.tree.flatten(results), strict=True))
        if first and renewed[id(layer)] is not layer:
            if id(layer) in folded or layer is first_conv:
                in_front = entrance if layer is first_conv else None
                renewed[id(layer)].set_weights(fold(layer, folded.get(id(layer), ()), in_front))
            else:
                # In the same precision TensorFlow's variables share one array until either is assigned to. JAX's
                # may not: training gives its arrays away.
                shared = keras.backend.backend() == "tensorflow"
                for new, old in zip(renewed[id(layer)].weights, layer.weights, strict=True):
                    new.assign(old if shared else keras.ops.convert_to_numpy(old))
    return keras.Model(inputs[0] if len(inputs) == 1 else inputs, tensors[id(output)], name=model.name)


def _foldable(nodes, output):
    """(ids of the calls that go, id of a convolution -> the layers to fold into it, in order)."""
    seen_by = Counter(id(t) for node in nodes for t in node.input_tensors) + Counter([id(output)])
    times = Counter(id(node.operation) for node in nodes)
    gone, folded = set(), {}
    ends = {}  # id of a tensor that a convolution, with all that is folded into it, gives -> that convolution
    for node in nodes:
        layer, out = node.operation, node.outputs[0]
        if node.arguments.kwargs.get("training"):  # called as in training
            continue
        if isinstance(layer, IDENTITIES):
            gone.add(id(node))
        elif type(layer) in KERNELS:
            channels_last = getattr(layer, "data_format", "channels_last") == "channels_last"
            # A layer that is called twice has one kernel for both; an activation stands between it and what follows.
            if times[id(layer)] == 1 and layer.activation is keras.activations.linear and channels_last:
                ends[id(out)] = layer
        elif len(node.input_tensors) == 1 and id(node.input_tensors[0]) in ends and _is_affine(layer, len(out.shape)):
            x = node.input_tensors[0]
            if seen_by[id(x)] == 1:
                gone.add(id(node))
                folded.setdefault(id(ends[id(x)]), []).append(layer)
                ends[id(out)] = ends[id(x)]
    return gone, folded


def _entrance(nodes):
    """(the preprocessing, the convolution that is all that sees it, through padding if need be), or (None, None)."""
    node = next((n for n in nodes if isinstance(n.operation, Preprocess)), None)
    entrance = node and node.operation
    while node and np.all(entrance.scale):
        behind = [n for n in nodes if any(t is node.outputs[0] for t in n.input_tensors)]
        node = behind[0] if len(behind) == 1 else None
        if node and type(node.operation) in (layers.Conv2D, layers.Conv3D):
            layer = node.operation
            once = sum(n.operation is layer for n in nodes) == 1
            plain = once and layer.groups == 1 and layer.data_format == "channels_last"
            return (entrance, layer) if plain else (None, None)
        if node and not isinstance(node.operation, (layers.ZeroPadding2D, layers.ZeroPadding3D)):  # zeros stay zeros
            node = None
    return None, None


def _without_scale(layer):
    """The preprocessing x + offset / scale in RGB; `fold` puts the rest into the convolution behind it."""
    offset = np.atleast_1d(np.float64(layer.offset) / np.float64(layer.scale))
    offset = offset[::-1] if layer.channel_order == "bgr" else offset
    return Preprocess(offset=tuple(offset.tolist()) if len(offset) > 1 else float(offset[0]), name=layer.name)


def _is_affine(layer, rank):
    """Whether a layer is a scale and an offset for each of the last axis' channels."""
    if isinstance(layer, layers.BatchNormalization):
        return layer.axis in (-1, rank - 1) and not getattr(layer, "renorm", False)
    return type(layer) is layers.Rescaling and np.ndim(layer.scale) <= 1 and np.ndim(layer.offset) <= 1


def affine(layer: layers.Layer) -> tuple[np.ndarray, np.ndarray]:
    """The (scale, offset), in float64, that a batch norm at inference or a Rescaling applies to the last axis."""

    def number(v):
        return np.asarray(keras.ops.convert_to_numpy(v), "float64")

    if isinstance(layer, layers.Rescaling):
        return number(layer.scale), number(layer.offset)
    scale = 1 / np.sqrt(number(layer.moving_variance) + layer.epsilon)
    if layer.gamma is not None:
        scale = scale * number(layer.gamma)
    offset = -scale * number(layer.moving_mean)
    return scale, offset if layer.beta is None else offset + number(layer.beta)


def fold(
    layer: layers.Layer, behind: Sequence[layers.Layer], preprocessing: Preprocess | None = None
) -> list[np.ndarray]:
    """Compute the variables of a layer with others folded into it.

    Args:
        layer: One of KERNELS.
        behind: The batch norms and constant factors that follow it, in order.
        preprocessing: The preprocessing in front of it, whose scale and channel order are folded in.

    Returns:
        The values, in the order of a copy of `layer` with a bias.
    """
    values = {v.name: keras.ops.convert_to_numpy(v) for v in layer.weights}
    name, axes = KERNELS[type(layer)]
    shape = [n if axis in axes else 1 for axis, n in enumerate(values[name].shape)]
    channels = int(np.prod(shape))
    kernel = values[name].astype("float64")
    bias = values.pop("bias", np.zeros(channels)).astype("float64")
    if preprocessing:
        kernel = kernel * np.reshape(preprocessing.scale, (-1, 1))
        if preprocessing.channel_order == "bgr":
            kernel = kernel[..., ::-1, :]
    for other in behind:
        scale, offset = (np.broadcast_to(v, channels) for v in affine(other))
        kernel, bias = kernel * scale.reshape(shape), bias * scale + offset
    return list({**values, name: kernel, "bias": bias}.values())


def _renew(layer, precision):
    """A layer like `layer` that computes and stores in `precision`, its variables zero."""
    if not isinstance(layer, layers.Layer) or isinstance(
        layer, keras.Model
    ):  # operations; nested models stay as they are
        return layer
    config = layer.get_config()
    # Random numbers for the 138 million weights of VGG-16 would take longer than anything else here.
    config.update((key, "zeros") for key in list(config) if key.endswith("_initializer"))
    if isinstance(layer, Preprocess) or layer.name.endswith("predictions"):
        precision = "float32"
    keeps = isinstance(layer, layers.BatchNormalization)  # its statistics stay in float32
    config["dtype"] = POLICIES[precision] if keeps else precision
    return type(layer).from_config(config)
