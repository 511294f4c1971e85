"""A folder of class folders, or of train/, validation/ and test/ folders with class folders in them.

The rules (`kzoo/data/README.md` has them for users):

- Clutter of systems (`kzoo.data.guards.is_clutter`) does not exist.
- A folder is a part if its name is one of `kzoo.data.dataset.PARTS`, or has one of them among its words, as seg_train
  test-images and valset have, and class folders in it. Of the two the plain name wins.
- A folder with one folder in it that holds folders itself is a wrapper and looked through.
- Pictures outside class folders, and those of folders beside the parts, are listed as skipped.
- What could be read in two ways is refused.
"""

from __future__ import annotations

import os
import re
from array import array
from pathlib import Path

import numpy as np

from kzoo.data.dataset import DataSet, Split, part_in, part_of
from kzoo.data.guards import glance, is_picture, shown
from kzoo.data.labels import class_names
from kzoo.data.listing import Identities, contents, files_below, folders_in, paths_below
from kzoo.data.scan import in_order
from kzoo.data.sequences import Names
from kzoo.errors import DataError

# Names of folders that are rather a wrapper than a class, if there are folders in them.
WRAPPER = re.compile(
    r"(cv|k?folds?|splits?|parts?|sets?|subsets?|batch|batches|versions?|v)[\s_.-]*\w{1,3}"
    r"|images?|imgs?|data|labels?|masks?|annotations?|pictures|photos|raw|original|resized|augmented|gt"
)


def matches(source: str) -> bool:
    """Return whether this kind reads the source: an existing folder."""
    return os.path.isdir(source)


def read(source: str | os.PathLike) -> DataSet:
    """Read a folder of class folders, or of train/, validation/ and test/ folders with class folders in them.

    Only headers are checked; files that can't be images are `skipped` with the reason. So are pictures outside class
    folders and in folders beside the parts, and the second name of a file that has two in one part.

    Args:
        source: The folder.

    Returns:
        A DataSet of paths, with the part "all", or with those that its folders name. ids are relative to the folder.

    Raises:
        DataError: The folder has no class folders, can't be read, has two folders for one part, could be read in
            two ways, or has classes whose names differ in case or white space only.
    """
    root = Path(source)
    layout = _Layout(root)
    names = class_names({c.name for folder in layout.parts.values() for c in folders_in(folder)}, root)
    classes = sorted(set(names.values()))
    if not classes:
        raise DataError(f"'{root}' has no class folders: put the images of each class into a folder of its own.")
    number = {c: i for i, c in enumerate(classes)}
    skipped, splits = [], {}

    prefix = "" if root == Path() else os.path.join(root, "")

    def relative(path):
        return os.path.relpath(path, root)

    def lost(e):
        skipped.append((relative(e.filename), f"can't be read ({e.strerror})"))

    for part, folder in layout.parts.items():
        files, labels = Identities(), array("q")

        def listed(folder=folder, files=files, labels=labels):
            for c in sorted(folders_in(folder), key=_by_class(names)):
                _refuse_a_class_in_another(c, names)
                for path in paths_below(c, lost):
                    files.add(path)
                    labels.append(number[names[c.name]])
                    yield path[len(prefix) :]

        ids = Names(listed())
        images, label, first = ids.below(prefix), np.array(labels, "int64"), files.first()
        again = first != np.arange(len(ids))
        usable = ~again
        for i, reason in zip(
            np.flatnonzero(~again), in_order(glance, images.take(np.flatnonzero(~again))), strict=True
        ):
            if reason:
                usable[i] = False
                skipped.append((ids[i], reason))
        for i in np.flatnonzero(again):
            other = ", which has another label" if usable[first[i]] and label[first[i]] != label[i] else ""
            skipped.append((ids[i], f"is the same file as {shown(ids[first[i]])}{other}"))
        if not usable.any() and part not in ("all", "train"):
            if not layout.loose_below(folder):
                skipped.append((relative(folder), f"holds no usable picture, so there is no {part} part"))
            continue
        kept = np.flatnonzero(usable)
        splits[part] = Split(images.take(kept), label[kept], ids.take(kept))
    skipped += [(relative(path), reason) for path, reason in layout.unused]
    return DataSet(str(root), tuple(classes), splits, skipped)


def _refuse_a_class_in_another(folder, names):
    for inner in folders_in(folder):
        if names.get(inner.name, names[folder.name]) != names[folder.name]:
            raise DataError(
                f"'{inner}' lies in the class {shown(folder.name)} and has the name of another class: move its "
                f"pictures into {shown(inner.name)}/ if they belong there, else rename it."
            )


def _by_class(names):
    return lambda folder: (names[folder.name], os.fsencode(folder))


class _Layout:
    """Where the parts of a folder are.

    Attributes:
        parts: {part: the folder with its class folders}; "all" for an undivided folder.
        unused: (path, reason) of pictures that belong to no class folder of a part.
    """

    def __init__(self, root):
        self.root, self.unused = root, []
        base, named, others = self._find(root)
        if named is None:
            self.parts = {"all": base}
            self._refuse_parts_in_classes(base)
            self._refuse_wrappers_as_classes(base)
            self._loose(base)
            return
        self._loose(base)
        for folder in others:
            reason = f"lies in {folder.name}/, which is none of the parts {', '.join(d.name for d in named.values())}"
            self.unused += [(path, reason) for path in files_below(folder) if is_picture(path)]
        self.parts, known = {}, set()
        for part in sorted(named, key=["train", "val", "test"].index):
            self.parts[part] = self._look_through(named[part], known)
            self._loose(self.parts[part])
            if part == "train":
                known = {d.name for d in folders_in(self.parts[part])}

    def loose_below(self, folder):
        """Whether pictures of this part are among the unused."""
        return any(path.is_relative_to(folder) for path, _ in self.unused)

    def _loose(self, folder):
        self.unused += [(path, "lies outside the class folders") for path in contents(folder)[1] if is_picture(path)]

    def _find(self, base):
        """(the folder with the parts, {part: folder}, the folders beside them), or (the one with classes, None, [])."""
        seen = set()
        while True:
            named, others = self._named(base)
            if named:
                return base, named, others
            inside = folders_in(base)
            seen.add(os.path.realpath(base))
            if len(inside) != 1 or not folders_in(inside[0]) or os.path.realpath(inside[0]) in seen:
                return base, None, []
            self._loose(base)
            base = inside[0]

    def _look_through(self, folder, known):
        """The folder with the class folders of a part: behind wrappers. known: names of the classes of training."""
        seen = set()
        while True:
            inside = folders_in(folder)
            seen.add(os.path.realpath(folder))
            if len(inside) != 1 or inside[0].name in known or os.path.realpath(inside[0]) in seen:
                return folder
            if not folders_in(inside[0]) and inside[0].name.lower() != folder.name.lower():
                return folder
            self._loose(folder)
            folder = inside[0]

    def _named(self, base):
        """({part: folder}, the folders beside them); ({}, []) if `base` holds classes or a wrapper."""
        inside = folders_in(base)
        plain = [d for d in inside if part_of(d.name)]
        parts = self._one_each(base, [(part_of(d.name), d) for d in plain])
        worded = [(p, d) for d in inside if d not in plain and (p := part_in(d.name)) and folders_in(d)]
        more = self._one_each(base, [(p, d) for p, d in worded if p not in parts])
        others = [d for d in inside if d not in parts.values() and d not in more.values()]
        if not parts and ("train" not in more or (len(more) == 1 and others)):
            return {}, []
        deep = [d for d in parts.values() if folders_in(d)]  # those with class folders
        if not deep and not more and others:  # classes, of which one has the name of a part
            odd = [d for p, d in parts.items() if d.name.lower() not in ("train", "training", "valid")]
            if odd:
                self._ambiguous(base, odd[0], others)
            return {}, []
        parts = {**parts, **more}
        pictured = [d for d in others if any(map(is_picture, files_below(d)))]
        # Beside one part alone, or beside none to train on, other folders with pictures are as likely classes.
        if pictured and (len(parts) == 1 or "train" not in parts):
            self._ambiguous(base, next(iter(parts.values())), pictured)
        return parts, others

    def _one_each(self, base, named):
        parts = {}
        for part, folder in named:
            other = parts.setdefault(part, folder)
            if other is not folder:
                raise DataError(
                    f"'{base}' has {shown(other.name)}/ and {shown(folder.name)}/, which mean the same part: "
                    "keep one of them."
                )
        return parts

    def _ambiguous(self, base, folder, others):
        listed = ", ".join(f"{shown(d.name)}/" for d in others[:3]) + (", ..." if len(others) > 3 else "")
        part = {"train": "training", "val": "validation", "test": "test"}[part_of(folder.name) or part_in(folder.name)]
        raise DataError(
            f"'{base}' has {shown(folder.name)}/ beside {listed}, which can be read in two ways. If "
            f"{shown(folder.name)} is the {part} part, put the class folders of each part into train/, val/ or test/ "
            f"and move what is left elsewhere; if it is a class, rename it."
        )

    def _refuse_parts_in_classes(self, base):
        for folder in folders_in(base):
            folders, loose = contents(folder)
            inside = [d.name for d in folders]
            several = len({part_of(n) for n in inside} - {None}) > 1
            if several or (folders and not loose and all(part_of(d.name) and folders_in(d) for d in folders)):
                raise DataError(
                    f"'{folder}' holds {', '.join(f'{shown(n)}/' for n in inside if part_of(n))}, so it would be a "
                    f"class with parts in it. If it is a data set, give '{folder}' as the data; if it is a class, "
                    f"make folders like train/{shown(folder.name)}."
                )

    def _refuse_wrappers_as_classes(self, base):
        """fold1/ and fold2/, or images/ and masks/, with the same folders in each are no classes."""
        outer = folders_in(base)
        if len(outer) < 2 or not all(WRAPPER.fullmatch(d.name.lower()) for d in outer):
            return
        inside = [{c.name for c in folders_in(d)} for d in outer]
        common = sorted(set.intersection(*inside))
        if len(common) > 1:
            both = ", ".join(f"{shown(n)}/" for n in common[:3])
            raise DataError(
                f"'{base}' holds {shown(outer[0].name)}/, {shown(outer[1].name)}/{', ...' if outer[2:] else ''} with "
                f"the same folders ({both}) in each, so they would be the classes. Rename them to train, val and test "
                f"if they are parts, or give one of them as the data, such as '{outer[0]}'."
            )
