"""An ensemble of classifiers as one network to export, and what its members must have in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from kzoo import runs
from kzoo.catalog import Preprocessing
from kzoo.data.dataset import DataSet, Split
from kzoo.errors import ExportError, KzooError
from kzoo.exporting.reader import Export
from kzoo.graph.ensemble import ensemble
from kzoo.progress import say
from kzoo.source import UNMEASURED, Source, find_source
from kzoo.tasks import Task


def check_distinct(members: Sequence[Any]) -> None:
    """Check that an ensemble has at least two members, and none twice, before any is loaded.

    Args:
        members: runs, exports, models, names, folders.

    Raises:
        KzooError: fewer than two, or one that is there twice.
    """
    if len(members) < 2:
        raise KzooError(f"An ensemble has two members or more, got {len(members)}: give another, or the one as it is.")
    seen = set()
    for member in members:
        place = member.path if isinstance(member, runs.Run) else member.folder if isinstance(member, Export) else member
        named = isinstance(place, (str, os.PathLike))
        key = id(place) if not named else os.path.realpath(place) if os.path.exists(place) else os.fspath(place)
        if key in seen:
            raise KzooError(f"{place if named else 'A model'} is twice in the ensemble: give each member once.")
        seen.add(key)


def member_name(member: Any) -> str:
    """What a message calls a member: its folder, or its name."""
    if isinstance(member, runs.Run):
        return str(member.path)
    if isinstance(member, Export):
        return str(member.folder)
    return os.fspath(member) if isinstance(member, (str, os.PathLike)) else str(getattr(member, "name", member))


def check_alike(members: Sequence[tuple[str, Task, Sequence[str]]]) -> None:
    """Check that the members' probabilities can be averaged: one task, the same classes in the same order.

    Args:
        members: (name for messages, task, classes) of each.

    Raises:
        KzooError: they can't.
    """
    (first, task, classes), *others = members
    if not task.calibrated:
        raise KzooError(f"An ensemble averages probabilities of classes; the task of {first} is {task.name}.")
    for name, other, names in others:
        if other.name != task.name:
            raise KzooError(f"The task of {name} is {other.name}, and that of {first} {task.name}: both must be one.")
        if tuple(names) != tuple(classes):
            i = next((i for i, (a, b) in enumerate(zip(names, classes, strict=False)) if a != b), None)
            theirs, ours = (len(names), len(classes)) if i is None else (repr(names[i]), repr(classes[i]))
            where = "of classes" if i is None else f"of class {i}"
            raise KzooError(
                f"The {'number' if i is None else 'name'} {where} is {theirs} in {name} and {ours} in {first}: the "
                "members of an ensemble have the same classes in the same order."
            )


def ensemble_source(
    members: Sequence[Any],
    *,
    weights: Any = None,
    classes: Sequence[str] | None = None,
    calibrate: Callable[[Source], tuple[float, str]] = lambda source: (source.temperature or 1.0, ""),
) -> Source:
    """Join members into one network to export, whose outputs are the logarithms of the averaged probabilities.

    Args:
        members: of each what `find_source` takes.
        weights, classes: as `find_source` takes them.
        calibrate: gives the temperature of a member, and why that one; by default the one that its run records.

    Returns:
        The Source, of temperature 1: those of the members are inside the network. Its parts are "test" and "val" where
        they are the same images for all members, so that each held them out.

    Raises:
        KzooError: members that can't be averaged.
        ExportError: members that take differently prepared images.
    """
    check_distinct(members)
    sources = [find_source(member, weights=weights, classes=classes) for member in members]
    labels = [member_name(member) for member in members]
    check_alike([(label, s.task, s.classes) for label, s in zip(labels, sources, strict=True)])
    first = sources[0]
    pixels = [(s.shape, pixels_of(s.preprocessing)) for s in sources]
    for label, (shape, how) in zip(labels, pixels, strict=True):
        if (shape, how) != pixels[0]:
            raise ExportError(
                f"{label} takes {_described(shape, how)}, and {labels[0]} takes {_described(*pixels[0])}: the members "
                "of an exported ensemble share their input. kzoo predict and kzoo evaluate take both."
            )
    same = all(s.preprocessing == first.preprocessing for s in sources)
    temperatures = [calibrate(s) for s in sources]
    facts = [
        {"name": s.name, "temperature": t, "temperature_reason": reason, **s.facts}
        for s, (t, reason) in zip(sources, temperatures, strict=True)
    ]
    licences = "; ".join(dict.fromkeys(s.facts["data_licence"] for s in sources if s.facts.get("data_licence")))
    return Source(
        f"{first.name}-ensemble-of-{len(sources)}",
        ensemble([s.model for s in sources], [t for t, _ in temperatures]),
        first.classes,
        first.preprocessing if same else pixels[0][1],
        first.task,
        splits=_common(sources),
        temperature=1.0,
        temperature_reason="The network averages its members' probabilities, each after a temperature of its own.",
        facts={"members": facts, "data_licence": licences},
        licence="; ".join(dict.fromkeys(s.licence for s in sources if s.licence)),
    )


def pixels_of(preprocessing: Preprocessing) -> Preprocessing:
    """What is done to a picture outside of the network: two with the same can share its prepared pixels."""
    return replace(preprocessing, channel_order="rgb", scale=1.0, offset=0.0)


def _described(shape, preprocessing):
    changed = {k: v for k, v in preprocessing.to_dict().items() if k in ("crop", "interpolation", "bits", "rules")}
    return f"{'x'.join(map(str, shape))} ({', '.join(f'{k} {v}' for k, v in changed.items() if v is not None)})"


def part_fingerprint(classes: Sequence[str], split: Split) -> str:
    """Hash the names, labels and contents of a part, to tell whether two members measure on the same images."""
    return DataSet("", tuple(classes), {"part": split}).fingerprint()


def _common(sources):
    """The parts that every member has, with the same images. A validation part of one of them is "train": a part that
    may be looked at, but that another member may have been trained on."""
    found = {}
    for name in ("val", "test"):
        parts = [s.splits.get(name) for s in sources]
        if all(parts) and len({part_fingerprint(sources[0].classes, part) for part in parts}) == 1:
            found[name] = parts[0]
        elif name == "test" and any(parts):
            say("Note: the members do not have the same test images, so the accuracy of the ensemble is not measured.")
    seen = next((s.splits[p] for s in sources for p in UNMEASURED if s.splits.get(p)), None)
    return found if "val" in found or seen is None else {"train": seen, **found}
