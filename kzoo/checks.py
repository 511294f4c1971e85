"""Checks that the options of several verbs share: a wrong value is an error before any work. Standard library only."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from kzoo.errors import KzooError, unknown

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
MAX_SEED = 2**31 - 1


def changed(options: Any) -> dict[str, Any]:
    """The fields of an options dataclass that differ from their defaults."""
    return {f.name: getattr(options, f.name) for f in fields(options) if getattr(options, f.name) != f.default}


def check_count(name: str, value: int | None, least: int) -> None:
    """KzooError unless the value is None or a whole number of at least `least`."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
        raise KzooError(f"{name} must be a whole number of at least {least}, got {value!r}.")


def check_seed(seed: int) -> None:
    """KzooError unless the seed is a whole number that every random generator takes."""
    if not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise KzooError(f"seed must be a whole number from 0 to {MAX_SEED}, got {seed!r}.")


def check_precision(precision: str, known: tuple[str, ...] = PRECISIONS) -> None:
    """UnknownName unless it is a precision, or "auto"."""
    if precision not in known:
        raise unknown("precision", precision, known, f"It is one of {', '.join(known)}.")


def check_input_shape(shape: tuple[int, ...] | None) -> None:
    """KzooError unless the shape is None or (height, width, channels)."""
    if shape is not None and (len(shape) != 3 or not all(isinstance(n, int) and n > 0 for n in shape)):
        raise KzooError(f"input_shape must be (height, width, channels), such as (160, 160, 3); got {shape!r}.")
