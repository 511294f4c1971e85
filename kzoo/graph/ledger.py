"""The cost of each layer of a network, read from the built graph.

Conventions, which are those of the papers:

- **Multiply-adds**: one for each use of a weight, for one image. A convolution uses each number of its kernel once at
  every output position (a transposed one: at every input position), zeros of the padding included. Biases,
  activations, pooling, normalisation and merges are not counted.
- **Values**: the numbers in a layer's output for one image. Layers that only rearrange their input at inference
  (Flatten, Reshape, Dropout) count as 0. VGG16's sum is 15.2 million and our row of preprocessing; the "24M" that the
  lecture prints below the same rows (Stanford's CS231n) is not their sum.
- **Receptive field**: the smallest rectangle of pixels that contains every pixel that one unit depends on: its size,
  and the stride, by how many pixels it moves from unit to unit. A dilated convolution leaves holes in it. Near the
  border it reaches past the picture, into the padding; `sees_past_border` tells whether that is so for any unit of the
  layer.

A layer that the ledger does not know shows "?" and is named below the table. It can declare what it is by attributes:

- `kernel_size`, and where they are not 1, "valid" and 1: `strides`, `padding`, `dilation_rate`, as Keras'
  convolutions have them. `kernel_size = 1` says that each output depends on its own position only.
- `multiply_adds(input_shape, output_shape)`, both with the batch first: a count for one image. A layer with
  `kernel_size` and no such method is taken as a convolution: its weights named `...kernel` are used once at every
  output position.
"""

from __future__ import annotations

import html
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any, TypeVar

import keras
import numpy as np

from kzoo.builder import build, computing_in
from kzoo.catalog import ModelSpec
from kzoo.errors import KzooError
from kzoo.graph import receptive_field
from kzoo.graph.receptive_field import ReceptiveField, Unknown
from kzoo.walk import calls

T = TypeVar("T")


def ledger(
    model: keras.Model | str | ModelSpec, *, input_shape: tuple[int, int, int] | None = None, **options: Any
) -> Ledger:
    """Make the layer table of a network.

    Weights are not allocated for a name, so the largest network takes no more time than the smallest.

    Args:
        model: A functional or (built) Sequential keras.Model, nested ones included, or a name of `kzoo.list_models()`.
        input_shape: (height, width, channels) in place of the model's own; needed if that leaves sizes open.
        **options: For a name, as in `kzoo.build`.

    Returns:
        A Ledger.

    Raises:
        UnknownName: The name does not exist.
        KzooError: The model has no graph (a subclass of keras.Model with a call of its own), or sizes are open.

    Example:
        >>> import kzoo
        >>> table = kzoo.ledger("vgg16")
        >>> table["block1_conv1"].weights, table["fc1"].weights
        (1728, 102760448)
        >>> table["block5_pool"].receptive_field.size
        (212, 212)
    """
    if isinstance(model, (str, ModelSpec)):
        model = without_values(lambda: build(model, input_shape=input_shape, **options))
    elif options:
        raise KzooError(f"{', '.join(options)} can't change a model that is built; give ledger() a name for that.")
    elif input_shape is not None:
        if len(_ends(model)[0]) != 1:
            raise KzooError(f"{model.name} has several inputs; build it with fixed sizes instead of input_shape.")
        model = _at_shapes(model, [(None, *input_shape)])

    inputs, _ = _ends(model)
    channels_first = any(getattr(n.operation, "data_format", None) == "channels_first" for n in calls(*_ends(model)))
    dims = [range(2, len(t.shape)) if channels_first else range(1, len(t.shape) - 1) for t in inputs]
    sizes = {tuple(t.shape[d] for d in ds) for t, ds in zip(inputs, dims, strict=True)}
    seen = {}
    for t, ds in zip(inputs, dims, strict=True):
        _check_shape(model, t)
        # Several inputs of one size count as one picture: the receptive field is the same region of each.
        seen[id(t)] = receptive_field.picture(t.shape, ds) if len(sizes) == 1 else "the inputs differ in size"
    rows = tuple(_rows(model, seen))
    return Ledger(model.name, rows, _totals(rows))


# --- What comes out --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One use of one layer, for one image.

    Attributes:
        name: The layer, behind the names of the models that it is nested in.
        kind: Its class.
        output: Shape without the batch; of several outputs the first one's.
        weights: Numbers in its variables but for biases; 0 if an earlier row has counted them.
        biases: Numbers in its variables named bias or beta, likewise.
        trainable: How many of both are trainable.
        parameter_bytes: Their bytes.
        multiply_adds: None if unknown.
        values: Numbers in all outputs.
        bytes: Their bytes.
        receptive_field: None if unknown.
        shared: Whether an earlier row has counted the variables.
        unknown: Why something is unknown, where that begins.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    weights: int
    biases: int
    trainable: int
    parameter_bytes: int
    multiply_adds: int | None
    values: int
    bytes: int
    receptive_field: ReceptiveField | None
    shared: bool = False
    unknown: str = ""

    @property
    def params(self) -> int:
        """Weights and biases."""
        return self.weights + self.biases

    def to_dict(self) -> dict[str, Any]:
        """Return all fields and `params`, for JSON."""
        field = self.receptive_field and self.receptive_field.to_dict()
        fields = {k: getattr(self, k) for k in self.__dataclass_fields__}
        return {**fields, "params": self.params, "receptive_field": field}


@dataclass(frozen=True)
class Totals:
    """Sums over all rows, for one image.

    Attributes:
        params: Weights and biases.
        weights: See `Row`.
        biases: See `Row`.
        trainable: See `Row`.
        parameter_bytes: See `Row`.
        trainable_bytes: Bytes of the trainable parameters.
        multiply_adds: None if those of a row are unknown.
        known_multiply_adds: The sum over the rows that are known.
        values: See `Row`.
        bytes: See `Row`.
    """

    params: int
    weights: int
    biases: int
    trainable: int
    parameter_bytes: int
    trainable_bytes: int
    multiply_adds: int | None
    known_multiply_adds: int
    values: int
    bytes: int

    @property
    def non_trainable(self) -> int:
        """Parameters that are not trainable."""
        return self.params - self.trainable


@dataclass(frozen=True, repr=False)
class Ledger:
    """The layer table of a network. Print it, or index it by a layer's name; in a notebook it shows as a table.

    Attributes:
        name: Of the network.
        rows: In the order of the computation, branch by branch.
        totals: Their sums.
    """

    name: str
    rows: tuple[Row, ...]
    totals: Totals

    def __getitem__(self, name: str) -> Row:
        """Return the first row of a layer; KeyError if there is none."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"{self.name} has no layer '{name}'")

    def training_bytes(self, batch_size: int = 32, slots: int = 1) -> int:
        """Estimate the memory for training: parameters + gradients + slots + batch * 2 * activations.

        Activations count twice, for their gradients. Not included: the workspace of convolutions, which can be large,
        and what the framework itself takes.

        Args:
            batch_size: Images in a batch.
            slots: Variables that the optimiser keeps for each parameter: 0 for SGD, 1 with momentum, 2 for Adam.

        Returns:
            Bytes.
        """
        t = self.totals
        return t.parameter_bytes + t.trainable_bytes * (1 + slots) + batch_size * 2 * t.bytes

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, with `training_bytes` for a batch of 32 and one slot."""
        totals = {**asdict(self.totals), "non_trainable": self.totals.non_trainable}
        totals |= {"training_bytes": self.training_bytes()}
        return {"name": self.name, "rows": [r.to_dict() for r in self.rows], "totals": totals}

    def table(self, width: int = 80) -> str:
        """Format the table as text.

        Where a line would be longer than `width`, names are shortened to at least 12 characters; then, as for clips,
        weights and biases share the column "params".
        """
        for cells in (self._cells(), self._cells(together=True)):
            widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
            left = width - sum(widths[1:]) - 2 * len(widths[1:])
            if left >= min(12, widths[0]):
                break
        widths[0] = max(12, min(widths[0], left))
        lines = []
        for row in cells:
            first = _shorten(row[0], widths[0]).ljust(widths[0])
            lines.append("  ".join([first, row[1].ljust(widths[1]), *map(str.rjust, row[2:], widths[2:])]).rstrip())
        rule = "-" * (sum(widths) + 2 * len(widths[1:]))
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])

    def notes(self) -> list[str]:
        """Return lines on what the table means and what it does not contain."""
        t = self.totals
        unknown = [f"?  {r.name} ({r.kind}) {r.unknown}" for r in self.rows if r.unknown]
        return [
            "mult-adds: one for each use of a weight; they and the values are for one image.",
            "sees: size/stride of the receptive field in pixels; + reaches into padding.",
            f"Parameters: {t.trainable:,} trainable, {t.non_trainable:,} not; {size(t.parameter_bytes)}.",
            f"Memory: {size(t.bytes)} forward for one image if every layer's output is kept;",
            f"  about {size(self.training_bytes())} to train 32 at a time with momentum: parameters, gradients,",
            "  momentum and 32 x 2 x outputs; an estimate, without the framework's own.",
            *unknown[:8],
            *([f"?  and {len(unknown) - 8} more"] if len(unknown) > 8 else []),
            *(["   A layer can declare both: python -m pydoc kzoo.graph.ledger"] if unknown else []),
        ]

    def _cells(self, together=False):
        """The header, a row for each layer and the total, as texts; `together` adds weights and biases up."""
        body = []
        for r in self.rows:
            output = "x".join(map(str, r.output))
            weights = "shared" if r.shared else f"{r.weights:,}" if r.weights else ""
            biases = f"{r.biases:,}" if r.biases else ""
            cost = "?" if r.multiply_adds is None else count(r.multiply_adds) if r.multiply_adds else ""
            values = count(r.values) if r.values else ""
            sees = "?" if r.receptive_field is None else str(r.receptive_field)
            numbers = (weights if r.shared or not r.params else f"{r.params:,}",) if together else (weights, biases)
            body.append((r.name, output, *numbers, cost, values, sees))
        t = self.totals
        cost = ("" if t.multiply_adds is not None else ">= ") + count(t.known_multiply_adds)
        rest = (cost, count(t.values), "")
        if together:
            return [TOGETHER, *body, ("total", "", f"{t.params:,}", *rest)]
        return [COLUMNS, *body, ("total", f"{t.params:,}", f"{t.weights:,}", f"{t.biases:,}", *rest)]

    def __str__(self):
        return "\n".join([self.table(), *self.notes()])

    def __repr__(self):
        return f"<Ledger of {self.name}: {len(self.rows)} rows, {self.totals.params:,} parameters>"

    def _repr_html_(self):
        def line(row, tag):
            return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in row) + "</tr>"

        head, *body = self._cells()
        notes = "<br>".join(map(html.escape, self.notes()))
        return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in body)}</table><p>{notes}</p>"


COLUMNS = ("layer", "output", "weights", "biases", "mult-adds", "values", "sees")
TOGETHER = ("layer", "output", "params", "mult-adds", "values", "sees")


def count(n: int) -> str:
    """Format a count in at most six characters.

    Example:
        >>> count(3211264)
        '3.2M'
    """
    for unit, name in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "K")):
        if n >= unit:
            return f"{n / unit:.{1 if n < 10**9 else 2}f}{name}"
    return str(n)


def size(n: int) -> str:
    """Format bytes in binary units.

    Example:
        >>> size(12845056)
        '12.2 MiB'
    """
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if n >= unit:
            return f"{n / unit:.1f} {name}"
    return f"{n} bytes"


def _shorten(name, width):
    half = (width - 1) // 2
    return name if len(name) <= width else f"{name[: width - 1 - half]}…{name[-half:]}"


def _totals(rows):
    def add(key):
        return sum(getattr(r, key) for r in rows)

    known = [r.multiply_adds for r in rows if r.multiply_adds is not None]
    return Totals(
        params=add("params"),
        weights=add("weights"),
        biases=add("biases"),
        trainable=add("trainable"),
        parameter_bytes=add("parameter_bytes"),
        trainable_bytes=sum(r.parameter_bytes * r.trainable // r.params for r in rows if r.params),
        multiply_adds=sum(known) if len(known) == len(rows) else None,
        known_multiply_adds=sum(known),
        values=add("values"),
        bytes=add("bytes"),
    )


# --- Walking the graph -----------------------------------------------------------------------------------


def _ends(model):
    """Inputs and outputs of a model's graph; KzooError if it has none."""
    try:
        if isinstance(model, keras.Model) and model.inputs and model.outputs:
            return list(model.inputs), list(model.outputs)
    except (AttributeError, ValueError):  # a Sequential that is not built, a subclass
        pass
    raise KzooError(
        f"ledger() reads a functional or built Sequential keras.Model or a model's name; got {type(model).__name__} "
        f"'{getattr(model, 'name', model)}', which has no graph. Call it on a keras.Input and make that a model."
    )


def _rows(model, seen, prefix="", owned=None):
    """Yield the rows of a model. seen: id of a tensor -> its fields, or the reason why they are unknown (a string)."""
    # Variables and nested models that are counted, by id; held here, so that no other object takes the id of one.
    owned = {} if owned is None else owned
    if not prefix:
        for t in _ends(model)[0]:
            yield _row(t._keras_history.operation, prefix, None, [t], seen, owned)
    for node in calls(*_ends(model)):
        op, ins, outs = node.operation, node.input_tensors, node.output_tensors
        for t in outs:
            _check_shape(model, t)
        if isinstance(op, keras.Model) and getattr(op, "inputs", None):  # nested: its layers, one by one
            inner = _at_shapes(op, [t.shape for t in ins])
            within = {id(a): seen[id(b)] for a, b in zip(_ends(inner)[0], ins, strict=True)}
            for row in _rows(inner, within, f"{prefix}{op.name}/", owned):
                # A nested model at another size is a copy with variables of its own: what it shares must be said.
                yield _as_shared(row) if id(op) in owned else row
            owned[id(op)] = op
            for a, b in zip(outs, _ends(inner)[1], strict=True):
                seen[id(a)] = within[id(b)]
        else:
            yield _row(op, prefix, node, outs, seen, owned)


def _row(op, prefix, node, outs, seen, owned):
    reasons, cost = [], 0
    if node:  # else an input, whose fields are known
        befores = [seen[id(t)] for t in node.input_tensors]
        try:
            lost = [fields for fields in befores if isinstance(fields, str)]
            fields = lost[0] if lost else receptive_field.fields_after(op, node, befores)
        except Unknown as e:
            fields = str(e)
            reasons.append(f"sees: {e}")
        seen.update((id(t), fields) for t in outs)
        cost = _multiply_adds(op, node)
        if cost is None:
            reasons.append("mult-adds: a layer can declare them")
    fields = seen[id(outs[0])]
    if not node and isinstance(fields, str):
        reasons.append(f"sees: {fields}")

    mine = {id(v): v for v in getattr(op, "weights", ())}
    new = [v for i, v in mine.items() if i not in owned]
    owned.update(mine)

    def elements(vs):
        return sum(prod(v.shape) for v in vs)

    biases = elements(v for v in new if v.name in ("bias", "beta"))
    view = isinstance(op, receptive_field.IDENTITIES + receptive_field.RESHAPES)
    fresh = [] if view or type(op).__name__ in receptive_field.RESHAPE_OPS else outs
    return Row(
        name=prefix + op.name,
        kind=type(op).__name__,
        output=tuple(outs[0].shape[1:]),
        weights=elements(new) - biases,
        biases=biases,
        trainable=elements(v for v in new if v.trainable),
        parameter_bytes=sum(prod(v.shape) * _bytes(v.dtype) for v in new),
        multiply_adds=cost,
        values=sum(prod(t.shape[1:]) for t in fresh),
        bytes=sum(prod(t.shape[1:]) * _bytes(t.dtype) for t in fresh),
        receptive_field=None if isinstance(fields, str) else ReceptiveField(fields),
        shared=bool(mine) and not new,
        unknown="; ".join(reasons),
    )


def _as_shared(row):
    return replace(row, weights=0, biases=0, trainable=0, parameter_bytes=0, shared=row.shared or row.params > 0)


def _bytes(dtype):
    return 2 if str(dtype) == "bfloat16" else np.dtype(str(dtype)).itemsize


def _check_shape(model, tensor):
    shape, name = tuple(tensor.shape[1:]), tensor._keras_history.operation.name
    if None in shape:
        raise KzooError(
            f"The sizes of {model.name} are open: {name} has the output {shape}. "
            "Pass ledger(model, input_shape=(height, width, channels))."
        )
    if 0 in shape:  # Keras 3.12 builds that silently
        raise KzooError(f"{model.name} can't take so small an input: the output of {name} is empty, {shape}.")


def _at_shapes(model, shapes):
    """The model itself if it was built for these input shapes (batch first), else a copy that is."""
    inputs, _ = _ends(model)
    if [tuple(t.shape[1:]) for t in inputs] == [tuple(s[1:]) for s in shapes]:
        return model

    def copy():
        news = [keras.Input(s[1:], dtype=t.dtype, name=t.name) for s, t in zip(shapes, inputs, strict=True)]
        # The inputs of a functional model may be a dictionary; a Sequential has one, and no structure.
        news = news if isinstance(model, keras.Sequential) else keras.tree.pack_sequence_as(model.input, news)
        return keras.models.clone_model(model, input_tensors=news)

    try:
        return without_values(copy)
    except ValueError as e:
        sizes = ", ".join(str(tuple(s[1:])) for s in shapes)
        raise KzooError(f"{model.name} can't take the input {sizes}: {str(e).splitlines()[0]}") from e


def without_values(make: Callable[[], T]) -> T:
    """Build a model whose variables have shapes but no values: nothing is drawn, nothing is allocated.

    Args:
        make: Builds the model. It runs in a thread of its own, not under the caller's dtype policy: `kzoo.build` says
            the precision, and copies of layers bring theirs.

    Returns:
        What `make` returns.
    """
    state = random.getstate()

    def run():
        with computing_in(), keras.StatelessScope(initialize_variables=False):
            return make()

    # In a thread of its own: Keras remembers for each thread which variables still need their values, and would
    # initialise these later. Keras draws seeds from Python's generator, whose state is restored.
    try:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(run).result()
    finally:
        random.setstate(state)


# --- What an operation costs -----------------------------------------------------------------------------


def _multiply_adds(op, node):
    """One for each use of a weight, for one image; None if the operation is not known."""
    ins, out = [tuple(t.shape) for t in node.input_tensors], tuple(node.output_tensors[0].shape)
    if callable(getattr(op, "multiply_adds", None)):
        return int(op.multiply_adds(ins[0] if len(ins) == 1 else ins, out))
    known = receptive_field.handler_of(op)
    if not isinstance(op, keras.Layer) and type(op).__name__ in ("Conv", "DepthwiseConv", "ConvTranspose", "Matmul"):
        factor = node.arguments.args[1]
        if isinstance(factor, keras.KerasTensor) or not hasattr(factor, "shape"):  # an activation is no weight
            return None
        kernels = prod(factor.shape)
    elif known and (isinstance(op, keras.layers.Dense) or hasattr(op, "kernel_size")):
        kernels = sum(prod(v.shape) for v in op.weights if v.name.endswith("kernel"))
    else:
        return 0 if known else None
    # Each number of a kernel meets each position once: those of the output, or where that is spread out, of the input.
    shape = ins[0] if known is receptive_field.transposed else out
    return kernels * prod(shape[d] for d in receptive_field.spatial(op, len(shape)))
