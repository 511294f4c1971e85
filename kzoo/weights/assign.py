"""Load named arrays into a model: all of them after a check, or none."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kzoo.errors import WeightsError
from kzoo.weights.explain import explanation
from kzoo.weights.maps import MAPS, from_torch, prefixes, rename, unprefixed
from kzoo.weights.read import shown

if TYPE_CHECKING:
    import keras

FLOATS = ("float32", "float16")  # float16 widens to float32 exactly

# What other versions of Keras call a variable.
ALIASES = {"depthwise_kernel": "kernel"}

# What a classifier is called elsewhere: the last word of a layer's name that is no number (head.fc, fc.1, dense_2).
HEAD = re.compile(
    r"(\w+_)?(fc|head|heads|classifier|classification_head|dense|linear|logits?|output|out|top|predictions?|probs|"
    r"softmax|cls|clf)(_layer|_head)?(_?\d+)?"
)
# Variables of layers. Any other array of a file (a buffer, a counter) may be of no layer of the network.
OF_LAYERS = re.compile(r"weight|bias|kernel|gamma|beta|running_\w+|moving_\w+|\d+|\w+_kernel|\w+_bias")
OUTSIDE = {"n_averaged", "mean", "std", "pixel_mean", "pixel_std", "image_mean", "image_std", "step", "epoch"}


@dataclass(frozen=True)
class Report:
    """What loading weights did.

    Attributes:
        loaded: Variables that were set.
        new: Variables of the classifier that kept their initial values.
        left_out: Arrays of the file that were not used.
        names: The map of foreign names that was used, None for kzoo's own names.
        notes: A sentence on each thing that is not simply a copy.
    """

    loaded: tuple[str, ...]
    new: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    names: str | None = None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        numbers = f"{len(self.loaded):,} variables loaded, {len(self.new):,} new"
        return f"<Report: {numbers}; {len(self.left_out):,} arrays left out>"


def assign(
    model: keras.Model,
    arrays: Mapping[str, np.ndarray],
    *,
    names: str | None = None,
    new_classifier: bool | str | None = None,
    adapt_input: bool = False,
    source: str = "the file",
) -> Report:
    """Set every variable of a model from named arrays, or raise and set none.

    Keras itself skips variables by name silently, and its numbered files can give a layer another layer's weights.

    Args:
        model: A model whose variables have the paths <layer>/<variable>.
        arrays: {name: array}, as `kzoo.weights.read` returns them.
        names: The map from foreign names, a key of `kzoo.weights.MAPS`; None takes the one that fits best.
        new_classifier: True: the classifier keeps its initial values. None: only if the file's has another number of
            classes. "if missing": also if the file has none. False: never.
        adapt_input: Adapt the first kernel to another number of input channels: summed for one channel, for others
            repeated and divided, so that a picture with equal channels gives the same output.
        source: What to call the arrays in messages.

    Returns:
        A `Report`.

    Raises:
        WeightsError: Lists, in full, what is missing, unexpected, of a wrong shape or type, not finite, or given twice.
    """
    variables = {v.path: v for v in model.weights}
    layers = {layer.name: [v.path for v in layer.weights] for layer in model.layers if layer.weights}
    notes = list(getattr(arrays, "notes", ()))
    wide = [name for name, a in arrays.items() if a.dtype == np.float64]
    if wide:
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is listed
            arrays = {name: a.astype("float32") if a.dtype == np.float64 else a for name, a in arrays.items()}
        notes.append(f"{len(wide)} arrays of {source} are float64; they were rounded to float32.")
    choice = best(arrays, names, variables, layers)
    found, left_out, problems = choice.found, choice.left_out, choice.problems
    if choice.prefix:
        notes.append(f"The names of {source} begin with '{shown(choice.prefix)}', which was taken off.")
    extra = [name for name in found if name not in variables and is_extra(name, choice, layers)]
    if extra:
        notes.append(f"Left out, of no layer of {model.name}: {', '.join(shown(name) for name in extra)}.")
        left_out += extra
        for name in extra:
            del found[name]

    heads = {path for path in variables if is_classifier(path)}
    dense = behind_flatten(model) - heads
    fewer = dense_surplus(found, variables)
    foreign = foreign_heads(found, {*variables, *fewer})
    if len(foreign) == 1 and not any(is_classifier(p) for p in found):
        taken = as_classifier(*next(iter(foreign.items())), features=features_of(model))
        if taken:
            name, old = next(iter(foreign)), next(iter(foreign.values()))
            for path in old:
                del found[path]
            found.update(taken)
            foreign = {}
            notes.append(f"The classifier of {source} is its layer {shown(name)}.")
    new = set()
    if new_classifier is True or (
        new_classifier is not False
        and replaced(heads, found, variables, new_classifier == "if missing", dense=bool(fewer))
    ):
        new = heads
    if new and any(p not in found or found[p].shape != tuple(variables[p].shape) for p in dense):
        new = heads | dense  # another input size, or a file that ends in front of them
    if new or not heads:
        surplus = [p for p in found if is_classifier(p) or p in new or p in fewer]
        surplus += [p for paths in foreign.values() for p in paths]
        left_out += surplus
        for path in surplus:
            del found[path]
        if new:
            more = " with the dense layers in front of it" if new > heads else ""
            notes.append(f"The classifier is new{more}, not from {source}: {', '.join(sorted(new))}.")
            if others := [shown(p) for p in surplus if p not in new and not is_classifier(p)]:
                notes.append(f"Left out with the classifier of {source}: {', '.join(others)}.")
        elif surplus:
            listed = ", ".join(shown(p) for p in surplus)
            notes.append(f"The model has no classifier; that of {source} was left out: {listed}.")

    first = first_kernel(model, variables)
    if adapt_input and first in found and only_channels_differ(found[first].shape, variables[first].shape):
        before, channels = found[first].shape[2], variables[first].shape[2]
        found[first] = adapted(found[first], channels)
        notes.append(f"{first} was adapted from {before} to {channels} input channels.")

    problems += compare(found, variables, new, first)
    if not problems:
        problems = other_epsilon(model, choice.names)
    if problems:
        reason = explanation(arrays, found, model, dense=dense, heads=heads)
        count = f"{len(problems)} problem{'s' * (len(problems) > 1)}, nothing was loaded."
        head = f"{source} does not fit {model.name}: {reason + ' ' if reason else ''}{count}"
        raise WeightsError("\n  ".join([head, *problems]))
    for path in found:
        variables[path].assign(found[path].astype("float32", copy=False))
    return Report(tuple(found), tuple(sorted(new)), tuple(left_out), choice.names, tuple(notes))


def other_epsilon(model: keras.Model, names: str | None) -> list[str]:
    """Tell a network that computes something else than the source's although its variables are the same.

    MobileNets of torch and of Keras differ in the epsilon of batch norm, and with it in the padding.

    Args:
        model: The model that is loaded into.
        names: The map that fits the file.

    Returns:
        The problem, in a list that is empty if there is none.
    """
    import keras

    table = MAPS.get(names or "")
    wanted = {options["epsilon"] for options in table.config.values() if "epsilon" in options} if table else set()
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        if wanted and not any(abs(layer.epsilon / epsilon - 1) < 0.01 for epsilon in wanted):
            asked = " or ".join(f"{epsilon:g}" for epsilon in wanted)
            return [
                f"{layer.name} adds {layer.epsilon:g} to the variance, the network of these names {asked}, and it pads "
                f"otherwise: kzoo.build(name, weights=FILE) builds what it computes."
            ]
    return []


@dataclass
class Choice:
    """How the arrays of a file were placed.

    Attributes:
        names: The map of names, None for kzoo's own.
        prefix: What was taken off the names.
        short: The names without it.
        found: {path: array}; a name that no row of the map matches stays as it is.
        left_out: Names that the map leaves out.
        problems: A sentence on each array that could not be placed.
    """

    names: str | None
    prefix: str
    short: list[str]
    found: dict[str, np.ndarray]
    left_out: list[str]
    problems: list[str]


def best(
    arrays: Mapping[str, np.ndarray], names: str | None, variables: Mapping[str, Any], layers: Mapping[str, list[str]]
) -> Choice:
    """Choose the prefix and the map of names that fit best: they place most arrays and leave fewest over.

    Args:
        arrays: {foreign name: array}.
        names: The map to take, if it is known.
        variables: {path: variable} of the model.
        layers: {layer: paths of its variables}.

    Returns:
        The Choice; of equal ones that with the shortest prefix, and our own names before foreign ones.
    """
    chosen, most = Choice(None, "", [], {}, [], []), -math.inf
    for prefix in prefixes(arrays):
        short = unprefixed(arrays, prefix)
        for name in [names] if names is not None else [None, *MAPS]:
            found, left_out, problems = placed(short, name, layers)
            fit = sum(p in variables and found[p].shape == tuple(variables[p].shape) for p in found)
            over = sum(p not in variables and not is_classifier(p) for p in found) + len(problems)
            if fit - over > most:
                chosen, most = Choice(name, prefix, list(short), found, left_out, problems), fit - over
            if fit == len(variables) and not over:
                return chosen
            del found  # a map may copy the arrays: no more than two are kept
    return chosen


def is_extra(name: str, choice: Choice, layers: Collection[str]) -> bool:
    """Return whether an array can't be a layer's: it is no variable of one, and stands beside the network.

    Args:
        name: Of an array that no variable has.
        choice: How the others were placed.
        layers: Names of the model's layers.
    """
    module, dot, variable = name.rpartition("." if "." in name else "/")
    if OF_LAYERS.fullmatch(variable) or module in layers:
        return False
    if not dot:
        return variable in OUTSIDE
    placed_names = [n for n in choice.short if n not in choice.found]  # what became a path of the model
    return not any(n.startswith(f"{module}.") or n.startswith(f"{module}/") for n in placed_names)


# --- Classifiers and dense layers ------------------------------------------------------------------------


def behind_flatten(model: keras.Model) -> set[str]:
    """Return the paths of the variables behind a Flatten: their number depends on the size of the input."""
    import keras

    after, found = set(), set()
    for layer in model.layers:
        inputs = keras.tree.flatten(layer.input) if not isinstance(layer, keras.layers.InputLayer) else []
        outputs = {id(t) for t in keras.tree.flatten(layer.output)}
        if isinstance(layer, keras.layers.Flatten):
            after |= outputs
        elif any(id(t) in after for t in inputs):
            after |= outputs
            found |= {v.path for v in layer.weights}
    return found


def dense_surplus(found: Mapping[str, np.ndarray], variables: Collection[str]) -> set[str]:
    """Return the paths of dense layers in front of a classifier (fc1, fc2) that the model does not have."""
    return {p for p in found if p not in variables and re.fullmatch(r"fc\d+/(kernel|bias)", p)}


def features_of(model: keras.Model) -> int | None:
    """Return the number of features that the model's classifier takes."""
    kernel = next((v for v in model.weights if v.path == "predictions/kernel"), None)
    return int(kernel.shape[-2]) if kernel is not None else model.outputs[0].shape[-1]


def foreign_heads(found: Mapping[str, np.ndarray], variables: Collection[str]) -> dict[str, dict[str, np.ndarray]]:
    """Collect the layers that no layer of the model is, and that are called as classifiers are elsewhere.

    Args:
        found: {path: array}.
        variables: Paths that are none of such layers.

    Returns:
        {layer: {path: array}}. A convolution larger than 1x1 is no classifier.
    """
    layers = {}
    for path, array in found.items():
        layer, dot, _ = path.rpartition("." if "." in path else "/")
        words = [w for w in re.split(r"[./]", layer) if not w.isdigit()]
        small = array.ndim < 4 or max(array.shape[:2]) == 1 or max(array.shape[2:]) == 1
        if path not in variables and dot and words and HEAD.fullmatch(words[-1]) and small and not is_classifier(path):
            layers.setdefault(layer, {})[path] = array
    return layers


def as_classifier(layer: str, arrays: Mapping[str, np.ndarray], features: int | None) -> dict[str, np.ndarray] | None:
    """Give the arrays of a foreign classifier our names, if they are those of a dense layer on the model's features.

    Args:
        layer: The foreign name.
        arrays: {foreign path: array} of it.
        features: What the model's classifier takes.

    Returns:
        {"predictions/kernel": array, "predictions/bias": array}, None if they do not fit.
    """
    torch = any(path == f"{layer}.weight" for path in arrays)
    result = {}
    for path, array in arrays.items():
        variable = path[len(layer) + 1 :]
        if torch:
            variable, array = from_torch(variable, array, norm=False)
        result[f"predictions/{ {'0': 'kernel', '1': 'bias'}.get(variable, variable) }"] = array
    kernel, bias = result.get("predictions/kernel"), result.get("predictions/bias")
    if kernel is None or kernel.ndim != 2 or kernel.shape[0] != features or len(result) != 1 + (bias is not None):
        return None
    return result if bias is None or bias.shape == kernel.shape[1:] else None


def placed(
    arrays: Mapping[str, np.ndarray], names: str | None, layers: Mapping[str, list[str]]
) -> tuple[dict[str, np.ndarray], list[str], list[str]]:
    """Find the variable of each array.

    Args:
        arrays: {foreign name: array}.
        names: The map of names.
        layers: {layer: paths of its variables}, for arrays that are only numbered within their layer.

    Returns:
        (arrays by the path of the variable, foreign names that the map leaves out, problems).
    """
    renamed = rename(arrays, names)
    found, problems = {}, list(renamed.problems)
    for name, array in renamed.arrays.items():
        layer, _, variable = name.rpartition("/")
        paths = layers.get(layer, [])
        path = name
        # Numbered in the order of Keras' layer.weights.
        if re.fullmatch("[0-9]{1,6}", variable) and int(variable) < len(paths):
            path = paths[int(variable)]
        elif name not in paths and f"{layer}/{ALIASES.get(variable)}" in paths:
            path = f"{layer}/{ALIASES[variable]}"
        if path in found:
            problems.append(f"{shown(path)}: given twice")
        found[path] = array
    return found, list(renamed.left_out), problems


def compare(
    found: Mapping[str, np.ndarray], variables: Mapping[str, Any], new: Collection[str], first: str | None
) -> list[str]:
    """List everything that does not fit.

    Args:
        found: {path: array}.
        variables: {path: variable} of the model.
        new: Paths that may be missing.
        first: Path of the first kernel, whose input channels can be adapted.

    Returns:
        A sentence for each problem.
    """
    problems = []
    for path, v in variables.items():
        if path not in found and path not in new:
            hint = " (new_classifier=True, or num_classes=None for the features)" if is_classifier(path) else ""
            problems.append(f"missing: {path}, shape {tuple(v.shape)}{hint}")
    for path, array in found.items():
        label = shown(path)
        if path not in variables:
            problems.append(f"unexpected: {label}, shape {array.shape}")
            continue
        expected = tuple(variables[path].shape)
        if array.shape != expected:
            hint = ""
            if sorted(array.shape) == sorted(expected):
                hint = " (transposed?)"
            elif path == first and only_channels_differ(array.shape, expected):
                hint = " (adapt_input=True fits it to other input channels)"
            elif is_classifier(path):
                hint = " (num_classes of the file takes it, new_classifier=True leaves it new)"
            problems.append(f"wrong shape: {label} has {array.shape}, expected {expected}{hint}")
        if array.dtype.name not in FLOATS:
            problems.append(f"wrong type: {label} is {array.dtype.name}, expected float32")
        elif not np.isfinite(array).all():
            bad = array.size - np.isfinite(array).sum()
            problems.append(f"not finite: {label} holds {bad:,} NaN or infinite values of {array.size:,}")
    return problems


def replaced(
    heads: Collection[str],
    found: Mapping[str, np.ndarray],
    variables: Mapping[str, Any],
    may_be_missing: bool,
    *,
    dense: bool = False,
) -> bool:
    """Return whether the file's classifier is for another number of classes, or is missing and may be.

    Args:
        heads: Paths of the model's classifiers.
        found: {path: array}.
        variables: {path: variable} of the model.
        may_be_missing: The answer for a file without a classifier.
        dense: Whether the file has dense layers in front of its classifier that the model has not; then the classifier
            takes other features.
    """
    given = [p for p in heads if p in found]
    if not given:
        return may_be_missing
    if dense and may_be_missing:
        return True
    return all(other_classes(found[p].shape, variables[p].shape) for p in given)


def is_classifier(path: str) -> bool:
    """Return whether a path is a classifier's: predictions/kernel, or an auxiliary one's: aux1_predictions/kernel."""
    return re.fullmatch(r"(\w+_)?predictions/\w+", path) is not None


def other_classes(a: Sequence[int], b: Sequence[int]) -> bool:
    """Return whether two shapes differ in exactly one axis, whichever it is: LeNet's codes are (classes, 84)."""
    return len(a) == len(b) and sum(m != n for m, n in zip(a, b, strict=True)) == 1


def first_kernel(model: keras.Model, variables: Mapping[str, Any]) -> str | None:
    """Return the path of the first convolution's kernel, None if there is none."""
    return next(
        (v.path for layer in model.layers for v in layer.weights if v.path in variables and len(v.shape) == 4), None
    )


def only_channels_differ(a: Sequence[int], b: Sequence[int]) -> bool:
    """Return whether two kernel shapes (H, W, C, filters) differ in C only."""
    return len(a) == len(b) == 4 and a[2] != b[2] and (*a[:2], a[3]) == (*b[:2], b[3])


def adapted(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Adapt a first kernel to another number of input channels. Its sum over the input channels is kept.

    Args:
        kernel: (H, W, C, filters).
        channels: Input channels of the result. More than C: the kernel's channels are repeated in turn, each divided
            by its number of copies. Fewer: the surplus ones are added in equal shares to those that remain.

    Returns:
        (H, W, channels, filters).
    """
    before = kernel.shape[2]
    again = np.arange(channels) % before
    times = np.bincount(again, minlength=before)[again]
    rest = kernel[:, :, channels:].sum(axis=2, keepdims=True) / channels
    return (kernel[:, :, again] / times[:, None] + rest).astype(kernel.dtype)
