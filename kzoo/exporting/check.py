"""Check that an export still gives the results it gave when it was written: files, preprocessing, every format."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from kzoo.errors import ExportError, KzooError, first_line
from kzoo.exporting import formats, golden
from kzoo.exporting.reader import (
    KIND,
    LABELS,
    changed_files,
    check_labels,
    check_preprocessing,
    described_files,
    is_stylenet,
    load_saved_model,
    meta_graph,
    read_card,
    task_of,
)
from kzoo.exporting.stylenet import verify_stylenet
from kzoo.tasks import Task, register

# Of a probability, in float32, from the encoded image on. Where a pixel lies half way between two whole numbers,
# another order of additions rounds it the other way: measured, over 79 pictures of noise and photographs, up to 9e-4
# (resnet20) and 1.3e-5 (lenet5). A wrong crop or interpolation changes far more.
MAX_CHANGE = 5e-3


def verify(folder: str | os.PathLike, *, raises: bool = True, trust: bool = False) -> dict[str, Any]:
    """Check that an export still gives the results it gave when it was written.

    Four things are checked: the files are those of the card, the preprocessing matches its fingerprint, the golden
    images become the same pixels, and every format gives the same top-1 and the same logits for them, within the
    tolerance that follows from what it differed by when it was written; from the encoded images on, too, where the
    format takes these or decoded pictures. Of a stylenet, the files and what it paints are checked. It needs TensorFlow
    and the packages of the formats, but no run, no data and no internet connection.

    Args:
        folder: what `kzoo.export` wrote.
        raises: whether failed checks raise an error.
        trust: load a SavedModel with any operations, which may read and write files.

    Returns:
        {"folder", "ok", "checks": [{"check", "ok", "detail"}]}. "ok" of a check is None where a format was not checked
        because its package is missing.

    Raises:
        ExportError: a folder that is not an export; with `raises` also failed checks, all named in the message.

    Example:
        >>> model = kzoo.build("mnist_softmax", seed=0)
        >>> folder = kzoo.export(model, out="exports/example", quiet=True)
        >>> kzoo.verify(folder)["ok"]
        True
    """
    report = verify_stylenet(folder, trust) if is_stylenet(folder) else _verify(Path(folder), trust)[0]
    if raises and not report["ok"]:
        bad = "; ".join(f"{c['check']}: {c['detail']}" for c in report["checks"] if c["ok"] is False)
        raise ExportError(f"{folder} does not give the results it gave when it was written. {bad}")
    return report


def _verify(folder, trust):
    """(the report of `verify`, the SavedModel if it was loaded)."""
    card, loaded = read_card(folder), None
    checks = [_files(folder, card)]
    bad = checks[0].pop("bad")
    try:
        preprocessing, shape = check_preprocessing(card, folder)
        checks.append(_check("preprocessing", True, card["preprocessing_sha256"][:12]))
        found, loaded = _golden(folder, card, preprocessing, shape, bad, trust)
        checks += found
    except KzooError as e:
        checks.append(_check("preprocessing" if "preprocessing" in str(e) else "golden", False, str(e)))
    return {"folder": str(folder), "ok": all(c["ok"] is not False for c in checks), "checks": checks}, loaded


def _check(name, ok, detail, **more):
    return {"check": name, "ok": ok, "detail": detail, **more}


def _files(folder, card):
    if not isinstance(card.get("files"), dict) or not card["files"]:
        return _check("files", False, "the card lists no files", bad={})
    bad = changed_files(folder, card["files"])
    return _check("files", not bad, described_files(bad, card["files"]), bad=bad)


def _golden(folder, card, preprocessing, shape, bad, trust):
    """(the checks by golden images, the SavedModel if it was loaded)."""
    from kzoo.data.images import make_preparer

    encoded, arrays = golden.load(folder / golden.FILE)
    prepare = make_preparer(shape, preprocessing)
    moved = sum(not np.array_equal(prepare(e), p) for e, p in zip(encoded, arrays["prepared"], strict=True))
    n = len(encoded)
    checks = [
        _check(
            "pixels",
            not moved,
            f"{moved} of {n} images are prepared to different pixels than before" if moved else f"{n} images, equal",
        )
    ]
    loaded = None
    for variant, facts in card["formats"].items():
        if bad.keys() & set(facts["files"]):  # a corrupt file may crash its library
            checks.append(_check(variant, False, "not run: its files differ from those in the card", variant=variant))
            continue
        try:
            if variant == "saved_model":
                loaded = load_saved_model(folder, trust)
            found = _variant(folder, card, variant, facts, encoded, arrays, saved_model=loaded)
            checks += [{**check, "variant": variant} for check in found]
        except ExportError as e:
            absent = formats.missing(variant.partition("_")[0]) == str(e)
            checks.append(
                _check(variant, None if absent else False, f"not checked: {e}" if absent else str(e), variant=variant)
            )
        except Exception as e:  # a format's library may raise anything for a corrupt file
            own = ": --import the code that registers its layers" if "Could not locate class" in str(e) else ""
            checks.append(
                _check(variant, False, f"can't be run ({type(e).__name__}: {first_line(e)}){own}", variant=variant)
            )
    return checks, loaded


def _variant(folder, card, variant, facts, encoded, arrays, *, saved_model):
    """The checks of one format: its outputs for prepared pixels, and its answers from the encoded images on."""
    loaded = saved_model if variant == "saved_model" else None
    task = task_of(card)
    run = formats.runner(variant, folder, loaded, task.output)
    moved = facts.get("moved") if card[KIND] > 1 else None  # exports of 0.1.0 keep the tolerance that they had
    tolerance = formats.tolerance(facts.get("precision"), moved)
    expected, near = arrays["logits"], arrays["near"]  # "logits": the outputs, for every task
    with full_float32():
        outputs, given = run(arrays["prepared"]), None
    found = [compare(variant, outputs, expected, tolerance, task, near)]
    if facts.get("takes") == formats.PICTURES:
        outputs, given = _from_pictures(variant, folder, card, encoded, task.output)
    if loaded:
        import tensorflow as tf

        with full_float32():
            out = loaded.signatures["serving_default"](image=tf.constant([*encoded, b"no image"], tf.string))
        values = {name: value.numpy() for name, value in out.items()}
        good = {name: value[:-1] for name, value in values.items()}
        outputs = good[task.output]
        found.append(compare("encoded images", good[task.output], expected, tolerance, task, near))
        certain = {name: value[~near] for name, value in good.items()}
        found += [_check(*check) for check in task.check_signature(certain, expected[~near], card)]
        found.append(_labels(folder, card))
        error = values["error"][-1].decode()
        found.append(
            _check("an unreadable image", bool(error) and not any(values["error"][:-1]), error or "not marked")
        )
    found.append(compare_answers(variant, outputs, given, expected, card, facts.get("precision"), near))
    return found


def _from_pictures(variant, folder, card, encoded, output):
    """(outputs, probabilities or None) of a format that takes decoded pictures, each in its own size, by itself."""
    import tensorflow as tf

    from kzoo.data.images import decode, given_channels

    preprocessing, shape = check_preprocessing(card, folder)
    run = formats.picture_runner(variant, folder)
    rows = []
    for data in encoded:
        with tf.device("CPU"):
            picture = decode(
                tf.constant(data), given_channels(shape[2]), bits=preprocessing.bits, rules=preprocessing.rules
            )
        rows.append(run(picture.numpy()[None]))
    found = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    return found[output], found.get(formats.PROBABILITIES)


def compare_answers(
    variant: str,
    outputs: np.ndarray,
    probabilities: np.ndarray | None,
    expected: np.ndarray,
    card: Mapping[str, Any],
    precision: str | None,
    near: np.ndarray,
) -> dict[str, Any]:
    """Compare what a format answers for the encoded golden images with the answers of the unchanged network.

    Args:
        variant: of the format.
        outputs: (N, ...), of the format.
        probabilities: (N, ...), if the format gives them for every class; else they are computed from the outputs.
        expected: outputs (N, ...) of the unchanged network.
        card: gives task and temperature.
        precision: of the format; in float32 no probability may change by more than `MAX_CHANGE`.
        near: bool (N,), images near a decision, whose answer may change.

    Returns:
        {"check", "ok", "detail", "images": N, "changed": the number of images that get another answer} and, for a task
        with probabilities, "change", the largest change of one. Further checks compare the outputs with a tolerance of
        their own, so that "ok" says nothing about these.
    """
    import tensorflow as tf

    task, name = task_of(card), f"{variant}, from encoded images"
    if outputs.shape != expected.shape or not np.isfinite(outputs).all():
        return _check(name, False, f"gives shape {outputs.shape}, or NaN; expected {expected.shape} and finite values")
    other = ~task.same(outputs, expected)
    found: dict[str, Any] = {"images": len(other), "changed": int(other.sum())}
    text = f"{found['changed']} of {len(other)} images get another answer"
    before = task.probabilities(tf.constant(expected), card["temperature"])
    if before is not None:
        after = (
            task.probabilities(tf.constant(outputs), card["temperature"]) if probabilities is None else probabilities
        )
        found["change"] = float(np.abs(np.asarray(after) - before.numpy()).max())
        text += f"; probabilities change by {found['change']:.2g} at most"
    # An image near a decision may get another answer by rounding; what that comes to, the change says.
    ok = not (other & ~near).any() and not (precision == "float32" and found.get("change", 0) > MAX_CHANGE)
    return _check(name, ok, text, **found)


@contextmanager
def full_float32() -> Iterator[None]:
    """Compute float32 in float32: on some GPUs TensorFlow multiplies it with 10 bits (TensorFloat-32) by default."""
    import tensorflow as tf

    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def _labels(folder, card):
    try:
        check_labels(card, folder, meta_graph(folder / "saved_model.pb"))
        names = (folder / LABELS).read_text("utf-8").split("\n")[:-1]
    except (OSError, ValueError) as e:
        return _check(LABELS, False, f"can't be read ({first_line(e)})")
    except ExportError as e:
        return _check(LABELS, False, str(e))
    return _check(LABELS, True, f"{len(names)} names, as in the card and the graph")


def compare(
    name: str,
    outputs: np.ndarray,
    expected: np.ndarray,
    tolerance: float,
    task: Task,
    near: np.ndarray | None = None,
) -> dict[str, Any]:
    """Compare outputs with the expected ones: every answer must be the same, every value within the tolerance.

    Args:
        name: of the check.
        outputs: (N, ...).
        expected: (N, ...).
        tolerance: the largest allowed difference, as a share of the largest absolute expected value.
        task: decides whether two outputs mean the same answer.
        near: bool (N,), images near a decision, whose answer may change as long as the values are within the tolerance.

    Returns:
        {"check", "ok", "detail"}, and, unless shapes differ or values are not finite, "moved" (the largest difference
        as a share) and "flips" (images whose answer changed).
    """
    if outputs.shape != expected.shape or not np.isfinite(outputs).all():
        return _check(name, False, f"gives shape {outputs.shape}, or NaN; expected {expected.shape} and finite values")
    other = ~task.same(outputs, expected)
    flips = int((other if near is None else other & ~near).sum())
    moved = float(np.abs(outputs - expected).max() / max(np.abs(expected).max(), 1e-6))
    text = f"{task.output} differ by {moved:.2g} of the largest value (tolerance {tolerance:g})"
    if flips:
        text = f"{flips} of {len(outputs)} images get another answer; {text}"
    return _check(name, not flips and moved <= tolerance, text, moved=moved, flips=flips)


def failed(report: dict[str, Any]) -> tuple[dict[str, list[str]], str]:
    """({format: its failed checks} of a report of `verify`, the other failed checks as text)."""
    formats_, others = {}, []
    for check in report["checks"]:
        if check["ok"] is False:
            text = f"{check['check']}: {check['detail']}"
            (formats_.setdefault(check["variant"], []) if "variant" in check else others).append(text)
    return formats_, "; ".join(others)


def write_outputs(
    folder: str | os.PathLike,
    pixels: str | os.PathLike,
    out: str | os.PathLike,
    without: Collection[str] = (),
    saved_model: Any = None,
) -> None:
    """Run every format of an export on prepared images, and write its outputs to out/VARIANT.npy.

    Args:
        folder: the export.
        pixels: a .npy file with uint8 images (N, H, W, C).
        out: an existing folder.
        without: formats that are not run.
        saved_model: the export's, if it is loaded already.
    """
    x = np.load(pixels, mmap_mode="r", allow_pickle=False)
    card = read_card(folder)
    output = task_of(card).output
    for variant in [v for v in card["formats"] if v not in without]:
        loaded = saved_model
        if variant == "saved_model" and loaded is None:
            loaded = load_saved_model(folder, trust=True)
        run = formats.runner(variant, Path(folder), loaded, output)
        np.save(Path(out) / f"{variant}.npy", np.concatenate([run(x[i : i + 32]) for i in range(0, len(x), 32)]))


def check_written(
    folder: str | os.PathLike, pixels: str | os.PathLike | None = None, out: str | os.PathLike | None = None
) -> dict[str, Any]:
    """Verify an export that kzoo has just written, and run its formats that pass on the tested images.

    Args:
        folder: the export.
        pixels: a .npy file with uint8 images (N, H, W, C); None: only verify.
        out: an existing folder for the outputs of each format.

    Returns:
        The report of `verify`.
    """
    report, saved_model = _verify(Path(folder), trust=True)
    bad, broken = failed(report)
    if not broken and pixels is not None and out is not None:
        write_outputs(folder, pixels, out, bad, saved_model)
    return report


if __name__ == "__main__":  # run by kzoo export in a new process: FOLDER MODULE-OF-THE-TASK,OF-LAYERS [PIXELS OUT]
    task, *layers = map(import_module, sys.argv[2].split(","))
    register(task.TASK)
    print("REPORT", json.dumps(check_written(sys.argv[1], *sys.argv[3:5])))
