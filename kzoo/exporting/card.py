"""The card of an export, as JSON and for people: what it is, how good, where it comes from, what it is not for."""

from __future__ import annotations

import numpy as np

from kzoo.metrics import wilson
from kzoo.runs import command
from kzoo.tasks import find

ABOUT = {
    "saved_model": "TensorFlow: signatures serving_default (encoded images), images, tensor, features",
    "keras": "Keras: prepared images",
    "onnx": "ONNX: prepared images",
    "litert_float32": "LiteRT, float32: prepared images",
    "litert_float16": "LiteRT, float16 weights: prepared images",
    "litert_int8": "LiteRT, int8 weights and activations: prepared images",
}


def measured(task, part, labels, original, outputs, *, temperature, conformal):
    """Scores of the unchanged network and of every format on the same images, and what abstaining gives."""
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


def start(source, options, precision, *, temperature, conformal, written):
    """What is known before anything is checked."""
    import keras
    import tensorflow as tf

    import kzoo

    return {
        "kzoo_export": 1,
        "name": source.name,
        "task": source.task.name,
        "input_shape": list(source.shape),
        "preprocessing": source.preprocessing.to_dict(),
        "preprocessing_sha256": source.preprocessing.fingerprint(source.shape),
        "precision": precision,
        "top": options.top,
        "temperature": temperature,
        "conformal": conformal,
        "formats": {k: {**v, "about": ABOUT[k]} for k, v in written.items()},
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


def table(card):
    """Accuracy and size of every format beside the original, as a Markdown table."""
    known, task = card.get("measured"), find(card["task"])
    lines = [
        f"| Format | {task.headline_name} | Same answer as the original | Largest change of an output | MB |",
        "|---|--:|--:|--:|--:|",
    ]
    if known:
        lines.append(f"| original, float32 | {task.headline(known['original'])} | | | |")
    for variant, facts in card["formats"].items():
        row = known and known["formats"].get(variant)
        moved = f"{facts['moved']:.2g}" if facts.get("moved") is not None else ""
        lines.append(
            f"| {variant}, {facts['precision']} | {task.headline(row) if row else 'not measured'} "
            f"| {row['agree']:.2%} | {moved} | {facts['bytes'] / 1e6:.2f} |"
            if row
            else f"| {variant}, {facts['precision']} | not measured | | {moved} | {facts['bytes'] / 1e6:.2f} |"
        )
    return "\n".join(lines)


def markdown(card):
    """The card for people."""
    training, prep, task = card["training"], card["preprocessing"], find(card["task"])
    height, width, channels = card["input_shape"]
    recipe = training.get("recipe") or {}
    colour = "grey" if channels == 1 else prep["channel_order"].upper()
    known, conformal = card.get("measured"), card["conformal"]
    licence = card["licence"]
    lines = [
        f"# {_plain(card['name'])}",
        "",
        f"{_plain(task.described(card['classes']))} Written by kzoo {card['versions']['kzoo']}.",
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
        "serving_default and features take encoded images, a string for each; JPEG, PNG, GIF, BMP and WebP of any "
        "size, EXIF orientation and CMYK in JPEG, grey, palette, alpha (on white) and 16 bits included. One that "
        "can't be read has the reason in `error`, the others are answered. images takes uint8 RGB (B, H, W, 3); "
        f"tensor takes float32 (B, {height}, {width}, {channels}), 0..255.",
        "",
    ]
    if set(card["formats"]) - {"saved_model"}:
        lines += [
            "The other formats can't decode, resize and crop: the caller does. Decode to RGB, upright, alpha on white"
            f"{', then grey = 0.299 R + 0.587 G + 0.114 B' if channels == 1 else ''}; resize (antialiased, "
            f"{prep['interpolation']}) so that the picture covers {height / prep['crop']:.0f} x "
            f"{width / prep['crop']:.0f}; take the central {height} x {width}; give float32 in 0..255. Scaling and "
            "channel order are inside. `kzoo.data.images.make_preparer` does this; `golden.npz` holds pixels "
            "(`prepared`) and `logits` to compare with.",
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
    if known:
        lines += [
            f"Measured on {known['original']['images']:,} images of the {known['part']} part, drawn at random if "
            "there are more; intervals are Wilson's.",
            "",
        ]
    elif training.get("published"):
        published = training["published"]
        lines += [
            f"Nothing was measured here; published for these weights: top-1 {published['top1']} %, top-5 "
            f"{published['top5']} %.",
            "",
        ]
    elif training.get("test_top1"):
        n, share = training["test_images"], training["test_top1"]
        low, high = wilson(round(share * n), n)
        text = f"The weights, in float32, on the {n:,} test images of {training['data']}: top-1 {share:.2%} "
        lines += [f"{text}[{low:.2%}, {high:.2%}]. {training['data_note']}".rstrip(), ""]
    lines += [
        "## Numbers",
        "",
        f"- Temperature {card['temperature']:.4g}: probabilities are softmax(logits / temperature).",
    ]
    if conformal:
        lines.append(
            f"- Abstains at the level {conformal['level']:g} (split conformal, threshold {conformal['threshold']:.4g} "
            f"from {conformal['images']:,} validation images, on which the temperature and the best epoch were chosen, "
            "so slightly too sure of itself): the set of the best class and those of at least 1 - threshold holds "
            "the true one. `abstain` is true where the set has several."
        )
        if known:
            a = known["abstain"]
            rest = f", top-1 of the rest {a['top1_of_the_rest']:.2%}" if a["top1_of_the_rest"] is not None else ""
            lines.append(
                f"- On the {known['part']} part: the set holds the true class for {a['covered']:.2%}, "
                f"abstained {a['abstained']:.2%}{rest}."
            )
    lines += ["", "## Where it comes from", ""]
    facts = {
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
        "Exported with": card["command"],
        "Precision": card["precision"],
        "Preprocessing": card["preprocessing_sha256"],
        "Versions": ", ".join(f"{k} {v}" for k, v in card["versions"].items()),
        "Created": card.get("created"),
        "Colours of the network": colour,
    }
    lines += [f"- {key}: {_plain(value)}" for key, value in facts.items() if value not in (None, "")]
    lines += [
        "",
        "## Licences",
        "",
        f"- Weights: {_plain(licence['weights']) or 'not stated'}",
        f"- Data: {_plain(licence['data']) or 'not stated'}",
        "",
        "## Intended use and limits",
        "",
        "- For images like those it was trained and measured on. It answers with one of its classes whatever the image "
        "shows; probabilities say nothing about images of another kind.",
        "- The numbers above hold for the images that they were measured on, not for another camera, place or time.",
        "- Not tested for decisions about people, or where an error does harm.",
        "",
        "Hashes of all files are in card.json; `kzoo verify` checks them.",
        "",
    ]
    return "\n".join(lines)


def _plain(value):
    """Text of others inside Markdown: one line, nothing that would be read as markup."""
    text = " ".join(str(value).split()) if value is not None else ""
    return "".join(f"\\{c}" if c in "\\`*<>[]|#" else c for c in text)
