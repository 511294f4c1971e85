"""NASNet-A (Zoph et al. 2017, arXiv:1707.07012, Figures 2 and 4, Appendix A).

Layer names are those of the public Keras weights. A cell takes the outputs of the two cells before it: x, the last
one, and p, the one before.
"""

from __future__ import annotations

from keras import KerasTensor, layers

from kzoo.errors import KzooError
from kzoo.layers import BatchNormalization, classifier


def norm(x: KerasTensor, *, name: str) -> KerasTensor:
    """Batch norm of that name."""
    return BatchNormalization(name=name)(x)


def relu(x: KerasTensor, *, name: str) -> KerasTensor:
    """ReLU named <name>_relu."""
    return layers.ReLU(name=f"{name}_relu")(x)


def pointwise(x: KerasTensor, filters: int, *, name: str) -> KerasTensor:
    """1x1 convolution without bias, He initialisation."""
    return layers.Conv2D(filters, 1, use_bias=False, kernel_initializer="he_normal", name=name)(x)


def separable(x: KerasTensor, filters: int, size: int, *, name: str, stride: int = 1) -> KerasTensor:
    """ReLU, separable convolution, batch norm, and the three again without stride (Appendix A.4).

    Args:
        x: (B, H, W, C).
        filters: Channels of the result.
        size: Of the kernel.
        name: Suffix of its layers.
        stride: Of the first convolution.
    """
    for i, s in ((1, stride), (2, 1)):
        x = relu(x, name=f"separable_conv_{i}_{name}")
        x = layers.SeparableConv2D(
            filters, size, strides=s, padding="same", use_bias=False, name=f"separable_conv_{i}_{name}"
        )(x)
        x = norm(x, name=f"separable_conv_{i}_bn_{name}")
    return x


def fit(p: KerasTensor | None, x: KerasTensor, filters: int, *, name: str) -> KerasTensor:
    """Bring the output of the cell before last to the grid of the last one.

    Args:
        p: That output; None in the first cell, which takes x in its place.
        x: The output of the last cell, (B, H, W, C).
        filters: Channels of the result.
        name: Suffix of its layers.

    Returns:
        (B, H, W, filters): halved by two shifted 1x1 convolutions if p is larger, projected if it has other channels.
    """
    if p is None:
        return x
    if p.shape[1:3] != x.shape[1:3]:
        p = relu(p, name=f"adjust_{name}")
        left = layers.AveragePooling2D(1, 2, name=f"adjust_avg_pool_1_{name}")(p)
        left = pointwise(left, filters // 2, name=f"adjust_conv_1_{name}")
        right = layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"adjust_pad_{name}")(p)
        right = layers.Cropping2D(((1, 0), (1, 0)), name=f"adjust_crop_{name}")(right)
        right = layers.AveragePooling2D(1, 2, name=f"adjust_avg_pool_2_{name}")(right)
        right = pointwise(right, filters // 2, name=f"adjust_conv_2_{name}")
        p = layers.Concatenate(name=f"adjust_concat_{name}")([left, right])
        return norm(p, name=f"adjust_bn_{name}")
    if p.shape[-1] != filters:
        p = relu(p, name=f"adjust_{name}")
        p = pointwise(p, filters, name=f"adjust_conv_projection_{name}")
        return norm(p, name=f"adjust_bn_{name}")
    return p


def begin(x: KerasTensor, filters: int, *, kind: str, name: str) -> KerasTensor:
    """ReLU, 1x1 convolution to the cell's width, batch norm; kind: "normal" or "reduction", for the names."""
    h = pointwise(relu(x, name=f"{kind}_{name}"), filters, name=f"{kind}_conv_1_{name}")
    return norm(h, name=f"{kind}_bn_1_{name}")


def add(a: KerasTensor, b: KerasTensor, *, name: str) -> KerasTensor:
    """Sum of two tensors, as a layer of that name."""
    return layers.Add(name=name)([a, b])


# --- Cells -----------------------------------------------------------------------------------------------


def normal_cell(x: KerasTensor, p: KerasTensor | None, filters: int, *, name: str) -> KerasTensor:
    """The normal cell (Figure 4, left).

    Args:
        x: The output of the last cell, (B, H, W, C).
        p: The output of the cell before it.
        filters: Of each branch.
        name: Suffix of its layers.

    Returns:
        (B, H, W, 6 * filters).
    """
    p = fit(p, x, filters, name=name)
    h = begin(x, filters, kind="normal", name=name)

    def pool(x, place):
        return layers.AveragePooling2D(3, 1, padding="same", name=f"normal_{place}_{name}")(x)

    y1 = add(
        separable(h, filters, 5, name=f"normal_left1_{name}"),
        separable(p, filters, 3, name=f"normal_right1_{name}"),
        name=f"normal_add_1_{name}",
    )
    y2 = add(
        separable(p, filters, 5, name=f"normal_left2_{name}"),
        separable(p, filters, 3, name=f"normal_right2_{name}"),
        name=f"normal_add_2_{name}",
    )
    y3 = add(pool(h, "left3"), p, name=f"normal_add_3_{name}")
    y4 = add(pool(p, "left4"), pool(p, "right4"), name=f"normal_add_4_{name}")
    y5 = add(separable(h, filters, 3, name=f"normal_left5_{name}"), h, name=f"normal_add_5_{name}")
    return layers.Concatenate(name=f"normal_concat_{name}")([p, y1, y2, y3, y4, y5])


def reduction_cell(x: KerasTensor, p: KerasTensor | None, filters: int, *, name: str) -> KerasTensor:
    """The reduction cell (Figure 4, right).

    Args:
        x: The output of the last cell, (B, H, W, C).
        p: The output of the cell before it.
        filters: Of each branch.
        name: Suffix of its layers.

    Returns:
        (B, H / 2, W / 2, 4 * filters).
    """
    p = fit(p, x, filters, name=name)
    h = begin(x, filters, kind="reduction", name=name)
    # The pools count the zeros outside, as the public weights were trained: "same" would leave them out. They lie where
    # "same" would have them: on the right and bottom of an even size, on all sides of an odd one.
    sides = tuple((n % 2, 1) for n in h.shape[1:3])
    padded = layers.ZeroPadding2D(sides, name=f"reduction_pad_1_{name}")(h)
    y1 = add(
        separable(h, filters, 5, stride=2, name=f"reduction_left1_{name}"),
        separable(p, filters, 7, stride=2, name=f"reduction_right1_{name}"),
        name=f"reduction_add_1_{name}",
    )
    y2 = add(
        layers.MaxPooling2D(3, 2, name=f"reduction_left2_{name}")(padded),
        separable(p, filters, 7, stride=2, name=f"reduction_right2_{name}"),
        name=f"reduction_add_2_{name}",
    )
    y3 = add(
        layers.AveragePooling2D(3, 2, name=f"reduction_left3_{name}")(padded),
        separable(p, filters, 5, stride=2, name=f"reduction_right3_{name}"),
        name=f"reduction_add3_{name}",
    )
    y4 = layers.AveragePooling2D(3, 1, padding="same", name=f"reduction_left4_{name}")(y1)
    y4 = add(y2, y4, name=f"reduction_add4_pool_{name}")
    y5 = add(
        separable(y1, filters, 3, name=f"reduction_left4_{name}"),
        layers.MaxPooling2D(3, 2, name=f"reduction_right5_{name}")(padded),
        name=f"reduction_add4_{name}",
    )
    return layers.Concatenate(name=f"reduction_concat_{name}")([y2, y3, y4, y5])


# --- Network ---------------------------------------------------------------------------------------------


def nasnet(
    x: KerasTensor, *, num_classes: int | None, blocks: int, penultimate: int, stem: int, skip_reduction: bool
) -> KerasTensor:
    """NASNet-A (blocks @ penultimate) for ImageNet: a stem of two reduction cells, three stages of normal cells.

    Args:
        x: (B, H, W, 3), of a fixed size of at least 32x32.
        num_classes: How many logits; None stops at the features.
        blocks: Normal cells in a stage.
        penultimate: Features in front of the classifier, a multiple of 96.
        stem: Filters of the first convolution.
        skip_reduction: Whether the cell behind a reduction takes the cell two before the reduction, and not its input.

    Returns:
        Logits (B, num_classes), or features (B, penultimate).

    Raises:
        KzooError: The size is open, or `penultimate` is not a multiple of 96.

    Reference:
        Zoph et al. 2017, arXiv:1707.07012, Figures 2 and 4, Appendix A.
    """
    if None in x.shape[1:3]:
        raise KzooError("NASNet's padding depends on the size of its input: give input_shape a height and a width.")
    if penultimate % 96:
        raise KzooError(f"NASNet's penultimate features must be a multiple of 96, got {penultimate}.")
    filters = penultimate // 24
    x = layers.Conv2D(stem, 3, strides=2, use_bias=False, kernel_initializer="he_normal", name="stem_conv1")(x)
    x = norm(x, name="stem_bn1")
    x, p = reduction_cell(x, None, filters // 4, name="stem_1"), x
    x, p = reduction_cell(x, p, filters // 2, name="stem_2"), x
    for stage in range(3):
        width = filters * 2**stage
        if stage:
            reduced = reduction_cell(x, p, width, name=f"reduce_{stage * blocks}")
            x, p = reduced, p if skip_reduction else x
        for i in range(blocks):
            number = stage * blocks + i + bool(stage)  # the public weights leave a number out at the first reduction
            x, p = normal_cell(x, p, width, name=f"{number}"), x
    x = layers.ReLU(name="post_relu")(x)
    return classifier(layers.GlobalAveragePooling2D(name="avg_pool")(x), num_classes)
