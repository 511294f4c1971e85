"""Weights that kzoo trained itself and carries: .npz files in 16 bits, each with its card. Standard library only."""

import json
from pathlib import Path

from kzoo.errors import unknown

FOLDER = Path(__file__).parent
PREFIX = "kzoo:"  # of a Weights' file that is in the package


def path_of(file):
    """Where a Weights' file that begins with PREFIX is."""
    return FOLDER / file.removeprefix(PREFIX)


def cards():
    """{name: card}: what was trained, how, how long, on what, and how good it became."""
    found = (json.loads(p.read_text("utf-8")) for p in sorted(FOLDER.glob("*.json")))
    return {card["name"]: card for card in found}


def card(name):
    """One card; UnknownName if there is none.

    >>> card("no_such_name")
    Traceback (most recent call last):
        ...
    kzoo.errors.UnknownName: Unknown shipped weights 'no_such_name'. ...
    """
    every = cards()
    if name not in every:
        raise unknown("shipped weights", name, every, f"kzoo carries {', '.join(every) or 'none'}.")
    return every[name]
