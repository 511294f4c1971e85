"""Weights that kzoo trained itself and carries: .npz files in 16 bits, each with its card. Standard library only."""

from __future__ import annotations

import json
from pathlib import Path

from kzoo.errors import unknown

FOLDER = Path(__file__).parent
PREFIX = "kzoo:"  # of a Weights' file that is in the package


def path_of(file: str) -> Path:
    """Return the path of a Weights' file that begins with PREFIX."""
    return FOLDER / file.removeprefix(PREFIX)


def cards() -> dict[str, dict]:
    """Return {name: card}, of classifiers: what was trained, how, how long, on what, and how accurate it is."""
    return {name: card for name, card in _cards().items() if "styles" not in card}


def stylenets() -> dict[str, dict]:
    """Return {name: card}, of networks that paint: their styles, how they were trained, and their objective."""
    return {name: card for name, card in _cards().items() if "styles" in card}


def stylenet(name: str) -> dict | None:
    """Return the card of the network that paints with a name: its own, or that of one of its styles. None: no such."""
    return next((card for card in stylenets().values() if name in (card["name"], *card["styles"])), None)


def _cards():
    found = (json.loads(p.read_text("utf-8")) for p in sorted(FOLDER.glob("*.json")))
    return {card["name"]: card for card in found}


def card(name: str) -> dict:
    """Return the card of shipped weights.

    Raises:
        UnknownName: kzoo ships no weights of that name.

    Example:
        >>> card("no_such_name")
        Traceback (most recent call last):
            ...
        kzoo.errors.UnknownName: Unknown shipped weights 'no_such_name'. ...
    """
    every = cards()
    if name not in every:
        raise unknown("shipped weights", name, every, f"kzoo carries {', '.join(every) or 'none'}.")
    return every[name]
