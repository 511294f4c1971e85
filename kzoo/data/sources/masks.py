"""A folder of pictures and their masks: images/ and masks/, or train/images, train/masks and so on.

The rules (`kzoo/data/README.md` has them for users):

- A picture and its mask have the same name apart from the suffix, or the mask's ends in _mask; and the same size.
- What the pixels of masks mean is said by a table (`kzoo.data.masks.TABLES`) beside images/ or above the parts. Without
  one, masks hold the numbers 0, 1, ... of classes.
- Pictures without a mask, masks without a picture, and files that can't be used are listed as skipped.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from kzoo.data.dataset import DataSet, Split, part_of
from kzoo.data.guards import declared, is_picture, shown, upright_size
from kzoo.data.guards import read as contents_of
from kzoo.data.listing import contents, files_below
from kzoo.data.masks import IGNORED, TABLES, MaskFile, Table, read_table, values_of
from kzoo.data.scan import in_order
from kzoo.errors import DataError
from kzoo.progress import say

IMAGES = ("images", "image", "imgs", "img")
MASKS = ("masks", "mask", "annotations", "labels")


def matches(source: str) -> bool:
    """Return whether this kind reads the source: a folder with images/ and masks/ in it, or in its parts."""
    return os.path.isdir(source) and _find(Path(source)) is not None


def read(source: str | os.PathLike) -> DataSet:
    """Read a folder of pictures and masks.

    Headers are checked, and that a picture and its mask have one size. Without a table every mask is decoded, to know
    the classes.

    Args:
        source: The folder.

    Returns:
        A DataSet of paths, whose labels are `kzoo.data.masks.MaskFile`.

    Raises:
        DataError: There are no pairs, the table can't be read, or masks hold numbers that it does not explain.
    """
    root = Path(source)
    base, folders = _find(root) or (root, {})
    skipped, pairs = [], {}
    for part in sorted(folders, key=["all", "train", "val", "test"].index):
        images, masks = folders[part]
        found = _pairs(root, images, masks, skipped)
        if found or part in ("all", "train"):
            pairs[part] = found
        else:
            skipped.append((os.path.relpath(images, root), f"has no usable pair, so there is no {part} part"))
    if not any(pairs.values()):
        reason = f" ({shown(skipped[0][0])} {skipped[0][1]})" if skipped else ""
        raise DataError(f"'{root}' has no picture with a mask of the same name and size.{reason}")
    tables = [p for d in dict.fromkeys((root, base)) for p in contents(d)[1] if p.name.lower() in TABLES]
    if len(tables) > 1:
        raise DataError(f"'{root}' has {shown(tables[0].name)} and {shown(tables[1].name)}: keep one table of classes.")
    table = read_table(tables[0]) if tables else _numbered(root, pairs, skipped)
    if IGNORED in dict(table.colours).values():
        say(f"Note: a row of {shown(tables[0].name)} is no class by its name or number: its pixels have no label.")
    splits = {}
    for part, found in pairs.items():
        labels = np.empty(len(found), object)
        labels[:] = [MaskFile(str(mask), table) for _, mask in found]
        images = [str(image) for image, _ in found]
        splits[part] = Split(images, labels, [os.path.relpath(path, root) for path in images])
    return DataSet(str(root), table.classes, splits, skipped)


def _find(root):
    """(the folder that holds the parts, {part: (folder of images, folder of masks)}), or None."""
    seen = set()
    while os.path.realpath(root) not in seen:
        seen.add(os.path.realpath(root))
        inside = contents(root)[0]
        pair = _pair(inside)
        if pair:
            return root, _parts_within(pair)
        parts = {}
        for folder in inside:
            part = part_of(folder.name)
            pair = part and _pair(contents(folder)[0])
            if pair:
                if part in parts:
                    raise DataError(f"'{root}' has two folders that mean the part {part}: keep one of them.")
                parts[part] = pair
        if parts:
            return root, parts
        if len(inside) != 1:
            return None
        root = inside[0]
    return None


def _pair(folders):
    images = [d for d in folders if d.name.lower() in IMAGES]
    masks = [d for d in folders if d.name.lower() in MASKS]
    return (images[0], masks[0]) if len(images) == 1 and len(masks) == 1 else None


def _parts_within(pair):
    """images/train and masks/train, ...; else the two folders themselves as the part "all"."""
    inside = [{part_of(d.name): d for d in contents(folder)[0]} for folder in pair]
    if None in inside[0] or not inside[0] or inside[0].keys() != inside[1].keys():
        return {"all": pair}
    return {part: (inside[0][part], inside[1][part]) for part in inside[0]}


def _pairs(root, images, masks, skipped):
    """[(picture, mask)] of two folders; what is left out is added to `skipped`."""

    def relative(path):
        return os.path.relpath(path, root)

    def lost(e):
        skipped.append((relative(e.filename), f"can't be read ({e.strerror})"))

    def listed(folder):
        again: list = []
        found = files_below(folder, None, lost, again)
        skipped.extend((relative(path), f"is the same file as {shown(relative(first))}") for path, first in again)
        return [path for path in found if is_picture(path)]

    by_name, found, used = {}, [], {}
    for path in listed(masks):
        name = str(path.relative_to(masks).with_suffix(""))
        other = by_name.setdefault(name, path)
        if other is not path:
            skipped.append((relative(path), f"has the name of another mask, {shown(relative(other))}"))
    for path in listed(images):
        name = str(path.relative_to(images).with_suffix(""))
        key = next((k for k in (name, f"{name}_mask") if k in by_name), None)
        if key is None:
            skipped.append((relative(path), "has no mask"))
        elif key in used:
            skipped.append((relative(path), f"has the name of another picture, {shown(relative(used[key]))}"))
        else:
            used[key] = path
            found.append((path, by_name[key]))
    skipped += [(relative(path), "is a mask without a picture") for k, path in by_name.items() if k not in used]
    good = []
    for pair, reason in zip(found, in_order(_fault, found), strict=True):
        if reason:
            skipped.append((relative(pair[0]), reason))
        else:
            good.append(pair)
    return good


def _fault(pair):
    """Why a picture and a mask can't be used, by their headers; None if nothing is wrong so far."""
    try:
        height, width = upright_size(contents_of(pair[0]))
    except DataError as e:
        return str(e)
    try:
        mask_width, mask_height = declared(contents_of(pair[1]))
    except DataError as e:
        return f"has a mask that {e}"
    if (width, height) != (mask_width, mask_height):
        return f"has {width} x {height} pixels, and its mask has {mask_width} x {mask_height}"
    return None


def _numbered(root, pairs, skipped):
    """The table of masks that hold the numbers of classes, from all of them."""

    def numbers(pair):
        try:
            values = values_of(pair[1])
        except DataError as e:
            return None, str(e)
        if values.ndim == 3:
            return None, "has a mask in colours, which need a table"
        return np.bincount(values.reshape(-1), minlength=256) > 0, None

    present = np.zeros(256, bool)
    for part, found in pairs.items():
        good = []
        for pair, (values, reason) in zip(found, in_order(numbers, found), strict=True):
            if reason:
                skipped.append((os.path.relpath(pair[0], root), reason))
            else:
                present |= values
                good.append(pair)
        pairs[part] = good
    values = np.flatnonzero(present[:IGNORED]).tolist()
    advice = f"write {TABLES[0]} with the columns name,index or name,r,g,b into '{root}', to say what they mean."
    if not any(pairs.values()):
        raise DataError(f"The masks of '{root}' are in colours or can't be read ({skipped[-1][1]}): {advice}")
    if values != list(range(len(values))) or len(values) < 2:
        listed = ", ".join(map(str, values[:8] + [IGNORED] * bool(present[IGNORED])))
        raise DataError(f"The masks of '{root}' hold the values {listed}, not 0, 1, ... for classes: {advice}")
    return Table(tuple(map(str, values)), indices=tuple((v, v) for v in values))
