"""PyTorch networks to compare with: written for these tests, with the parameter names of torchvision and timm."""

import torch
from torch import nn
from torch.nn import functional as F


def conv(i, o, size, stride=1):
    return nn.Conv2d(i, o, size, stride, padding=size // 2, bias=False)


# --- ResNet (torchvision) --------------------------------------------------------------------------------


class Block(nn.Module):
    """sizes, widths: of the convolutions; the stride sits on the first 3x3."""

    def __init__(self, i, sizes, widths, stride):
        super().__init__()
        self.depth = len(sizes)
        place = sizes.index(3) + 1
        channels = i
        for n, (size, width) in enumerate(zip(sizes, widths, strict=True), 1):
            setattr(self, f"conv{n}", conv(channels, width, size, stride if n == place else 1))
            setattr(self, f"bn{n}", nn.BatchNorm2d(width))
            channels = width
        self.downsample = None
        if stride > 1 or i != channels:
            self.downsample = nn.Sequential(conv(i, channels, 1, stride), nn.BatchNorm2d(channels))

    def forward(self, x):
        y = x
        for n in range(1, self.depth + 1):
            y = getattr(self, f"bn{n}")(getattr(self, f"conv{n}")(y))
            y = F.relu(y) if n < self.depth else y
        return F.relu(y + (self.downsample(x) if self.downsample else x))


class ResNet(nn.Module):
    def __init__(self, blocks, bottleneck, num_classes):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 64, 7, 2), nn.BatchNorm2d(64)
        channels = 64
        for stage, count in enumerate(blocks):
            width = 64 * 2**stage
            sizes, widths = ((1, 3, 1), (width, width, 4 * width)) if bottleneck else ((3, 3), (width, width))
            layer = []
            for n in range(count):
                layer.append(Block(channels, sizes, widths, 2 if stage and not n else 1))
                channels = widths[-1]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layer))
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, padding=1)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return self.fc(x.mean((2, 3)))


# --- Wide ResNet, with the names of our layers ------------------------------------------------------------


class WideResNet(nn.Module):
    def __init__(self, depth, k, num_classes):
        super().__init__()
        self.conv1_conv = conv(3, 16, 3)
        channels, self.blocks = 16, []
        for stage in range(3):
            for i in range((depth - 4) // 6):
                name, width, stride = f"conv{stage + 2}_block{i + 1}", 16 * k * 2**stage, 2 if stage and not i else 1
                self.blocks.append((name, channels != width))
                parts = {
                    "1_bn": nn.BatchNorm2d(channels),
                    "1_conv": conv(channels, width, 3, stride),
                    "2_bn": nn.BatchNorm2d(width),
                    "2_conv": conv(width, width, 3),
                }
                if channels != width:
                    parts["0_conv"] = conv(channels, width, 1, stride)
                for part, module in parts.items():
                    self.add_module(f"{name}_{part}", module)
                channels = width
        self.post_bn = nn.BatchNorm2d(channels)
        self.predictions = nn.Linear(channels, num_classes)

    def forward(self, x):
        x = self.conv1_conv(x)
        for name, project in self.blocks:

            def part(p):
                return getattr(self, f"{name}_{p}")  # noqa: B023

            pre = F.relu(part("1_bn")(x))
            y = part("2_conv")(F.relu(part("2_bn")(part("1_conv")(pre))))
            x = y + (part("0_conv")(pre) if project else x)
        return self.predictions(F.relu(self.post_bn(x)).mean((2, 3)))


# --- GoogLeNet (torchvision; `published` as in the paper, with the same names) ------------------------------


class Conv(nn.Module):
    """Convolution, batch norm unless `published`, ReLU; size and padding as (height, width)."""

    def __init__(self, i, o, size, stride=1, padding=0, published=False):
        super().__init__()
        self.conv = nn.Conv2d(i, o, size, stride, padding, bias=published)
        self.bn = None if published else nn.BatchNorm2d(o, eps=0.001)

    def forward(self, x):
        x = self.conv(x)
        return F.relu(self.bn(x) if self.bn else x)


class Inception(nn.Module):
    def __init__(self, i, n1, r3, n3, r5, n5, proj, published):
        super().__init__()
        size5 = 5 if published else 3
        self.branch1 = Conv(i, n1, 1, published=published)
        self.branch2 = nn.Sequential(
            Conv(i, r3, 1, published=published), Conv(r3, n3, 3, padding=1, published=published)
        )
        self.branch3 = nn.Sequential(
            Conv(i, r5, 1, published=published), Conv(r5, n5, size5, padding=size5 // 2, published=published)
        )
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, padding=1), Conv(i, proj, 1, published=published))

    def forward(self, x):
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class Auxiliary(nn.Module):
    """As in the paper; torchvision pools adaptively."""

    def __init__(self, i, flat, num_classes):
        super().__init__()
        self.conv = Conv(i, 128, 1, published=True)
        self.fc1, self.fc2 = nn.Linear(flat, 1024), nn.Linear(1024, num_classes)

    def forward(self, x):
        x = self.conv(F.avg_pool2d(x, 5, 3))
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


class GoogLeNet(nn.Module):
    """aux: the number of values that the auxiliary classifiers flatten; None leaves them out."""

    def __init__(self, num_classes, published=False, aux=None):
        super().__init__()
        self.published = published
        self.conv1 = Conv(3, 64, 7, 2, 3, published)
        self.conv2 = Conv(64, 64, 1, published=published)
        self.conv3 = Conv(64, 192, 3, padding=1, published=published)
        sizes = {
            "3a": (192, 64, 96, 128, 16, 32, 32),
            "3b": (256, 128, 128, 192, 32, 96, 64),
            "4a": (480, 192, 96, 208, 16, 48, 64),
            "4b": (512, 160, 112, 224, 24, 64, 64),
            "4c": (512, 128, 128, 256, 24, 64, 64),
            "4d": (512, 112, 144, 288, 32, 64, 64),
            "4e": (528, 256, 160, 320, 32, 128, 128),
            "5a": (832, 256, 160, 320, 32, 128, 128),
            "5b": (832, 384, 192, 384, 48, 128, 128),
        }
        for name, numbers in sizes.items():
            setattr(self, f"inception{name}", Inception(*numbers, published))
        self.aux1 = Auxiliary(512, aux, num_classes) if aux else None
        self.aux2 = Auxiliary(528, aux, num_classes) if aux else None
        self.fc = nn.Linear(1024, num_classes)

    def forward(self, x):
        norm = (
            (lambda x: F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0)) if self.published else nn.Identity()
        )
        x = norm(F.max_pool2d(self.conv1(x), 3, 2, ceil_mode=True))
        x = F.max_pool2d(norm(self.conv3(self.conv2(x))), 3, 2, ceil_mode=True)
        x = self.inception3b(self.inception3a(x))
        x = self.inception4a(F.max_pool2d(x, 3, 2, ceil_mode=True))
        aux1 = self.aux1 and self.aux1(x)
        x = self.inception4d(self.inception4c(self.inception4b(x)))
        aux2 = self.aux2 and self.aux2(x)
        x = F.max_pool2d(self.inception4e(x), 3 if self.published else 2, 2, ceil_mode=True)
        x = self.fc(self.inception5b(self.inception5a(x)).mean((2, 3)))
        return (x, aux1, aux2) if self.aux1 else x


# --- Inception v4 (timm) ---------------------------------------------------------------------------------


def chain(i, *steps):
    """Conv after Conv; a step is (filters, size) or (filters, size, stride); stride 2 and "valid" have no padding."""
    convs = []
    for filters, size, *how in steps:
        size = (size, size) if isinstance(size, int) else size
        stride = 2 if how == [2] else 1
        padding = (0, 0) if how else (size[0] // 2, size[1] // 2)
        convs.append(Conv(i, filters, size, stride, padding))
        i = filters
    return convs[0] if len(convs) == 1 else nn.Sequential(*convs)


class Branches(nn.Module):
    """branch0, branch1, ... side by side, each from `chain`, or a pool."""

    def __init__(self, **branches):
        super().__init__()
        for name, branch in branches.items():
            setattr(self, name, branch)

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.children()], 1)


def pooled(i, filters):
    return nn.Sequential(nn.AvgPool2d(3, 1, padding=1, count_include_pad=False), Conv(i, filters, 1))


class InceptionC(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch0 = Conv(1536, 256, 1)
        self.branch1_0 = Conv(1536, 384, 1)
        self.branch1_1a = Conv(384, 256, (1, 3), padding=(0, 1))
        self.branch1_1b = Conv(384, 256, (3, 1), padding=(1, 0))
        self.branch2_0 = Conv(1536, 384, 1)
        self.branch2_1 = Conv(384, 448, (3, 1), padding=(1, 0))
        self.branch2_2 = Conv(448, 512, (1, 3), padding=(0, 1))
        self.branch2_3a = Conv(512, 256, (1, 3), padding=(0, 1))
        self.branch2_3b = Conv(512, 256, (3, 1), padding=(1, 0))
        self.branch3 = pooled(1536, 256)

    def forward(self, x):
        a, b = self.branch1_0(x), self.branch2_2(self.branch2_1(self.branch2_0(x)))
        return torch.cat(
            [
                self.branch0(x),
                self.branch1_1a(a),
                self.branch1_1b(a),
                self.branch2_3a(b),
                self.branch2_3b(b),
                self.branch3(x),
            ],
            1,
        )


class InceptionV4(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        pool = nn.MaxPool2d(3, 2)
        features = [
            *chain(3, (32, 3, 2), (32, 3, "valid"), (64, 3)),
            Branches(maxpool=pool, conv=chain(64, (96, 3, 2))),
            Branches(
                branch0=chain(160, (64, 1), (96, 3, "valid")),
                branch1=chain(160, (64, 1), (64, (1, 7)), (64, (7, 1)), (96, 3, "valid")),
            ),
            Branches(conv=chain(192, (192, 3, 2)), maxpool=pool),
        ]
        features += [
            Branches(
                branch0=chain(384, (96, 1)),
                branch1=chain(384, (64, 1), (96, 3)),
                branch2=chain(384, (64, 1), (96, 3), (96, 3)),
                branch3=pooled(384, 96),
            )
            for _ in range(4)
        ]
        features += [
            Branches(
                branch0=chain(384, (384, 3, 2)),
                branch1=chain(384, (192, 1), (224, 3), (256, 3, 2)),
                branch2=pool,
            )
        ]
        features += [
            Branches(
                branch0=chain(1024, (384, 1)),
                branch1=chain(1024, (192, 1), (224, (1, 7)), (256, (7, 1))),
                branch2=chain(1024, (192, 1), (192, (7, 1)), (224, (1, 7)), (224, (7, 1)), (256, (1, 7))),
                branch3=pooled(1024, 128),
            )
            for _ in range(7)
        ]
        features += [
            Branches(
                branch0=chain(1024, (192, 1), (192, 3, 2)),
                branch1=chain(1024, (256, 1), (256, (1, 7)), (320, (7, 1)), (320, 3, 2)),
                branch2=pool,
            )
        ]
        self.features = nn.Sequential(*features, *(InceptionC() for _ in range(3)))
        self.last_linear = nn.Linear(1536, num_classes)

    def forward(self, x):
        return self.last_linear(self.features(x).mean((2, 3)))


# --- SqueezeNet (torchvision) ----------------------------------------------------------------------------


class Fire(nn.Module):
    def __init__(self, i, squeeze, expand):
        super().__init__()
        self.squeeze = nn.Conv2d(i, squeeze, 1)
        self.expand1x1, self.expand3x3 = nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x):
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


class SqueezeNet(nn.Module):
    def __init__(self, version, num_classes):
        super().__init__()
        fires = [
            Fire(*sizes)
            for sizes in (
                (96 if version == "1_0" else 64, 16, 64),
                (128, 16, 64),
                (128, 32, 128),
                (256, 32, 128),
                (256, 48, 192),
                (384, 48, 192),
                (384, 64, 256),
                (512, 64, 256),
            )
        ]
        pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        if version == "1_0":
            features = [nn.Conv2d(3, 96, 7, 2), nn.ReLU(), pool, *fires[:3], pool, *fires[3:7], pool, fires[7]]
        else:
            features = [nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool, *fires[:2], pool, *fires[2:4], pool, *fires[4:]]
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(512, num_classes, 1), nn.ReLU())

    def forward(self, x):
        return self.classifier(self.features(x)).mean((2, 3))


# --- AlexNet in two towers, with the names of the paper's layers --------------------------------------------


class AlexNet(nn.Module):
    """size: the height and width of pool5."""

    def __init__(self, size, num_classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 11, 4)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.fc6, self.fc7 = nn.Linear(256 * size[0] * size[1], 4096), nn.Linear(4096, 4096)
        self.predictions = nn.Linear(4096, num_classes)

    def forward(self, x):
        def norm(x):
            return F.local_response_norm(x, 5, alpha=5e-4, beta=0.75, k=2.0)

        x = F.max_pool2d(norm(F.relu(self.conv1(x))), 3, 2)
        x = F.max_pool2d(norm(F.relu(self.conv2(x))), 3, 2)
        x = F.relu(self.conv5(F.relu(self.conv4(F.relu(self.conv3(x))))))
        x = F.max_pool2d(x, 3, 2).flatten(1)
        return self.predictions(F.relu(self.fc7(F.relu(self.fc6(x)))))


# --- ZFNet, network in network, DeepFace, C3D, with the names of our layers -----------------------------------


class ZFNet(nn.Module):
    """size: the height and width of pool5."""

    def __init__(self, width, size, units, num_classes):
        super().__init__()
        a, b, c = (n * width // 96 for n in (96, 256, 384))
        self.conv1 = nn.Conv2d(3, a, 7, 2, padding=1)
        self.conv2 = nn.Conv2d(a, b, 5, 2)
        self.conv3 = nn.Conv2d(b, c, 3, padding=1)
        self.conv4 = nn.Conv2d(c, c, 3, padding=1)
        self.conv5 = nn.Conv2d(c, b, 3, padding=1)
        self.fc6, self.fc7 = nn.Linear(b * size[0] * size[1], units), nn.Linear(units, units)
        self.predictions = nn.Linear(units, num_classes)

    def forward(self, x):
        def pool(x):
            return F.max_pool2d(x, 3, 2, ceil_mode=True)

        def norm(x):
            return F.local_response_norm(x, 5, alpha=5e-4, beta=0.75, k=2.0)

        x = norm(pool(F.relu(self.conv1(x))))
        x = norm(pool(F.relu(self.conv2(x))))
        x = F.relu(self.conv5(F.relu(self.conv4(F.relu(self.conv3(x))))))
        return self.predictions(F.relu(self.fc7(F.relu(self.fc6(pool(x).flatten(1))))))


class NetworkInNetwork(nn.Module):
    def __init__(self, width, num_classes):
        super().__init__()
        self.order = []
        channels = 3
        for name, filters, size in (
            ("conv1", width, 5),
            ("cccp1", width * 160 // 192, 1),
            ("cccp2", width * 96 // 192, 1),
            ("conv2", width, 5),
            ("cccp3", width, 1),
            ("cccp4", width, 1),
            ("conv3", width, 3),
            ("cccp5", width, 1),
            ("predictions", num_classes, 1),
        ):
            self.add_module(name, nn.Conv2d(channels, filters, size, padding=size // 2))
            self.order.append(name)
            channels = filters

    def forward(self, x):
        for name in self.order:
            x = F.relu(getattr(self, name)(x))
            if name == "cccp2":
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
            if name == "cccp4":
                x = F.avg_pool2d(x, 3, 2, ceil_mode=True)
        return x.mean((2, 3))


class LocallyConnected(nn.Module):
    """size: the height and width of the input; weight (positions, filters, channels, height, width)."""

    def __init__(self, channels, filters, kernel, stride, size):
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.size = tuple((n - kernel) // stride + 1 for n in size)
        self.weight = nn.Parameter(torch.zeros(self.size[0] * self.size[1], filters, channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(filters, *self.size))

    def forward(self, x):
        patches = F.unfold(x, self.kernel, stride=self.stride)  # (B, channels * kernel^2, positions)
        y = torch.einsum("bkp,pfk->bfp", patches, self.weight.flatten(2))
        return y.unflatten(2, self.size) + self.bias


class DeepFace(nn.Module):
    def __init__(self, width, size, units, num_classes):
        super().__init__()
        self.C1, self.C3 = nn.Conv2d(3, 2 * width, 11), nn.Conv2d(2 * width, width, 9)
        size = [-(-(n - 10 - 3) // 2) + 1 - 8 for n in size]
        self.L4 = LocallyConnected(width, width, 9, 1, size)
        self.L5 = LocallyConnected(width, width, 7, 2, self.L4.size)
        self.L6 = LocallyConnected(width, width, 5, 1, self.L5.size)
        self.F7 = nn.Linear(width * self.L6.size[0] * self.L6.size[1], units)
        self.predictions = nn.Linear(units, num_classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.C1(x)), 3, 2, ceil_mode=True)
        for layer in (self.C3, self.L4, self.L5, self.L6):
            x = F.relu(layer(x))
        return self.predictions(F.relu(self.F7(x.flatten(1))))


class C3D(nn.Module):
    """size: the height and width of pool5, of one frame."""

    def __init__(self, width, size, units, num_classes):
        super().__init__()
        channels, self.stages = 3, []
        for stage, (names, filters) in enumerate((("a", 1), ("a", 2), ("ab", 4), ("ab", 8), ("ab", 8)), 1):
            self.stages.append([f"conv{stage}{letter}" for letter in names])
            for name in self.stages[-1]:
                self.add_module(name, nn.Conv3d(channels, filters * width, 3, padding=1))
                channels = filters * width
        self.fc6, self.fc7 = nn.Linear(channels * size[0] * size[1], units), nn.Linear(units, units)
        self.predictions = nn.Linear(units, num_classes)

    def forward(self, x):
        for i, names in enumerate(self.stages):
            for name in names:
                x = F.relu(getattr(self, name)(x))
            x = F.max_pool3d(x, 2 if i else (1, 2, 2), ceil_mode=True)
        return self.predictions(F.relu(self.fc7(F.relu(self.fc6(x.flatten(1))))))


# --- U-Net, with the names of our layers ----------------------------------------------------------------------


class UNet(nn.Module):
    """padding 0: as published; 1: maps keep their size. norm: whether batch norm stands in front of each ReLU."""

    def __init__(self, i, width, depth, padding, norm, num_classes):
        super().__init__()
        self.depth, self.norm = depth, norm
        filters = [width * 2**n for n in range(depth + 1)]
        sides = [("down", n, [i, *filters][n], filters[n]) for n in range(depth + 1)]
        for side, n, channels, out in sides + [("up", n, filters[n + 1], filters[n]) for n in range(depth)]:
            name = f"{side}{n + 1}"
            if side == "up":
                setattr(self, f"{name}_upconv", nn.ConvTranspose2d(channels, out, 2, 2))
            for k, c in (("1", channels), ("2", out)):
                setattr(self, f"{name}_conv{k}", nn.Conv2d(c, out, 3, padding=padding, bias=not norm))
                if norm:
                    setattr(self, f"{name}_bn{k}", nn.BatchNorm2d(out))
        self.predictions = nn.Conv2d(width, num_classes, 1)

    def convs(self, x, name):
        for k in "12":
            x = getattr(self, f"{name}_conv{k}")(x)
            x = F.relu(getattr(self, f"{name}_bn{k}")(x) if self.norm else x)
        return x

    def forward(self, x):
        maps = []
        for n in range(1, self.depth + 2):
            x = self.convs(F.max_pool2d(x, 2) if maps else x, f"down{n}")
            maps.append(x)
        for n in range(self.depth, 0, -1):
            x = getattr(self, f"up{n}_upconv")(x)
            skip = maps[n - 1]
            top, left = ((a - b) // 2 for a, b in zip(skip.shape[2:], x.shape[2:], strict=True))
            skip = skip[:, :, top : top + x.shape[2], left : left + x.shape[3]]
            x = self.convs(torch.cat([skip, x], 1), f"up{n}")
        return self.predictions(x)
