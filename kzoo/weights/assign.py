"""Named arrays into a model: all of them, checked first, or none."""

import re
from dataclasses import dataclass

import numpy as np

from kzoo.errors import WeightsError
from kzoo.weights.maps import MAPS, rename
from kzoo.weights.read import shown

FLOATS = ("float32", "float16")  # float16 widens to float32 exactly

# What other versions of Keras call a variable.
ALIASES = {"depthwise_kernel": "kernel"}


@dataclass(frozen=True)
class Report:
    """What a load did: names of variables, and sentences on what is not simply a copy.

    loaded: variables that were set. new: the classifier's variables that kept their initial values.
    left_out: arrays of the file that were not used. names: the map that fitted. notes: one sentence each.
    """

    loaded: tuple[str, ...]
    new: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    names: str | None = None
    notes: tuple[str, ...] = ()


def assign(model, arrays, *, names=None, new_classifier=None, adapt_input=False, source="the file"):
    """Set every variable of a model from named arrays, or raise and set none.

    model: its variables have the paths <layer>/<variable>. arrays: {name: array}, as `kzoo.weights.read` gives them.
    names: the map from foreign names, a key of `kzoo.weights.MAPS`; None takes the one that fits best.
    new_classifier: True: the classifier keeps its initial values. None: only if the file's has another number of
        classes. "if missing": also if the file has none. False: never.
    adapt_input: fit the first kernel to another number of input channels: summed for one channel, for others repeated
        and divided, so that a picture with equal channels gives the same output.

    Returns a `Report`. Raises WeightsError that lists, in full, what is missing, unexpected, of a wrong shape or type,
    not finite, or given twice; the model is then unchanged.

    Source of the rule: Keras skips by name silently, and its numbered files can give a layer another's weights.
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


def best(arrays, names, variables, layers):
    """The map and what it makes of the arrays; without a given map, that which places most and leaves fewest over."""
    chosen, most = None, None
    for name in [names] if names is not None else [None, *MAPS]:
        found, _, problems = item = placed(arrays, name, layers)
        fit = sum(p in variables and found[p].shape == tuple(variables[p].shape) for p in found)
        fit -= sum(p not in variables and not is_classifier(p) for p in found) + len(problems)
        if most is None or fit > most:  # the first of equals: our own names before foreign ones
            chosen, most = (name, item), fit
        del found, item  # a map may copy the arrays: no more than two are kept
    return chosen


def placed(arrays, names, layers):
    """(arrays by the path of the variable, foreign names left out, problems)."""
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


def compare(found, variables, new, first):
    """One sentence for everything that does not fit."""
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


def replaced(heads, found, variables, may_be_missing):
    """Whether the file's classifier is for other classes, or not there."""
    given = [p for p in heads if p in found]
    if not given:
        return may_be_missing
    return all(other_classes(found[p].shape, variables[p].shape) for p in given)


def is_classifier(path):
    """predictions/kernel, and the heads of auxiliary classifiers: aux1_predictions/kernel."""
    return re.fullmatch(r"(\w+_)?predictions/\w+", path) is not None


def other_classes(a, b):
    """Whether two shapes differ in one place, whichever it is: LeNet's codes are (classes, 84)."""
    return len(a) == len(b) and sum(m != n for m, n in zip(a, b, strict=True)) == 1


def first_kernel(model, variables):
    """The path of the first convolution's kernel, None if there is none."""
    return next(
        (v.path for layer in model.layers for v in layer.weights if v.path in variables and len(v.shape) == 4), None
    )


def only_channels_differ(a, b):
    return len(a) == len(b) == 4 and a[2] != b[2] and (*a[:2], a[3]) == (*b[:2], b[3])


def adapted(kernel, channels):
    """A first kernel (H, W, C, filters) for other input channels; sums over the input channels are kept.

    More channels: the old ones again in turn, each divided by how often it comes. Fewer: the rest, shared out equally.
    """
    before = kernel.shape[2]
    again = np.arange(channels) % before
    times = np.bincount(again, minlength=before)[again]
    rest = kernel[:, :, channels:].sum(axis=2, keepdims=True) / channels
    return (kernel[:, :, again] / times[:, None] + rest).astype(kernel.dtype)
