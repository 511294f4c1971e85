"""What a trained model sees in images: a run, an export, or a model of the catalog with weights."""

from __future__ import annotations

import os

import numpy as np

from kzoo import runs
from kzoo.data import images
from kzoo.errors import DataError

HELD = 1 << 28  # bytes of encoded images in a batch, however few they are


def predict(run, paths, *, top=5, batch_size=32, weights=None, progress=None):
    """Classify image files, however many: they are read batch by batch.

    run: a run folder or a Run, an export, or a name of the catalog; weights: for such a name, a tag or a file, by
        default the first published set. paths: one path or several; folders give the files in them. top: how many
        classes. progress: called as progress(done, all).

    Yields a dict for each file, in order: {"image": path, "top": [{"class": name, "probability": p}, ...]} (and
    "abstain", where an export has a threshold), or {"image": path, "error": reason} for one that can't be read.
    Probabilities of an export are calibrated, those of a run are its softmax. Raises RunError, ExportError, and
    DataError for a path that does not exist.

    >>> run = kzoo.train("mnist_softmax", "digits", epochs=1, out="runs/example3", quiet=True)
    >>> list(kzoo.predict(run, "runs/example3/labels.txt"))[0]["error"]
    'is not a JPEG, PNG, GIF, BMP or WebP image'
    """
    if top < 1:
        raise DataError(f"top must be at least 1, got {top}.")
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    files = [f for path in paths for f in _expand(path)]
    return _predict(classifier(run, weights, top), files, batch_size, progress)


def classifier(run, weights, top):
    """A function: a list of encoded images to a list of {"top"} or {"error"}."""
    from kzoo.exporting.reader import Export, is_export

    if isinstance(run, Export):
        return lambda encoded: run.classify(encoded, top)
    if isinstance(run, (str, os.PathLike)) and weights is None and is_export(run):
        export = Export(run)
        return lambda encoded: export.classify(encoded, top)
    if isinstance(run, (str, os.PathLike)) and not os.path.isdir(run) and os.sep not in os.fspath(run):
        from kzoo.exporting.source import find

        source = find(run, weights=weights)
        return _network(source.model, source.shape, source.preprocessing, source.classes, top)
    if weights is not None:
        raise DataError("weights go with a name of the catalog; a run or an export brings its own.")
    run = run if isinstance(run, runs.Run) else runs.load_run(run)
    return _network(run.model, run.input_shape, run.preprocessing, run.classes, top)


def _network(model, shape, preprocessing, classes, top):
    from kzoo.graph.inference import predictor
    from kzoo.metrics import softmax

    prepare, network = images.make_preparer(shape, preprocessing), predictor(model)

    def classify(encoded):
        results, good = [], []
        for data in encoded:
            try:
                good.append(prepare(data))
                results.append({})
            except DataError as e:
                results.append({"error": str(e)})
        probabilities = iter(softmax(network(np.stack(good))) if good else ())
        for result in results:
            if not result:
                p = next(probabilities)
                best = np.argsort(-p, kind="stable")[:top]
                result["top"] = [{"class": classes[i], "probability": float(p[i])} for i in best]
        return results

    return classify


def _predict(classify, files, batch_size, progress):
    results, good = [], []
    for done, path in enumerate(files, 1):
        result = {"image": path}
        try:
            good.append(images.read(path))
        except (DataError, OSError) as e:
            result["error"] = e.strerror or str(e) if isinstance(e, OSError) else str(e)
        results.append(result)
        if len(results) == batch_size or done == len(files) or sum(map(len, good)) > HELD:
            answers = iter(classify(good) if good else ())
            for result in results:
                if "error" not in result:
                    result.update(next(answers))
            if progress:
                progress(done, len(files))
            yield from results
            results, good = [], []


def _expand(path):
    path = os.fspath(path)
    if os.path.isdir(path):
        try:
            files = sorted(e.path for e in os.scandir(path) if e.is_file() and not e.name.startswith("."))
        except OSError as e:
            raise DataError(f"The folder '{images.shown(path)}' can't be read ({e.strerror}).") from e
        if not files:
            raise DataError(f"The folder '{images.shown(path)}' holds no files.")
        return files
    if not os.path.exists(path):
        raise DataError(f"There is no file '{images.shown(path)}'.")
    return [path]
