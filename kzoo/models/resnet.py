"""Residual networks (He et al. 2015, arXiv:1512.03385), and with pre-activation (He et al. 2016, arXiv:1603.05027).

Layer names are those of the public Keras weights: conv3_block1_0_conv is the shortcut of the first block of conv3_x.
"""

from functools import partial

import keras
from keras import layers

from kzoo.errors import KzooError, unknown
from kzoo.layers import BatchNormalization, classifier

_register = keras.saving.register_keras_serializable(package="kzoo")


def conv(x, filters, size, *, name, stride=1, bias=False):
    """A convolution padded by size // 2 on all four sides, named <name>_conv; He initialisation (section 3.4)."""
    if size > 1 and stride > 1:  # "same" would pad right and bottom only; the public weights need all four sides
        x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
        padding = "valid"
    else:
        padding = "same"
    return layers.Conv2D(
        filters,
        size,
        strides=stride,
        padding=padding,
        use_bias=bias,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)


def norm(x, *, name, epsilon=1e-5):
    return BatchNormalization(momentum=0.9, epsilon=epsilon, name=name)(x)


@_register
class ZeroPaddingShortcut(layers.Layer):
    """Shortcut of option A (section 3.3): every stride-th pixel, and zeros for the channels that are missing."""

    kernel_size = 1  # for kzoo.ledger, as strides

    def __init__(self, filters, stride, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.stride = filters, stride

    @property
    def strides(self):
        return self.stride

    def call(self, x):
        if self.stride > 1:  # x[:, ::stride, ::stride], whose gradient takes TensorFlow several times as long
            x = keras.ops.average_pool(x, 1, strides=self.stride)
        return keras.ops.pad(x, [[0, 0], [0, 0], [0, 0], [0, self.filters - x.shape[-1]]])

    def compute_output_shape(self, input_shape):
        b, h, w, _ = input_shape
        return (b, h and -(-h // self.stride), w and -(-w // self.stride), self.filters)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters, "stride": self.stride}


# --- Blocks: (B, H, W, C) -> (B, H / stride, W / stride, filters or 4 * filters) --------------------------


def join(x, y, *, shortcut, stride, conv, norm, name):
    """ReLU(shortcut(x) + y), the shortcut being the identity where the shapes allow it; shortcut "none": ReLU(y)."""
    if shortcut != "none":
        if stride > 1 or x.shape[-1] != y.shape[-1]:
            if shortcut == "zero_padding":
                x = ZeroPaddingShortcut(y.shape[-1], stride, name=f"{name}_0_pad")(x)
            else:
                x = norm(conv(x, y.shape[-1], 1, stride=stride, name=f"{name}_0"), name=f"{name}_0_bn")
        y = layers.Add(name=f"{name}_add")([x, y])
    return layers.ReLU(name=f"{name}_out")(y)


def basic(x, filters, *, stride, name, shortcut, conv, norm):
    """Two 3x3 convolutions (Figure 5, left)."""
    y = norm(conv(x, filters, 3, stride=stride, name=f"{name}_1"), name=f"{name}_1_bn")
    y = layers.ReLU(name=f"{name}_1_relu")(y)
    y = norm(conv(y, filters, 3, name=f"{name}_2"), name=f"{name}_2_bn")
    return join(x, y, shortcut=shortcut, stride=stride, conv=conv, norm=norm, name=name)


def bottleneck(x, filters, *, stride, name, shortcut, conv, norm, stride_on=1):
    """1x1, 3x3 and 1x1, the last to 4 * filters (Figure 5, right). The stride sits on the first 1x1, as published."""
    strides = (stride, 1) if stride_on == 1 else (1, stride)
    y = norm(conv(x, filters, 1, stride=strides[0], name=f"{name}_1"), name=f"{name}_1_bn")
    y = layers.ReLU(name=f"{name}_1_relu")(y)
    y = norm(conv(y, filters, 3, stride=strides[1], name=f"{name}_2"), name=f"{name}_2_bn")
    y = layers.ReLU(name=f"{name}_2_relu")(y)
    y = norm(conv(y, 4 * filters, 1, name=f"{name}_3"), name=f"{name}_3_bn")
    return join(x, y, shortcut=shortcut, stride=stride, conv=conv, norm=norm, name=name)


def preactivation(x, filters, *, stride, name, project, conv, norm):
    """Batch norm and ReLU before each convolution (arXiv:1603.05027, Figure 1b); the sum is left as it is."""
    pre = layers.ReLU(name=f"{name}_preact_relu")(norm(x, name=f"{name}_preact_bn"))
    if project:
        x = conv(pre, 4 * filters, 1, stride=stride, bias=True, name=f"{name}_0")
    elif stride > 1:
        x = layers.MaxPooling2D(1, stride, name=f"{name}_0_pool")(x)
    y = conv(pre, filters, 1, name=f"{name}_1")
    y = layers.ReLU(name=f"{name}_1_relu")(norm(y, name=f"{name}_1_bn"))
    y = conv(y, filters, 3, stride=stride, name=f"{name}_2")
    y = layers.ReLU(name=f"{name}_2_relu")(norm(y, name=f"{name}_2_bn"))
    y = conv(y, 4 * filters, 1, bias=True, name=f"{name}_3")
    return layers.Add(name=f"{name}_out")([x, y])


BLOCKS = {"basic": basic, "bottleneck": bottleneck, "bottleneck_v1_5": partial(bottleneck, stride_on=2)}


# --- Networks --------------------------------------------------------------------------------------------


def pool(x):
    """The 3x3 max pool at stride 2 of the ImageNet stems, padded by zeros: as good as -inf behind v1's ReLU; v2 has no
    ReLU here, and its public weights were trained with the zeros."""
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    return layers.MaxPooling2D(3, 2, name="pool1_pool")(x)


def resnet(x, *, num_classes, blocks, block, width=64, shortcut="projection", bias=False, epsilon=1e-5):
    """Residual network for ImageNet (Table 1): a 7x7 convolution, a max pool, four stages that halve the picture.

    x: (B, H, W, 3). blocks: number of blocks in each stage. block: "basic", "bottleneck" (the stride on the first 1x1)
    or "bottleneck_v1_5" (on the 3x3). width: filters of the first stage. shortcut: where the shape changes,
    "projection" (option B) or "zero_padding" (option A); "none" gives the plain network.
    bias, epsilon: as the weights have them; a bias before batch norm has no effect on what can be learnt.
    Returns logits (B, num_classes), or features (B, 8 * width), four times as many behind bottlenecks, if num_classes
    is None.
    """
    if block not in BLOCKS:
        raise unknown("block", block, BLOCKS, f"It is one of {', '.join(BLOCKS)}.")
    check_shortcut(shortcut)
    parts = {"conv": partial(conv, bias=bias), "norm": partial(norm, epsilon=epsilon)}
    x = parts["norm"](parts["conv"](x, width, 7, stride=2, name="conv1"), name="conv1_bn")
    x = pool(layers.ReLU(name="conv1_relu")(x))
    for stage, count in enumerate(blocks):
        for i in range(count):
            stride = 2 if stage and not i else 1
            name = f"conv{stage + 2}_block{i + 1}"
            x = BLOCKS[block](x, width * 2**stage, stride=stride, name=name, shortcut=shortcut, **parts)
    return classifier(layers.GlobalAveragePooling2D(name="avg_pool")(x), num_classes)


def resnet_cifar(x, *, num_classes, depth, width=16, shortcut="zero_padding"):
    """Residual network for CIFAR (section 4.2): 6n + 2 layers, three stages of n basic blocks.

    x: (B, 32, 32, 3). shortcut: as in `resnet`; "zero_padding" has no parameters. Returns logits (B, num_classes), or
    features (B, 4 * width) if num_classes is None.
    """
    if depth < 8 or depth % 6 != 2:
        raise KzooError(f"A CIFAR ResNet has 6n + 2 layers (8, 14, 20, ...), got depth={depth}.")
    check_shortcut(shortcut)
    x = norm(conv(x, width, 3, name="conv1"), name="conv1_bn")
    x = layers.ReLU(name="conv1_relu")(x)
    for stage in range(3):
        for i in range((depth - 2) // 6):
            stride = 2 if stage and not i else 1
            name = f"conv{stage + 2}_block{i + 1}"
            x = basic(x, width * 2**stage, stride=stride, name=name, shortcut=shortcut, conv=conv, norm=norm)
    return classifier(layers.GlobalAveragePooling2D(name="avg_pool")(x), num_classes)


def resnet_v2(x, *, num_classes, blocks, width=64):
    """Residual network with pre-activation bottlenecks (arXiv:1603.05027).

    x: (B, H, W, 3). Returns logits (B, num_classes), or features (B, 32 * width) if num_classes is None.
    The stride of a stage sits in its last block, as in TF-slim's code and the public Keras weights, and not in the
    first block of the next stage, as in the paper.
    """
    parts = {"conv": conv, "norm": partial(norm, epsilon=1.001e-5)}
    x = pool(conv(x, width, 7, stride=2, bias=True, name="conv1"))
    for stage, count in enumerate(blocks):
        for i in range(count):
            stride = 2 if i == count - 1 and stage < len(blocks) - 1 else 1
            name = f"conv{stage + 2}_block{i + 1}"
            x = preactivation(x, width * 2**stage, stride=stride, name=name, project=not i, **parts)
    x = layers.ReLU(name="post_relu")(parts["norm"](x, name="post_bn"))
    return classifier(layers.GlobalAveragePooling2D(name="avg_pool")(x), num_classes)


def check_shortcut(shortcut):
    known = ("projection", "zero_padding", "none")
    if shortcut not in known:
        raise unknown("shortcut", shortcut, known, f"It is one of {', '.join(known)}.")
