"""The options of style transfer and of stylenets, checked before any work."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from kzoo.catalog import image_spec, spec
from kzoo.catalog.pretrained import OFFLINE_STYLE
from kzoo.checks import check_count, check_precision, check_seed
from kzoo.data.guards import shown
from kzoo.errors import KzooError, unknown
from kzoo.style import colour
from kzoo.synthesis import pictures
from kzoo.synthesis.network import PADDING, POOLING
from kzoo.synthesis.objective import BALANCES
from kzoo.synthesis.optimise import OPTIMISERS

# The most that the record of a picture may ask for.
RECORDED = {
    "evaluations": 20_000,
    "size": 8192,
    "size times style_scale": 16384,
    "seed": 2**31 - 1,
    "number of masks": 64,
    "margin": 256,
}
MOST = 1e15  # of a weight: squares of gradients become infinite
STYLE_TAGS = (OFFLINE_STYLE[1],)  # kzoo's own weights, also where the model is VGG-19
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Settings:
    """All options of style transfer that, with the pictures, decide the result. The PNG of a result carries them.

    Args:
        model: a name of the catalog.
        weights: "imagenet", a path, "cifar10" (kzoo's own small VGG, in the package), or "random" (random filters
            respond to colours and strokes, but not to objects). "auto": imagenet, downloaded once; where it can't be
            had, kzoo's own, with a message. The PNG of a result has what was used.
        content_layers, style_layers: names of layers; None: the paper's, and of kzoo's own weights
            `kzoo.style.network.OWN_CONTENT`.
        layer_weights: w_l, one for each style layer; None: equal.
        content_weight, style_weight, tv_weight: see `kzoo.synthesis.objective.StyleObjective`.
        range_weight: of pixels outside 0..255. A file would cut them off, which changes the Gram matrices; 0 is the
            paper's.
        balance: "relative", "gradient" or "paper", see `StyleObjective`. None: "relative", and for random weights and
            kzoo's own "gradient", which brings them nearer to the Gram matrices of VGG-19.
        style_weights: one for each style; None: equal.
        size: the longer side of the result in pixels.
        style_scale: the longer side of the styles relative to `size`.
        coarsest: the longer side to begin with, in pixels; sizes grow by sqrt(2) from there. 0 begins at `size`.
        evaluations: how many of loss and gradient, divided equally between the sizes, or a tuple with those of each.
        optimizer: "lbfgs" or "adam".
        learning_rate: Adam's, in grey levels.
        init: what to begin with: "content", "noise" or the path of a picture.
        start_noise: the standard deviation, in grey levels, of noise on the content that is begun with; 0: none. In a
            flat sky every pixel has the same gradient, and without noise a hatch of period 2 arises.
        seed: of the noise and of random weights.
        pooling: "average" or "max".
        padding: "replicate" or "zeros".
        margin: how many pixels around the picture, mirrored, are painted as well and cut off at the end. The outermost
            pixels count more often than others, and on flat content a frame grew there.
        preserve_color: "none", "luminance" or "histogram" (the style first gets the content's colours).
        masks: pairs of paths (content mask, style mask or "-" for all of it), white where the region is. With several
            styles there is one pair for each; with one style, any number.
        average: whether the result is the average of the iterates, in place of the last.
        tile: compute in tiles of so many pixels; None: in one piece.
        precision: "float32", "bfloat16", or "auto": what this machine is fast in.

    Raises:
        KzooError: a value that can't be used; UnknownName for a word that is not one of those above.
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
    start_noise: float = 4.0
    seed: int = 0
    pooling: str = "average"
    padding: str = "replicate"
    margin: int = 16
    preserve_color: str = "none"
    masks: tuple[tuple[str, str], ...] = ()
    average: bool = False
    tile: int | None = None
    precision: str = "auto"

    def __post_init__(self):
        for name in ("model", "weights", "init", "pooling", "padding"):
            if not isinstance(getattr(self, name), str):
                raise KzooError(f"{name} must be a text, got {getattr(self, name)!r}.")
        for name, known in (
            ("optimizer", OPTIMISERS),
            ("pooling", POOLING),
            ("padding", PADDING),
            ("preserve_color", colour.MODES),
            ("balance", (*BALANCES, None)),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in known:
                raise unknown(
                    name, getattr(self, name), [k for k in known if k], f"Known are {', '.join(filter(None, known))}."
                )
        _check_numbers(self, ("size", "style_scale", "learning_rate"), above=True)
        weights = ("content_weight", "style_weight", "tv_weight", "range_weight")
        _check_numbers(self, (*weights, "start_noise", "coarsest", "margin", "seed"))
        if self.start_noise > 255:
            raise KzooError(f"start_noise must be at most 255 grey levels, got {self.start_noise!r}.")
        for name in ("content_layers", "style_layers", "layer_weights", "style_weights", "masks", "evaluations"):
            value = getattr(self, name)  # JSON gives lists back
            if isinstance(value, (list, tuple)):
                object.__setattr__(self, name, tuple(tuple(v) if isinstance(v, list) else v for v in value))
        for name in ("size", "coarsest", "margin", "seed"):
            if not isinstance(getattr(self, name), int):
                raise KzooError(f"{name} must be a whole number, got {getattr(self, name)!r}.")
        _check_layers(self)

        def pair(m):
            return isinstance(m, tuple) and len(m) == 2 and all(isinstance(p, (str, os.PathLike)) for p in m)

        if not (isinstance(self.masks, tuple) and all(map(pair, self.masks))):
            raise KzooError(f"masks must be pairs of paths, got {self.masks!r}.")
        object.__setattr__(self, "masks", tuple(tuple(map(os.fspath, pair)) for pair in self.masks))
        for name in ("layer_weights", "style_weights"):
            value = getattr(self, name)
            if value is not None and not (all(_is_number(v) and 0 <= v <= MOST for v in value) and sum(value) > 0):
                raise KzooError(f"{name} must be numbers from 0 to {MOST:g} and not all 0; got {value!r}.")
        counts = self.evaluations if isinstance(self.evaluations, tuple) else (self.evaluations,)
        if not counts or not all(isinstance(n, int) and n > 0 for n in counts):
            raise KzooError(
                f"evaluations must be a whole number above 0, or one for each size; got {self.evaluations!r}."
            )
        if self.tile is not None and not (isinstance(self.tile, int) and self.tile > 0):
            raise KzooError(f"tile must be a number of pixels above 0, got {self.tile!r}.")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Settings:
        """Make settings from a dictionary, such as that of a PNG.

        Raises:
            KzooError: a key that is not a setting, or a value that can't be used.
        """
        names = [f.name for f in fields(cls)]
        for key in values:
            if key not in names:
                raise unknown("setting", key, names, f"There are: {', '.join(names)}.")
        try:
            return cls(**values)
        except (TypeError, ValueError, OverflowError) as e:
            raise KzooError(f"These settings can't be used: {e}.") from e

    @classmethod
    def recorded(cls, values: Mapping[str, Any], given: Collection[str] = ()) -> Settings:
        """Make settings from the record in a picture, which may come from anyone.

        Args:
            values: as in `of`.
            given: names of the options that the user gives, and that count in place of the record's.

        Raises:
            KzooError: as `of`; also weights that are a path or an address, and numbers that would take hours or all
                memory.
        """
        settings = cls.of(values)
        tags = {"auto", "random", *(w.tag for w in spec(settings.model).weights), *STYLE_TAGS}
        if settings.weights not in tags and "weights" not in given:
            raise KzooError(
                f"The picture names the weights '{shown(settings.weights)[:80]}', a file or an address, which is not "
                "opened because a picture says so: give them by --weights if you mean them."
            )
        counts = settings.evaluations if isinstance(settings.evaluations, tuple) else (settings.evaluations,)
        given = {*given}
        for name, value in (
            ("evaluations", sum(counts)),
            ("size", settings.size),
            ("size times style_scale", settings.size * settings.style_scale),
            ("seed", settings.seed),
            ("number of masks", len(settings.masks)),
            ("margin", settings.margin),
        ):
            if value > RECORDED[name] and not given & {*name.split()}:
                raise KzooError(
                    f"The picture asks for {name} {str(value)[:24]}; at most {RECORDED[name]:,} are taken. "
                    "Give the option yourself if you mean it."
                )
        return settings

    def sides(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The longer sides of the sizes that a content picture is optimised at, coarse to fine.

        Args:
            shape: (height, width, ...) of the content picture.

        Returns:
            Pixels, growing by sqrt(2) up to `size`.

        Example:
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
class StylenetOptions:
    """The options of `kzoo.train_stylenet` that decide its result; config.json holds them.

    Args:
        size: the side of the training pictures in pixels, a multiple of 4 and at least 64.
        style_size: the shorter side of the style pictures in pixels, at least 64; None: three times `size`, or the
            smallest picture's own if that is less.
        steps: of the optimiser.
        batch_size: pictures in a step.
        width: filters of the first convolution.
        blocks: residual blocks.
        content_weight, style_weight, tv_weight, range_weight: of the terms of `kzoo.style.stylenet.PerceptualLoss`;
            more style_weight is more style.
        learning_rate: Adam's, falling to 0 along a cosine.
        model: the name of the loss network.
        weights: of the loss network: a tag, a path, or "random".
        content_layers, style_layers: of the loss network; None: the paper's of `kzoo.stylize`.
        seed: of the initial weights and of the order and the crops of the pictures.
        precision: "float32", "bfloat16", "float16", or "auto" (or None): what this machine is fast in.

    Raises:
        KzooError: a value that can't be used; UnknownName for a model or a precision that does not exist.
    """

    size: int = 256
    style_size: int | None = None
    steps: int = 2000
    batch_size: int = 4
    width: int = 32
    blocks: int = 5
    content_weight: float = 1.0
    style_weight: float = 5.0
    tv_weight: float = 1e-8
    range_weight: float = 1e-6
    learning_rate: float = 1e-3
    model: str = "vgg19"
    weights: str = "imagenet"
    content_layers: tuple[str, ...] | None = None
    style_layers: tuple[str, ...] | None = None
    seed: int = 0
    precision: str = "auto"

    def __post_init__(self):
        object.__setattr__(self, "weights", str(self.weights))  # a Path
        object.__setattr__(self, "precision", self.precision or "auto")
        for name, least in (("size", 1), ("steps", 1), ("batch_size", 1), ("width", 1), ("blocks", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise KzooError(f"{name} must be a whole number of at least {least}, got {value!r}.")
        if self.size < 64 or self.size % 4:
            raise KzooError(f"size must be a multiple of 4 and at least 64, got {self.size}.")
        check_count("style_size", self.style_size, 64)
        _check_numbers(self, ("learning_rate",), above=True)
        _check_numbers(self, ("content_weight", "style_weight", "tv_weight", "range_weight"))
        check_seed(self.seed)
        check_precision(self.precision)
        for name in ("content_layers", "style_layers"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        _check_layers(self)
        image_spec(self.model)


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _check_numbers(options, names, above=False):
    for name in names:
        value = getattr(options, name)
        if not _is_number(value) or value < 0 or (above and value == 0):
            wanted = "a number above 0" if above else "a number, 0 or above"
            raise KzooError(f"{name} must be {wanted}, got {value!r}.")
        if name.endswith("_weight") and value > MOST:
            raise KzooError(f"{name} must be at most {MOST:g}, since losses are computed in 32 bits; got {value!r}.")


def _check_layers(options):
    for name in ("content_layers", "style_layers"):
        value = getattr(options, name)
        if value is not None and not (isinstance(value, tuple) and value and all(isinstance(v, str) for v in value)):
            raise KzooError(f"{name} must be names of layers, got {value!r}.")
        if value and len(set(value)) < len(value):
            raise KzooError(f"{name} names a layer twice: {', '.join(value)}.")
