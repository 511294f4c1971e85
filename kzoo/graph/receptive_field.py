"""Receptive fields: which pixels the units of a layer depend on, followed through a graph operation by operation.

Along one axis, unit i of a layer depends on the units a(i) to b(i) of the layer before: i * stride - padding and so on.
Chained, that gives the pixels. An `AxisField` holds them for one axis, a `ReceptiveField` for all. The functions below
the two classes say for each kind of operation what a(i) and b(i) are; `HANDLERS`, at the end, is their table.

What is cropped still counts as seen where padding takes its place afterwards: only the picture's own border is a
border.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import gcd, lcm
from typing import TYPE_CHECKING, Any

from keras import Layer, layers

if TYPE_CHECKING:
    import keras
    from keras.src.ops.node import Node


@dataclass(frozen=True)
class AxisField:
    """The receptive fields of the units along one axis of a layer, on the same axis of the picture.

    Unit i = q * period + r sees the pixels first[r] + q * shift to last[r] + q * shift, both included. Pixels below 0
    or from `pixels` on lie outside, in the padding. The period, `len(first)`, is 1 except behind upsampling, where
    several units share a pixel.

    Attributes:
        dim: The dimension of the tensor along which the units lie, None once they are merged to one (Flatten).
        first: First pixel of each unit of a period.
        last: Last pixel of each unit of a period.
        shift: Pixels from period to period.
        units: How many units.
        pixels: How many pixels.
        everything: Each unit also sees the whole picture by another path (squeeze and excitation), besides first to
            last.
    """

    dim: int | None
    first: tuple[int, ...]
    last: tuple[int, ...]
    shift: int
    units: int
    pixels: int
    everything: bool = False

    def window(self, i: int) -> tuple[int, int]:
        """Return the first and last pixel that unit i sees, beyond the border too, without another path."""
        q, r = divmod(i, len(self.first))
        return self.first[r] + q * self.shift, self.last[r] + q * self.shift

    def of(self, i: int) -> tuple[int, int]:
        """Return the first and last pixel that unit i sees."""
        first, last = self.window(i)
        return (min(first, 0), max(last, self.pixels - 1)) if self.everything else (first, last)

    def through(
        self, window: Callable[[int], tuple[int, int]], rate: int | Fraction, *, units: int, dim: int | None
    ) -> AxisField:
        """Return the field of a layer on top of this one.

        Args:
            window: Gives (a, b), the first and last of our units that its unit i depends on.
            rate: By how many of our units the window moves from unit to unit.
            units: How many units it has.
            dim: The dimension along which they lie.
        """
        rate, period = Fraction(rate), len(self.first)
        period = period * rate.denominator // gcd(period, rate.numerator)  # the first i that moves by whole periods
        first = [self.window(window(i)[0])[0] for i in range(period + 1)]
        last = [self.window(window(i)[1])[1] for i in range(period)]
        shift = first.pop() - first[0]
        return replace(self, dim=dim, first=tuple(first), last=tuple(last), shift=shift, units=units)

    def merged_to(self, dim: int | None = None, units: int = 1) -> AxisField:
        """Return the field of units that each depend on all of ours.

        Args:
            dim: The dimension along which they lie.
            units: How many they are.
        """
        if units > 1 and self.window(0)[0] <= 0 and self.window(self.units - 1)[1] >= self.pixels - 1:
            # All of the picture, from every unit. This keeps the stride, which still says where a unit lies.
            return replace(self, dim=dim, units=units, everything=True)
        return self.through(lambda i: (0, self.units - 1), 0, units=units, dim=dim)

    @property
    def size(self) -> int:
        """Pixels that the unit with the largest field sees."""
        return max(b - a for a, b in map(self.of, range(self.units))) + 1

    @property
    def rate(self) -> Fraction:
        """Pixels from unit to unit."""
        return Fraction(self.shift, len(self.first))

    @property
    def sees_everything(self) -> bool:
        """Whether every unit sees every pixel."""
        return all(a <= 0 and b >= self.pixels - 1 for a, b in map(self.of, range(self.units)))

    @property
    def sees_past_border(self) -> bool:
        """Whether the field of any unit reaches outside the picture."""
        return any(a < 0 or b >= self.pixels for a, b in map(self.of, range(self.units)))


@dataclass(frozen=True)
class ReceptiveField:
    """What a layer's units see of the picture.

    Attributes:
        axes: An AxisField for each spatial axis of the input (height, width).
    """

    axes: tuple[AxisField, ...]

    @property
    def size(self) -> tuple[int, ...]:
        """Pixels of the largest, for each axis: (3, 3) for a 3x3 convolution on the picture."""
        return tuple(s.size for s in self.axes)

    @property
    def stride(self) -> tuple[int | float, ...]:
        """Pixels from one unit to the next, for each axis: 0 for a single unit, a fraction behind upsampling."""
        return tuple(int(s.rate) if s.rate.denominator == 1 else float(s.rate) for s in self.axes)

    @property
    def sees_past_border(self) -> bool:
        """Whether the field of any unit reaches outside the picture."""
        return any(s.sees_past_border for s in self.axes)

    @property
    def sees_everything(self) -> bool:
        """Whether every unit sees every pixel."""
        return bool(self.axes) and all(s.sees_everything for s in self.axes)

    def of(self, *unit: int) -> tuple[tuple[int, int], ...]:
        """Return the first and last pixel that a unit sees, for each axis.

        Args:
            *unit: Its position on each axis; of(0, 0) == ((-1, 1), (-1, 1)) for a 3x3 convolution with "same" padding.
        """
        return tuple(s.of(0 if s.dim is None else i) for s, i in zip(self.axes, unit, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
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


Fields = tuple[AxisField, ...]  # one for each spatial axis of the picture


class Unknown(Exception):
    """The receptive field behind an operation can't be computed; the message says why."""


def picture(shape: Sequence[int], dims: Iterable[int]) -> Fields:
    """Return the fields of an input: each unit of the axes `dims` sees its own pixel.

    Args:
        shape: Of the tensor.
        dims: Its spatial dimensions.
    """
    return tuple(AxisField(d, (0,), (0,), 1, units=shape[d], pixels=shape[d]) for d in dims)


def fields_after(op: keras.Operation, node: Node, befores: Sequence[Fields]) -> Fields:
    """Return the fields behind a call of an operation.

    Args:
        op: The layer or other operation.
        node: Its call.
        befores: The fields of each of its inputs.

    Raises:
        Unknown: They can't be computed.
    """
    ins, out = [tuple(t.shape) for t in node.input_tensors], tuple(node.output_tensors[0].shape)
    if all(s.dim is None for fields in befores for s in fields):
        return merge(op, node, befores, ins, out)  # a vector's units are merged already, whatever the layer does
    handler = handler_of(op)
    if handler is None:
        raise Unknown("a layer can declare it by kernel_size")
    if handler in (merge, concatenate):
        return handler(op, node, befores, ins, out)
    if len(befores) > 1:
        raise Unknown("how it joins its inputs is not known")
    return handler(op, node, befores[0], ins[0], out)


def handler_of(op: keras.Operation) -> Callable[..., Fields] | None:
    """Return the function of this module that computes an operation's fields; None if it is not known."""
    name = "" if isinstance(op, Layer) else type(op).__name__  # keras.ops become operations that are no layers
    for types, names, handler in HANDLERS:
        if isinstance(op, types) or name in names:
            return handler
    return window if hasattr(op, "kernel_size") or hasattr(op, "pool_size") else None


def spatial(op: keras.Operation, rank: int) -> range:
    """Return the dimensions of a tensor of this rank that are neither batch nor channels."""
    return range(2, rank) if getattr(op, "data_format", None) == "channels_first" else range(1, rank - 1)


# --- Position by position --------------------------------------------------------------------------------


def merge(
    op: keras.Operation, node: Node, befores: Sequence[Fields], ins: Sequence[tuple[int, ...]], out: tuple[int, ...]
) -> Fields:
    """Handle pointwise operations: a unit depends on its own position; with several inputs, on that of each.

    Handlers take the operation, its call, the fields of its inputs (of all of them here and in `concatenate`, else of
    the only one), the shapes of the inputs and of the output, and raise Unknown.
    """
    merged = []
    for aligned in zip(*befores, strict=True):
        dims = {s.dim for s in aligned} - {None}
        if len(dims) > 1:
            raise Unknown("its inputs are aligned along different axes")
        dim = dims.pop() if dims else None
        units = out[dim] if dim else 1
        fields = [s if s.units == units else s.merged_to(dim, units) for s in aligned]  # a size of 1 serves all units
        everything = any(s.everything for s in fields)
        if units > 1 and len({s.rate for s in fields}) > 1:
            everything = everything or any(not s.shift and s.sees_everything for s in fields)
            fields = [s for s in fields if s.shift or not s.sees_everything]
            if len({s.rate for s in fields}) > 1:
                raise Unknown("it joins branches of different strides")
        period = lcm(*(len(s.first) for s in fields)) if units > 1 else 1
        ends = [[s.window(i) for s in fields] for i in range(period)]
        merged.append(
            replace(
                fields[0],
                dim=dim,
                units=units,
                everything=everything,
                first=tuple(min(a for a, _ in e) for e in ends),
                last=tuple(max(b for _, b in e) for e in ends),
                shift=fields[0].window(period)[0] - fields[0].window(0)[0],
            )
        )
    return tuple(merged)


def concatenate(
    op: keras.Operation, node: Node, befores: Sequence[Fields], ins: Sequence[tuple[int, ...]], out: tuple[int, ...]
) -> Fields:
    """Handle concatenation and splitting along the channels."""
    if any(s.dim == op.axis % len(out) for fields in befores for s in fields):
        raise Unknown("it concatenates or splits along a spatial axis")
    return merge(op, node, befores, ins, out)


def matmul(op: keras.Operation, node: Node, before: Fields, shape: tuple[int, ...], out: tuple[int, ...]) -> Fields:
    """Handle a product with a matrix from the right, which mixes channels only."""
    if len(shape) != len(out) or any(s.dim == len(shape) - 1 for s in before):
        raise Unknown("the positions that it depends on are not known")
    return before


# --- All positions ---------------------------------------------------------------------------------------


def normalise(op: keras.Operation, node: Node, before: Fields, shape: tuple[int, ...], out: tuple[int, ...]) -> Fields:
    """Handle softmax, layer and group normalisation: a unit depends on all along the axes that are normalised."""
    rank = len(shape)
    axes = spatial(op, rank) if isinstance(op, layers.GroupNormalization) else _axes(op.axis, rank)
    return tuple(s.merged_to(s.dim, s.units) if s.dim in axes else s for s in before)


def reduce(op: keras.Operation, node: Node, before: Fields, shape: tuple[int, ...], out: tuple[int, ...]) -> Fields:
    """Handle global pooling, ops.mean and similar reductions."""
    rank = len(shape)
    axes = spatial(op, rank) if isinstance(op, Layer) else _axes(op.axis, rank)

    def moved(d):
        return d if op.keepdims or d is None else d - sum(a < d for a in axes)

    return tuple(
        s.merged_to(s.dim if op.keepdims else None) if s.dim in axes else replace(s, dim=moved(s.dim)) for s in before
    )


def reshape(op: keras.Operation, node: Node, before: Fields, shape: tuple[int, ...], out: tuple[int, ...]) -> Fields:
    """Handle reshaping: axes stay if only dimensions behind them change (a channel shuffle); a vector merges all."""
    if len(out) == 2:
        return tuple(s if s.dim is None else s.merged_to() for s in before)
    to = max(s.dim for s in before if s.dim is not None) + 1
    if shape[:to] != out[:to]:
        raise Unknown("it rearranges positions")
    return before


# --- Some positions --------------------------------------------------------------------------------------


def window(op: keras.Operation, node: Node, before: Fields, shape: tuple[int, ...], out: tuple[int, ...]) -> Fields:
    """Handle convolution and pooling: unit i begins at i * stride - padding and covers the kernel's extent."""

    def along(s, kernel, stride, dilation):
        extent = (kernel - 1) * dilation + 1
        start = _padding(op, extent, stride, shape[s.dim], out[s.dim])
        return s.through(
            lambda i: (i * stride - start, i * stride - start + extent - 1), stride, units=out[s.dim], dim=s.dim
        )

    return _slide(op, node, before, shape, along)


def transposed(op: keras.Operation, node: Node, before: Fields, shape: tuple[int, ...], out: tuple[int, ...]) -> Fields:
    """Handle transposed convolution: the convolution `window` from output to input, inverted."""

    def along(s, kernel, stride, dilation):
        extent = (kernel - 1) * dilation + 1
        if kernel < stride or dilation > 1:
            raise Unknown("a transposed convolution with outputs that depend on no input is not supported")
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
    """along(field, kernel, stride, dilation) for each axis, with the numbers that the operation has for it."""
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
            raise Unknown("its window moves along other axes than the picture's")
        i = dims.index(s.dim)
        return along(s, kernel[i], strides[i], dilation[i])

    return tuple(map(one, before))


def upsample(op: keras.Operation, node: Node, before: Fields, shape: tuple[int, ...], out: tuple[int, ...]) -> Fields:
    """Handle nearest upsampling."""
    dims = spatial(op, len(shape))
    factors = _each(op.size, len(dims))
    if getattr(op, "interpolation", "nearest") != "nearest":
        raise Unknown(f"{op.interpolation} upsampling is not supported")

    def along(s, f):
        return s.through(lambda i: (i // f, i // f), Fraction(1, f), units=out[s.dim], dim=s.dim)

    return tuple(s if s.dim is None else along(s, factors[dims.index(s.dim)]) for s in before)


def pad(op: keras.Operation, node: Node, before: Fields, shape: tuple[int, ...], out: tuple[int, ...]) -> Fields:
    """Handle zero padding and cropping: unit i is unit i - start of the input."""
    if isinstance(op, Layer):
        amounts, sign = (op.padding, 1) if hasattr(op, "padding") else (op.cropping, -1)
        amounts = [amounts] if len(shape) == 3 else amounts
        starts = {d: sign * a for d, (a, _) in zip(spatial(op, len(shape)), amounts, strict=True)}
    else:
        starts = {d: a for d, (a, _) in enumerate(op.pad_width)}
    return tuple(s if s.dim is None else _shifted(s, -starts[s.dim], 1, out[s.dim], s.dim) for s in before)


def cut(op: keras.Operation, node: Node, before: Fields, shape: tuple[int, ...], out: tuple[int, ...]) -> Fields:
    """Handle x[...] with numbers, slices and an ellipsis."""
    key = node.arguments.args[1]
    key = key if isinstance(key, tuple) else (key,)
    if Ellipsis in key:
        at = key.index(Ellipsis)
        key = key[:at] + (slice(None),) * (len(shape) - len(key) + 1) + key[at + 1 :]
    key += (slice(None),) * (len(shape) - len(key))
    if not all(isinstance(k, (int, slice)) for k in key):
        raise Unknown("this kind of index is not supported")

    def one(s):
        if s.dim is None:
            return s
        if isinstance(key[s.dim], int):
            return _shifted(s, key[s.dim] % s.units, 0, 1, None)
        start, _, step = key[s.dim].indices(s.units)
        if step < 0:
            raise Unknown("a reversed axis is not supported")
        dim = sum(isinstance(k, slice) for k in key[: s.dim])
        return _shifted(s, start, step, out[dim], dim)

    return tuple(map(one, before))


def _shifted(s, start, step, units, dim):
    return s.through(lambda i: (start + i * step, start + i * step), step, units=units, dim=dim)


def permute(op: keras.Operation, node: Node, before: Fields, shape: tuple[int, ...], out: tuple[int, ...]) -> Fields:
    """Handle permuted dimensions."""
    order = [0, *op.dims] if isinstance(op, Layer) else list(op.axes or range(len(shape))[::-1])
    return tuple(s if s.dim is None else replace(s, dim=order.index(s.dim)) for s in before)


def _each(value, n):
    return (value,) * n if isinstance(value, int) else tuple(value)


def _axes(axis, rank):
    return [a % rank for a in (range(rank) if axis is None else (axis,) if isinstance(axis, int) else axis)]


# The first few return their input at inference.
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
HANDLERS = (  # layers, names of the operations that keras.ops make of symbolic tensors, handler
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
    (layers.RNN, (), None),  # a ConvLSTM has a kernel_size, but depends on all earlier time steps
)
