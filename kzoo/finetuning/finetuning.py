"""From a folder of photos to a classifier: passport, features once, head, deeper layers where they help, report.

Who has which part. `test` measures and nothing else; it is the source's test part, else its validation part, else (from
an undivided pile) drawn by kzoo. `choose` decides how deep to train and which epoch is kept; it is the source's
validation part if that has a test part, too, else a fifth of the training photos. The head's kind and strength are
chosen by cross-validation within the training part. Once nothing is left to choose and the head alone is best, it is
fitted again, the same kind and strength, on all training photos, with what `choose` took of them: more photos help a
head more than they can harm, and the figures in the report were taken before. Deeper layers keep the weights that were
chosen: to train them again without a part to stop by would be a leap in the dark.

Keras is imported only when a feature is missing or deeper layers train; a second run needs neither.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from kzoo import runs
from kzoo.catalog import spec
from kzoo.data.dataset import DataSet, report_skipped
from kzoo.data.divide import divide
from kzoo.data.guards import check_channels
from kzoo.data.loading import load_data
from kzoo.data.passport import Passport, check_data
from kzoo.errors import DataError, KzooError, RunError, unknown
from kzoo.files import write_atomically
from kzoo.finetuning.audit import enforce
from kzoo.finetuning.backbone import Network, backbone, download_advice, machine
from kzoo.finetuning.features import cache_dir, features, hashes_of
from kzoo.finetuning.heads import Objective, fit_head
from kzoo.finetuning.template import audit_file, fill, template
from kzoo.hardware import backend, load_keras
from kzoo.interrupt import Interrupted, interruptible
from kzoo.progress import Deferred, progress, say

TEST, CHOOSE = 0.2, 0.2  # shares that kzoo draws
FEW = 10  # photos of a class below which no part is taken for choosing, and deeper layers stay frozen
AUGMENTS, MIXTURES = ("none", "light", "strong"), ("mixup", "cutmix")
SAME = (
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


def finetune(photos, model=None, **options):
    """Make a classifier from photos and a pretrained network, and leave a run folder.

    photos: what `kzoo.load_data` takes: a folder of class folders, one with train/, val/, test/, a CSV, tfds:NAME, ...
    options: those of `finetune_folder`.

    Returns the Run, as `kzoo.load_run` reads it.

    >>> kzoo.finetune("photos", "no_such_model")
    Traceback (most recent call last):
        ...
    kzoo.errors.UnknownName: Unknown model 'no_such_model'. ...
    """
    return runs.load_run(finetune_folder(photos, model, **options))


def finetune_folder(
    photos=None,
    model=None,
    *,
    weights=None,
    out=None,
    unfreeze=None,
    epochs=None,
    budget=None,
    augment=None,
    mix=None,
    seed=None,
    precision=None,
    shots=None,
    views=None,
    class_weights=None,
    label_smoothing=None,
    focal=None,
    input_shape=None,
    strict=False,
    resume=False,
    quiet=False,
):
    """`finetune`, but it returns the run's folder, and needs Keras only where a network must run.

    model, weights: a name of the catalog; a tag, a path or a Weights row. Without weights: the most accurate that are
        at hand without a download, without a model: of all models.
    out: the run folder; runs/MODEL-PHOTOS by default.
    unfreeze: "none": the head only. "auto" (default): stage by stage from the top, as long as the choosing part gains.
        "all", a stage ("7x7") or how layers' names begin ("conv5"): all stages down to there; the best of all phases
        wins in any case.
    epochs: of each stage, 6 by default. budget: seconds for everything.
    augment: "none", "light" (default) or "strong", for the deeper layers. mix: None, "mixup" or "cutmix".
    views: besides the photo itself, so many augmented views of each training photo for the head, 0 by default.
    shots: use so many photos of each class, drawn with the seed, and none of the others.
    class_weights: None, "balanced" (n / (classes * n_c)), or {class: weight}. label_smoothing, focal: of the loss.
    precision: "float32", "bfloat16" or "auto" (default). strict: refuse unusable files instead of leaving them out.
    resume: go on with the run in `out`; what is not given is taken from it.

    Raises KzooError: DataError, WeightsError, RunError; Interrupted after Ctrl-C or SIGTERM, which keeps what is done.
    """
    began = time.monotonic()
    given = {
        "unfreeze": unfreeze,
        "epochs": epochs,
        "augment": augment,
        "mix": mix,
        "shots": shots,
        "views": views,
        "class_weights": class_weights,
        "label_smoothing": label_smoothing,
        "focal": focal,
    }
    before = None
    if resume:
        if out is None:
            raise RunError("--resume needs --out, the folder of the run to go on with.")
        before = runs.read_json(Path(out) / runs.CONFIG)
        if "finetune" not in before:
            raise RunError(f"{out} was not left by kzoo finetune: kzoo train --resume --out {out} goes on with it.")
        photos = before["data"] if photos is None else photos
        model = before["model"] if model is None else model
        if weights is None:
            # The tag's row, since a bare file would come without its preprocessing, but that very file if it is there.
            weights, tags = before["weights"]["file"], {w.tag: w for w in spec(before["model"]).weights}
            if before["weights"]["tag"] in tags:
                row = tags[before["weights"]["tag"]]
                weights = replace(row, file=weights) if os.path.isfile(weights) else row
        seed = before["seed"] if seed is None else seed
        precision = before["precision"] if precision in (None, "auto") else precision
        input_shape = before["input_shape"] if input_shape is None else input_shape
        given = {k: before["finetune"][k] if v is None else v for k, v in given.items()}
    elif photos is None:
        raise RunError("Say where the photos are: a folder of class folders, a CSV, or tfds:NAME.")
    defaults = {"unfreeze": "auto", "epochs": 6, "augment": "light", "views": 0, "label_smoothing": 0.0, "focal": 0.0}
    how = {k: defaults.get(k) if v is None else v for k, v in given.items()}
    seed = 0 if seed is None else seed
    _check(how, budget)
    talk = (lambda text: None) if quiet else say

    base = backbone(model, weights, input_shape=input_shape, precision=precision)
    if weights is None:
        better = download_advice(model, base.weights.top1 or 0.0)
        top1 = f", {base.weights.top1:.1f} % top-1 on ImageNet" if base.weights.top1 else ""
        talk(f"Weights at hand: {base.name}, {base.path}{top1}. {better}".rstrip())
    job = Job(base, os.fspath(photos), how, seed, strict, quiet, talk, began, budget)
    settings = job.settings()
    if before:
        wrong = runs.differences(settings, before, SAME)
        if wrong:
            raise RunError(f"{out} can't be resumed with other settings. {'; '.join(wrong)}.")
        folder = Path(out)
        if (folder / runs.METRICS).exists() and (folder / runs.MODEL).exists():
            talk(f"{folder} is finished.")
            return folder
    else:
        folder = runs.new_folder(out, base.name, job.photos)
    with runs.locked(folder), interruptible("what is done is kept, and --resume goes on from there") as interrupted:
        job.run(folder, settings, interrupted, fresh=not before)
    return folder


def _check(how, budget):
    """KzooError for an option out of range; names of stages are checked where the network is known."""
    if how["augment"] not in AUGMENTS:
        raise unknown("augmentation", how["augment"], AUGMENTS, f"It is one of {', '.join(AUGMENTS)}.")
    if how["mix"] is not None and how["mix"] not in MIXTURES:
        raise unknown("mixture", how["mix"], MIXTURES, f"It is one of {', '.join(MIXTURES)}.")
    for key, least in (("epochs", 1), ("shots", 1), ("views", 0)):
        if how[key] is not None and (not isinstance(how[key], int) or how[key] < least):
            raise KzooError(f"{key} must be a whole number of at least {least}, got {how[key]!r}.")
    if not 0 <= how["label_smoothing"] < 1:
        raise KzooError(f"label_smoothing must be in [0, 1), got {how['label_smoothing']}.")
    if not 0 <= how["focal"] <= 10:
        raise KzooError(f"focal, the exponent, must be in [0, 10], got {how['focal']}.")
    if budget is not None and not budget > 0:
        raise KzooError(f"budget must be a positive number of seconds, got {budget}.")
    if how["shots"] and how["unfreeze"] not in ("none", "auto"):
        raise KzooError(
            f"--shots leaves too few photos to choose by, so deeper layers stay frozen: --unfreeze {how['unfreeze']} "
            "needs all photos."
        )


class Job:
    """One fine-tuning: the data and its parts, and the phases in order."""

    def __init__(self, base, photos, how, seed, strict, quiet, talk, began, budget):
        self.base, self.photos, self.how, self.seed = base, photos, how, seed
        self.strict, self.quiet, self.talk, self.began, self.budget = strict, quiet, talk, began, budget
        self.deadline = None if budget is None else began + budget
        self.seconds, self.phases, self.history = {}, [], []
        self.data = load_data(photos, val_fraction=0.0, test_fraction=0.0, seed=seed, strict=strict)
        for split in self.data.splits.values():
            if not split.files:
                check_channels(split.images.shape[-1], base.input_shape[2])
        self.fingerprint = self.data.fingerprint()
        self.network = Network(base)
        self.cache = base.cache()
        if self.cache.damaged:
            talk(f"{len(self.cache.damaged)} damaged file(s) of the feature cache thrown away; they are made anew.")

    @contextmanager
    def timed(self, name):
        start = time.monotonic()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0) + time.monotonic() - start, 3)

    def settings(self):
        base = self.base
        facts = machine()
        return {
            "model": base.name,
            "options": {
                k: v
                if isinstance(v, (int, float, str, bool, type(None)))
                else list(v)
                if isinstance(v, tuple)
                else repr(v)
                for k, v in base.config.items()
            },
            "classes": list(self.data.classes),
            "input_shape": list(base.input_shape),
            "preprocessing": base.preprocessing.to_dict(),
            "weights": base.about_weights(),
            "weights_sha256": base.sha256,
            "finetune": self.how,
            "data": self.photos,
            "fingerprint": self.fingerprint,
            "divided": runs.SPLITS,
            "seed": self.seed,
            "precision": base.precision,
            "budget": self.budget,
            "val_fraction": 0.0,
            "test_fraction": 0.0,
            "backend": backend(),
            "hardware": facts["hardware"],
            "versions": runs.versions(),
            "command": runs.command("finetune"),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }

    # --- data ---

    def prepare(self):
        """Hash each photo, look at all of them or remember what was seen, and deal out the parts."""
        with self.timed("hashing"):
            hashes, gone = {}, []
            for split in self.data.splits.values():
                found, reasons = hashes_of(split.images)
                hashes.update(zip(split.ids, found, strict=True))
                gone += [(split.ids[i], reason) for i, reason in reasons.items()]
        self.hashes, self.gone = hashes, gone
        with self.timed("passport"):
            memo = self._memo()
            known = _read_memo(memo)
            if known is None:
                self.data.scan = self._scan()
            self._divide(self.data.scan or Remembered(known["groups"]))
            if known is None:
                seen = check_data(self.divided, seed=self.seed)
                _write_memo(memo, {"passport": asdict(seen), "groups": seen.groups})
            else:
                seen = Passport(**known["passport"])
        self.passport = seen
        self.data.scan = self.divided.scan = None  # it holds small copies of all photos

    def _scan(self):
        """A look at each photo, on one core, while the other imports Keras if the network will have to run."""
        from kzoo.data.scan import scan_images

        bar = Deferred()
        with ThreadPoolExecutor(1) as pool:
            looking = pool.submit(scan_images, self.data.splits, bar)
            if any(name is not None and (0, name) not in self.cache.index for name in self.hashes.values()):
                load_keras()  # nothing may be shown meanwhile: it holds stderr back
            with progress(quiet=self.quiet) as shown:
                bar.show(shown)
                return looking.result()

    def _memo(self):
        key = {
            "version": 2,
            "seed": self.seed,
            "shots": self.how["shots"],
            "name": self.photos,
            "classes": self.data.classes,
            "skipped": self.data.skipped,
            "fingerprint": self.fingerprint,
            "hashes": [h and h.hex() for h in self.hashes.values()],
        }
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode("utf-8", "surrogateescape")).hexdigest()[:24]
        return cache_dir() / "passports" / f"{name}.json"

    def _divide(self, scan):
        """Parts: train, and choose, test where there are such; `divided` is the DataSet that the passport describes."""
        user = dict(self.data.splits)
        undivided = "test" in self.data.drawn
        if undivided:
            pile = DataSet(self.data.name, self.data.classes, {"all": user["train"]}, scan=scan)
            user = divide(pile, 0.0, TEST, self.seed).splits
        self.divided = DataSet(
            self.data.name,
            self.data.classes,
            dict(user),
            self.data.skipped + self.gone,
            ("train", "test") if undivided else (),
            scan if not isinstance(scan, Remembered) else None,
        )
        train, test = user["train"], user.get("test")
        choose, self.test_name = (user.get("val"), "test") if test is not None else (None, "val")
        test = user.get("val") if test is None else test
        self.given_choose = choose is not None
        if self.how["shots"]:
            train, choose, self.given_choose = self._draw(train), None, False
        counts = np.bincount(train.labels, minlength=len(self.data.classes))
        if choose is None and not self.how["shots"] and counts.min() >= FEW:
            pile = DataSet(self.data.name, self.data.classes, {"train": train}, scan=scan)
            rest = divide(pile, CHOOSE, 0.0, self.seed).splits
            train, choose = rest["train"], rest.get("val")
        # By their first member: a scan numbers them in another way than what is remembered of one, and folds are drawn
        # by number.
        _, first, member = np.unique(scan.groups_of(train.ids), return_index=True, return_inverse=True)
        self.groups = first[member]
        self.parts = {"train": train, "choose": choose, "test": test}
        self.parts = {k: v for k, v in self.parts.items() if v is not None and len(v)}

    def _draw(self, split):
        """`shots` photos of each class; all of a class that has fewer."""
        rng = np.random.default_rng(self.seed)
        own = [np.flatnonzero(split.labels == k) for k in np.unique(split.labels)]
        own = [rng.choice(i, min(self.how["shots"], len(i)), replace=False) for i in own]
        return split.take(np.sort(np.concatenate(own)))

    def describe_parts(self):
        n = {name: len(split) for name, split in self.parts.items()}
        text = f"{len(self.data.classes)} classes; {n['train']:,} photos train"
        if "choose" in n:
            text += f", {n['choose']:,} choose" + (" (your val)" if self.given_choose else " (from your training part)")
        if "test" in n:
            whose = "drawn by kzoo" if self.divided.drawn else f"your {self.test_name}"
            text += f", {n['test']:,} only measure ({whose})"
        return text + "."

    # --- the phases ---

    def run(self, folder, settings, interrupted, fresh):
        self.folder, self.interrupted = folder, interrupted
        with self.timed("data"):
            self.prepare()
        names = {"train": "train", "choose": "val" if self.given_choose else "choose", "test": self.test_name}
        if fresh:
            recorded = DataSet(self.photos, self.data.classes, {names[k]: v for k, v in self.parts.items()})
            runs.record(folder, settings, recorded)
        runs.write_json(folder / "passport.json", self.passport.to_dict())
        self.talk(f"{self.base.name} on {self.photos}: {self.describe_parts()}")
        for warning in self.passport.warnings[:5]:
            self.talk(f"Note: {warning}")
        with self.timed("features"):
            self.compute_features()
        head, final = self.fit_heads()
        self.write_head(final)
        winner, outcome = self.deepen(head)
        self.finish(settings, head, final, winner, outcome)

    def compute_features(self):
        """self.x: {part: features (N, D)}, and the parts without what can't be decoded."""
        self.x, skipped, computed = {}, list(self.divided.skipped), 0
        total = sum(map(len, self.parts.values()))

        def stop():
            return self.interrupted() or self._late()

        with progress(quiet=self.quiet) as bar:
            bar.start("features", total)
            for name, split in list(self.parts.items()):
                hashes = [self.hashes[i] for i in split.ids]
                try:
                    got = features(
                        split.images, self.cache, self.network, hashes=hashes, advance=bar.advance, stopped=stop
                    )
                except Interrupted:
                    if self.interrupted():
                        raise
                    raise RunError(
                        f"The budget of {self.budget:.0f} s is over before all features are there; those that are done "
                        "are kept, and the next run goes on from there: give it more time."
                    ) from None
                self.parts[name] = split.take(got.kept) if got.skipped else split
                if name == "train":
                    self.groups = self.groups[got.kept]
                skipped += [(split.ids[i], reason) for i, reason in got.skipped]
                self.x[name] = got.features
                computed += got.computed
        self.computed = computed
        self._report_skipped(skipped)
        self.parts = {k: v for k, v in self.parts.items() if len(v)}
        present = set(self.parts["train"].labels.tolist()) if "train" in self.parts else ()
        empty = [c for i, c in enumerate(self.data.classes) if i not in present]
        if empty:
            raise DataError(f"No usable training photo is left of class {', '.join(map(repr, empty[:5]))}.")
        if not np.isfinite(self.x["train"][:: max(len(self.x["train"]) // 1000, 1)]).all():
            raise RunError(
                f"The features of {self.base.name} are not finite: use --precision float32, or other weights."
            )
        self.talk(f"Features: {computed:,} computed, {total - computed:,} from the cache ({self.cache.folder}).")

    def _report_skipped(self, skipped):
        skipped = list(dict(skipped).items())
        if not skipped:
            return
        if self.strict:
            raise DataError(report_skipped(skipped) + " (--strict)")
        runs.write_csv(self.folder / "skipped.csv", [{"id": i, "reason": r} for i, r in skipped], ("id", "reason"))
        self.talk(f"Left out {report_skipped(skipped)}. All are listed in {self.folder / 'skipped.csv'}.")

    def _late(self):
        return self.deadline is not None and time.monotonic() > self.deadline

    def objective(self):
        weights = self.how["class_weights"]
        if isinstance(weights, dict):
            unknown_names = set(weights) - set(self.data.classes)
            if unknown_names:
                raise DataError(f"class_weights names {sorted(unknown_names)[0]!r}, which is no class.")
            weights = tuple(float(weights.get(c, 1.0)) for c in self.data.classes)
        elif weights == "balanced":
            counts = np.bincount(self.parts["train"].labels, minlength=len(self.data.classes))
            weights = tuple((len(self.parts["train"]) / (len(counts) * counts)).tolist())
        elif weights is not None:
            raise KzooError(f"class_weights is None, 'balanced' or a dict of weights by class, got {weights!r}.")
        return Objective(weights, self.how["label_smoothing"], self.how["focal"])

    def fit_heads(self):
        """(the head fitted on the training part, the one on all that may train)."""
        start = time.monotonic()
        train, classes = self.parts["train"], len(self.data.classes)
        x, y, groups = self._with_views(train, self.x["train"], self.groups)
        head = fit_head(x, y, classes, groups=groups, seed=self.seed, objective=self.objective())
        final = head
        if "choose" in self.parts and not self.given_choose:
            more = self.parts["choose"]
            x2, y2, _ = self._with_views(more, self.x["choose"], np.arange(len(more)))
            x, y = np.concatenate([x, x2]), np.concatenate([y, y2])
            final = fit_head(x, y, classes, objective=self.objective(), like=head)
        self.seconds["head"] = round(time.monotonic() - start, 3)
        if "choose" in self.parts:
            logits, labels = head.logits(self.x["choose"]), self.parts["choose"].labels
            self.val = {"ids": self.parts["choose"].ids, "labels": labels, "logits": logits}
            how = f"on {len(labels):,} photos for choosing"
        elif head.folded is not None:
            at = head.tested[head.tested < len(train)]
            self.val = {"ids": [train.ids[i] for i in at], "labels": train.labels[at], "logits": head.folded[: len(at)]}
            how = "in cross-validation"
        else:
            self.val, how = None, ""
        row = {"phase": "head", "epoch": 0, "seconds": self.seconds["head"], "learning_rate": None}
        row["loss"], row["accuracy"] = _score(head.logits(self.x["train"]), train.labels)
        row["val_loss"], row["val_accuracy"] = (
            _score(self.val["logits"], self.val["labels"]) if self.val else (None,) * 2
        )
        self.history.append(row)
        strength = "" if head.strength is None else f" (strength {head.strength:g})"
        text = f"{head.kind}{strength}"
        if self.val:
            text += f": {row['val_accuracy']:.2%} {how}"
        self.head_text = text
        self.talk(f"Head: {text}, {self.seconds['head']:.2f} s.")
        return head, final

    def _with_views(self, split, x, groups):
        """The training photos and their augmented views, which stay in one group."""
        found, labels, all_groups = [x], [split.labels], [groups]
        hashes = [self.hashes[i] for i in split.ids]
        for view in range(1, self.how["views"] + 1):
            got = features(split.images, self.cache, self.network, view=view, hashes=hashes, stopped=self.interrupted)
            found.append(got.features)
            labels.append(split.labels)
            all_groups.append(groups)
        return (x, split.labels, groups) if len(found) == 1 else tuple(map(np.concatenate, (found, labels, all_groups)))

    def write_head(self, head):
        """The model with this head, written from the cached network and audited."""
        with self.timed("saving"):
            file = template(self.network, len(self.data.classes), self.cache)
            fill(file, head.kernel, head.bias, self.folder / runs.MODEL)
            result = enforce(audit_file(self.folder / runs.MODEL, file), "head")
        row = self.history[-1]
        self.phases.append(
            {
                "name": "head",
                "seconds": self.seconds["head"],
                "trainable": ["predictions"],
                "trainable_parameters": int(head.kernel.size + head.bias.size),
                "frozen_parameters": _parameters(file) - int(head.kernel.size + head.bias.size),
                "audit": result,
                "val_accuracy": row["val_accuracy"],
                "text": self.head_text,
            }
        )

    def deepen(self, head):
        """Train deeper layers where that is asked for and possible; ((name, logits by part), outcome)."""
        if self.how["unfreeze"] == "none":
            return ("head", None), f"The head alone, as asked: {self.head_text}."
        if "choose" not in self.parts:
            if self.how["unfreeze"] != "auto":
                raise RunError(
                    f"--unfreeze {self.how['unfreeze']} needs photos to choose by: at least {FEW} of each class to "
                    "train on, or val and test parts."
                )
            return ("head", None), f"The head alone: too few photos to choose deeper layers by. {self.head_text}."
        load_keras()  # quietly: the next line imports it
        from kzoo.finetuning.deeper import deepen

        return deepen(self, head)

    def finish(self, settings, head, final, winner, outcome):
        name, logits = winner
        if logits is None:
            logits = {"choose": None, "test": final.logits(self.x["test"]) if "test" in self.parts else None}
        parts = {"val": self.val}
        if logits["choose"] is not None:
            choose = self.parts["choose"]
            parts["val"] = {"ids": choose.ids, "labels": choose.labels, "logits": logits["choose"]}
        if logits["test"] is not None:
            test = self.parts["test"]
            parts["test"] = {"ids": test.ids, "labels": test.labels, "logits": logits["test"]}
        parts = {k: v for k, v in parts.items() if v is not None}
        metrics = {"winner": name, "outcome": outcome}
        for part, v in parts.items():
            metrics[f"{part}_loss"], metrics[f"{part}_accuracy"] = _score(v["logits"], v["labels"])
        columns = ("phase", "epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds")
        runs.write_csv(self.folder / runs.HISTORY, self.history, columns)
        with self.timed("report"):
            self._report(settings, head, parts, outcome)
        metrics["seconds"] = {**self.seconds, "all": round(time.monotonic() - self.began, 3)}
        metrics["features_computed"] = self.computed
        runs.write_json(self.folder / runs.METRICS, metrics)  # last: it says that the run is finished
        self.talk(outcome)
        if "test" in parts:
            n, accuracy = len(parts["test"]["labels"]), metrics["test_accuracy"]
            self.talk(f"Measured on {n:,} photos that nothing was chosen by: {accuracy:.2%}.")

    def _report(self, settings, head, parts, outcome):
        from kzoo.finetuning.report import write_report

        train = self.parts["train"]
        where = {i: split.images[n] for split in self.data.splits.values() for n, i in enumerate(split.ids)}
        write_report(
            self.folder,
            {
                "title": f"{self.base.name} on {Path(self.photos).name or self.photos}",
                "run": self.folder.name,
                **{
                    k: settings[k]
                    for k in (
                        "command",
                        "model",
                        "weights",
                        "data",
                        "classes",
                        "seed",
                        "precision",
                        "hardware",
                        "versions",
                    )
                },
                "outcome": outcome,
                "passport": self.passport.to_dict(),
                "phases": self.phases,
                "history": self.history,
                "head": head.to_dict(),
                "parts": parts,
                "train_features": {"ids": train.ids, "labels": train.labels, "features": self.x["train"]},
                "picture": where.get,
            },
        )


class Remembered:
    """Groups of duplicates of an earlier scan, for `divide`: every photo not named is alone."""

    def __init__(self, groups):
        self.number = {i: n for n, ids in enumerate(groups) for i in ids}
        self.alone = len(groups)

    def groups_of(self, ids):
        return np.array([self.number.get(i, self.alone + n) for n, i in enumerate(ids)], int)


def _read_memo(path):
    try:
        data = json.loads(path.read_text("utf-8"))
        Passport(**data["passport"])
        return data if data["sha256"] == _memo_hash(data) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _memo_hash(data):
    text = json.dumps({k: data[k] for k in ("passport", "groups")}, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _write_memo(path, data):
    data = json.loads(json.dumps(data))
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path, "w", errors="surrogateescape") as f:
        json.dump({**data, "sha256": _memo_hash(data)}, f)


def _score(logits, labels):
    """(mean log loss, accuracy)."""
    loss, _ = Objective()(np.asarray(logits, "float64"), labels, np.full(len(labels), 1 / len(labels)))
    return loss, float(np.mean(logits.argmax(1) == labels))


def _parameters(file):
    """How many numbers a template's network has."""
    import io
    import zipfile

    import h5py

    total = 0

    def visit(name, item):
        nonlocal total
        total += item.size if isinstance(item, h5py.Dataset) else 0

    with zipfile.ZipFile(file) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r") as f:
        f.visititems(visit)
    return int(total)
