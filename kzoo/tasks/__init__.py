"""Tasks: what a network is trained for, one file for each. Other modules ask the task object and never branch on it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from kzoo.errors import RunError, unknown
from kzoo.tasks.task import Evaluation, Task

if TYPE_CHECKING:
    from kzoo.data.dataset import DataSet

__all__ = ["TASKS", "Evaluation", "Task", "find", "register", "task_for"]

# Name -> the module that has the task as TASK; it is imported when the task is used.
TASKS = {name: f"kzoo.tasks.{name}" for name in ("classification", "multilabel", "segmentation")}
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


def task_for(name: str, data: DataSet) -> Task:
    """The task of a network for a data set: several labels an image make of classification multilabel.

    Args:
        name: the task of the network's row.
        data: what it is trained on.

    Raises:
        RunError: the task needs other labels than the data has.

    Example:
        >>> from kzoo.data.loading import load_data
        >>> task_for("classification", load_data("digits")).name
        'classification'
    """
    if data.several and name not in ("classification", "multilabel"):
        raise RunError(f"'{data.name}' has several labels an image, and the network is for {name}: choose another.")
    if name == "multilabel" and not data.several:
        raise RunError(f"'{data.name}' has one class an image, and the network is for several: choose another.")
    return find("multilabel" if data.several else name)


def register(task: Task) -> Task:
    """Register a task of your own, so that it can be used by its name in this process.

    Args:
        task: an object of a subclass of Task. It replaces a registered task of the same name.

    Returns:
        The same task.
    """
    REGISTERED[task.name] = task
    return task
