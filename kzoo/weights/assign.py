"""Load named arrays into a model: all of them after a check, or none."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kzoo.errors import WeightsError
from kzoo.weights.maps import MAPS, rename
from kzoo.weights.read import shown

if TYPE_CHECKING:
    import keras

FLOATS = ("float32", "float16")  # float16 widens to float32 exactly

# What other versions of Keras call a variable.
ALIASES = {"depthwise_kernel": "kernel"}


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
    names, (found, left_out, problems) = best(arrays, names, variables, layers)
    notes = []

    heads = {path for path in variables if is_classifier(path)}
    new = set()
    if new_classifier is True or (
        new_classifier is not False and replaced(heads, found, variables, new_classifier == "if missing")
    ):
        new = heads
    if new or not heads:
        surplus = [p for p in found if is_classifier(p)]
        left_out += surplus
        for path in surplus:
            del found[path]
        if new:
            notes.append(f"The classifier is new, not from {source}: {', '.join(sorted(new))}.")
        elif surplus:
            notes.append(f"The model has no classifier; that of {source} was left out: {', '.join(surplus)}.")

    first = first_kernel(model, variables)
    if adapt_input and first in found and only_channels_differ(found[first].shape, variables[first].shape):
        before, channels = found[first].shape[2], variables[first].shape[2]
        found[first] = adapted(found[first], channels)
        notes.append(f"{first} was adapted from {before} to {channels} input channels.")

    problems += compare(found, variables, new, first)
    if problems:
        count = f"{len(problems)} problem{'s' * (len(problems) > 1)}, nothing was loaded."
        raise WeightsError("\n  ".join([f"{source} does not fit {model.name}: {count}", *problems]))
    for path in found:
        variables[path].assign(found[path].astype("float32", copy=False))
    return Report(tuple(found), tuple(sorted(new)), tuple(left_out), names, tuple(notes))


def best(
    arrays: Mapping[str, np.ndarray], names: str | None, variables: Mapping[str, Any], layers: Mapping[str, list[str]]
) -> tuple[str | None, tuple[dict[str, np.ndarray], list[str], list[str]]]:
    """Choose the map of names that fits best: it places most arrays and leaves fewest over.

    Args:
        arrays: {foreign name: array}.
        names: The map to take, if it is known.
        variables: {path: variable} of the model.
        layers: {layer: paths of its variables}.

    Returns:
        (name of the map, what `placed` makes of the arrays by it).
    """
    chosen, most = None, None
    for name in [names] if names is not None else [None, *MAPS]:
        found, _, problems = item = placed(arrays, name, layers)
        fit = sum(p in variables and found[p].shape == tuple(variables[p].shape) for p in found)
        fit -= sum(p not in variables and not is_classifier(p) for p in found) + len(problems)
        if most is None or fit > most:  # the first of equals: our own names before foreign ones
            chosen, most = (name, item), fit
        del found, item  # a map may copy the arrays: no more than two are kept
    return chosen


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
    heads: Collection[str], found: Mapping[str, np.ndarray], variables: Mapping[str, Any], may_be_missing: bool
) -> bool:
    """Return whether the file's classifier is for another number of classes, or is missing and may be.

    Args:
        heads: Paths of the model's classifiers.
        found: {path: array}.
        variables: {path: variable} of the model.
        may_be_missing: The answer for a file without a classifier.
    """
    given = [p for p in heads if p in found]
    if not given:
        return may_be_missing
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
