"""The registry: which models there are, by name. Standard library only."""

from __future__ import annotations

import os
import sys
from fnmatch import fnmatchcase
from typing import Any

from kzoo.catalog.imports import load_installed
from kzoo.catalog.model_spec import ModelSpec
from kzoo.errors import KzooError, unknown
from kzoo.files import sha256

ROWS: dict[str, ModelSpec] = {}  # by name; `register` adds to it
REGISTERED_BY: dict[str, str] = {}  # name of a row -> the module that registered it


def register(row: ModelSpec, *, replace: bool = False) -> ModelSpec:
    """Add a row to the catalog; its name then works in every function of this process.

    Commands find it with --import, in $KZOO_IMPORT, or as an entry point of an installed package.

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
    REGISTERED_BY[row.name] = sys._getframe(1).f_globals.get("__name__", "")
    return row


def imports_of(name: str) -> list[dict[str, Any]]:
    """Return the modules from elsewhere that a network needs, for the record; [] for kzoo's own.

    Args:
        name: of a row.

    Returns:
        {"module": its name, "file": its path, "sha256": of that file} for the module that registered the row, and for
        the one with its architecture; the latter two only where there is a file.
    """
    found = []
    for module in dict.fromkeys([REGISTERED_BY.get(name, ""), ROWS[name].architecture.partition(":")[0]]):
        if module and module.partition(".")[0] != "kzoo":
            file = getattr(sys.modules.get(module), "__file__", None)
            known = {"file": os.path.abspath(file), "sha256": sha256(file)} if file and os.path.isfile(file) else {}
            found.append({"module": module, **known})
    return found


def list_models(pattern: str = "*") -> list[str]:
    """List the models whose names match a pattern, in the catalog's order, those of installed packages included.

    Args:
        pattern: A shell pattern.

    Example:
        >>> list_models("vgg1*")
        ['vgg11', 'vgg13', 'vgg16', 'vgg19', 'vgg11_bn', 'vgg13_bn', 'vgg16_bn', 'vgg19_bn']
    """
    load_installed()
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
        load_installed()
    if name not in ROWS:
        raise unknown("model", name, ROWS, "kzoo list shows all; --import my.py adds your own.")
    return ROWS[name]


def image_spec(name: str | ModelSpec) -> ModelSpec:
    """Return the row of a model that takes pictures, for all that reads pictures.

    Args:
        name: As in `spec`.

    Raises:
        UnknownName: There is no such model.
        KzooError: It takes clips.

    Example:
        >>> image_spec("c3d")
        Traceback (most recent call last):
            ...
        kzoo.errors.KzooError: kzoo trains, predicts and exports still images; c3d takes clips of 16 frames: ...
    """
    row = spec(name)
    if len(row.input_shape) != 3:
        raise KzooError(
            f"kzoo trains, predicts and exports still images; {row.name} takes clips of {row.input_shape[0]} frames: "
            f"build it with kzoo.build('{row.name}') and train it with Keras."
        )
    return row
