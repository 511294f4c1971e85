"""Networks from elsewhere: import the files, modules and packages that register them. Standard library only."""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from kzoo.errors import KzooError, first_line
from kzoo.progress import say

if TYPE_CHECKING:
    import keras

    from kzoo.catalog.model_spec import ModelSpec

VARIABLE = "KZOO_IMPORT"  # files and modules, separated as in PATH
GROUP = "kzoo.models"  # of the entry points of installed packages; each names a module
# How files begin that no user wrote: kzoo's, Python's, those of installed packages, and what is in no file.
LIBRARIES = (
    os.path.join(os.path.dirname(os.path.dirname(__file__)), ""),
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    "<",
)


def named_in_environment() -> list[str]:
    """Return the files and modules that $KZOO_IMPORT names."""
    return [name for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]


def load_imports(names: Iterable[str]) -> None:
    """Import files and modules that register networks. What is imported already is not imported again.

    A file gets the name of a module, without .py, by which a row's `architecture` can name it. Its folder is appended
    to the path, so that it can import the files beside it.

    Args:
        names: a file ("nets/my.py") or the name of a module ("my_package.nets").

    Raises:
        KzooError: there is no such file or module, its name is another module's, or it fails; one line, with its line
            number.
    """
    for name in names:
        if name.endswith(".py") or os.sep in name:
            _import_file(name)
        else:
            import_named(name)


def import_named(module: str) -> ModuleType:
    """Import a module that a user named, or that a row of a user names.

    Raises:
        KzooError: there is none, or it fails; one line, with the line number.
    """
    try:
        found = module in sys.modules or find_spec(module) is not None
    except (ImportError, ValueError, AttributeError):  # a package above it is missing, or the name can't be one
        found = False
    if not found:
        raise KzooError(
            f"There is no module '{module}' to import: name a file, such as --import my.py, or put the folder that has "
            "it on PYTHONPATH."
        )
    with located(module):
        return import_module(module)


def _import_file(name):
    path = Path(os.path.realpath(name))
    if not path.is_file():
        raise KzooError(f"There is no file '{name}' to import.")
    stem = path.stem
    if path.suffix != ".py" or not stem.isidentifier():
        raise KzooError(f"'{name}' can't be imported: a Python file is named like a variable, such as my_nets.py.")
    for known in (stem, "__main__"):  # a script may name itself
        file = getattr(sys.modules.get(known), "__file__", None)
        if file and Path(os.path.realpath(file)) == path:
            return
    other = find_spec(stem) if stem not in sys.modules else None
    if stem in sys.modules or (other is not None and os.path.realpath(other.origin or "") != str(path)):
        raise KzooError(f"'{name}' can't be imported, since another module is named '{stem}': rename the file.")
    spec = spec_from_file_location(stem, path)
    assert spec is not None and spec.loader is not None  # it ends in .py
    module = sys.modules[stem] = module_from_spec(spec)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        with located(name):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[stem]
        raise


def ours(row: ModelSpec) -> bool:
    """Return whether a row's architecture is kzoo's own, so that an error in it is a bug of kzoo's."""
    return row.architecture.startswith("kzoo.")


def architecture(row: ModelSpec) -> Callable[..., keras.KerasTensor | list[keras.KerasTensor]]:
    """Import the architecture function that a row names.

    Raises:
        KzooError: It can't be imported.
    """
    module, _, function = row.architecture.partition(":")
    try:
        return getattr(import_module(module) if ours(row) else import_named(module), function)
    except (KzooError, ImportError, AttributeError) as e:
        raise KzooError(f"Model '{row.name}' names '{row.architecture}', which can't be loaded: {e}") from e


@contextmanager
def located(name: str) -> Iterator[None]:
    """Turn an error of a user's code into a KzooError of one line that names its file and line.

    Args:
        name: of the module or file, where the error has no line in it.
    """
    try:
        yield
    except (Exception, SystemExit) as e:
        where, said = name, first_line(e)
        if isinstance(e, SyntaxError) and e.filename:
            where, said = f"{e.filename}, line {e.lineno}", e.msg
        else:
            frames = [f for f in traceback.extract_tb(e.__traceback__) if not f.filename.startswith(LIBRARIES)]
            if frames:
                where = f"{frames[-1].filename}, line {frames[-1].lineno}"
        kind = "" if isinstance(e, KzooError) else f"{type(e).__name__}: "
        raise KzooError(f"{where}: {kind}{said}") from e


_installed = False


def load_installed() -> None:
    """Import the modules that installed packages name as entry points of the group kzoo.models, once in a process.

    One that fails is named on stderr and left out: a package should not stop commands that do without it.
    """
    global _installed
    if _installed:
        return
    _installed = True
    for entry in entry_points(group=GROUP):
        try:
            import_named(entry.module)
        except KzooError as e:
            say(
                f"Note: the networks of the installed package {entry.dist.name if entry.dist else entry.name} are left "
                f"out: {e}"
            )
