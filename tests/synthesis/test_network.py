"""Networks of the catalog as feature networks: layers, borders, random weights, files of the first layers."""

import keras
import numpy as np
import pytest
from keras import ops
from support.style import picture

from kzoo.errors import KzooError, UnknownName, WeightsError
from kzoo.synthesis.network import ReplicatedBorder, catalog_model, cut_network, source_of
from kzoo.synthesis.objective import differentiable

LAYERS = {"content_layers": ("block2_conv1",), "style_layers": ("block1_conv1", "block2_conv1", "block3_conv1")}
STYLE = picture(70, 85, 1)


def make(**options):
    return cut_network(catalog_model("vgg11", "random"), picture=STYLE, **{**LAYERS, **options})


def test_random_layers_have_a_mean_activation_of_one():
    net = make()
    for layer in net.model.layers:
        if layer.weights:
            mean = np.asarray(keras.Model(net.model.inputs[0], layer.output)(STYLE[None].astype("float32"))).mean()
            np.testing.assert_allclose(mean, 1, rtol=0.01)


def test_replicated_borders_leave_a_flat_picture_flat():
    """A flat picture has flat features, up to the border; with zeros around it has not."""
    flat = np.full((1, 32, 32, 3), 200, "float32")

    def spread(padding):
        return np.ptp(np.asarray(make(padding=padding).model(flat)[0]), axis=(1, 2)).max()

    assert spread("replicate") < 1e-4 and spread("zeros") > 0.01


def test_borders_of_every_kind_are_replicated():
    """A layer of zeros, strides at even and odd sizes, depthwise and dilated convolutions: flat stays flat."""
    layers, picture = keras.layers, keras.Input((40, 40, 3))
    x = layers.ZeroPadding2D(((3, 2), (1, 3)))(picture)
    x = layers.Conv2D(4, 7, strides=2)(x)
    x = layers.Conv2D(4, (3, 2), strides=2, padding="same")(x)
    x = layers.DepthwiseConv2D(5, strides=2, padding="same")(x)
    x = layers.Conv2D(4, 3, dilation_rate=2, padding="same")(x)
    model = keras.Model(picture, layers.SeparableConv2D(4, 3, padding="same", name="last")(x))
    model.set_weights([np.random.default_rng(i).normal(0, 0.3, w.shape) for i, w in enumerate(model.get_weights())])

    def features(padding, size, pixels):
        cut = cut_network(source_of(model), content_layers=("last",), style_layers=(), padding=padding).model
        return np.asarray(cut(np.broadcast_to(pixels, (1, *size, 3)).astype("float32")))

    for size in ((40, 40), (37, 46), (39, 41)):
        flat, zeros = (features(padding, size, 200) for padding in ("replicate", "zeros"))
        assert flat.shape == zeros.shape, "the grid is that of the network"
        assert np.ptp(flat, axis=(1, 2)).max() < 1e-3 < np.ptp(zeros, axis=(1, 2)).max()
    noise = np.random.default_rng(0).uniform(0, 255, (200, 200, 3))
    inner = [features(padding, (200, 200), noise)[:, 8:-8, 8:-8] for padding in ("replicate", "zeros")]
    np.testing.assert_allclose(*inner, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 2, 1), (2, 3, 1), (7, 4, 1), (5, 1, 2), (2, 1, 1)])
def test_a_replicated_border_is_as_wide_as_same_has_it(kernel, stride, dilation):
    reach = dilation * (kernel - 1) + 1
    layer = ReplicatedBorder([((reach - 1) // 2, reach // 2)] * 2, (stride, stride))
    for size in (10, 11, 12, 13):
        x = np.random.default_rng(size).normal(size=(1, size, 9, 2)).astype("float32")
        totals = [max((-(-n // stride) - 1) * stride + reach - n, 0) for n in (size, 9)]  # TensorFlow's rule
        edges = [(t // 2, t - t // 2) for t in totals]
        expected = np.pad(x, [(0, 0), *edges, (0, 0)], "edge")
        np.testing.assert_array_equal(np.asarray(layer(x)), expected)
        assert layer.compute_output_shape(x.shape) == expected.shape


def test_the_gradient_of_a_replicated_border_is_its_transpose():
    """Each position gets the sum over the positions that repeat it; one position alone is the first and the last."""
    layer = ReplicatedBorder(((3, 2), (0, 1)))
    run = differentiable(keras.Sequential([keras.Input((None, None, 2)), layer]), lambda y, u: (ops.sum(y * u), ()))
    for size in ((6, 5), (2, 7), (1, 1)):
        x, u = (
            np.random.default_rng(n).normal(size=(1, *s, 2)) for n, s in ((0, size), (1, (size[0] + 5, size[1] + 1)))
        )
        rows, columns = (np.clip(np.arange(-b, n + a), 0, n - 1) for n, b, a in ((size[0], 3, 2), (size[1], 0, 1)))
        expected = np.zeros_like(x)
        np.add.at(expected, (0, rows[:, None], columns[None, :]), u[0])
        gradient = run(x.astype("float32"), u.astype("float32"))[1]
        np.testing.assert_allclose(np.asarray(gradient), expected, rtol=1e-5, atol=1e-5)


def test_strides_and_halo_of_vgg():
    net = make()
    assert net.layers == LAYERS["style_layers"] or set(net.layers) == set(LAYERS["style_layers"])
    assert net.strides == {"block1_conv1": 1, "block2_conv1": 2, "block3_conv1": 4} and net.stride == 4
    # A feature of block3_conv1 depends on 1 + 2 * 2 + 4 pixels, rounded up to a multiple of 4.
    assert net.halo % net.stride == 0 and net.halo >= 7
    shapes = net.named_shapes(64, 48)
    assert shapes["block1_conv1"] == (1, 64, 48, 64) and shapes["block3_conv1"] == (1, 16, 12, 256)


def first_layers(path, count=3, **more):
    """A file with the first convolutions of vgg11 only."""
    net = make()
    layers = [l for l in net.model.layers if l.weights][:count]
    arrays = {v.path: np.asarray(v) for l in layers for v in l.weights}
    np.savez(path, **arrays, **more)
    return arrays


def test_a_file_of_the_first_layers_is_enough(tmp_path):
    path = tmp_path / "front.npz"
    arrays = first_layers(path)
    source = catalog_model("vgg11", str(path))
    assert source.reaches("block3_conv1") and not source.reaches("block3_conv2")
    net = cut_network(source, **LAYERS)
    for v in net.model.weights:
        np.testing.assert_array_equal(np.asarray(v), arrays[v.path])
    with pytest.raises(WeightsError, match="up to block4_conv2"):
        cut_network(source, content_layers=("block4_conv2",), style_layers=LAYERS["style_layers"])


def test_a_file_must_fit(tmp_path):
    first_layers(tmp_path / "a.npz", surprise=np.ones(3, "float32"))
    with pytest.raises(WeightsError, match="unexpected: surprise"):
        catalog_model("vgg11", str(tmp_path / "a.npz"))
    first_layers(tmp_path / "b.npz", block3_conv2=np.ones(3, "float32"))
    with pytest.raises(WeightsError, match="block3_conv2"):
        catalog_model("vgg11", str(tmp_path / "b.npz"))


def test_names_that_do_not_exist():
    with pytest.raises(UnknownName, match="Did you mean 'block1_conv1'"):
        make(style_layers=("block1_conv0",))
    with pytest.raises(UnknownName, match="pooling"):
        make(pooling="mean")
    with pytest.raises(UnknownName, match="padding"):
        make(padding="reflect")
    with pytest.raises(KzooError, match="not a feature map"):
        make(content_layers=("fc1",))
    with pytest.raises(KzooError, match="colour"):
        catalog_model("lenet5", "random")
