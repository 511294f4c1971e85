"""From pictures and settings to the styled picture: coarse to fine, within a time budget, resumable."""

from __future__ import annotations

import functools
import hashlib
import inspect
import io
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from numbers import Real
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np

from kzoo.catalog import spec
from kzoo.catalog.pretrained import OFFLINE_STYLE
from kzoo.errors import DataError, KzooError, WeightsError
from kzoo.files import check_writable
from kzoo.hardware import auto_precision
from kzoo.interrupt import Interrupted, interruptible
from kzoo.progress import progress, say
from kzoo.runs import differences, load_checkpoint, save_checkpoint
from kzoo.style import colour
from kzoo.style.network import model_of, style_network
from kzoo.style.settings import Settings
from kzoo.synthesis import pictures
from kzoo.synthesis.descent import Descent, StepAborted
from kzoo.synthesis.memory import check_memory
from kzoo.synthesis.objective import CompiledNetwork, StyleObjective
from kzoo.synthesis.optimise import LBFGS, OPTIMISERS, ArrayAdam
from kzoo.weights import fetch, resolve

DECAY = 0.95  # of the average of iterates
FIRST_STEP = 3  # evaluations that the first step of a size may take
RESERVE = 1.0  # seconds of a budget for writing the result
USUAL = Settings.style_weight / Settings.content_weight  # what the default balance gives
UNUSUAL = 10.0  # times more or less than that are said for published weights
# The Scream and The Starry Night on a photo of 192 pixels with VGG-19's first layers: 40 and 24 grey levels after 60
# evaluations, below 5 with a style weight that has no effect; 1.1 and more of the detail from 3 evaluations on, and
# 0.3 to 0.46 where the picture was enlarged from size to size, as it is where it begins with noise.
HARDLY = 5.0  # grey levels of mean change below which a picture is nearly the content
BLURRED = 0.5  # of the detail of the content or the style, whichever has less

Picture = str | os.PathLike | np.ndarray
P, R = ParamSpec("P"), TypeVar("R")


@dataclass(frozen=True)
class Result:
    """What `stylize` made.

    Args:
        picture: (H, W, 3) uint8.
        record: what the PNG carries: settings, inputs, the last losses, and two measures of the picture: "change", its
            mean difference from the content in grey levels, and "detail", the energy of its fine detail relative to
            that of the content or of the styles, whichever has least (None where that has none).
        history: a row for each step of the optimiser: size, evaluations, loss and its parts, precision, seconds.
        path: the PNG, or None.
    """

    picture: np.ndarray
    record: dict
    history: list
    path: Path | None = None

    def __repr__(self) -> str:
        height, width = self.picture.shape[:2]
        return f"<Result: {width} x {height} pixels, {f'in {self.path}' if self.path else 'not written'}>"

    def _repr_png_(self) -> bytes:
        """The picture, which a notebook shows."""
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(self.picture).save(buffer, "PNG")
        return buffer.getvalue()


def _filled_from_settings(function: Callable[P, R]) -> Callable[P, R]:
    """Give a function whose keywords include the fields of `Settings` those of its argument `settings`.

    Keywords of the call take precedence. The function itself never sees `settings`.
    """
    known = inspect.signature(function).parameters

    @functools.wraps(function)
    def call(*args, settings=None, **options):
        Settings.of({key: value for key, value in options.items() if key not in known})  # refuses what is unknown
        return function(*args, **{**(asdict(settings) if settings else {}), **options})

    return call


@_filled_from_settings
def stylize(
    content: Picture,
    styles: Picture | Sequence[Picture],
    *,
    out: str | os.PathLike | None = None,
    settings: Settings | None = None,
    budget: float | None = None,
    save_every: int | None = None,
    resume: bool = False,
    force: bool = False,
    report: bool | None = None,
    quiet: bool = False,
    networks: dict | None = None,
    model: str = "vgg19",
    weights: str = "auto",
    content_layers: tuple[str, ...] | None = None,
    style_layers: tuple[str, ...] | None = None,
    layer_weights: tuple[float, ...] | None = None,
    content_weight: float = 1.0,
    style_weight: float = 100.0,
    tv_weight: float = 0.0,
    range_weight: float = 1e-6,
    balance: str | None = None,
    style_weights: tuple[float, ...] | None = None,
    size: int = 512,
    style_scale: float = 1.0,
    coarsest: int = 128,
    evaluations: int | tuple[int, ...] = 300,
    optimizer: str = "lbfgs",
    learning_rate: float = 5.0,
    init: str = "content",
    start_noise: float = 4.0,
    seed: int = 0,
    pooling: str = "average",
    padding: str = "replicate",
    margin: int = 16,
    preserve_color: str = "none",
    masks: tuple[tuple[str, str], ...] = (),
    average: bool = False,
    tile: int | None = None,
    precision: str = "auto",
) -> Result:
    """Paint the content of one picture in the style of others (Gatys, Ecker and Bethge 2016).

    The options that are not listed here are the fields of `kzoo.style.Settings`, which describes them.

    Args:
        content: a path, or an array (H, W, 3) uint8.
        styles: one style or a list, each a path or an array.
        out: the PNG or JPEG to write; it carries the settings. None: nothing is written. Nothing that exists is
            replaced without `force`.
        settings: a `Settings` in place of the defaults; keywords that are given as well take precedence.
        budget: seconds that all of it may take, in place of a number of evaluations. A download does not count.
        save_every: write the picture, and a state to resume from, each so many evaluations.
        resume: continue from that state, OUT.state, which Ctrl-C leaves as well; the result is the same as without the
            interruption.
        force: replace a picture of that name, and a state to resume from.
        report: write OUT-compare.png and OUT-loss.png as well; None: yes.
        quiet: no progress and no messages.
        networks: a dictionary that keeps compiled networks from call to call, for many pictures.

    Returns:
        A Result.

    Raises:
        KzooError: pictures that can't be read, layers that don't exist, more memory needed than there is.
        Interrupted: after Ctrl-C.

    Example:
        >>> import kzoo, numpy as np
        >>> content, style = np.random.default_rng(0).integers(0, 256, (2, 40, 48, 3)).astype("uint8")
        >>> kzoo.stylize(content, style, weights="random", size=48, evaluations=2, quiet=True).picture.shape
        (40, 48, 3)

    Reference:
        Gatys, Ecker and Bethge 2016 (CVPR). Departures: replicated borders at convolutions, sizes from coarse to fine,
        terms relative to their size (`balance`), a penalty for pixels outside 0..255, a margin that is cut off, a
        little noise to begin with.
    """
    given = locals()
    asked = Settings.of({f.name: given[f.name] for f in fields(Settings)})
    chosen = with_weights(asked, quiet)
    began = time.monotonic()  # a download is not part of the budget
    styles = list(styles) if isinstance(styles, (list, tuple)) else [styles]
    if not styles:
        raise KzooError("styles is empty: give at least one style picture.")
    if out is not None:
        inputs = [content, *styles, *(m for pair in chosen.masks for m in pair), chosen.init]
        out = _checked_out(Path(out), inputs, replace_it=force or resume, with_report=report is not False)
    elif resume or save_every:
        raise KzooError("resume and save_every need out, the PNG to write.")
    if budget is not None and not (isinstance(budget, Real) and 0 < budget < math.inf):
        raise KzooError(f"budget must be a number of seconds above 0, got {budget!r}.")
    transfer = StyleTransfer(
        content,
        styles,
        chosen,
        out=out,
        deadline=budget and began + budget,
        save_every=save_every,
        quiet=quiet,
        networks=networks,
    )
    kept = f"{transfer.state_path} is kept, and --resume continues from there" if out else "nothing was written"
    with interruptible(kept) as interrupted, progress("evaluations", quiet) as bar:
        return transfer.run(interrupted, bar, resume=resume, report=report is not False)


def _checked_out(out, inputs, replace_it, with_report):
    """The path of the result; KzooError, before any work, if it can't be written, is an input, or is there already."""
    if out.suffix.lower() not in pictures.SUFFIXES:
        raise KzooError(
            f"The result is a PNG or a JPEG, which carry its settings: give out a name that ends in "
            f"{' or '.join(pictures.SUFFIXES)}, not {out}."
        )
    if not out.parent.is_dir():
        raise KzooError(f"There is no folder {out.parent} to write {out.name} to.")
    check_writable(beside(out, "compare"))  # the longest name
    if out.is_dir():
        raise KzooError(f"{out} is a folder: give the name of a PNG.")
    if any(_name(p) is not None and os.path.realpath(p) == os.path.realpath(out) for p in inputs):
        raise KzooError(f"{out} is one of the pictures to read, and would be overwritten: give another out.")
    if not replace_it:
        refuse_to_replace(out, with_report)
    return out


def refuse_to_replace(out: Path, with_report: bool) -> None:
    """Raise a KzooError if a picture, its report or a state to resume from would be replaced.

    Args:
        out: the picture to write.
        with_report: whether OUT-compare.png and OUT-loss.png are written, too.
    """
    state = out.with_suffix(".state")
    if state.exists():
        raise KzooError(
            f"{state} is there to go on from: --resume (resume=True) does, --force (force=True) starts again."
        )
    for path in (out, *((beside(out, "compare"), beside(out, "loss")) if with_report else ())):
        if os.path.lexists(path):
            raise KzooError(f"{path} exists: --force (force=True) replaces it, or give another --out.")


def with_weights(settings: Settings, quiet: bool = False) -> Settings:
    """Replace the weights "auto" by those that are available, and the model by the one that the weights are for.

    Args:
        settings: as asked for.
        quiet: no progress of a download.

    Returns:
        The settings with weights and model as they are used.

    Raises:
        WeightsError: "auto" can't be downloaded, and kzoo's own weights don't fit the model or the layers.
    """
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
            say(f"{e} Until then kzoo uses its own small network (--weights {weights}).")
    return replace(settings, model=model_of(model, weights), weights=weights)


class StyleTransfer:
    """The optimisation of one picture, through its sizes from coarse to fine. Use it once: `run`.

    Args:
        content: a path, or an array (H, W, 3) uint8.
        styles: a list of such.
        settings: with weights that are available (`with_weights`).
        out: the PNG to write; None: nothing is written.
        deadline: on the clock of time.monotonic; None: the settings' evaluations count.
        save_every: evaluations between two states; None: a state is saved only after Ctrl-C.
        quiet: no messages.
        networks: a dictionary that keeps compiled networks; None: a new one.

    Raises:
        KzooError: pictures that can't be read, masks or weights that don't fit the styles, a result that is too small.
    """

    def __init__(
        self,
        content: Picture,
        styles: Sequence[Picture],
        settings: Settings,
        *,
        out: Path | None = None,
        deadline: float | None = None,
        save_every: int | None = None,
        quiet: bool = False,
        networks: dict | None = None,
    ):
        self.settings, self.out, self.deadline, self.save_every = settings, out, deadline, save_every
        self.quiet, self.networks = quiet, {} if networks is None else networks
        self.content, self.styles = pictures.given(content), [pictures.given(s) for s in styles]
        self.masks = [tuple(None if m == "-" else pictures.read_picture(m) for m in pair) for pair in settings.masks]
        self.start = None if settings.init in ("content", "noise") else pictures.read_picture(settings.init)
        if any(c is None for c, _ in self.masks):
            raise KzooError('A content mask must be a picture; only a style mask may be "-".')
        if self.masks and len(styles) > 1 and len(styles) != len(self.masks):
            raise KzooError(
                f"{len(styles)} styles need {len(styles)} masks, one for each; there are {len(self.masks)}."
            )
        if settings.style_weights is not None and len(settings.style_weights) != len(styles):
            raise KzooError(f"style_weights has {len(settings.style_weights)} numbers for {len(styles)} styles.")
        if settings.style_weights is not None and self.masks and len(styles) > 1:
            raise KzooError(
                "With masks each region has its own style, so style_weights have no effect: leave them out."
            )
        if settings.preserve_color == "histogram" and not quiet:
            hueless = [_name(s) or "The style" for s, p in zip(styles, self.styles, strict=True) if colour.one_hue(p)]
            if hueless:
                say(
                    f"{hueless[0]} is grey or of one hue, so it can't be given the content's colours, and most of them "
                    "are lost: use --preserve-color luminance."
                )
        self.sides = settings.sides(self.content.shape)
        counts = settings.evaluations
        if isinstance(counts, tuple) and len(counts) != len(self.sides):  # as `like` has them, for another picture
            if not quiet:
                say(f"{len(counts)} numbers of evaluations, {len(self.sides)} sizes: {sum(counts)} are shared out.")
            counts = sum(counts)
        if not isinstance(counts, tuple) and deadline is None:  # a first step needs about so many
            self.sides = self.sides[-max(1, counts // FIRST_STEP) :]
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
        self.record = {"content": _name(content), "styles": [_name(s) for s in styles]}
        self.record["fingerprint"] = self.fingerprint()
        self.precision = None if settings.precision == "auto" else settings.precision
        self.began = time.monotonic()
        self.told = False  # whether the balance was looked at
        self.history: list[dict] = []  # a row for each step
        self.done: list[int] = []  # evaluations of each size that is finished
        # Of the size that is being optimised: the evaluations of an earlier process, the average iterate.
        self.used, self.average = 0, None

    @property
    def state_path(self) -> Path:
        """The file to resume from, OUT.state."""
        return self.out.with_suffix(".state")

    def size(self, side: float) -> tuple[int, int]:
        """(height, width) of the result at a longer side."""
        return pictures.fitted(self.content.shape, side)

    def canvas(self, side: float) -> tuple[int, int]:
        """(height, width) of what is optimised at a longer side: the result and its margin."""
        return tuple(n + 2 * self.settings.margin for n in self.size(side))

    def framed(self, x: np.ndarray) -> np.ndarray:
        """x (1, h, w, C) of the result's size, with its margin, mirrored."""
        m = self.settings.margin
        return np.pad(x, ((0, 0), (m, m), (m, m), (0, 0)), "reflect")

    def inside(self, x: np.ndarray) -> np.ndarray:
        """x (1, h, w, C) without its margin."""
        m = self.settings.margin
        return x[:, m : x.shape[1] - m, m : x.shape[2] - m]

    def style_sizes(self, side: float) -> list[tuple[int, int]]:
        """(height, width) of each style where the result has a longer side."""
        scaled = [pictures.fitted(p.shape, self.settings.style_scale * side) for p in self.styles]
        return [tuple(max(n, pictures.SMALLEST) for n in size) for size in scaled]

    # --- the objective ---

    def compiled(self) -> CompiledNetwork:
        """The network, compiled in the current precision, from `networks` if it is there."""
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
        if key not in self.networks:
            network, notes = style_network(
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
                for note in notes:
                    say(note)
            self.networks[key] = CompiledNetwork(network, s.tile)
        layers = self.networks[key].network.style
        if s.layer_weights is not None and len(s.layer_weights) != len(layers):
            raise KzooError(
                f"layer_weights has {len(s.layer_weights)} numbers for the style layers {', '.join(layers)}."
            )
        return self.networks[key]

    def objective(self, side: int) -> StyleObjective:
        """The objective at a size, in the current precision."""
        s, size = self.settings, self.size(side)
        # The styles' colours are mapped at full size, so that they are the same at every size.
        content, styles = self.content, self.styles
        if s.preserve_color == "histogram":
            styles = [colour.matched(p, content) for p in styles]
        elif s.preserve_color == "luminance":
            content, styles = colour.luminance(content), [colour.luminance_matched(p, self.content) for p in styles]
        shapes = self.style_sizes(side)
        styles = [pictures.batch(p, shape) for p, shape in zip(styles, shapes, strict=True)]
        weights, guides = s.style_weights, None
        if self.masks:
            guides = (
                self.framed(_guide([c for c, _ in self.masks], size)[None])[0],
                [_guide([m for _, m in self.masks], shape) for shape in shapes],
            )
            if len(styles) > 1:  # region r takes its texture from style r
                weights = np.eye(len(styles))
        return StyleObjective(
            self.compiled(),
            self.framed(pictures.batch(content, size)),
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

    def begun_with(self, size: tuple[int, int]) -> np.ndarray | None:
        """The picture that the optimisation begins with, (1, h, w, 3) of a size; None where it begins with noise."""
        if self.settings.init == "noise":
            return None
        picture = self.content if self.start is None else self.start
        return pictures.batch(
            colour.luminance(picture) if self.settings.preserve_color == "luminance" else picture, size
        )

    def first(self) -> np.ndarray:
        """Where the optimisation begins, (1, h, w, 3) of the coarsest size and with the margin."""
        s, side = self.settings, self.sides[0]
        picture, shape = self.begun_with(self.size(side)), (1, *self.canvas(side), 3)
        rng = np.random.default_rng(s.seed)
        if picture is None:
            return rng.normal(128, 32, shape).astype("float32")
        noise = rng.normal(0, s.start_noise if s.init == "content" else 0, shape)
        return self.framed(picture) + noise.astype("float32")

    def grown(self, x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """x at the next size, both with their margin: its change is enlarged, so the start's fine detail is not lost.

        Args:
            x: (1, h, w, 3).
            size: (height, width) of the next size, without the margin.
        """
        x = self.inside(x)
        before, after = self.begun_with(x.shape[1:3]), self.begun_with(size)
        if before is None or after is None:
            return self.framed(pictures.resized(x[0], size)[None])
        return self.framed(after + pictures.resized((x - before)[0], size)[None])

    # --- from size to size ---

    def run(self, interrupted: Callable[[], bool], bar: Any, *, resume: bool = False, report: bool = True) -> Result:
        """Optimise the picture at all sizes and write it.

        Args:
            interrupted: asked often; whether to save a state and stop.
            bar: shows progress, see `kzoo.progress`.
            resume: begin with the saved state.
            report: write the comparison and the loss curve as well.

        Raises:
            Interrupted: once a state is saved.
            KzooError: a state that does not fit, too little memory, a loss that is not finite.
        """
        arrays = self.restore() if resume else None
        compiled, last = self.compiled(), self.sides[-1]
        canvas = self.canvas(last)
        largest = max([canvas, *self.style_sizes(last)], key=math.prod)
        margin = self.settings.margin if largest == canvas else 0
        check_memory(compiled, largest, self.precision, margin=margin)
        x = None
        for k in range(len(self.done), len(self.sides)):
            x = self.optimise(k, x, arrays, interrupted, bar)
            arrays = None
        return self.finish(x, report)

    def optimise(
        self, k: int, x: np.ndarray | None, arrays: dict | None, interrupted: Callable[[], bool], bar: Any
    ) -> np.ndarray:
        """Optimise the picture at size k.

        Args:
            k: the number of the size.
            x: the picture of size k - 1, (1, h, w, 3) with its margin; not needed for size 0 or with `arrays`.
            arrays: those of a saved state, or None.
            interrupted, bar: as in `run`.

        Returns:
            The picture of size k, (1, H, W, 3) float32, with its margin.
        """
        side, size = self.sides[k], self.size(self.sides[k])
        began = time.monotonic()
        objective = self.objective(side)
        if not self.told:
            self.told = True
            self.tell_balance(objective, side)
        if arrays:
            self.average = arrays.pop("average", None)
            optimiser = self.optimiser(arrays["x"])
            optimiser.restore(arrays)
        else:
            self.used = 0
            optimiser = self.optimiser(self.first() if k == 0 else self.grown(x, size))
        descent = Descent(
            optimiser,
            objective,
            evaluations=None if self.deadline else self.quotas[k],
            interrupted=interrupted,
            used=self.used,
        )
        bar.start(f"{size[1]}x{size[0]}", descent.evaluations, descent.used)
        while not descent.is_over():
            before = descent.used
            try:
                moved = descent.step()
            except StepAborted:
                if not interrupted():
                    break
                self.save(descent, side)
                raise Interrupted("") from None  # the message is made where the signal's number is known
            if self.deadline and descent.until is None:
                descent.until = self.finish_time(k, time.monotonic() - began)
            if not math.isfinite(optimiser.loss):
                raise KzooError(f"The loss became {optimiser.loss} at {side} pixels: try float32, or other weights.")
            self.note(optimiser, side, descent.used - before, bar)
            if moved:
                self.update_average(optimiser.x)
            elif self.precision == "float32" or descent.is_over():
                break  # as low as float32 can go, or no time to compile another precision
            else:
                bar.done(f"{size[1]}x{size[0]}: line search failed in {self.precision}, continuing in float32.")
                previous, self.precision = self.precision, "float32"
                descent.objective = self.objective(side)
                optimiser.forget()
                if descent.is_over():  # compiling took the rest: without a step, later sizes go on as with `like`
                    self.precision = previous
            if interrupted():
                self.save(descent, side)
                raise Interrupted("")
            if self.save_every and descent.used // self.save_every > before // self.save_every:
                self.save(descent, side)
        result = self.averaged(optimiser.x)
        self.average = None
        self.done.append(descent.used)
        bar.done(f"{size[1]}x{size[0]}: {self.parts()}, {descent.used} evaluations")
        return result

    def optimiser(self, x: np.ndarray) -> LBFGS | ArrayAdam:
        """A new optimiser that begins with x."""
        s = self.settings
        return LBFGS(x) if s.optimizer == "lbfgs" else OPTIMISERS[s.optimizer](x, s.learning_rate)

    def finish_time(self, k: int, setup: float) -> float:
        """When to stop size k, so that each size has its share of the budget: an evaluation costs what its pixels cost.

        Args:
            k: the number of the size; it has made its first step.
            setup: seconds until now for targets and compilation, which the later sizes will need as well.

        Returns:
            A time on the clock of time.monotonic.
        """
        costs, now = [math.prod(self.canvas(side)) for side in self.sides[k:]], time.monotonic()
        left = self.deadline - RESERVE - now - setup * (len(costs) - 1)
        return now + left * costs[0] / sum(costs)

    def note(self, optimiser: LBFGS | ArrayAdam, side: int, evaluations: int, bar: Any) -> None:
        """Add a row to the history."""
        before = self.history[-1]["evaluations"] if self.history else 0
        self.history.append(
            {
                "size": side,
                "evaluations": before + evaluations,
                "loss": optimiser.loss,
                **optimiser.parts,
                "precision": self.precision,
                "seconds": round(time.monotonic() - self.began, 3),
            }
        )
        bar.advance(evaluations, loss=optimiser.loss, **optimiser.parts)

    def update_average(self, x: np.ndarray) -> None:
        """Update the moving average of the iterates, and the sum of its weights, if the settings ask for it."""
        if self.settings.average:
            before = np.zeros((2, *x.shape), "float32") if self.average is None else self.average
            now = np.stack([x, np.ones_like(x)])
            self.average = np.float32(DECAY) * before + np.float32(1 - DECAY) * now

    def averaged(self, x: np.ndarray) -> np.ndarray:
        """The moving average of the iterates, or x if there is none."""
        return x if self.average is None else self.average[0] / self.average[1]

    def parts(self) -> str:
        """The last loss and its parts, for a message."""
        row = self.history[-1]
        return ", ".join(f"{k} {row[k]:.4g}" for k in ("loss", "content", "style", "tv", "range") if k in row)

    # --- files ---

    def fingerprint(self) -> str:
        """A hash of all input pictures, so that a state is never resumed with other ones."""
        state = hashlib.sha256()
        for p in [self.content, *self.styles, *(m for pair in self.masks for m in pair), self.start]:
            state.update(b"-" if p is None else str(p.shape).encode() + np.ascontiguousarray(p).tobytes())
        return state.hexdigest()[:16]

    def save(self, descent: Descent, side: int) -> None:
        """Write the picture as it is, and all that `restore` needs."""
        if self.out is None:
            return
        arrays = descent.optimiser.state()
        if self.average is not None:
            arrays["average"] = self.average
        save_checkpoint(
            self.state_path,
            arrays,
            {
                **self.record,
                "settings": asdict(self.settings),
                "done": self.done,
                "used": descent.used,
                "history": self.history,
                "precision": self.precision,
                "seconds": time.monotonic() - self.began,
            },
        )
        self.write(self.finished(self.averaged(descent.optimiser.x), side))

    def restore(self) -> dict[str, np.ndarray]:
        """Read the state that `save` wrote; the arrays of the optimiser. KzooError if it does not fit."""
        if not self.state_path.is_file():
            raise KzooError(f"There is no {self.state_path} to go on from: start without --resume.")
        arrays, state = load_checkpoint(self.state_path)
        ours = {"fingerprint": self.record["fingerprint"], "settings": asdict(self.settings)}
        wrong = differences(ours, state, ("fingerprint", "settings"))
        if wrong:
            raise KzooError(f"{self.state_path} can't be resumed with other pictures or settings. {'; '.join(wrong)}.")
        self.done, self.used, self.history = state["done"], state["used"], state["history"]
        self.precision, self.began = state["precision"], time.monotonic() - state["seconds"]
        return arrays

    def finished(self, x: np.ndarray, side: int) -> np.ndarray:
        """(H, W, 3) uint8 of x without its margin, with the content's colour where only the luminance was optimised."""
        x = self.inside(x)
        if self.settings.preserve_color == "luminance":
            return pictures.to_uint8(
                colour.recoloured(x[0], np.clip(pictures.resized(self.content, self.size(side)), 0, 255))
            )
        return pictures.to_uint8(x[0])

    def write(self, picture: np.ndarray) -> None:
        """Write the PNG with its record."""
        from kzoo import __version__

        # The evaluations that were made, so that a picture made in a time budget can be made again.
        made = (
            self.settings if len(self.done) < len(self.sides) else replace(self.settings, evaluations=tuple(self.done))
        )
        last = {k: v for k, v in self.history[-1].items() if k != "seconds"}
        self.record = {**self.record, "kzoo": __version__, "settings": asdict(made), "last": last}
        if self.out:
            pictures.write_picture(self.out, picture, self.record)

    # --- what a picture may silently be ---

    def tell_balance(self, objective: StyleObjective, side: int) -> None:
        """Say if published weights weigh style and content by far otherwise than the default balance does."""
        s = self.settings
        if s.balance != "paper" or objective.relative_weight is None or self.quiet:
            return
        # The content term grows with its positions, the style term does not.
        pixels = [math.prod(self.canvas(n)) for n in (side, self.sides[-1])]
        share = objective.relative_weight * pixels[0] / pixels[1]
        if not USUAL / UNUSUAL <= share <= USUAL * UNUSUAL:
            wanted = f"{s.style_weight * USUAL / share:.2g}"
            say(
                f"With --balance paper, --style-weight {s.style_weight:g} weighs the style {share:.2g} times the "
                f"content for these features; the default balance gives {USUAL:g}. --style-weight {wanted} is as much."
            )

    def measure(self, picture: np.ndarray) -> dict[str, float | None]:
        """The two measures of a finished picture that its record has, see `Result`."""
        content = np.clip(pictures.resized(self.content, picture.shape[:2]), 0, 255)
        sizes = self.style_sizes(self.sides[-1])
        styles = [pictures.batch(p, size)[0] for p, size in zip(self.styles, sizes, strict=True)]
        least = min(map(pictures.detail, [content, *styles]))
        return {
            "change": pictures.mean_change(picture, content),
            "detail": pictures.detail(picture) / least if least else None,
        }

    def tell_measures(self) -> None:
        """Say if the picture is nearly the content, or blurred because the evaluations were few."""
        s, more = self.settings, "a longer --budget" if self.deadline else "more --evaluations"
        change, detail = self.record["change"], self.record["detail"]
        if change < HARDLY and s.style_weight:
            say(
                f"The picture hardly differs from the content, by {change:.2g} grey levels on average: give a larger "
                f"--style-weight than {s.style_weight:g}, or {more}."
            )
        if detail is not None and detail < BLURRED and not s.tv_weight:
            say(
                f"The picture is blurred: it has {detail:.0%} of the fine detail of the content or the style, "
                f"whichever has less. {self.done[-1]} evaluations at the last size are too few: give {more}."
            )

    def finish(self, x: np.ndarray, report: bool) -> Result:
        """Write the result and remove the state."""
        picture = self.finished(x, self.sides[-1])
        self.record.update(self.measure(picture))
        self.write(picture)
        if self.out and report:
            pictures.side_by_side(beside(self.out, "compare"), [self.content, *self.styles, picture])
            pictures.loss_curve(beside(self.out, "loss"), self.history)
        if self.out:
            self.state_path.unlink(missing_ok=True)
        if self.deadline and self.history[-1]["evaluations"] <= len(self.sides):
            say("The time was enough for one step at each size, so this is nearly the start: give a longer --budget.")
        elif not self.quiet:
            self.tell_measures()
        return Result(picture, self.record, self.history, self.out)


def beside(path: Path, what: str) -> Path:
    """The path of a file that belongs to a result.

    Example:
        >>> str(beside(Path("a.png"), "compare"))
        'a-compare.png'
    """
    return path.with_name(f"{path.stem}-{what}.png")


def _name(picture):
    return os.fspath(picture) if isinstance(picture, (str, os.PathLike)) else None


def _guide(masks, size):
    """(H, W, R) float32 in 0..1 from R masks, pictures or None for everywhere."""

    def grey(m):
        return np.ones(size, "float32") if m is None else pictures.batch(m, size)[0].mean(-1) / 255

    return np.stack([grey(m) for m in masks], -1)
