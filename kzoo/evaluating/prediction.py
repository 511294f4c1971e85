"""Classify image files, and the images of an .npz, with a run, an export, or a model of the catalog with weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kzoo.data import images
from kzoo.data.guards import as_uint8, is_clutter, npy
from kzoo.data.sources.arrays import is_images, load_arrays
from kzoo.errors import DataError
from kzoo.evaluating.loading import load_model
from kzoo.evaluating.tiles import check_tiles, tiled
from kzoo.files import write_atomically
from kzoo.progress import say

MAX_BATCH_BYTES = 1 << 28  # of encoded images: a batch of large files has fewer images


def predict(
    run: Any,
    paths: str | os.PathLike | Iterable[str | os.PathLike],
    *,
    top: int = 5,
    batch_size: int = 32,
    weights: Any = None,
    trust: bool = False,
    out: str | os.PathLike | None = None,
    tiles: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[dict]:
    """Classify image files. They are read batch by batch, so their number is not limited by memory.

    An .npz is read whole. Its images are named by file, array and number, such as "data.npz/x_test/0".

    Args:
        run: a run folder or a Run, an export, a name of the catalog, or a `kzoo.evaluating.loading.LoadedModel`. A
            list of these is an ensemble: their probabilities, each after its temperature, are averaged.
        paths: one path or several; a folder stands for the files in it, an .npz for the images in its arrays.
        top: the number of classes in an answer, at least 1.
        batch_size: the number of images that are computed at once.
        weights: for a name of the catalog: a tag or a file; the first published set by default.
        trust: load an export with any operations, which may read and write files.
        out: a folder for the masks of segmentation: NAME.png with the class numbers as a palette, and NAME-overlay.png
            with the colours over the picture, for an image NAME.jpg. Nothing that exists is replaced.
        tiles: for masks: keep each picture's own resolution, and cut it into overlapping tiles of the network's input
            size. Without it a picture is resized to that size, and its mask back.
        progress: called after each batch as progress(images done, number of images).

    Returns:
        An iterator over a dict for each file, in order: {"image": path, "top": [{"class": name, "probability": p},
        ...]}, with "abstain" for an export with a conformal threshold, or {"image": path, "error": reason} for a file
        that can't be read. Answers of other tasks have other keys: segmentation gives shares of the pixels, and "mask",
        a PNG of the picture's size in Base64. Probabilities of an export are calibrated; those of
        a run are its softmax.

    Raises:
        RunError, ExportError: a run or an export that can't be read.
        DataError: a path that does not exist, or an empty folder; an `out` for a model without masks, or in which a
            file would be replaced.
        KzooError: members of an ensemble with other classes, one member only, or one twice.

    Example:
        >>> run = kzoo.train("mnist_softmax", "digits", epochs=1, out="runs/example3", quiet=True)
        >>> list(kzoo.predict(run, "runs/example3/labels.txt"))[0]["error"]
        'is not a JPEG, PNG, GIF, BMP or WebP image'
    """
    if top < 1:
        raise DataError(f"top must be at least 1, got {top}.")
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    files = [f for path in paths for f in _expand(path)]
    files = [f for path in files for f in (_of_arrays(path) if path.endswith(".npz") else [(path, None)])]
    model = load_model(run, weights, trust=trust)
    if tiles:
        say(check_tiles(model).text)
    names = [None] * len(files) if out is None else _names(model, files, Path(out))

    def answer(encoded):
        return [tiled(model, data, top, batch_size) for data in encoded] if tiles else model.answer(encoded, top)

    return _predict(model, answer, files, names, batch_size, progress)


def _names(model, files, out):
    """The files that are written for each image, without their suffix."""
    if not model.task.pictures:
        raise DataError(f"out is for masks; the answers of a model for {model.task.name} are no pictures.")
    names = [out / os.path.splitext(os.path.basename(path))[0] for path, _ in files]
    seen = set()
    for name, (path, _) in zip(names, files, strict=True):
        if name in seen:
            raise DataError(
                f"Two images would be written as {images.shown(name)}.png: predict them one after the other."
            )
        seen.add(name)
        if any(os.path.lexists(f"{name}{end}.png") for end in ("", "-overlay")):
            raise DataError(
                f"The mask of {images.shown(path)} would replace one in {images.shown(out)}: choose another folder."
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise DataError(f"The folder '{images.shown(out)}' can't be made ({e.strerror}).") from e
    return names


def _predict(model, answer, files, names, batch_size, progress):
    results, good = [], []
    for done, (path, array) in enumerate(files, 1):
        result = {"image": path}
        try:
            good.append(images.read(path) if array is None else npy(array))
        except (DataError, OSError) as e:
            result["error"] = e.strerror or str(e) if isinstance(e, OSError) else str(e)
        results.append(result)
        if len(results) == batch_size or done == len(files) or sum(map(len, good)) > MAX_BATCH_BYTES:
            answers = iter(answer(good) if good else ())
            encoded = iter(good)
            for result, name in zip(results, names[done - len(results) : done], strict=True):
                if "error" not in result:
                    result.update(next(answers))
                    data = next(encoded)
                    if name and "error" not in result:
                        for end, png in model.task.drawn(result, data).items():
                            with write_atomically(f"{name}{end}.png") as f:
                                f.write(png)
            if progress:
                progress(done, len(files))
            yield from results
            results, good = [], []


def _of_arrays(path):
    """(name, array) of each image in an .npz; those of arrays that are named as images, or of the only array."""
    arrays = load_arrays(path)
    named = {key: array for key, array in arrays.items() if is_images(key) or len(arrays) == 1}
    if not named:
        raise DataError(
            f"'{images.shown(path)}' must hold an array of images, such as images or x_test; it holds "
            f"{', '.join(map(images.shown, sorted(arrays))) or 'nothing'}."
        )
    found = []
    for key, array in named.items():
        whole = np.issubdtype(array.dtype, np.integer) and array.ndim in (3, 4) and array.size
        if whole and array.min() >= 0 and array.max() < 2**16:  # the model knows how many bits are used
            array = array.astype(np.uint16) if array.dtype != np.uint8 else array
        else:
            array = as_uint8(array)
        found += [(f"{path}/{key}/{i}", image) for i, image in enumerate(array)]
    return found


def _expand(path):
    """The path itself, or the files in the folder."""
    path = os.fspath(path)
    if os.path.isdir(path):
        try:
            files = sorted(e.path for e in os.scandir(path) if e.is_file() and not is_clutter(e.name))
        except OSError as e:
            raise DataError(f"The folder '{images.shown(path)}' can't be read ({e.strerror}).") from e
        if not files:
            raise DataError(f"The folder '{images.shown(path)}' has no files.")
        return files
    if not os.path.exists(path):
        raise DataError(f"There is no file '{images.shown(path)}'.")
    return [path]
