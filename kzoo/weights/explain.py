"""Why a weights file does not fit a model: the nearest explanation, in a sentence."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kzoo.catalog import list_models
from kzoo.catalog.fingerprints import FINGERPRINTS, VARIANTS
from kzoo.errors import WeightsError
from kzoo.weights.maps import MAPS, prefixes, rename, unprefixed
from kzoo.weights.read import shown

if TYPE_CHECKING:
    import keras

# Names that only one family of networks has, for those that kzoo lacks; the first that matches counts. Searched for in
# "name shape" of each array, behind any prefix.
LACKING = (
    (r"\bdenseblock\d|conv\d_block\d+_concat|\bdenselayer\d", "DenseNet"),
    (r"\b(cls_token|class_token|pos_embed|encoder_layer_0)\b", "a vision transformer"),
    (r"relative_position_bias_table", "Swin Transformer"),
    (
        r"\b_blocks\.0\._depthwise_conv|\bblock\d[a-z]_(expand|dwconv|se_reduce)",
        "an EfficientNet, of which kzoo has EfficientNet-Lite0",
    ),
    (r"\bfeatures\.1\.(0\.)?block\.0\.0\.weight|\bblocks\.\d\.\d\.se\.", "EfficientNet or MobileNet v3"),
    (
        r"\bfeatures\.1\.conv\.0\.0\.weight",
        "torchvision's MobileNet v2; kzoo.build('mobilenet_v2', alpha=...) takes it at the same width",
    ),
    (
        r"\bblocks\.1\.0\.conv_pwl",
        "timm's MobileNet v2; kzoo.build('mobilenet_v2', alpha=...) takes it at the same width, but not the deeper "
        "mobilenetv2_110d and 120d",
    ),
    (
        r"\bblocks\.0\.0\.conv_dw",
        "timm's MobileNet v1; kzoo.build('mobilenet_v1', alpha=...) takes it at the same width, unless it has another "
        "convolution in front of the classifier, as mobilenetv1_100h has",
    ),
    (
        r"(?s)\A(?!.*\brunning_mean).*\bstages\.0\.blocks\.0\.norm1\.weight",
        "a ResNet v2 without the statistics of batch norm; with group norm, as in Big Transfer (BiT), it is another "
        "network, which kzoo does not have",
    ),
    (
        r"(?s)\A(?!.*\brunning_mean).*\blayer1\.0\.bn1\.weight",
        "a ResNet without the statistics of batch norm; with group norm it is another network, which kzoo lacks",
    ),
    (
        r"(?s)\A(?=.*\bstem\.conv1\.weight).*\bstages\.0\.blocks\.0\.norm1",
        "a ResNet v2 with a stem of three convolutions (timm's d, t)",
    ),
    (
        r"(?s)\A(?!.*\bstages\.0\.blocks\.0\.conv3).*\bstages\.0\.blocks\.0\.norm1",
        "a ResNet v2 of blocks of two convolutions",
    ),
    (r"\bcell_stem_0\.comb_iter_0_left", "a NASNet or PNASNet of timm; kzoo reads Keras' files of NASNet"),
    (r"\blevel2\.tree1\.", "DLA"),
    (r"\blayer1\.0\.conv[12]\.attn\.", "SK-ResNet"),
    (r"\b(layer_scale|stages\.0\.blocks\.0\.conv_dw|convnext)", "ConvNeXt"),
    (r"\btrunk_output\b", "RegNet"),
    (r"\bstage2\.0\.branch1\.", "ShuffleNet v2"),
    (r"\bblock2_sepconv1|\bblock1\.rep\.", "Xception"),
    (r"\b(expanded_conv|block_\d+)_squeeze_excite|\bexpanded_conv/squeeze_excite", "MobileNet v3"),
    (r"\blayers\.8\.0\.layers\.0\.weight", "MNASNet"),
    (r"\blayer1\.0\.conv2\.weight \((128|256), (4|8), 3, 3\)", "ResNeXt"),
    (r"\blayer1\.0\.conv2\.weight \(128, 128, 3, 3\)", "torchvision's wide ResNet for ImageNet"),
    (r"\blayer1\.0\.se\.|\bse_module\.", "SE-ResNet"),
    (
        r"(?s)\A(?=.*\bconv1\.0\.weight).*\blayer1\.0\.",
        "a ResNet with a stem of three convolutions (timm's c, d, s, t)",
    ),
    (
        r"\bfeatures\.0\.weight \(64, 3, 11, 11\)",
        "the AlexNet of 2014 with one tower (arXiv:1404.5997), as torchvision has it; kzoo's alexnet has two",
    ),
)


def fingerprint(shapes: Iterable[tuple[str, Sequence[int]]]) -> str:
    """Hash the names and shapes of a network's variables without its classifiers, which differ from file to file.

    Args:
        shapes: (path, shape) of each.

    Returns:
        16 hex digits.
    """
    kept = sorted((p, *(int(n) for n in s)) for p, s in shapes if not re.fullmatch(r"(\w+_)?predictions/\w+", p))
    return hashlib.sha256(repr(kept).encode()).hexdigest()[:16]


# Keras 3 numbers the variables of a layer: what they are follows from how many there are.
VARIABLES = {
    **dict.fromkeys((1, 2), ("kernel", "bias")),
    3: ("beta", "moving_mean", "moving_variance"),
    4: ("gamma", "beta", "moving_mean", "moving_variance"),
}


def with_names(shapes: Iterable[tuple[str, Sequence[int]]]) -> list[tuple[str, Sequence[int]]]:
    """Name the variables that a file only numbers: conv1/0 becomes conv1/kernel.

    Args:
        shapes: (path, shape) of each variable of a network.
    """
    shapes = list(shapes)
    counts = Counter(path.rpartition("/")[0] for path, _ in shapes)
    named = []
    for path, shape in shapes:
        layer, _, variable = path.rpartition("/")
        names = VARIABLES.get(counts[layer], ())
        known = variable.isascii() and variable.isdigit() and len(variable) < 3 and int(variable) < len(names)
        named.append((f"{layer}/{names[int(variable)]}" if known else path, shape))
    return named


def rows_of(arrays: Mapping[str, np.ndarray]) -> dict[str, str | None]:
    """Find the rows of the catalog whose published network the arrays of a file fit, classifiers aside.

    Args:
        arrays: {foreign name: array}.

    Returns:
        {name of a model: the map of names by which they fit, None for our own}.
    """
    empty = {n: np.broadcast_to(np.float32(0), a.shape) for n, a in arrays.items() if a.dtype.kind == "f"}
    hashes = {}
    for prefix in prefixes(empty):
        short = unprefixed(empty, prefix)
        for names in (None, *MAPS):
            try:
                found = rename(short, names).arrays
            except WeightsError:
                continue
            hashes.setdefault(fingerprint(with_names((p, a.shape) for p, a in found.items())), names)
    return {
        name: hashes[known]
        for name in list_models()
        for known in (FINGERPRINTS.get(name), VARIANTS.get(name))
        if known is not None and known in hashes
    }


def explanation(
    arrays: Mapping[str, np.ndarray],
    found: Mapping[str, np.ndarray],
    model: keras.Model,
    *,
    dense: Collection[str],
    heads: Collection[str],
) -> str:
    """Explain why the arrays of a file do not fit a model.

    Args:
        arrays: {foreign name: array}, as the file has them.
        found: {path: array}, as they were placed.
        model: The model.
        dense: Paths of its variables behind a Flatten.
        heads: Paths of its classifiers.

    Returns:
        A sentence; "" if there is nothing better to say than the list.
    """
    variables = {v.path: tuple(v.shape) for v in model.weights}
    missing = [p for p in variables if p not in found]
    unexpected = [p for p in found if p not in variables]
    wrong = [p for p, a in found.items() if p in variables and a.shape != variables[p]]
    if not missing and not unexpected and not wrong:
        return ""  # types, values: the list says it
    misfits = {*missing, *unexpected, *wrong}
    if misfits <= {*heads}:
        return head_sentence(found, variables, misfits)
    if misfits <= {*heads, *dense} and not unexpected:
        return size_sentence(found, variables, model, [p for p in variables if p in misfits and p in dense])
    rows = rows_of(arrays)
    if model.name in rows:
        names = rows[model.name]
        if names and MAPS[names].within:
            return (
                f"Its layers are only numbered; they fit {model.name} if they are those of {names}, which is to be "
                f"said: kzoo.build('{model.name}', weights=kzoo.Weights('mine', path, names='{names}'))."
            )
        return (
            f"It fits the options that kzoo.build('{model.name}', weights=...) sets; this model was built with others."
        )
    if rows:
        return f"It fits {' and '.join(rows)}: kzoo.build('{next(iter(rows))}', weights=...)."
    text = "\n".join(f"{name} {tuple(int(n) for n in a.shape)}" for name, a in arrays.items())
    family = next((family for pattern, family in LACKING if re.search(pattern, text)), None)
    if family:
        return f"It looks like {family}, which kzoo does not have." if ";" not in family else f"It looks like {family}."
    if wrong and not missing and not unexpected:
        return "It has the layers of this network with other widths: an option such as width, alpha or k differs."
    groups = networks_in(arrays)
    if len(groups) > 1 and len(missing) > len(variables) / 2:
        listed = ", ".join(f"'{shown(g)}'" for g in groups[:4])
        return f"It holds several networks, under {listed}: save one of them alone."
    if not unexpected and not wrong and len(missing) < len(variables):
        return "It holds a part of the network only."
    if len(missing) == len(variables):
        return "It holds none of the layers of this network: it is of another one, or its names are of no known source."
    return ""


def head_sentence(found: Mapping[str, np.ndarray], variables: Mapping[str, tuple], misfits: Collection[str]) -> str:
    """Explain a file that differs in the classifier alone; arguments as in `explanation`."""
    if any(p not in found for p in misfits):
        return "Its layers fit, and it has no classifier: new_classifier=True leaves the model's new."
    path = next((p for p in misfits if p in variables and p.endswith("bias")), next(iter(misfits)))
    theirs, ours = found[path].shape[-1:], variables.get(path, ())[-1:]
    if theirs == ours or not theirs:
        return ""
    return (
        f"Its layers fit, and its classifier is for {theirs[0]} classes, the model's for {ours[0]}: "
        f"num_classes={theirs[0]} takes it, new_classifier=True leaves the model's new."
    )


def size_sentence(
    found: Mapping[str, np.ndarray], variables: Mapping[str, tuple], model: keras.Model, paths: Sequence[str]
) -> str:
    """Explain a file that differs in the layers behind a Flatten alone.

    Args:
        found: As in `explanation`.
        variables: {path: shape} of the model.
        model: The model.
        paths: Those of them that do not fit.
    """
    layer = paths[0].partition("/")[0]
    if paths[0] not in found:
        reason = f"it ends in front of {layer}"
        advice = "new_classifier=True leaves the dense layers new"
    else:
        theirs, ours = found[paths[0]].shape[0], variables[paths[0]][0]
        size = " x ".join(str(n) for n in model.input_shape[1:3])
        reason = f"{layer} takes {theirs:,} features, the model's takes {ours:,}, at an input of {size}"
        advice = "build it at the input size of the file, or leave the dense layers new with new_classifier=True"
    if not any("predictions" in p for p in variables):
        advice = "build it at the input size of the file"
    return f"Its convolutions fit, but {reason}: {advice}."


def networks_in(arrays: Iterable[str]) -> list[str]:
    """Find the prefixes that stand in front of the same names, as in a file with a network and its copy.

    Example:
        >>> networks_in(["encoder_q.fc.bias", "encoder_k.fc.bias", "encoder_q.bn.bias", "encoder_k.bn.bias", "queue"])
        ['encoder_q.', 'encoder_k.']
    """
    inside = {}
    start = prefixes(arrays)[-1]
    for name in arrays:
        match = re.match(r"([^./]+[./])(.+[./].+)", name[len(start) :]) if name.startswith(start) else None
        if match:  # of several levels: the variables of two layers are no networks
            inside.setdefault(start + match[1], set()).add(match[2])
    largest = max(inside.values(), key=len, default=set())
    enough = max(2, 0.3 * sum(name.startswith(start) for name in arrays))  # stages of one network are smaller
    same = [p for p, names in inside.items() if len(names) >= enough and len(names & largest) > 0.8 * len(largest)]
    return same if len(same) > 1 else []
