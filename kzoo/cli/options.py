"""Options and outputs that several commands share."""

import json as json_library
import re

import click

from kzoo.hardware import load_keras

__all__ = ["as_json", "input_shape", "load_keras", "print_json", "seconds", "shape"]

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def shape(ctx, param, value):
    """A click callback: "160x160x3", "160,160,3" or "160" to (160, 160, 3)."""
    if value is None:
        return None
    try:
        numbers = tuple(int(n) for n in value.lower().replace(",", "x").split("x"))
    except ValueError:
        numbers = ()
    numbers = {1: numbers * 2 + (3,), 2: numbers + (3,)}.get(len(numbers), numbers)
    if len(numbers) != 3 or min(numbers) < 1:
        raise click.BadParameter(f"expected height x width x channels, such as 160x160x3; got '{value}'.")
    return numbers


UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def seconds(ctx, param, value):
    """A click callback: "90", "90s", "2m" or "1h" to seconds."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", value.strip().lower())
    if not match or not float(match[1]):
        raise click.BadParameter(f"expected a time such as 90s, 2m or 1h; got '{value}'.")
    return float(match[1]) * UNITS[match[2]]


input_shape = click.option(
    "--input-shape", callback=shape, metavar="HxWxC", help="Such as 160x160x3; as published by default."
)


def print_json(data):
    """Data goes to stdout; NaN and infinity, which JSON lacks, become null."""
    click.echo(json_text(data))


def json_text(data):
    """JSON in UTF-8 that can be printed: the bytes of a file name that is none are escaped, which is JSON, too."""
    text = json_library.dumps(_finite(data), indent=2, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode()


def _finite(x):
    if isinstance(x, dict):
        return {k: _finite(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [_finite(v) for v in x]
    if isinstance(x, float) and (x != x or x in (float("inf"), float("-inf"))):
        return None
    return x
