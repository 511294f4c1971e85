"""A model's file written without Keras: the cached network with a new head put in, and the audit of what came of it."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile

import h5py
import numpy as np

from kzoo.errors import RunError
from kzoo.files import write_atomically
from kzoo.finetuning.audit import array_hash, compare
from kzoo.finetuning.backbone import with_head
from kzoo.runs import save_model

MODEL_H5, HASH, HEAD = "model.weights.h5", "kzoo.json", "template.json"


def template(extractor, classes, cache):
    """The file of the whole network with an empty head, in the cache; built with Keras if it is not there or damaged.

    Beside Keras' own members it has the places of the head's variables and the SHA-256 of all others, as they were in
    the network that was built from the weights' file: the audit's measure.
    """
    path = cache.folder / f"network-{len(classes)}.keras"
    if whole(path):
        return path
    model = with_head(extractor.model, classes)
    head = model.get_layer("predictions")
    rng = np.random.default_rng(0)
    for v in head.weights:  # numbers by which their places in the file are found
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
        archive.writestr(HEAD, json.dumps({"places": places, "frozen": frozen}))
    return path


def whole(path):
    """Whether a template is there and every byte of its weights is what it was."""
    try:
        with zipfile.ZipFile(path) as archive:
            recorded = json.loads(archive.read(HASH))["weights_sha256"]
            return (
                hashlib.sha256(archive.read(MODEL_H5)).hexdigest() == recorded
                and archive.testzip() is None
                and {"places", "frozen"} <= json.loads(archive.read(HEAD)).keys()
            )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return False


def fill(path, kernel, bias, out):
    """Write the template's network with this head to `out`, whole or not at all; as runs.save_model would."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    places = json.loads(members.pop(HEAD))["places"]
    file = io.BytesIO(members[MODEL_H5])
    with h5py.File(file, "r+") as f:
        f[places["kernel"]][...] = kernel
        f[places["bias"]][...] = bias
    members[MODEL_H5] = file.getvalue()
    members[HASH] = json.dumps({"weights_sha256": hashlib.sha256(members[MODEL_H5]).hexdigest()})
    with write_atomically(out) as f, zipfile.ZipFile(f, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def audit_file(path, template_path):
    """The freeze audit of a head: the model's file is read again, and each frozen variable hashed.

    Returns {"ok", "frozen_checked", "moved", "text"} as `kzoo.finetuning.audit.compare` does.
    """
    with zipfile.ZipFile(template_path) as archive:
        record, before = json.loads(archive.read(HEAD)), hashes_in(archive.read(MODEL_H5))
    with zipfile.ZipFile(path) as archive:
        after = hashes_in(archive.read(MODEL_H5))
    return compare({**before, **record["frozen"]}, after, set(record["places"].values()))


def hashes_in(h5):
    """{path: SHA-256 of the array} of all arrays in the bytes of an HDF5 file of Keras' weights."""
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset) and item.dtype.kind == "f":
            found[name] = array_hash(item[...])

    with h5py.File(io.BytesIO(h5), "r") as f:
        f.visititems(visit)
    return found


def parameters(path):
    """How many numbers a template's network has."""
    total = 0

    def visit(name, item):
        nonlocal total
        total += item.size if isinstance(item, h5py.Dataset) else 0

    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read(MODEL_H5)), "r") as f:
        f.visititems(visit)
    return int(total)
