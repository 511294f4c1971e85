"""The golden images: a few encoded images with their prepared pixels and the outputs of the unchanged network."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import keras
import numpy as np

from kzoo.data.images import make_preparer
from kzoo.data.sources.arrays import load_arrays
from kzoo.errors import DataError, ExportError
from kzoo.files import write_atomically
from kzoo.graph.inference import LARGE
from kzoo.source import Source, candidates

MAX_IMAGES = 8  # of each kind: certain, and near a decision
MAX_OUTPUTS = 1 << 26  # bytes of the outputs of one kind: large outputs have fewer images
MAX_FILE_BYTES = 1 << 28
FILE = "golden.npz"


def reference(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """The unchanged network in float32, without folded batch norms.

    It shares no code with the inference form, so that a mistake there is found. A network that computes in float32 is
    its own reference; of another one this makes a copy.

    Args:
        model: images (B, H, W, C) to outputs (B, ...).

    Returns:
        A function from prepared uint8 images (N, H, W, C) to outputs (N, ...), float32.
    """

    def in_float32(layer):  # operations such as padding (LeNet-5's) have no precision of their own
        if not isinstance(layer, keras.layers.Layer):
            return layer
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

    own = [layer for layer in model.layers if isinstance(layer, keras.layers.Layer)]
    if any(isinstance(x, keras.Model) or {x.compute_dtype, x.variable_dtype} != {"float32"} for x in own):
        clone = keras.models.clone_model(model, clone_function=in_float32)
        clone.set_weights([np.asarray(keras.ops.convert_to_numpy(w), "float32") for w in model.weights])
        model = clone

    # Few at once: VGG-16 has feature maps of 12 MiB an image, and three of them at a time without a graph.
    many = 2 if model.count_params() >= LARGE else 8

    def logits(x):
        parts = [model(x[i : i + many].astype("float32"), training=False) for i in range(0, len(x), many)]
        return np.concatenate([keras.ops.convert_to_numpy(p) for p in parts]).astype("float32")

    return logits


def choose(source: Source, run: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
    """Choose the golden images: up to 8 candidates with the most certain predictions, and the 8 least certain others.

    The certain ones are of one predicted class at a time; each must get the same answer for ever. Rounding alone may
    change the answer for an image near a decision boundary, so of those only the outputs are compared. They are there
    because they use other features: an image whose class is plain may not show damage to a part that it does not use.

    Args:
        source: the network and its data.
        run: its `reference`.

    Returns:
        Arrays for golden.npz: "names", "bytes" (the encoded images, joined), their "lengths", "labels" (-1: unknown),
        "near" (bool: near a decision), "prepared" (N, H, W, C) and "logits" (N, ...), the outputs.

    Raises:
        ExportError: no candidate can be decoded, or outputs are not finite.
    """
    prepare = make_preparer(source.shape, source.preprocessing)
    found = []
    for name, data, label in candidates(source):
        try:
            found.append((name, data, -1 if label is None else label, prepare(data)))
        except DataError:
            continue
    if not found:
        raise ExportError(f"{source.name} has no image that can be decoded, so the export could not be checked.")
    values = run(np.stack([f[3] for f in found]))
    if not np.isfinite(values).all():
        raise ExportError(f"{source.name} gives NaN or infinite outputs; nothing was exported.")
    groups, margin = source.task.certainty(values)
    group_sizes, ranked = {}, []  # ranked: (rank within the group, index)
    for i in np.argsort(-margin, kind="stable"):
        group_sizes[groups[i]] = group_sizes.get(groups[i], 0) + 1
        ranked.append((group_sizes[groups[i]], i))
    order = [i for _, i in sorted(ranked, key=lambda pair: pair[0])]
    most = max(1, min(MAX_IMAGES, MAX_OUTPUTS // values[0].nbytes))
    certain, others = order[:most], order[most:]
    near = sorted(others, key=lambda i: margin[i])[:most]
    chosen = certain + near
    files = [found[i][1] for i in chosen]
    return {
        "names": np.array([found[i][0].encode("utf-8", "backslashreplace").decode() for i in chosen]),
        "bytes": np.frombuffer(b"".join(files), np.uint8),
        "lengths": np.array([len(f) for f in files], "int64"),
        "labels": np.array([found[i][2] for i in chosen], "int64"),
        "near": np.array([False] * len(certain) + [True] * len(near)),
        "prepared": np.stack([found[i][3] for i in chosen]),
        "logits": values[chosen],
    }


def save(path: str | os.PathLike, golden: Mapping[str, np.ndarray]) -> None:
    """Write the arrays of `choose` as an .npz file."""
    with write_atomically(path) as f:
        np.savez(f, **golden)  # type: ignore[arg-type]  # its keywords are arrays and allow_pickle


def load(path: str | os.PathLike) -> tuple[list[bytes], dict[str, np.ndarray]]:
    """Read a golden.npz.

    Args:
        path: the file.

    Returns:
        (the encoded images, the arrays of `choose`; before format 2 of the card no image was "near").

    Raises:
        ExportError: a file that can't be read or whose arrays don't fit together.
    """
    try:
        golden = load_arrays(path, MAX_FILE_BYTES)
        lengths = golden["lengths"]
        n = len(lengths)
        golden.setdefault("near", np.zeros(n, bool))
        if golden["logits"].ndim < 2 or golden["prepared"].ndim != 4 or n < 1:
            raise ValueError("wrong shapes")
        if golden["near"].dtype != bool or golden["near"].ndim != 1:
            raise ValueError("near is not a list of yes and no")
        if {len(golden[k]) for k in ("names", "labels", "near", "prepared", "logits")} != {n} or lengths.min() < 0:
            raise ValueError("wrong lengths")
        if int(lengths.sum()) != len(golden["bytes"]):
            raise ValueError("wrong lengths")
        ends = np.cumsum(lengths)
        whole = golden["bytes"].tobytes()
        return [whole[e - n : e] for e, n in zip(ends, lengths, strict=True)], golden
    except (DataError, KeyError, ValueError, TypeError) as e:
        raise ExportError(f"{path} can't be read ({e}).") from e
