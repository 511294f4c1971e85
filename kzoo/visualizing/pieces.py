"""The pieces of a report: for each method its pictures, their captions and the numbers that belong to them."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kzoo.errors import KzooError
from kzoo.interrupt import Interrupted
from kzoo.progress import Silent
from kzoo.visualizing import attribution, cam, drawing, filters, occlusion, projection, sanity
from kzoo.visualizing.gradients import one_hot, pixel_gradients, scores
from kzoo.visualizing.network import Network
from kzoo.visualizing.options import ALWAYS, VisualizeOptions

TOP = 3  # classes that are shown with their maps
SAMPLES = 25  # of SmoothGrad
# Maps that are checked: name -> what it is called.
MAPS = {
    "saliency": "gradient",
    "smoothgrad": "SmoothGrad",
    "integrated": "integrated gradients",
    "deconvnet": "deconvnet",
    "guided": "guided backpropagation",
    "gradcam": "Grad-CAM",
}


@dataclass(frozen=True)
class Figure:
    """A picture of a report.

    Attributes:
        name: of its file, without the suffix; unique within a piece.
        pixels: (H, W, 3) uint8.
        caption: a sentence or two.
        of: the name of the map in MAPS that it shows, if it is one.
    """

    name: str
    pixels: np.ndarray
    caption: str
    of: str = ""


@dataclass(frozen=True)
class Piece:
    """What one method shows of the network, or of one picture.

    Attributes:
        figures: in order.
        facts: numbers for report.json.
        notes: sentences that stand below the figures.
    """

    figures: Sequence[Figure] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


class NotPossible(KzooError):
    """A method can't show anything of this network; the message says why and what to use instead."""


class Watched(Silent):
    """Progress of which each step asks whether the work is to stop.

    Args:
        bar: where it is shown.
        interrupted: whether Ctrl-C has arrived.
    """

    def __init__(self, bar: Silent, interrupted: Callable[[], bool]) -> None:
        self.bar, self.interrupted = bar, interrupted

    def start(self, text: str, total: int | None, done: int = 0) -> None:
        self.bar.start(text, total, done)

    def advance(self, n: int, **numbers: float) -> None:
        if self.interrupted():
            raise Interrupted
        self.bar.advance(n, **numbers)

    def done(self, text: str | None = None) -> None:
        self.bar.done(text)


class Photo:
    """A picture that is looked at, with what was computed of it.

    Args:
        name: for people.
        x: (H, W, C) float32 in 0..255.
        network: a Network.
        target: the class to explain; None: the one with the highest score.
    """

    def __init__(self, name: str, x: np.ndarray, network: Network, target: int | str | None) -> None:
        self.name, self.x, self.network = name, x, network
        self.scores = scores(network, x[None])[0]
        self.target = int(self.scores.argmax()) if target is None else network.class_number(target)
        self.maps: dict[str, np.ndarray] = {}

    @property
    def batch(self) -> np.ndarray:
        """(1, H, W, C)."""
        return self.x[None]

    @property
    def label(self) -> str:
        """The name of the class that is explained."""
        return self.network.class_name(self.target)

    def classes(self, most: int = TOP) -> list[int]:
        """The explained class, and those with the highest scores, most in all."""
        order = [int(c) for c in np.argsort(-self.scores, kind="stable")]
        return list(dict.fromkeys([*(order if order[0] == self.target else [self.target, *order])]))[:most]


class Look:
    """All that the pieces need.

    Args:
        network: a Network.
        options: what is asked for.
        bar: the progress.
        interrupted: whether Ctrl-C has arrived.
        images: a folder for the patches, or None.
        seconds: the budget; None: no limit.
    """

    def __init__(
        self,
        network: Network,
        options: VisualizeOptions,
        *,
        bar: Silent,
        interrupted: Callable[[], bool],
        images: str | None = None,
        seconds: float | None = None,
    ) -> None:
        self.network, self.options, self.images = network, options, images
        self.interrupted, self.bar = interrupted, Watched(bar, interrupted)
        self.deadline = None if seconds is None else time.monotonic() + seconds
        self.first, self.each = 0.0, 0.0  # seconds of the first gradient, which compiles it, and of each picture's
        self.other: Network | None = None

    @property
    def left(self) -> float | None:
        """The seconds that are left; None: no limit."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def measure(self, photo: Photo) -> None:
        """Find out how long a gradient takes, for the estimates of what fits into the budget."""
        if self.first:
            return
        weights, began = one_hot(self.network, np.array([photo.target])), time.monotonic()
        pixel_gradients(self.network, photo.batch, weights)
        middle = time.monotonic()
        pixel_gradients(self.network, photo.batch, weights)
        self.each = time.monotonic() - middle
        self.first = max(0.1, middle - began - self.each)

    @property
    def forgotten(self) -> Network:
        """The network whose top layer was randomised."""
        if self.other is None:
            self.other = sanity.randomised(self.network, self.options.seed)[0]
        return self.other

    def map_of(self, name: str, photo: Photo, network: Network | None = None) -> np.ndarray:
        """A map in MAPS of a picture, (H, W) or (H, W, C), of the network or another; that of the network is kept."""
        if network is None and name in photo.maps:
            return photo.maps[name]
        found = self._map(name, photo, network or self.network)
        if network is None:
            photo.maps[name] = found
        return found

    def _map(self, name, photo, network):
        x, target = photo.batch, photo.target
        if name == "saliency":
            return attribution.gradient(network, x, target)[0]
        if name == "smoothgrad":
            seed = self.options.seed
            return attribution.smoothgrad(network, x, target, samples=SAMPLES, seed=seed, progress=self.bar)[0]
        if name == "integrated":
            return attribution.integrated_gradients(network, x, target, progress=self.bar).attributions[0]
        if name in ("deconvnet", "guided"):
            function = projection.deconvnet if name == "deconvnet" else projection.guided_backpropagation
            return function(network, x, target).maps[0]
        found = cam.gradcam(network, x, target, layer=self.options.layer).maps[0]
        return drawing.enlarged(found, photo.x.shape[:2])


# --- always ------------------------------------------------------------------------------------------------


def of_filters(look: Look, photo: Photo | None) -> Piece:
    """The kernels of the first convolution, or of the layer that is asked for."""
    wanted = look.options.layer
    if wanted is not None and filters.kernel_of(look.network.model.get_layer(wanted)) is None:
        wanted = None  # a layer whose maps are asked for
    try:
        found = filters.filters(look.network, wanted)
    except KzooError as e:
        raise NotPossible(str(e)) from e
    count, height, width, channels = found.kernels.shape
    shown = min(count, filters.MOST_FILTERS if found.of_pixels and channels in (1, 3) else filters.MOST_SLICES)
    what = f"{count} filters of {found.layer}, {height}x{width}"
    what += " over RGB" if found.of_pixels and channels == 3 else f" over {channels} channel{'s' * (channels > 1)}"
    which = "" if shown == count else f"; the first {shown} are shown"
    if not (found.of_pixels and channels in (1, 3)) and channels > 1:
        which += f", each in a row with its first {min(channels, filters.MOST_SLICES)} channels"
    caption = f"{what}{which}. One scale for all: grey is 0, full colour {found.scale:.3g}."
    facts = {"layer": found.layer, "shape": list(found.kernels.shape), "scale": found.scale}
    return Piece([Figure("filters", found.picture(), caption)], facts)


def of_prediction(look: Look, photo: Photo) -> Piece:
    """The classes with the highest scores, and the class activation maps of the first three on one scale."""
    network, numbers = look.network, photo.classes()
    ranked = photo.classes(5)
    rows: list[dict[str, Any]] = [{"class": network.class_name(c), "score": float(photo.scores[c])} for c in ranked]
    if not network.dense:
        for row, p in zip(rows, network.probabilities(photo.scores)[ranked], strict=True):
            row["probability"] = float(p)
    x, notes = np.repeat(photo.batch, len(numbers), 0), []
    try:
        if look.options.layer is not None or network.dense:
            raise KzooError("")
        found, method = cam.cam(network, x, numbers), "CAM"
    except KzooError as e:
        notes += [str(e)] if str(e) else []
        try:
            found, method = cam.gradcam(network, x, numbers, layer=look.options.layer), "Grad-CAM"
        except KzooError as e:
            return Piece(
                [Figure("photo", drawing.as_rgb(photo.x), "What the network is given.")], {"classes": rows}, [str(e)]
            )
    scale = drawing.scale_of(found.maps)
    figures = [Figure("photo", drawing.as_rgb(photo.x), "What the network is given.")]
    for i, (number, values) in enumerate(zip(numbers, found.maps, strict=True)):
        sign = " Nothing speaks for this class." if values.max() <= 0 else ""
        name, score = network.class_name(number), photo.scores[number]
        caption = f"{method} of {name}, {'mean ' if network.dense else ''}logit {score:.3g}.{sign}"
        of = "gradcam" if number == photo.target else ""
        figures.append(Figure(f"cam-{i + 1}", drawing.overlay(photo.x, values, scale), caption, of))
    notes.append(
        f"{method} on {found.layer}, {found.maps.shape[1]}x{found.maps.shape[2]}: red speaks for a class, blue against "
        f"it; one scale for all {len(numbers)}, full colour at {scale:.3g}."
    )
    facts: dict[str, Any] = {"classes": rows, "method": method, "layer": found.layer, "scale": scale}
    if method == "CAM":
        gap = float(
            np.max(np.abs(found.logits - photo.scores[numbers]) / np.maximum(np.abs(photo.scores[numbers]), 1e-30))
        )
        facts["gap"] = gap
        notes.append(f"mean(map) + bias is the logit, to {gap:.1g} of it.")
    return Piece(figures, facts, notes)


def _of_pixels(name, values, photo, caption):
    """A figure of signed values (H, W, C): their sum over channels in colour where they are shares of the logit."""
    if name == "integrated":
        summed = values.sum(-1)
        scale = drawing.scale_of(summed, drawing.GREATEST)
        return Figure(name, drawing.signed(summed, scale), caption, name)
    if name in ("deconvnet", "guided"):
        scale = drawing.scale_of(values, drawing.GREATEST)
        return Figure(name, drawing.as_rgb(drawing.around_grey(values, scale)), caption, name)
    strength = attribution.magnitude(values)
    return Figure(name, drawing.unsigned(strength, drawing.scale_of(strength, drawing.GREATEST)), caption, name)


def of_saliency(look: Look, photo: Photo) -> Piece:
    """The gradient of the class for the pixels."""
    look.measure(photo)
    values = look.map_of("saliency", photo)
    caption = f"Saliency: the largest |gradient| of {photo.label} among the channels."
    return Piece([_of_pixels("saliency", values, photo, caption)], {"largest": float(np.abs(values).max())})


def of_smoothgrad(look: Look, photo: Photo) -> Piece:
    """The mean gradient over noisy copies."""
    look.bar.start("SmoothGrad", SAMPLES)
    values = look.map_of("smoothgrad", photo)
    caption = f"SmoothGrad: the gradient, averaged over {SAMPLES} copies with noise of 15 % of the range."
    return Piece([_of_pixels("smoothgrad", values, photo, caption)], {"samples": SAMPLES, "noise": 0.15})


def of_integrated(look: Look, photo: Photo) -> Piece:
    """Integrated gradients, with what is missing from the sum."""
    look.bar.start("integrated gradients", None)
    found = attribution.integrated_gradients(look.network, photo.batch, photo.target, progress=look.bar)
    photo.maps["integrated"] = found.attributions[0]
    facts = {
        "baseline": "black",
        "steps": int(found.steps[0]),
        "difference": float(found.difference[0]),
        "delta": float(found.delta[0]),
        "share": float(found.share[0]),
    }
    caption = (
        f"Integrated gradients of {photo.label}, from black: {found.text()}. Red raises the logit, blue lowers it."
    )
    return Piece([_of_pixels("integrated", found.attributions[0], photo, caption)], facts)


def _of_rule(look, photo, name, title):
    try:
        replaced = projection.ruled(look.network, name)[1]
    except KzooError as e:
        raise NotPossible(str(e)) from e
    values = look.map_of(name, photo)
    caption = f"{title} of {photo.label}: another gradient rule at {len(replaced)} ReLU{'s' * (len(replaced) > 1)}."
    return Piece([_of_pixels(name, values, photo, caption)], {"replaced": len(replaced), "layers": list(replaced)})


def of_deconvnet(look: Look, photo: Photo) -> Piece:
    """The deconvnet's projection."""
    return _of_rule(look, photo, "deconvnet", "Deconvnet")


def of_guided(look: Look, photo: Photo) -> Piece:
    """Guided backpropagation."""
    return _of_rule(look, photo, "guided", "Guided backpropagation")


def of_maps(look: Look, photo: Photo) -> Piece:
    """Feature maps of layers from shallow to deep."""
    network = look.network
    chosen = [look.options.layer] if look.options.layer else filters.layers_to_show(network)
    if not chosen:
        raise NotPossible(f"{network.name} has no layer with feature maps.")
    figures, facts = [], {}
    for i, layer in enumerate(chosen):
        values = filters.feature_maps(network, photo.batch, layer)[0]
        if values.ndim != 3:
            raise NotPossible(f"{layer} of {network.name} gives {values.shape}, no feature maps.")
        picture, numbers, scale = filters.picture_of_maps(values)
        most = (
            f"the {len(numbers)} of {values.shape[-1]} with the most contrast"
            if len(numbers) < values.shape[-1]
            else f"all {len(numbers)} maps"
        )
        sign = ", blue below 0" if values[..., numbers].min() < 0 else ""
        caption = f"{layer}, {values.shape[0]}x{values.shape[1]}: {most}, full colour at {scale:.3g}{sign}."
        figures.append(Figure(f"maps-{i + 1}", picture, caption))
        facts[layer] = {"shape": list(values.shape), "maps": numbers, "scale": scale}
    return Piece(figures, facts)


# --- as the budget allows ----------------------------------------------------------------------------------


def of_cams(look: Look, photo: Photo) -> Piece:
    """Four kinds of class activation maps of one class."""
    kinds = {
        "Grad-CAM": cam.gradcam,
        "Grad-CAM++": cam.gradcam_plus_plus,
        "HiResCAM": cam.hirescam,
        "LayerCAM": cam.layercam,
    }
    figures, facts = [], {}
    for name, function in kinds.items():
        try:
            found = function(look.network, photo.batch, photo.target, layer=look.options.layer)
        except KzooError as e:
            raise NotPossible(str(e)) from e
        scale = drawing.scale_of(found.maps)
        caption = f"{name} of {photo.label} on {found.layer}, full colour at {scale:.3g}."
        stem = f"cams-{name.lower().replace('+', 'p')}"
        figures.append(Figure(stem, drawing.overlay(photo.x, found.maps[0], scale), caption))
        facts[name] = {"layer": found.layer, "scale": scale, "sum": float(found.maps.sum())}
    return Piece(figures, facts)


def of_fullgrad(look: Look, photo: Photo) -> Piece:
    """What the logit is made of."""
    found = attribution.full_gradient(look.network, photo.batch, photo.target)
    logit, inputs, biases, gap = (float(v[0]) for v in (found.logit, found.from_input, found.from_biases, found.gap))
    values = attribution.gradient_times_input(look.network, photo.batch, photo.target)[0].sum(-1)
    scale = drawing.scale_of(values, drawing.GREATEST)
    caption = (
        f"Gradient times input of {photo.label}. Its logit {logit:.4g} = {inputs:.4g} from the pixels + {biases:.4g} "
        f"from the biases, to {gap:.1g}."
    )
    notes = ["The sum has a gap: not all of this network is convolutions, ReLUs and pooling."] if gap > 1e-3 else []
    facts = {"logit": logit, "from_input": inputs, "from_biases": biases, "gap": gap}
    return Piece([Figure("fullgrad", drawing.signed(values, scale), caption)], facts, notes)


def of_occlusion(look: Look, photo: Photo) -> Piece:
    """What a grey square does to the class."""
    look.bar.start("occlusion", occlusion.POSITIONS**2)
    found = occlusion.occlusion(look.network, photo.batch, photo.target, progress=look.bar)
    size, network = photo.x.shape[:2], look.network
    drop = found.of_pixels(found.drop, size)[0]
    scale = drawing.scale_of(drop)
    window = f"a grey square of {found.window[0]} pixels at {found.drop[0].size} places"
    figures = [
        Figure(
            "occlusion",
            drawing.overlay(photo.x, drop, scale),
            f"Occlusion: by how much the logit of {photo.label} falls under {window}; red falls, full colour at "
            f"{scale:.3g}.",
        )
    ]
    p = found.probabilities[0]
    if not network.dense:
        shown = _steps(p, size, drawing.unsigned, 1.0)
        figures.append(
            Figure("occlusion-probability", shown, f"The probability of {photo.label}, {p.min():.2f} to {p.max():.2f}.")
        )
    names, best = {}, found.best[0]
    for number in np.unique(best):
        names[network.class_name(int(number))] = int((best == number).sum())
    order = [int(n) for n in np.unique(best)]
    colours = np.array([PALETTE[i % len(PALETTE)] for i in range(len(order))], "uint8")
    shares = ", ".join(f"{name} at {n}" for name, n in sorted(names.items(), key=lambda kv: -kv[1])[:4])
    tiles = colours[np.searchsorted(order, best)]
    figures.append(Figure("occlusion-best", _cells(tiles, size), f"The most probable class at each place: {shares}."))
    if found.activity is not None:
        activity = found.activity[0]
        figures.append(
            Figure(
                "occlusion-activity",
                _steps(activity, size, drawing.unsigned, drawing.scale_of(activity)),
                "The sum of the last layer's strongest feature map.",
            )
        )
    facts = {
        "window": list(found.window),
        "rows": found.rows.tolist(),
        "columns": found.columns.tolist(),
        "logits": found.logits[0].round(4).tolist(),
        "whole": float(found.whole[0]),
        "best": names,
    }
    return Piece(figures, facts)


PALETTE = ((31, 111, 178), (194, 87, 26), (46, 139, 87), (148, 103, 189), (214, 39, 40), (127, 127, 127))


def _cells(tiles, size):
    """Cells (R, S, 3) as a picture of a size, without interpolation."""
    rows, columns = (np.arange(n) * have // n for n, have in zip(size, tiles.shape[:2], strict=True))
    return tiles[rows][:, columns]


def _steps(values, size, colour, scale):
    return _cells(colour(values, scale), size)


def of_sanity(look: Look, photo: Photo) -> Piece:
    """Whether each map changes when the classifier forgets (Adebayo et al. 2018)."""
    facts = {}
    look.bar.start("sanity check", None)
    for name in MAPS:
        try:
            own, other = (look.map_of(name, photo, network) for network in (None, look.forgotten))
        except KzooError:
            continue  # the method has said why
        strength = [attribution.magnitude(m) if m.ndim == 3 else m for m in (own, other)]
        facts[name] = sanity.similarity(*strength)
        look.bar.advance(1)
    notes = [
        "Sanity check: the rank correlation of each map with that of the same network once its classifier is random. "
        "Near 1 the map does not depend on what was learned about the class (Adebayo et al. 2018)."
    ]
    return Piece((), facts, notes)


def of_areas(look: Look, photo: Photo) -> Piece:
    """Deletion and insertion of each map, beside a random one."""
    facts, rng = {}, np.random.default_rng(look.options.seed)
    look.bar.start("deletion and insertion", None)
    score = "logit" if look.network.dense else "probability"
    for name in (*MAPS, "random"):
        try:
            values = rng.random(photo.x.shape[:2]) if name == "random" else look.map_of(name, photo)
        except KzooError:
            continue  # the method has said why
        if values.ndim == 3:
            values = values.sum(-1) if name == "integrated" else attribution.magnitude(values)
        common = dict(target=photo.target, score=score, progress=look.bar)
        facts[name] = {
            "deletion": occlusion.deletion(look.network, photo.batch, values, **common).area,
            "insertion": occlusion.insertion(look.network, photo.batch, values, **common).area,
        }
    notes = [
        f"Deletion and insertion: the mean {score} of {photo.label} while pixels become grey, or come back to a "
        "blurred picture, those first that the map marks most. A good map has a small deletion area and a large "
        f"insertion area (a random one here: {facts['random']['deletion']:.2f} and {facts['random']['insertion']:.2f})."
    ]
    return Piece((), facts, notes)


# --- what takes longest ------------------------------------------------------------------------------------


def there(module: str) -> bool:
    """Whether a module of this package is there."""
    return importlib.util.find_spec(f"kzoo.visualizing.{module}") is not None


FUNCTIONS: dict[str, Callable[[Look, Any], Piece]] = {
    "filters": of_filters,
    "prediction": of_prediction,
    "saliency": of_saliency,
    "smoothgrad": of_smoothgrad,
    "integrated": of_integrated,
    "deconvnet": of_deconvnet,
    "guided": of_guided,
    "maps": of_maps,
    "cams": of_cams,
    "fullgrad": of_fullgrad,
    "occlusion": of_occlusion,
    "sanity": of_sanity,
    "areas": of_areas,
}
OF_NETWORK = ("filters", "patches", "maximisation")  # they need no photo


def estimate(look: Look, name: str, photo: Photo | None) -> float:
    """About how many seconds a method will take, from what a gradient took; 0 for those that always run."""
    first, each = look.first, look.each
    if name in ALWAYS:
        return 0.0
    return {
        "cams": first + each,
        "fullgrad": 2 * first + 2 * each,
        "occlusion": 2 * first + occlusion.POSITIONS**2 * each / 4,
        "sanity": 4 * first + (SAMPLES + 52) * each,
        "areas": first + 2 * 33 * (len(MAPS) + 1) * each / 4,
    }.get(name, 0.0)
