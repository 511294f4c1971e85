"""The network below the classifier: its weights, its name in the feature cache, and how it becomes a model.

Keras is imported where a network is built and nowhere else: what is in the caches is used without it.
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from kzoo.catalog import ModelSpec, Preprocessing, Weights, list_models, spec
from kzoo.catalog.pretrained import OFFLINE_BACKBONE, RECOGNISED, recognised_shape
from kzoo.catalog.shipped import path_of
from kzoo.errors import KzooError, RunError
from kzoo.files import sha256, write_atomically
from kzoo.finetuning.features import Cache, cache_dir
from kzoo.hardware import auto_precision, backend, cores, describe, load_keras, processor, without_devices
from kzoo.tasks import find

log = logging.getLogger("kzoo")
MIB = 1 << 20


@dataclass(frozen=True)
class Backbone:
    """A network of the catalog with weights, an input shape and a precision; `path` is the weights' file."""

    row: ModelSpec
    weights: Weights
    path: Path
    sha256: str
    input_shape: tuple[int, int, int]
    preprocessing: Preprocessing
    precision: str
    config: dict

    @property
    def name(self):
        return self.row.name

    def key(self):
        """All that the features depend on, beside the pictures."""
        return {
            "model": self.name,
            "architecture": self.row.architecture,
            "weights": self.sha256,
            "config": {k: repr(v) for k, v in sorted(self.config.items())},
            "input_shape": list(self.input_shape),
            "preprocessing": self.preprocessing.to_dict(),
            "precision": self.precision,
            "backend": backend(),
        }

    def cache(self):
        return Cache(self.key())

    def about_weights(self):
        """For the record."""
        w = self.weights
        return {
            "tag": w.tag,
            "file": str(self.path),
            "sha256": self.sha256,
            "licence": w.licence,
            "source": w.source,
            "top1": w.top1,
        }


def backbone(model=None, weights=None, *, input_shape=None, precision=None):
    """The Backbone for what a user named.

    Args:
        model: a name, a ModelSpec, or None for the model of the best weights found locally.
        weights: a tag, a path, a Weights row, or None for the best found locally, without a download.
        input_shape: (height, width, channels) in place of the published one.
        precision: "float32", "bfloat16", "float16", or None and "auto" for what this machine is fast in.

    Raises:
        RunError: no weights are found locally, with what a download would give.
    """
    if weights is None:
        from kzoo.weights import matches

        # Keras may leave half a download under the final name: such a file does not count.
        found = next((item for item in found_locally(model) if matches(item[2], item[1].hash)), None)
        if not found:
            raise RunError(
                f"No pretrained weights were found locally{f' for {spec(model).name}' if model else ''}. "
                f"{download_advice(model)}".rstrip()
            )
        row, weights, path = found
    else:
        from kzoo.weights import fetch, resolve

        if model is None:
            raise RunError("Say which model these weights are for: --model NAME; kzoo list shows all.")
        row = spec(spec(model).name)
        weights = resolve(row, weights)
        path = fetch(weights)
    size = input_shape or recognised_shape(weights) or row.input_shape
    preprocessing = weights.preprocessing or row.preprocessing
    if precision in (None, "auto"):
        precision = machine()["precision"]
    config = {**row.config, **weights.config}
    return Backbone(row, weights, Path(path), sha256(path), tuple(size), preprocessing, precision, config)


def found_locally(model=None):
    """(row, Weights, path) of weights that lie on this machine, the most accurate on ImageNet first.

    kzoo's own come last, and without a model only those that fine-tuning falls back on.
    """
    from kzoo.files import data_folders
    from kzoo.weights.fetch import cache_dir as downloads
    from kzoo.weights.fetch import neighbours

    names = list_models() if model is None else [spec(model).name]
    found = []
    for name in names:
        row = spec(name)
        for w in row.weights:
            if w.source == "kzoo":
                if model is not None or (name, w.tag) == OFFLINE_BACKBONE:
                    found.append((row, w, path_of(w.file)))
                continue
            file = w.file.rpartition("/")[2]
            found += [(row, w, p) for p in (downloads() / file, *neighbours(file)) if p.is_file()]
        for w, _ in RECOGNISED.get(name, ()):
            path = next((p / "weights" / w.file for p in data_folders() if (p / "weights" / w.file).is_file()), None)
            if path:
                found.append((row, replace(w, file=str(path)), path))
    return sorted(found, key=lambda item: -(item[1].top1 or 0))


def download_advice(model=None, better_than=0.0):
    """A sentence on what a download would give, or "". better_than: top-1 of the weights found locally."""
    wanted = (
        [(spec(model), w) for w in spec(model).weights] if model else [(spec(n), spec(n).weights[0]) for n in SUGGESTED]
    )
    offers = [
        f"kzoo finetune --model {row.name} --weights {w.tag} would download {w.size / MIB:,.0f} MiB "
        f"({w.top1:.1f} % top-1 on ImageNet)"
        for row, w in wanted
        if w.top1 and w.size and w.top1 > better_than
    ]
    return "; ".join(offers[-2:]) + "." if offers else ""


SUGGESTED = ("mobilenet_v2", "resnet50_v1_5")  # a small and a good one


def machine():
    """{"precision", "why", "hardware"} of this machine, from a memo of an earlier run if nothing changed.

    The memo spares a second run TensorFlow's import; its name hashes the processor, the GPU devices and the versions.
    """
    if without_devices():
        precision, why = auto_precision()
        return {"precision": precision, "why": why, "hardware": describe()}
    names = ("keras", "tensorflow", "jax", "jaxlib")
    cpu, flags = processor()
    devices = sorted(glob.glob("/dev/nvidia[0-9]*") + glob.glob("/dev/accel*"))
    facts = [
        cpu,
        sorted(flags),
        cores(),
        os.cpu_count(),
        devices,
        os.environ.get("CUDA_VISIBLE_DEVICES"),
        backend(),
        [package(n) for n in names],
    ]
    path = cache_dir() / f"machine-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}.json"
    try:
        memo = json.loads(path.read_text("utf-8"))
        if memo["precision"] in ("float32", "bfloat16"):
            return memo
    except (OSError, ValueError, KeyError, TypeError):
        pass
    load_keras()
    precision, why = auto_precision()
    memo = {"precision": precision, "why": why, "hardware": describe()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path, "w") as f:
            json.dump(memo, f)
    except (OSError, KzooError):
        pass  # the features will say what is wrong with that folder
    return memo


def package(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None


# --- with Keras ------------------------------------------------------------------------------------------


@contextmanager
def _quietly():
    """Without the note that the classifier is left out: it is meant to be."""
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def feature_network(backbone):
    """The Keras model: images to features (B, D) in float32 or 16 bits. A map that is left is averaged."""
    import keras

    from kzoo.builder import build, computing_in

    with _quietly():
        model = build(
            backbone.row,
            num_classes=None,
            input_shape=backbone.input_shape,
            preprocessing=backbone.preprocessing,
            precision=backbone.precision,
            weights=replace(backbone.weights, file=str(backbone.path)),
            **{k: v for k, v in backbone.weights.config.items()},
        )
    if len(model.outputs) > 1:
        model = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    if len(model.output_shape) > 2:
        with computing_in(backbone.precision):
            x = keras.layers.GlobalAveragePooling2D(name="features_pool")(model.output)
        model = keras.Model(model.inputs[0], x, name=model.name)
    return model


def with_head(features, classes):
    """The whole network: the task's last layer, all zero, behind the features. A flat graph, as all of kzoo's.

    Args:
        features: a model whose output is (B, D).
        classes: names, by number.
    """
    import keras

    outputs = find("classification").head(features.output, classes, kernel_initializer="zeros")
    return keras.Model(features.inputs[0], outputs, name=features.name)


class FeatureExtractor:
    """The backbone as a model, and what `features` needs of it, each built when it is first asked for, only once."""

    def __init__(self, backbone):
        self.backbone = backbone

    @cached_property
    def model(self):
        load_keras()
        return feature_network(self.backbone)

    @cached_property
    def predict(self):
        from kzoo.graph.inference import predictor

        return predictor(self.model)

    @cached_property
    def prepare(self):
        load_keras()
        return input_preparer(self.backbone)

    def __call__(self):
        return self.prepare, lambda: self.predict


def input_preparer(backbone):
    """A function (image, view) to the network's input, uint8 (H, W, C); view 0 is the image as prediction sees it."""
    from kzoo.data import images

    height, width, channels = backbone.input_shape
    one = images.make_preparer(backbone.input_shape, backbone.preprocessing)

    def prepare(image, view=0):
        if isinstance(image, np.ndarray):
            x = images.with_channels(image, channels) if image.shape[-1] != channels else image
            x = np.asarray(images.fit(x, height, width, backbone.preprocessing))
        else:
            x = one(image)
        return augmented(x, view) if view else x

    return prepare


def augmented(x, view):
    """View 1 is the mirror image; later ones are crops of 80 to 100 % of the side, every second one mirrored."""
    import tensorflow as tf

    if view > 1:
        rng = np.random.default_rng([view, int(x[:: max(len(x) // 8, 1)].sum())])
        height, width = x.shape[:2]
        share = rng.uniform(0.8, 1.0)
        h, w = max(1, round(height * share)), max(1, round(width * share))
        top, left = rng.integers(0, height - h + 1), rng.integers(0, width - w + 1)
        crop = tf.image.resize(x[top : top + h, left : left + w], (height, width), antialias=True)
        x = np.clip(np.round(crop.numpy()), 0, 255).astype("uint8")
    return x[:, ::-1] if view % 2 else x
