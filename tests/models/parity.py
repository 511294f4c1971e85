"""What PyTorch's networks compute, written down, so that it can be held against ours where torch is not installed.

`python tests/models/parity.py` writes parity.json with torch, torchvision and timm: for each network its arrays' names
and shapes, its logits, and of every layer the largest value and a random projection (null for batch norm that includes
a ReLU, as timm's). Arrays and projections are drawn with NumPy, by name.
"""

import json
import zlib
from pathlib import Path

import numpy as np

PATH = Path(__file__).with_suffix(".json")
# Our name: the size of the picture, odd so that padding shows.
SIZES = {
    "resnet18": (75, 67),
    "resnet50_v1_5": (75, 67),
    "wrn_10_1": (37, 33),
    "googlenet": (107, 89),
    "googlenet_bn": (107, 89),
    "inception_v4": (107, 89),
    "squeezenet1_0": (107, 89),
    "squeezenet1_1": (107, 89),
    "alexnet": (131, 99),
    "zfnet": (101, 87),
    "nin": (32, 48),
    "deepface": (80, 72),
    "c3d": (16, 21, 26),
    "mobilenet_v1": (75, 67),
    "mobilenet_v2": (75, 67),
    "efficientnet_lite0": (75, 67),
    "resnet50_v2": (75, 67),
    "vgg11": (225, 231),
    "inception_resnet_v2": (107, 89),
    "unet": (44, 48),  # the least that it takes: logits are pictures here
    "unet_same": (8, 12),
}
# What makes them narrow, for kzoo.build; write() below has the same sizes.
OPTIONS = {
    "zfnet": {"width": 12, "units": 16},
    "nin": {"width": 12},
    "deepface": {"width": 4, "units": 16},
    "c3d": {"width": 4, "units": 16},
    "mobilenet_v2": {"alpha": 0.35},
    "resnet50_v2": {"blocks": (1, 2, 1, 1), "width": 8},
    "vgg11": {"width": 4, "units": 4096},
    "inception_resnet_v2": {"blocks": (1, 1, 10)},
    "unet": {"width": 4, "depth": 2},
    "unet_same": {"width": 4, "depth": 2},
}


def drawn(name, shape):
    """An array of a network, as if trained, from its name alone."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) > 1:
        values = rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape)
    elif name.endswith(("running_var", "weight")):
        values = rng.uniform(0.5, 1.5, shape)
    else:
        values = rng.normal(0, 0.1, shape)
    return values.astype("float32")


def picture(size):
    return np.random.default_rng(1).uniform(-1, 1, (2, *size, 3)).astype("float32")


def summary(name, y):
    """The largest value of a layer's output, channels last, and a projection of it on noise."""
    y = np.asarray(y, "float64")
    noise = np.random.default_rng(zlib.crc32(name.encode())).normal(size=y.shape)
    return [float(np.abs(y).max()), float((y * noise).sum() / np.sqrt(y.size))]


def packaged(name):
    """The name of an array or a module of EfficientNet-Lite0 in the package with its weights, from timm's."""
    blocks = [(s, n) for s, count in enumerate((1, 2, 2, 3, 3, 4, 1)) for n in range(count)]
    module, number = name, None
    if name.startswith("blocks."):
        _, s, n, module = name.split(".", 3)
        number = blocks.index((int(s), int(n)))
    part, dot, variable = module.partition(".")
    if number is None:
        parts = {
            "conv_stem": "_conv_stem",
            "bn1": "_bn0",
            "conv_head": "_conv_head",
            "bn2": "_bn1",
            "classifier": "_fc",
        }
        return parts[part] + dot + variable
    if number:
        parts = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"}
        parts |= {"conv_pwl": "_project_conv", "bn3": "_bn2"}
    else:  # its first block has no expansion
        parts = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    return f"_blocks.{number}.{parts[part]}{dot}{variable}"


def write():
    import timm
    import torch
    import torch_models as m
    import torchvision
    from timm.models import vgg

    inception_resnet_v2 = timm.create_model("inception_resnet_v2", num_classes=7)
    inception_resnet_v2.repeat = inception_resnet_v2.repeat[:1]
    inception_resnet_v2.repeat_1 = inception_resnet_v2.repeat_1[:1]

    networks = {
        "resnet18": m.ResNet((2, 2, 2, 2), False, 7),
        "resnet50_v1_5": m.ResNet((3, 4, 6, 3), True, 7),
        "wrn_10_1": m.WideResNet(10, 1, 7),
        "googlenet": m.GoogLeNet(7, published=True),
        "googlenet_bn": m.GoogLeNet(7),
        "inception_v4": m.InceptionV4(7),
        "squeezenet1_0": m.SqueezeNet("1_0", 7),
        "squeezenet1_1": m.SqueezeNet("1_1", 7),
        "alexnet": m.AlexNet((3, 2), 7),
        "zfnet": m.ZFNet(12, (2, 2), 16, 7),
        "nin": m.NetworkInNetwork(12, 7),
        "deepface": m.DeepFace(4, (80, 72), 16, 7),
        "c3d": m.C3D(4, (1, 1), 16, 7),
        "mobilenet_v1": timm.create_model("mobilenetv1_100", num_classes=7),
        "mobilenet_v2": torchvision.models.mobilenet_v2(num_classes=7, width_mult=0.35),
        "efficientnet_lite0": timm.create_model("tf_efficientnet_lite0", num_classes=7),
        "resnet50_v2": timm.create_model(
            "resnetv2_50", layers=(1, 2, 1, 1), channels=(32, 64, 128, 256), stem_chs=8, num_classes=7
        ),
        "vgg11": vgg.VGG((4, "M", 8, "M", 16, 16, "M", 32, 32, "M", 32, 32, "M"), 7),
        "inception_resnet_v2": inception_resnet_v2,
        "unet": m.UNet(3, 4, 2, 0, False, 7),
        "unet_same": m.UNet(3, 4, 2, 1, True, 7),
    }
    found = {"torch": torch.__version__, "torchvision": torchvision.__version__, "timm": timm.__version__}
    kinds = (torch.nn.Conv2d, torch.nn.Conv3d, torch.nn.ConvTranspose2d, torch.nn.BatchNorm2d, torch.nn.Linear)
    kinds += (m.LocallyConnected,)
    for ours, network in networks.items():
        network.eval()
        named = packaged if ours == "efficientnet_lite0" else str
        state = {named(k): v for k, v in network.state_dict().items() if v.is_floating_point()}
        for name, array in state.items():
            array.copy_(torch.from_numpy(drawn(name, tuple(array.shape))))
        layers = {}
        for name, module in network.named_modules():
            if isinstance(module, kinds):
                name = named(name)

                def keep(module, inputs, output, name=name, layers=layers):
                    relu = not isinstance(getattr(module, "act", None), torch.nn.Identity | None)
                    layers[name] = None if relu else summary(name, np.moveaxis(output.detach().numpy(), 1, -1))

                module.register_forward_hook(keep)
        with torch.no_grad():
            logits = network(torch.from_numpy(np.moveaxis(picture(SIZES[ours]), -1, 1).copy()))
        found[ours] = {
            "arrays": {name: list(array.shape) for name, array in state.items()},
            "layers": layers,
            "logits": np.moveaxis(logits.numpy(), 1, -1).tolist(),
        }
    PATH.write_text(json.dumps(found, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    write()
