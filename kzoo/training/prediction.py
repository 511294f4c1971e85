"""What a trained model sees in images."""

from __future__ import annotations

import os

import numpy as np

from kzoo.data import images
from kzoo.errors import DataError
from kzoo.inference import predictor, softmax
from kzoo.training import run as runs


def predict(run, paths, *, top=5, batch_size=32):
    """Classify image files.

    run: a run folder or a Run. paths: one path or several; folders give the files in them. top: how many classes.

    Yields a dict for each file, in order: {"image": path, "top": [{"class": name, "probability": p}, ...]}, or
    {"image": path, "error": reason} for one that can't be read. Raises RunError, and DataError for a path that does
    not exist.

    >>> run = kzoo.train("mnist_softmax", "digits", epochs=1, out="runs/example3", quiet=True)
    >>> list(kzoo.predict(run, "runs/example3/labels.txt"))[0]["error"]
    'is not a JPEG, PNG, GIF, BMP or WebP image'
    """
    if top < 1:
        raise DataError(f"top must be at least 1, got {top}.")
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    files = [f for path in paths for f in _expand(path)]
    run = run if isinstance(run, runs.Run) else runs.load_run(run)
    return _predict(run, files, top, batch_size)


def _predict(run, files, top, batch_size):
    prepare, network = images.preparer(run.input_shape, run.preprocessing), predictor(run.model)
    for start in range(0, len(files), batch_size):
        results, good = [], []
        for path in files[start : start + batch_size]:
            result = {"image": path}
            try:
                good.append(prepare(images.read(path)))
            except (DataError, OSError) as e:
                result["error"] = e.strerror or str(e) if isinstance(e, OSError) else str(e)
            results.append(result)
        if good:
            probabilities = iter(softmax(network(np.stack(good))))
            for result in results:
                if "error" not in result:
                    p = next(probabilities)
                    best = np.argsort(-p, kind="stable")[:top]
                    result["top"] = [{"class": run.classes[i], "probability": float(p[i])} for i in best]
        yield from results


def _expand(path):
    path = os.fspath(path)
    if os.path.isdir(path):
        files = sorted(e.path for e in os.scandir(path) if e.is_file() and not e.name.startswith("."))
        if not files:
            raise DataError(f"The folder '{images.shown(path)}' holds no files.")
        return files
    if not os.path.exists(path):
        raise DataError(f"There is no file '{images.shown(path)}'.")
    return [path]
