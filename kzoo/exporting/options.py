"""The options of `kzoo.export`, checked before any work. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kzoo.catalog.pretrained import check_pixels
from kzoo.checks import check_count, check_precision
from kzoo.errors import ExportError, unknown

FORMATS = ("saved_model", "keras", "onnx", "litert")
PRECISIONS = ("float32", "bfloat16", "float16", "auto")


@dataclass(frozen=True)
class ExportOptions:
    """What to export and how; `kzoo.export` and `kzoo export` have the same names and defaults.

    Attributes:
        formats: of "saved_model", "keras", "onnx", "litert": names, or a string with commas; a tuple afterwards.
        precision: of the SavedModel: "float32", "bfloat16", "float16", or "auto" for the fastest on this machine.
        abstain: a level between 0 and 1 such as 0.99; None never abstains.
        weights: for a name of the catalog: a tag or a file; None takes the first published set.
        classes: class names, for models and weights that don't record them.
        pixels: what a Keras model of a file takes, where that can't be known: a key of
            `kzoo.catalog.pretrained.PIXELS`.
        top: the number of labels in an answer.
        measure: the number of images, at most, on which the accuracy of each format is measured; 0 for none.
        licence, data_licence: of the weights and of the data, for the card.
    """

    formats: str | Sequence[str] = ("saved_model",)
    precision: str = "float32"
    abstain: float | None = None
    weights: object | None = None
    classes: Sequence[str] | None = None
    pixels: str | None = None
    top: int = 5
    measure: int = 2000
    licence: str | None = None
    data_licence: str | None = None

    def __post_init__(self):
        given = self.formats.split(",") if isinstance(self.formats, str) else self.formats
        formats = tuple(dict.fromkeys(name.strip() for name in given if name.strip()))
        object.__setattr__(self, "formats", formats)
        if not formats:
            raise ExportError(f"No format was asked for; the formats are {', '.join(FORMATS)}.")
        for name in formats:
            if name not in FORMATS:
                raise unknown("format", name, FORMATS, f"The formats are {', '.join(FORMATS)}.")
        check_precision(self.precision, PRECISIONS)
        if self.abstain is not None and not 0 < self.abstain < 1:
            raise ExportError(f"abstain must lie between 0 and 1, such as 0.95; got {self.abstain}.")
        check_pixels(self.pixels)
        check_count("top", self.top, 1)
        check_count("measure", self.measure, 0)
