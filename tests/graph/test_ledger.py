"""The ledger against the lecture's table, the papers, and numerical oracles."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops

import kzoo
from kzoo.cli import group
from kzoo.errors import KzooError
from kzoo.layers import GroupedConv2D, LocallyConnected2D
from kzoo.models.lenet import TableConv2D

AS_IS = kzoo.Preprocessing(scale=1.0, offset=0.0)


# --- The lecture's table ---------------------------------------------------------------------------------

# Stanford's CS231n, VGGNet in detail: output, values as the slide rounds them, weights without biases.
VGG16 = """
block1_conv1 224x224x64 3.2M 1,728
block1_conv2 224x224x64 3.2M 36,864
block1_pool 112x112x64 800K 0
block2_conv1 112x112x128 1.6M 73,728
block2_conv2 112x112x128 1.6M 147,456
block2_pool 56x56x128 400K 0
block3_conv1 56x56x256 800K 294,912
block3_conv2 56x56x256 800K 589,824
block3_conv3 56x56x256 800K 589,824
block3_pool 28x28x256 200K 0
block4_conv1 28x28x512 400K 1,179,648
block4_conv2 28x28x512 400K 2,359,296
block4_conv3 28x28x512 400K 2,359,296
block4_pool 14x14x512 100K 0
block5_conv1 14x14x512 100K 2,359,296
block5_conv2 14x14x512 100K 2,359,296
block5_conv3 14x14x512 100K 2,359,296
block5_pool 7x7x512 25K 0
fc1 4096 4096 102,760,448
fc2 4096 4096 16,777,216
predictions 1000 1000 4,096,000
"""


def test_vgg16_is_the_lectures_table():
    table = kzoo.ledger("vgg16")
    assert table["image"].output == (224, 224, 3)
    assert table["image"].values == 150_528  # 150K
    values = table["image"].values
    for line in VGG16.split("\n")[1:-1]:
        name, output, rounded, weights = line.split()
        row = table[name]
        assert "x".join(map(str, row.output)) == output
        assert row.weights == int(weights.replace(",", ""))
        printed = float(rounded.rstrip("KM")) * {"K": 1e3, "M": 1e6}.get(rounded[-1], 1)
        np.testing.assert_allclose(row.values, printed, rtol=0.01)
        values += row.values
    # The slide prints 24M values and 93 MB; its rows add up to this, and 58 MiB at four bytes each.
    assert values == 15_237_608
    assert table.totals.values == values + table["preprocessing"].values
    assert table.totals.params == table.totals.trainable == 138_357_544
    assert table.totals.weights == 138_344_128


def test_memory_by_hand():
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(4, 3, name="a")(x)  # 6x6x4 = 144 values, 108 + 4 parameters
    y = layers.BatchNormalization(name="b")(y)  # 144 values, 4 parameters of 4, two of which do not train
    y = layers.Flatten(name="f")(layers.Dropout(0.5, name="d")(y))
    y = layers.Dense(5, name="c")(y)  # 5 values, 720 + 5 parameters
    table = kzoo.ledger(keras.Model(x, y))
    assert [r.values for r in table.rows] == [192, 144, 144, 0, 0, 5]
    assert table.totals.bytes == 4 * (192 + 144 + 144 + 5)
    assert (table["b"].weights, table["b"].biases, table["b"].trainable) == (12, 4, 8)
    assert (table.totals.params, table.totals.trainable, table.totals.non_trainable) == (853, 845, 8)
    # weights + gradients + momentum + 10 images' activations and their gradients
    assert table.training_bytes(batch_size=10, slots=1) == 4 * (853 + 845 + 845) + 10 * 2 * 4 * 485
    assert table.training_bytes(batch_size=10, slots=2) - table.training_bytes(batch_size=10, slots=1) == 4 * 845


def test_memory_follows_the_dtype():
    full, half = (kzoo.ledger("mnist_cnn", precision=p) for p in ("float32", "bfloat16"))
    assert full["conv1"].bytes == 4 * 28 * 28 * 32
    assert half["conv1"].bytes == 2 * 28 * 28 * 32
    assert half["conv1"].parameter_bytes == full["conv1"].parameter_bytes == 4 * 832  # variables stay float32


# --- Multiply-adds ---------------------------------------------------------------------------------------


def test_multiply_adds_of_the_papers():
    assert kzoo.ledger("vgg19").totals.multiply_adds == 19_632_062_464  # "19.6G", He et al. 2015, Figure 3
    # LeCun et al. 1998, section II.B: connections, which count the bias of each output too.
    table = kzoo.ledger("lenet5")

    def connections(name):
        return table[name].multiply_adds + table[name].values

    assert connections("C1") == 122_304
    assert connections("C3") == 151_600
    assert connections("C5") == 48_120
    assert connections("F6") == 10_164


def test_multiply_adds_and_sizes_of_c3d_by_hand():
    """Figure 3, a clip of 16 frames of 112x112: frames * height * width * filters * 27 * channels."""
    table = kzoo.ledger("c3d")
    want = {
        "conv1a": 16 * 112 * 112 * 64 * 27 * 3,
        "conv2a": 16 * 56 * 56 * 128 * 27 * 64,
        "conv3a": 8 * 28 * 28 * 256 * 27 * 128,
        "conv3b": 8 * 28 * 28 * 256 * 27 * 256,
        "conv4a": 4 * 14 * 14 * 512 * 27 * 256,
        "conv4b": 4 * 14 * 14 * 512 * 27 * 512,
        "conv5a": 2 * 7 * 7 * 512 * 27 * 512,
        "conv5b": 2 * 7 * 7 * 512 * 27 * 512,
        "fc6": 8192 * 4096,
        "fc7": 4096 * 4096,
        "predictions": 4096 * 101,
    }
    assert {name: table[name].multiply_adds for name in want} == want
    assert table.totals.multiply_adds == sum(want.values()) == 38_547_378_176
    pools = [table[f"pool{i}"].output for i in range(1, 6)]
    assert pools == [(16, 56, 56, 64), (8, 28, 28, 128), (4, 14, 14, 256), (2, 7, 7, 512), (1, 4, 4, 512)]
    # Frames, rows, columns: 3, then + 1 row in pool1, + 2 for each convolution at the stride before it, ...
    assert table["conv1a"].receptive_field.size == (3, 3, 3)
    assert table["pool1"].receptive_field.size == (3, 4, 4)
    assert table["conv2a"].receptive_field.size == (5, 8, 8)
    assert table["pool2"].receptive_field.size == (6, 10, 10)
    assert (table["conv3b"].receptive_field.size, table["conv3b"].receptive_field.stride) == ((14, 26, 26), (2, 4, 4))


def test_sizes_of_zfnet_nin_and_deepface_are_the_printed_ones():
    found = {name: kzoo.ledger(name) for name in ("zfnet", "nin", "deepface")}
    assert [found["zfnet"][n].output[0] for n in ("conv1", "pool1", "conv2", "pool2", "conv5", "pool5")] == [
        *(110, 55, 26, 13, 13, 6)
    ]
    assert [found["nin"][n].output[0] for n in ("conv1", "pool1", "pool2", "predictions")] == [32, 16, 8, 8]
    assert [found["deepface"][n].output[0] for n in ("C1", "M2", "C3", "L4", "L5", "L6")] == [142, 71, 63, 55, 25, 21]
    assert found["zfnet"].totals.multiply_adds == sum(
        (
            110**2 * 96 * 49 * 3,
            26**2 * 256 * 25 * 96,
            13**2 * 384 * 9 * (256 + 384),
            13**2 * 256 * 9 * 384,
            4096 * (36 * 256 + 4096 + 1000),
        )
    )
    assert found["nin"].totals.multiply_adds == sum(
        (
            32**2 * (75 * 192 + 192 * 160 + 160 * 96),
            16**2 * (25 * 96 * 192 + 2 * 192**2),
            8**2 * (9 * 192**2 + 192**2 + 192 * 10),
        )
    )
    local = 55**2 * 81 * 256 + 25**2 * 49 * 256 + 21**2 * 25 * 256
    dense = 21**2 * 16 * 4096 + 4096 * 4030
    assert found["deepface"].totals.multiply_adds == 142**2 * 121 * 96 + 63**2 * 81 * 512 + local + dense


@pytest.mark.parametrize(
    "layer, shape",
    [
        (LocallyConnected2D(4, (3, 2), (2, 1)), (9, 8, 3)),
        (layers.Conv2D(4, (3, 2), strides=(2, 1)), (9, 8, 3)),
        (layers.Conv2D(4, 3, dilation_rate=2), (9, 8, 3)),
        (GroupedConv2D(6, 3, groups=2), (7, 8, 4)),
        (layers.Conv1D(4, 3), (9, 2)),
        (layers.Conv3D(2, 2), (4, 5, 3, 2)),
        (layers.DepthwiseConv2D(3, depth_multiplier=2), (7, 8, 4)),
        (layers.Conv2DTranspose(4, 3, strides=2), (5, 4, 3)),
        (layers.Conv2DTranspose(4, 3, strides=2, padding="valid"), (5, 4, 3)),
        (layers.Dense(7), (9,)),
        (layers.Dense(7), (3, 4, 5)),
        (TableConv2D(), (7, 6, 6)),
    ],
    ids=lambda v: v.name if hasattr(v, "name") else None,
)
def test_multiply_adds_are_the_uses_of_the_weights(layer, shape):
    # With all weights and inputs 1 and no padding, each product adds 1 to an output: their sum counts the products.
    x = keras.Input(shape)
    model = keras.Model(x, layer(x))
    for v in model.weights:
        v.assign(ops.zeros(v.shape) if v.name == "bias" else ops.ones(v.shape))
    uses = float(ops.sum(model(ops.ones((1, *shape)))))
    assert kzoo.ledger(model).totals.multiply_adds == uses


def test_separable_is_depthwise_and_pointwise():
    x = keras.Input((9, 8, 3))
    y = layers.SeparableConv2D(5, 3, strides=2, padding="same", depth_multiplier=2, name="both")(x)
    z = layers.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2, name="one")(x)
    z = layers.Conv2D(5, 1, name="two")(z)
    table = kzoo.ledger(keras.Model(x, [y, z]))
    assert table["both"].multiply_adds == table["one"].multiply_adds + table["two"].multiply_adds
    assert table["one"].multiply_adds == 5 * 4 * 9 * 6  # positions, kernel, channels: zeros of the padding count


# --- Receptive fields ------------------------------------------------------------------------------------


def make_positive(model, seed=0):
    """Positive kernels and no biases: whatever a unit sees then moves it, and nothing cancels."""
    rng = np.random.default_rng(seed)
    for v in model.weights:
        fan_in = max(int(np.prod(v.shape[:-1])), 1)
        values = rng.uniform(0.5, 1.5, v.shape) / (fan_in if v.name.endswith("kernel") else 1)
        v.assign(values * (v.name not in ("bias", "beta", "moving_mean")))


def seen_along_each_axis(model, output):
    """For each axis of a layer's output, what pixels each unit sees: lists of (first, last) or None, measured.

    One image for each row and each column of the picture (and each frame), which is lit in it: a unit sees it if it
    answers.
    """
    sizes = model.input_shape[1:-1]
    images = np.zeros((1 + sum(sizes), *model.input_shape[1:]), "float32")
    at = np.cumsum([1, *sizes])
    for axis, size in enumerate(sizes):
        for i in range(size):
            np.moveaxis(images[at[axis] + i], axis, 0)[i] = 1
    y = ops.convert_to_numpy(keras.Model(model.input, output)(images))
    y = y.reshape(y.shape if y.ndim == images.ndim else (len(y), *[1] * len(sizes), -1))
    answers = np.abs(y - y[:1]).sum(-1) > 0

    def ends(seen):
        return [(int(s.argmax()), len(s) - 1 - int(s[::-1].argmax())) if s.any() else None for s in seen.T]

    found = []
    for axis, size in enumerate(sizes):
        others = tuple(1 + a for a in range(len(sizes)) if a != axis)
        found.append(ends(answers[at[axis] : at[axis] + size].any(others)))
    return found


def check_receptive_field(model, row, output, exact_border=True):
    field = row.receptive_field
    for axis, measured in zip(field.axes, seen_along_each_axis(model, output), strict=True):
        assert len(measured) == axis.units
        cut_short = False
        for i, pixels in enumerate(measured):
            a, b = axis.of(i)
            inside = (max(a, 0), min(b, axis.pixels - 1))
            if pixels is None:  # nothing but padding
                assert inside != (a, b), (row.name, i)
            elif exact_border or inside == (a, b):
                assert pixels == inside, (row.name, i)
            else:  # holes of a dilation, or columns that a stride leaves over, may lie at the border
                assert inside[0] <= pixels[0] <= pixels[1] <= inside[1], (row.name, i)
            cut_short |= pixels != (a, b)
        assert axis.sees_past_border == cut_short, row.name


@pytest.mark.parametrize(
    "name, shape, config",
    [
        ("mnist_shift", (28, 28, 1), {"filters": (2, 2, 2)}),
        ("lenet5", (28, 28, 1), {}),
        ("alexnet", (67, 99, 3), {}),
        ("vgg11", (64, 96, 3), {"width": 2, "units": 4}),
        ("deepface", (74, 80, 3), {"width": 1, "units": 2}),
        ("c3d", (16, 18, 21, 3), {"width": 1, "units": 2}),
    ],
)
def test_receptive_field_of_the_catalog(name, shape, config):
    model = kzoo.build(name, input_shape=shape, num_classes=3, preprocessing=AS_IS, **config)
    make_positive(model)
    table = kzoo.ledger(model)
    exact = name in ("vgg11", "lenet5", "c3d")
    parts = ("conv", "pool", "C1", "S2", "M2", "C3", "S4", "L4", "C5", "L5", "L6", "flatten")
    for layer in model.layers:
        if any(part in layer.name for part in parts):
            check_receptive_field(model, table[layer.name], layer.output, exact_border=exact)


def test_receptive_field_is_where_the_gradient_is():
    x = keras.Input((21, 17, 1))
    y = layers.Conv2D(2, 3, strides=2, padding="same")(x)
    a = layers.Conv2D(2, (1, 5), padding="same")(y)
    b = layers.AveragePooling2D((5, 1), strides=1, padding="same")(y)
    y = layers.Conv2D(1, 2, name="last")(layers.Add()([a, b]))
    model = keras.Model(x, y)
    make_positive(model)
    field = kzoo.ledger(model)["last"].receptive_field
    image = np.ones((1, 21, 17, 1), "float32")
    for unit in ((4, 3), (0, 0), (9, 7)):
        if keras.backend.backend() == "jax":
            import jax

            gradient = jax.grad(lambda i, u=unit: model(i)[0, u[0], u[1], 0])(image)
        else:
            import tensorflow as tf

            with tf.GradientTape() as tape:
                picture = tf.Variable(image)
                value = model(picture)[0, unit[0], unit[1], 0]
            gradient = tape.gradient(value, picture)
        rows, columns = np.nonzero(np.asarray(gradient)[0, ..., 0])
        (top, bottom), (left, right) = field.of(*unit)
        assert (rows.min(), rows.max()) == (max(top, 0), min(bottom, 20))
        assert (columns.min(), columns.max()) == (max(left, 0), min(right, 16))
    assert field.size == (13, 13)
    assert field.stride == (2, 2)


sizes = st.tuples(st.integers(1, 4), st.integers(1, 4))
steps = st.tuples(st.integers(1, 3), st.integers(1, 3))
padding = st.sampled_from(["same", "valid"])
PARTS = st.one_of(
    st.tuples(st.just("conv"), sizes, steps, padding),
    st.tuples(st.just("dilated"), sizes, steps, padding),
    st.tuples(st.just("depthwise"), st.integers(1, 4), st.integers(1, 3), padding),
    st.tuples(st.just("separable"), sizes, st.integers(1, 3), padding),
    st.tuples(st.just("max"), sizes, steps, padding),
    st.tuples(st.just("average"), sizes, steps, padding),
    st.tuples(st.just("pad"), sizes, steps, padding),
    st.tuples(st.just("upsample"), steps, steps, padding),
    st.tuples(st.just("transposed"), st.integers(3, 5), st.integers(1, 3), padding),
    st.tuples(st.just("branches"), sizes, steps, padding),
    st.tuples(st.just("slice"), steps, steps, padding),
)


def add_part(x, part):
    kind, size, step, padding = part
    if kind == "conv":
        return layers.Conv2D(2, size, strides=step, padding=padding)(x)
    if kind == "dilated":
        return layers.Conv2D(2, size, dilation_rate=step, padding=padding)(x)
    if kind == "depthwise":
        return layers.DepthwiseConv2D(size, strides=step, padding=padding)(x)
    if kind == "separable":
        return layers.SeparableConv2D(2, size, strides=step, padding=padding)(x)
    if kind == "max":
        return layers.MaxPooling2D(size, strides=step, padding=padding)(x)
    if kind == "average":
        return layers.AveragePooling2D(size, strides=step, padding=padding)(x)
    if kind == "pad":
        return layers.ZeroPadding2D((size, step))(x)
    if kind == "upsample":
        return layers.UpSampling2D(size)(x)
    if kind == "transposed":
        return layers.Conv2DTranspose(2, size, strides=step, padding=padding)(x)
    if kind == "branches":  # of the same stride: a 1x1 and a larger one
        a = layers.Conv2D(2, size, strides=step, padding="same")(x)
        b = layers.Conv2D(2, 1, strides=step, padding="same")(x)
        return layers.Concatenate()([layers.ReLU()(a), b]) if padding == "same" else a + b
    return x[:, :: step[0], :: step[1]]


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.lists(PARTS, min_size=1, max_size=4), st.integers(13, 24), st.integers(13, 24))
def test_receptive_field_of_random_networks(parts, height, width):
    x = y = keras.Input((height, width, 1))
    for part in parts:
        try:
            new = add_part(y, part)
        except ValueError:  # the picture has become too small for this part
            break
        if min(new.shape[1:3]) < 1 or max(new.shape[1:3]) > 60:
            break
        y = new
    model = keras.Model(x, y)
    make_positive(model)
    check_receptive_field(model, kzoo.ledger(model).rows[-1], y, exact_border=False)


def test_squeeze_and_excitation_sees_everything_and_keeps_its_stride():
    x = keras.Input((32, 32, 3))
    y = layers.Conv2D(8, 3, strides=2, padding="same")(x)
    gate = layers.GlobalAveragePooling2D()(y)
    gate = layers.Reshape((1, 1, 8))(layers.Dense(8, activation="sigmoid")(gate))
    y = layers.Multiply(name="scaled")([y, gate])
    y = layers.Conv2D(8, 3, name="after")(y)
    table = kzoo.ledger(keras.Model(x, y))
    assert table["scaled"].receptive_field.sees_everything
    assert table["after"].receptive_field.sees_everything
    assert table["after"].receptive_field.stride == (2, 2)
    assert str(table["after"].receptive_field).startswith("all/2")


# --- Any functional model --------------------------------------------------------------------------------


def test_shared_layers_pay_for_their_parameters_once_and_for_each_use():
    a, b = keras.Input((8, 8, 1)), keras.Input((8, 8, 1))
    conv = layers.Conv2D(2, 3, name="conv")
    table = kzoo.ledger(keras.Model([a, b], layers.Subtract()([conv(a), conv(b)])))
    first, second = [r for r in table.rows if r.name == "conv"]
    assert (first.params, second.params, first.shared, second.shared) == (20, 0, False, True)
    assert first.multiply_adds == second.multiply_adds == 18 * 36
    assert table.totals.params == 20
    assert table.rows[-1].receptive_field.size == (3, 3)


def test_sequential_several_outputs_and_operations():
    model = keras.Sequential([keras.Input((9, 9, 1)), layers.Conv2D(2, 3, name="conv"), layers.GlobalMaxPooling2D()])
    assert [r.multiply_adds for r in kzoo.ledger(model).rows] == [0, 18 * 49, 0]

    x = keras.Input((9, 9, 3), name="x")
    y = ops.pad(x, [[0, 0], [1, 1], [2, 2], [0, 0]])[..., ::-1] * 2.0
    y = ops.conv(y, np.ones((3, 3, 3, 4), "float32"), padding="valid")
    y = ops.relu(ops.max_pool(y, 2))
    mean, flat = ops.mean(y, axis=(1, 2)), ops.matmul(ops.reshape(y, (-1, 80)), np.ones((80, 7), "float32"))
    table = kzoo.ledger(keras.Model(x, [mean, flat]))
    assert table.totals.multiply_adds == 9 * 11 * 108 + 80 * 7
    relu = next(r for r in table.rows if r.kind == "Relu")
    assert relu.receptive_field.size == (4, 4)
    assert relu.receptive_field.of(0, 0) == ((-1, 2), (-2, 1))
    assert not any(r.unknown for r in table.rows)


def test_rearranged_pictures():
    x = keras.Input((8, 12, 4))
    y = layers.Conv2D(4, 3, padding="same")(x)
    kinds = {
        "crop": (layers.Cropping2D(((2, 1), (0, 3))), (3, 3), (1, 1), (1, 3)),
        "group": (layers.GroupNormalization(2), (9, 13), (1, 1), (-1, 7)),
        "shuffle": (layers.Reshape((8, 12, 2, 2)), (3, 3), (1, 1), (-1, 1)),
        "transpose": (layers.Permute((2, 1, 3)), (3, 3), (1, 1), (-1, 1)),
        "softmax": (layers.Softmax(), (3, 3), (1, 1), (-1, 1)),
        "everywhere": (layers.Softmax(axis=(1, 2)), (9, 13), (1, 1), (-1, 7)),
        "columns": (layers.GlobalAveragePooling2D(keepdims=True), (10, 14), (0, 0), (-1, 8)),
    }
    table = kzoo.ledger(keras.Model(x, [k[0](y) for k in kinds.values()]))
    for row, (layer, size, stride, first) in zip(table.rows[2:], kinds.values(), strict=True):
        assert row.name == layer.name
        assert row.receptive_field.size == size
        assert row.receptive_field.stride == stride
        assert row.receptive_field.of(0, 0)[0] == first
        assert row.receptive_field.sees_everything == (size > (8, 12))
        assert row.multiply_adds == 0

    x = keras.Input((3, 8, 12))
    y = layers.MaxPooling2D(2, data_format="channels_first")(layers.ReLU()(x))
    row = kzoo.ledger(keras.Model(x, y)).rows[-1]
    assert row.output == (3, 4, 6)
    assert [(s.dim, s.units, s.size) for s in row.receptive_field.axes] == [(2, 4, 2), (3, 6, 2)]


def test_branches_come_one_after_the_other_and_of_different_strides_are_unknown():
    x = keras.Input((16, 16, 1))
    a = layers.UpSampling2D(2, name="a2")(layers.MaxPooling2D(2, name="a1")(x))
    b = layers.Conv2D(1, 1, name="b2")(layers.Conv2D(1, 3, padding="same", name="b1")(x))
    c = layers.Conv2D(1, 9, name="c1")(x)  # 8x8 at stride 1
    d = layers.Conv2D(1, 2, strides=2, name="d1")(x)  # 8x8 at stride 2
    table = kzoo.ledger(keras.Model(x, [layers.Add(name="ab")([a, b]), layers.Add(name="cd")([c, d])]))
    assert [r.name for r in table.rows][1:] == ["a1", "a2", "b1", "b2", "ab", "c1", "d1", "cd"]
    # Behind the upsampling two units see the same two pixels, beside the three of b: 3 or 4 together.
    assert table["ab"].receptive_field.size == (3, 3)
    assert table["ab"].receptive_field.of(4, 5) == ((3, 5), (4, 6))
    assert table["cd"].receptive_field is None
    assert "strides" in table["cd"].unknown


class Mystery(layers.Layer):
    def call(self, x):
        return x * 2


class Declared(layers.Layer):
    kernel_size, strides = 3, 2

    def call(self, x):
        return ops.average_pool(x, 3, 2)

    def multiply_adds(self, input_shape, output_shape):
        return input_shape[1] * 1000 + output_shape[1]


def test_unknown_layers_are_said_and_declared_ones_counted():
    x = keras.Input((9, 9, 1))
    y = layers.Conv2D(1, 3, name="conv")(Mystery(name="mystery")(Declared(name="d")(x)))
    table = kzoo.ledger(keras.Model(x, y))
    assert table["d"].multiply_adds == 9004
    assert table["d"].receptive_field.stride == (2, 2)
    assert table["mystery"].multiply_adds is None
    assert table["mystery"].receptive_field is None
    assert table["conv"].receptive_field is None
    assert table["conv"].multiply_adds == 36
    assert table.totals.multiply_adds is None
    assert table.totals.known_multiply_adds == 9040
    assert ">= 9.0K" in str(table)
    assert "mystery (Mystery)" in str(table)


def test_nested_models_are_opened():
    inner = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(2, 3, name="c")], name="inner")
    x = keras.Input((9, 9, 3))
    y = inner(x)
    table = kzoo.ledger(keras.Model(x, layers.Add()([layers.MaxPooling2D(2)(y), layers.MaxPooling2D(2)(inner(x))])))
    rows = [r for r in table.rows if r.name == "inner/c"]
    assert [(r.output, r.params, r.shared) for r in rows] == [((7, 7, 2), 56, False), ((7, 7, 2), 0, True)]
    assert table.totals.params == 56
    assert table.rows[-1].receptive_field.size == (4, 4)


def test_open_sizes_need_an_input_shape():
    x = keras.Input((None, None, 3))
    y = layers.Conv2D(4, 3, strides=2, padding="same", name="conv")(x[..., ::-1])
    model = keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(y)), name="open")
    with pytest.raises(KzooError, match=r"sizes of open are open: .*\(None, None, 3\).*input_shape=\(height"):
        kzoo.ledger(model)
    table = kzoo.ledger(model, input_shape=(20, 30, 3))
    assert table["conv"].output == (10, 15, 4)
    assert table.totals.params == model.count_params()
    assert model.input_shape == (None, None, None, 3)


def test_a_model_without_a_graph():
    class Own(keras.Model):
        def call(self, x):
            return x

    for model in (Own(), keras.Sequential([layers.Dense(2)]), ["a", "list"]):
        with pytest.raises(KzooError, match="has no graph"):
            kzoo.ledger(model)
    with pytest.raises(KzooError, match="Did you mean 'vgg16'"):
        kzoo.ledger("vgg161")
    model = keras.Sequential([keras.Input((9, 9, 1)), layers.Conv2D(2, 7)])
    with pytest.raises(KzooError, match=r"can't take the input \(4, 4, 1\)"):
        kzoo.ledger(model, input_shape=(4, 4, 1))


def test_a_name_leaves_nothing_behind():
    import random

    random.seed(3)
    before = random.getstate()
    table = kzoo.ledger("mnist_mlp", num_classes=7)
    assert random.getstate() == before
    assert table["predictions"].output == (7,)
    keras.utils.set_random_seed(1)
    a = kzoo.build("mnist_mlp", seed=5).get_weights()
    kzoo.ledger("mnist_mlp")
    b = kzoo.build("mnist_mlp", seed=5).get_weights()
    for u, v in zip(a, b, strict=True):
        np.testing.assert_array_equal(u, v)


def test_what_is_shown():
    table = kzoo.ledger("googlenet")
    assert max(map(len, str(table).splitlines())) <= 81
    assert repr(table).startswith("<Ledger of googlenet")
    assert table._repr_html_().count("<tr>") == len(table.rows) + 2
    assert json.loads(json.dumps(table.to_dict()))["totals"]["params"] == table.totals.params
    with pytest.raises(KeyError, match="no layer 'conv99'"):
        table["conv99"]


# --- kzoo info -------------------------------------------------------------------------------------------


def info(*arguments):
    return CliRunner(catch_exceptions=True).invoke(group, ["info", *arguments])


def test_info_shows_the_table_and_the_paper():
    result = info("lenet5")
    assert result.exit_code == 0, result.output
    assert "LeCun et al. (1998)" in result.output
    assert "60,000 trainable, published 60,000" in result.output
    assert "RBF" in result.output
    assert "recipe         lenet: adamw, learning rate 0.003, 40 epochs of batches of 128" in result.output
    assert max(map(len, result.output.splitlines())) <= 81


def test_a_table_that_is_too_wide_adds_weights_and_biases_up():
    clip = keras.Input((16, 112, 112, 3), name="image")
    x = keras.layers.Conv3D(512, 3, (3, 6, 6), padding="same", name="convolution_1a")(clip)
    table = kzoo.ledger(keras.Model(clip, keras.layers.Conv3D(999, 3, (2, 5, 5), name="convolution_2a")(x)))
    wide, narrow = table.table(200).splitlines(), table.table(76).splitlines()
    assert max(map(len, wide)) > 76 >= max(map(len, narrow))
    assert narrow[0].split() == ["layer", "output", "params", "mult-adds", "values", "sees"]
    assert narrow[3].split()[1:3] == ["6x19x19x512", f"{512 * 82:,}"]
    total = 512 * 82 + 999 * (27 * 512 + 1)
    assert narrow[-1].split()[:2] == ["total", f"{total:,}"]


def test_info_as_json():
    result = info("mnist_cnn", "--json", "--input-shape", "32x32x1", "--num-classes", "3")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert data["rows"][0]["output"] == [32, 32, 1]
    assert data["rows"][-1]["output"] == [3]
    assert data["published"]["params"] == 3_274_634
    assert data["recipe"]["name"] == "lecture_cnn"
    assert {"multiply_adds", "values", "receptive_field", "weights", "biases"} <= set(data["rows"][3])


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (["vgg1"], 1, "Error: Unknown model 'vgg1'. Did you mean 'vgg"),
        (["vgg16", "--input-shape", "3xy"], 2, "expected height x width x channels"),
        (["vgg16", "--input-shape", "64x64"], 2, "expected height x width x channels, such as 160x160x3; got '64x64'"),
        (["vgg16", "--input-shape", "16x16x3"], 1, "Error: vgg16 can't "),
        (["vgg16", "--num-classes", "0"], 2, "Invalid value for '--num-classes'"),
        ([], 2, "Missing argument 'MODEL'"),
    ],
)
def test_info_says_what_is_wrong(arguments, code, message, capsys):
    from kzoo.cli import main

    with pytest.raises(SystemExit) as stop:
        main(["info", *arguments])
    assert stop.value.code == code
    streams = capsys.readouterr()
    assert message in " ".join(streams.err.split())
    assert streams.out == ""


def test_help_and_a_wrong_name_import_no_keras():
    code = """
import sys
from kzoo.cli import main
for arguments in (["info", "--help"], ["info", "vgg1"]):
    try:
        main(arguments)
    except SystemExit:
        pass
print({"keras", "tensorflow", "jax"} & set(sys.modules))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.rstrip().endswith("set()")
    assert "Example: kzoo info vgg16" in result.stdout
