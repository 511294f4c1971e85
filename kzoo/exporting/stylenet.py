"""A trained stylenet as a SavedModel: pictures in, painted pictures out; and the check of such an export."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import kzoo.models.stylenet  # noqa: F401  its layers register themselves with Keras
from kzoo import runs
from kzoo.data.drawn import painting
from kzoo.data.sources.arrays import load_arrays
from kzoo.errors import ExportError, KzooError, first_line
from kzoo.exporting.golden import FILE, MAX_FILE_BYTES
from kzoo.exporting.reader import CARD, STYLENET, changed_files, described_files, load_saved_model
from kzoo.files import sha256, write_atomically, write_folder
from kzoo.graph.inference import weights_in_graph
from kzoo.hardware import without_tensorflow_chatter
from kzoo.style.painter import BLEND, chosen, load_stylenet, paint

VERSION = 1


def export_stylenet(
    net: str | os.PathLike,
    out: str | os.PathLike,
    *,
    style: str | None = None,
    blend: Mapping[str, float] | None = None,
    force: bool = False,
) -> Path:
    """Write a trained stylenet as a SavedModel that runs without kzoo and Keras.

    Its signature serving_default takes images (B, H, W, 3) uint8 of any size and gives painted, of the same shape and
    type, in the style that is chosen here. The signature blend takes weights (styles,) float32 as well, in the order of
    the card, 0 or above and not all 0; they are divided by their sum. card.json has the styles and the hashes of all
    files, golden.npz two pictures and what becomes of them: `kzoo.verify` checks both.

    Args:
        net: a folder that `kzoo.train_stylenet` wrote; or "painter", the stylenet that kzoo carries, or one of its
            styles.
        out: the folder to write.
        style, blend: what serving_default paints, as in `kzoo.apply_stylenet`; neither: the first style.
        force: replace a SavedModel that is there.

    Returns:
        The path of the folder.

    Raises:
        KzooError: the folder exists, Keras runs on another backend than TensorFlow, or there is no such style.
        RunError: there is no stylenet in `net`.
        ExportError: what was written paints something else than the network.
    """
    if keras.backend.backend() != "tensorflow":
        raise KzooError("A SavedModel is written by the TensorFlow backend: unset KERAS_BACKEND.")
    out = Path(out)
    stylenet, mix = load_stylenet(net), chosen(net, style, blend) or None
    mix = mix or {stylenet.styles[0]: 1.0}
    fixed = stylenet.weights(mix)
    model, takes_styles = stylenet.model, len(stylenet.model.inputs) > 1

    def replaceable():
        if not force:
            raise KzooError(f"{out} exists: choose another --out, or --force.")
        if not (out / "saved_model.pb").is_file():
            raise KzooError(f"{out} is not a SavedModel, so it is not replaced: choose another --out.")

    @tf.function(
        input_signature=[tf.TensorSpec((None, None, None, 3)), tf.TensorSpec((None, len(fixed)))], autograph=False
    )
    def network(x, rows):
        weights = weights_in_graph(model, constants_only=True)
        return model.stateless_call(*weights, [x, rows] if takes_styles else x, training=False)[0]

    def run(images, weights):
        h, w = tf.shape(images)[1], tf.shape(images)[2]
        x = tf.pad(tf.cast(images, tf.float32), [[0, 0], [0, -h % 4], [0, -w % 4], [0, 0]], mode="REFLECT")
        weights = weights / tf.reduce_max(weights)  # the sum of large ones would be infinite, and of tiny ones inexact
        rows = tf.tile((weights / tf.reduce_sum(weights))[None], [tf.shape(images)[0], 1])
        y = network(x, rows)[:, :h, :w]
        return {"painted": tf.cast(tf.clip_by_value(tf.round(y), 0, 255), tf.uint8)}

    pictures = tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")

    @tf.function(input_signature=[pictures])
    def painted(images):
        return run(images, tf.constant(fixed))

    @tf.function(input_signature=[pictures, tf.TensorSpec((len(fixed),), tf.float32, name="weights")])
    def blended(images, weights):
        good = tf.reduce_all(tf.math.is_finite(weights) & (weights >= 0)) & tf.reduce_any(weights > 0)
        with tf.control_dependencies([tf.debugging.Assert(good, [f"{BLEND}; got", weights])]):
            return run(images, tf.identity(weights))

    module = tf.Module()
    module.painted, module.blended = painted, blended
    signatures = {"serving_default": painted, **({"blend": blended} if len(fixed) > 1 else {})}
    examples = _examples()
    with without_tensorflow_chatter(), write_folder(out, replace=replaceable) as folder:
        tf.saved_model.save(module, str(folder), signatures=signatures)
        golden: dict[str, Any] = {"weights": np.stack([fixed, *np.eye(len(fixed), dtype="float32")])}
        for i, x in enumerate(examples):
            golden[f"image{i}"] = x
            for j, row in enumerate(golden["weights"]):
                mixed = dict(zip(stylenet.styles, map(float, row), strict=True))
                golden[f"painted{i}_{j}"] = paint(stylenet, x, mixed)
        with write_atomically(folder / FILE) as f:
            np.savez_compressed(f, **golden)
        card = {
            STYLENET: VERSION,
            "name": Path(net).name,
            "styles": list(stylenet.styles),
            "paints": {n: round(float(w), 6) for n, w in zip(stylenet.styles, fixed, strict=True)},
            "signatures": {
                "serving_default": "images (B, H, W, 3) uint8 -> painted, the same shape and type",
                **({"blend": "images, weights (styles,) float32 -> painted"} if len(fixed) > 1 else {}),
            },
            "versions": runs.versions(),
            "command": runs.command("export_stylenet"),
            "files": {
                str(p.relative_to(folder)): {"sha256": sha256(p)} for p in sorted(folder.rglob("*")) if p.is_file()
            },
        }
        runs.write_json(folder / CARD, card)
        report = verify_stylenet(folder)
        if not report["ok"]:
            bad = "; ".join(c["detail"] for c in report["checks"] if not c["ok"])
            raise ExportError(f"{out} was not written: {bad}.")
    return out


def verify_stylenet(folder: str | os.PathLike, trust: bool = False) -> dict[str, Any]:
    """Check that the export of a stylenet has its files and paints what it painted when it was written.

    Args:
        folder: what `export_stylenet` wrote.
        trust: load a SavedModel with any operations.

    Returns:
        As `kzoo.verify`: {"folder", "ok", "checks": [{"check", "ok", "detail"}]}. A picture may differ by one grey
        level at a hundredth of its values, since another order of additions rounds otherwise.

    Raises:
        ExportError: the card is corrupt, or of a later kzoo.
    """
    folder = Path(folder)
    card = read_stylenet_card(folder)
    bad = changed_files(folder, card["files"])
    checks = [{"check": "files", "ok": not bad, "detail": described_files(bad, card["files"])}]
    if not bad:  # a corrupt file may crash TensorFlow
        checks += _painted_again(folder, card, trust)
    return {"folder": str(folder), "ok": all(c["ok"] for c in checks), "checks": checks}


def read_stylenet_card(folder: str | os.PathLike) -> dict[str, Any]:
    """The card.json of an export of a stylenet; ExportError if it is corrupt, or was written by a later kzoo."""
    path = Path(folder) / CARD
    try:
        card = json.loads(path.read_text("utf-8"))
        files, styles, version = card["files"], card["styles"], card[STYLENET]
        whole = isinstance(styles, list) and len(styles) > 0 and set(card["paints"]) == set(styles)
        whole = whole and all(isinstance(facts["sha256"], str) for facts in files.values())
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as e:
        raise ExportError(f"{path} can't be read as the card of a stylenet ({first_line(e)}).") from e
    if version != VERSION:
        raise ExportError(f"{path} was written by a later kzoo (format {version!r}; this one knows {VERSION}).")
    if not whole or not {FILE, "saved_model.pb"} <= files.keys():
        raise ExportError(f"{path} is corrupt: its styles or files can't be read.")
    return card


def _painted_again(folder, card, trust):
    """The checks of the SavedModel on the golden pictures."""
    try:
        loaded = load_saved_model(folder, trust)
        golden = load_arrays(folder / FILE, MAX_FILE_BYTES)
        stated = [card["paints"][name] for name in card["styles"]]
        same = bool(np.allclose(stated, golden["weights"][0], atol=1e-6))
        checks = [{"check": "card", "ok": same, "detail": f"paints {stated}, as its golden pictures"}]
        names = ["serving_default", *card["styles"]] if len(card["styles"]) > 1 else ["serving_default"]
        for j, name in enumerate(names):
            most, share = 0, 0.0
            for i in range(sum(k.startswith("image") for k in golden)):
                x = tf.constant(golden[f"image{i}"][None])
                signature = loaded.signatures["blend" if j else "serving_default"]
                more = {"weights": tf.constant(golden["weights"][j])} if j else {}
                y = signature(images=x, **more)["painted"].numpy()[0]
                expected = golden[f"painted{i}_{j}"]
                if y.shape != expected.shape:
                    raise ExportError(f"{name} gives a picture of the shape {y.shape}, not {expected.shape}")
                away = np.abs(y.astype(int) - expected)
                most, share = max(most, int(away.max())), max(share, float((away > 0).mean()))
            text = f"differs by {most} grey levels at most, at {share:.2%} of the values (allowed: 1, at 1 %)"
            checks.append({"check": f"painted, {name}", "ok": most <= 1 and share <= 0.01, "detail": text})
        return checks
    except Exception as e:  # TensorFlow and NumPy may raise anything for a file that is not what it should be
        return [{"check": "painted", "ok": False, "detail": first_line(e)}]


def _examples():
    """Two drawn pictures, one of a size that is no multiple of 4."""
    return [np.asarray(painting("glass", side=64)), np.asarray(painting("glass", side=64, seed=1))[:61, :50].copy()]
