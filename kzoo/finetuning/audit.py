"""The freeze audit: after a phase, what was frozen is bit-identical, batch norm statistics included; the rest moved."""

import hashlib

import numpy as np

from kzoo.errors import RunError


def array_hash(array):
    """SHA-256 of an array's type, shape and values, as hex digits."""
    array = np.ascontiguousarray(array)
    return hashlib.sha256(f"{array.dtype.str}{array.shape}".encode() + array.tobytes()).hexdigest()


def snapshot(model):
    """{path: SHA-256} of every variable of a Keras model."""
    from keras.ops import convert_to_numpy

    return {v.path: array_hash(convert_to_numpy(v)) for v in model.weights}


def compare(before, after, trainable):
    """{"ok", "frozen_checked", "moved", "text"} from the hashes before and after a phase and the paths that may move.

    Everything else must be what it was, to the bit, and something of what may move must have moved.

    >>> compare({"a": "1", "b": "2"}, {"a": "1", "b": "3"}, {"b"})["text"]
    '1 frozen variable is bit-identical; 1 of 1 trainable moved.'
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
        text = f"None of the {len(set(trainable))} trainable variables moved."
    else:
        are = "variable is" if n == 1 else "variables are"
        text = f"{n:,} frozen {are} bit-identical; {len(moved)} of {len(set(trainable))} trainable moved."
    return {"ok": not (changed or extra) and bool(moved), "frozen_checked": n, "moved": len(moved), "text": text}


def enforce(result, phase):
    """RunError if an audit failed."""
    if not result["ok"]:
        raise RunError(f"The freeze audit after the phase '{phase}' failed: {result['text']} The run was stopped.")
    return result
