"""Tasks: what a network is trained for, one file for each. Other modules ask the task object and never branch on it."""

from __future__ import annotations

from importlib import import_module

from kzoo.errors import unknown
from kzoo.tasks.task import Evaluation, Task

__all__ = ["TASKS", "Evaluation", "Task", "find", "register"]

# Name -> the module that has the task as TASK; it is imported when the task is used.
TASKS = {"classification": "kzoo.tasks.classification", "multilabel": "kzoo.tasks.multilabel"}
REGISTERED: dict[str, Task] = {}


def find(name: str) -> Task:
    """Find a task by its name.

    Args:
        name: a key of `TASKS`, or the name of a registered task.

    Returns:
        The task.

    Raises:
        UnknownName: no task has that name; the message suggests the nearest one.

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
    """Register a task of your own, so that it can be used by its name in this process.

    Args:
        task: an object of a subclass of Task. It replaces a registered task of the same name.

    Returns:
        The same task.
    """
    REGISTERED[task.name] = task
    return task
