"""From a name to a Keras model: Input -> preprocessing -> architecture -> predictions."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

import keras

from kzoo import weights as pretrained
from kzoo.catalog import ModelSpec, Preprocessing, Weights, spec
from kzoo.catalog.imports import architecture, located, ours
from kzoo.checks import unknown_option
from kzoo.errors import KzooError, unknown
from kzoo.hardware import POLICIES
from kzoo.layers import Preprocess

if TYPE_CHECKING:
    import os


log = logging.getLogger("kzoo")

# The data format and floatx are Keras' for all threads: the first to come in keeps them, the last to go restores them.
_lock = threading.Lock()
_inside, _kept = 0, ("channels_last", "float32")


@contextmanager
def computing_in(precision: str = "float32") -> Iterator[None]:
    """Make layers as kzoo means them, whatever keras.json and the global settings of Keras say.

    Inside, `image_data_format` is channels_last, `floatx` is float32 and the dtype policy is that of the precision.
    Layers keep what they were made with, so a network computes the same under any global setting afterwards.

    Args:
        precision: "float32", "bfloat16" or "float16"; variables stay float32.

    Returns:
        A context manager, also a decorator; the global settings are restored at its end.

    Raises:
        UnknownName: Another precision.
    """
    global _inside, _kept
    if precision not in POLICIES:
        raise unknown("precision", precision, POLICIES, f"It is one of {', '.join(POLICIES)}.")
    policy = keras.config.dtype_policy()  # of this thread
    with _lock:
        if not _inside:
            _kept = keras.config.image_data_format(), keras.config.floatx()
            keras.config.set_image_data_format("channels_last")
            keras.config.set_floatx("float32")
        _inside += 1
    keras.config.set_dtype_policy(POLICIES[precision])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        with _lock:
            _inside -= 1
            if not _inside:
                keras.config.set_image_data_format(_kept[0])
                keras.config.set_floatx(_kept[1])


def options(row: ModelSpec) -> dict[str, Any]:
    """Return the keywords that a row's architecture takes besides num_classes, with the row's values.

    Where one is `backbone`, `backbone_weights` of `build` is another.
    """
    parameters = signature(architecture(row)).parameters.values()
    found = {
        p.name: row.config.get(p.name, None if p.default is Parameter.empty else p.default)
        for p in parameters
        if p.kind is Parameter.KEYWORD_ONLY and p.name != "num_classes"
    }
    if ours(row) and "backbone" in found:
        found["backbone_weights"] = None  # build() loads them
    return found


def check_options(row: ModelSpec, config: Mapping[str, Any], function: Callable) -> None:
    """Check that a row's architecture takes all keywords of `config`.

    Args:
        row: Of the catalog.
        config: The keywords.
        function: The function of the API that they were given to: one of its own may have been meant.

    Raises:
        UnknownOption: It does not take one of them.
    """
    known = options(row)
    for key in config:
        if key not in known:
            own = [p for p in signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
            hint = f"{row.name} has: {', '.join(known) or 'none'}; help(kzoo.{function.__name__}) shows the others."
            raise unknown_option(row.name, key, [*known, *(p.name for p in own)], hint)


def build(
    name: str | ModelSpec,
    *,
    num_classes: int | str | None = "published",
    input_shape: tuple[int | None, ...] | None = None,
    preprocessing: Preprocessing | None = None,
    precision: str | None = None,
    seed: int | None = None,
    weights: str | os.PathLike | Weights | None = None,
    new_classifier: bool | None = None,
    adapt_input: bool = False,
    backbone_weights: str | os.PathLike | Weights | None = None,
    **config: Any,
) -> keras.Model:
    """Build a model of the catalog.

    Args:
        name: A name of `kzoo.list_models()`, or a ModelSpec.
        num_classes: "published" for the number in the catalog; None stops at the features in front of the classifier.
        input_shape: (height, width, channels), as published by default; (frames, height, width, channels) for a
            network that takes clips (c3d).
        preprocessing: A `kzoo.Preprocessing`; by default that of the weights, else the row's.
        precision: "float32", "bfloat16" or "float16" for the arithmetic (variables stay float32); None is "float32".
            Keras' global settings (dtype policy, floatx, image_data_format) change nothing.
        seed: Of the initial weights (it sets Keras' global seed); None keeps Keras' state.
        weights: None for initial values, a tag of the row ("imagenet"), a path to a file, or a `kzoo.Weights`. They
            load strictly: all of them, or a WeightsError and no model. Only if num_classes is given and the weights
            have another number of classes, the classifier keeps its initial values, and that is logged.
        new_classifier: True keeps the initial values of the classifier in any case.
        adapt_input: True adapts the first kernel of the weights to another number of input channels.
        backbone_weights: As `weights`, for the `backbone` of a network that takes one (unet_same): all that the
            backbone contributes is loaded, and pictures are prepared as they need it. The rest is new, and is logged.
        **config: Keywords of the architecture in place of the row's.

    Returns:
        A flat functional keras.Model: images (B, H, W, C) in 0..255, uint8 or float32, to float32 logits (B,
        num_classes), of a network for segmentation (B, H, W, num_classes).

    Raises:
        UnknownName: A name or keyword does not exist.
        KzooError: The network can't take this input shape or option.
        WeightsError: The weights can't be had or do not fit.

    Example:
        >>> import kzoo
        >>> kzoo.build("vgg16", num_classes=5, input_shape=(160, 160, 3)).output_shape
        (None, 5)
    """
    row = spec(name)
    check_options(row, config, build)
    replaced: bool | str | None = new_classifier
    if weights is not None:
        weights = pretrained.resolve(row, weights)
        config = {**weights.config, **config}
        if new_classifier is None and num_classes == "published":
            replaced = False  # without a number of classes, those of the weights are wanted
        elif new_classifier is None and num_classes != row.num_classes:
            replaced = "if missing"
    backbone = _backbone(row, {**row.config, **config})
    if backbone_weights is not None:
        if backbone is None:
            raise KzooError(f"backbone_weights are those of a backbone, and {row.name} was given none.")
        if weights is not None:
            raise KzooError(
                "weights are those of the whole network, its backbone included: leave backbone_weights out."
            )
        backbone_weights = pretrained.resolve(backbone, backbone_weights)
        config["backbone_options"] = {**backbone_weights.config, **(config.get("backbone_options") or {})}
    num_classes = row.num_classes if num_classes == "published" else num_classes
    if num_classes is not None and (not isinstance(num_classes, int) or num_classes < 1):
        raise KzooError(f"num_classes must be a positive integer or None, got {num_classes!r}.")
    shape = row.input_shape if input_shape is None else tuple(input_shape)
    if (
        len(shape) != len(row.input_shape)
        or not all(n is None or (isinstance(n, int) and n > 0) for n in shape)
        or shape[-1] is None
    ):
        axes = ("frames", "height", "width", "channels")[-len(row.input_shape) :]
        raise KzooError(f"input_shape must be ({', '.join(axes)}), like {row.input_shape}; got {input_shape!r}.")
    trained = backbone_weights if weights is None else weights
    prep = preprocessing or (trained and trained.preprocessing) or (backbone or row).preprocessing
    per_channel = {len(v) for v in (prep.scale, prep.offset) if isinstance(v, tuple)}
    if per_channel - {shape[-1]}:
        # Means for three colours don't apply to another number of channels: take their average.
        def mean(v):
            return sum(v) / len(v) if isinstance(v, tuple) else v

        prep = type(prep)(prep.crop, prep.interpolation, prep.channel_order, mean(prep.scale), mean(prep.offset))

    if seed is not None:
        keras.utils.set_random_seed(seed)
    with computing_in(precision or "float32"):
        inputs = keras.Input(shape, dtype="float32", name="image")
        x = Preprocess(prep.channel_order, prep.scale, prep.offset, name="preprocessing")(inputs)
        try:
            outputs = architecture(row)(x, num_classes=num_classes, **{**row.config, **config})
        except KzooError:
            raise
        except Exception as e:
            if not isinstance(e, (ValueError, TypeError)) or (isinstance(e, TypeError) and not config):
                if ours(row):  # not a user's value, but a bug
                    raise
                with located(row.architecture):
                    raise
            if "output size" in str(e) or "Exception encountered when calling" in str(e):  # Keras' words
                raise _too_small(row, shape) from e
            if None in shape and ("fully-defined" in str(e) or "should be defined" in str(e)):  # Keras' words
                raise KzooError(
                    f"{row.name} has dense layers behind a Flatten, whose size follows from the input's: give the "
                    f"height and width, like {row.input_shape}; got {shape}."
                ) from e
            reason = str(e).strip().splitlines()[0]
            raise KzooError(f"{row.name} can't be built with input shape {shape} and {config}: {reason}") from e
        model = keras.Model(inputs, outputs, name=row.name)
    if any(0 in tensor.shape for layer in model.layers for tensor in keras.tree.flatten(layer.output)):
        raise _too_small(row, shape)  # Keras before 3.13 pools to an empty tensor silently
    if weights is not None:
        pretrained.load(model, weights, new_classifier=replaced, adapt_input=adapt_input)
    if backbone is not None and backbone_weights is not None:
        _load_backbone(model, backbone.name, backbone_weights, adapt_input)
    return model


def _backbone(row, config):
    """The row of the network that a network of kzoo's has as its backbone, or None."""
    name, options_of_it = config.get("backbone"), config.get("backbone_options")
    if name is None or not ours(row):
        return None
    if not isinstance(name, str) or not isinstance(options_of_it, Mapping | None):
        raise KzooError(
            f"backbone is a model's name and backbone_options its options by name; got {name!r} and {options_of_it!r}."
        )
    return spec(name)


def _load_backbone(model, name, weights, adapt_input):
    """Load weights into the part of a model that its backbone is, all of them, and say what is new."""
    from kzoo.models.unet import encoder

    part = encoder(model, name)
    loaded = {*pretrained.load(part, weights, adapt_input=adapt_input).loaded}
    new = ", ".join(v.path for v in model.weights if v.path not in loaded)
    log.warning("%s: All %d variables of the backbone %s are loaded; new are: %s.", model.name, len(loaded), name, new)


def _too_small(row, shape):
    return KzooError(
        f"{row.name} can't be built for the input shape {shape}: a feature map inside it would be empty. "
        f"Published is {row.input_shape}; give a larger input_shape."
    )
