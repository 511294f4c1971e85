"""What the units of a layer see of the picture, followed through a graph operation by operation.

Along one axis, unit i of a layer looks at the units a(i) to b(i) of the layer before: i * stride - padding and so on.
Chained, that gives the pixels that it sees. A `Sight` holds them for one axis, a `ReceptiveField` for all. The
functions below the two say for each kind of operation what a(i) and b(i) are; `HOW`, at the end, is their table.

What is cropped counts as seen where padding takes its place afterwards: only the picture's own border is a border.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from math import gcd, lcm

from keras import Layer, layers


@dataclass(frozen=True)
class Sight:
    """What the units along one axis of a layer see of the picture along that axis.

    Unit i = q * period + r sees the pixels first[r] + q * shift to last[r] + q * shift, both included; pixels below 0
    or from `pixels` on lie outside, in the padding. The period is 1 but behind upsampling, where several units share
    a pixel. dim is the tensor's dimension that the units lie along, None once they are taken together (Flatten).
    everything: each unit sees the whole picture by a way around (squeeze and excitation), beside first to last.
    """

    dim: int | None
    first: tuple[int, ...]
    last: tuple[int, ...]
    shift: int
    units: int
    pixels: int
    everything: bool = False

    def window(self, i):
        """First and last pixel that unit i sees, beyond the border too and not by a way around."""
        q, r = divmod(i, len(self.first))
        return self.first[r] + q * self.shift, self.last[r] + q * self.shift

    def of(self, i):
        """First and last pixel that unit i sees."""
        first, last = self.window(i)
        return (min(first, 0), max(last, self.pixels - 1)) if self.everything else (first, last)

    def through(self, window, rate, *, units, dim):
        """The sight of a layer whose unit i looks at our units window(i) = (a, b), `rate` units further each time."""
        rate, period = Fraction(rate), len(self.first)
        period = period * rate.denominator // gcd(period, rate.numerator)  # the first i that moves by whole periods
        first = [self.window(window(i)[0])[0] for i in range(period + 1)]
        last = [self.window(window(i)[1])[1] for i in range(period)]
        shift = first.pop() - first[0]
        return replace(self, dim=dim, first=tuple(first), last=tuple(last), shift=shift, units=units)

    def together(self, dim=None, units=1):
        """The sight of units that each look at all of ours."""
        if units > 1 and self.window(0)[0] <= 0 and self.window(self.units - 1)[1] >= self.pixels - 1:
            # All of the picture, from every unit. This keeps the stride, which still says where a unit lies.
            return replace(self, dim=dim, units=units, everything=True)
        return self.through(lambda i: (0, self.units - 1), 0, units=units, dim=dim)

    @property
    def size(self):
        return max(b - a for a, b in map(self.of, range(self.units))) + 1

    @property
    def rate(self):
        """Pixels from unit to unit, a Fraction."""
        return Fraction(self.shift, len(self.first))

    @property
    def sees_everything(self):
        return all(a <= 0 and b >= self.pixels - 1 for a, b in map(self.of, range(self.units)))

    @property
    def sees_past_border(self):
        return any(a < 0 or b >= self.pixels for a, b in map(self.of, range(self.units)))


@dataclass(frozen=True)
class ReceptiveField:
    """What a layer's units see of the picture. axes: one Sight for each spatial axis of the input (height, width)."""

    axes: tuple[Sight, ...]

    @property
    def size(self):
        """Pixels of the largest: (3, 3) for a 3x3 convolution on the picture."""
        return tuple(s.size for s in self.axes)

    @property
    def stride(self):
        """Pixels from one unit to the next; 0 where they are taken together, a fraction behind upsampling."""
        return tuple(int(s.rate) if s.rate.denominator == 1 else float(s.rate) for s in self.axes)

    @property
    def sees_past_border(self):
        return any(s.sees_past_border for s in self.axes)

    @property
    def sees_everything(self):
        return bool(self.axes) and all(s.sees_everything for s in self.axes)

    def of(self, *unit):
        """First and last pixel, for each axis, that a unit sees: of(0, 0) == ((-1, 1), (-1, 1)) for a 3x3 at "same"."""
        return tuple(s.of(0 if s.dim is None else i) for s, i in zip(self.axes, unit, strict=True))

    def to_dict(self):
        keys = ("size", "stride", "sees_past_border", "sees_everything")
        return {**{k: getattr(self, k) for k in keys}, "first_unit": self.of(*[0] * len(self.axes))}

    def __str__(self):
        def short(numbers):
            return "x".join(f"{n:g}" for n in (numbers[:1] if len(set(numbers)) == 1 else numbers))

        if not self.axes:  # the input is a vector
            return ""
        size = "all" if any(s.everything for s in self.axes) else short(self.size)
        stride = f"/{short(self.stride)}" if any(self.stride) else ""
        return f"{size}{stride}{'+' if self.sees_past_border else ' '}"


class Unknown(Exception):
    """Why the receptive field behind an operation can't be told."""


def picture(shape, dims):
    """The sights of an input: each unit of the axes `dims` sees its own pixel."""
    return tuple(Sight(d, (0,), (0,), 1, units=shape[d], pixels=shape[d]) for d in dims)


def look(op, node, befores):
    """The sights behind a call of an operation (a Keras Node), from those of its inputs; raises Unknown."""
    ins, out = [tuple(t.shape) for t in node.input_tensors], tuple(node.output_tensors[0].shape)
    if all(s.dim is None for sights in befores for s in sights):
        return merge(op, node, befores, ins, out)  # a vector's units are taken together, whatever the layer does
    how = rule(op)
    if how is None:
        raise Unknown("a layer can declare it by kernel_size")
    if how in (merge, concatenate):
        return how(op, node, befores, ins, out)
    if len(befores) > 1:
        raise Unknown("how it joins its inputs is not known")
    return how(op, node, befores[0], ins[0], out)


def rule(op):
    """The function below that says what an operation looks at; None for one that is not known."""
    name = "" if isinstance(op, Layer) else type(op).__name__  # keras.ops become operations that are no layers
    for types, names, how in HOW:
        if isinstance(op, types) or name in names:
            return how
    return window if hasattr(op, "kernel_size") or hasattr(op, "pool_size") else None


def spatial(op, rank):
    """The dimensions of a tensor that are neither batch nor channels."""
    return range(2, rank) if getattr(op, "data_format", None) == "channels_first" else range(1, rank - 1)


# --- Position by position --------------------------------------------------------------------------------


def merge(op, node, befores, ins, out):
    """Each unit looks at its own position; of several inputs, broadcast, it sees what any of them sees."""
    merged = []
    for sights in zip(*befores, strict=True):
        dims = {s.dim for s in sights} - {None}
        if len(dims) > 1:
            raise Unknown("it joins axes that run differently")
        dim = dims.pop() if dims else None
        units = out[dim] if dim else 1
        sights = [s if s.units == units else s.together(dim, units) for s in sights]  # a size of 1 serves all units
        everything = any(s.everything for s in sights)
        if units > 1 and len({s.rate for s in sights}) > 1:
            everything = everything or any(not s.shift and s.sees_everything for s in sights)
            sights = [s for s in sights if s.shift or not s.sees_everything]
            if len({s.rate for s in sights}) > 1:
                raise Unknown("branches of different strides meet here")
        period = lcm(*(len(s.first) for s in sights)) if units > 1 else 1
        ends = [[s.window(i) for s in sights] for i in range(period)]
        merged.append(
            replace(
                sights[0],
                dim=dim,
                units=units,
                everything=everything,
                first=tuple(min(a for a, _ in e) for e in ends),
                last=tuple(max(b for _, b in e) for e in ends),
                shift=sights[0].window(period)[0] - sights[0].window(0)[0],
            )
        )
    return tuple(merged)


def concatenate(op, node, befores, ins, out):
    if any(s.dim == op.axis % len(out) for sights in befores for s in sights):
        raise Unknown("it joins or splits pictures side by side")
    return merge(op, node, befores, ins, out)


def matmul(op, node, before, shape, out):
    if len(shape) != len(out) or any(s.dim == len(shape) - 1 for s in before):
        raise Unknown("what it looks at is not known")
    return before


# --- All positions ---------------------------------------------------------------------------------------


def normalise(op, node, before, shape, out):
    """Softmax, layer and group normalisation: each unit looks at all along the axes that are normalised."""
    rank = len(shape)
    axes = spatial(op, rank) if isinstance(op, layers.GroupNormalization) else _axes(op.axis, rank)
    return tuple(s.together(s.dim, s.units) if s.dim in axes else s for s in before)


def reduce(op, node, before, shape, out):
    """Global pooling, ops.mean and its kind."""
    rank = len(shape)
    axes = spatial(op, rank) if isinstance(op, Layer) else _axes(op.axis, rank)

    def moved(d):
        return d if op.keepdims or d is None else d - sum(a < d for a in axes)

    return tuple(
        s.together(s.dim if op.keepdims else None) if s.dim in axes else replace(s, dim=moved(s.dim)) for s in before
    )


def reshape(op, node, before, shape, out):
    """The axes stay if only what is behind them changes (a channel shuffle); a vector's units are taken together."""
    if len(out) == 2:
        return tuple(s if s.dim is None else s.together() for s in before)
    to = max(s.dim for s in before if s.dim is not None) + 1
    if shape[:to] != out[:to]:
        raise Unknown("it arranges positions anew")
    return before


# --- Some positions --------------------------------------------------------------------------------------


def window(op, node, before, shape, out):
    """Convolution and pooling: unit i looks at i * stride - padding and the kernel's extent from there."""

    def along(s, kernel, stride, dilation):
        extent = (kernel - 1) * dilation + 1
        start = _padding(op, extent, stride, shape[s.dim], out[s.dim])
        return s.through(
            lambda i: (i * stride - start, i * stride - start + extent - 1), stride, units=out[s.dim], dim=s.dim
        )

    return _slide(op, node, before, shape, along)


def transposed(op, node, before, shape, out):
    """Transposed convolution: the convolution `window` from out to in, read backwards."""

    def along(s, kernel, stride, dilation):
        extent = (kernel - 1) * dilation + 1
        if kernel < stride or dilation > 1:
            raise Unknown("a transposed convolution that leaves units without input is not followed")
        start = _padding(op, extent, stride, out[s.dim], shape[s.dim])
        return s.through(
            lambda i: (-((extent - 1 - start - i) // stride), (i + start) // stride),
            Fraction(1, stride),
            units=out[s.dim],
            dim=s.dim,
        )

    return _slide(op, node, before, shape, along)


def _padding(op, extent, stride, units_in, units_out):
    """How many units of padding lie before the first, as Keras and TensorFlow place them."""
    padding = op.padding if hasattr(op, "padding") else "valid"
    if padding == "same":
        return max((units_out - 1) * stride + extent - units_in, 0) // 2
    if padding == "causal":
        return extent - 1
    if padding != "valid":
        raise Unknown(f"the padding {padding!r} is not known")
    return 0


def _slide(op, node, before, shape, along):
    """along(sight, kernel, stride, dilation) for each axis, with the numbers that the operation has for it."""
    dims = spatial(op, len(shape))
    if hasattr(op, "kernel_size"):
        kernel = op.kernel_size
    elif hasattr(op, "pool_size"):
        kernel = op.pool_size
    else:  # keras.ops.conv gets its kernel as an argument: sizes, channels, filters
        kernel = tuple(node.arguments.args[1].shape[:-2])
    strides = getattr(op, "strides", None) or (kernel if hasattr(op, "pool_size") else 1)
    dilation = getattr(op, "dilation_rate", None) or 1
    kernel, strides, dilation = (_each(v, len(dims)) for v in (kernel, strides, dilation))

    def one(s):
        if s.dim is None:
            return s
        if s.dim not in dims:
            raise Unknown("it slides along other axes than the picture's")
        i = dims.index(s.dim)
        return along(s, kernel[i], strides[i], dilation[i])

    return tuple(map(one, before))


def upsample(op, node, before, shape, out):
    dims = spatial(op, len(shape))
    factors = _each(op.size, len(dims))
    if getattr(op, "interpolation", "nearest") != "nearest":
        raise Unknown(f"{op.interpolation} upsampling is not followed")

    def along(s, f):
        return s.through(lambda i: (i // f, i // f), Fraction(1, f), units=out[s.dim], dim=s.dim)

    return tuple(s if s.dim is None else along(s, factors[dims.index(s.dim)]) for s in before)


def pad(op, node, before, shape, out):
    """Zero padding and cropping: unit i is the unit i - start of before."""
    if isinstance(op, Layer):
        amounts, sign = (op.padding, 1) if hasattr(op, "padding") else (op.cropping, -1)
        amounts = [amounts] if len(shape) == 3 else amounts
        starts = {d: sign * a for d, (a, _) in zip(spatial(op, len(shape)), amounts, strict=True)}
    else:
        starts = {d: a for d, (a, _) in enumerate(op.pad_width)}
    return tuple(s if s.dim is None else _shifted(s, -starts[s.dim], 1, out[s.dim], s.dim) for s in before)


def cut(op, node, before, shape, out):
    """x[...] with numbers, slices and an ellipsis."""
    key = node.arguments.args[1]
    key = key if isinstance(key, tuple) else (key,)
    if Ellipsis in key:
        at = key.index(Ellipsis)
        key = key[:at] + (slice(None),) * (len(shape) - len(key) + 1) + key[at + 1 :]
    key += (slice(None),) * (len(shape) - len(key))
    if not all(isinstance(k, (int, slice)) for k in key):
        raise Unknown("what this index picks is not followed")

    def one(s):
        if s.dim is None:
            return s
        if isinstance(key[s.dim], int):
            return _shifted(s, key[s.dim] % s.units, 0, 1, None)
        start, _, step = key[s.dim].indices(s.units)
        if step < 0:
            raise Unknown("a picture that is turned round is not followed")
        dim = sum(isinstance(k, slice) for k in key[: s.dim])
        return _shifted(s, start, step, out[dim], dim)

    return tuple(map(one, before))


def _shifted(s, start, step, units, dim):
    return s.through(lambda i: (start + i * step, start + i * step), step, units=units, dim=dim)


def permute(op, node, before, shape, out):
    order = [0, *op.dims] if isinstance(op, Layer) else list(op.axes or range(len(shape))[::-1])
    return tuple(s if s.dim is None else replace(s, dim=order.index(s.dim)) for s in before)


def _each(value, n):
    return (value,) * n if isinstance(value, int) else tuple(value)


def _axes(axis, rank):
    return [a % rank for a in (range(rank) if axis is None else (axis,) if isinstance(axis, int) else axis)]


# When nobody trains, the first few hand on what they get.
IDENTITIES = (
    layers.Identity,
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.AlphaDropout,
    layers.ActivityRegularization,
    layers.RandomFlip,
    layers.RandomRotation,
    layers.RandomTranslation,
    layers.RandomZoom,
    layers.RandomContrast,
    layers.RandomBrightness,
)
RESHAPES = (layers.Flatten, layers.Reshape)
RESHAPE_OPS = {"Reshape", "Squeeze", "ExpandDims", "Ravel"}
POINTWISE = (
    layers.Activation,
    layers.ReLU,
    layers.LeakyReLU,
    layers.PReLU,
    layers.ELU,
    layers.BatchNormalization,
    layers.Normalization,
    layers.Rescaling,
    layers.Masking,
    layers.Dense,
    layers.Add,
    layers.Subtract,
    layers.Multiply,
    layers.Average,
    layers.Maximum,
    layers.Minimum,
)
POINTWISE_OPS = {
    "Abs",
    "Absolute",
    "Add",
    "BatchNorm",
    "Cast",
    "Celu",
    "Clip",
    "ConvertToTensor",
    "Divide",
    "DivideNoNan",
    "Elu",
    "Exp",
    "Expm1",
    "Gelu",
    "Greater",
    "GreaterEqual",
    "HardSigmoid",
    "HardSilu",
    "HardTanh",
    "LeakyRelu",
    "Less",
    "LessEqual",
    "Log",
    "Log1p",
    "LogSigmoid",
    "Maximum",
    "Minimum",
    "Mod",
    "Multiply",
    "Negative",
    "OnesLike",
    "Power",
    "Reciprocal",
    "Relu",
    "Relu6",
    "Round",
    "Selu",
    "Sigmoid",
    "Sign",
    "Silu",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Square",
    "StopGradient",
    "Subtract",
    "Tanh",
    "TrueDivide",
    "Where",
    "ZerosLike",
}
REDUCTIONS = {"All", "Amax", "Amin", "Any", "Max", "Mean", "Min", "Prod", "Std", "Sum", "Var"}
NORMALISERS = (
    layers.Softmax,
    layers.LayerNormalization,
    layers.UnitNormalization,
    layers.RMSNormalization,
    layers.GroupNormalization,
)
POOL_ALL = (
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.GlobalMaxPooling3D,
)
HOW = (  # layers, names of the operations that keras.ops make of symbolic tensors, what they look at
    (POINTWISE + IDENTITIES, POINTWISE_OPS, merge),
    (layers.Concatenate, {"Concatenate", "Split"}, concatenate),
    ((), {"Matmul"}, matmul),
    (NORMALISERS, {"Softmax", "LogSoftmax", "LayerNorm", "RMSNorm", "Normalize"}, normalise),
    (POOL_ALL, REDUCTIONS, reduce),
    (RESHAPES, RESHAPE_OPS, reshape),
    ((layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose), {"ConvTranspose"}, transposed),
    ((), {"Conv", "DepthwiseConv", "MaxPool", "AveragePool"}, window),
    ((layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D), (), upsample),
    (
        (
            layers.ZeroPadding1D,
            layers.ZeroPadding2D,
            layers.ZeroPadding3D,
            layers.Cropping1D,
            layers.Cropping2D,
            layers.Cropping3D,
        ),
        {"Pad"},
        pad,
    ),
    ((), {"GetItem"}, cut),
    (layers.Permute, {"Transpose"}, permute),
    (layers.RNN, (), None),  # a ConvLSTM has a kernel_size, and sees all the times before
)
