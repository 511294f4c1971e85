"""The objective of a network: exact tiles, the paper's numbers, masks, styles, partial weights, both backends."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from kzoo.errors import KzooError, UnknownName, WeightsError
from kzoo.synthesis.network import network
from kzoo.synthesis.objective import Eye, Objective

DATA = Path(os.environ.get("KZOO_DATA") or Path(__file__).parents[3] / "shared" / "data")
LAYERS = {"content_layers": ("block2_conv1",), "style_layers": ("block1_conv1", "block2_conv1", "block3_conv1")}


def picture(height, width, seed):
    """Patches and noise: something to see for every layer. (1, H, W, 3) float32 in 0..255."""
    rng = np.random.default_rng(seed)
    patches = np.kron(rng.uniform(0, 255, (height // 8 + 1, width // 8 + 1, 3)), np.ones((8, 8, 1)))[:height, :width]
    return np.clip(patches + rng.normal(0, 20, patches.shape), 0, 255).astype("float32")[None]


CONTENT, STYLE, OTHER, X = picture(90, 130, 0), picture(70, 85, 1), picture(64, 64, 2), picture(90, 130, 3)


def make(**options):
    return network("vgg11", "random", picture=STYLE[0], **{**LAYERS, **options})


@pytest.fixture(scope="module")
def net():
    return make()


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("options", [{}, {"pooling": "max", "padding": "zeros"}])
def test_tiles_give_the_gradient_of_the_whole(options, guided):
    net = make(**options)
    guides = None
    if guided:
        left = np.zeros((90, 130, 2), "float32")
        left[:, :60, 0] = left[:, 60:, 1] = 1
        guides = left, [np.stack([np.ones((70, 85), "float32")] * 2, -1)]
    found = []
    for tile in (None, 33):
        objective = Objective(Eye(net, tile), CONTENT, [STYLE], guides=guides, tv_weight=1e-6)
        assert (len(objective.eye.windows((90, 130))) > 4) == (tile is not None)
        found.append(objective(X))
    (loss, parts, gradient), (tiled_loss, tiled_parts, tiled) = found
    np.testing.assert_allclose(tiled_loss, loss, rtol=1e-5)
    np.testing.assert_allclose(list(tiled_parts.values()), list(parts.values()), rtol=1e-5)
    assert np.abs(tiled - gradient).max() < 1e-4 * np.abs(gradient).max()
    assert np.abs(gradient[0, -8:, -8:]).max() > 0  # the last rows are no part of a pooled unit's shade


def test_paper_balance_is_the_papers(net):
    objective = Objective(
        Eye(net), CONTENT, [STYLE], content_weight=2.0, style_weight=5.0, balance="paper", layer_weights=(0.5, 0.3, 0.2)
    )
    f, p, a = (dict(zip(net.layers, map(np.asarray, net.model(x)), strict=True)) for x in (X, CONTENT, STYLE))

    def mean(f):
        return np.einsum("bhwn,bhwm->nm", f.astype("float64"), f) / (f.shape[1] * f.shape[2])

    content = 0.5 * np.sum((f["block2_conv1"] - p["block2_conv1"]).astype("float64") ** 2)
    style = [np.sum((mean(f[n]) - mean(a[n])) ** 2) / (4 * f[n].shape[-1] ** 2) for n in net.style]
    loss, parts, gradient = objective(X)
    np.testing.assert_allclose(parts["content"], 2.0 * content, rtol=1e-4)
    np.testing.assert_allclose(parts["style"], 5.0 * np.dot(style, [0.5, 0.3, 0.2]), rtol=1e-4)
    np.testing.assert_allclose(loss, sum(parts.values()), rtol=1e-6)
    assert gradient.dtype == "float32" and gradient.shape == X.shape


def test_relative_balance(net):
    """Zero features would cost content_weight and style_weight; the content itself costs its distance in style."""
    objective = Objective(Eye(net), CONTENT, [STYLE], content_weight=1.0, style_weight=10.0)
    _, parts, _ = objective(CONTENT)
    assert parts["content"] == 0
    np.testing.assert_allclose(parts["style"], 10 * np.mean(list(objective.distances(CONTENT).values())), rtol=1e-4)


def test_gradient_balance_pulls_equally(net):
    objective = Objective(Eye(net), CONTENT, [STYLE], balance="gradient")
    pulls = [objective._pull_of(n, CONTENT) for n in net.style]
    np.testing.assert_allclose(pulls, np.mean(pulls), rtol=1e-3)


def test_several_styles_have_the_gradient_of_the_sum(net):
    eye, weights = Eye(net), [3.0, 1.0]
    given = {"content_weight": 0.0, "style_weight": 1.0, "balance": "paper"}
    _, _, both = Objective(eye, CONTENT, [STYLE, OTHER], style_weights=weights, **given)(X)
    one, two = (Objective(eye, CONTENT, [s], **given)(X)[2] for s in (STYLE, OTHER))
    np.testing.assert_allclose(both, 0.75 * one + 0.25 * two, rtol=1e-3, atol=1e-4 * np.abs(one).max())


def test_a_region_takes_its_own_style(net):
    """Where a region's style is the picture itself nothing pulls; the other region is pulled."""
    left = np.zeros((90, 130, 2), "float32")
    left[:, :64, 0] = left[:, 64:, 1] = 1
    everywhere = np.ones((70, 85, 2), "float32")
    objective = Objective(
        Eye(net), X, [X, STYLE], style_weights=np.eye(2), guides=(left, [left, everywhere]), content_weight=0.0
    )
    gradient = np.abs(objective(X)[2][0]).max((0, 2))
    assert gradient[:32].max() < 1e-3 * gradient[80:].max()


def test_an_empty_region_is_refused(net):
    with pytest.raises(KzooError, match="mask leaves"):
        Objective(Eye(net), CONTENT, [STYLE], guides=(np.zeros((90, 130, 1)), [np.ones((70, 85, 1))]))


def test_random_layers_are_equally_loud(net):
    for layer in net.model.layers:
        if "conv" in layer.name:
            mean = np.asarray(keras.Model(net.model.inputs[0], layer.output)(STYLE)).mean()
            np.testing.assert_allclose(mean, 1, rtol=0.01)


def test_replicated_borders_are_not_seen():
    """A flat picture has flat features, up to the border; with zeros around it has not."""
    flat = np.full((1, 32, 32, 3), 200, "float32")

    def spread(padding):
        return np.ptp(np.asarray(make(padding=padding).model(flat)[0]), axis=(1, 2)).max()

    assert spread("replicate") < 1e-4 and spread("zeros") > 0.01


def first_layers(path, count=3, **more):
    """A file with the first convolutions of vgg11 only."""
    net = make()
    layers = [l for l in net.model.layers if l.weights][:count]
    arrays = {v.path: np.asarray(v) for l in layers for v in l.weights}
    np.savez(path, **arrays, **more)
    return arrays


def test_the_first_layers_are_enough(tmp_path):
    path = tmp_path / "front.npz"
    arrays = first_layers(path)
    net = network("vgg11", str(path))
    assert net.style == ("block1_conv1", "block2_conv1", "block3_conv1") and net.content == ("block3_conv1",)
    assert "first layers only" in net.notes[0] and "block3_conv1" in net.notes[1]
    for v in net.model.weights:
        np.testing.assert_array_equal(v, arrays[v.path])
    with pytest.raises(WeightsError, match="up to block4_conv2"):
        network("vgg11", str(path), content_layers=("block4_conv2",))


def test_a_file_must_fit(tmp_path):
    first_layers(tmp_path / "a.npz", surprise=np.ones(3, "float32"))
    with pytest.raises(WeightsError, match="unexpected: surprise"):
        network("vgg11", str(tmp_path / "a.npz"))
    first_layers(tmp_path / "b.npz", block3_conv2=np.ones(3, "float32"))
    with pytest.raises(WeightsError, match="block3_conv2"):
        network("vgg11", str(tmp_path / "b.npz"))
    np.savez(tmp_path / "c.npz", **{"fc1/bias": np.ones(4096, "float32")})
    with pytest.raises(WeightsError, match="none of the style layers"):
        network("vgg11", str(tmp_path / "c.npz"))


def test_names_that_do_not_exist():
    with pytest.raises(UnknownName, match="Did you mean 'block1_conv1'"):
        make(style_layers=("block1_conv0",))
    with pytest.raises(UnknownName, match="pooling"):
        make(pooling="mean")
    with pytest.raises(KzooError, match="style layers"):
        network("resnet20", "random", picture=STYLE[0])
    with pytest.raises(KzooError, match="colour"):
        network("lenet5", "random", picture=STYLE[0])


def test_layer_weights_count_where_gradients_are_balanced():
    net = network("vgg11", "random", picture=STYLE[0])
    pulls = {}
    for weights in ((0.8, 0.1, 0.05, 0.05, 0.0), None):
        objective = Objective(Eye(net), CONTENT, [STYLE], balance="gradient", layer_weights=weights)
        pulls[weights] = np.array([objective._pull_of(n, CONTENT) for n in net.style])
    asked = next(w for w in pulls if w)
    np.testing.assert_allclose(pulls[None] / pulls[None].sum(), 0.2, rtol=1e-3)
    np.testing.assert_allclose(pulls[asked] / pulls[asked].sum(), asked, rtol=1e-3)


def test_other_networks_paint_whole_and_in_tiles_where_these_are_exact():
    layers = {"content_layers": ("conv2_block1_out",), "style_layers": ("conv1_relu", "conv3_block1_out")}
    net = network("resnet20", "random", picture=STYLE[0], **layers)
    loss, _, gradient = Objective(Eye(net), CONTENT, [STYLE])(X)
    assert loss > 0 and np.isfinite(gradient).all() and np.abs(gradient).max() > 0
    tiled_loss, _, tiled = Objective(Eye(net, 32), CONTENT, [STYLE])(X)
    np.testing.assert_allclose(tiled_loss, loss, rtol=1e-5)
    assert np.abs(tiled - gradient).max() < 1e-4 * np.abs(gradient).max()
    # Its strides pad by "same", so where their grid begins depends on the size.
    net = network("allcnn_c", "random", picture=STYLE[0], content_layers=("conv4",), style_layers=("conv1",))
    assert net.halo is None
    with pytest.raises(KzooError, match="tiles"):
        Eye(net, 32)


def test_the_real_front():
    path = DATA / "weights" / "vgg19_normalised_conv3_1.npz"
    if not path.is_file():
        pytest.skip(f"needs {path} (set KZOO_DATA)")
    net = network("vgg19", str(path))
    assert net.style == ("block1_conv1", "block2_conv1", "block3_conv1") and (net.stride, net.halo) == (4, 12)
    assert len(net.model.weights) == 10


PROGRAM = """
import sys
import numpy as np
sys.path.insert(0, {tests!r})
from test_style_objective import CONTENT, STYLE, X
from kzoo.synthesis.network import network
from kzoo.synthesis.objective import Eye, Objective
net = network("vgg11", {weights!r})
for tile in (None, 48):
    loss, _, gradient = Objective(Eye(net, tile), CONTENT, [STYLE])(X)
    np.savez({out!r} + str(tile or 0), loss=loss, gradient=gradient)
"""


@pytest.mark.slow
def test_jax_agrees_with_tensorflow(tmp_path):
    pytest.importorskip("jax")
    weights = str(tmp_path / "front.npz")
    first_layers(weights)
    loss, _, gradient = Objective(Eye(network("vgg11", weights)), CONTENT, [STYLE])(X)
    program = PROGRAM.format(tests=str(Path(__file__).parent), weights=weights, out=str(tmp_path / "out"))
    root = str(Path(__file__).parents[2])
    subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        cwd=root,
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": root},
    )
    for tile in (0, 48):
        other = np.load(tmp_path / f"out{tile}.npz")
        np.testing.assert_allclose(other["loss"], loss, rtol=1e-4)
        np.testing.assert_allclose(other["gradient"], gradient, atol=1e-3 * np.abs(gradient).max())
