"""How to train, as data, each recipe with its source. Standard library only."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace

from kzoo.errors import KzooError, unknown


@dataclass(frozen=True)
class Recipe:
    """How to train.

    optimizer: "sgd" (with momentum, nesterov), "adam", "adamw".
    weight_decay: "adamw" subtracts rate * decay * w beside the gradient (Loshchilov and Hutter); "sgd" adds
        decay * w to the gradient, inside the momentum, as Krizhevsky et al. print it. decay_all: biases too.
    schedule: "constant"; "exponential": rate * gamma^epoch; "cosine": to zero over all epochs; "plateau": times
        gamma after `patience` epochs without a better validation accuracy.
    warmup: epochs of linear growth to the rate before that ("cosine" only).
    augment: (name, amount) pairs of `kzoo.data.augment`.
    alternate_flip: mirror each picture in every other epoch, in place of "flip", a coin for each.
    rubbish: j of LeCun et al. 1998, equation 9: one more class, that no image is of, at logit -j. For logits that are
        minus a distance it pulls the features to their class's code, until the distance falls below j; without it
        small features are enough, and LeNet-5 stays close to a linear classifier.
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
    warmup: float = 0.0
    batch_size: int = 128
    epochs: int = 10
    label_smoothing: float = 0.0
    augment: tuple[tuple[str, float], ...] = ()
    alternate_flip: bool = False
    rubbish: float | None = None
    notes: str = ""

    def to_dict(self):
        return asdict(self)

    def changed(self, **values):
        """This recipe with some fields changed (None means unchanged); KzooError for a value out of range."""
        values = {k: v for k, v in values.items() if v is not None}
        for key, least in (("epochs", 1), ("batch_size", 1)):
            if key in values and (not isinstance(values[key], int) or values[key] < least):
                raise KzooError(f"{key} must be a whole number of at least {least}, got {values[key]!r}.")
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


def find_recipe(name):
    """A Recipe by name, or the Recipe itself; a dict (from a run's config.json) becomes one."""
    if isinstance(name, Recipe):
        return name
    if isinstance(name, dict):
        known = {f.name for f in fields(Recipe)}
        if not {"name", "source"} <= set(name) <= known:
            raise KzooError(f"A recipe has the fields {', '.join(sorted(known))}; got {', '.join(sorted(name))}.")
        return Recipe(**{**name, "augment": tuple(tuple(a) for a in name.get("augment", ()))})
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES, f"The recipes are {', '.join(RECIPES)}.")
    return RECIPES[name]
