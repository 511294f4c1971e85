"""The freeze audit: after a phase, what was frozen is bit-identical, batch norm statistics included; the rest moved."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kzoo.errors import RunError

if TYPE_CHECKING:
    import keras


def array_hash(array: np.ndarray) -> str:
    """Return the SHA-256 of an array's type, shape and values, as hex digits.

    Example:
        >>> array_hash(np.zeros(3)) == array_hash(np.zeros(3, "float32"))
        False
    """
    array = np.ascontiguousarray(array)
    return hashlib.sha256(f"{array.dtype.str}{array.shape}".encode() + array.tobytes()).hexdigest()


def snapshot(model: keras.Model) -> dict[str, str]:
    """Return {path: SHA-256} of every variable of a Keras model."""
    from keras.ops import convert_to_numpy

    return {v.path: array_hash(convert_to_numpy(v)) for v in model.weights}


def compare(before: Mapping[str, str], after: Mapping[str, str], trainable: Collection[str]) -> dict[str, Any]:
    """Compare a network's variables before and after a phase of training.

    The audit passes if every frozen variable is bit-identical and at least one trainable variable changed.

    Args:
        before: {path: hash} of all variables before the phase.
        after: the same after the phase.
        trainable: paths of the variables that may change.

    Returns:
        {"ok": whether the audit passed, "frozen_checked": number of frozen variables, "moved": number of trainable
        variables that changed, "text": the result in words}.

    Example:
        >>> compare({"a": "1", "b": "2"}, {"a": "1", "b": "3"}, {"b"})["text"]
        '1 frozen variable is bit-identical; 1 of 1 trainable changed.'
    """
    frozen = sorted(before.keys() - set(trainable))
    changed = [p for p in frozen if after.get(p) != before[p]]
    extra = sorted(after.keys() - before.keys())
    moved = sorted(p for p in trainable if after.get(p) != before.get(p))
    n = len(frozen)
    if changed or extra:
        names = ", ".join((changed + extra)[:5])
        text = f"{len(changed + extra)} of {n} frozen variables changed: {names}."
    elif not moved:
        text = f"None of the {len(set(trainable))} trainable variables changed."
    else:
        are = "variable is" if n == 1 else "variables are"
        text = f"{n:,} frozen {are} bit-identical; {len(moved)} of {len(set(trainable))} trainable changed."
    return {"ok": not (changed or extra) and bool(moved), "frozen_checked": n, "moved": len(moved), "text": text}


def enforce(result: dict[str, Any], phase: str) -> dict[str, Any]:
    """Return the result of an audit that passed.

    Args:
        result: what `compare` gave.
        phase: its name, for the message.

    Raises:
        RunError: the audit failed.
    """
    if not result["ok"]:
        raise RunError(f"The freeze audit after the phase '{phase}' failed: {result['text']} The run was stopped.")
    return result
