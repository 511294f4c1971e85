"""`kzoo.export`: from a trained classifier to a folder that proves itself."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kzoo.data.batches import batches, decode_split
from kzoo.data.dataset import Split, report_skipped
from kzoo.errors import ExportError, KzooError, first_line
from kzoo.exporting import card as cards
from kzoo.exporting import formats as table
from kzoo.exporting import golden, graph
from kzoo.exporting.options import ExportOptions
from kzoo.exporting.reader import CARD, is_export
from kzoo.exporting.source import find_source
from kzoo.files import sha256, write_atomically, write_folder
from kzoo.graph.inference import predictor
from kzoo.hardware import auto_precision, describe
from kzoo.metrics import fit_temperature, softmax
from kzoo.progress import progress, say
from kzoo.runs import write_json

PACKAGES = Path(__file__).resolve().parents[2]
LABELS = "labels.txt"


@dataclass
class Parts:
    """What the formats are written from. form: the inference form in float32; outputs: it as a tf.function."""

    module: object
    signatures: dict
    form: keras.Model
    outputs: object
    precision: str
    representative: np.ndarray


def export(
    run_or_model: Any,
    formats: str | Sequence[str] = ("saved_model",),
    out: str | os.PathLike | None = None,
    *,
    precision: str = "float32",
    abstain: float | None = None,
    weights: Any = None,
    classes: Sequence[str] | None = None,
    top: int = 5,
    measure: int = 2000,
    licence: str | None = None,
    data_licence: str | None = None,
    force: bool = False,
    quiet: bool = False,
) -> Path:
    """Write a trained classifier as a folder: encoded images in, labels and probabilities out, with its evidence.

    Every format runs the golden images in a fresh process; where a top-1 flips or outputs move by more than the
    format's tolerance, nothing is left behind. The folder is written beside and renamed: a full disk or a kill leaves
    what was there.

    Args:
        run_or_model: a Run or its folder, a name of the catalog (with weights), or a keras.Model of the TensorFlow
            backend.
        formats: of "saved_model", "keras", "onnx", "litert". One whose packages are missing is an error.
        out: the folder; saved_models/NAME by default.
        precision: of the SavedModel: "float32", "bfloat16", "float16", or "auto" for what this machine is fast in. 16
            bits are slow where the hardware lacks them. The other formats start from float32.
        abstain: a level such as 0.99: the signatures then say when to abstain (split conformal prediction: for images
            like the run's validation part, the set of classes that can't be ruled out holds the true one with at least
            this probability; where it has several, abstain). A level below the accuracy never abstains. Needs a run
            with a validation part.
        weights: for a name of the catalog: a tag or a file; the first published set by default.
        classes: the classes' names, for what does not bring its own.
        top: how many labels the signatures return.
        measure: of how many images (of the test part, else the validation part) every format's accuracy is measured at
            most; 0 for none.
        licence, data_licence: for the card.
        force: replace an export that is there.
        quiet: no progress.

    Returns:
        The folder's path.

    Raises:
        ExportError: what can't be exported, or an export that would not compute what the model does.
        KzooError: an unknown name, an option out of range, no run.

    Example:
        >>> model = kzoo.build("mnist_softmax", seed=0)
        >>> sorted(p.name for p in kzoo.export(model, out="exports/plain", measure=0, quiet=True).iterdir())[:4]
        ['assets', 'card.json', 'card.md', 'fingerprint.pb']
    """
    options = ExportOptions(
        formats=formats,
        precision=precision,
        abstain=abstain,
        weights=weights,
        classes=classes,
        top=top,
        measure=measure,
        licence=licence,
        data_licence=data_licence,
    )
    if keras.backend.backend() != "tensorflow":
        raise ExportError("Exporting needs the TensorFlow backend: unset KERAS_BACKEND.")
    reasons = [reason for name in options.formats if (reason := table.missing(name))]
    if reasons:
        raise ExportError(" ".join(reasons))
    source = find_source(run_or_model, weights=options.weights, classes=options.classes)
    out = Path(out) if out is not None else Path("saved_models") / source.name
    with write_folder(out, replace=lambda: _replaceable(out, force)) as folder:
        try:
            return _export(source, options, out, folder, quiet)
        except (OSError, KzooError):
            raise
        except Exception as e:
            import tensorflow as tf

            if not isinstance(e, (tf.errors.OpError, RuntimeError)):
                raise
            # A full disk reaches us as whatever the library that wrote makes of it.
            raise ExportError(f"Can't write {out}: {first_line(e)}. What was there before is unchanged.") from e


def _replaceable(out, force):
    if not force:
        raise ExportError(f"{out} exists: --force (force=True) replaces it, or choose another --out.")
    if not is_export(out):
        raise ExportError(f"{out} is no kzoo export, so it is not replaced: choose another --out.")


def _export(source, options, out, folder, quiet):
    """Write, check and measure the formats in `folder`, which becomes `out`."""
    talk = (lambda text: None) if quiet else say
    precision = auto_precision(source.model)[0] if options.precision == "auto" else options.precision
    talk(f"Exporting {source.name}: {len(source.classes)} classes, {precision}, {', '.join(options.formats)}.")
    reference = golden.reference(source.model)
    gold = golden.choose(source, reference)
    tested = _read(source, "test" if "test" in source.splits else "val", options.measure, quiet)
    temperature, conformal = _calibrate(source, options, precision, quiet, talk)

    threshold = conformal and conformal["threshold"]
    network, form = graph.network(source.model, precision)
    plain = (network, form) if precision == "float32" else graph.network(source.model, "float32")
    module, signatures = graph.module(network, source, top=options.top, temperature=temperature, threshold=threshold)
    parts = Parts(
        module, signatures, plain[1], only_outputs(plain[0], source.task), precision, _representative(source, gold)
    )

    written = {}
    for name in options.formats:
        talk(f"Writing {name} ...")
        written.update(table.write(name, folder, parts))
    for variant in written.values():
        variant["tolerance"] = table.TOLERANCES[variant["precision"]]
    golden.save(folder / golden.FILE, gold)
    with write_atomically(folder / LABELS, "w", errors="backslashreplace") as f:
        f.writelines(f"{name}\n" for name in source.classes)

    card = cards.start(source, options, precision, temperature=temperature, conformal=conformal, written=written)
    _list_files(folder, card)
    write_json(folder / CARD, card)
    talk("Checking every format on the golden images, in a fresh process ...")
    report, outputs = _fresh_process(folder, source.task, tested)
    if not report["ok"]:
        bad = "; ".join(f"{c['check']}: {c['detail']}" for c in report["checks"] if c["ok"] is False)
        raise ExportError(f"{source.name} was not exported: the check in a fresh process failed. {bad}")
    for check in report["checks"]:
        if check["check"] in card["formats"]:
            card["formats"][check["check"]]["moved"] = check.get("moved")
    if tested is not None:
        name, split = tested
        original = reference(split.images)
        card["measured"] = cards.measured(
            source.task, name, split.labels, original, outputs, temperature=temperature, conformal=conformal
        )
    card["hardware"] = describe()
    card["created"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    with write_atomically(folder / "card.md", "w", errors="backslashreplace") as f:
        f.write(cards.markdown(card))
    _list_files(folder, card)
    write_json(folder / CARD, card)
    talk(cards.table(card))
    talk(f"Wrote {out}. Next: kzoo verify {out}, kzoo predict {out} photo.jpg, kzoo serve {out}")
    return out


def only_outputs(network, task):
    """A network of `kzoo.exporting.graph` without its features, for formats that need no more."""
    import tensorflow as tf

    @tf.function(input_signature=network.input_signature, autograph=False)
    def outputs(tensor):
        return {task.output: network(tensor)["outputs"]}

    return outputs


def _list_files(folder, card):
    card["files"] = {
        str(p.relative_to(folder)): {"bytes": p.stat().st_size, "sha256": sha256(p)}
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != CARD and not p.name.startswith(".tmp-")
    }
    for variant in card["formats"].values():
        variant["bytes"] = sum(card["files"][f]["bytes"] for f in variant["files"])


def _read(source, part, most, quiet):
    """(part's name, a prepared Split of at most `most` images drawn at random), or None."""
    split = source.splits.get(part)
    if split is None or not len(split) or not most:
        return None
    if len(split) > most:
        split = split.take(np.sort(np.random.default_rng(0).choice(len(split), most, replace=False)))
    with progress(quiet=quiet) as bar:
        bar.start(f"reading {part}", len(split))
        ready, skipped = decode_split(split, source.shape, source.preprocessing, bar.advance)
    if skipped:
        say(f"Left out {report_skipped(skipped)}.")
    if not len(ready):
        return None
    if not isinstance(ready.images, np.ndarray) or ready.images.shape[1:] != source.shape:
        # Too many to be kept prepared; here they are needed at once.
        rows = batches(ready, source.shape, source.preprocessing, 32)
        ready = Split(np.concatenate([x.numpy() for x, _ in rows]), ready.labels, ready.ids)
    return part, ready


def _representative(source, gold):
    """Prepared images (N, H, W, C) for the ranges of int8: up to 100 that measure nothing, else the golden ones."""
    found = _read(source, next((p for p in ("val", "refit") if p in source.splits), "test"), 100, True)
    return gold["prepared"] if found is None else found[1].images


def _calibrate(source, options, precision, quiet, talk):
    """(temperature, conformal facts or None) from the run's validation part."""
    if not source.task.calibrated:
        if options.abstain is not None:
            raise ExportError(f"abstain needs a classifier; {source.name} is for {source.task.name}.")
        return 1.0, None
    val = _read(source, "val", max(options.measure, 2000), quiet)
    if val is None:
        if options.abstain is not None:
            raise ExportError(
                "abstain needs a run with a validation part that it was not trained on, and that can be read"
                + (": fine-tune with val/ and test/ folders of your own." if "refit" in source.splits else ".")
            )
        return source.temperature or 1.0, None
    run = predictor(source.model, precision)
    images, labels = val[1].images, val[1].labels
    logits = np.concatenate([run(images[i : i + 64]) for i in range(0, len(images), 64)])
    temperature = source.temperature or fit_temperature(logits, labels)
    talk(
        f"Temperature {temperature:.3f}" + (", the run's." if source.temperature else ", fitted on validation images.")
    )
    if options.abstain is None:
        return temperature, None
    return temperature, conformal_threshold(softmax(logits / temperature), labels, options.abstain)


def conformal_threshold(probabilities, labels, level):
    """Split conformal prediction (Vovk et al. 2005; Angelopoulos and Bates, arXiv:2107.07511, section 1).

    The scores are 1 - p(true class); the threshold q is the ceil((n + 1) * level)-th smallest of n. The set of classes
    with p >= 1 - q then holds the true one with a probability of at least `level`, for images drawn like these.
    Raises ExportError where n is too small for the level.

    >>> p = np.linspace(0.05, 0.95, 19)
    >>> round(conformal_threshold(np.stack([p, 1 - p], 1), np.zeros(19, int), 0.9)["threshold"], 6)
    0.9
    """
    scores = np.sort(1 - probabilities[np.arange(len(labels)), labels])
    n, rank = len(scores), math.ceil((len(scores) + 1) * level - 1e-9)
    if rank > n:
        raise ExportError(
            f"abstain={level:g} needs at least {math.ceil(level / (1 - level) - 1e-9)} validation images; the run has "
            f"{n}."
        )
    return {"level": level, "threshold": float(scores[rank - 1]), "images": n}


def _fresh_process(folder, task, tested):
    """(the report of verify, {variant: logits of the tested images}) of a new Python."""
    with tempfile.TemporaryDirectory() as temporary:
        more = []
        if tested is not None:
            np.save(os.path.join(temporary, "pixels.npy"), tested[1].images)
            more = [os.path.join(temporary, "pixels.npy"), temporary]
        paths = os.pathsep.join(filter(None, [str(PACKAGES), *sys.path]))  # where the task's module is, too
        done = subprocess.run(
            [sys.executable, "-m", "kzoo.exporting.check", str(folder.resolve()), type(task).__module__, *more],
            capture_output=True,
            env={**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        lines = done.stdout.decode("utf-8", "replace").splitlines()
        line = next((x for x in lines if x.startswith("REPORT ")), None)
        if done.returncode or line is None:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise ExportError(f"The check in a fresh process ended with {done.returncode}: {said[-1] if said else ''}")
        logits = {p.stem: np.load(p, allow_pickle=False) for p in Path(temporary).glob("*.npy") if p.stem != "pixels"}
        return json.loads(line[7:]), logits
