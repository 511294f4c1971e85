"""`kzoo.visualize`: the pieces of a report, one after the other within a budget, kept when finished, and the page."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kzoo import runs
from kzoo.data.guards import shown
from kzoo.errors import DataError, KzooError, RunError
from kzoo.files import make_folder, write_atomically
from kzoo.interrupt import Interrupted, interruptible
from kzoo.progress import progress, say
from kzoo.source import candidates
from kzoo.visualizing import drawing, pieces
from kzoo.visualizing.network import Network, find_network
from kzoo.visualizing.options import ALWAYS, IF_NAMED, METHODS, VisualizeOptions

RECORD, PAGE, VERSION = "report.json", "report.html", 1
SHOWN = 3  # pictures of a run's own data, where no photo is given
KEPT = "the finished parts are kept, and the same command goes on"


@dataclass(frozen=True)
class Report:
    """What `visualize` wrote.

    Attributes:
        path: report.html, or None.
        data: what report.json holds: the network, settings, pictures, for each piece its facts, figures and seconds,
            and what was skipped and why.
        figures: {piece: {figure: (H, W, 3) uint8}} of the pieces that were made now.
    """

    path: Path | None
    data: dict[str, Any]
    figures: dict[str, dict[str, np.ndarray]]

    def __repr__(self) -> str:
        return f"<Report {self.path}: {len(self.data['pieces'])} pieces, {len(self.data['skipped'])} skipped>"


def visualize(
    model: Any,
    photos: Any = (),
    *,
    images: str | os.PathLike | None = None,
    methods: Sequence[str] | None = None,
    layer: str | None = None,
    unit: int | None = None,
    target: int | str | None = None,
    weights: Any = None,
    classes: Sequence[str] | None = None,
    input_shape: Sequence[int] | None = None,
    budget: float | None = None,
    seed: int = 0,
    out: str | os.PathLike | None = None,
    force: bool = False,
    quiet: bool = False,
) -> Report:
    """Look inside a network, and write a report of it: report.html, its pictures as PNG, its numbers as report.json.

    Cheap pieces come first. Each piece is kept when it is finished: after Ctrl-C, and with a larger budget, the same
    call computes only what is missing.

    Args:
        model: a run, a name of the catalog, a .keras file, a keras.Model, or a `kzoo.visualizing.Network`.
        photos: files or arrays (H, W, C) of the network's input; none: images that the run did not train on, else a
            drawing of kzoo's or a photograph of scikit-learn's.
        images: a folder of pictures, for the nine patches that excite each unit most.
        methods: see `kzoo.visualizing.options.METHODS`; None: as the budget allows.
        layer: for feature maps, class activation maps and patches, in place of those that are chosen.
        unit: of that layer, for patches and maximisation.
        target: the class to explain, by number or name; None: the one with the highest score.
        weights: for a name: a tag, a file or "random"; the first published set by default.
        classes: class names, for models that don't record them.
        input_shape: (height, width, channels), for a model that leaves sizes open.
        budget: seconds; what would take longer is left out, and that is said. None: 60, or no limit where methods are
            named.
        seed: of noise and of random weights.
        out: the folder to write; None: nothing is written.
        force: replace a report with other settings.
        quiet: no progress and no messages.

    Returns:
        A Report.

    Raises:
        KzooError: a network, picture, layer, class or method that does not exist or can't be used, or a folder that
            holds something else.
        Interrupted: after Ctrl-C.

    Example:
        >>> import kzoo, numpy as np
        >>> network = kzoo.build("resnet20", depth=8, seed=0)
        >>> kzoo.visualize(network, np.zeros((32, 32, 3)), methods=["filters", "saliency"], quiet=True)
        <Report None: 2 pieces, 0 skipped>
    """
    methods = (methods,) if isinstance(methods, str) else methods
    options = VisualizeOptions(None if methods is None else tuple(methods), layer, unit, target, budget, seed)
    given = [photos] if isinstance(photos, (str, os.PathLike, bytes)) else list(photos)
    if isinstance(photos, np.ndarray):
        given = [photos] if photos.ndim < 4 else list(photos)
    network = find_network(model, weights=weights, classes=classes, input_shape=input_shape, with_data=not given)
    if layer is not None:
        network.output_of(layer)
    if target is not None:
        network.class_number(target)
    chosen = chosen_pictures(network, given)
    settings = {
        "model": network.name,
        "network": runs.model_digest(network.model),
        "pictures": {name: hashlib.sha256(x.tobytes()).hexdigest()[:16] for name, x, _ in chosen},
        "images": None if images is None else os.path.abspath(images),
        "layer": layer,
        "unit": unit,
        "target": target,
        "seed": seed,
    }
    folder = None if out is None else Path(out)
    if folder is None:
        return _run(network, chosen, options, settings, None, images=images, quiet=quiet, before={})
    before = _existing(folder, settings, force)
    make_folder(folder)
    with runs.locked(folder):
        return _run(network, chosen, options, settings, folder, images=images, quiet=quiet, before=before)


def chosen_pictures(network: Network, given: Sequence) -> list[tuple[str, np.ndarray, Any]]:
    """The pictures to look at: (name, (H, W, C) float32, the file if there is one), those given or some that there are.

    Raises:
        DataError: one can't be read.
    """
    if given:
        names = [f"picture {i + 1}" if isinstance(p, (np.ndarray, bytes)) else shown(p) for i, p in enumerate(given)]
        files = [p if isinstance(p, (str, os.PathLike)) else None for p in given]
        return [(n, network.prepare(p), file) for n, p, file in zip(names, given, files, strict=True)]
    source = network.source
    own = [row for row in candidates(source, SHOWN) if source.splits] if source.splits else candidates(source)
    if not source.splits:
        own = [row for row in own if row[0] == "flower.jpg"] or own[:1]
    found = []
    for name, data, _ in own[:SHOWN]:
        with suppress(DataError):
            found.append((name, network.prepare(data), None))
    if not found:
        raise DataError(f"There is no picture to show {network.name}: give a photo.")
    return found


def _existing(folder, settings, force):
    """What an earlier call left that this one can use: {"pieces", "pictures"}; KzooError if other things are there."""
    if folder.exists() and not folder.is_dir():
        raise KzooError(f"{folder} is a file: give a folder to write the report to.")
    if not folder.is_dir() or not any(p.name != runs.LOCK for p in folder.iterdir()):
        return {}
    try:
        found = runs.read_json(folder / RECORD)
        if found["kzoo_visualize"] != VERSION:
            raise RunError("of another version")
        files = {key: [_inside(folder, f["file"]) for f in p["figures"]] for key, p in found["pieces"].items()}
        different = runs.differences(settings, found["settings"], settings)
        left = {"pieces": found["pieces"], "pictures": dict(found["pictures"])}
    except (RunError, KeyError, TypeError, AttributeError, ValueError):
        raise KzooError(f"{folder} is not empty, and holds no report of kzoo visualize: give another --out.") from None
    if different and not force:
        reasons = "; ".join(d.replace("the run has", "it has") for d in different[:2])
        raise KzooError(f"{folder} holds a report with other settings ({reasons}): give another --out, or --force.")
    if force:
        for path in (path for paths in files.values() for path in paths):
            path.unlink(missing_ok=True)
        return {}
    left["pieces"] = {k: p for k, p in left["pieces"].items() if all(path.is_file() for path in files[k])}
    return left


def _inside(folder, name):
    """The path of a file within a folder; ValueError if the name leads out of it."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(name)
    return folder / name


def plain(name: str) -> str:
    """A name as the name of a folder, at most 40 characters: letters, digits, dots and hyphens."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:40]


class _Writer:
    """What was made so far, and where it is written.

    Args:
        folder: None: nothing is written.
        data: of report.json.
        order: keys of the pieces, as the page shows them.
    """

    def __init__(self, folder, data, order):
        self.folder, self.data, self.order, self.figures = folder, data, order, {}

    def add(self, key, name, piece, seconds):
        files = []
        for figure in piece.figures:
            file = f"{key.rpartition('/')[0]}/{figure.name}.png".lstrip("/")
            if self.folder is not None:
                make_folder((self.folder / file).parent)
                with write_atomically(self.folder / file) as f:
                    f.write(drawing.png(figure.pixels))
            size = list(figure.pixels.shape[1::-1])
            files.append({"file": file, "size": size, "caption": figure.caption, "of": figure.of})
        self.figures[key] = {figure.name: figure.pixels for figure in piece.figures}
        self.data["pieces"][key] = {
            "method": name,
            "seconds": round(seconds, 2),
            "facts": piece.facts,
            "figures": files,
            "notes": list(piece.notes),
        }
        self.write()

    def write(self):
        self.data["pieces"] = {k: self.data["pieces"][k] for k in self.order if k in self.data["pieces"]}
        if self.folder is not None:
            runs.write_json(self.folder / RECORD, self.data)

    def page(self):
        if self.folder is None:
            return None
        with write_atomically(self.folder / PAGE, "w", errors="backslashreplace") as f:
            f.write(html(self.data, self.folder))
        return self.folder / PAGE


def _run(network, chosen, options, settings, folder, *, images, quiet, before):
    began, before, seen = time.monotonic(), before.get("pieces", {}), before.get("pictures", {})
    wanted = options.wanted(images is not None)
    slugs = [
        f"{i + 1}-{re.sub(r'[^A-Za-z0-9._-]+', '-', os.path.basename(n))[:40]}" for i, (n, *_) in enumerate(chosen)
    ]
    plan = [(name, None, name) for name in wanted if name in pieces.OF_NETWORK and name in ALWAYS]
    for kind in (ALWAYS, METHODS.keys() - ALWAYS):
        names = [n for n in wanted if n in kind and (n not in ALWAYS or n not in pieces.OF_NETWORK)]
        plan += [(f"{s}/{n}", i, n) for i, s in enumerate(slugs) for n in names if n not in pieces.OF_NETWORK]
        plan += [(n, None, n) for n in names if n in pieces.OF_NETWORK]
    data = {
        "kzoo_visualize": VERSION,
        "network": _about(network),
        "settings": settings,
        "pictures": {s: {**seen.get(s, {}), "name": name} for s, (name, *_) in zip(slugs, chosen, strict=True)},
        "credit": "" if any(n not in CREDITED for n, *_ in chosen) else CREDIT,
        "command": runs.command("visualize"),
        "versions": runs.versions(),
        "pieces": dict(before),
        "skipped": [],
    }
    writer = _Writer(folder, data, [key for key, *_ in plan] + [k for k in before if k not in {p[0] for p in plan}])
    kept = f"{KEPT}: {folder}" if folder is not None else "nothing was written"
    with interruptible(kept) as interrupted, progress("steps", quiet) as bar:
        common = dict(bar=bar, interrupted=interrupted, images=images, seconds=options.limit, folder=folder)
        look = pieces.Look(network, options, **common)
        photos: dict[int, pieces.Photo] = {}
        try:
            for key, number, name in plan:
                if key in before:
                    continue
                if interrupted():
                    raise Interrupted
                photo = None
                if number is not None:
                    if number not in photos:
                        given, x, file = chosen[number]
                        photos[number] = pieces.Photo(given, x, network, options.target, file)
                    photo = photos[number]
                    data["pictures"][slugs[number]].update({"class": photo.label, "target": photo.target})
                _one(look, writer, key, name, photo)
        except Interrupted:
            data["skipped"].append({"piece": "the rest", "reason": "It was stopped by Ctrl-C."})
            writer.write()
            writer.page()
            raise
    data["seconds"] = round(time.monotonic() - began, 1)
    writer.write()
    path = writer.page()
    if not quiet:
        for row in data["skipped"]:
            say(f"Skipped {row['piece']}: {row['reason']}")
    return Report(path, data, writer.figures)


CREDITED = ("flower.jpg", "china.jpg")
CREDIT = "flower.jpg is a sample photograph of scikit-learn, by flickr.com/photos/vultilion (CC BY 2.0)."


def _one(look, writer, key, name, photo):
    """Make one piece, or say why not."""
    if name not in ALWAYS and photo is not None and look.deadline is not None:
        look.measure(photo)
    needed, left = pieces.estimate(look, name, photo), look.left
    if left is not None and needed > left and name not in ALWAYS and name not in IF_NAMED:
        spent = look.options.limit - left
        reason = f"It takes about {needed:.0f} s, and {max(left, 0):.0f} s are left: --budget {_time(spent + needed)}."
        writer.data["skipped"].append({"piece": key, "method": name, "reason": reason})
        return
    look.bar.start(f"{name} {photo.name if photo else ''}".strip(), None)
    began = time.monotonic()
    try:
        piece = pieces.FUNCTIONS[name](look, photo)
    except pieces.NotPossible as e:
        writer.data["skipped"].append({"piece": key, "method": name, "reason": str(e)})
        return
    writer.add(key, name, piece, time.monotonic() - began)
    look.bar.done()


def _time(seconds):
    """A budget that would do, as it is typed: whole minutes, or tens of seconds."""
    minutes = -(-seconds * 1.2 // 60)
    return f"{minutes:.0f}m"


def _about(network):
    return {
        "name": network.name,
        "weights": network.weights,
        "task": network.task.name,
        "input": list(network.shape),
        "classes": len(network.classes),
        "parameters": int(sum(np.prod(v.shape) for v in network.model.weights)),
        "layers": len(network.model.layers),
        "notes": list(network.notes),
    }


# --- the page ----------------------------------------------------------------------------------------------


def html(data: Mapping[str, Any], folder: Path) -> str:
    """The page of a report, with its pictures inside.

    Args:
        data: what report.json holds.
        folder: where the pictures are.
    """
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("kzoo", "visualizing"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )

    def source(figure):
        return "data:image/png;base64," + base64.b64encode((folder / figure["file"]).read_bytes()).decode()

    of_photo: dict[str, dict[str, Any]] = {slug: {} for slug in data["pictures"]}
    of_network = {}
    for key, piece in data["pieces"].items():
        slug, _, name = key.rpartition("/")
        if slug:
            of_photo.setdefault(slug, {})[name] = piece
        else:
            of_network[name] = piece
    return environment.get_template("report.html.j2").render(
        r=data, network=of_network, photos=of_photo, source=source, maps=pieces.MAPS, about=METHODS
    )
