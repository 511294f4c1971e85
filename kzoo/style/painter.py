"""Paint with a stylenet: one that was trained here, or the one that kzoo carries."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

import keras
import numpy as np
from keras import ops

from kzoo import runs
from kzoo.builder import computing_in
from kzoo.catalog import shipped
from kzoo.data.images import shown
from kzoo.errors import DataError, KzooError, RunError, out_of_memory, unknown
from kzoo.files import make_folder, sha256
from kzoo.models.stylenet import stylenet
from kzoo.progress import progress, say
from kzoo.style import colour, strips
from kzoo.synthesis import pictures
from kzoo.synthesis.memory import available_memory

# Measured at 5 megapixels, at the peak, for each pixel and filter of the first convolution, of a picture in one piece.
BYTES = 130
LARGE = 1 << 20  # pixels; beyond, strips are faster, too
ROWS = 256  # of a strip
BLEND = "The weights of a blend must be 0 or above, and not all 0"  # what is said of others, here and by an export


@dataclass(frozen=True)
class Stylenet:
    """A network that paints, and the names of its styles.

    Attributes:
        model: as `kzoo.style.stylenet.build_stylenet` builds it, trained; of 0.1.0 with one input, pictures.
        styles: their names, in the order of the model's weights.
    """

    model: keras.Model
    styles: tuple[str, ...]

    @property
    def width(self) -> int:
        """Filters of the first convolution."""
        return self.model.get_layer("conv1").filters

    def weights(self, mix: Mapping[str, float] | None = None) -> np.ndarray:
        """The weights of the styles, (styles,) float32, of a mix {style: weight}; None is the only style.

        Raises:
            UnknownName: a style that it does not have.
            KzooError: no mix for a network of several styles, or weights that are negative or all 0.

        Example:
            >>> Stylenet(None, ("a", "b")).weights({"a": 3, "b": 1}).tolist()
            [0.75, 0.25]
        """
        if mix is None:
            if len(self.styles) > 1:
                raise KzooError(
                    f"This stylenet has the styles {', '.join(self.styles)}: choose one by --style, or mix them by "
                    "--blend (style=, blend=)."
                )
            mix = {self.styles[0]: 1.0}
        if not isinstance(mix, Mapping) or not all(isinstance(w, Real) for w in mix.values()):
            raise KzooError(f"A mix of styles is a dict of numbers, such as {{'{self.styles[0]}': 1}}; got {mix!r}.")
        for name in mix:
            if name not in self.styles:
                raise unknown("style", name, self.styles, f"There are {', '.join(self.styles)}.")
        found = np.array([mix.get(name, 0.0) for name in self.styles], "float64")
        if not (np.isfinite(found).all() and (found >= 0).all() and found.any()):
            raise KzooError(f"{BLEND}; got {dict(mix)}.")
        found = found / found.max()  # the sum of large ones would be infinite, and of the tiny ones inexact
        return (found / found.sum()).astype("float32")


def build_stylenet(
    *, styles: int = 1, width: int = 32, blocks: int = 5, precision: str = "float32", seed: int = 0
) -> keras.Model:
    """Build the untrained network.

    Args:
        styles: how many it is to learn.
        width: filters of the first convolution.
        blocks: residual blocks.
        precision: what it computes in, "float32", "bfloat16" or "float16".
        seed: of the initial weights; Keras' global seed is set to it.

    Returns:
        A model of [pictures (B, H, W, 3) in 0..255, weights of the styles (B, styles)] to such pictures, of any size in
        multiples of 4.

    Example:
        >>> build_stylenet(width=4, blocks=1).count_params()
        9651
    """
    keras.utils.set_random_seed(seed)
    with computing_in(precision):
        x = keras.Input((None, None, 3), dtype="float32", name="image")
        weights = keras.Input((styles,), dtype="float32", name="styles")
        return keras.Model([x, weights], stylenet(x, weights, width=width, blocks=blocks), name="stylenet")


def load_stylenet(net: str | os.PathLike) -> Stylenet:
    """Load a folder that `kzoo.train_stylenet` wrote, or the stylenet that kzoo carries.

    Args:
        net: the folder; or "painter", or the name of one of its styles, unless there is a folder of that name.

    Raises:
        UnknownName: there is no such folder, and kzoo carries none of that name.
        RunError: a damaged folder or a foreign one.
    """
    path = Path(net)
    card = _own(net)
    if card is not None:
        return Stylenet(_shipped(card), tuple(card["styles"]))
    if not path.exists():
        own = [n for name, found in shipped.stylenets().items() for n in (name, *found["styles"])]
        raise unknown("stylenet", shown(path), own, f"A folder of kzoo stylenet train, or one of {', '.join(own)}.")
    if (path / runs.CONFIG).is_file() and not (path / runs.MODEL).is_file():
        raise RunError(
            f"{path} has no {runs.MODEL}: its training is not finished. kzoo stylenet train ... --resume continues it."
        )
    model = runs.read_model(path / runs.MODEL)
    if model.name != "stylenet":
        raise RunError(f"{path} holds {model.name}, not a stylenet: kzoo stylenet train writes one.")
    count = model.inputs[1].shape[1] if len(model.inputs) > 1 else 1
    config = runs.read_json(path / runs.CONFIG) if (path / runs.CONFIG).is_file() else {}
    names = config.get("styles")
    if names is None and count == 1:  # of 0.1.0
        names = [Path(str(config.get("style", path))).stem]
    if not (isinstance(names, list) and len(names) == count and all(isinstance(n, str) for n in names)):
        raise RunError(f"{path / runs.CONFIG} does not name the {count} styles of the network.")
    return Stylenet(model, tuple(names))


def _own(net):
    """The card of the stylenet of kzoo's own that a user names; None for a folder."""
    return None if Path(net).is_dir() else shipped.stylenet(str(net))


def _shipped(card):
    """The model of a card, with its weights."""
    file = shipped.FOLDER / f"{card['name']}.npz"
    if sha256(file) != card["sha256"]:
        raise KzooError(f"{file} does not have the hash of its card: install kzoo again.")
    options = card["options"]
    model = build_stylenet(styles=len(card["styles"]), width=options["width"], blocks=options["blocks"])
    with np.load(file, allow_pickle=False) as arrays:
        for v in model.weights:
            v.assign(arrays[v.path].astype("float32"))
    return model


def chosen(net: str | os.PathLike, style: str | None, blend: Mapping[str, float] | None) -> Mapping[str, float] | None:
    """The mix of styles that a user asks for: {style: weight}, or None for the only one.

    Args:
        net: of `load_stylenet`; the name of a style of kzoo's own chooses that style.
        style: a name.
        blend: {name: weight}.

    Raises:
        KzooError: both are given.
    """
    if style is not None and blend is not None:
        raise KzooError("Give one style, or a blend of several, not both.")
    card = _own(net)
    if style is None and blend is None and card is not None and str(net) in card["styles"]:
        style = str(net)
    return {style: 1.0} if style is not None else blend


def paint(
    net: Stylenet, picture: np.ndarray, mix: Mapping[str, float] | None = None, *, rows: int | None = None
) -> np.ndarray:
    """Paint one picture.

    Args:
        net: a trained stylenet.
        picture: (H, W, 3) uint8; it is padded by reflection to multiples of 4 and cut back.
        mix: {style: weight}; None: the only style.
        rows: compute in strips of so many rows, as `kzoo.style.strips.paint_in_strips` does; None: in one piece.

    Returns:
        (H, W, 3) uint8.

    Example:
        >>> paint(load_stylenet("painter"), np.zeros((64, 50, 3), "uint8"), {"ink": 1}).shape
        (64, 50, 3)
    """
    h, w = picture.shape[:2]
    weights = net.weights(mix)
    x = np.pad(picture, ((0, -h % 4), (0, -w % 4), (0, 0)), mode="reflect").astype("float32")
    if rows:
        return pictures.to_uint8(strips.paint_in_strips(net.model, x, weights, rows)[:h, :w])
    inputs = [x[None], weights[None]] if len(net.model.inputs) > 1 else x[None]
    y = ops.convert_to_numpy(net.model(inputs, training=False))
    return pictures.to_uint8(y[0, :h, :w])


def coloured(painted: np.ndarray, picture: np.ndarray, mode: str) -> np.ndarray:
    """What was painted, in the colours of the picture.

    Args:
        painted, picture: (H, W, 3) uint8.
        mode: "none"; "luminance": the luminance of what was painted, with the mean and standard deviation of the
            picture's, and the picture's colours; "histogram": its mean colour and colour covariance become the
            picture's.

    Returns:
        (H, W, 3) uint8.
    """
    if mode == "luminance":
        return pictures.to_uint8(colour.recoloured(colour.luminance_matched(painted, picture), picture))
    return pictures.to_uint8(colour.matched(painted, picture)) if mode == "histogram" else painted


def apply_stylenet(
    net: str | os.PathLike,
    images: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    style: str | None = None,
    blend: Mapping[str, float] | None = None,
    preserve_color: str = "none",
    out: str | os.PathLike | None = None,
    size: int | None = None,
    tile: int | None = None,
    force: bool = False,
    quiet: bool = False,
) -> list[Path]:
    """Paint pictures with a trained stylenet, one pass each.

    A picture of more than `LARGE` pixels, or one that does not fit into memory in one piece, is computed in strips,
    with the same result.

    Args:
        net: a folder that `kzoo.train_stylenet` wrote; or "painter", the stylenet that kzoo carries, or one of its
            styles.
        images: a path or several; a folder stands for its pictures, not for those of its folders.
        style: the name of a style, of a network of several.
        blend: {style: weight} in place of `style`: a mixture, such as {"strokes": 0.7, "ink": 0.3}.
        preserve_color: "none", "luminance" or "histogram": see `coloured`.
        out: the folder for PNGs of the same names, made if need be; None: NET-painted.
        size: the longer side in pixels; None: as it is.
        tile: compute in strips of so many rows, at least 32; None: in one piece, if it is neither large nor more than
            memory holds.
        force: replace pictures that exist.
        quiet: no progress.

    Returns:
        The paths written.

    Raises:
        DataError: some pictures can't be painted. Each is named and the others are painted first; the error says how
            many there were, and has the paths written as `results`.
        KzooError: two pictures would have one result, one exists already, the folder holds no stylenet, or the network
            does not have the style.
    """
    if preserve_color not in colour.MODES:
        known = f"Known are {', '.join(colour.MODES)}."
        raise unknown("preserve_color", preserve_color, colour.MODES, known)
    if tile is not None and (not isinstance(tile, int) or tile < pictures.SMALLEST):
        raise KzooError(f"tile must be a whole number of at least {pictures.SMALLEST}, got {tile!r}.")
    painter, mix = load_stylenet(net), chosen(net, style, blend)
    weights = painter.weights(mix)
    images = [images] if isinstance(images, (str, os.PathLike)) else images
    if wrong := [i for i in images if not isinstance(i, (str, os.PathLike))]:
        raise KzooError(
            f"images are paths of pictures and folders, got {type(wrong[0]).__name__}: `paint` takes arrays."
        )
    files = [p for i in images for p in (pictures.picture_files(i) if Path(i).is_dir() else [Path(i)])]
    folder = Path(out or f"{Path(net).name}-painted")
    (twice, n), *_ = Counter(p.stem for p in files).most_common(1) or [("", 0)]
    if n > 1:
        raise KzooError(f"Two pictures would both become {shown(folder / twice)}.png: rename one.")
    targets, sources = {f: folder / f"{f.stem}.png" for f in files}, {f.resolve() for f in files}
    there = next((p for p in targets.values() if os.path.lexists(p) and p.resolve() not in sources), None)
    if there and not force:
        raise KzooError(f"{shown(there)} exists: --force (force=True) replaces it, or give another --out.")
    make_folder(folder)
    record = {
        "settings": {},
        "stylenet": str(net),
        "styles": {n: round(float(w), 4) for n, w in zip(painter.styles, weights, strict=True)},
        "preserve_color": preserve_color,
    }
    written, bad = [], []
    with progress("pictures", quiet) as bar:
        bar.start("painting", len(files))
        for file, target in targets.items():
            try:
                if target.resolve() in sources:  # its own picture, or another
                    raise DataError(
                        f"{shown(target)} is a picture to paint, and would be overwritten: give another --out."
                    )
                picture = pictures.read_picture(file)
                if size:
                    picture = pictures.to_uint8(pictures.resized(picture, pictures.fitted(picture.shape, size)))
                    pictures.checked(picture, f"{shown(file)} at --size {size}")
                painted = paint(painter, picture, mix, rows=tile or _rows(painter, picture, shown(file)))
                pictures.write_picture(target, coloured(painted, picture, preserve_color), record)
                written.append(target)
            except DataError as e:
                bad.append(file)
                say(str(e))
            except Exception as e:
                if not (shortage := out_of_memory(e)):
                    raise
                bad.append(file)
                say(f"{shown(file)} needs more memory than there is ({shortage}): give a --size, or a --tile.")
            bar.advance(1)
    if bad:
        raise pictures.failed_pictures(bad, files, written)
    return written


def _rows(net, picture, name):
    """None for a picture to be computed in one piece, else the rows of a strip; DataError if it fits neither way."""
    free = available_memory()
    pixels = picture.shape[0] * picture.shape[1]
    # Networks of 0.1.0 may compute in 16 bits, where strips round otherwise.
    large = pixels > LARGE and len(net.model.inputs) > 1
    if not large and (free is None or pixels * net.width * BYTES <= free):
        return None
    need = pixels * net.width * strips.BYTES
    if free is not None and need > free:
        raise DataError(
            f"{name} needs about {need / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free: give a --size."
        )
    return ROWS
