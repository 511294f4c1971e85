"""The catalog's rows: one for each model. Standard library only."""

from __future__ import annotations

from dataclasses import replace

from kzoo.catalog.model_spec import ModelSpec, Paper, Preprocessing
from kzoo.catalog.pretrained import EFFICIENTNET_LITE, PRETRAINED
from kzoo.catalog.registry import register, spec

_blocks: tuple[int, ...]
_params: int | str | None

# --- MNIST: the lecture's first networks -----------------------------------------------------------------

_ZERO_TO_ONE = Preprocessing(scale=1 / 255, offset=0.0)
# CIFAR's mean colour and its deviation over the training images.
_CIFAR = Preprocessing(scale=(1 / 63.0, 1 / 62.1, 1 / 66.7), offset=(-125.3 / 63.0, -123.0 / 62.1, -113.9 / 66.7))
_TUTORIAL = Paper("Deep MNIST for Experts (TensorFlow tutorial)", "Abadi et al.", 2015)

register(
    ModelSpec(
        "mnist_softmax",
        "kzoo.models.mnist:mnist_softmax",
        (28, 28, 1),
        10,
        paper=Paper("MNIST for ML Beginners (TensorFlow tutorial)", "Abadi et al.", 2015),
        params=7_850,
        multiply_adds=7_840,
        preprocessing=_ZERO_TO_ONE,
        recipe="lecture_softmax",
    )
)
register(
    ModelSpec(
        "mnist_mlp",
        "kzoo.models.mnist:mnist_mlp",
        (28, 28, 1),
        10,
        config={"units": 128, "dropout": 0.2},
        paper=Paper("Delving Deep into Rectifiers (for the initialisation)", "He et al.", 2015, "1502.01852"),
        params=101_770,
        multiply_adds=101_632,
        preprocessing=_ZERO_TO_ONE,
        recipe="lecture_mlp",
    )
)
register(
    ModelSpec(
        "mnist_cnn",
        "kzoo.models.mnist:mnist_cnn",
        (28, 28, 1),
        10,
        config={"filters": (32, 64), "units": 1024},
        paper=_TUTORIAL,
        params=3_274_634,
        preprocessing=_ZERO_TO_ONE,
        recipe="lecture_cnn",
        deviations=("No dropout before the classifier (the tutorial has 0.5); pass dropout=0.5 for it.",),
    )
)
register(
    ModelSpec(
        "mnist_shift",
        "kzoo.models.mnist:mnist_shift",
        (28, 28, 1),
        10,
        config={"filters": (32, 64, 128)},
        paper=Paper("Lecture exercise: a network that is insensitive to shifts", "kzoo", 2026),
        preprocessing=_ZERO_TO_ONE,
        recipe="lecture_cnn",
    )
)

# --- LeNet-5, AlexNet, ZFNet, VGG ------------------------------------------------------------------------

_ALEXNET = Paper("ImageNet Classification with Deep Convolutional Neural Networks", "Krizhevsky et al.", 2012)

register(
    ModelSpec(
        "lenet5",
        "kzoo.models.lenet:lenet5",
        (28, 28, 1),
        10,
        paper=Paper("Gradient-Based Learning Applied to Document Recognition", "LeCun et al.", 1998),
        params=60_000,  # Section II.B: "340,908 connections, but only 60,000 trainable free parameters"
        # Section III.A: white -0.1, black 1.175. MNIST files hold the ink as 255.
        preprocessing=Preprocessing(scale=1.275 / 255, offset=-0.1),
        deviations=(
            "The RBF units' fixed codes are random ±1 (a choice the paper names), not drawn 7x12 bitmaps.",
            "The input is MNIST's 28x28, padded with background to the paper's 32x32 inside the network.",
            "Trained with AdamW in place of the stochastic diagonal Levenberg-Marquardt method.",
        ),
        recipe="lenet",
    )
)
register(
    ModelSpec(
        "alexnet",
        "kzoo.models.alexnet:alexnet",
        (227, 227, 3),
        1000,
        paper=_ALEXNET,
        params=60_965_224,
        preprocessing=Preprocessing(crop=227 / 256, scale=1.0, offset=(-123.68, -116.779, -103.939)),
        recipe="alexnet",
        deviations=(
            "Input 227x227: the paper says 224, its layer sizes need 227.",
            "The mean colour is subtracted, not the mean image.",
            "Dropout scales by 1/(1-p) in training instead of by 1-p in testing: the same expectation.",
        ),
    )
)

register(
    ModelSpec(
        "figure1_cifar",
        "kzoo.models.alexnet:figure1_cifar",
        (32, 32, 3),
        10,
        config={"filters": (32, 32, 64)},
        paper=_ALEXNET,
        preprocessing=_CIFAR,
        recipe="figure1",
        deviations=(
            "Figure 1 says 'a four-layer convolutional network' and prints no sizes: these are Krizhevsky's own for "
            "CIFAR-10 in cuda-convnet (layers-18pct), three 5x5 convolutions (32, 32, 64) with 3x3 pools at stride "
            "2 (maximum, average, average) and a dense layer, without its response normalisation.",
            "activation='tanh' gives the other curve; its kernels start after Glorot and Bengio.",
        ),
    )
)
register(
    ModelSpec(
        "zfnet",
        "kzoo.models.zfnet:zfnet",
        (224, 224, 3),
        1000,
        paper=Paper("Visualizing and Understanding Convolutional Networks", "Zeiler and Fergus", 2013, "1311.2901"),
        params=62_357_608,  # by hand from Figure 3, which prints no total
        preprocessing=Preprocessing(crop=0.875, scale=1.0, offset=(-123.68, -116.779, -103.939)),
        recipe="alexnet",
        deviations=(
            "'Contrast normalized across feature maps' (Figure 3, no formula) is AlexNet's local response "
            "normalisation with its constants, behind the pool as the figure has it.",
            "A border of 1 around the picture and pools that round up: the sizes of Figure 3 need them.",
            "The mean colour is subtracted, not the mean image.",
            "Kernels start from a Gaussian of deviation 0.01: the paper says 'initialized to 10^-2'.",
            "Filters of an RMS above 0.1 are not renormalised in training.",
        ),
    )
)

_VGG = Paper(
    "Very Deep Convolutional Networks for Large-Scale Image Recognition", "Simonyan and Zisserman", 2014, "1409.1556"
)
for _name, _blocks, _params, _multiply_adds in (
    ("vgg11", (1, 1, 2, 2, 2), 132_863_336, None),
    ("vgg13", (2, 2, 2, 2, 2), 133_047_848, None),
    ("vgg16", (2, 2, 3, 3, 3), 138_357_544, None),
    ("vgg19", (2, 2, 4, 4, 4), 143_667_240, "19.6G"),  # the multiply-adds: He et al. 2015, Figure 3
):
    register(
        ModelSpec(
            _name,
            "kzoo.models.vgg:vgg",
            (224, 224, 3),
            1000,
            config={"blocks": _blocks},
            paper=_VGG,
            params=_params,
            multiply_adds=_multiply_adds,
            preprocessing=Preprocessing(
                crop=0.875, channel_order="bgr", scale=1.0, offset=(-103.939, -116.779, -123.68)
            ),
            deviations=(
                "Initialised after Glorot and Bengio (the paper's footnote in 3.1), not from a trained vgg11.",
            ),
        )
    )

# How torchvision's, Caffe's and TensorFlow's published weights want their pictures.
_TORCH = Preprocessing(
    crop=0.875,
    scale=(1 / (255 * 0.229), 1 / (255 * 0.224), 1 / (255 * 0.225)),
    offset=(-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225),
)
_CAFFE = Preprocessing(crop=0.875, channel_order="bgr", scale=1.0, offset=(-103.939, -116.779, -123.68))
_TF = Preprocessing(crop=0.875)

# torchvision's networks with batch norm: its exact counts.
for _name, _blocks, _params, _multiply_adds in (
    ("vgg11_bn", (1, 1, 2, 2, 2), 132_868_840, "7.61G"),
    ("vgg13_bn", (2, 2, 2, 2, 2), 133_053_736, "11.31G"),
    ("vgg16_bn", (2, 2, 3, 3, 3), 138_365_992, "15.47G"),
    ("vgg19_bn", (2, 2, 4, 4, 4), 143_678_248, "19.63G"),
):
    register(
        ModelSpec(
            _name,
            "kzoo.models.vgg:vgg",
            (224, 224, 3),
            1000,
            paper=_VGG,
            config={"blocks": _blocks, "batch_norm": True, "initialization": "he_normal"},
            params=_params,
            multiply_adds=_multiply_adds,
            preprocessing=_TORCH,
            deviations=(
                "Batch norm behind each convolution, as in torchvision; the paper has none.",
                "Initialised after He et al. 2015, as in torchvision.",
            ),
        )
    )

# For CIFAR-10: what kzoo's own weights for style transfer are trained as (with batch norm) and shipped as (folded).
for _name, _batch_norm in (("vgg_cifar10", False), ("vgg_cifar10_bn", True)):
    register(
        ModelSpec(
            _name,
            "kzoo.models.vgg:vgg",
            (32, 32, 3),
            10,
            paper=_VGG,
            preprocessing=_CIFAR,
            recipe="cifar",
            config={
                "blocks": (2, 2, 3, 3, 3),
                "width": 16,
                "hidden": 0,
                "batch_norm": _batch_norm,
                "initialization": "he_normal",
            },
            deviations=(
                "vgg16's thirteen convolutions at a quarter of the width, without fc1 and fc2, for 32x32 pixels.",
            ),
        )
    )

# --- ResNet ----------------------------------------------------------------------------------------------

_RESNET = Paper("Deep Residual Learning for Image Recognition", "He et al.", 2015, "1512.03385")
_RESNET_V2 = Paper("Identity Mappings in Deep Residual Networks", "He et al.", 2016, "1603.05027")
_WRN = Paper("Wide Residual Networks", "Zagoruyko and Komodakis", 2016, "1605.07146")

# Multiply-adds: Table 1 and Figure 3. Parameters: torchvision's, where it has the network.
for _name, _blocks, _params, _multiply_adds, _shortcut in (
    ("resnet18", (2, 2, 2, 2), 11_689_512, "1.8G", "projection"),
    ("resnet34", (3, 4, 6, 3), 21_797_672, "3.6G", "projection"),
    ("plain18", (2, 2, 2, 2), None, "1.8G", "none"),
    ("plain34", (3, 4, 6, 3), None, "3.6G", "none"),
):
    register(
        ModelSpec(
            _name,
            "kzoo.models.resnet:resnet",
            (224, 224, 3),
            1000,
            paper=_RESNET,
            config={"blocks": _blocks, "block": "basic", "shortcut": _shortcut},
            params=_params,
            multiply_adds=_multiply_adds,
            preprocessing=_TORCH,
            deviations=("The mean colour is subtracted, not the mean image.",)
            + (
                ()
                if _shortcut == "none"
                else (
                    "Projection shortcuts (option B) as in torchvision; Table 2 has option A, shortcut='zero_padding'.",
                )
            ),
        )
    )
# Parameters: the Keras networks, whose weights these rows take. Multiply-adds: Table 1.
for _name, _blocks, _params, _multiply_adds in (
    ("resnet50", (3, 4, 6, 3), 25_583_592, "3.8G"),
    ("resnet101", (3, 4, 23, 3), 44_601_832, "7.6G"),
    ("resnet152", (3, 8, 36, 3), 60_268_520, "11.3G"),
):
    register(
        ModelSpec(
            _name,
            "kzoo.models.resnet:resnet",
            (224, 224, 3),
            1000,
            paper=_RESNET,
            config={"blocks": _blocks, "block": "bottleneck", "bias": True, "epsilon": 1.001e-5},
            params=_params,
            multiply_adds=_multiply_adds,
            preprocessing=_CAFFE,
            deviations=(
                "Convolutions have a bias in front of batch norm, as the public Keras weights have.",
                "The mean colour is subtracted, not the mean image.",
            ),
        )
    )
# Both columns: torchvision's.
for _name, _blocks, _params, _multiply_adds in (
    ("resnet50_v1_5", (3, 4, 6, 3), 25_557_032, "4.09G"),
    ("resnet101_v1_5", (3, 4, 23, 3), 44_549_160, "7.80G"),
    ("resnet152_v1_5", (3, 8, 36, 3), 60_192_808, "11.51G"),
):
    register(
        ModelSpec(
            _name,
            "kzoo.models.resnet:resnet",
            (224, 224, 3),
            1000,
            paper=_RESNET,
            config={"blocks": _blocks, "block": "bottleneck_v1_5"},
            params=_params,
            multiply_adds=_multiply_adds,
            preprocessing=_TORCH,
            deviations=("The stride sits on the 3x3 of a bottleneck, as in torchvision, not on the first 1x1.",),
        )
    )
for _name, _blocks, _params in (
    ("resnet50_v2", (3, 4, 6, 3), 25_568_360),
    ("resnet101_v2", (3, 4, 23, 3), 44_577_896),
    ("resnet152_v2", (3, 8, 36, 3), 60_236_904),
):
    register(
        ModelSpec(
            _name,
            "kzoo.models.resnet:resnet_v2",
            (224, 224, 3),
            1000,
            config={"blocks": _blocks},
            paper=_RESNET_V2,
            params=_params,
            preprocessing=_TF,
            deviations=(
                "The stride of a stage sits in its last block, as in TF-slim and the public Keras weights; the "
                "paper has it in the first block of the next stage.",
                "conv1, the projections and the last convolution of a block have a bias, as those weights have.",
            ),
        )
    )

# CIFAR, section 4.2; parameters: Table 6. The plain networks have as many as the residual ones.
for _name, _depth, _params, _shortcut in (
    ("resnet20", 20, "0.27M", "zero_padding"),
    ("resnet32", 32, "0.46M", "zero_padding"),
    ("resnet44", 44, "0.66M", "zero_padding"),
    ("resnet56", 56, "0.85M", "zero_padding"),
    ("resnet110", 110, "1.7M", "zero_padding"),
    ("plain20", 20, "0.27M", "none"),
    ("plain56", 56, "0.85M", "none"),
):
    register(
        ModelSpec(
            _name,
            "kzoo.models.resnet:resnet_cifar",
            (32, 32, 3),
            10,
            paper=_RESNET,
            config={"depth": _depth, "shortcut": _shortcut},
            params=_params,
            preprocessing=_CIFAR,
            recipe="cifar",
            deviations=(
                "The mean colour is subtracted and divided by its deviation; the paper subtracts the mean image.",
            ),
        )
    )


def wrn(depth: int, k: int, *, params: int | str | None = None) -> ModelSpec:
    """Make the row of any wide residual network for CIFAR: for build(wrn(22, 2)), or to be registered.

    Args:
        depth: Layers, 6n + 4.
        k: Widening factor.
        params: See `ModelSpec`.

    Example:
        >>> wrn(22, 2).name
        'wrn_22_2'
    """
    return ModelSpec(
        f"wrn_{depth}_{k}",
        "kzoo.models.wide_resnet:wide_resnet",
        (32, 32, 3),
        10,
        paper=_WRN,
        config={"depth": depth, "k": k},
        params=params,
        preprocessing=_CIFAR,
        recipe="cifar",
        deviations=("Without dropout between the convolutions; dropout=0.3 gives the paper's variant with it.",),
    )


register(wrn(16, 8, params="11.0M"))  # parameters: Tables 3 and 4
register(wrn(28, 10, params="36.5M"))
register(wrn(40, 4, params="8.9M"))

# --- MobileNet, SqueezeNet, All-CNN ----------------------------------------------------------------------

# Any width multiplier: build("mobilenet_v2", alpha=0.35). Parameters: the Keras networks; multiply-adds: the papers.
register(
    ModelSpec(
        "mobilenet_v1",
        "kzoo.models.mobilenet:mobilenet_v1",
        (224, 224, 3),
        1000,
        paper=Paper(
            "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications",
            "Howard et al.",
            2017,
            "1704.04861",
        ),
        params=4_231_976,
        multiply_adds="569M",
        preprocessing=_TF,
        deviations=(
            "ReLU6 for ReLU, and dropout of 0.001, as in the authors' code and the public weights.",
            "Padded right and bottom before a stride, as those weights were trained.",
        ),
    )
)
register(
    ModelSpec(
        "mobilenet_v2",
        "kzoo.models.mobilenet:mobilenet_v2",
        (224, 224, 3),
        1000,
        paper=Paper("MobileNetV2: Inverted Residuals and Linear Bottlenecks", "Sandler et al.", 2018, "1801.04381"),
        params=3_504_872,
        multiply_adds="300M",
        preprocessing=_TF,
        deviations=("Channels are rounded to multiples of 8, as in the authors' code.",),
    )
)

register(
    ModelSpec(
        "efficientnet_lite0",
        "kzoo.models.efficientnet_lite:efficientnet_lite",
        (224, 224, 3),
        1000,
        paper=Paper(
            "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", "Tan and Le", 2019, "1905.11946"
        ),
        params=4_652_008,
        multiply_adds="407M",  # as the authors' efficientnet/lite page prints them
        preprocessing=EFFICIENTNET_LITE,
        deviations=(
            "As in the authors' efficientnet/lite code: no squeeze-excitation, ReLU6 for swish; B0 in the paper has "
            "5.3M parameters. No blocks are dropped in training.",
            "Channels are rounded to multiples of 8, as in that code.",
        ),
    )
)

_SQUEEZENET = Paper(
    "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size",
    "Iandola et al.",
    2016,
    "1602.07360",
)
# Caffe's mean, as the authors' weights have it.
_SQUEEZENET_INPUT = Preprocessing(crop=227 / 256, channel_order="bgr", scale=1.0, offset=(-104.0, -117.0, -123.0))
register(
    ModelSpec(
        "squeezenet1_0",
        "kzoo.models.squeezenet:squeezenet",
        (227, 227, 3),
        1000,
        config={"stem": (96, 7), "pools": (1, 4, 8)},
        paper=_SQUEEZENET,
        params=1_248_424,
        preprocessing=_SQUEEZENET_INPUT,  # parameters: Table 1
        deviations=(
            "Input 227x227: the paper says 224, its layer sizes need 227.",
            "Pooling rounds sizes up at 224, as in Caffe and torchvision.",
        ),
    )
)
register(
    ModelSpec(
        "squeezenet1_1",
        "kzoo.models.squeezenet:squeezenet",
        (227, 227, 3),
        1000,
        config={"stem": (64, 3), "pools": (1, 3, 5)},
        paper=_SQUEEZENET,
        params=1_235_496,
        preprocessing=_SQUEEZENET_INPUT,  # parameters: torchvision
        deviations=("Not in the paper: the authors' release 1.1, 2.4 times less arithmetic by the authors' count.",),
    )
)
register(
    ModelSpec(
        "allcnn_c",
        "kzoo.models.allcnn:allcnn_c",
        (32, 32, 3),
        10,
        paper=Paper("Striving for Simplicity: The All Convolutional Net", "Springenberg et al.", 2014, "1412.6806"),
        params="1.4M",
        preprocessing=_CIFAR,
        deviations=(
            "The mean colour is subtracted and divided by its deviation; the paper whitens the images.",
            "He initialisation; the paper does not name one.",
        ),
    )
)

register(
    ModelSpec(
        "nin",
        "kzoo.models.nin:nin",
        (32, 32, 3),
        10,
        paper=Paper("Network In Network", "Lin et al.", 2013, "1312.4400"),
        params=966_986,  # by hand from the authors' configuration for CIFAR-10
        preprocessing=_CIFAR,
        deviations=(
            "The sizes are those of the authors' release for CIFAR-10; the paper prints none.",
            "The mean colour is subtracted and divided by its deviation; the paper normalises contrast and whitens.",
            "He initialisation; the paper names none.",
        ),
    )
)

# --- Faces, clips ----------------------------------------------------------------------------------------

register(
    ModelSpec(
        "deepface",
        "kzoo.models.deepface:deepface",
        (152, 152, 3),
        4030,
        paper=Paper(
            "DeepFace: Closing the Gap to Human-Level Performance in Face Verification", "Taigman et al.", 2014
        ),
        params="120M",
        preprocessing=_ZERO_TO_ONE,
        recipe="alexnet",
        deviations=(
            "The printed layers and 4,030 identities give 118,923,774 parameters; the paper says 'more than 120 "
            "million'.",
            "The faces come as they are: the 3D alignment in front of the network is not part of it.",
            "The paper does not print the rate of F7's dropout (0.5 here), nor how pixels are scaled (0 to 1 here).",
            "Without the normalisation of the descriptor to 0..1 and to length 1, which verification adds to F7.",
        ),
    )
)
register(
    ModelSpec(
        "c3d",
        "kzoo.models.c3d:c3d",
        (16, 112, 112, 3),
        101,
        paper=Paper(
            "Learning Spatiotemporal Features with 3D Convolutional Networks", "Tran et al.", 2014, "1412.0767"
        ),
        params=78_409_573,  # by hand from Figure 3 with the 101 classes of UCF101
        deviations=(
            "For UCF101's 101 classes, as in the authors' release; the paper's Sports-1M has 487.",
            "The last pool rounds 7 up to 4, as in the authors' Caffe.",
            "Pixels are scaled to -1..1; the authors subtract the mean clip.",
            "Initialised as in the authors' release; the paper names nothing.",
            "It takes clips, which kzoo builds, counts and saves, and does not read, train on or predict.",
        ),
    )
)

# --- Inception -------------------------------------------------------------------------------------------

_GOOGLENET = Paper("Going Deeper with Convolutions", "Szegedy et al.", 2014, "1409.4842")
_INCEPTION_V3 = Paper("Rethinking the Inception Architecture for Computer Vision", "Szegedy et al.", 2015, "1512.00567")
_INCEPTION_V4 = Paper(
    "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning",
    "Szegedy et al.",
    2016,
    "1602.07261",
)

register(
    ModelSpec(
        "googlenet",
        "kzoo.models.inception:googlenet",
        (224, 224, 3),
        1000,
        paper=_GOOGLENET,
        loss_weights=(1.0, 0.3, 0.3),  # section 5: with aux=True
        # Caffe's bvlc_googlenet. Table 1 prints no total, and several of its rows do not fit their own sizes.
        params=6_998_552,
        preprocessing=Preprocessing(crop=0.875, channel_order="bgr", scale=1.0, offset=(-104.0, -117.0, -123.0)),
        deviations=(
            "The auxiliary classifiers (loss weight 0.3) are built with aux=True only, for training.",
            "Table 1 counts 34M multiply-adds for conv1, a 7x7 has 118M: 1.58G in total for the printed 1.5G.",
            "The constants of the local response normalisation are Caffe's; the paper gives none.",
        ),
    )
)
register(
    ModelSpec(
        "googlenet_bn",
        "kzoo.models.inception:googlenet_bn",
        (224, 224, 3),
        1000,
        paper=_GOOGLENET,
        params=6_624_904,
        multiply_adds="1.50G",
        preprocessing=_TF,  # torchvision's
        deviations=(
            "As in torchvision: batch norm and no local response normalisation, 3x3 in place of 5x5 convolutions, "
            "a 2x2 pool in front of 5a, dropout of 0.2, no auxiliary classifiers.",
        ),
    )
)
register(
    ModelSpec(
        "inception_v3",
        "kzoo.models.inception_v3:inception_v3",
        (299, 299, 3),
        1000,
        paper=_INCEPTION_V3,
        params=23_817_352,
        multiply_adds="5.71G",
        preprocessing=_TF,  # the Keras network; torchvision's count
        deviations=(
            "The modules are those of the authors' code and the public weights: one 5x5 stays in each of mixed0 to "
            "mixed2, batch norm has no gamma, one 3x3 of the paper's stem is 1x1.",
            "Without the auxiliary classifier.",
            "The paper prints about 5 billion multiply-adds.",
        ),
    )
)
register(
    ModelSpec(
        "inception_v4",
        "kzoo.models.inception_v4:inception_v4",
        (299, 299, 3),
        1000,
        paper=_INCEPTION_V4,
        params=42_679_816,
        multiply_adds="12.28G",  # timm's
        preprocessing=Preprocessing(crop=0.875, interpolation="bicubic"),
        deviations=("Batch norm has a gamma, as in timm's weights.",),
    )
)
register(
    ModelSpec(
        "inception_resnet_v1",
        "kzoo.models.inception_resnet:inception_resnet_v1",
        (299, 299, 3),
        1000,
        paper=_INCEPTION_V4,
        preprocessing=_TF,
        deviations=(
            "The residuals are scaled by 0.17, 0.1 and 0.2; the paper says 0.1 to 0.3.",
            "Batch norm has no gamma, as in the authors' code of v2.",
        ),
    )
)
register(
    ModelSpec(
        "inception_resnet_v2",
        "kzoo.models.inception_resnet:inception_resnet_v2",
        (299, 299, 3),
        1000,
        paper=_INCEPTION_V4,
        params=55_813_192,
        multiply_adds="13.18G",
        preprocessing=_TF,
        deviations=(
            "As in the authors' code and the public weights: Inception v3's stem and one module in place of "
            "Figure 3, 10, 20 and 10 modules for 5, 10 and 5, and other widths in some.",
        ),
    )
)

# --- NASNet ----------------------------------------------------------------------------------------------

_NASNET = Paper("Learning Transferable Architectures for Scalable Image Recognition", "Zoph et al.", 2017, "1707.07012")
for _name, _size, _config, _params, _multiply_adds in (
    ("nasnet_mobile", 224, {"blocks": 4, "penultimate": 1056, "stem": 32, "skip_reduction": False}, 5_289_978, "564M"),
    ("nasnet_large", 331, {"blocks": 6, "penultimate": 4032, "stem": 96, "skip_reduction": True}, 88_753_150, "23.8G"),
):
    register(
        ModelSpec(
            _name,
            "kzoo.models.nasnet:nasnet",
            (_size, _size, 3),
            1000,
            config=_config,
            paper=_NASNET,
            params=_params,
            multiply_adds=_multiply_adds,
            preprocessing=_TF,
            deviations=("Without the auxiliary classifier, dropout and ScheduledDropPath of the paper's training.",),
        )
    )

# --- Segmentation ----------------------------------------------------------------------------------------

_UNET = Paper(
    "U-Net: Convolutional Networks for Biomedical Image Segmentation", "Ronneberger et al.", 2015, "1505.04597"
)

register(
    ModelSpec(
        "unet",
        "kzoo.models.unet:unet",
        (572, 572, 1),
        2,
        paper=_UNET,
        params=31_030_658,  # by hand from Figure 1, which prints no total
        preprocessing=_ZERO_TO_ONE,
        task="segmentation",
        recipe="segmentation",
        deviations=(
            "The paper prints neither the place nor the rate of dropout: 0.5 behind the last two levels of the "
            "contracting path, as in the authors' release.",
            "No ReLU behind the up-convolutions, as printed; the authors' release has one.",
            "The paper does not print how pixels are scaled (0 to 1 here).",
        ),
    )
)
register(
    ModelSpec(
        "unet_same",
        "kzoo.models.unet:unet_same",
        (256, 256, 3),
        2,
        paper=_UNET,
        task="segmentation",
        recipe="segmentation",
        deviations=(
            "Convolutions are padded, so that every pixel gets logits and nothing is cropped.",
            "Batch norm behind each 3x3 convolution, no dropout; batch_norm=False and dropout=0.5 give the paper's.",
            "backbone= takes a network of the catalog as the contracting path.",
        ),
    )
)

for _name, _weights in PRETRAINED.items():
    register(replace(spec(_name), weights=_weights), replace=True)
