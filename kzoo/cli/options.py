"""Options and output that several commands share."""

from __future__ import annotations

import json as json_library
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import click

from kzoo.catalog.imports import load_imports, named_in_environment
from kzoo.distribution import Together
from kzoo.files import finite
from kzoo.hardware import in_own_process, load_keras

__all__ = [
    "as_json",
    "given",
    "in_columns",
    "load_keras",
    "on_devices",
    "option_of",
    "own_networks",
    "print_json",
    "seconds",
    "shape",
    "trust",
]

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
trust = click.option(
    "--trust", is_flag=True, help="Load an export with any operations: only if you trust the author of the file."
)


def _import(ctx, param, values):
    names = [*named_in_environment(), *values]
    if names:
        in_own_process(False)
        load_keras()  # quietly: what registers networks nearly always imports it
        load_imports(names)


own_networks = click.option(
    "--import",
    "imports",
    multiple=True,
    metavar="FILE|MODULE",
    expose_value=False,
    callback=_import,
    help="Python code that registers networks of yours; may be repeated. Also: $KZOO_IMPORT.",
)


def shape(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int, int] | None:
    """A click callback: "160x160x3" or "160,160,3" to (160, 160, 3)."""
    if value is None:
        return None
    try:
        numbers = tuple(int(n) for n in value.lower().replace(",", "x").split("x"))
    except ValueError:
        numbers = ()
    if len(numbers) != 3 or min(numbers) < 1:
        raise click.BadParameter(f"expected height x width x channels, such as 160x160x3; got '{value}'.")
    return numbers


def on_devices(function: Callable) -> Callable:
    """The options --devices, --coordinator and --process, which the command gets as one `together`."""

    @wraps(function)
    def command(*args, devices, coordinator, process, **others):
        return function(*args, together=Together(devices, coordinator, process), **others)

    command = click.option(
        "--process", metavar="i/N", help="Of N processes, started with the same command, this is number i, from 0."
    )(command)
    command = click.option(
        "--coordinator",
        metavar="HOST:PORT",
        help="Where process 0 of several is reached; env takes what Kubeflow or Slurm set.",
    )(command)
    return click.option(
        "--devices",
        type=click.IntRange(1),
        help="Devices of this process to train on, with KERAS_BACKEND=jax: they share each batch. [default: 1]",
    )(command)


UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """A click callback: "90", "90s", "2m" or "1h" to seconds."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", value.strip().lower())
    if not match or not float(match[1]):
        raise click.BadParameter(f"expected a time such as 90s, 2m or 1h; got '{value}'.")
    return float(match[1]) * UNITS[match[2]]


def weights_by_class(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
    """A click callback: None and "balanced" are kept; "ants=1,bees=2" becomes {"ants": 1.0, "bees": 2.0}."""
    if value is None or value == "balanced":
        return value
    try:
        pairs = [item.rpartition("=") for item in value.split(",")]
        return {name: float(weight) for name, _, weight in pairs}
    except ValueError:
        raise click.BadParameter(f"expected balanced, or weights such as ants=1,bees=2.5; got '{value}'.") from None


def option_of(options: type) -> Callable:
    """Make a function that turns a field of an options dataclass into a click option.

    The help of the option ends in the field's default. The option itself has no default, so that the command knows
    which options were given: when a run is resumed, options that are not given are taken from the run.

    Args:
        options: the dataclass.

    Returns:
        A function (field name, help=..., flag=None, **settings of click.option) that returns a decorator.
    """

    def option(name, *, help, flag=None, **settings):
        default = options.__dataclass_fields__[name].default
        if isinstance(default, bool):
            settings.update(is_flag=True, default=None)
        elif default is not None:
            text = ",".join(default) if isinstance(default, tuple) else default
            help = f"{help} [default: {text}]"
        return click.option(flag or f"--{name.replace('_', '-')}", name, help=help, **settings)

    return option


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given on the command line: those whose value is not None."""
    return {name: value for name, value in options.items() if value is not None}


def in_columns(head: str, text: str) -> str:
    """A row of a table: on a terminal long text goes on in its own column, elsewhere it stays one line."""
    if not sys.stdout.isatty():
        return head + text
    width, gap = max(shutil.get_terminal_size().columns, len(head) + 20), " " * len(head)
    return textwrap.fill(head + text, width, subsequent_indent=gap, break_long_words=False, break_on_hyphens=False)


def print_json(data: Any) -> None:
    """Print data as JSON to stdout; NaN and infinity, which JSON does not have, become null."""
    click.echo(json_text(data))


def json_text(data: Any) -> str:
    """Data as JSON that can be printed: unprintable characters in its texts are escaped as JSON does."""
    return json_printable(json_library.dumps(finite(data), indent=2, ensure_ascii=False))


def json_printable(text: str) -> str:
    """JSON with its unprintable characters, which stand in texts only, as \\uXXXX."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else json_library.dumps(c)[1:-1] for c in text)
