"""The options of `kzoo.finetune`, checked before any work. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from kzoo.catalog.pretrained import check_pixels
from kzoo.checks import check_bits, check_class_weights, check_count, check_input_shape, check_precision, check_seed
from kzoo.errors import KzooError, unknown

BATCH = 16
AUGMENTATIONS, MIXTURES = ("none", "light", "strong"), ("mixup", "cutmix")


@dataclass(frozen=True)
class FinetuneOptions:
    """How to fine-tune; `kzoo.finetune` and `kzoo finetune` have the same names and defaults, config.json records them.

    Attributes:
        unfreeze: "none": the head only. "auto": stage by stage from the top, as long as the validation part improves.
            "all", a stage ("7x7") or how layers' names begin ("conv5"): all stages down to there; the best of all
            phases is kept in any case.
        epochs: of each stage.
        learning_rate: of the top stage that trains, highest value of its schedule; the head's is 3 times that, each
            stage below has 0.3 of the one above. None: 1e-4, for masks 1e-3.
        batch_size: of the training of deeper layers; None: 16.
        val_fraction: share of the training photos to validate on, where the data has no such part; None: 0.2.
        budget: seconds for everything, None for no limit.
        augment: "none", "light" or "strong", for the deeper layers.
        mix: None, "mixup" or "cutmix", for the deeper layers.
        views: number of augmented views of each training photo for the head, besides the photo itself.
        shots: number of photos of each class to use, drawn with the seed; None uses all.
        class_weights: None, "balanced" (n / (classes * n_c)), or {class: weight}.
        label_smoothing: in [0, 1).
        focal: the exponent of the focal loss; 0 is cross-entropy.
        seed: of everything that is drawn.
        precision: "float32", "bfloat16", "float16", or "auto" for what this machine is fast in.
        input_shape: (height, width, channels) in place of the backbone's.
        pixels: what a Keras model of your own takes, a key of `kzoo.catalog.pretrained.PIXELS`; None where it scales
            them itself, and for a network of the catalog.
        strict: refuse unusable photos instead of leaving them out.
        bits: of 16-bit photos, how many bits are used, 8 to 16; None keeps the upper 8 of files.
    """

    unfreeze: str = "auto"
    epochs: int = 6
    learning_rate: float | None = None
    batch_size: int | None = None
    val_fraction: float | None = None
    budget: float | None = None
    augment: str = "light"
    mix: str | None = None
    views: int = 0
    shots: int | None = None
    class_weights: str | Mapping[str, float] | None = None
    label_smoothing: float = 0.0
    focal: float = 0.0
    seed: int = 0
    precision: str = "auto"
    input_shape: tuple[int, int, int] | None = None
    strict: bool = False
    bits: int | None = None
    pixels: str | None = None

    def __post_init__(self):
        if self.augment not in AUGMENTATIONS:
            raise unknown("augmentation", self.augment, AUGMENTATIONS, f"It is one of {', '.join(AUGMENTATIONS)}.")
        if self.mix is not None and self.mix not in MIXTURES:
            raise unknown("mixture", self.mix, MIXTURES, f"It is one of {', '.join(MIXTURES)}.")
        if not isinstance(self.unfreeze, str):  # names of stages are checked where the network is known
            raise KzooError(
                f"unfreeze must be none, auto, all, a stage or the start of a layer's name; got {self.unfreeze!r}."
            )
        if self.learning_rate is not None and not 0 < self.learning_rate < float("inf"):
            raise KzooError(f"learning_rate must be a positive number, got {self.learning_rate!r}.")
        if self.val_fraction is not None and not 0 < self.val_fraction < 1:
            raise KzooError(f"val_fraction must be in (0, 1), got {self.val_fraction!r}.")
        for name, least in (("epochs", 1), ("batch_size", 1), ("shots", 1), ("views", 0)):
            check_count(name, getattr(self, name), least)
        if not 0 <= self.label_smoothing < 1:
            raise KzooError(f"label_smoothing must be in [0, 1), got {self.label_smoothing}.")
        if not 0 <= self.focal <= 10:
            raise KzooError(f"focal, the exponent, must be in [0, 10], got {self.focal}.")
        if self.budget is not None and not self.budget > 0:
            raise KzooError(f"budget must be a positive number of seconds, got {self.budget}.")
        if self.shots and self.unfreeze not in ("none", "auto"):
            raise KzooError(
                f"--shots leaves too few photos to validate on, so deeper layers stay frozen: --unfreeze "
                f"{self.unfreeze} needs all photos."
            )
        object.__setattr__(self, "class_weights", check_class_weights(self.class_weights))
        check_pixels(self.pixels)
        check_seed(self.seed)
        check_precision(self.precision)
        check_input_shape(self.input_shape)
        check_bits(self.bits)

    def recorded(self) -> dict:
        """What config.json has under "finetune"; seed, precision, input_shape and bits stand beside it."""
        beside = {"budget", "seed", "precision", "input_shape", "bits", "strict"}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in beside}
