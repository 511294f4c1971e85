"""Classify images of every form with a run, an export, a Keras model, or a model of the catalog with weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

from kzoo.data import images
from kzoo.errors import DataError
from kzoo.evaluating.inputs import named_images
from kzoo.evaluating.loading import LoadedModel, load_model
from kzoo.evaluating.tiles import check_tiles, tiled
from kzoo.files import write_atomically
from kzoo.progress import say

MAX_BATCH_BYTES = 1 << 28  # of encoded images: a batch of large files has fewer images


def predict(
    run: Any,
    paths: Any,
    *,
    top: int = 5,
    batch_size: int = 32,
    weights: Any = None,
    trust: bool = False,
    out: str | os.PathLike | None = None,
    tiles: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[dict]:
    """Classify images. Files are read batch by batch, so their number is not limited by memory.

    An .npz is read whole. Its images are named by file, array and number, such as "data.npz/x_test/0".

    Args:
        run: a run folder or a Run, an export, a name of the catalog, a Keras model or its .keras file, or what
            `kzoo.load` gave, which is faster for many calls. A list of these is an ensemble: their probabilities, each
            after its temperature, are averaged.
        paths: one image or several: paths (a folder stands for the files in it, an .npz for the images in its arrays),
            bytes of image files, arrays (H, W), (H, W, C) or (N, H, W, C) in 0..255, PIL images; or a tf.data set of
            images, batches or encoded images, with or without labels. What has no path is named by its position. An
            iterator, such as a generator of paths, and a tf.data set are read as they are asked for.
        top: the number of classes in an answer, at least 1.
        batch_size: the number of images that are computed at once.
        weights: for a name of the catalog: a tag or a file; the first published set by default.
        trust: load an export with any operations, which may read and write files.
        out: a folder for the masks of segmentation: NAME.png with the class numbers as a palette, and NAME-overlay.png
            with the colours over the picture, for an image NAME.jpg. Nothing that exists is replaced.
        tiles: for masks: keep each picture's own resolution, and cut it into overlapping tiles of the network's input
            size. Without it a picture is resized to that size, and its mask back.
        progress: called after each batch as progress(images done, number of images); what is read as it is asked for
            has no number, and gives that of the images done.

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
    model = load_model(run, weights, trust=trust)
    files, total = named_images(paths, model.channels)
    answer = answering(model, top, batch_size, tiles)
    names = repeat(None) if out is None else iter(_names(model, files := list(files), Path(out)))
    return _predict(model, answer, files, total, names, batch_size, progress)


def answering(
    model: LoadedModel, top: int, batch_size: int, tiles: bool = False
) -> Callable[[Sequence[bytes]], list[dict]]:
    """The function of encoded images that gives their answers.

    Args:
        model: of `load_model`.
        top, batch_size, tiles: as for `predict`.

    Raises:
        DataError: tiles for a model that has none.
    """
    if not tiles:
        return lambda encoded: model.answer(encoded, top)
    say(check_tiles(model).text)
    return lambda encoded: [tiled(model, data, top, batch_size) for data in encoded]


def _names(model, files, out):
    """The files that are written for each image, without their suffix."""
    if not model.task.pictures:
        raise DataError(
            f"out is a folder for masks, and the answers of a model for {model.task.name} are no pictures: rows "
            "go into --out FILE.jsonl or FILE.csv (kzoo.evaluating.many.predict_files)."
        )
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


def _predict(model, answer, files, total, names, batch_size, progress):
    done = 0
    for batch in _batches(files, batch_size):
        results = _rows(batch, answer)
        for result, (_, data), name in zip(results, batch, names, strict=False):
            if name and "error" not in result:
                for end, png in model.task.drawn(result, data).items():
                    with write_atomically(f"{name}{end}.png") as f:
                        f.write(png)
        done += len(results)
        if progress:
            progress(done, done if total is None else total)
        yield from results


def answered(
    files: Iterable[tuple[str, Any]], answer: Callable[[Sequence[bytes]], list[dict]], batch_size: int
) -> Iterator[dict]:
    """The rows of `predict`.

    Args:
        files: (name, the path, the encoded image, or the DataError that says why there is none) of each.
        answer: of `answering`.
        batch_size: the number of images that are computed at once.
    """
    for batch in _batches(files, batch_size):
        yield from _rows(batch, answer)


def _rows(batch, answer):
    good = [data for _, data in batch if isinstance(data, bytes)]
    answers = iter(answer(good) if good else ())
    return [{"image": name, **(next(answers) if isinstance(data, bytes) else {"error": data})} for name, data in batch]


def _batches(files, batch_size):
    """Batches of (name, encoded image, or the reason why a file can't be read)."""
    batch, size = [], 0
    for name, data in files:
        if not isinstance(data, bytes):
            try:
                if isinstance(data, DataError):
                    raise data
                data = images.read(data)
            except (DataError, OSError) as e:
                data = e.strerror or str(e) if isinstance(e, OSError) else str(e)
        batch.append((name, data))
        size += len(data)
        if len(batch) == batch_size or size > MAX_BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
