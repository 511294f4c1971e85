"""`kzoo.export`: write a trained classifier as a folder, and check it before the folder appears."""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kzoo.data.batches import batches, decode_split
from kzoo.data.dataset import Split, report_skipped
from kzoo.errors import ExportError, KzooError, first_line, out_of_memory
from kzoo.exporting import card as cards
from kzoo.exporting import formats as format_table
from kzoo.exporting import golden, graph
from kzoo.exporting.check import failed
from kzoo.exporting.ensemble import ensemble_source
from kzoo.exporting.options import ExportOptions
from kzoo.exporting.reader import CARD, LABELS, foreign_operations, is_export, listed, read_card
from kzoo.files import sha256, write_atomically, write_folder
from kzoo.graph.inference import predictor
from kzoo.graph.ledger import ledger
from kzoo.hardware import auto_precision, describe
from kzoo.metrics import choose_temperature, softmax
from kzoo.progress import progress, say
from kzoo.runs import write_json
from kzoo.source import UNMEASURED, Source, find_source
from kzoo.tasks import Task

PACKAGE_PARENT = Path(__file__).resolve().parents[2]
MAX_OUTPUTS = 1 << 30  # bytes of the outputs of one format for the images on which it is measured
MIN_CALIBRATION_IMAGES = 2000  # read for the calibration even where `measure` is smaller


def export(
    run_or_model: Any,
    formats: str | Sequence[str] = ("saved_model",),
    out: str | os.PathLike | None = None,
    *,
    precision: str = "float32",
    abstain: float | None = None,
    weights: Any = None,
    classes: Sequence[str] | None = None,
    pixels: str | None = None,
    top: int = 5,
    measure: int = 2000,
    licence: str | None = None,
    data_licence: str | None = None,
    force: bool = False,
    quiet: bool = False,
) -> Path:
    """Write a trained classifier as a folder: encoded images in, labels and probabilities out, with card and checks.

    Every format runs the golden images in a new process. A format whose top-1 changes, or whose outputs differ by more
    than its tolerance, is left out, and an ExportError names it after the others were written. If none passes, nothing
    is written. The folder is written under another name and then renamed, so a full disk
    or a kill leaves an earlier export as it was.

    Args:
        run_or_model: a Run or its folder, a name of the catalog (with weights), a file of a Keras model (.keras, .h5,
            Teachable Machine's .zip), or a keras.Model of the TensorFlow backend; a list of these becomes one network
            that averages their probabilities. Its members take the same prepared images and have the same classes in
            the same order.
        formats: of "saved_model", "keras", "onnx", "litert". One whose packages are missing is an error.
        out: the folder; saved_models/NAME by default, for an ensemble of N saved_models/NAME-ensemble-of-N.
        precision: of the SavedModel: "float32", "bfloat16", "float16", or "auto" for the fastest on this machine. 16
            bits are slow where the hardware lacks them. The other formats start from float32.
        abstain: a level such as 0.99: the signatures then report when to abstain, by split conformal prediction. For
            images like the run's validation part, the prediction set holds the true class with at least this
            probability; if the set has several classes, the answer is to abstain. A level below the accuracy never
            abstains. Needs a run with a validation part.
        weights: for a name of the catalog: a tag or a file; the first published set by default.
        classes: class names, for models and weights that don't record them.
        pixels: what a Keras model of a file takes, where that can't be known: "0..255", "0..1", "-1..1", "imagenet" or
            "caffe" (see `kzoo.catalog.pretrained.PIXELS`).
        top: the number of labels that the signatures return.
        measure: the number of images, at most, on which every format's accuracy is measured: of the test part, else
            of the validation part; 0 for none.
        licence, data_licence: of the weights and of the data, for the card.
        force: replace an existing export.
        quiet: no progress.

    Returns:
        The folder's path.

    Raises:
        ExportError: a model that can't be exported, or a format that gives other results than the model.
        KzooError: an unknown name, an option out of range, or a run that can't be read.

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
        pixels=pixels,
        top=top,
        measure=measure,
        licence=licence,
        data_licence=data_licence,
    )
    if keras.backend.backend() != "tensorflow":
        raise ExportError("Exporting needs the TensorFlow backend: unset KERAS_BACKEND.")
    reasons = [reason for name in options.formats if (reason := format_table.missing(name))]
    if reasons:
        raise ExportError(" ".join(reasons))
    if isinstance(run_or_model, (list, tuple)):

        def calibrated(member):
            images = max(options.measure, MIN_CALIBRATION_IMAGES)
            temperature, reason, _ = calibrate(member, images=images, precision="float32", quiet=quiet)
            if reason and not quiet:
                say(reason)
            return temperature, reason

        source = ensemble_source(
            run_or_model,
            weights=options.weights,
            classes=options.classes,
            calibrate=calibrated,
        )
    else:
        source = find_source(run_or_model, weights=options.weights, classes=options.classes, pixels=options.pixels)
    out = Path(out) if out is not None else Path("saved_models") / source.name
    with write_folder(out, replace=lambda: _replaceable(out, force)) as folder:
        try:
            bad = _export(source, options, out, folder, quiet)
        except (OSError, KzooError):
            raise
        except Exception as e:
            import tensorflow as tf

            if not isinstance(e, (tf.errors.OpError, RuntimeError)) or out_of_memory(e):
                raise
            # Each library reports a full disk by an exception of its own.
            raise ExportError(f"Can't write {out}: {first_line(e)}. An earlier export is unchanged.") from e
    if bad:
        kept = ", ".join(read_card(out)["formats"])
        said = "; ".join(text for reasons in bad.values() for text in reasons)
        raise ExportError(
            f"{out} was written with {kept}, but without {', '.join(bad)}, which failed the check. {said}"
        )
    return out


def _replaceable(out, force):
    if not force:
        raise ExportError(f"{out} exists: --force (force=True) replaces it, or choose another --out.")
    if not is_export(out):
        raise ExportError(f"{out} is not a kzoo export, so it is not replaced: choose another --out.")


def _export(source, options, out, folder, quiet):
    """Write, check and measure the formats in `folder`, which becomes `out`.

    Returns the formats that failed the check and were left out, with the failed checks: {name: [text]}.
    """
    log = _silence if quiet else say
    precision = auto_precision(source.model)[0] if options.precision == "auto" else options.precision
    log(f"Exporting {source.name}: {len(source.classes)} classes, {precision}, {', '.join(options.formats)}.")
    reference = golden.reference(source.model)
    gold = golden.choose(source, reference)
    each = 4 * math.prod(source.model.output_shape[1:])  # bytes; the outputs for all of them are held at once
    measured = min(options.measure, max(1, MAX_OUTPUTS // each))
    tested = read_part(source, "test" if "test" in source.splits else "val", measured, quiet=quiet)
    images = max(options.measure, MIN_CALIBRATION_IMAGES)
    temperature, reason, conformal = calibrate(
        source, abstain=options.abstain, images=images, precision=precision, quiet=quiet
    )
    if reason:
        log(reason)
    if conformal:
        log(about_conformal(conformal))

    threshold = conformal and conformal["threshold"]
    network, form = graph.network(source.model, precision)
    module, signatures = graph.module(network, source, top=options.top, temperature=temperature, threshold=threshold)
    # The other formats are files without variables, and start from float32.
    as_it_is = set(options.formats) == {"saved_model"} or (precision == "float32" and not module.arrays)
    plain = (network, form) if as_it_is else graph.network(source.model, "float32", constants_only=True)
    representative = representative_images(source)
    parts = format_table.FormatInputs(
        module,
        signatures,
        form=plain[1],
        outputs=only_outputs(plain[0], source.task),
        precision=precision,
        representative=gold["prepared"] if representative is None else representative,
        source=source,
        temperature=temperature,
        facts=cards.file_facts(source, temperature, conformal),
    )

    written = {}
    for name in options.formats:
        log(f"Writing {name} ...")
        written.update(format_table.write(name, folder, parts))
    if "saved_model" in written and (foreign := foreign_operations(folder / "saved_model.pb")):
        say(
            f"Note: {source.name} has operations that other exports do not have ({listed(foreign)}): kzoo predict, "
            "serve and verify load it with --trust only."
        )
    for variant in written.values():
        variant["tolerance"] = format_table.tolerance(variant["precision"])
    golden.save(folder / golden.FILE, gold)
    with write_atomically(folder / LABELS, "w", errors="backslashreplace") as f:
        f.writelines(f"{name}\n" for name in source.classes)

    card = cards.initial_card(
        source,
        options,
        precision,
        multiply_adds=ledger(source.model).totals.known_multiply_adds,
        temperature=temperature,
        temperature_reason=reason,
        conformal=conformal,
        written=written,
    )
    _list_files(folder, card)
    write_json(folder / CARD, card)
    log("Checking every format on the golden images, in a new process ...")
    report, outputs = _check_in_new_process(folder, source, tested)
    bad, broken = failed(report)
    if broken or bad.keys() >= card["formats"].keys():
        said = "; ".join([*(text for reasons in bad.values() for text in reasons), *([broken] if broken else [])])
        raise ExportError(f"{source.name} was not exported: the check in a new process failed. {said}")
    for variant in bad:
        _leave_out(variant, folder, card)
    for variant, facts in card["formats"].items():
        own = [c["moved"] for c in report["checks"] if c.get("variant") == variant and "moved" in c]
        facts["moved"] = max(own, default=None)
        facts["tolerance"] = format_table.tolerance(facts["precision"], facts["moved"])
        facts["golden"] = next(
            {k: c[k] for k in ("images", "changed", "change") if k in c}
            for c in report["checks"]
            if c.get("variant") == variant and "changed" in c
        )
    if tested is not None:
        name, split = tested
        original = reference(split.images)
        card["measured"] = cards.measurements(
            source.task, name, split.labels, original, outputs, temperature=temperature, conformal=conformal
        )
    card["hardware"] = describe()
    card["created"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    with write_atomically(folder / "card.md", "w", errors="backslashreplace") as f:
        f.write(cards.markdown(card))
    _list_files(folder, card)
    write_json(folder / CARD, card)
    log(cards.text_table(card))
    if not bad:
        typed = shlex.quote(str(out))
        uses = f", kzoo predict {typed} photo.jpg, kzoo serve {typed}" if "saved_model" in card["formats"] else ""
        log(f"Wrote {out}. Next: kzoo verify {typed}{uses}")
    return bad


def _leave_out(variant, folder, card):
    """Remove a format from an export that is being written."""
    kept = {name for other, facts in card["formats"].items() if other != variant for name in facts["files"]}
    names = set(card["formats"].pop(variant)["files"]) - kept
    if variant == "saved_model":
        names |= {"fingerprint.pb"}
        for name in ("assets", "variables"):
            shutil.rmtree(folder / name, ignore_errors=True)
    for name in names:
        (folder / name).unlink(missing_ok=True)


def _silence(text):
    """A log that prints nothing."""


def only_outputs(network: Any, task: Task) -> Callable:
    """A network without its features, for formats that return outputs only.

    Args:
        network: a function of `kzoo.exporting.graph.network`.
        task: names the outputs.

    Returns:
        A tf.function from prepared images to {task.output: outputs}.
    """
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


def read_part(source: Source, part: str, limit: int, *, quiet: bool = False) -> tuple[str, Split] | None:
    """Read and prepare images of one part of a network's data.

    Args:
        source: the network and its data.
        part: its name.
        limit: how many images at most; a random sample, always the same, of a larger part.
        quiet: no progress.

    Returns:
        (part, a Split of uint8 images (N, H, W, C)); None without usable images.
    """
    split = source.splits.get(part)
    if split is None or not len(split) or not limit:
        return None
    if len(split) > limit:
        split = split.take(np.sort(np.random.default_rng(0).choice(len(split), limit, replace=False)))
    with progress(quiet=quiet) as bar:
        bar.start(f"reading {part}", len(split))
        ready, skipped = decode_split(split, source.shape, source.preprocessing, bar.advance)
    if skipped:
        say(f"Left out {report_skipped(skipped)}.")
    if not len(ready):
        return None
    if not ready.prepared:
        # decode_split leaves a large part encoded; here it is needed as one array.
        rows = batches(ready, source.shape, source.preprocessing, 32)
        ready = Split(np.concatenate([x.numpy() for x, _ in rows]), ready.labels, ready.ids, prepared=True)
    return part, ready


def representative_images(source: Source) -> np.ndarray | None:
    """Up to 100 prepared images (N, H, W, C), from which the ranges of int8 activations are determined.

    They come from the validation part, else from the training part, so that the test part stays held out; None without
    data.
    """
    found = read_part(source, next((p for p in UNMEASURED if p in source.splits), "val"), 100, quiet=True)
    return None if found is None else np.asarray(found[1].images)


def calibrate(
    source: Source,
    *,
    abstain: float | None = None,
    images: int = MIN_CALIBRATION_IMAGES,
    precision: str | None = None,
    quiet: bool = False,
) -> tuple[float, str, dict[str, Any] | None]:
    """Choose the temperature, and the threshold of abstention, on a run's validation part.

    Args:
        source: the network and its data.
        abstain: the level of `conformal_threshold`; None for none.
        images: how many at most.
        precision: that the network computes in, see `kzoo.graph.inference.predictor`.
        quiet: no progress.

    Returns:
        (temperature, why that one, what `conformal_threshold` gives or None).

    Raises:
        ExportError: abstention without a validation part that the run was not trained on, or with too few images.
    """
    if not source.task.calibrated:
        if abstain is not None:
            raise ExportError(f"abstain needs a classifier; the task of {source.name} is {source.task.name}.")
        return 1.0, "", None
    val = read_part(source, "val", images, quiet=quiet)
    if val is None:
        if abstain is not None:
            raise ExportError(
                "abstain needs a run with a validation part that it was not trained on, and that can be read"
                + (": fine-tune with val/ and test/ folders of your own." if "refit" in source.splits else ".")
            )
        nothing = "Temperature 1, no scaling: there are no validation images to fit one on."
        return source.temperature or 1.0, source.temperature_reason if source.temperature else nothing, None
    run = predictor(source.model, precision)
    x, labels = np.asarray(val[1].images), val[1].labels
    logits = np.concatenate([run(x[i : i + 64]) for i in range(0, len(x), 64)])
    temperature, reason = source.temperature, source.temperature_reason
    if not temperature or not reason:  # earlier fine-tunings fitted one in any case
        choice = choose_temperature(np.nan_to_num(logits), labels)
        temperature, reason = choice.temperature, choice.reason
    if abstain is None:
        return temperature, reason, None
    return temperature, reason, conformal_threshold(softmax(logits / temperature), labels, abstain)


def about_conformal(conformal: dict[str, Any]) -> str:
    """What `conformal_threshold` gives, in words."""
    low, high = conformal["coverage"]
    return (
        f"Abstention: with a threshold from {conformal['images']:,} validation images, the share of new images whose "
        f"set holds the true class lies between {low:.2%} and {high:.2%} (95 % interval; {conformal['level']:g} was "
        "asked for)."
    )


def conformal_threshold(probabilities: np.ndarray, labels: np.ndarray, level: float) -> dict[str, Any]:
    """The threshold of split conformal prediction.

    The scores are 1 - p(true class); the threshold q is the ceil((n + 1) * level)-th smallest of n. The set of classes
    with p >= 1 - q then holds the true one with a probability of at least `level`, for images from the same
    distribution. That is the mean over draws of the N images; the coverage that one threshold has follows the
    distribution Beta(r, N + 1 - r) with r = ceil((N + 1) * level), which is wide if N is small.

    Args:
        probabilities: (N, C), calibrated.
        labels: int (N,).
        level: the coverage, between 0 and 1.

    Returns:
        {"level", "threshold": q, "images": N, "coverage": [low, high], the central 95 % of that distribution}.

    Raises:
        ExportError: N is too small for the level.

    Example:
        >>> p = np.linspace(0.05, 0.95, 19)
        >>> round(conformal_threshold(np.stack([p, 1 - p], 1), np.zeros(19, int), 0.9)["threshold"], 6)
        0.9

    Reference:
        Vovk et al. 2005; Angelopoulos and Bates, arXiv:2107.07511, sections 1 and 3.2.
    """
    from scipy.special import betaincinv

    scores = np.sort(1 - probabilities[np.arange(len(labels)), labels])
    n, rank = len(scores), math.ceil((len(scores) + 1) * level - 1e-9)
    if rank > n:
        raise ExportError(
            f"abstain={level:g} needs at least {math.ceil(level / (1 - level) - 1e-9)} validation images; the run has "
            f"{n}."
        )
    coverage = [float(betaincinv(rank, n + 1 - rank, share)) for share in (0.025, 0.975)]
    return {"level": level, "threshold": float(scores[rank - 1]), "images": n, "coverage": coverage}


def _modules(source):
    """The modules that a new process must import: the task's, and those of layers not of Keras or kzoo."""
    layers = {type(layer).__module__ for layer in source.model.layers}
    own = sorted(name for name in layers if name.partition(".")[0] not in ("keras", "kzoo", "__main__"))
    return ",".join([type(source.task).__module__, *own])


def _check_in_new_process(folder, source, tested):
    """Run `kzoo.exporting.check` in a new process: (the report of verify, {variant: outputs for the tested images})."""
    with tempfile.TemporaryDirectory() as temporary:
        more = []
        if tested is not None:
            np.save(os.path.join(temporary, "pixels.npy"), tested[1].images)
            more = [os.path.join(temporary, "pixels.npy"), temporary]
        report = run_check(folder.resolve(), _modules(source), *more)
        outputs = {p.stem: np.load(p, allow_pickle=False) for p in Path(temporary).glob("*.npy") if p.stem != "pixels"}
        return report, outputs


def run_check(folder: Path, modules: str, *more: str) -> dict[str, Any]:
    """Run `kzoo.exporting.check.check_written` in a new process, which has nothing but the export.

    Args:
        folder: the export.
        modules: of the task and of its layers, with commas between them, which are imported there.
        more: the other arguments of `check_written`.

    Returns:
        The report of `verify`.

    Raises:
        ExportError: the process ended without a report.
    """
    paths = os.pathsep.join(filter(None, [str(PACKAGE_PARENT), *sys.path]))  # sys.path: to import these modules
    done = subprocess.run(
        [sys.executable, "-m", "kzoo.exporting.check", str(folder), modules, *more],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    line = next((x for x in lines if x.startswith("REPORT ")), None)
    if done.returncode or line is None:
        errors = done.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = errors[-1] if errors else "no message"
        raise ExportError(f"The check in a new process ended with exit code {done.returncode}: {reason}")
    return json.loads(line[7:])
