"""The backbone: the pretrained network below the classifier, its weights, its key in the feature cache, its model.

Keras is imported only where a network is built; cached features are used without it.
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
import re
import secrets
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kzoo.catalog import RULES, ModelSpec, Preprocessing, Weights, image_spec, list_models, spec
from kzoo.catalog.pretrained import OFFLINE_BACKBONE, PACKAGED, RECOGNISED, recognised_shape
from kzoo.catalog.shipped import path_of
from kzoo.errors import KzooError, RunError, WeightsError
from kzoo.files import sha256, write_atomically
from kzoo.finetuning.features import Cache, cache_dir
from kzoo.hardware import auto_precision, backend, cores, describe, load_keras, processor, without_devices
from kzoo.runs import START
from kzoo.tasks import find

if TYPE_CHECKING:
    import keras

log = logging.getLogger("kzoo")
MIB = 1 << 20
SUGGESTED = ("efficientnet_lite0", "resnet50_v1_5")  # to advise: a small network that pip brings, and an accurate one


U_NET, DECODER_WIDTH = "unet_same", 16  # what a backbone becomes the encoder of; filters of its finest level


@dataclass(frozen=True)
class Backbone:
    """A network of the catalog with weights, or a Keras model of the user's own, an input shape and a precision.

    Attributes:
        row: of the catalog.
        weights: the weights' row.
        path: their file on this machine.
        sha256: of that file.
        input_shape: (height, width, channels).
        preprocessing: what the weights were trained with.
        precision: "float32", "bfloat16" or "float16".
        config: options of the architecture.
        network: of a Keras model of the user's own: from images to features, in float32.
        notes: what was done to it, in sentences.
    """

    row: ModelSpec
    weights: Weights
    path: Path
    sha256: str
    input_shape: tuple[int, int, int]
    preprocessing: Preprocessing
    precision: str
    config: dict[str, Any]
    network: keras.Model | None = None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The model's name in the catalog."""
        return self.row.name

    def key(self) -> dict[str, Any]:
        """Return all that the features depend on besides the images; it names the backbone's feature cache.

        Not covered: modules outside the folder of a user's architecture that it imports.
        """
        return {
            "model": self.name,
            "architecture": self.row.architecture,
            "weights": self.sha256,
            "config": {k: repr(v) for k, v in sorted(self.config.items())},
            "input_shape": list(self.input_shape),
            "preprocessing": self.preprocessing.to_dict(),
            "precision": self.precision,
            "backend": backend(),
            "code": self.sha256 if self.network else code_of(self.row.architecture.partition(":")[0]),
            "rules": RULES,
            "versions": {name: package(name) for name in ("keras", "tensorflow", backend())},
        }

    def cache(self) -> Cache:
        """Open the backbone's feature cache."""
        return Cache(self.key())

    def about_weights(self) -> dict[str, Any]:
        """Return what config.json records of the weights."""
        return self.weights.recorded(self.path, self.sha256)


def backbone(
    model: str | ModelSpec | None = None,
    weights: str | os.PathLike | Weights | None = None,
    *,
    input_shape: tuple[int, int, int] | None = None,
    precision: str | None = None,
) -> Backbone:
    """Find the backbone that a user named.

    Args:
        model: a name, a ModelSpec, or None for the model of the best weights found locally.
        weights: a tag, a path, a Weights row, or None for the most accurate found locally, without a download.
        input_shape: (height, width, channels) in place of the published one.
        precision: "float32", "bfloat16", "float16", or None and "auto" for what this machine is fast in.

    Raises:
        RunError: weights without a model, or no weights are found locally; the message says what a download would give.
        UnknownName: there is no such model.
        WeightsError: the weights can't be fetched.
    """
    if model is not None and find(image_spec(model).task).dense:
        raise RunError(
            f"{spec(model).name} gives a class for each pixel, and kzoo finetune takes a classifier, which becomes the "
            "encoder where the data has masks, such as resnet20: name one, or use kzoo train."
        )
    if weights is None:
        from kzoo.weights import matches

        # Keras may leave an incomplete download under the final name: skip it.
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
        weights = resolve(row, Path(weights) if isinstance(weights, os.PathLike) else weights)
        path = fetch(weights)
    height, width, channels = input_shape or recognised_shape(weights) or row.input_shape
    preprocessing = weights.preprocessing or row.preprocessing
    if precision in (None, "auto"):
        precision = machine()["precision"]
    config = {**row.config, **weights.config}
    shape = (height, width, channels)
    return Backbone(row, weights, Path(path), sha256(path), shape, preprocessing, precision, config)


def own_backbone(
    model: keras.Model | str | os.PathLike,
    *,
    pixels: str | None = None,
    input_shape: tuple[int, int, int] | None = None,
    precision: str | None = None,
) -> Backbone:
    """Make a backbone of a Keras model of the user's own: what stands in front of its classifier.

    Args:
        model: functional or built Sequential, or a file of one; it stays as it is.
        pixels: what it takes, see `kzoo.keras_files.from_pixels`.
        input_shape: (height, width, channels), where the model leaves sizes open.
        precision: as in `backbone`.

    Raises:
        KzooError: it can't be used.
    """
    load_keras()
    from kzoo.keras_files import features_of, to_train

    found = features_of(to_train(model, pixels, input_shape))
    file = os.fspath(model) if isinstance(model, (str, os.PathLike)) else ""
    return begun_with(found.model, found.name, file, found.notes, precision)


def begun_with(
    network: keras.Model, name: str, file: str = "", notes: Sequence[str] = (), precision: str | None = None
) -> Backbone:
    """Make a backbone of a network that `own_backbone` made, or that a run of one began with.

    Args:
        network: from images to features.
        name: of the model.
        file: that it came from; "" for none.
        notes: what was done to it.
        precision: as in `backbone`.
    """
    from kzoo.keras_files import KerasFile, fingerprint, row_of

    row, digest = row_of(KerasFile(network, None, (), name=name)), fingerprint(network)
    height, width, channels = row.input_shape
    weights = Weights("own", file, num_classes=None, source="a Keras model of your own")
    if precision in (None, "auto"):
        precision = machine()["precision"]
    return Backbone(
        row,
        weights,
        Path(file or START),
        digest,
        (height, width, channels),
        row.preprocessing,
        precision,
        {},
        network,
        tuple(notes),
    )


def found_locally(model: str | ModelSpec | None = None) -> list[tuple[ModelSpec, Weights, Path]]:
    """Find pretrained weights on this machine: (row, weights, path), the most accurate on ImageNet first.

    Weights that kzoo ships come last. Without a model these are only the ones that fine-tuning falls back on.

    Args:
        model: whose weights; None for all models.
    """
    from kzoo.files import data_folders
    from kzoo.weights.fetch import cache_dir as downloads
    from kzoo.weights.fetch import neighbours, packaged

    names = list_models() if model is None else [spec(model).name]
    found = []
    for name in names:
        row = spec(name)
        for w in row.weights:
            if w.source == "kzoo":
                if model is not None or (name, w.tag) == OFFLINE_BACKBONE:
                    found.append((row, w, path_of(w.file)))
                continue
            if w.file.startswith(PACKAGED):
                with suppress(WeightsError):  # the package is not installed
                    found.append((row, w, packaged(w)))
                continue
            file = w.file.rpartition("/")[2]
            found += [(row, w, p) for p in (downloads() / file, *neighbours(file)) if p.is_file()]
        for w, _ in RECOGNISED.get(name, ()):
            path = next((p / "weights" / w.file for p in data_folders() if (p / "weights" / w.file).is_file()), None)
            if path:
                found.append((row, replace(w, file=str(path)), path))
    return sorted(found, key=lambda item: -(item[1].top1 or 0))


def download_advice(model: str | ModelSpec | None = None, better_than: float = 0.0) -> str:
    """Describe in a sentence what a download would give; "" if nothing better is offered.

    Args:
        model: None for a small network and an accurate one.
        better_than: ImageNet top-1 accuracy in per cent of the weights found locally.

    Example:
        >>> download_advice(better_than=75.5)
        'kzoo finetune --model resnet50_v1_5 --weights ... would download ... MiB (... % top-1 on ImageNet).'
    """
    from kzoo.weights.fetch import install_command

    wanted = (
        [(spec(model), w) for w in spec(model).weights] if model else [(spec(n), spec(n).weights[0]) for n in SUGGESTED]
    )
    offers = []
    for row, w in wanted:
        if w.top1 and w.size and w.top1 > better_than:
            size, accuracy = f"{w.size / MIB:,.0f} MiB", f"({w.top1:.1f} % top-1 on ImageNet)"
            if w.file.startswith(PACKAGED):
                offers.append(f"{install_command(w)} would bring {row.name}, {size} {accuracy}")
            else:
                offers.append(f"kzoo finetune --model {row.name} --weights {w.tag} would download {size} {accuracy}")
    return "; ".join(offers[-2:]) + "." if offers else ""


def machine() -> dict[str, str]:
    """Describe this machine: {"precision": what it is fast in, "why", "hardware"}.

    The result is cached in a file, which saves a second run TensorFlow's import. The file's name is a hash of the
    processor, the GPU devices and the versions of the packages.
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
        pass  # opening the feature cache in that folder will report the reason
    return memo


def package(name: str) -> str | None:
    """Return the version of an installed package, None if it is missing. TensorFlow may be there as tensorflow-cpu."""
    for known in (name, f"{name}-cpu"):
        with suppress(PackageNotFoundError):
            return version(known)
    return None


def code_of(module: str) -> str:
    """Hash the source of an architecture: its module, the modules beside it that it names, and kzoo's layers.

    The source is read, not imported, so that Keras need not be. A module beside it counts if its name occurs as a word
    in the source, which holds for every way to import it; modules that these name count likewise.

    Args:
        module: its name.

    Returns:
        Hex digits. Where there is no source file, as in a notebook, they are never the same again: what is cached then
        is found by nobody.
    """
    house = Path(__file__).parents[1]
    if module.startswith("kzoo."):
        path = house.joinpath(*module.split(".")[1:]).with_suffix(".py")
    else:
        found: Any = sys.modules.get(module)
        with suppress(ImportError, ValueError):  # there is none, as whoever builds the network will say
            found = found or find_spec(module)
        path = Path(getattr(found, "__file__", None) or getattr(found, "origin", None) or "")
    if path.suffix != ".py" or not path.is_file():
        return secrets.token_hex(32)
    beside = {p.stem: p for p in path.parent.glob("*.py")}
    sources, todo = {}, [path.stem]
    while todo:
        name = todo.pop()
        if name not in sources:
            sources[name] = beside[name].read_text("utf-8", "replace")
            todo += beside.keys() & set(re.findall(r"\w+", sources[name]))
    sources["kzoo.layers"] = (house / "layers.py").read_text("utf-8")
    return hashlib.sha256(json.dumps(sources, sort_keys=True).encode()).hexdigest()


# --- with Keras ------------------------------------------------------------------------------------------


@contextmanager
def _quietly():
    """Silence the message that the classifier's weights are left out, which is intended."""
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def feature_network(backbone: Backbone) -> keras.Model:
    """Build the Keras model from images to features (B, D) in float32 or 16 bits.

    A feature map (B, H, W, D) is averaged over height and width.
    """
    import keras

    from kzoo.builder import build, computing_in
    from kzoo.keras_files import in_precision

    if backbone.network is not None:
        model = in_precision(backbone.network, backbone.precision)
    else:
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


def with_head(features: keras.Model, classes: Sequence[str]) -> keras.Model:
    """Build the whole network: the features and the task's last layer, with zero weights. It is one flat graph.

    Args:
        features: a model whose output is (B, D).
        classes: names, by number.
    """
    import keras

    outputs = find("classification").head(features.output, classes, kernel_initializer="zeros")
    return keras.Model(features.inputs[0], outputs, name=features.name)


class FeatureExtractor:
    """The backbone as a model, and the functions that `features` needs. Each is built once, on first use."""

    def __init__(self, backbone: Backbone):
        self.backbone = backbone

    @cached_property
    def model(self) -> keras.Model:
        """The network from images to features."""
        load_keras()
        return feature_network(self.backbone)

    @property
    def is_built(self) -> bool:
        """Whether the network is in memory."""
        return "model" in self.__dict__

    @property
    def encoder(self) -> keras.Model:
        """The network whose stages may be trained: here all of it."""
        return self.model

    @cached_property
    def predict(self) -> Callable[[np.ndarray], np.ndarray]:
        """A function of a batch (B, H, W, C) to features (B, D), in the network's inference form."""
        from kzoo.graph.inference import predictor

        return predictor(self.model)

    @cached_property
    def prepare(self) -> Callable[..., np.ndarray]:
        """The function that `input_preparer` gives."""
        load_keras()
        return input_preparer(self.backbone)

    def __call__(self) -> tuple[Callable, Callable]:
        """Return (prepare, build), as `kzoo.finetuning.features.features` asks for it."""
        return self.prepare, lambda: self.predict


class MaskNetwork:
    """The backbone as the encoder of a U-Net, for data with masks: its weights, and a new decoder.

    Args:
        backbone: the encoder.
        classes: names, by number.
        seed: of the decoder's initial weights.
    """

    def __init__(self, backbone: Backbone, classes: Sequence[str], seed: int):
        self.backbone, self.classes, self.seed = backbone, classes, seed

    @property
    def config(self) -> dict[str, Any]:
        """Options of unet_same."""
        return {"width": DECODER_WIDTH, "backbone": self.backbone.name, "backbone_options": self.backbone.config}

    @cached_property
    def model(self) -> keras.Model:
        """The network from images to logits (B, H, W, classes)."""
        load_keras()
        from kzoo.builder import build

        base = self.backbone
        with _quietly():
            return build(
                U_NET,
                num_classes=len(self.classes),
                input_shape=base.input_shape,
                precision=base.precision,
                seed=self.seed,
                backbone_weights=replace(base.weights, file=str(base.path), preprocessing=base.preprocessing),
                **self.config,
            )

    @cached_property
    def encoder(self) -> keras.Model:
        """The network whose stages may be trained: the backbone's part of `model`, which shares its layers."""
        from kzoo.models.unet import encoder

        return encoder(self.model, self.backbone.name)

    @property
    def decoder(self) -> tuple[str, ...]:
        """The names of the layers with weights that are not the encoder's."""
        own = {layer.name for layer in self.encoder.layers}
        return tuple(layer.name for layer in self.model.layers if layer.weights and layer.name not in own)


def input_preparer(backbone: Backbone) -> Callable[..., np.ndarray]:
    """Return a function prepare(image, view=0) to the network's input, uint8 (H, W, C).

    image is a path, encoded bytes or an array. View 0 is the image as prediction sees it; for others see `augmented`.
    """
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


def augmented(x: np.ndarray, view: int) -> np.ndarray:
    """Return an augmented view of an image.

    The crop depends on the view and the pixels only, so that a view can be cached.

    Args:
        x: uint8 (H, W, C).
        view: 1 is the mirror image; 2 and above are crops of 80 to 100 % of height and width, the odd ones mirrored.

    Returns:
        uint8 (H, W, C).

    Example:
        >>> augmented(np.array([[[1], [2]]], "uint8"), 1).ravel().tolist()
        [2, 1]
    """
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
