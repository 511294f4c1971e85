"""Blocks, options and variants of the families: what the comparisons with other libraries can't see."""

import keras
import numpy as np
import pytest
from keras import layers

import kzoo
from kzoo.catalog.rows import wrn
from kzoo.errors import KzooError
from kzoo.layers import pool_3x3_s2
from kzoo.models import inception, mobilenet, resnet

AS_IS = kzoo.Preprocessing(scale=1.0, offset=0.0)


def block(function, shape, *args, **kwargs):
    inputs = keras.Input(shape)
    return keras.Model(inputs, function(inputs, *args, **kwargs))


def small(name, size=64, **config):
    return kzoo.build(name, num_classes=4, input_shape=(size, size, 3), preprocessing=AS_IS, seed=0, **config)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


# --- Inception modules -----------------------------------------------------------------------------------


def test_reductions_save_what_the_lecture_says():
    """CS231n, lecture 9: 28x28x256 into 128 1x1, 192 3x3, 96 5x5 and a pool, naive and with 64-channel reductions."""
    naive = block(inception.naive_module, (28, 28, 256), 128, 192, 96, name="naive")
    reduced = block(inception.module, (28, 28, 256), (128, 64, 192, 64, 96, 64), name="reduced")
    assert naive.output_shape == (None, 28, 28, 672)
    assert reduced.output_shape == (None, 28, 28, 480)

    a, b = kzoo.ledger(naive).totals, kzoo.ledger(reduced).totals
    assert sum(r.weights for r in kzoo.ledger(naive).rows) == 256 * (128 + 9 * 192 + 25 * 96) == 1_089_536
    assert sum(r.weights for r in kzoo.ledger(reduced).rows) == 346_112
    assert round(a.multiply_adds / 1e6) == 854
    # The slide prints 358M, which counts the 3x3 convolution twice; its own rows sum to 271M.
    assert round(b.multiply_adds / 1e6) == 271
    assert round((b.multiply_adds + 28 * 28 * 192 * 9 * 64) / 1e6) == 358


def test_naive_module_keeps_the_pooled_channels():
    model = block(inception.naive_module, (5, 6, 3), 2, 3, 4, name="m")
    x = numbers(1, 5, 6, 3)
    y = np.asarray(model(x))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    windows = [padded[:, i : i + 5, j : j + 6] for i in range(3) for j in range(3)]
    np.testing.assert_array_equal(y[..., 9:], np.max(windows, 0))


def test_auxiliary_classifiers_are_for_training_only():
    with_aux, without = small("googlenet", 96, aux=True), small("googlenet", 96)
    assert [t.shape for t in with_aux.outputs] == [(None, 4)] * 3
    assert with_aux.output_names == ["predictions", "aux1_predictions", "aux2_predictions"]
    for layer in without.layers:
        layer.set_weights(with_aux.get_layer(layer.name).get_weights())
    x = numbers(2, 96, 96, 3)
    np.testing.assert_array_equal(with_aux(x, training=False)[0], without(x, training=False))

    with_aux.compile(
        "sgd",
        [keras.losses.SparseCategoricalCrossentropy(from_logits=True)] * 3,
        loss_weights=list(kzoo.spec("googlenet").loss_weights),
    )
    before = {v.path: np.asarray(v) for v in with_aux.trainable_weights}
    logs = with_aux.train_on_batch(x, [np.array([0, 1])] * 3, return_dict=True)
    parts = [logs[f"{n}_loss"] for n in with_aux.output_names]
    np.testing.assert_allclose(logs["loss"], parts[0] + 0.3 * (parts[1] + parts[2]), rtol=1e-5)
    moved = {v.path for v in with_aux.trainable_weights if not np.array_equal(v, before[v.path])}
    assert {"aux1_fc/kernel", "aux2_fc/kernel", "predictions/kernel"} <= moved


# --- Separable filters -----------------------------------------------------------------------------------


def test_outer_product_equals_the_dense_convolution():
    """W[x, y, c, k] = S[x, y, k] P[c, k], with far fewer parameters."""
    model = block(mobilenet.outer_product_conv, (9, 8, 12), 20, 3, name="op")
    assert model.count_params() == 12 * 20 + 3 * 3 * 20
    p = np.asarray(model.get_layer("op_pointwise").kernel)[0, 0]
    s = np.asarray(model.get_layer("op_depthwise").kernel)[..., 0]
    dense = layers.Conv2D(20, 3, padding="same", use_bias=False)
    x = numbers(2, 9, 8, 12)
    dense.build(x.shape)
    dense.kernel.assign(s[:, :, None, :] * p[None, None])
    assert dense.count_params() == 3 * 3 * 12 * 20
    np.testing.assert_allclose(model(x), dense(x), rtol=1e-4, atol=1e-5)


def test_depthwise_separable_is_the_other_outer_product():
    """Without its batch norms and ReLUs, MobileNet's block has W[x, y, c, k] = S[x, y, c] P[c, k]."""
    model = block(mobilenet.depthwise_separable, (9, 8, 12), 20, stride=1, index=1)
    s = np.asarray(model.get_layer("conv_dw_1").kernel)
    p = np.asarray(model.get_layer("conv_pw_1").kernel)
    assert s.size + p.size == 3 * 3 * 12 + 12 * 20
    x = numbers(2, 9, 8, 12)
    dense = keras.ops.conv(x, s * p, padding="same")
    linear = model.get_layer("conv_pw_1")(model.get_layer("conv_dw_1")(x))
    np.testing.assert_allclose(linear, dense, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "alpha", "first", "features"),
    [
        ("mobilenet_v1", 0.25, 8, 256),
        ("mobilenet_v1", 1.3, 41, 1331),
        ("mobilenet_v2", 0.35, 16, 1280),  # 11.2 becomes 16: 8 would be more than a tenth too few
        ("mobilenet_v2", 1.4, 48, 1792),
    ],
)
def test_mobilenet_takes_any_width(name, alpha, first, features):
    model = kzoo.build(name, num_classes=None, input_shape=(32, 32, 3), alpha=alpha)
    assert model.layers[2].filters == first
    assert model.output_shape == (None, features)


# --- Residual networks -----------------------------------------------------------------------------------


def test_stride_of_a_bottleneck():
    """v1: on the first 1x1, as published; v1.5: on the 3x3; v2: on the 3x3 of a stage's last block."""

    def sizes(model, block):
        return [model.get_layer(f"{block}_{i}_conv").output.shape[1] for i in (1, 2)]

    config = {"blocks": (1, 2), "width": 8}
    assert sizes(small("resnet50", **config), "conv3_block1") == [8, 8]
    assert sizes(small("resnet50_v1_5", **config), "conv3_block1") == [16, 8]
    v2 = small("resnet50_v2", blocks=(2, 1), width=8)
    assert sizes(v2, "conv2_block2") == [16, 8]
    assert sizes(v2, "conv3_block1") == [8, 8]


def test_zero_padding_shortcut():
    x = numbers(1, 5, 4, 2)
    y = np.asarray(resnet.ZeroPaddingShortcut(5, 2)(x))
    assert y.shape == (1, 3, 2, 5)
    np.testing.assert_array_equal(y[..., :2], x[:, ::2, ::2])
    np.testing.assert_array_equal(y[..., 2:], 0)


@pytest.mark.parametrize("pair", [("plain18", "resnet18"), ("plain20", "resnet20")])
def test_plain_networks_are_residual_ones_without_shortcuts(pair):
    plain, residual = (kzoo.build(name) for name in pair)
    assert not [l for l in plain.layers if isinstance(l, layers.Add)]

    def convolutions(m):
        return [(l.name, l.filters) for l in m.layers if isinstance(l, layers.Conv2D)]

    branches = [c for c in convolutions(residual) if "_0_conv" not in c[0]]
    assert convolutions(plain) == branches


def test_option_a_has_as_many_parameters_as_the_plain_network():
    """Section 4.1: 'they have no extra parameter compared to the plain counterparts'."""
    assert kzoo.ledger("resnet34", shortcut="zero_padding").totals.params == kzoo.ledger("plain34").totals.params
    assert kzoo.ledger("resnet34").totals.params > kzoo.ledger("plain34").totals.params


def test_shortcut_carries_the_signal():
    """With the last batch norm of each block at gamma 0, only shortcuts are left: the network is its stem."""
    model = small("resnet20", 32)
    for layer in model.layers:
        if layer.name.endswith("_2_bn"):
            layer.gamma.assign(np.zeros(layer.gamma.shape))
    x = numbers(2, 32, 32, 3)
    stem = keras.Model(model.input, model.get_layer("conv1_relu").output)(x, training=False)
    features = keras.Model(model.input, model.get_layer("avg_pool").output)(x, training=False)
    np.testing.assert_allclose(features[:, :16], np.mean(np.asarray(stem)[:, ::4, ::4], (1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(features[:, 16:], 0)


def test_any_wide_resnet():
    row = wrn(10, 2)
    assert (row.name, dict(row.config)) == ("wrn_10_2", {"depth": 10, "k": 2})
    model = kzoo.build(row)
    assert len([l for l in model.layers if isinstance(l, layers.Conv2D)]) == 10  # projections included
    assert kzoo.build("wrn_16_8", depth=10, k=2).count_params() == model.count_params()
    dropped = kzoo.build(wrn(10, 1), dropout=0.3)
    assert len([l for l in dropped.layers if isinstance(l, layers.Dropout)]) == 3


@pytest.mark.parametrize(
    ("name", "config", "says"),
    [
        ("wrn_16_8", {"depth": 18}, "6n + 4"),
        ("resnet20", {"depth": 18}, "6n + 2"),
        ("resnet18", {"block": "neck"}, "Unknown block 'neck'. Did you mean 'bottleneck'"),
        ("resnet18", {"shortcut": "zero"}, "Unknown shortcut"),
        ("nasnet_mobile", {"penultimate": 1000}, "multiple of 96"),
        ("nasnet_mobile", {"input_shape": (None, None, 3)}, "height and a width"),
    ],
)
def test_wrong_options_are_explained(name, config, says):
    with pytest.raises(KzooError) as e:
        kzoo.build(name, **config)
    assert says in str(e.value)


# --- Others ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(3, 12))
def test_pool_rounds_up(size):
    """Caffe's rule: ceil((n - 3) / 2) + 1 windows, the last one cut off at the border."""
    x = np.abs(numbers(1, size, size, 2))
    y = np.asarray(block(pool_3x3_s2, (size, size, 2), name="p")(x))
    starts = range(0, 2 * (-(-(size - 3) // 2) + 1), 2)
    expected = [[x[0, i : i + 3, j : j + 3].max((0, 1)) for j in starts] for i in starts]
    np.testing.assert_array_equal(y[0], expected)


def test_he_initialisation_lets_the_signal_through_nineteen_layers():
    x = numbers(4, 64, 64, 3)
    spread = {}
    for initialization in ("glorot_uniform", "he_normal"):
        model = small("vgg19", initialization=initialization, units=256)
        output = keras.Model(model.input, model.get_layer("block5_conv4").output)(x, training=False)
        spread[initialization] = np.std(output)
    assert 0.2 < spread["he_normal"] < 5
    assert spread["glorot_uniform"] < 0.01 * spread["he_normal"]


def test_batch_norm_of_vgg_sits_before_the_relu():
    model = small("vgg11_bn", width=4, units=8)
    order = [l.name for l in model.layers if l.name.startswith("block3")]
    assert order == [
        "block3_conv1",
        "block3_bn1",
        "block3_relu1",
        "block3_conv2",
        "block3_bn2",
        "block3_relu2",
        "block3_pool",
    ]
    assert model.get_layer("block3_conv1").activation is keras.activations.linear


def test_squeezenet_sizes_are_those_of_table_1():
    model = kzoo.build("squeezenet1_0")
    sizes = [model.get_layer(n).output.shape[1] for n in ("conv1", "pool1", "pool4", "pool8", "predictions")]
    assert sizes == [111, 55, 27, 13, 13]
    assert kzoo.build("squeezenet1_0", conv10_padding=1).get_layer("predictions").output.shape[1] == 15


def test_allcnn_averages_over_six_by_six():
    model = kzoo.build("allcnn_c")
    assert [model.get_layer(f"conv{i}").output.shape[1] for i in range(1, 9)] == [32, 32, 16, 16, 16, 8, 6, 6]
    assert model.get_layer("predictions").output.shape == (None, 6, 6, 10)
    assert not [l for l in model.layers if isinstance(l, layers.MaxPooling2D)]


def test_inception_resnet_v1_has_the_parameters_of_the_face_recogniser():
    """facenet-pytorch's InceptionResnetV1 prints 23,482,624: gammas, a sixth module C and 512 embeddings more."""
    totals = kzoo.ledger("inception_resnet_v1", num_classes=None, blocks=(5, 10, 6)).totals
    gammas = totals.non_trainable // 2
    assert totals.trainable + gammas + 1792 * 512 + 2 * 512 == 23_482_624


def test_residuals_are_scaled():
    """Inception-ResNet: x + scale * branch, and neither scale nor ReLU behind the last module."""
    model = small("inception_resnet_v2", 75, blocks=(1, 1, 2))
    assert [model.get_layer(n).scale for n in ("block35_1_scale", "block17_1_scale", "block8_1_scale")] == [
        0.17,
        0.1,
        0.2,
    ]
    assert model.get_layer("block8_2_scale").scale == 1.0
    names = {l.name for l in model.layers}
    assert "block8_1_ac" in names and "block8_2_ac" not in names
    x = numbers(1, 75, 75, 3)
    outputs = [model.get_layer(n).output for n in ("mixed_5b", "block35_1_conv", "block35_1_ac")]
    before, branch, after = keras.Model(model.input, outputs)(x, training=False)
    np.testing.assert_allclose(after, np.maximum(before + 0.17 * np.asarray(branch), 0), rtol=1e-5, atol=1e-6)
