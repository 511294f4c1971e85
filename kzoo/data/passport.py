"""The passport of a data set: a report on what is in it and what is wrong with it, before training."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, dataclass, field
from itertools import combinations

import numpy as np

from kzoo.data.dataset import DataSet
from kzoo.data.guards import shown
from kzoo.data.labels import images_by_class, text_of
from kzoo.data.loading import load_data
from kzoo.data.masks import IGNORED, MaskFile
from kzoo.data.scan import Scan, bits_note, in_order, scan_images
from kzoo.errors import DataError
from kzoo.progress import Silent

SMALL = 32  # pixels of the shorter side below which a file is called very small
IMBALANCE = 3.0  # times that the largest class outnumbers the smallest, from which on it is a warning
FEW = 10  # training images below which a class is named
PAIRED = 200  # of the most frequent classes it is counted how often two are together
LISTED = 5  # of each kind in the text; JSON has all


@dataclass
class Passport:
    """What `check_data` found. All fields are JSON-able.

    Attributes:
        name: The source.
        seed: Of the division.
        images: How many can be decoded.
        classes: Names, by label.
        counts: {split: {class: images}}, of images that can be decoded.
        drawn: The splits between which kzoo divided the images.
        fingerprint: `DataSet.fingerprint`.
        sizes: {"width" and "height": {"min", "median", "max"}, "small": ids}.
        formats: {name: images}.
        modes: {name: images}, such as "grey" or "CMYK".
        orientations: {"FORMAT number": images}, by EXIF.
        unreadable: [{"id", "reason"}], files that can't be used.
        damaged: [{"id", "reason"}], files that decode although they are corrupt.
        wrong_suffix: [{"id", "format"}].
        duplicates: [{"ids", "splits", "classes", "exact"}], those across splits first; exact if the contents are the
            same, else near duplicates.
        imbalance: The largest class relative to the smallest, in training.
        class_weights: {class: n / (classes * n_c)} over the training images; {} where images have several labels.
        bits: Of 16-bit images, how many bits are used at most; 0 if there are none.
        several: Where images have several labels {"images": {split: n}, "unlabelled": {split: images without a label},
            "together": [{"classes": [a, b], "images"}], the pairs that most often occur together}, else {}. `counts`
            then counts an image for each of its labels, and the "classes" of `duplicates` are texts such as "a; b".
        pixels: Of masks, {split: {class: share of the pixels}}, "" for pixels without a label; {} without masks. A
            picture then counts for each class in its mask, and imbalance and weights are those of pixels.
        empty_masks: ids of pictures whose masks have no labelled pixel.
        warnings: Sentences, the most serious first.
    """

    name: str
    seed: int
    images: int
    classes: list[str]
    counts: dict[str, dict[str, int]]
    drawn: list[str]
    fingerprint: str
    sizes: dict
    formats: dict[str, int]
    modes: dict[str, int]
    orientations: dict[str, int]
    unreadable: list[dict]
    damaged: list[dict]
    wrong_suffix: list[dict]
    duplicates: list[dict]
    imbalance: float
    class_weights: dict[str, float]
    bits: int = 0
    several: dict = field(default_factory=dict)
    pixels: dict[str, dict[str, float]] = field(default_factory=dict)
    empty_masks: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def groups(self) -> list[list[str]]:
        """Lists of ids that are duplicates of each other."""
        return [d["ids"] for d in self.duplicates]

    @property
    def across(self) -> list[dict]:
        """The groups of duplicates that lie in several splits."""
        return [d for d in self.duplicates if len(set(d["splits"])) > 1]

    @property
    def contradictory(self) -> list[dict]:
        """The groups of duplicates with several labels."""
        return [d for d in self.duplicates if len(set(d["classes"])) > 1]

    @property
    def ok(self) -> bool:
        """Whether nothing would distort a result: no unreadable or damaged file, no duplicates across splits."""
        return not (self.unreadable or self.damaged or self.across)

    def to_dict(self) -> dict:
        """Return all fields and `ok`, for JSON."""
        return {**asdict(self), "ok": self.ok}

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    def __repr__(self) -> str:
        found = {
            "unreadable": self.unreadable,
            "corrupt": self.damaged,
            "across parts": self.across,
        }
        wrong = ", ".join(f"{len(v):,} {what}" for what, v in found.items() if v) or "ok"
        return f"<Passport of {shown(self.name)}: {self.images:,} images, {len(self.classes):,} classes; {wrong}>"


def check_data(
    source: str | os.PathLike | DataSet,
    *,
    seed: int = 0,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    bits: int | None = None,
    bar: Silent | None = None,
) -> Passport:
    """Read each image of a data set, and report what is in it and what is wrong with it.

    Images are counted and measured as training sees them: upright by EXIF, unreadable ones left out. Duplicates are
    equal files, equal arrays, and pictures that look the same (`kzoo.data.duplicates`). Keras is not needed.

    Args:
        source: What `kzoo.load_data` takes, divided as with `group_duplicates=True`; or a DataSet, which is left as it
            is. One that was loaded with `group_duplicates=True` is not read again.
        seed: As in `kzoo.load_data`.
        val_fraction: As in `kzoo.load_data`.
        test_fraction: As in `kzoo.load_data`.
        bits: Of 16-bit images, how many bits training will be told are used (`kzoo.Preprocessing.bits`).
        bar: A `kzoo.progress`.

    Returns:
        A Passport.

    Raises:
        DataError: There is no such data set, or it can't be used at all.

    Example:
        >>> p = kzoo.check_data("digits")
        >>> p.images, p.counts["val"]["0"], p.ok
        (1797, 18, True)
    """
    if isinstance(source, DataSet):
        data = source
    else:
        data = load_data(
            source,
            seed=seed,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            group_duplicates=True,
            bits=bits,
            bar=bar,
        )
    seen = data.scan if isinstance(data.scan, Scan) else scan_images(data.splits, bar)
    masked = data.masks
    pixels, bad_masks = _pixels(data, seen) if masked else ({}, [])
    place, labels = {}, {}
    for part, split in data.splits.items():
        usable = [i for i, id in enumerate(split.ids) if seen.infos[seen.row[id]].fault is None]
        usable = [i for i in usable if not masked or split.ids[i] in pixels]
        labels[part] = split.labels[usable]
        place.update({split.ids[i]: (part, "" if masked else text_of(split.labels[i], data.classes)) for i in usable})
    infos = {id: seen.infos[seen.row[id]] for id in place}
    shares = {}
    if masked:  # a picture counts for each class in its mask, and imbalance and weights are those of pixels
        of_part = {part: [pixels[id] for id, (p, _) in place.items() if p == part] for part in data.splits}
        shares = {part: sum(found, np.zeros(256, int)) for part, found in of_part.items()}
        present = {part: sum((n[: len(data.classes)] > 0 for n in found), 0) for part, found in of_part.items()}
        counts = {part: (present[part] + np.zeros(len(data.classes), int)).tolist() for part in data.splits}
        counted = shares.get("train", np.zeros(256, int))[: len(data.classes)].tolist()
        total = sum(counted)
    else:
        counts = {part: images_by_class(found, len(data.classes)).tolist() for part, found in labels.items()}
        counted = counts.get("train", [0] * len(data.classes))
        total = len(labels.get("train", ()))
    weights = {c: total / (len(counted) * k) if k else 0.0 for c, k in zip(data.classes, counted, strict=True)}
    faults = [(id, seen.infos[seen.row[id]].fault) for s in data.splits.values() for id in s.ids if id not in place]
    faults = [*((id, reason) for id, reason in faults if reason), *bad_masks]
    found = Passport(
        name=data.name,
        seed=seed,
        images=len(place),
        classes=list(data.classes),
        counts={part: dict(zip(data.classes, of_part, strict=True)) for part, of_part in counts.items()},
        drawn=list(data.drawn),
        fingerprint=data.fingerprint(),
        sizes=_sizes(infos),
        formats=_count(k.format for k in infos.values()),
        modes=_count(m for k in infos.values() for m in k.modes),
        orientations=_count(f"{k.format} {k.orientation}" for k in infos.values() if k.orientation > 1),
        unreadable=[{"id": id, "reason": reason} for id, reason in [*data.skipped, *faults]],
        damaged=[{"id": id, "reason": k.damage} for id, k in infos.items() if k.damage],
        wrong_suffix=[{"id": id, "format": k.format} for id, k in infos.items() if k.wrong_suffix],
        duplicates=_duplicates(seen, place),
        imbalance=max(counted) / max(min(counted), 1),
        class_weights={} if data.several else weights,
        bits=max((k.bits for k in infos.values()), default=0),
        several=_several(labels, data.classes) if data.several else {},
        pixels={part: _shares(numbers, data.classes) for part, numbers in shares.items()},
        empty_masks=[id for id in place if masked and not pixels[id][: len(data.classes)].any()],
    )
    found.warnings = list(_warnings(found, bits))
    near = sum(not d["exact"] for d in found.duplicates)
    if near and found.drawn and not isinstance(source, DataSet):
        count = _n(near, "group")
        found.warnings.append(
            f"{count} of near duplicates, kept in one part here and by kzoo finetune; kzoo train keeps only identical "
            "images together."
        )
    return found


def _several(labels, classes):
    """`Passport.several`. labels: {split: (N, C)}."""
    every = np.concatenate(list(labels.values()))
    often = np.sort(np.argsort(-every.sum(0, dtype="int64"), kind="stable")[:PAIRED])
    shared = [every[every[:, a] == 1][:, often].sum(0, dtype="int64") for a in often]
    pairs = [(int(shared[i][j]), classes[often[i]], classes[often[j]]) for i, j in combinations(range(len(often)), 2)]
    pairs = sorted((p for p in pairs if p[0]), key=lambda p: -p[0])[:LISTED]
    return {
        "images": {part: len(found) for part, found in labels.items()},
        "unlabelled": {part: int((~found.any(1)).sum()) for part, found in labels.items()},
        "together": [{"classes": [a, b], "images": n} for n, a, b in pairs],
    }


def _pixels(data, seen):
    """({id: pixels of each number, int (256,)} of the masks of images that can be decoded, [(id, reason)])."""

    def count(item):
        id, label = item
        try:
            mask = label.read() if isinstance(label, MaskFile) else label
        except (DataError, OSError) as e:
            return id, None, str(e)
        numbers = np.bincount(mask.reshape(-1), minlength=256)
        outside = np.flatnonzero(numbers[len(data.classes) : IGNORED])
        if len(outside):
            return id, None, f"has a mask with the value {outside[0] + len(data.classes)}, which is no class"
        return id, numbers, None

    items = [pair for s in data.splits.values() for pair in zip(s.ids, s.labels, strict=True)]
    items = [(id, label) for id, label in items if seen.infos[seen.row[id]].fault is None]
    found = list(in_order(count, items))
    return {id: n for id, n, reason in found if reason is None}, [(id, reason) for id, _, reason in found if reason]


def _shares(numbers, classes):
    """{class: share of all pixels}, "" for pixels without a label."""
    return {c: float(numbers[i] / max(numbers.sum(), 1)) for i, c in [*enumerate(classes), (IGNORED, "")]}


def _count(items):
    return dict(Counter(items).most_common())


def _sizes(infos):
    if not infos:
        return {"small": []}
    sides = np.array([(k.width, k.height) for k in infos.values()])
    result = {
        name: {"min": int(x.min()), "median": float(np.median(x)), "max": int(x.max())}
        for name, x in zip(("width", "height"), sides.T, strict=True)
    }
    uniform = (sides == sides[0]).all()  # as in arrays: then small is the data's own size
    small = [] if uniform else [id for id, side in zip(infos, sides.min(1), strict=True) if side < SMALL]
    return {**result, "small": small}


def _duplicates(seen, place):
    """Groups of two or more among the images in `place`, those across splits first, then those with several labels."""
    groups = {}
    for id, number in zip(seen.ids, seen.groups, strict=True):
        if id in place:
            groups.setdefault(int(number), []).append(id)
    found = []
    for ids in groups.values():
        if len(ids) > 1:
            digests = {seen.infos[seen.row[id]].digest for id in ids}
            splits, classes = zip(*(place[id] for id in ids), strict=True)
            found.append({"ids": ids, "splits": splits, "classes": classes, "exact": len(digests) == 1})
    for d in found:
        d["splits"], d["classes"] = list(d["splits"]), list(d["classes"])
    return sorted(found, key=lambda d: (len(set(d["splits"])) == 1, len(set(d["classes"])) == 1))


def ends(group: dict) -> tuple[int, int]:
    """Choose the two images of a group of duplicates that show best what is wrong.

    Args:
        group: One of `Passport.duplicates`.

    Returns:
        Positions of two images: of different splits, else of different classes, else the first two.
    """
    for key in ("splits", "classes"):
        other = next((i for i, v in enumerate(group[key]) if v != group[key][0]), None)
        if other is not None:
            return 0, other
    return 0, 1


def _warnings(p, bits):
    """Sentences on what is wrong, the worst first."""
    ours = sum(set(d["splits"]) <= set(p.drawn) for d in p.across)
    if len(p.across) > ours:
        count = _n(len(p.across) - ours, "group")
        yield f"{count} of duplicates across splits: the result will look better than it is."
    if ours:
        yield f"{_n(ours, 'group')} of duplicates across splits: kzoo did not keep them together."
    if p.contradictory:
        yield f"{_n(len(p.contradictory), 'group')} of duplicates with different labels: one of the labels is wrong."
    if p.unreadable:
        yield f"{_n(len(p.unreadable), 'file')} can't be used and {_are(len(p.unreadable))} skipped."
    if p.damaged:
        yield f"{_n(len(p.damaged), 'file')} {_are(len(p.damaged))} corrupt, although they decode."
    if bits is None and (note := bits_note(p.bits)):
        yield note
    if bits is not None and p.bits > bits:
        yield f"The 16-bit images use {p.bits} bits, so bits={bits} would make all brighter values white."
    if p.wrong_suffix:
        yield f"{_n(len(p.wrong_suffix), 'file')} with a suffix of another format (kzoo goes by content)."
    train = p.counts.get("train", {})
    few = {c: n for c, n in train.items() if n < FEW}
    if few:
        named = ", ".join(f"{shown(c)[:24]} ({n})" for c, n in list(few.items())[:LISTED])
        yield f"Few training images: {named}{', ...' if len(few) > LISTED else ''}."
    for part in p.counts:
        absent = [c for c, n in p.counts[part].items() if not n]
        if absent and part != "train":
            named = ", ".join(shown(c)[:24] for c in absent[:LISTED])
            yield f"No image in {part}: {named}{', ...' if len(absent) > LISTED else ''}."
    if "val" not in p.counts:
        yield "No validation part: kzoo draws one from the training images."
    if p.imbalance >= IMBALANCE and not p.several:
        how = "a loss for rare classes, such as focal+dice" if p.pixels else "class weights"
        yield f"Classes differ by a factor of {p.imbalance:.3g}: use {how}."
    if p.empty_masks:
        yield f"{_n(len(p.empty_masks), 'mask')} without a labelled pixel, such as {shown(p.empty_masks[0])[-40:]}."
    if p.sizes["small"]:
        yield f"{_n(len(p.sizes['small']), 'image')} with a side below {SMALL} pixels."


def _n(n, noun):
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _are(n):
    return "is" if n == 1 else "are"


# --- text, 80 columns ------------------------------------------------------------------------------------


def _lines(p):
    from textwrap import wrap

    parts = list(p.counts)
    head = f"{shown(p.name)[-30:]}: {_n(p.images, 'image')}, {_n(len(p.classes), 'class').replace('classs', 'classes')}"
    by = f"; kzoo divided it (seed {p.seed})" if p.drawn else ""
    yield head + by
    yield ""
    names = [_fit(c, 30) for c in p.classes]
    width = max(6, *map(len, names))
    yield f"{'class':{width}}" + "".join(f"{part:>9}" for part in parts) + ("" if p.several else "   weight")
    listed = range(len(names)) if len(names) <= 40 else [*range(30)]
    for i in listed:
        c = p.classes[i]
        weight = "" if p.several else f"{p.class_weights[c]:9.3g}"
        yield f"{names[i]:{width}}" + "".join(f"{p.counts[part][c]:9,}" for part in parts) + weight
    if len(listed) < len(names):
        yield f"... and {len(names) - len(listed):,} more classes; --json has all"
    totals = {part: sum(p.counts[part].values()) for part in parts}
    if p.several:
        yield f"{'-':{width}}" + "".join(f"{p.several['unlabelled'][part]:9,}" for part in parts) + "  without a label"
        totals = p.several["images"]
    yield f"{'all':{width}}" + "".join(f"{totals[part]:9,}" for part in parts)
    yield ""
    for name, text in _facts(p):
        yield from wrap(text, 80, initial_indent=f"{name:13}", subsequent_indent=" " * 13, break_on_hyphens=False)
    for title, rows in _listings(p):
        yield ""
        yield title
        for row in rows[:LISTED]:
            yield f"  {row}"
        if len(rows) > LISTED:
            yield f"  ... and {len(rows) - LISTED:,} more; --json has all"
    yield ""
    if p.warnings:
        for sentence in p.warnings:
            yield from wrap(sentence, 80, initial_indent="! ", subsequent_indent="  ")
    else:
        yield "No problems found."


def _fit(name, width):
    """The name of a class, cut in the middle to the width of a column."""
    text = shown(name)
    return text if len(text) <= width else text[: width // 2 - 2] + "..." + text[-(width - width // 2 - 1) :]


def _facts(p):
    if p.several:
        labels, images = (sum(sum(c.values()) for c in p.counts.values()), max(p.images, 1))
        pairs = [f"{shown(t['classes'][0])} + {shown(t['classes'][1])} {t['images']:,}" for t in p.several["together"]]
        together = f"; most often together: {', '.join(pairs)}" if pairs else ""
        yield "labels", f"several an image, {labels / images:.2g} on average{together}"
    if "width" in p.sizes:
        w, h = p.sizes["width"], p.sizes["height"]
        yield (
            "size",
            (f"{w['min']}x{h['min']} at least, {w['median']:g}x{h['median']:g} median, {w['max']}x{h['max']} at most"),
        )

    def listed(counts):
        return ", ".join(f"{name} {n:,}" for name, n in counts.items())

    yield "formats", listed(p.formats) or "none"
    if p.modes:
        yield "modes", listed(p.modes)
    if p.orientations:
        honoured = sum(n for k, n in p.orientations.items() if k.startswith("JPEG"))
        others = sum(p.orientations.values()) - honoured
        text = f"EXIF turns {_n(honoured, 'JPEG')}: kzoo honours it"
        yield "orientation", text + (f"; in {_n(others, 'other file')} it does not" if others else "")
    if p.duplicates:
        exact = sum(d["exact"] for d in p.duplicates)
        yield (
            "duplicates",
            (
                f"{_n(exact, 'group')} of identical images, {len(p.duplicates) - exact:,} of near duplicates; "
                f"{len(p.across):,} across splits, {len(p.contradictory):,} with different labels"
            ),
        )
    else:
        yield "duplicates", "none"
    if p.pixels:
        part = next(iter(p.pixels))
        rows = [(shown(c)[:24] or "no label", share) for c, share in p.pixels[part].items()]
        more = f", and {len(rows) - 13} more classes" if len(rows) > 13 else ""
        yield f"{part} pixels", ", ".join(f"{c} {share:.2%}" for c, share in [*rows[:-1][:12], rows[-1]]) + more
    unit = " by pixels" if p.pixels else ""
    yield "imbalance", f"{p.imbalance:.3g} (largest class / smallest{unit}, in training)"


def _listings(p):
    def brief(d):
        def where(i):
            id, part = d["ids"][i], d["splits"][i]
            return shown(id if id.startswith(f"{part}/") else f"{part}: {id}")

        last = ends(d)[1]
        more = f" (and {len(d['ids']) - 2})" if len(d["ids"]) > 2 else ""
        first, second = where(0), f"{'=' if d['exact'] else '~'} {where(last)}{more}"
        # Names are never cut: somebody may want to delete the file.
        return f"{first} {second}" if len(first) + len(second) < 78 else f"{first}\n    {second}"

    yield from (
        (title, rows)
        for title, rows in (
            ("Duplicates across splits (= identical, ~ near duplicates)", [brief(d) for d in p.across]),
            ("Duplicates with different labels", [brief(d) for d in p.contradictory]),
            ("Skipped", [f"{shown(f['id'])}: {shown(f['reason'])}" for f in p.unreadable]),
            ("Corrupt", [f"{shown(f['id'])}: {shown(f['reason'])}" for f in p.damaged]),
            ("Wrong suffix", [f"{shown(f['id'])}: is {f['format']}" for f in p.wrong_suffix]),
        )
        if rows
    )
