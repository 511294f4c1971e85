"""Write a model's file without Keras: a copy of the cached network's file with a new head's weights, and its audit.

The cached file is called the template: the whole network with random weights in the head.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kzoo.errors import RunError
from kzoo.files import write_atomically
from kzoo.finetuning.audit import array_hash, compare
from kzoo.finetuning.backbone import FeatureExtractor, with_head
from kzoo.finetuning.features import Cache
from kzoo.runs import save_model

MODEL_H5, HASH = "model.weights.h5", "kzoo.json"  # members of every .keras file of kzoo
TEMPLATE = "template.json"  # the member that only a template has


def template(extractor: FeatureExtractor, classes: Sequence[str], cache: Cache) -> Path:
    """Return the template's file in the cache. It is built with Keras if it is missing or corrupt.

    Beside Keras' own members the file has template.json: the paths of the head's variables, and the SHA-256 of all
    others as they were in the network that was built from the weights' file. The audit compares with these.

    Args:
        extractor: the backbone as a model.
        classes: names, by number.
        cache: the backbone's.

    Raises:
        RunError: the saved weights are not those of the network, which is a bug.
    """
    path = cache.folder / f"network-{len(classes)}.keras"
    if is_intact(path):
        return path
    model = with_head(extractor.model, classes)
    head = model.get_layer("predictions")
    rng = np.random.default_rng(0)
    for v in head.weights:  # random numbers, by whose hash the variables are found in the file
        v.assign(rng.normal(size=v.shape))
    marks = {v.path.rpartition("/")[2]: array_hash(np.asarray(v)) for v in head.weights}
    wanted = sorted(array_hash(np.asarray(v)) for v in extractor.model.weights)
    save_model(model, path)
    with zipfile.ZipFile(path) as archive:
        found = hashes_in(archive.read(MODEL_H5))
    places = {name: next(p for p, h in found.items() if h == mark) for name, mark in marks.items()}
    frozen = {p: h for p, h in found.items() if p not in places.values()}
    if sorted(frozen.values()) != wanted:
        raise RunError(f"The weights in {path} are not those of the network that was saved: this is a bug of kzoo.")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(TEMPLATE, json.dumps({"places": places, "frozen": frozen}))
    return path


def is_intact(path: str | os.PathLike) -> bool:
    """Return whether a template exists and its weights have the hash that was recorded."""
    try:
        with zipfile.ZipFile(path) as archive:
            recorded = json.loads(archive.read(HASH))["weights_sha256"]
            return (
                hashlib.sha256(archive.read(MODEL_H5)).hexdigest() == recorded
                and archive.testzip() is None
                and {"places", "frozen"} <= json.loads(archive.read(TEMPLATE)).keys()
            )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return False


def fill(path: str | os.PathLike, kernel: np.ndarray, bias: np.ndarray, out: str | os.PathLike) -> None:
    """Write the template's network with the weights of a head, as `runs.save_model` would; completely or not at all.

    Args:
        path: the template.
        kernel: (D, classes).
        bias: (classes,).
        out: the .keras file to write.
    """
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    places = json.loads(members.pop(TEMPLATE))["places"]
    file = io.BytesIO(members[MODEL_H5])
    with h5py.File(file, "r+") as f:
        f[places["kernel"]][...] = kernel
        f[places["bias"]][...] = bias
    members[MODEL_H5] = file.getvalue()
    members[HASH] = json.dumps({"weights_sha256": hashlib.sha256(members[MODEL_H5]).hexdigest()}).encode()
    with write_atomically(out) as f, zipfile.ZipFile(f, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def audit_file(path: str | os.PathLike, template_path: str | os.PathLike) -> dict[str, Any]:
    """Run the freeze audit of a head: read the model's file again and hash each frozen variable.

    Args:
        path: the model's file.
        template_path: the template that it was written from.

    Returns:
        {"ok", "frozen_checked", "moved", "text"}, as `kzoo.finetuning.audit.compare` does.
    """
    with zipfile.ZipFile(template_path) as archive:
        record, before = json.loads(archive.read(TEMPLATE)), hashes_in(archive.read(MODEL_H5))
    with zipfile.ZipFile(path) as archive:
        after = hashes_in(archive.read(MODEL_H5))
    return compare({**before, **record["frozen"]}, after, set(record["places"].values()))


def hashes_in(h5: bytes) -> dict[str, str]:
    """Return {path: SHA-256} of all floating-point arrays in the bytes of an HDF5 file."""
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset) and item.dtype.kind == "f":
            found[name] = array_hash(item[...])

    with h5py.File(io.BytesIO(h5), "r") as f:
        f.visititems(visit)
    return found


def parameters(path: str | os.PathLike) -> int:
    """Return the number of parameters of a template's network, those that don't train included."""
    total = 0

    def visit(name, item):
        nonlocal total
        total += item.size if isinstance(item, h5py.Dataset) else 0

    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read(MODEL_H5)), "r") as f:
        f.visititems(visit)
    return int(total)
