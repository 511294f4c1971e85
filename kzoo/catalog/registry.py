"""The registry: which models there are, by name. Standard library only."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from datetime import date
from fnmatch import fnmatchcase
from typing import Any

from kzoo.catalog.imports import load_installed
from kzoo.catalog.model_spec import ModelSpec, Paper, Preprocessing
from kzoo.errors import KzooError, UnknownName, unknown
from kzoo.files import sha256

ROWS: dict[str, ModelSpec] = {}  # by name; `register` adds to it
# What others call a network of the catalog, as `_plain` makes it.
ALIASES = {
    "inceptionv1": "googlenet",
    "inception": "inception_v3",
    "bninception": "googlenet_bn",
    "mobilenet": "mobilenet_v1",
    "mobilenetv1100": "mobilenet_v1",
    "mobilenetv2100": "mobilenet_v2",
    "squeezenet": "squeezenet1_1",
    "nasnet": "nasnet_mobile",
    "nasnetalarge": "nasnet_large",
    "resnet": "resnet50",
    "vgg": "vgg16",
    "lenet": "lenet5",
    "allcnn": "allcnn_c",
    "allconv": "allcnn_c",
    "networkinnetwork": "nin",
    "zfnet512": "zfnet",
    "wideresnet": "wrn_28_10",
    "wrn": "wrn_28_10",
    "wideresnet168": "wrn_16_8",
    "wideresnet2810": "wrn_28_10",
    "wideresnet404": "wrn_40_4",
    "tfefficientnetlite0": "efficientnet_lite0",
    "efficientnetlite": "efficientnet_lite0",
    "resnetv2": "resnet50_v2",
    "resnetv250": "resnet50_v2",
    "resnetv2101": "resnet101_v2",
    "resnetv2152": "resnet152_v2",
}
# Families that kzoo lacks, by how their names begin.
LACKING = {
    "densenet": "DenseNet",
    "convnext": "ConvNeXt",
    "efficientnet": "EfficientNet but EfficientNet-Lite0 (efficientnet_lite0)",
    "xception": "Xception",
    "mobilenetv3": "MobileNet v3",
    "mobilenetv4": "MobileNet v4",
    "mobilevit": "MobileViT",
    "mnasnet": "MNASNet",
    "pnasnet": "PNASNet",
    "regnet": "RegNet",
    "resnext": "ResNeXt",
    "resnest": "ResNeSt",
    "seresnet": "SE-ResNet",
    "senet": "SENet",
    "shufflenet": "ShuffleNet",
    "ghostnet": "GhostNet",
    "darknet": "Darknet",
    "yolo": "YOLO; it classifies, and detects nothing",
    "fasterrcnn": "Faster R-CNN; it classifies, and detects nothing",
    "maskrcnn": "Mask R-CNN; of segmentation it has unet and unet_same",
    "deeplab": "DeepLab; of segmentation it has unet and unet_same",
    "fcn": "FCN; of segmentation it has unet and unet_same",
    "vit": "vision transformer",
    "deit": "vision transformer",
    "swin": "Swin Transformer",
    "dino": "vision transformer",
    "clip": "CLIP",
    "bit": "Big Transfer (BiT); resnet50_v2 is its network with batch norm",
    "inceptionv2": "Inception v2; googlenet_bn is GoogLeNet with batch norm",
}
REGISTERED_BY: dict[str, str] = {}  # name of a row -> the module that registered it


def register(
    row: ModelSpec | Callable[..., Any],
    *,
    input_shape: Sequence[int] | None = None,
    num_classes: int = 10,
    preprocessing: Preprocessing | None = None,
    replace: bool = False,
) -> ModelSpec:
    """Add a row to the catalog; its name then works in every function of this process.

    Commands find it with --import, in $KZOO_IMPORT, or as an entry point of an installed package.

    Args:
        row: The row, or an architecture function `def my_net(x, *, num_classes, ...)`, whose name the network gets.
        input_shape: Of a function: (height, width, channels).
        num_classes: Of a function: how many logits it gives by default.
        preprocessing: Of a function: how pixels are scaled; to -1..1 by default.
        replace: Whether to replace a row of that name.

    Returns:
        The row.

    Raises:
        KzooError: The name is taken, or is not a lower-case identifier; a function without an input shape, or one that
            no name leads to.

    Example:
        >>> from kzoo.catalog import ModelSpec, Paper
        >>> row = ModelSpec("my_net", "my_package.nets:my_net", (32, 32, 3), 10, Paper("None yet", "I", 2026))
        >>> register(row).name
        'my_net'
    """
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__") == "kzoo.checks":  # as kzoo.register
        frame = frame.f_back
    caller = frame.f_globals.get("__name__", "")
    if callable(row) and not isinstance(row, (ModelSpec, type)):
        name = getattr(row, "__qualname__", "")
        if not name.isidentifier():
            raise KzooError(
                f"register() takes a function at the top of a module, which its name leads to; got '{name}'."
            )
        if input_shape is None:
            raise KzooError(f"Of which pictures is {name}? register({name}, input_shape=(height, width, channels)).")
        row = ModelSpec(
            name,
            f"{row.__module__}:{name}",
            tuple(input_shape),
            num_classes,
            Paper("a network of your own", "you", date.today().year),
            preprocessing=preprocessing or Preprocessing(),
        )
    elif not isinstance(row, ModelSpec):
        raise KzooError(f"register() takes a kzoo.ModelSpec or a function, got {type(row).__name__}.")
    elif input_shape is not None or preprocessing is not None:
        raise KzooError("A ModelSpec has its own input_shape and preprocessing: give them there.")
    if not (row.name.isidentifier() and row.name == row.name.lower()):
        raise KzooError(f"A model's name is lower-case letters, digits and _; got '{row.name}'.")
    if row.name in ROWS and not replace:
        raise KzooError(f"A model named '{row.name}' is registered already; pass replace=True to replace it.")
    ROWS[row.name] = row
    REGISTERED_BY[row.name] = caller
    return row


def imports_of(name: str) -> list[dict[str, Any]]:
    """Return the modules from elsewhere that a network needs, for the record; [] for kzoo's own.

    Args:
        name: of a row.

    Returns:
        {"module": its name, "file": its path, "sha256": of that file} for the module that registered the row, and for
        the one with its architecture; the latter two only where there is a file.
    """
    found = []
    for module in dict.fromkeys([REGISTERED_BY.get(name, ""), ROWS[name].architecture.partition(":")[0]]):
        if module and module.partition(".")[0] != "kzoo":
            file = getattr(sys.modules.get(module), "__file__", None)
            known = {"file": os.path.abspath(file), "sha256": sha256(file)} if file and os.path.isfile(file) else {}
            found.append({"module": module, **known})
    return found


def list_models(pattern: str = "*") -> list[str]:
    """List the models whose names match a pattern, in the catalog's order, those of installed packages included.

    Args:
        pattern: A shell pattern.

    Example:
        >>> list_models("vgg1*")
        ['vgg11', 'vgg13', 'vgg16', 'vgg19', 'vgg11_bn', 'vgg13_bn', 'vgg16_bn', 'vgg19_bn']
    """
    load_installed()
    return [name for name in ROWS if fnmatchcase(name, pattern)]


def spec(name: str | ModelSpec) -> ModelSpec:
    """Return the row of a model.

    Args:
        name: Its name; a ModelSpec is returned as it is.

    Raises:
        UnknownName: There is no such model; the message suggests the nearest name.

    Example:
        >>> spec("vgg16").params
        138357544
    """
    if isinstance(name, ModelSpec):
        return name
    if name not in ROWS:
        load_installed()
    if name not in ROWS:
        raise _unknown_model(str(name))
    return ROWS[name]


def _plain(name: str) -> str:
    """A name without case, separators and the words between a family and its version: "ResNet-50" is "resnet50"."""
    return "".join(c for c in name.lower() if c.isalnum())


def _unknown_model(name: str) -> UnknownName:
    """The error for a name that is not in the catalog: its name here, its family that kzoo lacks, or the nearest."""
    hint = "kzoo list shows all; --import my.py adds your own."
    plain = _plain(name)
    same = next((row for row in ROWS if _plain(row) == plain), ALIASES.get(plain))
    if same:
        return UnknownName(f"Unknown model '{name}'. It is called '{same}' here. {hint}")
    family = next((title for start, title in LACKING.items() if plain.startswith(start)), None)
    if family:
        return UnknownName(f"Unknown model '{name}': kzoo has no {family}. {hint}")
    return unknown("model", name, ROWS, hint)


def image_spec(name: str | ModelSpec) -> ModelSpec:
    """Return the row of a model that takes pictures, for all that reads pictures.

    Args:
        name: As in `spec`.

    Raises:
        UnknownName: There is no such model.
        KzooError: It takes clips.

    Example:
        >>> image_spec("c3d")
        Traceback (most recent call last):
            ...
        kzoo.errors.KzooError: kzoo trains, predicts and exports still images; c3d takes clips of 16 frames: ...
    """
    row = spec(name)
    if len(row.input_shape) != 3:
        raise KzooError(
            f"kzoo trains, predicts and exports still images; {row.name} takes clips of {row.input_shape[0]} frames: "
            f"build it with kzoo.build('{row.name}') and train it with Keras."
        )
    return row
