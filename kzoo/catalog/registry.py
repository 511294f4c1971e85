"""The registry: which models there are, by name. Standard library only."""

from __future__ import annotations

from fnmatch import fnmatchcase

from kzoo.catalog.model_spec import ModelSpec
from kzoo.errors import KzooError, unknown

ROWS: dict[str, ModelSpec] = {}  # by name; `register` adds to it


def register(row: ModelSpec, *, replace: bool = False) -> ModelSpec:
    """Add a row to the catalog; its name then works in every function and command of this process.

    Args:
        row: The row.
        replace: Whether to replace a row of that name.

    Returns:
        `row`.

    Raises:
        KzooError: The name is taken, or is not a lower-case identifier.

    Example:
        >>> from kzoo.catalog import ModelSpec, Paper
        >>> row = ModelSpec("my_net", "my_package.nets:my_net", (32, 32, 3), 10, Paper("None yet", "I", 2026))
        >>> register(row).name
        'my_net'
    """
    if not isinstance(row, ModelSpec):
        raise KzooError(f"register() takes a kzoo.ModelSpec, got {type(row).__name__}.")
    if not (row.name.isidentifier() and row.name == row.name.lower()):
        raise KzooError(f"A model's name is lower-case letters, digits and _; got '{row.name}'.")
    if row.name in ROWS and not replace:
        raise KzooError(f"A model named '{row.name}' is registered already; pass replace=True to replace it.")
    ROWS[row.name] = row
    return row


def list_models(pattern: str = "*") -> list[str]:
    """List the models whose names match a pattern, in the catalog's order.

    Args:
        pattern: A shell pattern.

    Example:
        >>> list_models("vgg1*")
        ['vgg11', 'vgg13', 'vgg16', 'vgg19', 'vgg11_bn', 'vgg13_bn', 'vgg16_bn', 'vgg19_bn']
    """
    return [name for name in ROWS if fnmatchcase(name, pattern)]


def spec(name: str | ModelSpec) -> ModelSpec:
    """Return the row of a model.

    Args:
        name: Its name; a ModelSpec is returned as it is.

    Raises:
        UnknownName: There is no such model; the message suggests the nearest name.

    Example:
        >>> spec("vgg16").params
        138357544
    """
    if isinstance(name, ModelSpec):
        return name
    if name not in ROWS:
        raise unknown("model", name, ROWS, "kzoo list shows all.")
    return ROWS[name]
