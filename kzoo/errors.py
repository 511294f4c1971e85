"""Errors that users can cause and fix. Each message says what was expected, what was found and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class KzooError(Exception):
    """Base of all errors that kzoo raises on purpose; the message is one line for a user."""


class UnknownName(KzooError):
    """A model, recipe, option or data set that does not exist."""


class UnknownOption(UnknownName, TypeError):
    """A keyword that a function or a network does not take; a TypeError as well, as Python raises for it."""


class DataError(KzooError):
    """Images, labels or data sets that can't be used."""


class WeightsError(KzooError):
    """Weights that can't be found, read or loaded into a model, or that are not what they should be."""


class RunError(KzooError):
    """A training run that can't be started, resumed or read."""


class ExportError(KzooError):
    """An export that can't be written or read, or whose outputs differ from those recorded when it was made."""


def unknown(kind: str, name: object, known: Iterable[str], hint: str) -> UnknownName:
    """Make an UnknownName that suggests the nearest known name. It is returned, not raised.

    Args:
        kind: What the name names, such as "model".
        name: The unknown name.
        known: The names that exist.
        hint: A sentence on what to do, at the end of the message.

    Example:
        >>> str(unknown("model", "resnet5", ["resnet50", "vgg16"], "kzoo list shows all."))
        "Unknown model 'resnet5'. Did you mean 'resnet50'? kzoo list shows all."
    """
    near = get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    guess = f" Did you mean '{near[0]}'?" if near else ""
    return UnknownName(f"Unknown {kind} '{name}'.{guess} {hint}")


def printable(text: object, keep: str = "") -> str:
    """Escape what a terminal or a log would obey, not show: control characters, undecodable bytes, hidden characters.

    Args:
        text: From a file's name, a label, a message of another library.
        keep: Characters that stay as they are, such as a line break.

    Example:
        >>> printable("käfer\\x1b[31m")
        'käfer\\\\x1b[31m'
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def first_line(error: BaseException, most: int = 200) -> str:
    """Return the first line of a library's error message, or the error's type if it has none.

    Args:
        error: The error.
        most: Characters to keep.

    Example:
        >>> first_line(ValueError("a\\nb")), first_line(MemoryError())
        ('a', 'MemoryError')
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:most]


def out_of_memory(error: BaseException) -> str:
    """Return what an error says of memory that did not suffice, or "" if it is another error.

    NumPy raises MemoryError, TensorFlow ResourceExhaustedError, JAX a RuntimeError; TensorFlow quotes the error of a
    Python function in a graph in one of another type.

    Args:
        error: The error of whichever library.

    Example:
        >>> out_of_memory(MemoryError()), out_of_memory(ValueError("too large"))
        ('MemoryError', '')
    """
    signs = ("OOM when allocating", "RESOURCE_EXHAUSTED", "ResourceExhaustedError", "MemoryError:")
    found = [line.strip() for sign in signs for line in str(error).splitlines() if sign in line]
    if found or isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return found[0][:200] if found else first_line(error)
    return ""
