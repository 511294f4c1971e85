"""The options of `kzoo.visualize`, checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kzoo.checks import check_seed
from kzoo.errors import KzooError, unknown

# Method -> what it shows. The first ones are always there; the others as the budget allows; the last ones if named.
ALWAYS = {
    "filters": "the kernels of the first convolution",
    "prediction": "the classes with the highest scores, each with its class activation map, on one scale",
    "saliency": "the gradient of the class for the pixels",
    "smoothgrad": "the mean gradient over noisy copies",
    "integrated": "integrated gradients, with the error of the sum",
    "deconvnet": "the deconvnet's projection",
    "guided": "guided backpropagation",
    "maps": "feature maps from shallow to deep",
}
IF_TIME = {
    "cams": "Grad-CAM, Grad-CAM++, HiResCAM and LayerCAM of the class",
    "fullgrad": "what the logit is made of: pixels and biases",
    "occlusion": "what a grey square over the picture does to the class",
    "sanity": "whether each map changes when the classifier forgets",
    "areas": "deletion and insertion: whether each map marks what counts",
    "patches": "the nine patches that excite each unit most, with projections (needs --images)",
    "inversion": "the picture again, from the features of each depth",
    "maximisation": "what excites the class and units most",
}
IF_NAMED = {"dream": "DeepDream of the picture"}
METHODS = {**ALWAYS, **IF_TIME, **IF_NAMED}
BUDGET = 60.0  # seconds


@dataclass(frozen=True)
class VisualizeOptions:
    """What is shown of a network.

    Args:
        methods: names of METHODS; None: the first ones, and the others as the budget allows.
        layer: for feature maps, class activation maps and patches, in place of those that are chosen.
        unit: of that layer, for patches and maximisation.
        target: the class to explain, by number or name; None: the one with the highest score.
        budget: seconds for all of it: what would take longer is left out, and that is said. The first methods always
            run. None: 60, or no limit where methods are named.
        seed: of noise and of random weights.

    Raises:
        KzooError: a value that can't be used; UnknownName for a method that does not exist.
    """

    methods: tuple[str, ...] | None = None
    layer: str | None = None
    unit: int | None = None
    target: int | str | None = None
    budget: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.methods or ():
            if name not in METHODS:
                raise unknown("method", name, METHODS, f"There are {', '.join(METHODS)}.")
        if self.methods is not None and not self.methods:
            raise KzooError(f"methods names none: choose among {', '.join(METHODS)}.")
        if self.budget is not None and not self.budget > 0:
            raise KzooError(f"budget must be a number of seconds above 0, got {self.budget!r}.")
        if self.unit is not None and (type(self.unit) is not int or self.unit < 0):
            raise KzooError(f"unit is the number of a unit of a layer, 0 or more; got {self.unit!r}.")
        if self.unit is not None and self.layer is None:
            raise KzooError("A unit belongs to a layer: give layer, too.")
        check_seed(self.seed)

    @property
    def limit(self) -> float | None:
        """The seconds that may be used; None: no limit."""
        return BUDGET if self.budget is None and self.methods is None else self.budget

    def wanted(self, with_images: bool) -> Sequence[str]:
        """The methods to run, in order."""
        if self.methods is not None:
            return [name for name in METHODS if name in self.methods]
        return [name for name in (*ALWAYS, *IF_TIME) if name != "patches" or with_images]
