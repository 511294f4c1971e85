"""GoogLeNet (Szegedy et al. 2014, arXiv:1409.4842) and the modules that it developed from."""

from __future__ import annotations

from collections.abc import Callable

from keras import KerasTensor, layers

from kzoo.layers import BatchNormalization, LocalResponseNormalization, classifier, pool_3x3_s2


def conv(
    x: KerasTensor, filters: int, size: int | tuple[int, int], *, name: str, stride: int = 1, padding: str = "same"
) -> KerasTensor:
    """Convolution, bias, ReLU.

    Args:
        x: (B, H, W, C).
        filters: Channels of the result.
        size: Of the kernel.
        name: Of the layer.
        stride: Of the kernel.
        padding: "same" or "valid".
    """
    return layers.Conv2D(filters, size, strides=stride, padding=padding, activation="relu", name=name)(x)


def conv_norm(
    x: KerasTensor,
    filters: int,
    size: int | tuple[int, int],
    *,
    name: str,
    stride: int = 1,
    padding: str = "same",
    scale: bool = True,
    epsilon: float = 0.001,
) -> KerasTensor:
    """Convolution without bias (<name>_conv), batch norm (<name>_bn), ReLU (<name>_relu), as in v2 and later.

    Args:
        x: (B, H, W, C).
        filters: Channels of the result.
        size: Of the kernel.
        name: Prefix of the three layers.
        stride: Of the kernel.
        padding: "same" or "valid".
        scale: Whether batch norm has a gamma.
        epsilon: Of batch norm.
    """
    x = layers.Conv2D(filters, size, strides=stride, padding=padding, use_bias=False, name=f"{name}_conv")(x)
    x = BatchNormalization(scale=scale, epsilon=epsilon, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


# --- Modules: (B, H, W, C) -> (B, H, W, sum of the branches) ----------------------------------------------


def naive_module(x: KerasTensor, n1x1: int, n3x3: int, n5x5: int, *, name: str) -> KerasTensor:
    """1x1, 3x3 and 5x5 convolutions and a 3x3 max pool, side by side (Figure 2a).

    It has C * (n1x1 + 9 * n3x3 + 25 * n5x5) weights.

    Args:
        x: (B, H, W, C).
        n1x1: Filters of the 1x1 convolution.
        n3x3: Filters of the 3x3 convolution.
        n5x5: Filters of the 5x5 convolution.
        name: Of the result, and prefix of the branches.

    Returns:
        (B, H, W, n1x1 + n3x3 + n5x5 + C): the pool keeps all of x's channels, so that modules only ever grow.
    """
    return layers.Concatenate(name=name)(
        [
            conv(x, n1x1, 1, name=f"{name}_1x1"),
            conv(x, n3x3, 3, name=f"{name}_3x3"),
            conv(x, n5x5, 5, name=f"{name}_5x5"),
            layers.MaxPooling2D(3, 1, padding="same", name=f"{name}_pool")(x),
        ]
    )


def module(
    x: KerasTensor,
    filters: tuple[int, int, int, int, int, int],
    *,
    name: str,
    conv: Callable[..., KerasTensor] = conv,
    size5x5: int = 5,
) -> KerasTensor:
    """The module with 1x1 reductions (Figure 2b).

    Args:
        x: (B, H, W, C).
        filters: The columns of Table 1: n1x1, reduction in front of the 3x3, n3x3, reduction in front of the 5x5, n5x5,
            projection behind the pool.
        name: Of the result, and prefix of the branches.
        conv: The convolution with what follows it.
        size5x5: 3 in torchvision's version; the layer is called 5x5 all the same.

    Returns:
        (B, H, W, n1x1 + n3x3 + n5x5 + projection).
    """
    n1x1, reduce3x3, n3x3, reduce5x5, n5x5, pool_proj = filters
    left = conv(x, n1x1, 1, name=f"{name}_1x1")
    middle = conv(x, reduce3x3, 1, name=f"{name}_3x3_reduce")
    middle = conv(middle, n3x3, 3, name=f"{name}_3x3")
    right = conv(x, reduce5x5, 1, name=f"{name}_5x5_reduce")
    right = conv(right, n5x5, size5x5, name=f"{name}_5x5")
    pool = layers.MaxPooling2D(3, 1, padding="same", name=f"{name}_pool")(x)
    pool = conv(pool, pool_proj, 1, name=f"{name}_pool_proj")
    return layers.Concatenate(name=name)([left, middle, right, pool])


# Table 1: #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj.
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


# --- GoogLeNet -------------------------------------------------------------------------------------------


def auxiliary(x: KerasTensor, num_classes: int, *, name: str) -> KerasTensor:
    """The classifier beside 4a and 4d, for training (section 5).

    Args:
        x: (B, H, W, C).
        num_classes: How many logits.
        name: Prefix of its layers.

    Returns:
        Logits (B, num_classes).
    """
    x = layers.AveragePooling2D(5, 3, name=f"{name}_pool")(x)
    x = conv(x, 128, 1, name=f"{name}_conv")
    x = layers.Flatten(name=f"{name}_flatten")(x)
    x = layers.Dense(1024, activation="relu", name=f"{name}_fc")(x)
    x = layers.Dropout(0.7, name=f"{name}_drop")(x)
    return classifier(x, num_classes, name=f"{name}_predictions")


def googlenet(
    x: KerasTensor, *, num_classes: int | None, dropout: float = 0.4, aux: bool = False
) -> KerasTensor | list[KerasTensor]:
    """GoogLeNet.

    Args:
        x: (B, H, W, 3).
        num_classes: How many logits; None stops at the features.
        dropout: Share of the features that is dropped.
        aux: Whether to add the auxiliary classifiers, for training with losses weighted by the catalog row's
            `loss_weights`. Build it without them for use: the main network's layers have the same names.

    Returns:
        Logits (B, num_classes), or 1,024 features. With aux=True a list of three logits, the main one first, then those
        beside 4a and 4d.

    Reference:
        Szegedy et al. 2014, arXiv:1409.4842, Table 1.
    """
    x = layers.ZeroPadding2D(3, name="conv1_7x7_pad")(x)
    x = conv(x, 64, 7, stride=2, padding="valid", name="conv1_7x7")
    x = pool_3x3_s2(x, name="pool1")
    # The paper gives no constants for the normalisation; these are Caffe's (whose alpha is five times ours).
    x = LocalResponseNormalization(k=1.0, alpha=1e-4 / 5, name="norm1")(x)
    x = conv(x, 64, 1, name="conv2_3x3_reduce")
    x = conv(x, 192, 3, name="conv2_3x3")
    x = LocalResponseNormalization(k=1.0, alpha=1e-4 / 5, name="norm2")(x)
    x = pool_3x3_s2(x, name="pool2")
    side = []
    for name, sizes in MODULES.items():
        x = module(x, sizes, name=f"inception_{name}")
        if aux and num_classes is not None and name in ("4a", "4d"):
            side.append(auxiliary(x, num_classes, name=f"aux{len(side) + 1}"))
        if name in ("3b", "4e"):
            x = pool_3x3_s2(x, name=f"pool{name[0]}")
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    if num_classes is None:
        return x
    x = classifier(layers.Dropout(dropout, name="drop")(x), num_classes)
    return [x, *side] if side else x


def googlenet_bn(x: KerasTensor, *, num_classes: int | None, dropout: float = 0.2) -> KerasTensor:
    """GoogLeNet as in torchvision: batch norm in place of local response normalisation, 3x3 in place of 5x5.

    Args:
        x: (B, H, W, 3).
        num_classes: How many logits; None stops at the features.
        dropout: Share of the features that is dropped.

    Returns:
        Logits (B, num_classes), or 1,024 features.
    """
    x = layers.ZeroPadding2D(3, name="conv1_7x7_pad")(x)
    x = conv_norm(x, 64, 7, stride=2, padding="valid", name="conv1_7x7")
    x = pool_3x3_s2(x, name="pool1")
    x = conv_norm(x, 64, 1, name="conv2_3x3_reduce")
    x = conv_norm(x, 192, 3, name="conv2_3x3")
    x = pool_3x3_s2(x, name="pool2")
    for name, sizes in MODULES.items():
        x = module(x, sizes, name=f"inception_{name}", conv=conv_norm, size5x5=3)
        if name == "3b":
            x = pool_3x3_s2(x, name="pool3")
        if name == "4e":  # 2x2 in torchvision; "same" rounds the size up
            x = layers.MaxPooling2D(2, padding="same", name="pool4")(x)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    if num_classes is None:
        return x
    return classifier(layers.Dropout(dropout, name="drop")(x), num_classes)
