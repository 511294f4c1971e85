"""The options of `kzoo.train`, checked before any work. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kzoo.catalog.pretrained import check_pixels
from kzoo.checks import check_bits, check_class_weights, check_count, check_input_shape, check_precision, check_seed
from kzoo.errors import KzooError, unknown
from kzoo.training.recipes import Recipe, find_recipe


@dataclass(frozen=True)
class TrainOptions:
    """How to train; `kzoo.train` and `kzoo train` have the same names and defaults, and config.json records them.

    Attributes:
        recipe: a name of `RECIPES` or a Recipe; None takes the model's own.
        epochs, batch_size, gradient_accumulation_steps, learning_rate: in place of the recipe's.
        loss: likewise; a name among the losses of the model's task.
        class_weights: of the loss: None, "balanced" (n / (classes * n_c), of pixels for masks), or {class: weight}.
        weights: to start from: a tag of the model or a file; None for random ones.
        pixels: what a Keras model of your own takes, a key of `kzoo.catalog.pretrained.PIXELS`; None where it scales
            them itself, and for a network of the catalog.
        patience: stop after so many epochs without a better validation metric; None never stops early.
        seed: of the initial weights, the order of the images, augmentation and dropout.
        precision: "float32", "bfloat16", "float16", or "auto" for what this machine is fast in.
        input_shape: (height, width, channels) in place of the model's.
        val_fraction: share of the training images to validate on, where the data has no validation part.
        test_fraction: share to test on, where the data is undivided.
        strict: refuse unusable images instead of leaving them out.
        bits: of 16-bit images, how many bits are used, 8 to 16; None keeps the upper 8 of files.
    """

    recipe: str | Recipe | None = None
    epochs: int | None = None
    batch_size: int | None = None
    gradient_accumulation_steps: int | None = None
    learning_rate: float | None = None
    loss: str | None = None
    class_weights: str | Mapping[str, float] | None = None
    weights: Any = None
    pixels: str | None = None
    patience: int | None = None
    seed: int = 0
    precision: str = "auto"
    input_shape: tuple[int, int, int] | None = None
    val_fraction: float = 0.1
    test_fraction: float = 0.2
    strict: bool = False
    bits: int | None = None

    def __post_init__(self):
        recipe = find_recipe(self.recipe) if self.recipe is not None else Recipe("the model's own", "")
        recipe.changed(**self.changes())
        if self.loss is not None:
            check_loss(self.loss)
        object.__setattr__(self, "class_weights", check_class_weights(self.class_weights))
        check_pixels(self.pixels)
        check_count("patience", self.patience, 1)
        check_seed(self.seed)
        check_precision(self.precision)
        check_input_shape(self.input_shape)
        check_bits(self.bits)
        for name in ("val_fraction", "test_fraction"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 <= value < 1:
                raise KzooError(f"{name} must be in [0, 1), got {value!r}.")

    def changes(self) -> dict[str, Any]:
        """What is changed in the recipe."""
        names = ("epochs", "batch_size", "gradient_accumulation_steps", "learning_rate", "loss")
        return {name: getattr(self, name) for name in names}


def check_loss(name: str) -> None:
    """Raise an UnknownName unless a task has a loss of that name."""
    from kzoo.tasks import REGISTERED, TASKS, find  # imports NumPy

    known = dict.fromkeys(loss for task in (*TASKS, *REGISTERED) for loss in find(task).losses)
    if name not in known:
        raise unknown("loss", name, known, f"It is one of {', '.join(known)}.")
