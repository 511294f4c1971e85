"""Checks of option values that several verbs share, made before any work. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from functools import wraps
from inspect import signature
from typing import Any

from kzoo.errors import KzooError, UnknownOption, unknown

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
MAX_SEED = 2**31 - 1
BITS = range(8, 17)  # of 16-bit pictures, that may be said to be used


def changed(options: Any) -> dict[str, Any]:
    """The fields of an options dataclass whose values differ from their defaults, by name."""
    return {f.name: getattr(options, f.name) for f in fields(options) if getattr(options, f.name) != f.default}


def unknown_option(of: str, name: str, known: Iterable[str], hint: str) -> UnknownOption:
    """Make the error for a keyword that something does not take, with the nearest one that it takes."""
    return UnknownOption(str(unknown(f"option of {of}", name, known, hint)))


def checking_keywords(function: Callable) -> Callable:
    """Let a public function refuse a keyword that it does not take with an UnknownOption, which suggests the nearest.

    One that takes any keywords, as options of a network, is returned as it is: it knows only later which exist.

    Args:
        function: of the API.

    Returns:
        A function with the same signature and docstring, to be found as `kzoo.NAME` (pickle looks there).
    """
    parameters = signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return function

    @wraps(function)
    def call(*args, **keywords):
        for name in keywords:
            if name not in parameters:
                hint = f"help(kzoo.{function.__name__}) shows all."
                raise unknown_option(f"{function.__name__}()", name, parameters, hint)
        return function(*args, **keywords)

    call.__module__ = "kzoo"
    return call


def check_count(name: str, value: int | None, minimum: int) -> None:
    """Raise a KzooError unless the value is None or an int of at least `minimum`; `name` is that of the option."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < minimum):
        raise KzooError(f"{name} must be a whole number of at least {minimum}, got {value!r}.")


def check_bits(bits: int | None) -> None:
    """Raise a KzooError unless the number of bits used of 16-bit pictures is None or one of `BITS`."""
    if bits is not None and (type(bits) is not int or bits not in BITS):
        raise KzooError(f"bits must be a whole number from {BITS[0]} to {BITS[-1]}, got {bits!r}.")


def check_seed(seed: int) -> None:
    """Raise a KzooError unless the seed is an int that every random generator accepts: 0..MAX_SEED."""
    if not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise KzooError(f"seed must be a whole number from 0 to {MAX_SEED}, got {seed!r}.")


def check_precision(precision: str, known: tuple[str, ...] = PRECISIONS) -> None:
    """Raise an UnknownName unless the precision is one of those known."""
    if precision not in known:
        raise unknown("precision", precision, known, f"It is one of {', '.join(known)}.")


def check_input_shape(shape: tuple[int, ...] | None) -> None:
    """Raise a KzooError unless the shape is None or (height, width, channels), all positive."""
    if shape is not None and (len(shape) != 3 or not all(isinstance(n, int) and n > 0 for n in shape)):
        raise KzooError(f"input_shape must be (height, width, channels), such as (160, 160, 3); got {shape!r}.")


def check_class_weights(weights: str | Mapping[str, float] | None) -> str | dict[str, float] | None:
    """Check weights of classes in a loss.

    Args:
        weights: None, "balanced", or a weight of at least 0 for each class that shall not have 1, by name.

    Returns:
        The same, with numbers as floats.

    Raises:
        KzooError: it is something else.
    """
    if weights is None or weights == "balanced":
        return weights
    if not isinstance(weights, Mapping):
        raise KzooError(f"class_weights is None, 'balanced' or a dict of weights by class, got {weights!r}.")
    found = {str(name): float(weight) for name, weight in weights.items()}
    for name, weight in found.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise KzooError(f"A class weight is a number of at least 0, and that of {name!r} is {weight}.")
    return found
