"""The errors that a user can cause, and mend: what was expected, what came, what to do."""

from difflib import get_close_matches


class KzooError(Exception):
    """Base of all errors that kzoo raises on purpose; its message is one line for a user."""


class UnknownName(KzooError):
    """A model, recipe, option or data set that does not exist."""


class DataError(KzooError):
    """Images, labels or data sets that can't be used."""


class WeightsError(KzooError):
    """Weights that can't be found, read, trusted or fitted to a model."""


class RunError(KzooError):
    """A training run that can't start, be continued, or be read."""


class ExportError(KzooError):
    """An export that can't be written or read, or that does not compute what it did when it was made."""


def unknown(kind, name, known, hint):
    """An UnknownName that suggests the nearest known name.

    >>> str(unknown("model", "resnet5", ["resnet50", "vgg16"], "kzoo list shows all."))
    "Unknown model 'resnet5'. Did you mean 'resnet50'? kzoo list shows all."
    """
    near = get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    guess = f" Did you mean '{near[0]}'?" if near else ""
    return UnknownName(f"Unknown {kind} '{name}'.{guess} {hint}")


def first_line(error, most=200):
    """The first line of what a library says went wrong, or the error's kind if it says nothing.

    >>> first_line(ValueError("a\\nb")), first_line(MemoryError())
    ('a', 'MemoryError')
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:most]
