"""From pictures and settings to the styled picture: coarse to fine, in time, resumable."""

from __future__ import annotations

import hashlib
import math
import os
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from kzoo.catalog import spec
from kzoo.catalog.pretrained import OFFLINE_STYLE
from kzoo.errors import DataError, KzooError, WeightsError, unknown
from kzoo.files import check_writable
from kzoo.hardware import auto_precision
from kzoo.interrupt import Interrupted, interruptible
from kzoo.progress import progress, say
from kzoo.runs import differences, load_checkpoint, save_checkpoint
from kzoo.style import colour
from kzoo.synthesis import memory, pictures
from kzoo.synthesis.network import model_of, network
from kzoo.synthesis.objective import BALANCES, Eye, Objective
from kzoo.synthesis.optimise import LBFGS, OPTIMISERS
from kzoo.weights import fetch, resolve

PRECISIONS = ("auto", "float32", "bfloat16")
DECAY = 0.95  # of the average of iterates
RESERVE = 1.0  # seconds of a budget for writing what came out


@dataclass(frozen=True)
class Settings:
    """All that decides, with the pictures, what comes out. A result's PNG carries them.

    model, weights: a name of the catalog; "imagenet", a path, "cifar10" (kzoo's own small VGG, in the package), or
        "random" (random filters know colours and strokes, but nothing of objects). "auto": imagenet, downloaded once;
        where it can't be had, kzoo's own, which it says. A result's PNG has what was used.
    content_layers, style_layers, layer_weights: names, and w_l for each style layer; None: the paper's, equal.
    content_weight, style_weight, tv_weight, range_weight, balance: see `kzoo.synthesis.objective.Objective`. Pixels
        that a file would cut off spoil the Grams, hence range_weight; 0 is the paper's. balance None: "relative",
        and for random weights and kzoo's own "gradient", which brings them nearer to what VGG-19 sees in the style.
    style_weights: one for each style.
    size: the longer side of the result. style_scale: size of the styles relative to it. coarsest: the longer side to
        begin with; sizes grow by sqrt(2) from there. 0 begins at `size`.
    evaluations: of loss and gradient, shared out equally over the sizes, or a tuple with those of each size.
    optimizer: "lbfgs" or "adam"; learning_rate: Adam's, in grey levels.
    init: "content", "noise" or the path of a picture. seed: of the noise and of random weights.
    pooling: "average" or "max". padding: "replicate" or "zeros".
    preserve_color: "none", "luminance" or "histogram" (the style takes on the content's colours first).
    masks: pairs of paths, (content mask, style mask or "-" for all of it), white where the region is. With several
        styles there is one pair for each; with one style, any number.
    average: give the average of the iterates, in place of the last. tile: compute in tiles of so many pixels.
    precision: "float32", "bfloat16", or "auto": what this machine is fast in.
    """

    model: str = "vgg19"
    weights: str = "auto"
    content_layers: tuple[str, ...] | None = None
    style_layers: tuple[str, ...] | None = None
    layer_weights: tuple[float, ...] | None = None
    content_weight: float = 1.0
    style_weight: float = 100.0
    tv_weight: float = 0.0
    range_weight: float = 1e-6
    balance: str | None = None
    style_weights: tuple[float, ...] | None = None
    size: int = 512
    style_scale: float = 1.0
    coarsest: int = 128
    evaluations: int | tuple[int, ...] = 300
    optimizer: str = "lbfgs"
    learning_rate: float = 5.0
    init: str = "content"
    seed: int = 0
    pooling: str = "average"
    padding: str = "replicate"
    preserve_color: str = "none"
    masks: tuple[tuple[str, str], ...] = ()
    average: bool = False
    tile: int | None = None
    precision: str = "auto"

    def __post_init__(self):
        for name, known in (
            ("optimizer", OPTIMISERS),
            ("preserve_color", colour.MODES),
            ("balance", (*BALANCES, None)),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in known:
                raise unknown(
                    name, getattr(self, name), [k for k in known if k], f"Known are {', '.join(filter(None, known))}."
                )
        for name in ("size", "style_scale", "learning_rate"):
            if not _is_number(getattr(self, name)) or not getattr(self, name) > 0:
                raise KzooError(f"{name} must be a number above 0, got {getattr(self, name)!r}.")
        for name in ("content_weight", "style_weight", "tv_weight", "range_weight", "coarsest", "seed"):
            if not _is_number(getattr(self, name)) or not getattr(self, name) >= 0:
                raise KzooError(f"{name} must be a number, 0 or above, got {getattr(self, name)!r}.")
        for name in ("content_layers", "style_layers", "layer_weights", "style_weights", "masks", "evaluations"):
            value = getattr(self, name)  # JSON gives lists back
            if isinstance(value, (list, tuple)):
                object.__setattr__(self, name, tuple(tuple(v) if isinstance(v, list) else v for v in value))
        for name in ("size", "coarsest", "seed"):
            if not isinstance(getattr(self, name), int):
                raise KzooError(f"{name} must be a whole number, got {getattr(self, name)!r}.")
        for name in ("model", "weights", "init", "pooling", "padding"):
            if not isinstance(getattr(self, name), str):
                raise KzooError(f"{name} must be a text, got {getattr(self, name)!r}.")
        for name in ("content_layers", "style_layers"):
            value = getattr(self, name)
            if value is not None and not (
                isinstance(value, tuple) and value and all(isinstance(v, str) for v in value)
            ):
                raise KzooError(f"{name} must be names of layers, got {value!r}.")

        def pair(m):
            return isinstance(m, tuple) and len(m) == 2 and all(isinstance(p, (str, os.PathLike)) for p in m)

        if not (isinstance(self.masks, tuple) and all(map(pair, self.masks))):
            raise KzooError(f"masks must be pairs of paths, got {self.masks!r}.")
        object.__setattr__(self, "masks", tuple(tuple(map(os.fspath, pair)) for pair in self.masks))
        for name in ("layer_weights", "style_weights"):
            value = getattr(self, name)
            if value is not None and not (all(_is_number(v) and v >= 0 for v in value) and sum(value) > 0):
                raise KzooError(f"{name} must be numbers, 0 or above and not all 0; got {value!r}.")
        counts = self.evaluations if isinstance(self.evaluations, tuple) else (self.evaluations,)
        if not counts or not all(isinstance(n, int) and n > 0 for n in counts):
            raise KzooError(
                f"evaluations must be a whole number above 0, or one for each size; got {self.evaluations!r}."
            )
        if self.tile is not None and not (isinstance(self.tile, int) and self.tile > 0):
            raise KzooError(f"tile must be a number of pixels above 0, got {self.tile!r}.")

    @classmethod
    def of(cls, values):
        """From a dictionary, such as a PNG's; KzooError for what these settings don't have."""
        names = [f.name for f in fields(cls)]
        for key in values:
            if key not in names:
                raise unknown("setting", key, names, f"There are: {', '.join(names)}.")
        try:
            return cls(**values)
        except (TypeError, ValueError, OverflowError) as e:
            raise KzooError(f"These settings can't be used: {e}.") from e

    def sides(self, shape):
        """The longer sides of the sizes that a content picture goes through, coarse to fine.

        >>> Settings(size=512).sides((300, 400))
        (128, 181, 256, 362, 512)
        """
        found, side = [], float(self.size)

        def large(side):
            return side >= self.coarsest - 0.5 and min(pictures.fitted(shape, side)) >= pictures.SMALLEST

        while not found or (self.coarsest and large(side)):
            found.append(round(side))
            side /= math.sqrt(2)
        return tuple(reversed(found))


@dataclass(frozen=True)
class Result:
    """picture: (H, W, 3) uint8. record: what its PNG carries. history: a row for each step. path: the PNG, or None."""

    picture: np.ndarray
    record: dict
    history: list
    path: Path | None = None


def stylize(
    content,
    styles,
    *,
    out=None,
    settings=None,
    budget=None,
    save_every=None,
    resume=False,
    report=None,
    quiet=False,
    eyes=None,
    **changes,
):
    """Paint the content of one picture in the style of others (Gatys, Ecker and Bethge 2016).

    content, styles: paths, or arrays (H, W, 3) uint8; one style or a list.
    out: the PNG to write; it carries the settings. With `report` (default) also OUT-compare.png and OUT-loss.png.
    settings: a `Settings`; changes: its fields, in place of settings'.
    budget: seconds that all of it may take, in place of a number of evaluations.
    save_every: write the picture, and a state to resume from, each so many evaluations. resume: go on from that state,
        OUT.state, which Ctrl-C leaves as well; what comes out is the same as without the interruption.
    eyes: a dictionary that keeps compiled networks from call to call, for many pictures of one size.

    Returns a Result. Raises KzooError: pictures that can't be read, layers that don't exist, more memory needed than
    there is; Interrupted after Ctrl-C.

    >>> import kzoo, numpy as np
    >>> content, style = np.random.default_rng(0).integers(0, 256, (2, 40, 48, 3)).astype("uint8")
    >>> kzoo.stylize(content, style, weights="random", size=48, evaluations=2, quiet=True).picture.shape
    (40, 48, 3)
    """
    settings = settled(Settings.of({**asdict(settings or Settings()), **changes}), quiet)
    began = time.monotonic()  # a download is no part of the budget
    styles = list(styles) if isinstance(styles, (list, tuple)) else [styles]
    if out is not None:
        out = Path(out)
        if out.suffix.lower() != ".png":
            raise KzooError(
                f"The result is a PNG, which carries its settings: give out a name that ends in .png, not {out}."
            )
        if not out.parent.is_dir():
            raise KzooError(f"There is no folder {out.parent} to write {out.name} to.")
        check_writable(beside(out, "compare"))  # the longest name; now, not when hours of work are to be kept
        if out.is_dir():
            raise KzooError(f"{out} is a folder: give the name of a PNG.")
        inputs = [content, *styles, *(m for pair in settings.masks for m in pair), settings.init]
        if any(_name(p) is not None and os.path.realpath(p) == os.path.realpath(out) for p in inputs):
            raise KzooError(f"{out} is one of the pictures to read, and would be overwritten: give another out.")
    elif resume or save_every:
        raise KzooError("resume and save_every need out, the PNG to write.")
    if budget is not None and not budget > 0:
        raise KzooError(f"budget must be a number of seconds above 0, got {budget!r}.")
    job = Job(
        content, styles, settings, out, budget and began + budget, save_every, quiet, {} if eyes is None else eyes
    )
    kept = f"{job.state_path} is kept, and --resume goes on from there" if out else "nothing was written"
    with interruptible(kept) as interrupted, progress("evaluations", quiet) as bar:
        return job.run(interrupted, bar, resume, report is not False)


def settled(settings, quiet=False):
    """The settings with the weights that are to be had, and the model that they are for."""
    model, weights = settings.model, settings.weights
    if weights == "auto":
        tags = [w.tag for w in spec(model).weights]
        weights = "imagenet" if "imagenet" in tags or not tags else tags[0]
        try:
            fetch(resolve(model, weights), progress=False if quiet else None, single_attempt=model == Settings.model)
        except WeightsError as e:
            if model != Settings.model or settings.content_layers or settings.style_layers:
                raise
            weights = OFFLINE_STYLE[1]
            say(f"{e} Until then kzoo looks with its own small network (--weights {weights}).")
    return replace(settings, model=model_of(model, weights), weights=weights)


class Enough(Exception):
    """Within a step: Ctrl-C, or no time for one more evaluation. The optimiser is as it was before the step."""


class Job:
    """One picture on its way."""

    def __init__(self, content, styles, settings, out, deadline, save_every, quiet, eyes):
        self.settings, self.out, self.deadline, self.save_every = settings, out, deadline, save_every
        self.quiet, self.eyes = quiet, eyes
        self.names = [_name(content), [_name(s) for s in styles]]
        self.content, self.styles = _picture(content), [_picture(s) for s in styles]
        self.masks = [tuple(None if m == "-" else pictures.read(m) for m in pair) for pair in settings.masks]
        self.start = None if settings.init in ("content", "noise") else pictures.read(settings.init)
        if any(c is None for c, _ in self.masks):
            raise KzooError('A content mask must be a picture; only a style mask may be "-".')
        if self.masks and len(styles) > 1 and len(styles) != len(self.masks):
            raise KzooError(
                f"{len(styles)} styles need {len(styles)} masks, one for each; there are {len(self.masks)}."
            )
        if settings.style_weights is not None and len(settings.style_weights) != len(styles):
            raise KzooError(f"style_weights has {len(settings.style_weights)} numbers for {len(styles)} styles.")
        if settings.style_weights is not None and self.masks and len(styles) > 1:
            raise KzooError("With masks each region takes its own style, so style_weights say nothing: leave them out.")
        self.sides = settings.sides(self.content.shape)
        counts = settings.evaluations
        if isinstance(counts, tuple) and len(counts) != len(self.sides):  # as `like` has them, for another picture
            if not quiet:
                say(f"{len(counts)} numbers of evaluations, {len(self.sides)} sizes: {sum(counts)} are shared out.")
            counts = sum(counts)
        n = len(self.sides)
        self.quotas = (
            counts
            if isinstance(counts, tuple)
            else tuple(max(1, counts * (i + 1) // n - counts * i // n) for i in range(n))
        )
        if min(self.size(self.sides[-1])) < pictures.SMALLEST:
            height, width = self.size(self.sides[-1])
            raise DataError(
                f"At size {settings.size} the picture would be {width}x{height} pixels; at least "
                f"{pictures.SMALLEST} on each side are needed."
            )
        self.history, self.done, self.seconds, self.average = [], [], 0.0, None
        self.precision = None if settings.precision == "auto" else settings.precision

    @property
    def state_path(self):
        return self.out.with_suffix(".state")

    def size(self, side):
        return pictures.fitted(self.content.shape, side)

    def style_sizes(self, side):
        scaled = [pictures.fitted(p.shape, self.settings.style_scale * side) for p in self.styles]
        return [tuple(max(n, pictures.SMALLEST) for n in size) for size in scaled]

    # --- what the objective needs ---

    def eye(self):
        """The network, compiled, in the precision of the moment."""
        s = self.settings
        first = (
            pictures.resized(self.styles[0], pictures.fitted(self.styles[0].shape, 256))
            if s.weights == "random"
            else None
        )
        if self.precision is None:
            self.precision, why = auto_precision()
            if not self.quiet:
                say(f"Computing in {self.precision}: {why}.")
        key = (
            s.model,
            s.weights,
            s.content_layers,
            s.style_layers,
            s.pooling,
            s.padding,
            s.seed,
            s.tile,
            self.precision,
            None if first is None else first.tobytes(),
        )
        if key not in self.eyes:
            net = network(
                s.model,
                s.weights,
                content_layers=s.content_layers,
                style_layers=s.style_layers,
                pooling=s.pooling,
                padding=s.padding,
                precision=self.precision,
                seed=s.seed,
                picture=first,
            )
            if not self.quiet:
                for note in net.notes:
                    say(note)
            self.eyes[key] = Eye(net, s.tile)
        layers = self.eyes[key].network.style
        if s.layer_weights is not None and len(s.layer_weights) != len(layers):
            raise KzooError(
                f"layer_weights has {len(s.layer_weights)} numbers for the style layers {', '.join(layers)}."
            )
        return self.eyes[key]

    def objective(self, eye, side):
        s, size = self.settings, self.size(side)
        # The styles' colours are mapped at full size, so that every scale sees the same colours.
        content, styles = self.content, self.styles
        if s.preserve_color == "histogram":
            styles = [colour.matched(p, content) for p in styles]
        elif s.preserve_color == "luminance":
            content, styles = colour.luminance(content), [colour.luminance_matched(p, self.content) for p in styles]
        shapes = self.style_sizes(side)
        styles = [_batch(p, shape) for p, shape in zip(styles, shapes, strict=True)]
        weights, guides = s.style_weights, None
        if self.masks:
            guides = (
                _guide([c for c, _ in self.masks], size),
                [_guide([m for _, m in self.masks], shape) for shape in shapes],
            )
            if len(styles) > 1:  # region r takes its texture from style r
                weights = np.eye(len(styles))
        return Objective(
            eye,
            _batch(content, size),
            styles,
            style_weights=weights,
            content_weight=s.content_weight,
            style_weight=s.style_weight,
            tv_weight=s.tv_weight,
            range_weight=s.range_weight,
            layer_weights=s.layer_weights,
            guides=guides,
            balance=s.balance or ("gradient" if s.weights in ("random", OFFLINE_STYLE[1]) else "relative"),
        )

    def first(self):
        """Where the optimisation begins, at the coarsest size."""
        size = self.size(self.sides[0])
        if self.settings.init == "noise":
            return np.random.default_rng(self.settings.seed).normal(128, 32, (1, *size, 3)).astype("float32")
        picture = self.content if self.start is None else self.start
        return _batch(colour.luminance(picture) if self.settings.preserve_color == "luminance" else picture, size)

    # --- the way through the sizes ---

    def run(self, interrupted, bar, resume, report):
        self.interrupted = interrupted
        self.record = {"content": self.names[0], "styles": self.names[1], "fingerprint": self.fingerprint()}
        arrays = self.restore() if resume else None
        self.began = time.monotonic() - self.seconds
        eye, last = self.eye(), self.sides[-1]
        memory.check(eye, max([self.size(last), *self.style_sizes(last)], key=math.prod), self.precision)
        for k in range(len(self.done), len(self.sides)):
            self.paint(k, arrays, bar)
            arrays = None
        return self.finish(report)

    def paint(self, k, arrays, bar):
        """Size k, from what size k - 1 left or from a state's arrays: self.picture is what comes out."""
        side, size = self.sides[k], self.size(self.sides[k])
        began, self.until = time.monotonic(), None
        self.target = self.objective(self.eye(), side)
        if arrays:
            self.average = arrays.pop("average", None)
            optimiser = self.optimiser(arrays["x"])
            optimiser.restore(arrays)
        else:
            self.used = 0
            optimiser = self.optimiser(self.first() if k == 0 else _grown(self.picture, size))
        bar.start(f"{size[1]}x{size[0]}", None if self.deadline else self.quotas[k], self.used)
        while not self.is_over(k):
            before = self.used
            # A line search may take 20 evaluations. The first step is made whole: what it begins with is to be kept.
            self.breakable = optimiser.loss is not None
            try:
                moved = optimiser.step(self.evaluate)
            except Enough:
                self.used = before
                if not self.interrupted():
                    break
                self.save(optimiser, side)
                raise Interrupted("") from None  # said in full where the signal's number is known
            if self.deadline and self.until is None:
                self.until = self.finish_time(k, time.monotonic() - began)
            if not math.isfinite(optimiser.loss):
                raise KzooError(f"The loss became {optimiser.loss} at {side} pixels: try float32, or other weights.")
            self.note(optimiser, side, self.used - before, bar)
            if moved:
                self.smooth(optimiser.x)
            elif self.precision == "float32" or self.is_over(k):
                break  # as low as float32 can tell, or no time to compile another precision
            else:
                bar.done(f"{size[1]}x{size[0]}: {self.precision} shows no way down any more, going on in float32.")
                before_, self.precision = self.precision, "float32"
                self.target = self.objective(self.eye(), side)
                optimiser.forget()
                if self.is_over(k):  # compiling took the rest: without a step, later sizes go on as with `like`
                    self.precision = before_
            if self.interrupted():
                self.save(optimiser, side)
                raise Interrupted("")
            if self.save_every and self.used // self.save_every > before // self.save_every:
                self.save(optimiser, side)
        self.picture = self.smoothed(optimiser.x)
        self.average = None
        self.done.append(self.used)
        bar.done(f"{size[1]}x{size[0]}: {self.parts()}, {self.used} evaluations")

    def evaluate(self, x):
        """The objective of the moment, counted and timed."""
        if self.breakable and (self.interrupted() or self.is_late()):
            raise Enough
        start = time.monotonic()
        result = self.target(x)
        self.used, self.cost = self.used + 1, time.monotonic() - start
        return result

    def optimiser(self, x):
        s = self.settings
        return LBFGS(x) if s.optimizer == "lbfgs" else OPTIMISERS[s.optimizer](x, s.learning_rate)

    def finish_time(self, k, setup):
        """When size k has had its share of the budget, asked once it runs. An evaluation costs what its pixels cost.

        setup: seconds until now for targets and compilation, which the later sizes will need as well.
        """
        costs, now = [math.prod(self.size(side)) for side in self.sides[k:]], time.monotonic()
        left = self.deadline - RESERVE - now - setup * (len(costs) - 1)
        return now + left * costs[0] / sum(costs)

    def is_over(self, k):
        if self.deadline is None:
            return self.used >= self.quotas[k]
        return self.is_late()

    def is_late(self):
        """Whether one more evaluation would end after this size's share of the budget."""
        return self.until is not None and time.monotonic() + self.cost > self.until

    def note(self, optimiser, side, calls, bar):
        before = self.history[-1]["evaluations"] if self.history else 0
        self.history.append(
            {
                "size": side,
                "evaluations": before + calls,
                "loss": optimiser.loss,
                **optimiser.parts,
                "precision": self.precision,
                "seconds": round(time.monotonic() - self.began, 3),
            }
        )
        bar.advance(calls, loss=optimiser.loss, **optimiser.parts)

    def smooth(self, x):
        """The moving average of the iterates, and the weight that it has reached."""
        if self.settings.average:
            before = np.zeros((2, *x.shape), "float32") if self.average is None else self.average
            now = np.stack([x, np.ones_like(x)])
            self.average = np.float32(DECAY) * before + np.float32(1 - DECAY) * now

    def smoothed(self, x):
        return x if self.average is None else self.average[0] / self.average[1]

    def parts(self):
        row = self.history[-1]
        return ", ".join(f"{k} {row[k]:.4g}" for k in ("loss", "content", "style", "tv", "range") if k in row)

    # --- what is kept ---

    def fingerprint(self):
        """Of every picture that goes in, so that a state is never resumed with other ones."""
        state = hashlib.sha256()
        for p in [self.content, *self.styles, *(m for pair in self.masks for m in pair), self.start]:
            state.update(b"-" if p is None else str(p.shape).encode() + np.ascontiguousarray(p).tobytes())
        return state.hexdigest()[:16]

    def save(self, optimiser, side):
        """The picture as it is, and all that is needed to go on from here."""
        if self.out is None:
            return
        arrays = optimiser.state()
        if self.average is not None:
            arrays["average"] = self.average
        save_checkpoint(
            self.state_path,
            arrays,
            {
                **self.record,
                "settings": asdict(self.settings),
                "done": self.done,
                "used": self.used,
                "history": self.history,
                "precision": self.precision,
                "seconds": time.monotonic() - self.began,
            },
        )
        self.write(self.finished(self.smoothed(optimiser.x), side))

    def restore(self):
        if not self.state_path.is_file():
            raise KzooError(f"There is no {self.state_path} to go on from: start without --resume.")
        arrays, state = load_checkpoint(self.state_path)
        ours = {"fingerprint": self.record["fingerprint"], "settings": asdict(self.settings)}
        wrong = differences(ours, state, ("fingerprint", "settings"))
        if wrong:
            raise KzooError(f"{self.state_path} can't be resumed with other pictures or settings. {'; '.join(wrong)}.")
        self.done, self.used, self.history = state["done"], state["used"], state["history"]
        self.precision, self.seconds = state["precision"], state["seconds"]
        return arrays

    def finished(self, x, side):
        """(H, W, 3) uint8: with the content's colour back where it was left out."""
        if self.settings.preserve_color == "luminance":
            return pictures.as_uint8(
                colour.recoloured(x[0], np.clip(pictures.resized(self.content, self.size(side)), 0, 255))
            )
        return pictures.as_uint8(x[0])

    def write(self, picture):
        from kzoo import __version__

        # The evaluations that were made, so that a picture made in a time budget can be made again.
        made = (
            self.settings if len(self.done) < len(self.sides) else replace(self.settings, evaluations=tuple(self.done))
        )
        last = {k: v for k, v in self.history[-1].items() if k != "seconds"}
        self.record = {**self.record, "kzoo": __version__, "settings": asdict(made), "last": last}
        if self.out:
            pictures.write(self.out, picture, self.record)

    def finish(self, report):
        picture = self.finished(self.picture, self.sides[-1])
        self.write(picture)
        if self.out and report:
            pictures.side_by_side(beside(self.out, "compare"), [self.content, *self.styles, picture])
            pictures.loss_curve(beside(self.out, "loss"), self.history)
        if self.out:
            self.state_path.unlink(missing_ok=True)
        if self.deadline and self.history[-1]["evaluations"] <= len(self.sides):
            say("The time was enough for one step at each size, so this is nearly the start: give a longer --budget.")
        return Result(picture, self.record, self.history, self.out)


def beside(path, what):
    """out/a.png -> out/a-compare.png"""
    return path.with_name(f"{path.stem}-{what}.png")


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _name(picture):
    return os.fspath(picture) if isinstance(picture, (str, os.PathLike)) else None


def _picture(picture):
    if _name(picture) is not None:
        return pictures.read(picture)
    picture = np.asarray(picture)
    if picture.dtype != np.uint8:
        raise DataError(f"A picture must be a path or an array (height, width, 3) of uint8, got {picture.dtype}.")
    return pictures.checked(picture)


def _batch(picture, size):
    """(1, *size, 3) float32 in 0..255."""
    return np.clip(pictures.resized(picture, size), 0, 255)[None]


def _grown(x, size):
    return pictures.resized(x[0], size)[None]


def _guide(masks, size):
    """(H, W, R) float32 in 0..1 from R masks, pictures or None for everywhere."""

    def grey(m):
        return np.ones(size, "float32") if m is None else _batch(m, size)[0].mean(-1) / 255

    return np.stack([grey(m) for m in masks], -1)
