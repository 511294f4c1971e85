"""SqueezeNet (Iandola et al. 2016, arXiv:1602.07360, Table 1, and the authors' release 1.1)."""

from keras import initializers, layers

from kzoo.layers import pool_3x3_s2


def conv(x, filters, size, *, name, stride=1, padding="same"):
    return layers.Conv2D(filters, size, strides=stride, padding=padding, activation="relu", name=name)(x)


def fire(x, squeeze, expand, *, name):
    """A 1x1 convolution to `squeeze` channels, then 1x1 and 3x3 side by side to `expand` each (Figure 1).

    x: (B, H, W, C). Returns (B, H, W, 2 * expand).
    """
    x = conv(x, squeeze, 1, name=f"{name}_squeeze1x1")
    left = conv(x, expand, 1, name=f"{name}_expand1x1")
    right = conv(x, expand, 3, name=f"{name}_expand3x3")
    return layers.Concatenate(name=f"{name}_concat")([left, right])


def squeezenet(x, *, num_classes, stem, pools, dropout=0.5, conv10_padding=0):
    """Eight fire modules between two convolutions; the class maps of the last one are averaged.

    x: (B, H, W, 3). stem: filters and size of conv1. pools: the layers that a 3x3 max pool at stride 2 follows.
    conv10_padding: zeros around the last convolution's input, 1 in the authors' Caffe definition of 1.0, 0 in Table 1.
    Returns logits (B, num_classes), or the average of fire9's 512 maps if num_classes is None. The logits are not
    negative: the last convolution, `predictions` here and conv10 in the paper, ends in a ReLU.
    """
    filters, size = stem
    x = conv(x, filters, size, stride=2, padding="valid", name="conv1")
    if 1 in pools:
        x = pool_3x3_s2(x, name="pool1")
    for i in range(2, 10):
        step = (i - 2) // 2 + 1  # the sizes grow with every second module
        x = fire(x, 16 * step, 64 * step, name=f"fire{i}")
        if i in pools:
            x = pool_3x3_s2(x, name=f"pool{i}")
    if num_classes is None:
        return layers.GlobalAveragePooling2D(name="avg_pool")(x)
    x = layers.Dropout(dropout, name="drop9")(x)
    if conv10_padding:
        x = layers.ZeroPadding2D(conv10_padding, name="pad10")(x)
    x = layers.Conv2D(
        num_classes,
        1,
        activation="relu",
        kernel_initializer=initializers.RandomNormal(stddev=0.01),
        dtype="float32",
        name="predictions",
    )(x)
    return layers.GlobalAveragePooling2D(dtype="float32", name="avg_pool")(x)
