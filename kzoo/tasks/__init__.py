"""What a network is trained for: one file a task. Nobody else branches on it: who needs something of a task asks it."""

from __future__ import annotations

from importlib import import_module

from kzoo.errors import unknown
from kzoo.tasks.task import Evaluation, Task

__all__ = ["TASKS", "Evaluation", "Task", "find", "register"]

# Name -> the module whose TASK it is, imported when it is asked for.
TASKS = {"classification": "kzoo.tasks.classification"}
REGISTERED: dict[str, Task] = {}


def find(name: str) -> Task:
    """The task of that name.

    Args:
        name: of `TASKS`, or of a task that was registered.

    Raises:
        UnknownName: with the nearest name.

    Example:
        >>> import numpy as np
        >>> find("classification").targets(np.array([1]), ("a", "b"))
        array([[0., 1.]], dtype=float32)
    """
    if name in REGISTERED:
        return REGISTERED[name]
    if name not in TASKS:
        known = [*TASKS, *REGISTERED]
        hint = f"The tasks are {', '.join(known)}; kzoo.tasks.register() adds one of your own."
        raise unknown("task", name, known, hint)
    return import_module(TASKS[name]).TASK


def register(task: Task) -> Task:
    """Add a task of your own; it then works by its name in every function and command of this process."""
    REGISTERED[task.name] = task
    return task
