"""The model card of an export, as JSON and as Markdown: use, accuracy, origin, licences, limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kzoo.data.images import given_channels
from kzoo.exporting.formats import PICTURES
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
    "onnx": "ONNX: decoded pictures of any size",
    "litert_float32": "LiteRT, float32: decoded pictures of any size",
    "litert_float16": "LiteRT, float16 weights: decoded pictures of any size",
    "litert_int8": "LiteRT, int8 weights and activations: decoded pictures of any size",
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


def file_facts(source: Source, temperature: float, conformal: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the metadata of an ONNX or LiteRT file says, so that the file can be used without its folder.

    Args:
        source: the network.
        temperature: of the logits.
        conformal: facts from `kzoo.exporting.write.conformal_threshold`, or None.

    Returns:
        JSON values: "kzoo" (its version), "name", "task", "labels", "temperature", those of the task, and "threshold"
        of conformal prediction.
    """
    import kzoo

    return {
        "kzoo": kzoo.__version__,
        "name": source.name,
        "task": source.task.name,
        "labels": list(source.classes),
        "temperature": temperature,
        **source.task.file_facts(source.classes),
        **({"threshold": conformal["threshold"]} if conformal else {}),
    }


def initial_card(
    source: Source,
    options: ExportOptions,
    precision: str,
    *,
    multiply_adds: int,
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
        multiply_adds: of the network, for one image.
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
        "multiply_adds": multiply_adds,
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


def rows_of(card: Mapping[str, Any]) -> list[list[str]]:
    """The accuracy and size of every format, compared with the original network, as cells of a table.

    Returns:
        For the original, if it was measured, and each format: its name and precision, the task's headline, the share of
        equal answers, how many golden images have another answer, the largest changes of a probability and of an
        output, and MB.
    """
    measured, task, found = card.get("measured"), task_of(card), []
    if measured:
        found.append(["original, float32", task.headline(measured["original"]), "", "", "", "", ""])
    for variant, facts in card["formats"].items():
        row = measured and measured["formats"].get(variant)
        golden, moved = facts.get("golden") or {}, facts.get("moved")
        found.append(
            [
                f"{variant}, {facts['precision']}",
                task.headline(row) if row else "not measured",
                f"{row['agree']:.2%}" if row else "",
                f"{golden['changed']} of {golden['images']}" if golden else "",
                f"{golden['change']:.2g}" if "change" in golden else "",
                "" if moved is None else f"{moved:.2g}",
                f"{facts['bytes'] / 1e6:.2f}",
            ]
        )
    return found


def table(card: Mapping[str, Any]) -> str:
    """A Markdown table of `rows_of`."""
    lines = [
        f"| Format | {task_of(card).headline_name} | Same answer as the original | Golden images: other answers "
        "| Largest change of a probability | Largest change of an output | MB |",
        "|---|--:|--:|--:|--:|--:|--:|",
        *(f"| {' | '.join(cells)} |" for cells in rows_of(card)),
    ]
    return "\n".join(lines)


def text_table(card: Mapping[str, Any]) -> str:
    """A table of `rows_of` for a terminal of 80 columns."""
    heads = [
        ["", "", "same", "golden,", "change of", "change of", ""],
        [
            "format",
            task_of(card).headline_name.lower().partition(" [")[0],
            "answer",
            "other",
            "a prob.",
            "an output",
            "MB",
        ],
    ]
    rows = list(heads)
    for name, headline, *cells in rows_of(card):
        variant, _, precision = name.partition(", ")
        # The interval stands in the card.
        shown = "-" if headline == "not measured" else headline.partition(" [")[0]
        rows.append([variant if variant.endswith(precision) else name, shown, *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([f"{row[0]:{widths[0]}}", *(f"{c:>{w}}" for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def usage(card: Mapping[str, Any]) -> list[str]:
    """The lines of the card that answer for a picture with each of the formats that are there; DIR is the folder."""
    prep, task, formats = card["preprocessing"], task_of(card), card["formats"]
    height, width, channels = card["input_shape"]
    given = given_channels(channels)
    pictures = given == 3
    file = "photo.jpg" if pictures else "picture.npy"
    lines = []
    if "saved_model" in formats:
        bits = f" ({prep['bits']} bits of these are used)" if prep.get("bits") else ""
        lines += [
            f"`kzoo predict DIR {file}`, `kzoo serve DIR`, `kzoo verify DIR`; without kzoo, with TensorFlow alone:",
            *_block(
                "import tensorflow as tf",
                "",
                'model = tf.saved_model.load("DIR")',
                f'out = model.signatures["serving_default"](image=tf.io.read_file("{file}")[None])',
                task.example,
            ),
            "serving_default and features take encoded images, one string for each image: JPEG, PNG, GIF, BMP or WebP "
            "of any size, or an array as numpy.save writes it. EXIF orientation and CMYK in JPEG, grey, palette, "
            f"{'transparency (on white)' if pictures else f'{channels} channels, of which alpha may be one,'} and "
            f"16-bit images{bits} are supported. "
            "For an image that can't be read, `error` has the reason; the other images of the batch are answered. "
            f"images takes uint8 {'RGB (B, H, W, 3)' if pictures else f'(B, H, W, {channels})'}; tensor takes float32 "
            f"(B, {height}, {width}, {channels}), 0..255.",
            "",
        ]
    else:
        lines += ["`kzoo verify DIR` checks it; `kzoo predict` and `kzoo serve` need the format saved_model.", ""]
    takes = {name: facts["files"][0] for name, facts in formats.items() if facts.get("takes") == PICTURES}
    litert = [name for key, name in takes.items() if key != "onnx"]
    if takes:
        probabilities = any("change" in formats[name].get("golden", {}) for name in takes)
        lines += [
            f"{_listed(list(takes.values()))}: resizing, cropping and scaling are inside. The input is `image`, uint8 "
            f"(batch, height, width, {given}), pictures of any one size"
            f"{', RGB, upright, transparency on white' if pictures else ''}. The outputs are "
            f"{f'`probabilities` and `{task.output}`' if probabilities else f'`{task.output}`'}, by class number, as "
            "float32. The labels and the temperature are in the file's metadata.",
            "",
        ]
    if pictures:
        opened = ["from PIL import Image, ImageOps"]
        decoded = [
            f'picture = ImageOps.exif_transpose(Image.open("{file}")).convert("RGBA")',
            'white = Image.new("RGBA", picture.size, "white")',
            'image = np.asarray(Image.alpha_composite(white, picture).convert("RGB"))[None]',
        ]
    else:
        opened, decoded = [], [f'image = np.load("{file}")[None]']
    names = ["labels", *task.file_facts(card["classes"])]
    if "onnx" in takes:
        lines += ["With ONNX Runtime:"] + _block(
            "import json",
            "",
            "import numpy as np",
            "import onnxruntime",
            *opened,
            "",
            *decoded,
            f'session = onnxruntime.InferenceSession("DIR/{takes["onnx"]}")',
            "facts = session.get_modelmeta().custom_metadata_map",
            *(f'{name} = json.loads(facts["{name}"])' for name in names),
            'out = dict(zip([x.name for x in session.get_outputs()], session.run(None, {"image": image})))',
            task.array_example,
        )
    if litert:
        lines += ["With LiteRT:"] + _block(
            "import json",
            "import zipfile",
            "",
            "import numpy as np",
            "from ai_edge_litert.interpreter import Interpreter",
            *opened,
            "",
            *decoded,
            f'file = "DIR/{litert[0]}"{"".join(f"  # or {name}" for name in litert[1:])}',
            'facts = json.loads(zipfile.ZipFile(file).read("kzoo.json"))',
            *(f'{name} = facts["{name}"]' for name in names),
            "out = Interpreter(file).get_signature_runner()(image=image)",
            task.array_example,
        )
    if "keras" in formats:
        lines += [
            f"model.keras takes prepared images, float32 (batch, {height}, {width}, {channels}) in 0..255, and gives "
            f"`{task.output}`; kzoo brings the layers that it registers, and prepares:",
            *_block(
                "from pathlib import Path",
                "",
                "import kzoo, keras",
                "from kzoo.data.images import make_preparer",
                "from kzoo.exporting.reader import check_preprocessing, read_card, task_of",
                "",
                'card = read_card("DIR")',
                'preprocessing, shape = check_preprocessing(card, "DIR")',
                f'image = make_preparer(shape, preprocessing)(Path("{file}").read_bytes())',
                'model = keras.models.load_model("DIR/model.keras")',
                'outputs = model(image[None].astype("float32")).numpy()',
                'print(task_of(card).answer(outputs, card["classes"], card["top"], card["temperature"])[0])',
            ),
        ]
    return lines


def _block(*lines):
    return ["", "```python", *lines, "```", ""]


def _listed(names):
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def markdown(card: Mapping[str, Any]) -> str:
    """The card as Markdown, for people; `card` is the content of card.json."""
    training, prep, task = card["training"], card["preprocessing"], task_of(card)
    channels = card["input_shape"][2]
    colour = {1: "grey", 3: prep["channel_order"].upper()}.get(channels, f"{channels} channels")
    measured, conformal = card.get("measured"), card["conformal"]
    licence, on_val = card["licence"], measured is not None and measured["part"] == "val"
    lines = [
        f"# {_escaped(card['name'])}",
        "",
        f"{_escaped(task.described(card['classes']))} Written by kzoo {card['versions']['kzoo']}.",
        "",
        "## Use",
        "",
        *usage(card),
    ]
    lines += ["## Formats", "", table(card), ""]
    if any("golden" in facts for facts in card["formats"].values()):
        lines += [
            "Golden images: what changes against the unchanged network from the encoded image on, over those in "
            "golden.npz, half of which were chosen because they are near a decision.",
            "",
        ]
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
