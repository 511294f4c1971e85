"""The model card of an export, as JSON and as Markdown: use, accuracy, origin, licences, limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kzoo.exporting.options import ExportOptions
from kzoo.exporting.reader import task_of
from kzoo.metrics import wilson
from kzoo.runs import command
from kzoo.tasks import Task

if TYPE_CHECKING:
    from kzoo.source import Source

DESCRIPTIONS = {
    "saved_model": "TensorFlow: signatures serving_default (encoded images), images, tensor, features",
    "keras": "Keras: prepared images",
    "onnx": "ONNX: prepared images",
    "litert_float32": "LiteRT, float32: prepared images",
    "litert_float16": "LiteRT, float16 weights: prepared images",
    "litert_int8": "LiteRT, int8 weights and activations: prepared images",
}


def measurements(
    task: Task,
    part: str,
    labels: np.ndarray,
    original: np.ndarray,
    outputs: Mapping[str, np.ndarray],
    *,
    temperature: float,
    conformal: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Score the unchanged network and every format on the same images.

    Args:
        task: gives the scores.
        part: the part of the data: "val" or "test".
        labels: (N, ...).
        original: outputs (N, ...) of the unchanged network.
        outputs: outputs (N, ...) of each variant of a format, by name.
        temperature: of the logits.
        conformal: facts from `kzoo.exporting.write.conformal_threshold`, or None for an export that never abstains.

    Returns:
        "part", the scores of "original", the scores of each variant in "formats" with the share of images ("agree")
        that get the same answer as from the original, and, with a conformal threshold, the results of abstaining in
        "abstain".
    """
    found = {
        "part": part,
        "original": task.scores(original, labels),
        "formats": {
            variant: {**task.scores(z, labels), "agree": float(task.same(z, original).mean())}
            for variant, z in outputs.items()
        },
    }
    if conformal:
        found["abstain"] = task.abstention(original, labels, temperature, conformal["threshold"])
    return found


def initial_card(
    source: Source,
    options: ExportOptions,
    precision: str,
    *,
    temperature: float,
    temperature_reason: str = "",
    conformal: Mapping[str, Any] | None,
    written: Mapping[str, dict],
) -> dict[str, Any]:
    """The entries of card.json that are known before the formats are checked.

    Args:
        source: the network.
        options: of the export.
        precision: of the SavedModel.
        temperature: of the logits.
        temperature_reason: why that one, in a sentence; empty if that is not known.
        conformal: facts from `kzoo.exporting.write.conformal_threshold`, or None.
        written: facts about each variant of a format, by name.
    """
    import keras
    import tensorflow as tf

    import kzoo

    return {
        "kzoo_export": 2,
        "name": source.name,
        "task": source.task.name,
        "input_shape": list(source.shape),
        "preprocessing": source.preprocessing.to_dict(),
        "preprocessing_sha256": source.preprocessing.fingerprint(source.shape),
        "precision": precision,
        "top": options.top,
        "temperature": temperature,
        "temperature_reason": temperature_reason,
        "conformal": conformal,
        **({"decision": source.task.decision} if source.task.decision else {}),
        "formats": {k: {**v, "about": DESCRIPTIONS[k]} for k, v in written.items()},
        "training": source.facts,
        "licence": {
            "weights": options.licence or source.licence,
            "data": options.data_licence or source.facts.get("data_licence", ""),
        },
        "command": command("export"),
        "versions": {
            "kzoo": kzoo.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
        "classes": list(source.classes),
    }


def table(card: Mapping[str, Any]) -> str:
    """A Markdown table with the accuracy and size of every format, compared with the original network."""
    measured, task = card.get("measured"), task_of(card)
    lines = [
        f"| Format | {task.headline_name} | Same answer as the original | Largest change of an output | MB |",
        "|---|--:|--:|--:|--:|",
    ]
    if measured:
        lines.append(f"| original, float32 | {task.headline(measured['original'])} | | | |")
    for variant, facts in card["formats"].items():
        row = measured and measured["formats"].get(variant)
        moved = f"{facts['moved']:.2g}" if facts.get("moved") is not None else ""
        lines.append(
            f"| {variant}, {facts['precision']} | {task.headline(row)} "
            f"| {row['agree']:.2%} | {moved} | {facts['bytes'] / 1e6:.2f} |"
            if row
            else f"| {variant}, {facts['precision']} | not measured | | {moved} | {facts['bytes'] / 1e6:.2f} |"
        )
    return "\n".join(lines)


def markdown(card: Mapping[str, Any]) -> str:
    """The card as Markdown, for people; `card` is the content of card.json."""
    training, prep, task = card["training"], card["preprocessing"], task_of(card)
    height, width, channels = card["input_shape"]
    colour = {1: "grey", 3: prep["channel_order"].upper()}.get(channels, f"{channels} channels")
    measured, conformal = card.get("measured"), card["conformal"]
    licence, on_val = card["licence"], measured is not None and measured["part"] == "val"
    pictures = channels in (1, 3)
    bits = f" ({prep['bits']} bits of these are used)" if prep.get("bits") else ""
    lines = [
        f"# {_escaped(card['name'])}",
        "",
        f"{_escaped(task.described(card['classes']))} Written by kzoo {card['versions']['kzoo']}.",
        "",
        "## Use",
        "",
        "`kzoo predict DIR photo.jpg`, `kzoo serve DIR`, `kzoo verify DIR`; without kzoo, with TensorFlow alone:",
        "",
        "```python",
        "import tensorflow as tf",
        'model = tf.saved_model.load("DIR")',
        'out = model.signatures["serving_default"](image=tf.constant([open("photo.jpg", "rb").read()]))',
        task.example,
        "```",
        "",
        "serving_default and features take encoded images, one string for each image: JPEG, PNG, GIF, BMP or WebP of "
        "any size, or an array as numpy.save writes it. EXIF orientation and CMYK in JPEG, grey, palette, "
        f"{'transparency (on white)' if pictures else f'{channels} channels, of which alpha may be one,'} and 16-bit "
        f"images{bits} are supported. "
        "For an image that can't be read, `error` has the reason; the other images of the batch are answered. images "
        f"takes uint8 {'RGB (B, H, W, 3)' if pictures else f'(B, H, W, {channels})'}; tensor takes float32 (B, "
        f"{height}, {width}, {channels}), 0..255.",
        "",
    ]
    if set(card["formats"]) - {"saved_model"}:
        lines += [
            "The other formats don't decode, resize or crop: the caller must. "
            f"{'Decode to RGB, upright, alpha on white' if pictures else f'Give {channels} channels'}"
            f"{', then grey = 0.299 R + 0.587 G + 0.114 B' if channels == 1 else ''}; resize (antialiased, "
            f"{prep['interpolation']}) so that the image covers {height / prep['crop']:.0f} x "
            f"{width / prep['crop']:.0f}; take the central {height} x {width}; pass float32 in 0..255. Scaling and "
            "channel order are inside the network. `kzoo.data.images.make_preparer` does this; `golden.npz` holds "
            "pixels (`prepared`) and `logits` to compare with.",
            "",
        ]
    if "keras" in card["formats"]:
        lines += [
            "model.keras with Keras (kzoo brings the layers that it registers):",
            "",
            "```python",
            "import kzoo, keras",
            'model = keras.models.load_model("DIR/model.keras")',
            "```",
            "",
        ]
    lines += ["## Formats", "", table(card), ""]
    if measured:
        lines += [
            f"Measured on {measured['original']['images']:,} images of the {measured['part']} part (a random sample if "
            f"the part has more){'; intervals are Wilson score intervals' if task.calibrated else ''}."
            + (" There is no test part, and the best epoch was chosen on these images." if on_val else ""),
            "",
        ]
    elif training.get("published"):
        published = training["published"]
        lines += [
            f"Accuracy was not measured for this export. Published for these weights: top-1 {published['top1']} %, "
            f"top-5 {published['top5']} %.",
            "",
        ]
    elif training.get("test_top1"):
        n, share = training["test_images"], training["test_top1"]
        low, high = wilson(round(share * n), n)
        text = f"The weights in float32 on the {n:,} test images of {training['data']}: top-1 {share:.2%} "
        lines += [f"{text}[{low:.2%}, {high:.2%}]. {training['data_note']}".rstrip(), ""]
    about = f"{task.about_answers(card['temperature'])} {card.get('temperature_reason', '')}"
    if about.strip():
        lines += ["## Numbers", "", f"- {_escaped(about)}"]
    if conformal:
        lines.append(
            f"- Abstention by split conformal prediction at the level {conformal['level']:g}: the prediction set holds "
            "the best class and all classes with a probability of at least 1 - threshold; `abstain` is true if the set "
            f"has more than one class. The threshold {conformal['threshold']:.4g} was computed on "
            f"{conformal['images']:,} validation images. The temperature and the best epoch were selected on the same "
            "images, so the coverage is slightly over-confident."
        )
        if "coverage" in conformal:
            low, high = conformal["coverage"]
            lines.append(
                f"- A threshold from {conformal['images']:,} images covers {conformal['level']:g} on average over "
                "draws of these images; this one covers "
                f"between {low:.2%} and {high:.2%} of new images (95 % interval)."
            )
        if measured:
            a, n = measured["abstain"], measured["original"]["images"]
            own = ", on which the threshold was computed, so this says nothing about new images" if on_val else ""
            rest = ""
            if a["top1_of_the_rest"] is not None:
                rest = f"; top-1 of the others {_share(a['top1_of_the_rest'], round((1 - a['abstained']) * n))}"
            lines.append(
                f"- On the {measured['part']} part{own}: the set holds the true class for {_share(a['covered'], n)} of "
                f"the images; it abstains on {_share(a['abstained'], n)}{rest}."
            )
    lines += ["", "## Origin", ""]
    for number, member in enumerate(training.get("members", ()), 1):
        named = {f"Member {number}": member["name"], "Temperature": f"{member['temperature']:.4g}", **_origin(member)}
        lines.append(f"- {'; '.join(f'{key}: {_escaped(value)}' for key, value in _known(named))}")
    facts = {
        **_origin(training),
        "Exported with": card["command"],
        "Precision": card["precision"],
        "Preprocessing": card["preprocessing_sha256"],
        "Versions": ", ".join(f"{k} {v}" for k, v in card["versions"].items()),
        "Created": card.get("created"),
        "Colours of the network": colour,
    }
    lines += [f"- {key}: {_escaped(value)}" for key, value in _known(facts)]
    lines += [
        "",
        "## Licences",
        "",
        f"- Weights: {_escaped(licence['weights']) or 'not stated'}",
        f"- Data: {_escaped(licence['data']) or 'not stated'}",
        "",
        "## Intended use and limits",
        "",
        "- Intended for images like those it was trained and measured on. "
        f"{'It always answers with one of its classes, whatever the image shows; i' if task.calibrated else 'I'}ts "
        "probabilities are not meaningful for other kinds of images.",
        "- The accuracy above was measured on the images named there; it may differ for another camera, place or time.",
        "- Not tested for decisions about people, or for uses in which an error can cause harm.",
        "",
        "card.json has the hashes of all files; `kzoo verify` checks them.",
        "",
    ]
    return "\n".join(lines)


def _origin(training):
    """Where a network comes from: the entries of `training` that the card prints, by their headings."""
    recipe = training.get("recipe") or {}
    return {
        "Network": training.get("model"),
        "Weights": training.get("weights"),
        "Source": training.get("source"),
        "Data": training.get("data"),
        "Fine-tuned": ", ".join(f"{k} {v}" for k, v in (training.get("finetune") or {}).items() if v),
        "Data fingerprint": training.get("fingerprint"),
        "Recipe": recipe.get("name") and f"{recipe['name']} ({recipe.get('source', '')})",
        "Seed": training.get("seed"),
        "Trained with": training.get("command"),
        "Trained on": training.get("hardware"),
    }


def _known(facts):
    return [(key, value) for key, value in facts.items() if value not in (None, "")]


def _share(share, n):
    """A share of n images, with its 95 % interval."""
    low, high = wilson(round(share * n), n)
    return f"{share:.2%} [{low:.2%}, {high:.2%}]"


def _escaped(value):
    """Text from elsewhere for Markdown: on one line, with characters of markup escaped."""
    text = " ".join(str(value).split()) if value is not None else ""
    return "".join(f"\\{c}" if c in "\\`*<>[]|#" else c for c in text)
