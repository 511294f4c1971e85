"""A network with what is known of it, for an export and for looking inside: of a run, the catalog, or a Keras model."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kzoo import runs
from kzoo.catalog import Preprocessing, image_spec, shipped, spec
from kzoo.catalog.pretrained import recognised_shape
from kzoo.data.dataset import Split
from kzoo.data.guards import npy
from kzoo.data.images import check_shape, read
from kzoo.data.loading import load_data
from kzoo.errors import DataError, ExportError, KzooError, RunError
from kzoo.files import is_model_file
from kzoo.keras_files import from_pixels, load_file, preprocessing_of
from kzoo.progress import say
from kzoo.tasks import Task, find
from kzoo.weights import resolve
from kzoo.weights.classes import class_names

RECORDED = (  # keys of config.json that the card repeats
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
UNMEASURED = ("val", "refit", "train")  # parts that may be looked at, the first that there is


@dataclass
class Source:
    """A network and what is known of it.

    Attributes:
        name: of the export.
        model: images (B, H, W, C) in 0..255 to the task's outputs.
        classes: names, by number.
        preprocessing: how an image is resized and cropped; scaling sits in the model.
        task: what it was trained for.
        splits: the parts of its data that are available, among "val", "refit", "train" and "test". "refit" is a
            validation part on which the head was fitted again at the end, so it must not be used for measuring;
            "train" is there in place of both where there is neither.
        temperature: of the run's calibration, or None.
        temperature_reason: why that one, in a sentence; empty for runs that don't say.
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
    temperature_reason: str = ""
    facts: dict = field(default_factory=dict)
    licence: str = ""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the input."""
        return tuple(self.model.input_shape[1:])


def find_source(
    run_or_model: Any, *, weights: Any = None, classes: Sequence[str] | None = None, pixels: str | None = None
) -> Source:
    """Find out everything about a network that an export needs.

    Args:
        run_or_model: a Run or its folder, a name of the catalog (with weights), a keras.Model or a file of one.
        weights: for a name: a tag or a file; the first published set by default.
        classes: class names, for models and weights that don't record them.
        pixels: what a Keras model or a file of one takes, see `kzoo.keras_files.from_pixels`.

    Returns:
        The Source.

    Raises:
        KzooError: a run, name or weights that can't be read, or a network that can't be exported.
    """
    source = describe(run_or_model, weights=weights, classes=classes, pixels=pixels)
    check_shape(source.shape)
    source.task.check_network(source.model, source.classes, source.name)
    # labels.txt needs one line for each class, and the graph needs Unicode; the name of a folder may break both rules.
    plain = (" ".join(str(c).encode("utf-8", "backslashreplace").decode().splitlines()) for c in source.classes)
    source = replace(source, classes=tuple(plain))
    return source


def describe(
    run_or_model: Any,
    *,
    weights: Any = None,
    classes: Sequence[str] | None = None,
    pixels: str | None = None,
    with_data: bool = True,
) -> Source:
    """Find out everything about a network, whether or not it can be exported.

    Args:
        run_or_model: as in `find_source`.
        weights: as in `find_source`.
        classes: as in `find_source`.
        pixels: as in `find_source`.
        with_data: whether the data of a run is looked for.

    Returns:
        The Source; its classes may be as many as the network has outputs or not.

    Raises:
        KzooError: a run, name or weights that can't be read.
    """
    if isinstance(run_or_model, keras.Model):
        model = run_or_model if pixels is None else from_pixels(run_or_model, pixels).model
        return _of_model(model, classes)
    if is_model_file(run_or_model) and not os.path.isdir(run_or_model):
        if folder := runs.folder_of(run_or_model):
            return _of_run(runs.load_run(folder), classes, with_data)
        found = load_file(run_or_model, pixels)
        for note in found.notes:
            say(f"{os.fspath(run_or_model)}: {note}")
        return replace(_of_model(found.model, classes or found.classes), name=Path(run_or_model).stem)
    if pixels is not None:
        raise KzooError("pixels says what a Keras model of a file takes; runs and networks of the catalog know it.")
    if isinstance(run_or_model, runs.Run) or os.path.isdir(os.fspath(run_or_model)):
        if weights is not None:
            raise ExportError("A run has its own weights: leave out weights.")
        run = run_or_model if isinstance(run_or_model, runs.Run) else runs.load_run(run_or_model)
        return _of_run(run, classes, with_data)
    if os.sep in os.fspath(run_or_model):
        raise RunError(f"There is no run '{run_or_model}': kzoo train writes one.")
    return _of_name(os.fspath(run_or_model), weights, classes)


def _of_run(run, classes, with_data):
    config = run.config
    metrics = _json(run.path / runs.METRICS)
    temperature, reason = temperature_of(run)
    facts = {key: config[key] for key in RECORDED if key in config}
    weights = config.get("weights") or {}  # of the network that was fine-tuned
    if weights:
        facts.update(weights=weights.get("tag"), weights_sha256=weights.get("sha256"), source=weights.get("source"))
        facts["finetune"] = config.get("finetune")
    facts["metrics"] = {k: v for k, v in metrics.items() if isinstance(v, (int, float, str))}
    name = run.path.resolve().name
    licence = ""
    if weights.get("licence"):
        licence = f"yours; licence of the weights it was fine-tuned from: {weights['licence']}"
    classes = tuple(classes or run.classes)
    return Source(
        name,
        run.model,
        classes,
        run.preprocessing,
        run.task,
        splits=_splits(run) if with_data else {},
        temperature=temperature,
        temperature_reason=reason,
        facts=facts,
        licence=licence,
    )


def temperature_of(run: runs.Run) -> tuple[float | None, str]:
    """The temperature that a run's logits are divided by.

    Args:
        run: a run; one of `kzoo train` records no temperature.

    Returns:
        (temperature or None, why that one, in a sentence; "" for runs that don't say).

    Raises:
        RunError: what is recorded is no temperature.
    """
    metrics, report = _json(run.path / runs.METRICS), _json(run.path / "report.json")
    temperature = next((d["temperature"] for d in (metrics, report) if d.get("temperature")), None)
    if temperature is not None and not (type(temperature) in (int, float) and temperature > 0):
        raise RunError(f"{run.path} is damaged: the temperature {str(temperature)[:60]!r} is no number above 0.")
    choice = report.get("temperature_choice")
    return temperature, str(choice.get("reason", "")) if isinstance(choice, dict) else ""


def _json(path):
    try:
        return runs.read_json(path)
    except RunError:
        return {}


def _splits(run):
    """The run's validation (else its training) and test parts, by name; {} if its data has changed or can't be read.

    For a fine-tuned run "test" is the held-out test part. If the head was fitted again on the validation part as well,
    that part is "refit", and nothing may be measured or calibrated on it.
    """
    config = run.config
    try:
        data = load_data(
            config["data"],
            seed=config["seed"],
            val_fraction=config["val_fraction"],
            test_fraction=config["test_fraction"],
            division=config.get("division", 1),
            bits=run.preprocessing.bits,
        )
    except (KzooError, KeyError, OSError) as e:
        say(f"Note: the data of {run.path} can't be read ({e}), so accuracy and calibration can't be measured.")
        return {}
    if data.fingerprint() != config["fingerprint"] or tuple(data.classes) != run.classes:
        say(
            f"Note: {config['data']} has changed since {run.path} was trained, so accuracy and calibration can't be "
            "measured."
        )
        return {}
    if config.get("divided"):
        data = run.divided(data)
    seen = "val" if "val" in data.splits else "train"
    refit = seen == "val" and config.get("divided") and run.refit
    parts = {"refit" if refit else seen: data.splits.get(seen), "test": data.splits.get("test")}
    return {name: split for name, split in parts.items() if split is not None}


def _of_name(name, weights, classes):
    from kzoo.builder import build

    row = image_spec(name)
    if weights is None:
        if not row.weights:
            raise ExportError(f"No weights are published for {name}: give weights, a file, or export a run.")
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
    if chosen.source == "kzoo":  # weights that kzoo ships have a card
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
    n = model.output_shape[-1] if isinstance(model.output_shape, tuple) else 0
    task = "classification"
    with suppress(KzooError):  # a model of the catalog, by its name
        task = spec(model.name).task
    names = tuple(classes or (str(i) for i in range(n or 0)))
    return Source(model.name, model, names, preprocessing_of(model), find(task), facts={"model": model.name})


# --- images for the golden set -----------------------------------------------------------------------------


def candidates(source: Source, limit: int = 64) -> Sequence[tuple[str, bytes, int | None]]:
    """Images that may become golden images.

    They come from the first available part among "val", "refit" and "train", one of each class in turn: the test part
    only measures, and int8 ranges may be determined on golden images. Without data
    they are kzoo's own drawings, for weights that kzoo ships, or scikit-learn's sample photographs.

    Args:
        source: the network and its data.
        limit: how many at most, of a part.

    Returns:
        (name, encoded bytes, label or None) for each image.
    """
    split = next((source.splits[p] for p in UNMEASURED if source.splits.get(p)), None)
    if split is None:
        if source.shape[-1] not in (1, 3):
            return noise(source.shape)
        return drawings(source.shape[-1]) if source.facts.get("source") == "kzoo" else photographs()
    by_class = [np.flatnonzero(split.strata == label) for label in np.unique(split.strata)]
    per_class = max(1, limit // len(by_class))
    picked = [rows[i] for i in range(per_class) for rows in by_class if i < len(rows)][:limit]
    found = []
    for i in picked:
        try:
            label = None if split.masks or split.labels.ndim > 1 else int(split.labels[i])
            found.append((str(split.ids[i]), encoded(split.images[i]), label))
        except (DataError, OSError):
            continue  # it is reported when the whole part is read
    return found


def encoded(image: bytes | str | os.PathLike | np.ndarray) -> bytes:
    """The encoded bytes of an image of a Split: bytes, a path, or a uint8 array (H, W, C).

    An array becomes a PNG, or, of other than 1 or 3 channels, an .npy.
    """
    if isinstance(image, bytes):
        return image
    if not isinstance(image, np.ndarray):
        return read(image)
    if image.shape[-1] not in (1, 3):
        return npy(image)
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


def drawings(channels: int) -> list[tuple[str, bytes, None]]:
    """Generated images, which are free of others' rights, as `candidates` returns them.

    For one channel digits of a font, else crops of kzoo's own paintings.
    """
    from PIL import Image, ImageDraw, ImageFont

    from kzoo.data.drawn import painting

    pictures = []
    if channels == 1:
        for name, at, stroke in (("a drawn", (14, 2), 1), ("a thin", (9, 5), 0)):
            for digit in range(10):
                picture = Image.new("L", (41 + digit, 37))
                ImageDraw.Draw(picture).text(at, str(digit), 255, ImageFont.load_default(26), stroke_width=stroke)
                pictures.append((f"{name} {digit}", picture))
    else:
        for name in ("strokes", "glass"):
            whole = painting(name, side=300)
            pieces = [(0, 0, 300, 300), (0, 0, 131, 77), (50, 99, 290, 220), (201, 13, 300, 299), (99, 101, 233, 298)]
            pieces += [(10, 210, 90, 295), (150, 20, 215, 88), (131, 150, 180, 201)]
            pictures += [(f"{name}, piece {k + 1}", whole.crop(box)) for k, box in enumerate(pieces)]
    return [(name, encoded(np.atleast_3d(np.asarray(picture))), None) for name, picture in pictures]


def noise(shape: tuple[int, int, int]) -> list[tuple[str, bytes, None]]:
    """Arrays of random values in blocks of 4 x 4, for networks that take no pictures, as `candidates` returns them."""
    rng, (height, width, channels) = np.random.default_rng(0), shape
    blocks = rng.integers(0, 256, (16, -(-height // 4), -(-width // 4), channels)).astype(np.uint8)
    arrays = blocks.repeat(4, 1).repeat(4, 2)[:, :height, :width]
    return [(f"random blocks {i + 1}", npy(array), None) for i, array in enumerate(arrays)]


def photographs() -> list[tuple[str, bytes, None]]:
    """scikit-learn's two sample photographs (CC BY 2.0), whole and cropped to odd sizes, as `candidates` does."""
    import sklearn.datasets
    from PIL import Image

    found = []
    folder = Path(sklearn.datasets.__file__).parent / "images"
    for name in ("china.jpg", "flower.jpg"):
        data = (folder / name).read_bytes()
        found.append((name, data, None))
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            boxes = [(0, 0, 301, 211), (width - 257, 13, width, height), (99, 101, 333, 398)]
            boxes += [(350, 20, 449, 111), (20, 300, 130, 390), (220, 150, 300, 260), (430, 230, 500, 300)]
            for k, box in enumerate(boxes):
                buffer = io.BytesIO()
                image.crop(box).save(buffer, "PNG")
                found.append((f"{name}, piece {k + 1}", buffer.getvalue(), None))
    return found
