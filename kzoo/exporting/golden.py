"""The golden set: a few real images, encoded, with their prepared pixels and the logits of the unchanged network."""

from __future__ import annotations

import keras
import numpy as np

from kzoo.data.images import make_preparer
from kzoo.data.sources.arrays import load_arrays
from kzoo.errors import DataError, ExportError
from kzoo.exporting.source import candidates
from kzoo.files import write_atomically

SIZE = 8  # images
FILE = "golden.npz"


def reference(model):
    """The network as it is, nothing folded, in float32: a function from prepared uint8 images to logits.

    It shares no code with the inference form, so that a mistake there shows.
    """

    def in_float32(layer):  # operations such as padding (LeNet-5's) have no precision of their own
        if not isinstance(layer, keras.layers.Layer):
            return layer
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

    clone = keras.models.clone_model(model, clone_function=in_float32)
    clone.set_weights([np.asarray(keras.ops.convert_to_numpy(w), "float32") for w in model.weights])

    def logits(x):
        parts = [clone(x[i : i + 32].astype("float32"), training=False) for i in range(0, len(x), 32)]
        return np.concatenate([keras.ops.convert_to_numpy(p) for p in parts]).astype("float32")

    return logits


def choose(source, logits):
    """The golden set of a Source, as arrays for an .npz; logits: its reference.

    Of the candidates those that the network is surest of, class after class as it sees them: an image that it can
    hardly tell would flip by rounding alone.
    """
    prepare = make_preparer(source.shape, source.preprocessing)
    found = []
    for name, data, label in candidates(source):
        try:
            found.append((name, data, -1 if label is None else label, prepare(data)))
        except DataError:
            continue
    if not found:
        raise ExportError(f"{source.name} has no image that can be decoded, so nothing could be proved.")
    values = logits(np.stack([f[3] for f in found]))
    if not np.isfinite(values).all():
        raise ExportError(f"{source.name} computes NaN or infinity; nothing was exported.")
    groups, margin = source.task.certainty(values)
    turns, seen = {}, []
    for i in np.argsort(-margin, kind="stable"):
        turns[groups[i]] = turns.get(groups[i], 0) + 1
        seen.append((turns[groups[i]], i))
    chosen = [i for _, i in sorted(seen, key=lambda t: t[0])[:SIZE]]
    data = [found[i][1] for i in chosen]
    return {
        "names": np.array([found[i][0].encode("utf-8", "backslashreplace").decode() for i in chosen]),
        "bytes": np.frombuffer(b"".join(data), np.uint8),
        "lengths": np.array([len(d) for d in data], "int64"),
        "labels": np.array([found[i][2] for i in chosen], "int64"),
        "prepared": np.stack([found[i][3] for i in chosen]),
        "logits": values[chosen],
    }


def save(path, golden):
    with write_atomically(path) as f:
        np.savez(f, **golden)


def load(path):
    """(encoded images, the arrays) of a golden.npz; ExportError if it is none."""
    try:
        golden = load_arrays(path, 1 << 28)
        lengths = golden["lengths"]
        n = len(lengths)
        if golden["logits"].ndim < 2 or golden["prepared"].ndim != 4 or n < 1:
            raise ValueError("wrong shapes")
        if {len(golden[k]) for k in ("names", "labels", "prepared", "logits")} != {n} or lengths.min() < 0:
            raise ValueError("wrong lengths")
        if int(lengths.sum()) != len(golden["bytes"]):
            raise ValueError("wrong lengths")
        ends = np.cumsum(lengths)
        whole = golden["bytes"].tobytes()
        return [whole[e - n : e] for e, n in zip(ends, lengths, strict=True)], golden
    except (DataError, KeyError, ValueError, TypeError) as e:
        raise ExportError(f"{path} can't be read ({e}).") from e
