"""The report on a training: report.html, one file that opens without a network, and the same numbers as report.json."""

from __future__ import annotations

import base64
import io
import json
import math
import os
from pathlib import Path

import numpy as np

from kzoo.data.passport import ends
from kzoo.errors import KzooError
from kzoo.files import write_atomically
from kzoo.finetuning.suspects import suspects
from kzoo.metrics import (
    calibration_error,
    class_intervals,
    class_scores,
    cross_fitted,
    fit_temperature,
    reliability,
    wilson,
)

GALLERY = 24  # pictures of a kind
PAIRS = 12  # of duplicates
PICTURE = 150  # pixels of the longer side
MANY = 40  # classes from which on the weakest come first and the others are folded away
CELLS = 20  # classes up to which the confusion matrix is a table of numbers
WEAKEST = 20  # of them
LISTED = 200  # rows of a long list in the HTML; the JSON has all
FEWEST = 10  # images to fit a temperature to
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
)


def write_report(folder, record):
    """Write report.html and report.json into `folder`, and return what the JSON holds.

    record: what is known of the run; what is missing is left out of the report. Plain values: title, command, run,
    model, weights (a dict), data, classes, seed, precision, hardware, versions, outcome (a sentence or two), passport
    (`Passport.to_dict()`), phases ({"name", "seconds", "trainable", "trainable_parameters", "frozen_parameters",
    "audit": {"ok", "frozen_checked", "moved", "text"}, "val_accuracy", "text"} each), history ({"phase", "epoch",
    "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds"} each), head ({"kind", "strength",
    "cross_validation": [{"kind", "strength", "accuracy", "loss"}]}).
    parts: {"val", "test": {"ids", "labels" (N,), "logits" (N, C)}}. train_features: {"ids", "labels", "features"
    (N, D)}, to find suspect labels. picture: a function of an id that gives a path, encoded bytes or a uint8 array; a
    picture that it can't give is left out.

    The result has, beside what was given, "parts" (accuracy, scores by class, confusion, calibration, mistakes),
    "suspects", and "temperature", fitted on all validation images, by which to divide logits in use (1 if there are
    too few). Names are escaped, and pictures are small copies without metadata. Raises KzooError.
    """
    data = jsonable({key: record[key] for key in COPIED if record.get(key) is not None})
    seed = int(record.get("seed") or 0)
    classes = list(data.get("classes", []))
    given = {name: p for name, p in (record.get("parts") or {}).items() if p is not None and len(p["labels"])}
    if any(np.shape(p["logits"]) != (len(p["labels"]), len(classes)) for p in given.values()):
        raise KzooError(f"The report needs logits of the shape (images, {len(classes)}), one column for each class.")
    temperature = None
    if "val" in given and len(given["val"]["labels"]) >= FEWEST:
        temperature = fit_temperature(_finite(given["val"]["logits"]), given["val"]["labels"])
    data["temperature"] = temperature or 1.0
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


def jsonable(x):
    """Plain JSON of what a record holds: arrays to lists, NaN and infinity to None, undecodable bytes escaped."""
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
    """What was measured on one part."""
    from scipy.special import softmax

    labels, logits = np.asarray(part["labels"]), _finite(part["logits"])
    predicted, right = logits.argmax(-1), logits.argmax(-1) == labels
    n = len(classes)
    confusion = np.bincount(labels * n + predicted, minlength=n * n).reshape(n, n)
    scores, intervals = class_scores(confusion), class_intervals(confusion, seed=seed)
    keys = ("precision", "recall", "f1")
    for i in range(n):  # the bootstrap's would have no width where nothing, or everything, is right
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
    probabilities = softmax(logits, -1)
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

    temperature: of the validation part; None if there is none, and then nothing is scaled.
    """
    from scipy.special import softmax

    if temperature is None:
        return {"ece": calibration_error(before, labels), "bins": reliability(before, labels)}
    if name == "val":
        after, how = softmax(cross_fitted(logits, labels, seed=seed), -1), "temperatures fitted to the other images"
    else:
        after, how = softmax(logits / temperature, -1), "the temperature fitted on the validation images"
    return {
        "ece": calibration_error(before, labels),
        "bins": reliability(before, labels),
        "ece_scaled": calibration_error(after, labels),
        "bins_scaled": reliability(after, labels),
        "how": how,
    }


# --- pictures and page -------------------------------------------------------------------------------------


class _Pictures:
    """Small copies as data addresses; None for what can't be shown."""

    def __init__(self, record, features):
        self.picture = record.get("picture")
        # Ids were cleaned for JSON; the caller knows them as they were.
        ids = [i for p in (record.get("parts") or {}).values() if p is not None for i in p["ids"]]
        ids += [i for d in (record.get("passport") or {}).get("duplicates", []) for i in d["ids"]]
        ids += list(features["ids"]) if features is not None else []
        self.original = {jsonable(i): i for i in ids}

    def __call__(self, id):
        from kzoo.data.scan import small_picture

        if self.picture is None:
            return None
        try:
            image = small_picture(self.picture(self.original.get(id, id)), PICTURE)
            image.thumbnail((PICTURE, PICTURE))
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
    return environment.get_template("report.html.j2").render(
        r={**dict.fromkeys(COPIED), **data},
        parts={name: {**part, **_figures(part)} for name, part in data["parts"].items()},
        curves=_curves(data.get("history", [])),
        gallery={n: _gallery(p["mistakes"], pictures) for n, p in data["parts"].items()},
        suspects=_gallery(data.get("suspects", []), pictures),
        duplicates=[{**d, "pictures": [pictures(i) for i in _ends(d)]} for d in duplicates[:PAIRS]],
        ends=_ends,
        many=MANY,
        listed=LISTED,
    )


def _ends(group):
    """The two images of a group of duplicates to show."""
    return [group["ids"][i] for i in ends(group)]


def _gallery(rows, pictures):
    return [{**row, "picture": pictures(row["id"])} for row in rows[:GALLERY]]


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
    weakest = sorted((c for c in part["per_class"] if c["images"]), key=lambda c: c["f1"] or 0.0)[:WEAKEST]
    found = {"shares": shares.round(3).tolist(), "heat": None, "diagrams": [], "weakest": weakest}
    if len(counts) > CELLS:
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
    """Charts of loss and accuracy over all epochs, in units of the page: lines, ticks, and where phases begin."""
    width, height, left, top = 520, 220, 46, 22
    charts = []
    n = len(history)

    def x(i):
        return round(left + (width - left - 8) * (i / (n - 1) if n > 1 else 0.5), 1)

    for title, keys in (("Loss", ("loss", "val_loss")), ("Accuracy", ("accuracy", "val_accuracy"))):
        values = [row.get(k) for row in history for k in keys if row.get(k) is not None]
        if not values:
            continue
        marks = _ticks(0.0 if title == "Loss" else min(values), max(values))
        low, high = marks[0], marks[-1]

        def y(v, low=low, high=high):
            return round(top + (height - top - 30) * (high - v) / (high - low), 1)

        lines = []
        for key, name in zip(keys, ("training", "validation"), strict=True):
            points = [(x(i), y(row[key])) for i, row in enumerate(history) if row.get(key) is not None]
            if points:
                lines.append({"name": name, "points": points})
        ticks = [{"y": y(v), "text": f"{v:.3g}"} for v in marks]
        step = max(1, math.ceil(n / 10))
        epochs = [{"x": x(i), "text": str(i + 1)} for i in range(0, n, step)]
        starts = [i for i in range(n) if i == 0 or history[i].get("phase") != history[i - 1].get("phase")]
        phases = [{"x": x(i) if i else left, "text": str(history[i].get("phase") or "")} for i in starts]
        charts.append(
            {
                "title": title,
                "lines": lines,
                "ticks": ticks,
                "epochs": epochs,
                "phases": phases,
                "width": width,
                "height": height,
                "left": left,
                "top": top,
            }
        )
    return charts


def _ticks(low, high):
    """Round numbers, about five, from at most `low` to at least `high`.

    >>> _ticks(0.478, 0.962)
    [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    """
    span = max(high - low, 1e-3 * max(abs(high), 1e-3))
    unit = 10 ** math.floor(math.log10(span / 3))
    step = next(m * unit for m in (1, 2, 5, 10) if span / (m * unit) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 10) for k in range(first, max(last, first + 1) + 1)]
