"""What a catalog row is: plain, frozen data. Standard library only, so that listing models costs nothing."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, overload

from kzoo.checks import BITS

# The version of decode, resize and crop in kzoo.data.images; another one gives other pixels. Runs and exports record
# theirs and keep it. 1 (0.1.0) showed the hidden colours of PNGs and GIFs with one transparent colour, and left the
# centre crop out where arrays had the model's size already, in training and evaluation only.
RULES = 2


@dataclass(frozen=True)
class Paper:
    """Where a network or a recipe comes from.

    Attributes:
        title: Of the paper.
        authors: As they are cited.
        year: Of publication.
        arxiv: Number on arXiv, if it is there.
    """

    title: str
    authors: str
    year: int
    arxiv: str | None = None

    def __str__(self) -> str:
        arxiv = f", arXiv:{self.arxiv}" if self.arxiv else ""
        return f"{self.authors} ({self.year}), {self.title}{arxiv}"


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes what a network was trained on.

    Resizing and cropping happen in `kzoo.data.images`; channel order, scale and offset inside the model.

    Attributes:
        crop: Share of the shorter side that the central square crop keeps, in (0, 1]: 0.875 for the usual 224 of 256.
        interpolation: "bilinear" or "bicubic", always with antialiasing.
        channel_order: "rgb" or "bgr".
        scale: y = x * scale + offset with x in 0..255; a number, or one for each channel in `channel_order`.
        offset: See `scale`.
        bits: Of 16-bit pictures, how many are used (8 to 16): values become value * 255 / (2**bits - 1), rounded, at
            most 255. None: files keep their upper 8 bits, arrays must lie in 0..255.
        rules: The version of `kzoo.data.images` (`RULES`) by which the network was trained.

    Raises:
        ValueError: A value is not one of these.
    """

    crop: float = 1.0
    interpolation: str = "bilinear"
    channel_order: str = "rgb"
    scale: float | tuple[float, ...] = 1 / 127.5
    offset: float | tuple[float, ...] = -1.0
    bits: int | None = None
    rules: int = RULES

    def __post_init__(self):
        if self.bits is not None and (type(self.bits) is not int or self.bits not in BITS):
            raise ValueError(f"bits must be a whole number from {BITS[0]} to {BITS[-1]}, got {self.bits!r}")
        if type(self.rules) is not int or not 1 <= self.rules <= RULES:
            raise ValueError(f"rules {self.rules!r} are not known; this kzoo knows 1 to {RULES}")
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop must be in (0, 1], got {self.crop}")
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"interpolation must be 'bilinear' or 'bicubic', got {self.interpolation!r}")
        if self.channel_order not in ("rgb", "bgr"):
            raise ValueError(f"channel_order must be 'rgb' or 'bgr', got {self.channel_order!r}")
        for name in ("scale", "offset"):  # JSON gives lists back; keep rows hashable
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, (list, tuple)) else value)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON; `Preprocessing.from_dict` makes it again."""
        fields = asdict(self)
        if self.rules == 1 and self.bits is None:  # as 0.1.0 wrote it
            del fields["bits"], fields["rules"]
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Preprocessing:
        """Make it again from what `to_dict` gave, also in 0.1.0, which recorded no rules.

        Raises:
            TypeError, ValueError: A field that there is not, or a wrong value.

        Example:
            >>> Preprocessing.from_dict({"crop": 0.875}).rules
            1
        """
        return cls(**{"rules": 1, **fields})

    def fingerprint(self, shape: Sequence[int]) -> str:
        """Hash everything that is done to a picture on its way into a network.

        Two networks may share the pixels of a picture only if the hashes are equal. The rules stand for
        `kzoo.data.images`.

        Args:
            shape: (height, width, channels) of the network's input.

        Returns:
            Hex digits.

        Example:
            >>> Preprocessing().fingerprint((224, 224, 3)) == Preprocessing(crop=0.875).fingerprint((224, 224, 3))
            False
        """

        def numbers(v):
            return [float(x) for x in v] if isinstance(v, (list, tuple)) else float(v)

        facts: list = [
            self.rules,
            [int(n) for n in shape],
            float(self.crop),
            self.interpolation,
            self.channel_order,
            numbers(self.scale),
            numbers(self.offset),
        ]
        if self.bits is not None:
            facts.append(self.bits)
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@dataclass(frozen=True)
class Weights:
    """A set of pretrained weights: where it is, what it was trained on, and how to prepare its input.

    Attributes:
        tag: Its name among the weights of a model, such as "imagenet".
        file: A path or an address.
        hash: As its source publishes it, checked before every use: "sha256:<hex>" or "md5:<hex>", of which leading
            digits are enough ("sha256:f37072fd"); "" if the source publishes none.
        preprocessing: What the network was trained on; None takes the model's.
        size: Bytes, as rounded as its source prints them; None if it does not.
        names: The map from foreign names (`kzoo.weights.maps`); None tries all of them.
        num_classes: None for a file without a classifier.
        classes: What the classes are, for `kzoo.weights.classes`.
        config: Keywords of the architecture that these weights need.
        licence: Of the weights.
        top1: Per cent on ImageNet's validation images, as published.
        top5: Likewise.
        source: Who publishes it.
    """

    tag: str
    file: str
    hash: str = ""
    preprocessing: Preprocessing | None = None
    size: int | None = None
    names: str | None = None
    num_classes: int | None = 1000
    classes: str = "imagenet"
    config: Mapping = field(default_factory=dict)
    licence: str = ""
    top1: float | None = None
    top5: float | None = None
    source: str = ""

    def __post_init__(self):
        object.__setattr__(self, "config", MappingProxyType(dict(self.config)))

    def __hash__(self):
        return hash((self.tag, self.file, self.hash))

    def recorded(self, path: str | os.PathLike, sha256: str) -> dict[str, Any]:
        """Return what a run's config.json records of the weights that it started from.

        Args:
            path: Of their file on this machine.
            sha256: Of that file.
        """
        known = {"tag": self.tag, "file": str(path), "sha256": sha256}
        return {**known, "licence": self.licence, "source": self.source, "top1": self.top1}


@dataclass(frozen=True)
class ModelSpec:
    """A row of the catalog.

    Attributes:
        name: A lower-case identifier.
        architecture: "module:function"; the function takes an image tensor and keywords and returns logits.
        input_shape: (height, width, channels) as published; (frames, height, width, channels) of a network for clips.
        num_classes: As published.
        paper: Where it comes from.
        config: Keywords of the architecture.
        params: Trainable parameters as published: an int is exact, a string such as "1.7M" is the figure as printed.
            None if the source prints none.
        multiply_adds: For one image, likewise ("19.6G").
        deviations: Where this departs from the paper, a sentence each.
        preprocessing: Of its input, if weights do not say otherwise.
        weights: Published weights, the first being the default.
        recipe: The default recipe for training.
        task: What it is for, a name of `kzoo.tasks.TASKS`.
        loss_weights: Weights of the losses of the outputs when auxiliary classifiers are trained too, the main output
            first; () weighs all outputs alike.
    """

    name: str
    architecture: str
    input_shape: tuple[int, ...]
    num_classes: int
    paper: Paper
    config: Mapping = field(default_factory=dict)
    params: int | str | None = None
    multiply_adds: int | str | None = None
    deviations: tuple[str, ...] = ()
    preprocessing: Preprocessing = Preprocessing()
    weights: tuple[Weights, ...] = field(default=(), repr=False)  # `kzoo weights list` shows them
    recipe: str = "modern"
    task: str = "classification"
    loss_weights: tuple[float, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "config", MappingProxyType(dict(self.config)))
        object.__setattr__(self, "input_shape", tuple(self.input_shape))
        object.__setattr__(self, "loss_weights", tuple(self.loss_weights))

    def __hash__(self):
        return hash((self.name, self.architecture, self.input_shape, self.num_classes))


@overload
def printed(value: str) -> float: ...


@overload
def printed(value: int | None) -> int | None: ...


def printed(value: int | str | None) -> float | int | None:
    """Return a published count as a number.

    Example:
        >>> printed("1.7M"), printed("19.6G"), printed(7850)
        (1700000.0, 19600000000.0, 7850)
    """
    if isinstance(value, str):
        return float(value[:-1]) * {"K": 1e3, "M": 1e6, "G": 1e9}[value[-1]]
    return value


def agrees(ours: int, value: int | str | None) -> bool:
    """Compare our count with the published one.

    Papers round and truncate: ResNet-152's 11.28G are printed as 11.3, ResNet-50's 3.858G as 3.8.

    Args:
        ours: Our count.
        value: An int must be equal; a printed figure may differ by 1 %, or by rounding or truncation.

    Example:
        >>> agrees(3_858_000_000, "3.8G"), agrees(7_851, 7_850)
        (True, False)
    """
    if not isinstance(value, str):
        return ours == value
    digits = len(value[:-1].partition(".")[2])
    unit = 10**-digits * printed("1" + value[-1])
    near = 0.01 * printed(value)
    return -max(near, unit / 2) <= ours - printed(value) <= max(near, unit)
