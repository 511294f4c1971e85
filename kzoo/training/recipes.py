"""Recipes: how to train, as data, each with its source. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from kzoo.errors import KzooError, unknown


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        name: of the recipe.
        source: the paper or lecture that it follows.
        optimizer: "sgd" (with momentum and nesterov), "adam" or "adamw".
        learning_rate: the initial one, or the highest one after a warm-up.
        momentum, nesterov: of "sgd".
        weight_decay: "adamw" subtracts rate * decay * w in addition to the gradient step (Loshchilov and Hutter);
            "sgd" adds decay * w to the gradient, so that it enters the momentum, as Krizhevsky et al. print it.
        decay_all: decay biases, scales and offsets as well ("sgd" only).
        rate_batch: the batch size for which the learning rate is meant; for others it is scaled linearly, `rate`. None
            scales nothing.
        schedule: "constant"; "exponential": rate * gamma^epoch; "cosine": to zero over all epochs; "steps": rate *
            gamma after each of `drops`; "plateau": rate * gamma after `patience` epochs without a better validation
            accuracy.
        gamma, patience: of the schedule.
        drops: of "steps", in shares of all epochs.
        warmup: epochs of linear growth to the rate at the start: from 0 for "cosine", for "steps" from the learning
            rate that is not scaled, if that is lower.
        batch_size: images in a batch.
        gradient_accumulation_steps: batches whose gradients are averaged for one step of the optimizer.
        epochs: their number.
        loss: a name among the losses of the model's task; None takes the task's first ("cross_entropy" for classes).
        label_smoothing: in [0, 1).
        augment: (name, amount) pairs of `kzoo.data.augment`.
        crop: how the part of a picture is drawn that is trained on, of `kzoo.data.crops.draw_region`: ("area", lowest,
            highest) share of its area, or ("side", lowest, highest) length of its shorter side in sides of the crop.
            Pictures are then read in every epoch. None takes the middle, as in prediction.
        alternate_flip: mirror each image in every other epoch, in place of "flip", which mirrors at random.
        rubbish: j of LeCun et al. 1998, equation 9: an additional class without images, with the logit -j. If logits
            are negative distances, it pulls the features towards the code of their class until the distance is below
            j. Without it small features are enough, and LeNet-5 stays close to a linear classifier.
        notes: departures from the source.
    """

    name: str
    source: str
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    decay_all: bool = False
    schedule: str = "constant"
    gamma: float = 1.0
    patience: int = 5
    drops: tuple[float, ...] = ()
    rate_batch: int | None = None
    warmup: float = 0.0
    batch_size: int = 128
    gradient_accumulation_steps: int = 1
    epochs: int = 10
    loss: str | None = None
    label_smoothing: float = 0.0
    augment: tuple[tuple[str, float], ...] = ()
    crop: tuple[str, float, float] | None = None
    alternate_flip: bool = False
    rubbish: float | None = None
    notes: str = ""

    @property
    def images_a_step(self) -> int:
        """How many images one step of the optimizer is taken for, but for the last of an epoch."""
        return self.batch_size * self.gradient_accumulation_steps

    @property
    def rate(self) -> float:
        """The learning rate for these images a step.

        Example:
            >>> Recipe("mine", "notes", learning_rate=0.1, rate_batch=256, batch_size=1024).rate
            0.4
        """
        return (
            self.learning_rate if self.rate_batch is None else self.learning_rate * self.images_a_step / self.rate_batch
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict."""
        return asdict(self)

    def changed(self, **values: Any) -> Recipe:
        """A copy with some fields changed.

        Args:
            values: new values by field; None leaves a field unchanged.

        Raises:
            KzooError: epochs, batch_size, gradient_accumulation_steps or learning_rate out of range.
        """
        values = {k: v for k, v in values.items() if v is not None}
        for key in ("epochs", "batch_size", "gradient_accumulation_steps"):
            if key in values and (not isinstance(values[key], int) or values[key] < 1):
                raise KzooError(f"{key} must be a whole number of at least 1, got {values[key]!r}.")
        if "learning_rate" in values and not values["learning_rate"] > 0:
            raise KzooError(f"learning_rate must be positive, got {values['learning_rate']}.")
        return replace(self, **values)


_LECTURE = "Lecture exercises on MNIST"
RECIPES = {
    r.name: r
    for r in (
        Recipe(
            "lecture_softmax",
            f"{_LECTURE}: softmax regression with plain SGD",
            optimizer="sgd",
            learning_rate=0.5,
            momentum=0.0,
            batch_size=100,
            epochs=10,
        ),
        Recipe(
            "lecture_mlp",
            f"{_LECTURE}: MLP with Adam, rate 0.01 * 0.6^epoch",
            learning_rate=0.01,
            schedule="exponential",
            gamma=0.6,
            batch_size=64,
            epochs=10,
        ),
        Recipe(
            "lecture_cnn",
            f"{_LECTURE}: CNN with Adam, rate 0.001 * 0.6^epoch",
            learning_rate=0.001,
            schedule="exponential",
            gamma=0.6,
            epochs=5,
        ),
        Recipe(
            "alexnet",
            "Krizhevsky et al. 2012, section 5",
            optimizer="sgd",
            learning_rate=0.01,
            weight_decay=0.0005,
            decay_all=True,
            schedule="plateau",
            gamma=0.1,
            batch_size=128,
            epochs=90,
            augment=(("flip", 0.5), ("shift", 0.06)),
            notes="Random crops are shifts of the resized picture; no PCA colour noise. The paper divides the rate "
            "by 10 by hand when the validation error stops improving; here after 5 such epochs.",
        ),
        Recipe(
            "imagenet_he",
            "He et al. 2016, arXiv:1512.03385, section 3.4: shorter sides of 256 to 480 and crops of 224 "
            "(arXiv:1409.1556), flips, the colour noise of Krizhevsky et al. 2012",
            optimizer="sgd",
            learning_rate=0.1,
            weight_decay=1e-4,
            schedule="plateau",
            gamma=0.1,
            batch_size=256,
            epochs=120,
            augment=(("flip", 0.5), ("lighting", 0.1)),
            crop=("side", 256 / 224, 480 / 224),
            notes="120 epochs of 1,281,167 images are 600,600 iterations; the paper says up to 600,000. It divides the "
            "rate by 10 when the error plateaus, without saying how long it waits: here after 5 epochs without a "
            "better validation accuracy. The mean of each pixel is the network's preprocessing (of each channel here).",
        ),
        Recipe(
            "imagenet",
            "Goyal et al. 2017, arXiv:1706.02677, section 5.1: 90 epochs, the rate 0.1 for each 256 images, divided by "
            "10 after 30, 60 and 80, five epochs of warm-up from 0.1 (section 2.2), Nesterov momentum, no decay of "
            "batch norm; crops of 8 to 100 % of the area in ratios of 3/4 to 4/3 (arXiv:1409.4842)",
            optimizer="sgd",
            learning_rate=0.1,
            rate_batch=256,
            nesterov=True,
            weight_decay=1e-4,
            schedule="steps",
            gamma=0.1,
            drops=(30 / 90, 60 / 90, 80 / 90),
            warmup=5,
            batch_size=256,
            epochs=90,
            augment=(("flip", 0.5),),
            crop=("area", 0.08, 1.0),
            notes="The ratio's logarithm is uniform, as in torchvision; fb.resnet.torch draws its square root itself, "
            "has colour noise besides, and divides the rate after 30 and 60. Goyal et al. start the last scale of each "
            "block at 0, which is the network's.",
        ),
        Recipe(
            "figure1",
            "Krizhevsky et al. 2012, figure 1: plain SGD with momentum, no regularisation",
            optimizer="sgd",
            learning_rate=0.01,
            batch_size=32,
            epochs=20,
            notes="The paper chose the rate for each activation and prints neither rates nor the size of the batches.",
        ),
        Recipe(
            "modern",
            "AdamW (arXiv:1711.05101), warm-up and cosine (arXiv:1608.03983), label smoothing (arXiv:1512.00567)",
            optimizer="adamw",
            learning_rate=1e-3,
            weight_decay=0.05,
            schedule="cosine",
            warmup=1,
            epochs=15,
            label_smoothing=0.1,
            augment=(("shift", 0.1), ("rotate", 10.0), ("zoom", 0.1)),
        ),
        Recipe(
            "lenet",
            "LeCun et al. 1998: criterion (9), section II.C, and affine distortions of the digits, section III.B (0.8 "
            "% errors); AdamW and a cosine in place of the stochastic diagonal Levenberg-Marquardt method",
            optimizer="adamw",
            learning_rate=3e-3,
            weight_decay=1e-3,
            schedule="cosine",
            warmup=1,
            epochs=40,
            augment=(("shift", 0.08), ("rotate", 10.0), ("zoom", 0.1)),
            rubbish=10.0,
        ),
        Recipe(
            "cifar",
            "He et al. 2015, section 4.2 (batches of 128, flips, crops from a border of 4 pixels), with a cosine for "
            "steps (arXiv:1608.03983), Nesterov momentum and weight decay as in Wide ResNets (arXiv:1605.07146), label "
            "smoothing (arXiv:1512.00567), squares of 8 pixels cut out (arXiv:1708.04552), flips that alternate "
            "(arXiv:2404.00498)",
            optimizer="sgd",
            learning_rate=0.1,
            nesterov=True,
            weight_decay=5e-4,
            schedule="cosine",
            warmup=1,
            epochs=80,
            label_smoothing=0.1,
            augment=(("crop", 0.125), ("cutout", 0.25)),
            alternate_flip=True,
            notes="The paper: 182 epochs, the rate divided by 10 after 91 and 137, decay 1e-4, no smoothing, no holes. "
            "The paper of the holes: 16 pixels for 10 classes, partly outside; here they lie whole in the picture.",
        ),
        Recipe(
            "segmentation",
            "AdamW (arXiv:1711.05101) with a warm-up and a cosine (arXiv:1608.03983); cross-entropy and Dice loss "
            "(arXiv:1606.04797); shifts, small turns and zooms",
            optimizer="adamw",
            learning_rate=3e-3,
            weight_decay=0.01,
            schedule="cosine",
            warmup=1,
            batch_size=16,
            epochs=25,
            loss="cross_entropy+dice",
            augment=(("shift", 0.1), ("rotate", 10.0), ("zoom", 0.15)),
            notes="Pictures are not mirrored: what a mask names may be a sign or a side.",
        ),
        Recipe(
            "modern_sgd",
            "Bag of Tricks (arXiv:1812.01187): Nesterov SGD, warm-up and cosine, label smoothing; flips",
            optimizer="sgd",
            learning_rate=0.1,
            nesterov=True,
            weight_decay=5e-4,
            schedule="cosine",
            warmup=2,
            epochs=30,
            label_smoothing=0.1,
            augment=(("flip", 0.5), ("shift", 0.125)),
        ),
    )
}


def find_recipe(name: str | Recipe | Mapping[str, Any]) -> Recipe:
    """Find a recipe.

    Args:
        name: a key of `RECIPES`, a dict (the recipe in a run's config.json), or a Recipe.

    Returns:
        The Recipe.

    Raises:
        UnknownName: no recipe has that name; the message suggests the nearest one.
        KzooError: a dict with unknown or missing fields.
    """
    if isinstance(name, Recipe):
        return name
    if isinstance(name, dict):
        known = {f.name for f in fields(Recipe)}
        if not {"name", "source"} <= set(name) <= known:
            raise KzooError(f"A recipe has the fields {', '.join(sorted(known))}; got {', '.join(sorted(name))}.")
        lists = {"augment": tuple(tuple(a) for a in name.get("augment", ())), "drops": tuple(name.get("drops", ()))}
        return Recipe(**{**name, **lists, "crop": tuple(name["crop"]) if name.get("crop") else None})
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES, f"The recipes are {', '.join(RECIPES)}.")
    return RECIPES[name]
