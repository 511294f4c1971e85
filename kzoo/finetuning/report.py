"""The report on a fine-tuning: report.html, one file that opens offline, and the same numbers as report.json.

Matplotlib draws the learning curves where there are at least two epochs. A run of the head alone has none, so a second
run on cached features does not wait for matplotlib's import.
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kzoo.data.passport import ends
from kzoo.errors import KzooError
from kzoo.files import write_atomically
from kzoo.finetuning.suspects import suspects
from kzoo.metrics import (
    calibration_error,
    choose_temperature,
    class_intervals,
    class_scores,
    cross_fitted,
    reliability,
    softmax,
    wilson,
)

MAX_PICTURES = 24  # in a gallery
MAX_DUPLICATES = 12  # pairs of pictures
PICTURE_SIZE = 150  # pixels of the longer side
MAX_CLASSES_UNFOLDED = 40  # with more classes those with the lowest F1 come first and the table of all is folded
WEAKEST_CLASSES = 20  # classes with the lowest F1 that are then shown
MAX_CLASSES_IN_MATRIX = 20  # with more classes the confusion matrix is an image instead of a table of numbers
MAX_CONFUSIONS, MAX_CONFUSED = 20, 4  # pairs of classes whose photos are shown, and photos of each
MAX_ROWS = 200  # of a table in the HTML; the JSON has all
LINES = ("training", "validation")
COPIED = (
    "title",
    "command",
    "run",
    "model",
    "weights",
    "data",
    "classes",
    "seed",
    "precision",
    "hardware",
    "versions",
    "outcome",
    "passport",
    "phases",
    "history",
    "head",
    "several",
    "masks",
)


def write_report(folder: str | os.PathLike, record: Mapping[str, Any]) -> dict[str, Any]:
    """Write report.html and report.json.

    Names are escaped in the page. Pictures are small copies without metadata.

    Args:
        folder: the run folder. It must exist.
        record: what is known of the run. What is missing is left out of the report:

            - title, command, run, model, data, seed, precision, hardware, versions: plain values.
            - classes: names, by number.
            - weights: a dict.
            - outcome: a sentence or two.
            - passport: what `Passport.to_dict()` gives.
            - phases: dicts of name, seconds, trainable, trainable_parameters, frozen_parameters, audit (a dict of ok,
              frozen_checked, moved, text), val_accuracy (several labels: val_mean_average_precision), text.
            - history: dicts of phase, epoch, loss, accuracy, val_loss, val_accuracy, learning_rate, seconds.
            - head: {"kind", "strength", "cross_validation": [{"kind", "strength", "accuracy", "loss"}]}.
            - parts: {"val", "test": {"ids", "labels": int (N,), "logits": (N, C)}}.
            - train_features: {"ids", "labels", "features": (N, D)}, to find suspect labels.
            - several: {"val", "test": what `to_dict()` of a multilabel evaluation gives}, in place of "parts" and
              "train_features" where images have several labels.
            - masks: {"val", "test": what `to_dict()` of an evaluation of segmentation gives}, in place of these, too.
            - maps: a function of pairs (id, class name) that gives a picture (H, W, 3) uint8 for each, or None, of
              where the network sees that class, and a sentence about them.
            - picture: a function of an id that gives a path, encoded bytes or a uint8 array. A picture that can't be
              given or read is left out.

    Returns:
        What report.json holds: the plain values of `record`, "parts" (accuracy, scores by class, confusion,
        calibration, mistakes), "suspects", "temperature", by which logits are to be divided in use, and with a
        validation part "temperature_choice", which says why (`kzoo.metrics.choose_temperature`): it is fitted on all
        validation images, and 1 unless it helps out of fold.

    Raises:
        KzooError: the logits have another number of columns than there are classes, or a file can't be written.

    Example:
        >>> Path("report-example").mkdir()
        >>> write_report("report-example", {"title": "Ants and bees"})["temperature"]
        1.0
    """
    data = jsonable({key: record[key] for key in COPIED if record.get(key) is not None})
    seed = int(record.get("seed") or 0)
    classes = list(data.get("classes", []))
    given = {name: p for name, p in (record.get("parts") or {}).items() if p is not None and len(p["labels"])}
    if any(np.shape(p["logits"]) != (len(p["labels"]), len(classes)) for p in given.values()):
        raise KzooError(f"The report needs logits of the shape (images, {len(classes)}), one column for each class.")
    temperature = 1.0
    if "val" in given:
        choice = choose_temperature(_finite(given["val"]["logits"]), given["val"]["labels"], seed=seed)
        temperature, data["temperature_choice"] = choice.temperature, choice.to_dict()
    data["temperature"] = temperature
    data["parts"] = {n: jsonable(_part(n, p, classes, temperature, seed)) for n, p in given.items()}
    features = record.get("train_features")
    if features is not None and len(features["labels"]):
        found = suspects(features["features"], features["labels"], seed=seed)
        data["suspects"] = jsonable(
            [
                {
                    "id": features["ids"][s["index"]],
                    "label": classes[s["label"]],
                    "suggested": classes[s["suggested"]],
                    "share": s["share"],
                    "similarity": s["similarity"],
                }
                for s in found
            ]
        )
    folder = Path(folder)
    html = _html(data, _Pictures(record, features))
    with write_atomically(folder / "report.json", "w") as f:
        json.dump(data, f, indent=2, ensure_ascii=False, allow_nan=False)
        f.write("\n")
    with write_atomically(folder / "report.html", "w") as f:
        f.write(html)
    return data


def jsonable(x: Any) -> Any:
    """Turn what a record holds into plain JSON: arrays to lists, NaN and infinity to None, undecodable bytes escaped.

    Example:
        >>> jsonable({"a": np.array([1.0, np.nan]), "b": b"x"})
        {'a': [1.0, None], 'b': 'x'}
    """
    if isinstance(x, dict):
        return {jsonable(str(k)): jsonable(v) for k, v in x.items()}
    if isinstance(x, (list, tuple, set)):
        return [jsonable(v) for v in x]
    if isinstance(x, np.ndarray):
        return jsonable(x.tolist())
    if isinstance(x, np.generic):
        return jsonable(x.item())
    if isinstance(x, float):
        return x if math.isfinite(x) else None
    if x is None or isinstance(x, (bool, int)):
        return x
    return os.fsdecode(x).encode("utf-8", "backslashreplace").decode() if _text(x) else jsonable(str(x))


def _text(x):
    return isinstance(x, (str, bytes, os.PathLike))


# --- numbers -----------------------------------------------------------------------------------------------


def _finite(logits):
    return np.nan_to_num(np.asarray(logits, "float64"), nan=0.0, posinf=1e6, neginf=-1e6)


def _part(name, part, classes, temperature, seed):
    """The measurements of one part: accuracy, scores by class, confusion, calibration and mistakes."""
    labels, logits = np.asarray(part["labels"]), _finite(part["logits"])
    predicted, right = logits.argmax(-1), logits.argmax(-1) == labels
    n = len(classes)
    confusion = np.bincount(labels * n + predicted, minlength=n * n).reshape(n, n)
    scores, intervals = class_scores(confusion), class_intervals(confusion, seed=seed)
    keys = ("precision", "recall", "f1")
    for i in range(n):  # where nothing, or everything, is right a bootstrap interval would have no width
        for j, count in enumerate((confusion[:, i].sum(), confusion[i].sum())):
            if count:
                intervals[i, j] = wilson(int(confusion[i, i]), int(count))
    per_class = [
        {
            "class": c,
            "images": int(confusion[i].sum()),
            **{k: scores[i, j] for j, k in enumerate(keys)},
            **{f"{k}_interval": intervals[i, j] for j, k in enumerate(keys)},
        }
        for i, c in enumerate(classes)
    ]
    probabilities = softmax(logits)
    wrong = np.flatnonzero(~right)
    wrong = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")]
    mistakes = [
        {
            "id": part["ids"][i],
            "label": classes[labels[i]],
            "predicted": classes[predicted[i]],
            "probability": probabilities[i, predicted[i]],
            "probability_of_label": probabilities[i, labels[i]],
        }
        for i in wrong
    ]
    pairs = np.argwhere((confusion > 0) & ~np.eye(n, dtype=bool))
    pairs = sorted(pairs.tolist(), key=lambda ij: -confusion[ij[0], ij[1]])
    return {
        "images": len(labels),
        "accuracy": right.mean(),
        "accuracy_interval": wilson(int(right.sum()), len(right)),
        "per_class": per_class,
        "confusion": confusion,
        "confused": [{"label": classes[i], "predicted": classes[j], "images": confusion[i, j]} for i, j in pairs],
        "calibration": _calibration(name, logits, labels, probabilities, temperature, seed),
        "mistakes": mistakes,
    }


def _calibration(name, logits, labels, before, temperature, seed):
    """Before and after scaling, by temperatures that were fitted on other images than they are measured on.

    temperature: of the validation part; with 1 nothing is scaled.
    """
    if temperature == 1:
        return {"ece": calibration_error(before, labels), "bins": reliability(before, labels)}
    if name == "val":
        after, how = softmax(cross_fitted(logits, labels, seed=seed)), "temperatures fitted to the other images"
    else:
        after, how = softmax(logits / temperature), "the temperature fitted on the validation images"
    return {
        "ece": calibration_error(before, labels),
        "bins": reliability(before, labels),
        "ece_scaled": calibration_error(after, labels),
        "bins_scaled": reliability(after, labels),
        "how": how,
    }


# --- pictures and page -------------------------------------------------------------------------------------


class _Pictures:
    """Small copies of pictures as data: URLs; None for a picture that can't be shown."""

    def __init__(self, record, features):
        self.picture, self.maps = record.get("picture"), record.get("maps")
        # Ids were cleaned for JSON; the caller knows them as they were.
        ids = [i for p in (record.get("parts") or {}).values() if p is not None for i in p["ids"]]
        ids += [i for d in (record.get("passport") or {}).get("duplicates", []) for i in d["ids"]]
        ids += list(features["ids"]) if features is not None else []
        self.original = {jsonable(i): i for i in ids}

    def __call__(self, id):
        return None if self.picture is None else self.small(lambda: self.picture(self.original.get(id, id)))

    def with_maps(self, galleries):
        """({part: rows}, a sentence): to each mistake a map of the class that was predicted."""
        rows = [row for of_part in galleries.values() for row in of_part]
        if self.maps is None or not rows:
            return galleries, ""
        drawn, about = self.maps([(self.original.get(row["id"], row["id"]), row["predicted"]) for row in rows])
        maps = iter([None if d is None else self.small(lambda d=d: d) for d in drawn])
        return {n: [{**row, "map": next(maps)} for row in of_part] for n, of_part in galleries.items()}, about

    def small(self, source):
        """What a function gives, as a data: URL of a small copy."""
        from kzoo.data.scan import small_picture

        try:
            image = small_picture(source(), PICTURE_SIZE)
            image.thumbnail((PICTURE_SIZE, PICTURE_SIZE))
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=78, optimize=True)
        except Exception:  # a report must not fail for a picture: files vanish, callers raise
            return None
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _html(data, pictures):
    from jinja2 import ChainableUndefined, Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("kzoo", "finetuning"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=ChainableUndefined,  # what a caller does not know is left out
    )
    environment.filters.update(percent=_percent, number=_number, interval=_interval, seconds=_seconds)
    duplicates = data.get("passport", {}).get("duplicates", [])
    # Of all parts in one go, for which the network is called once.
    gallery, about = pictures.with_maps({n: _gallery(p["mistakes"], pictures) for n, p in data["parts"].items()})
    return environment.get_template("report.html.j2").render(
        r={**dict.fromkeys(COPIED), **data},
        parts={name: {**part, **_figures(part)} for name, part in data["parts"].items()},
        curves=_curves(data.get("history", [])),
        gallery=gallery,
        confused={n: _confused(part, data["classes"], pictures) for n, part in data["parts"].items()},
        about_maps={n: about if rows else "" for n, rows in gallery.items()},
        suspects=_gallery(data.get("suspects", []), pictures),
        duplicates=[{**d, "pictures": [pictures(i) for i in _ends(d)]} for d in duplicates[:MAX_DUPLICATES]],
        ends=_ends,
        max_unfolded=MAX_CLASSES_UNFOLDED,
        max_rows=MAX_ROWS,
    )


def _ends(group):
    """The two images of a group of duplicates to show."""
    return [group["ids"][i] for i in ends(group)]


def _gallery(rows, pictures):
    return [{**row, "picture": pictures(row["id"])} for row in rows[:MAX_PICTURES]]


def _confused(part, classes, pictures):
    """The photos behind the cells of a confusion matrix, the most frequent confusions first.

    Returns:
        Dicts of "cell" (true and predicted number), label, predicted, images, and "photos": rows of `mistakes`, the
        most confident first, each with its picture.
    """
    numbers = {c: i for i, c in enumerate(classes)}
    rows = {}
    for mistake in part["mistakes"]:
        rows.setdefault((mistake["label"], mistake["predicted"]), []).append(mistake)
    found = []
    for c in part["confused"][:MAX_CONFUSIONS]:
        photos = [
            {**m, "picture": pictures(m["id"])} for m in rows.get((c["label"], c["predicted"]), [])[:MAX_CONFUSED]
        ]
        found.append({**c, "cell": (numbers[c["label"]], numbers[c["predicted"]]), "photos": photos})
    return found


def _known(x):
    return isinstance(x, (int, float))  # neither None nor undefined


def _percent(x):
    return f"{100 * x:.1f}\u00a0%" if _known(x) else "–"


def _interval(pair):
    if not pair or not all(map(_known, pair)):
        return ""
    return f"{100 * pair[0]:.1f}–{100 * pair[1]:.1f}"


def _number(x):
    if not _known(x):
        return "–"
    return f"{x:,}" if isinstance(x, int) else f"{x:.4g}"


def _seconds(x):
    if not _known(x):
        return "–"
    return f"{x:.2f} s" if x < 10 else f"{x:.0f} s" if x < 120 else f"{x / 60:.1f} min"


def _figures(part):
    """What the template draws of a part: shares for the confusion matrix (or a picture of it), bars."""
    counts = np.array(part["confusion"])
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    weakest = sorted((c for c in part["per_class"] if c["images"]), key=lambda c: c["f1"] or 0.0)[:WEAKEST_CLASSES]
    found = {"shares": shares.round(3).tolist(), "heat": None, "diagrams": [], "weakest": weakest}
    if len(counts) > MAX_CLASSES_IN_MATRIX:
        found["heat"] = _heat(shares)
    calibration = part["calibration"]
    for title, bins, error in (("as trained", "bins", "ece"), ("with temperature", "bins_scaled", "ece_scaled")):
        if bins in calibration:
            found["diagrams"].append({"title": title, "bins": calibration[bins], "ece": calibration[error]})
    return found


def _heat(shares):
    """A confusion matrix of many classes as a PNG, white to blue, a pixel a cell (enlarged by the page)."""
    from PIL import Image

    low, high = np.array([255, 255, 255.0]), np.array([8, 48, 107.0])
    pixels = low + np.sqrt(shares)[..., None] * (high - low)  # the root shows rare confusions
    image = Image.fromarray(pixels.round().astype(np.uint8))
    if len(shares) > 512:
        image = image.resize((512, 512), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _curves(history):
    """Charts of loss and accuracy over all epochs: dicts of title, names and svg; none of a single epoch."""
    from kzoo.plots import line_chart

    charts = []
    for title, key in (("Loss", "loss"), ("Accuracy", "accuracy"), ("Mean IoU", "mean_iou")):
        keys = (key, f"val_{key}")
        lines = {name: [row.get(k) for row in history] for name, k in zip(LINES, keys, strict=True)}
        lines = {name: values for name, values in lines.items() if any(v is not None for v in values)}
        if lines and len(history) > 1:
            phases = [row.get("phase") for row in history]
            svg = line_chart(lines, phases=phases, from_zero=title == "Loss")
            charts.append({"title": title, "names": list(lines), "svg": svg})
    return charts
