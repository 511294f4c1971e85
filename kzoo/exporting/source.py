"""What is exported: a run, a model of the catalog with weights, or a Keras model, all in one form."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import keras
import numpy as np

from kzoo import runs
from kzoo.catalog import Preprocessing, shipped, spec
from kzoo.catalog.pretrained import recognised_shape
from kzoo.data.dataset import Split
from kzoo.data.images import check_shape, read
from kzoo.data.loading import load_data
from kzoo.errors import DataError, ExportError, KzooError, RunError
from kzoo.layers import Preprocess
from kzoo.progress import say
from kzoo.tasks import Task, find
from kzoo.weights import resolve
from kzoo.weights.classes import class_names

FACTS = (
    "model",
    "options",
    "recipe",
    "seed",
    "precision",
    "data",
    "fingerprint",
    "command",
    "versions",
    "hardware",
    "started",
)


@dataclass
class Source:
    """A network to export.

    Attributes:
        name: of the export.
        model: images (B, H, W, C) in 0..255 to the task's outputs.
        classes: names, by number.
        preprocessing: how an image is resized and cropped; scaling sits in the model.
        task: what it was trained for.
        splits: "val", "refit" and "test" parts of its data, as far as they are known.
        temperature: None if the run has none.
        facts: for the card.
        licence: of the weights.
    """

    name: str
    model: keras.Model
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    task: Task
    splits: dict[str, Split] = field(default_factory=dict)
    temperature: float | None = None
    facts: dict = field(default_factory=dict)
    licence: str = ""

    @property
    def shape(self):
        return tuple(self.model.input_shape[1:])


def find_source(what, *, weights=None, classes=None):
    """A Source from a Run or its folder, a name of the catalog (with weights), or a keras.Model.

    weights: for a name: a tag or a file, by default the first published set. classes: names, for what does not bring
    its own. Raises KzooError.
    """
    if isinstance(what, keras.Model):
        source = _of_model(what, classes)
    elif isinstance(what, runs.Run) or os.path.isdir(os.fspath(what)):
        if weights is not None:
            raise ExportError("A run brings its own weights: leave out weights.")
        source = _of_run(what if isinstance(what, runs.Run) else runs.load_run(what), classes)
    elif os.sep in os.fspath(what):
        raise RunError(f"There is no run '{what}': kzoo train writes one.")
    else:
        source = _of_name(os.fspath(what), weights, classes)
    check_shape(source.shape)
    source.task.check_network(source.model, source.classes, source.name)
    # One line each, for labels.txt, and Unicode, for the graph; a folder's name may be neither.
    plain = (" ".join(str(c).encode("utf-8", "backslashreplace").decode().splitlines()) for c in source.classes)
    source = replace(source, classes=tuple(plain))
    return source


def _of_run(run, classes):
    config = run.config
    metrics = _json(run.path / runs.METRICS)
    report = _json(run.path / "report.json")
    temperature = next((d["temperature"] for d in (metrics, report) if d.get("temperature")), None)
    facts = {key: config[key] for key in FACTS if key in config}
    weights = config.get("weights") or {}  # of the network that was fine-tuned
    if weights:
        facts.update(weights=weights.get("tag"), weights_sha256=weights.get("sha256"), source=weights.get("source"))
        facts["finetune"] = config.get("finetune")
    facts["metrics"] = {k: v for k, v in metrics.items() if isinstance(v, (int, float, str))}
    name = run.path.resolve().name
    licence = f"yours; of the network that was fine-tuned: {weights['licence']}" if weights.get("licence") else ""
    classes = tuple(classes or run.classes)
    return Source(name, run.model, classes, run.preprocessing, run.task, _splits(run), temperature, facts, licence)


def _json(path):
    try:
        return runs.read_json(path)
    except RunError:
        return {}


def _splits(run):
    """The run's validation and test part, its classes in its numbering; nothing if its data has changed or is gone.

    Of a fine-tuned run "test" is the held-out part, which measures. Where the head was fitted again on the validation
    part as well, that is "refit", and measures nothing.
    """
    config = run.config
    try:
        data = load_data(
            config["data"],
            seed=config["seed"],
            val_fraction=config["val_fraction"],
            test_fraction=config["test_fraction"],
        )
    except (KzooError, KeyError, OSError) as e:
        say(f"Note: the data of {run.path} can't be read ({e}); nothing is measured on it.")
        return {}
    if data.fingerprint() != config["fingerprint"] or tuple(data.classes) != run.classes:
        say(f"Note: {config['data']} has changed since {run.path} was trained; nothing is measured on it.")
        return {}
    if config.get("divided"):
        data = run.divided(data)
        parts = {"refit" if run.refit else "val": data.splits.get("val"), "test": data.splits.get("test")}
        return {name: split for name, split in parts.items() if split is not None}
    return {name: data.splits[name] for name in ("val", "test") if name in data.splits}


def _of_name(name, weights, classes):
    from kzoo.builder import build

    row = spec(name)
    if weights is None:
        if not row.weights:
            raise ExportError(f"No weights are published for {name}: give a file by weights, or a run.")
        weights = row.weights[0].tag
    chosen = resolve(row, weights)
    model = build(
        row,
        weights=weights,
        precision="float32",
        num_classes=len(classes) if classes else "published",
        new_classifier=False,
        input_shape=recognised_shape(chosen),
    )
    layer = model.get_layer("preprocessing")
    base = chosen.preprocessing or row.preprocessing
    prep = Preprocessing(base.crop, base.interpolation, layer.channel_order, layer.scale, layer.offset)
    facts = {"model": name, "weights": chosen.tag, "source": chosen.source, "hash": chosen.hash}
    if chosen.source == "kzoo":  # kzoo/shipped has their card
        card = shipped.card(name)
        known = (
            "data",
            "data_note",
            "data_licence",
            "fingerprint",
            "recipe",
            "seed",
            "command",
            "hardware",
            "versions",
            "test_top1",
            "test_images",
        )
        facts.update({k: card[k] for k in known})
    elif chosen.top1 is not None:
        facts["published"] = {"top1": chosen.top1, "top5": chosen.top5}
    classes = classes or class_names(chosen.classes, model.output_shape[-1])
    return Source(name, model, tuple(classes), prep, find(row.task), facts=facts, licence=chosen.licence)


def _of_model(model, classes):
    layer = next((x for x in model.layers if isinstance(x, Preprocess)), None)
    n = model.output_shape[-1] if isinstance(model.output_shape, tuple) else 0
    # A foreign model takes 0..255 as it comes and scales inside, as kzoo's do.
    prep = Preprocessing(
        channel_order=layer.channel_order if layer else "rgb",
        scale=layer.scale if layer else 1.0,
        offset=layer.offset if layer else 0.0,
    )
    task = "classification"
    with suppress(KzooError):  # a model of the catalog, by its name
        row = spec(model.name)
        prep = replace(prep, crop=row.preprocessing.crop, interpolation=row.preprocessing.interpolation)
        task = row.task
    names = tuple(classes or (str(i) for i in range(n or 0)))
    return Source(model.name, model, names, prep, find(task), facts={"model": model.name})


# --- real images for the golden set ------------------------------------------------------------------------


def candidates(source, most=64):
    """[(name, encoded bytes, label or None)]: images that measure nothing (else test), by class; else photographs."""
    split = next((source.splits[p] for p in ("val", "refit", "test") if source.splits.get(p)), None)
    if split is None:
        return drawings(source.shape[-1]) if source.facts.get("source") == "kzoo" else photographs()
    by_class = [np.flatnonzero(split.labels == label) for label in np.unique(split.labels)]
    turns = max(1, most // len(by_class))
    picked = [rows[i] for i in range(turns) for rows in by_class if i < len(rows)][:most]
    found = []
    for i in picked:
        try:
            found.append((str(split.ids[i]), encoded(split.images[i]), int(split.labels[i])))
        except (DataError, OSError):
            continue  # named where the whole part is read
    return found


def encoded(image):
    """Encoded bytes of an element of a Split: bytes, a path, or a uint8 array (H, W, C), which becomes a PNG."""
    if isinstance(image, bytes):
        return image
    if not isinstance(image, np.ndarray):
        return read(image)
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def drawings(channels):
    """Digits as a font has them for one channel, else pieces of kzoo's own paintings; nobody has rights in them."""
    from PIL import Image, ImageDraw, ImageFont

    from kzoo.data.drawn import PAINTINGS, painting

    pictures = []
    if channels == 1:
        for digit in range(10):
            picture = Image.new("L", (41 + digit, 37))
            ImageDraw.Draw(picture).text((14, 2), str(digit), 255, ImageFont.load_default(26), stroke_width=1)
            pictures.append((f"a drawn {digit}", picture))
    else:
        for name in PAINTINGS:
            whole = painting(name, side=300)
            pieces = [(0, 0, 300, 300), (0, 0, 131, 77), (50, 99, 290, 220), (201, 13, 300, 299), (99, 101, 233, 298)]
            pictures += [(f"{name}, piece {k + 1}", whole.crop(box)) for k, box in enumerate(pieces)]
    return [(name, encoded(np.atleast_3d(np.asarray(picture))), None) for name, picture in pictures]


def photographs():
    """scikit-learn's two sample photographs (CC BY 2.0), whole and in pieces of odd sizes."""
    import sklearn.datasets
    from PIL import Image

    found = []
    folder = Path(sklearn.datasets.__file__).parent / "images"
    for name in ("china.jpg", "flower.jpg"):
        data = (folder / name).read_bytes()
        found.append((name, data, None))
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            for k, box in enumerate([(0, 0, 301, 211), (width - 257, 13, width, height), (99, 101, 333, 398)]):
                buffer = io.BytesIO()
                image.crop(box).save(buffer, "PNG")
                found.append((f"{name}, piece {k + 1}", buffer.getvalue(), None))
    return found
