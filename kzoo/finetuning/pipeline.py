"""From a folder of photos to a classifier: options -> data -> parts -> features -> head -> stages -> report.

Each step takes values and hands on values. The head's kind and strength are chosen by cross-validation within the
training part; the validation part decides how deep to train and which epoch is kept. If the head alone is best it is
fitted again, with the same kind and strength, on all training photos, including those that kzoo held out for
validation: more photos improve a head, and the figures in the report were measured before. Deeper layers keep the
weights that were chosen, because without validation photos there is no early stopping. Several labels a photo get a
head for each class. With masks the network becomes the encoder of a U-Net, whose decoder is its head; there are no
features to keep (`kzoo.finetuning.decoder`).

Keras is imported only when a feature is missing or deeper layers train; a second run needs neither.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kzoo import runs
from kzoo.catalog import RULES, ModelSpec, Preprocessing, Weights, imports_of, spec
from kzoo.checks import changed
from kzoo.data.dataset import DataSet, report_skipped
from kzoo.data.guards import check_channels
from kzoo.data.labels import images_by_class
from kzoo.data.loading import load_data
from kzoo.distribution import ALONE, Group, Together
from kzoo.errors import DataError, RunError, WeightsError, first_line
from kzoo.files import is_model_file
from kzoo.finetuning.audit import enforce
from kzoo.finetuning.backbone import (
    U_NET,
    Backbone,
    FeatureExtractor,
    MaskNetwork,
    backbone,
    begun_with,
    download_advice,
    machine,
    own_backbone,
    with_head,
)
from kzoo.finetuning.features import Cache, features
from kzoo.finetuning.heads import Head, HeadObjective, fit_head, fit_one_vs_rest
from kzoo.finetuning.judging import no_room
from kzoo.finetuning.maps import maps_of_mistakes
from kzoo.finetuning.options import BATCH, FinetuneOptions
from kzoo.finetuning.parts import MIN_PER_CLASS, Parts, check_shots, make_parts
from kzoo.finetuning.report import write_report
from kzoo.finetuning.template import audit_file, fill, parameters, template
from kzoo.hardware import backend, load_keras
from kzoo.interrupt import Interrupted, interruptible
from kzoo.metrics import label_log_losses, negative_log_likelihood, top_k_hits, wilson
from kzoo.progress import progress, say
from kzoo.tasks import Task, find, task_for

if TYPE_CHECKING:
    import keras

# What must be the same for a run to be resumed.
RESUME_KEYS = (
    "model",
    "weights_sha256",
    "classes",
    "input_shape",
    "preprocessing",
    "fingerprint",
    "seed",
    "precision",
    "finetune",
    "backend",
)
HISTORY = ("phase", "epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds")


def finetune(
    photos: Any = None,
    model: str | os.PathLike | ModelSpec | keras.Model | None = None,
    *,
    weights: str | os.PathLike | Weights | None = None,
    unfreeze: str = "auto",
    epochs: int = 6,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    val_fraction: float | None = None,
    budget: float | None = None,
    augment: str = "light",
    mix: str | None = None,
    views: int = 0,
    shots: int | None = None,
    class_weights: str | Mapping[str, float] | None = None,
    label_smoothing: float = 0.0,
    focal: float = 0.0,
    seed: int = 0,
    precision: str = "auto",
    input_shape: tuple[int, int, int] | None = None,
    strict: bool = False,
    bits: int | None = None,
    pixels: str | None = None,
    out: str | os.PathLike | None = None,
    resume: bool = False,
    quiet: bool = False,
    devices: int | None = None,
    coordinator: str | None = None,
    process: str | None = None,
) -> runs.Run:
    """Make a classifier from photos and a pretrained network, and leave a run folder with a report.

    Args:
        photos: what `kzoo.load_data` takes: a folder of class folders, one with train/, val/, test/, a CSV,
            tfds:NAME, (images, labels), or a DataSet. A part that is set apart is never trained on: test measures; val
            validates if there is a test part, and measures if there is none.
        model: a name of the catalog; the one with the most accurate weights found locally by default. Or a functional
            or built Sequential keras.Model, or a file of one (.keras, .h5, Teachable Machine's .zip): a copy of it, but
            for its last Dense layer.
        weights: a tag, a path or a Weights row; the most accurate found locally by default, without a download.
        unfreeze: "none": the head only. "auto": stage by stage from the top, as long as the validation part improves.
            "all", a stage ("7x7") or how layers' names begin ("conv5"): all stages down to there; the best of all
            phases is kept in any case.
        epochs: of each stage.
        learning_rate: of the top stage that trains; the head's is 3 times that, each stage below has 0.3 of the one
            above. None: 1e-4, for masks 1e-3.
        batch_size: of the training of deeper layers; None: 16.
        val_fraction: share of the training photos to validate on, where the data has no such part; None: 0.2.
        budget: seconds for everything; None for no limit.
        augment: "none", "light" or "strong", for the deeper layers.
        mix: None, "mixup" or "cutmix", for the deeper layers.
        views: number of augmented views of each training photo for the head, besides the photo itself.
        shots: number of photos of each class to use, drawn with the seed; None uses all.
        class_weights: None, "balanced" (n / (classes * n_c)), or {class: weight}.
        label_smoothing: of the loss, in [0, 1).
        focal: the exponent of the focal loss; 0 is cross-entropy.
        seed: of everything that is drawn.
        precision: "float32", "bfloat16", "float16", or "auto": what this machine is fast in.
        input_shape: (height, width, channels) in place of the backbone's.
        strict: refuse unusable photos instead of leaving them out.
        bits: of 16-bit photos, how many bits are used, such as 12; as in `kzoo.train`.
        pixels: what a Keras model takes that does not scale pixels itself, as in `kzoo.train`.
        out: the run folder; runs/MODEL-PHOTOS by default.
        resume: continue the run in `out`. Options that are left at their defaults are taken from it; the others must be
            what they were.
        quiet: no progress.
        devices, coordinator, process: as in `kzoo.train`, for the training of deeper layers. Not with a budget and
            several processes, which would end at different steps.

    Returns:
        The Run, as `kzoo.load_run` reads it.

    Raises:
        DataError, WeightsError, RunError: what can't be used, started or continued.
        Interrupted: after Ctrl-C or SIGTERM; what is done is kept.

    Example:
        >>> kzoo.finetune("photos", "no_such_model")
        Traceback (most recent call last):
            ...
        kzoo.errors.UnknownName: Unknown model 'no_such_model'. ...
    """
    options = FinetuneOptions(
        unfreeze=unfreeze,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        val_fraction=val_fraction,
        budget=budget,
        augment=augment,
        mix=mix,
        views=views,
        shots=shots,
        class_weights=class_weights,
        label_smoothing=label_smoothing,
        focal=focal,
        seed=seed,
        precision=precision,
        input_shape=input_shape,
        strict=strict,
        bits=bits,
        pixels=pixels,
    )
    together = Together(devices, coordinator, process)
    return runs.load_run(
        finetune_run(
            photos, model, changed(options), weights=weights, out=out, resume=resume, quiet=quiet, together=together
        )
    )


@dataclass(frozen=True)
class Setup:
    """What all steps share.

    Attributes:
        base: the network below the classifier.
        options: how to fine-tune.
        data: as the source divides it.
        cache, extractor: where features are, and what computes those that are missing; for masks the whole network.
        clock: seconds of each step, and the deadline.
        log: prints a line unless quiet.
        group: the devices that train deeper layers.
    """

    base: Backbone
    options: FinetuneOptions
    data: DataSet
    cache: Cache
    extractor: FeatureExtractor | MaskNetwork
    clock: Clock
    quiet: bool
    group: Group

    def log(self, text: str) -> None:
        if not self.quiet:
            say(text)

    @property
    def task(self) -> Task:
        """What is trained: classification, multilabel for several labels an image, or segmentation for masks."""
        return find("segmentation") if self.data.masks else task_for("classification", self.data)

    def objective(self, labels: np.ndarray) -> HeadObjective:
        """Return the loss, with its class weights as numbers.

        Args:
            labels: int (N,), of the training part; "balanced" weights follow from them.
        """
        found = self.task.class_weights(self.options.class_weights, labels, self.data.classes)
        weights = None if found is None else tuple(found.tolist())
        return HeadObjective(weights, self.options.label_smoothing, self.options.focal)


@dataclass
class Clock:
    """Seconds of each step, and when the budget is over.

    Attributes:
        began: time.monotonic() at the start.
        budget: seconds for everything, or None.
        seconds: {step: seconds}.
    """

    began: float
    budget: float | None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def deadline(self) -> float | None:
        return None if self.budget is None else self.began + self.budget

    def late(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    @contextmanager
    def timed(self, name):
        start = time.monotonic()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0) + time.monotonic() - start, 3)


def finetune_run(
    photos, model, given: dict, *, weights=None, out=None, resume=False, quiet=False, together: Together = ALONE
) -> Path:
    """`finetune`, with the options as a dict of those that were given; returns the folder, and needs Keras only where
    a network must run."""
    began = time.monotonic()
    with together.group() as group, group.alone():  # only stages train on all devices
        arguments = {"weights": weights, "out": out, "resume": resume, "quiet": quiet or not group.first}
        if group.first:
            return _finetune(photos, model, given, group, began, **arguments)
        # The others take the same steps, and what they write goes with them.
        with tempfile.TemporaryDirectory(prefix="kzoo-") as own:
            return _finetune(photos, model, given, group, began, own=Path(own), **arguments)


def _finetune(photos, model, given, group, began, *, weights, out, resume, quiet, own=None):
    """`finetune_run` on a group of devices. own: where a process that is not the first writes."""
    before = None
    if resume:
        before = _resumed(out)
        photos = before["data"] if photos is None else photos
        if "keras_model" not in before:
            model = _backbone_of(before) if model is None else model
            weights = _weights_of(before) if weights is None else weights
        asked = {k: v for k, v in given.items() if (k, v) != ("precision", "auto")}
        given = {**_options_of(before), **asked}
    elif photos is None:
        raise RunError("The photos are missing: give a folder of class folders, a CSV, or tfds:NAME.")
    options = FinetuneOptions(**given)
    group.share(options.batch_size or BATCH)
    if options.budget is not None and group.processes > 1:
        raise RunError("--budget: several processes would end at different steps. Give --epochs instead.")
    rules = Preprocessing.from_dict(before["preprocessing"]).rules if before else RULES  # a run keeps its pixels
    base = _begun_with(before, Path(out), options) if before and model is None else _base(model, weights, options)
    if before:
        _check_beginning(base, before, out)
    setup = _set_up(photos, model, weights, base, options, Clock(began, options.budget), quiet, rules, group)
    settings = _settings(setup)
    group.check_same({k: settings[k] for k in RESUME_KEYS}, runs.differences)
    settings |= {"devices": group.devices, "processes": group.processes}
    if before:
        wrong = runs.differences(settings, before, RESUME_KEYS)
        if wrong:
            raise RunError(f"{out} can't be resumed with other settings. {'; '.join(wrong)}.")
        folder = Path(out)
        if (folder / runs.METRICS).exists() and (folder / runs.MODEL).exists():
            setup.log(f"{folder} is finished.")
            return folder
    else:
        folder = runs.new_folder(out, setup.base.name, setup.data.name) if own is None else None
    folder = Path(group.told(folder and str(folder)))
    if own and before:
        shutil.copytree(folder, own, dirs_exist_ok=True, ignore=shutil.ignore_patterns(runs.LOCK))
    group.told(None)  # the first one changes nothing before the others have read it
    work = own or folder
    with runs.locked(work), interruptible("what is done is kept, and --resume continues from there") as interrupted:
        _run(setup, work, settings, interrupted, before)
    return folder


def _resumed(out):
    """The config.json of the run to continue; RunError if `kzoo finetune` did not write it."""
    if out is None:
        raise RunError("--resume needs --out, the folder of the run to continue.")
    before = runs.read_json(Path(out) / runs.CONFIG)
    if "finetune" not in before:
        raise RunError(f"{out} is not a kzoo finetune run: kzoo train --resume --out {out} continues it.")
    runs.check_imports(before, out)
    return before


def _options_of(before):
    """The options that a run's config.json records."""
    own = {k: v for k, v in before["finetune"].items() if v is not None}
    return {
        **own,
        "seed": before["seed"],
        "precision": before["precision"],
        "bits": before.get("bits"),
        "input_shape": tuple(before["input_shape"]),
    }


def _backbone_of(before):
    """The name of the network that a run began with."""
    return before["options"]["backbone"] if before["model"] == U_NET else before["model"]


def _check_beginning(base, before, out):
    """RunError if a run began with another Keras model or other weights; another name is left to RESUME_KEYS."""
    own = base.network is not None or "keras_model" in before
    if base.sha256 != before.get("weights_sha256") and (own or base.name == _backbone_of(before)):
        raise RunError(f"{out} did not begin with this model or these weights: leave it out, the run has its own.")


def _weights_of(before):
    """The weights of a run: the tag's row, since a bare file would come without its preprocessing, but that very file
    if it is there."""
    file, tags = before["weights"]["file"], {w.tag: w for w in spec(_backbone_of(before)).weights}
    if before["weights"]["tag"] not in tags:
        return file
    row = tags[before["weights"]["tag"]]
    return replace(row, file=file) if os.path.isfile(file) else row


def _base(model, weights, options):
    """The backbone that the user named, or gave."""
    if model is None or isinstance(model, ModelSpec) or (isinstance(model, str) and not is_model_file(model)):
        if options.pixels is not None:
            raise RunError("pixels says what a Keras model of your own takes; networks of the catalog know it.")
        return backbone(model, weights, input_shape=options.input_shape, precision=options.precision)
    if weights is not None:
        raise RunError("A Keras model of your own begins with the weights that it has: leave out weights.")
    return own_backbone(model, pixels=options.pixels, input_shape=options.input_shape, precision=options.precision)


def _begun_with(before, folder, options):
    """The backbone of a run that began with a Keras model of the user's own, which the run keeps."""
    load_keras()
    network, file = runs.read_model(folder / runs.START), before["weights"]["file"]
    return begun_with(network, before["model"], file, before["keras_model"]["notes"], options.precision)


def _set_up(photos, model, weights, base, options, clock, quiet, rules, group):
    base = replace(base, preprocessing=replace(base.preprocessing, bits=options.bits, rules=rules))
    data = photos
    if not isinstance(data, DataSet):
        data = load_data(
            photos,
            val_fraction=0.0,
            test_fraction=0.0,
            seed=options.seed,
            strict=options.strict,
            bits=options.bits,
        )
    if data.several:
        _check_several(options)
    if data.masks:
        if base.network is not None:
            raise RunError("For masks the encoder is a network of the catalog: --model NAME; kzoo list shows all.")
        _check_masks(options)
        base = _for_masks(base, data, options)
    for split in data.splits.values():
        if not split.files:
            check_channels(split.images.shape[-1], base.input_shape[2])
    if options.shots:
        check_shots(data.splits["train"], options.shots, data.classes)
    network = MaskNetwork(base, data.classes, options.seed) if data.masks else FeatureExtractor(base)
    setup = Setup(base, options, data, base.cache(), network, clock, quiet, group)
    setup.task.check_data(data)
    setup.task.check_class_weights(options.class_weights, data.classes)
    if data.masks or (options.input_shape and not setup.cache.index):
        _check_input_shape(setup)
    if options.unfreeze not in ("none", "auto", "all"):
        from kzoo.finetuning.stages import selected_stages  # imports Keras

        selected_stages(setup.extractor.encoder, options.unfreeze)
    for note in base.notes:
        setup.log(f"{base.name}: {note}")
    if weights is None and base.network is None:
        better = download_advice(model, base.weights.top1 or 0.0)
        top1 = f", {base.weights.top1:.1f} % top-1 on ImageNet" if base.weights.top1 else ""
        setup.log(f"Weights found locally: {base.name}, {base.path}{top1}. {better}".rstrip())
    if setup.cache.damaged:
        setup.log(f"{len(setup.cache.damaged)} corrupt file(s) of the feature cache deleted; they are computed again.")
    return setup


def _check_input_shape(setup):
    """RunError if the weights don't fit the input shape that was asked for; the network is needed later anyway."""
    base, known = setup.base, setup.base.row.input_shape
    try:
        _ = setup.extractor.model
    except WeightsError as e:
        have, asked = known[2], base.input_shape[2]
        reason = f"they take {have} channels" if have != asked else first_line(e, 400)
        raise RunError(
            f"The weights of {base.name} don't fit input_shape {', '.join(map(str, base.input_shape))}: {reason}. "
            f"Published is {', '.join(map(str, known))}; kzoo train takes any shape that the network allows."
        ) from e


def _check_several(options):
    """RunError for an option that is for one class an image."""
    asked = {
        f"--shots {options.shots}": options.shots,
        "--class-weights": options.class_weights,
        f"--label-smoothing {options.label_smoothing:g}": options.label_smoothing,
        f"--focal {options.focal:g}": options.focal,
        f"--mix {options.mix}": options.mix,
    }
    wrong = [name for name, given in asked.items() if given]
    if wrong:
        raise RunError(
            f"{' and '.join(wrong)}: for one class an image. With several labels a head is fitted for each class, and "
            "deeper layers learn by binary cross-entropy: leave it out, or use kzoo train."
        )


def _check_masks(options):
    """RunError for an option that masks have no use for."""
    asked = {
        f"--shots {options.shots}": options.shots,
        f"--views {options.views}": options.views,
        f"--focal {options.focal:g}": options.focal,
        f"--mix {options.mix}": options.mix,
    }
    wrong = [name for name, given in asked.items() if given]
    if wrong:
        raise RunError(f"{' and '.join(wrong)}: for one class an image, and the data has masks: leave it out.")


def _for_masks(base, data, options):
    """The backbone as an encoder: pictures are not cropped, and are as large as arrays are, or as unet_same's."""
    split = next(iter(data.splits.values()))
    size = spec(U_NET).input_shape[:2] if split.files else split.images.shape[1:3]
    return replace(
        base,
        input_shape=options.input_shape or (*size, base.input_shape[2]),
        preprocessing=replace(base.preprocessing, crop=1.0),
    )


def _settings(setup):
    """config.json; "parts" is added once the parts are known."""
    base, options = setup.base, setup.options
    config = setup.extractor.config if setup.data.masks else base.config
    return {
        "model": U_NET if setup.data.masks else base.name,
        "imports": [] if base.network is not None else imports_of(base.name),
        **({} if base.network is None else {"keras_model": {"sha256": base.sha256, "notes": [*base.notes]}}),
        "task": setup.task.name,
        "options": {k: _plain(v) for k, v in config.items()},
        "classes": list(setup.data.classes),
        "input_shape": list(base.input_shape),
        "preprocessing": base.preprocessing.to_dict(),
        "weights": base.about_weights(),
        "weights_sha256": base.sha256,
        "finetune": options.recorded(),
        "data": setup.data.name,
        "fingerprint": setup.data.fingerprint(),
        "divided": runs.SPLITS,
        "seed": options.seed,
        "precision": base.precision,
        "budget": options.budget,
        "strict": options.strict,
        "bits": options.bits,
        "val_fraction": 0.0,
        "test_fraction": 0.0,
        "backend": backend(),
        "hardware": machine()["hardware"],
        "versions": runs.versions(),
        "command": runs.command("finetune"),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _plain(value):
    if isinstance(value, (int, float, str, bool, type(None))):
        return value
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return list(value) if isinstance(value, tuple) else repr(value)


# --- the steps ---------------------------------------------------------------------------------------------


def _run(setup, folder, settings, interrupted, before):
    """All steps, in order; each one's result is the next one's argument. before: the config.json of a resumed run."""
    data, base, timed = setup.data, setup.base, setup.clock.timed

    def needs_network(hashes):
        return data.masks or any(name is not None and (0, name) not in setup.cache.index for name in hashes)

    with timed("data"):
        parts = make_parts(
            data,
            options=setup.options,
            needs_network=needs_network,
            quiet=setup.quiet,
            timed=timed,
            recorded=runs.Run(folder, before, None).division() if before else None,
        )
    settings["parts"] = {"val": "given" if parts.val_given else "drawn", "test": parts.test_from}
    if not before:
        if base.network is not None:
            runs.save_model(base.network, folder / runs.START)
        runs.record(folder, settings, DataSet(data.name, data.classes, parts.splits))
    runs.write_json(folder / "passport.json", parts.passport.to_dict())
    setup.log(f"{base.name} on {data.name}: {parts.describe(data.classes)}")
    for warning in parts.passport.warnings[:5]:
        setup.log(f"Note: {warning}")
    if data.masks:
        return _train_decoder(setup, settings, parts, folder, interrupted)
    with timed("features"):
        found = _features(setup, parts, folder, interrupted)
    heads = _fit_heads(setup, found, interrupted)
    phases, history = [_write_head(setup, folder, heads)], [heads.row]
    best = _deepen(setup, found, heads, folder, interrupted)
    phases, history = phases + best.phases, history + best.history
    _finish(setup, settings, found, heads, best, folder=folder, phases=phases, history=history)
    return None


def _train_decoder(setup, settings, parts, folder, interrupted):
    """Train a U-Net on masks, and write the results."""
    load_keras()  # quietly: the next line imports it
    from kzoo.finetuning.decoder import train_decoder

    trained, measured, skipped = train_decoder(setup, parts, folder, interrupted)
    _report_skipped(setup, [*parts.skipped, *skipped], folder)
    runs.write_csv(folder / runs.HISTORY, trained.history, list(trained.history[0]))
    verdict = "The decoder alone." if trained.winner == "decoder" else f"Trained down to {trained.winner}."
    outcome = f"{verdict} {trained.why}."
    metrics: dict[str, Any] = {"winner": trained.winner, "outcome": outcome, "refit": False}
    for part, result in measured.items():
        metrics.update({f"{part}_{k}": getattr(result, k) for k in ("loss", "mean_iou", "mean_dice", "pixel_accuracy")})
    with setup.clock.timed("report"):
        masks = {part: result.to_dict() for part, result in measured.items()}
        _write_report(setup, settings, parts, folder, outcome, trained.phases, trained.history, {"masks": masks})
    metrics["seconds"] = {**setup.clock.seconds, "all": round(time.monotonic() - setup.clock.began, 3)}
    runs.write_json(folder / runs.METRICS, metrics)
    setup.log(verdict)
    if "test" in measured:
        setup.log(f"Held-out test on {measured['test'].images:,} pictures: mean IoU {measured['test'].mean_iou:.2%}.")


@dataclass(frozen=True)
class PartFeatures:
    """Features of the parts, without the photos that can't be decoded.

    Attributes:
        parts: with such photos left out of `splits` and `groups`.
        x: {part: float32 (N, D)}.
        computed: how many passed through the network; the others were cached.
    """

    parts: Parts
    x: dict[str, np.ndarray]
    computed: int


def _features(setup, parts, folder, interrupted):
    ids = [i for split in parts.splits.values() for i in split.ids]
    with progress(quiet=setup.quiet) as bar:
        bar.start("features", len(ids))
        try:
            found = features(  # of all parts in one go: the network waits for photos once
                [parts.images[i] for i in ids],
                setup.cache,
                setup.extractor,
                hashes=[parts.hashes[i] for i in ids],
                advance=bar.advance,
                stopped=lambda: interrupted() or setup.clock.late(),
            )
        except Interrupted:
            if interrupted():
                raise
            raise RunError(
                f"The budget of {setup.options.budget:.0f} s ended before all features were computed; those that "
                "are done are kept, and the next run continues from there: give it more time."
            ) from None
    x, splits, groups, start = {}, {}, parts.groups, 0
    for name, split in parts.splits.items():
        first, last = np.searchsorted(found.kept, (start, start + len(split)))
        kept, start = found.kept[first:last] - start, start + len(split)
        splits[name], x[name] = split.take(kept) if len(kept) < len(split) else split, found.features[first:last]
        if name == "train":
            groups = groups[kept]
    skipped = [*parts.skipped, *((ids[i], reason) for i, reason in found.skipped)]
    _report_skipped(setup, skipped, folder)
    splits = {k: v for k, v in splits.items() if len(v)}
    classes = setup.data.classes
    n = images_by_class(splits["train"].labels, len(classes)) if "train" in splits else np.zeros(len(classes), int)
    empty = [c for c, k in zip(classes, n, strict=True) if not k]
    if empty:
        raise DataError(f"No usable training photo is left of class {', '.join(map(repr, empty[:5]))}.")
    always = [c for c, k in zip(classes, n, strict=True) if setup.data.several and k == len(splits["train"])]
    if always:
        raise DataError(
            f"Every training photo has the class {always[0]!r}, so there is nothing to learn: leave it out."
        )
    if not np.isfinite(x["train"][:: max(len(x["train"]) // 1000, 1)]).all():
        raise RunError(f"The features of {setup.base.name} are not finite: use --precision float32, or other weights.")
    cached = f"{len(ids) - found.computed:,} from the cache ({setup.cache.folder})"
    setup.log(f"Features: {found.computed:,} computed, {cached}.")
    return PartFeatures(replace(parts, splits=splits, groups=groups), x, found.computed)


def _report_skipped(setup, skipped, folder):
    skipped = list(dict(skipped).items())
    if not skipped:
        return
    if setup.options.strict:
        raise DataError(report_skipped(skipped) + " (--strict)")
    setup.log(f"Left out {report_skipped(skipped)}. All are listed in {runs.list_skipped(folder, skipped)}.")


@dataclass(frozen=True)
class Heads:
    """The head fitted on the training part, and the one fitted on all that may train.

    Attributes:
        head: on the training part; its figures are honest.
        final: on the validation part as well, where kzoo drew that; else the same.
        val: {"ids", "labels", "logits"} of the validation part, or out of fold; None if nothing could be tested.
        row: of the history.
        text: in words.
    """

    head: Head
    final: Head
    val: dict | None
    row: dict
    text: str

    @property
    def refit(self) -> bool:
        return self.final is not self.head


def _fit_heads(setup, found, interrupted):
    start = time.monotonic()
    parts, classes = found.parts, len(setup.data.classes)
    train = parts.splits["train"]

    def fit(x, y, **options):
        if setup.data.several:
            return fit_one_vs_rest(x, y, **options)
        return fit_head(x, y, classes, objective=setup.objective(train.labels), **options)

    x, y, groups = _with_views(setup, parts, train, found.x["train"], parts.groups, interrupted)
    head = final = fit(x, y, groups=groups, seed=setup.options.seed)
    if "val" in parts.splits and not parts.val_given:
        more = parts.splits["val"]
        x2, y2, _ = _with_views(setup, parts, more, found.x["val"], np.arange(len(more)), interrupted)
        x, y = np.concatenate([x, x2]), np.concatenate([y, y2])
        final = fit(x, y, like=head)
    seconds = setup.clock.seconds["head"] = round(time.monotonic() - start, 3)
    val, measured_on = _validated(head, found)
    row = {"phase": "head", "epoch": 0, "seconds": seconds, "learning_rate": None}
    row.update(_score(setup, head.logits(found.x["train"]), train.labels))
    row.update(_score(setup, val["logits"], val["labels"], "val_") if val else {"val_loss": None, "val_accuracy": None})
    strength = "" if head.strength is None else f" (strength {head.strength:g})"
    text = f"{head.kind}{strength}"
    if val and setup.data.several:
        text += f": mAP {_share(row['val_mean_average_precision'])} {measured_on}"
    elif val:
        low, high = wilson(round(row["val_accuracy"] * len(val["labels"])), len(val["labels"]))
        text += f": {row['val_accuracy']:.2%} {measured_on} (95 % interval {low:.2%} to {high:.2%})"
    setup.log(f"Head: {text}, {seconds:.2f} s.")
    return Heads(head, final, val, row, text)


def _validated(head, found):
    """({"ids", "labels", "logits"} of photos that the head was not fitted on, or None; which these are)."""
    splits = found.parts.splits
    if "val" in splits:
        val = splits["val"]
        logits = head.logits(found.x["val"])
        return {"ids": val.ids, "labels": val.labels, "logits": logits}, f"on {len(val):,} validation photos"
    if head.folded is None:
        return None, ""
    train = splits["train"]
    at = head.tested[head.tested < len(train)]
    val = {"ids": [train.ids[i] for i in at], "labels": train.labels[at], "logits": head.folded[: len(at)]}
    return val, "in cross-validation"


def _with_views(setup, parts, split, x, groups, interrupted):
    """(features, labels, groups) of the photos and their augmented views, which stay in one group."""
    found, labels, all_groups = [x], [split.labels], [groups]
    hashes = [parts.hashes[i] for i in split.ids]
    for view in range(1, setup.options.views + 1):
        got = features(split.images, setup.cache, setup.extractor, view=view, hashes=hashes, stopped=interrupted)
        found.append(got.features)
        labels.append(split.labels)
        all_groups.append(groups)
    return (x, split.labels, groups) if len(found) == 1 else tuple(map(np.concatenate, (found, labels, all_groups)))


def _write_head(setup, folder, heads):
    """Write the model with the final head, from the cached network, and audit it; the phase's record."""
    head = heads.final
    with setup.clock.timed("saving"):
        file = template(setup.extractor, setup.data.classes, setup.cache)
        fill(file, head.kernel, head.bias, folder / runs.MODEL)
        audit = enforce(audit_file(folder / runs.MODEL, file), "head")
    size = int(head.kernel.size + head.bias.size)
    return {
        "name": "head",
        "seconds": setup.clock.seconds["head"],
        "trainable": ["predictions"],
        "trainable_parameters": size,
        "frozen_parameters": parameters(file) - size,
        "audit": audit,
        **{k: v for k, v in heads.row.items() if k in ("val_accuracy", "val_mean_average_precision")},
        "text": heads.text,
    }


@dataclass(frozen=True)
class Best:
    """The best of all phases.

    Attributes:
        name: "head", or the deepest stage that was kept.
        verdict: a sentence.
        why: what the last phase gave, in a sentence or two, which the terminal has shown already.
        logits: {"val", "test": (N, C) or None} of the whole network; None for the head's.
        phases, history: of the stages.
    """

    name: str
    verdict: str
    why: str
    logits: dict[str, np.ndarray | None] | None = None
    phases: list[dict] = field(default_factory=list)
    history: list[dict] = field(default_factory=list)

    @property
    def outcome(self) -> str:
        """Both, for the record and the report."""
        return f"{self.verdict} {self.why}"


def _deepen(setup, found, heads, folder, interrupted):
    """Train deeper layers where that is asked for and possible."""
    unfreeze = setup.options.unfreeze
    if unfreeze == "none":
        return Best("head", "The head alone, as asked.", f"{heads.text}.")
    if "val" not in found.parts.splits:
        if unfreeze != "auto":
            raise RunError(
                f"--unfreeze {unfreeze} needs validation photos: at least {MIN_PER_CLASS} of each class to train on, "
                "or val and test parts."
            )
        return Best("head", "The head alone: too few photos to validate deeper layers on.", f"{heads.text}.")
    if unfreeze == "auto":
        why = setup.group.told(no_room(setup.task.judge([(heads.val["logits"], heads.val["labels"])])[0]))
        if why:
            return Best("head", f"The head alone: {why}.", f"{heads.text}.")
    load_keras()  # quietly: the next line imports it
    from kzoo.finetuning.deeper import deepen

    with setup.clock.timed("stages"):
        return Best(**deepen(setup, found, heads, folder, interrupted))


def _finish(setup, settings, found, heads, best, *, folder, phases, history):
    """Write history, report and metrics; the last says that the run is finished."""
    splits = found.parts.splits
    logits = best.logits
    if logits is None:
        logits = {"val": None, "test": heads.final.logits(found.x["test"]) if "test" in splits else None}
    measured = {"val": heads.val}
    for part in ("val", "test"):
        if logits[part] is not None:
            measured[part] = {"ids": splits[part].ids, "labels": splits[part].labels, "logits": logits[part]}
    measured = {k: v for k, v in measured.items() if v is not None}
    metrics: dict[str, Any] = {"winner": best.name, "outcome": best.outcome}
    metrics["refit"] = best.name == "head" and heads.refit
    for part, v in measured.items():
        metrics.update(_score(setup, v["logits"], v["labels"], f"{part}_"))
    task, classes = setup.task, setup.data.classes
    if task.decides:
        val = measured.get("val", {"logits": np.zeros((0, len(classes))), "labels": np.zeros((0, len(classes)), int)})
        metrics["decision"] = task.decide(val["logits"], val["labels"], classes)
        task = task.decided(metrics["decision"], classes)
    columns = list(dict.fromkeys([*HISTORY, *(key for row in history for key in row)]))  # the task's other metrics
    runs.write_csv(folder / runs.HISTORY, history, columns)
    with setup.clock.timed("report"):
        report = _report(
            setup,
            settings,
            found,
            heads,
            task=task,
            best=best,
            measured=measured,
            folder=folder,
            phases=phases,
            history=history,
        )
    seconds = setup.clock.seconds
    metrics["seconds"] = {**seconds, "all": round(time.monotonic() - setup.clock.began, 3)}
    metrics["features_computed"] = found.computed
    runs.write_json(folder / runs.METRICS, metrics)
    setup.log(best.verdict)
    if "temperature_choice" in report:
        setup.log(report["temperature_choice"]["reason"])
    if task.decision:
        setup.log(task.decision["reason"])
    if "test" in measured and setup.data.several:
        test = report["several"]["test"]
        low, high = test["interval"] or (None, None)
        interval = "" if low is None else f" [{low:.2%}, {high:.2%}]"
        setup.log(
            f"Held-out test on {test['images']:,} images: mAP {_share(test['mean_average_precision'])}{interval}, F1 "
            f"{_share(test['f1_macro'])} (mean of the classes)."
        )
    elif "test" in measured:
        n = len(measured["test"]["labels"])
        low, high = report["parts"]["test"]["accuracy_interval"]
        accuracy = f"{metrics['test_accuracy']:.2%}, 95 % interval {low:.2%} to {high:.2%}"
        setup.log(f"Held-out test accuracy on {n:,} images: {accuracy}.")


def _report(setup, settings, found, heads, *, task, best, measured, folder, phases, history):
    train = found.parts.splits["train"]
    photos = setup.data.name
    if setup.data.several:
        about = {"run": folder.name, "data": photos}
        measures: dict[str, Any] = {
            "several": {
                part: task.evaluate(v["logits"], v["labels"], setup.data.classes, split=part, **about).to_dict()
                for part, v in measured.items()
            }
        }
    else:
        measures = {
            "parts": measured,
            "train_features": {"ids": train.ids, "labels": train.labels, "features": found.x["train"]},
        }
    measures["head"] = heads.head.to_dict()

    def built():
        network = with_head(setup.extractor.model, setup.data.classes)
        network.get_layer("predictions").set_weights([heads.final.kernel, heads.final.bias])
        return network

    # Building it from layers that are there is faster than reading the run's file.
    network = built if best.name == "head" and setup.extractor.is_built else None
    return _write_report(setup, settings, found.parts, folder, best.outcome, phases, history, measures, network)


def _write_report(setup, settings, parts, folder, outcome, phases, history, measures, network=None):
    copied = ("command", "model", "weights", "data", "classes", "seed", "precision", "hardware", "versions")
    return write_report(
        folder,
        {
            "title": f"{setup.base.name} on {Path(setup.data.name).name or setup.data.name}",
            "run": folder.name,
            **{k: settings[k] for k in copied},
            "outcome": outcome,
            "passport": parts.passport.to_dict(),
            "phases": phases,
            "history": history,
            **measures,
            "picture": parts.images.get,
            "maps": maps_of_mistakes(folder, parts.images.get, network),
        },
    )


def _score(setup, logits, labels, prefix=""):
    """{prefix + name: value}: the mean loss, and the accuracy, or mean average precision of several labels."""
    if setup.data.several:
        score = setup.task.scores(logits, labels)["mean_average_precision"]
        values = {"loss": float(label_log_losses(logits, labels).mean()), "mean_average_precision": score}
    else:
        values = {"loss": negative_log_likelihood(logits, labels), "accuracy": float(top_k_hits(logits, labels).mean())}
    return {prefix + name: value for name, value in values.items()}


def _share(value):
    return "none" if value is None else f"{value:.2%}"
