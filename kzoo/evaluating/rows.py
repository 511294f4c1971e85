"""Answers as rows of CSV. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kzoo.errors import printable


def cell(value: Any) -> Any:
    """A cell of CSV: unprintable characters escaped, and an apostrophe before what a spreadsheet would compute."""
    if not isinstance(value, str):
        return value
    value = printable(value)
    return f"'{value}" if value.startswith(("=", "+", "-", "@")) else value


def csv_header(task: Any, top: int) -> list[str]:
    """The names of the columns.

    Args:
        task: a `kzoo.tasks.Task`.
        top: the number of classes in an answer.
    """
    return ["image", "error", *task.columns(top)]


def csv_row(task: Any, top: int, row: Mapping[str, Any]) -> list[Any]:
    """The cells of an answer.

    Args:
        task, top: as for `csv_header`.
        row: of `kzoo.predict`.
    """
    return [cell(c) for c in (row["image"], row.get("error", ""), *task.cells(row, top))]
