"""The objective of a network: exact tiles, the paper's numbers, masks, several styles, both backends."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from kzoo.errors import KzooError
from kzoo.synthesis.network import catalog_model, cut_network, source_of
from kzoo.synthesis.objective import CompiledNetwork, FeatureObjective, StyleObjective

LAYERS = {"content_layers": ("block2_conv1",), "style_layers": ("block1_conv1", "block2_conv1", "block3_conv1")}


def picture(height, width, seed):
    """Patches and noise: something to see for every layer. (1, H, W, 3) float32 in 0..255."""
    rng = np.random.default_rng(seed)
    patches = np.kron(rng.uniform(0, 255, (height // 8 + 1, width // 8 + 1, 3)), np.ones((8, 8, 1)))[:height, :width]
    return np.clip(patches + rng.normal(0, 20, patches.shape), 0, 255).astype("float32")[None]


CONTENT, STYLE, OTHER, X = picture(90, 130, 0), picture(70, 85, 1), picture(64, 64, 2), picture(90, 130, 3)


def make(**options):
    return cut_network(catalog_model("vgg11", "random"), picture=STYLE[0], **{**LAYERS, **options})


@pytest.fixture(scope="module")
def net():
    return make()


@pytest.fixture(scope="module")
def compiled(net):
    """Compiled once for all tests that take the picture in one piece."""
    return CompiledNetwork(net)


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
        objective = StyleObjective(CompiledNetwork(net, tile), CONTENT, [STYLE], guides=guides, tv_weight=1e-6)
        assert (len(objective.compiled.windows((90, 130))) > 4) == (tile is not None)
        found.append(objective(X))
    (loss, parts, gradient), (tiled_loss, tiled_parts, tiled) = found
    np.testing.assert_allclose(tiled_loss, loss, rtol=1e-5)
    np.testing.assert_allclose(list(tiled_parts.values()), list(parts.values()), rtol=1e-5)
    assert np.abs(tiled - gradient).max() < 1e-4 * np.abs(gradient).max()
    assert np.abs(gradient[0, -8:, -8:]).max() > 0  # the last rows are no part of a pooled unit's shade


def test_targets_and_directions_are_numpys_whole_and_in_tiles():
    """Inversion's, maximisation's and DeepDream's terms at once, with those of the pixels."""
    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 3), name="image")
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="first")(image)
    x = keras.layers.Conv2D(5, 3, padding="same", name="second")(keras.layers.MaxPooling2D()(x))
    model = keras.Model(image, keras.layers.Conv2D(3, 1, name="last")(x))
    names = ("first", "second", "last")
    net = cut_network(source_of(model), content_layers=names, style_layers=(), pooling="max", padding="zeros")
    f, p = (dict(zip(names, map(np.asarray, net.model(x)), strict=True)) for x in (X, CONTENT))
    towards = np.random.default_rng(0).normal(size=(1, 1, 1, 3)).astype("float32")
    terms = {
        "targets": {"first": (-0.25, np.zeros((1, 1, 1, 1))), "second": (2.0, p["second"])},
        "directions": {"second": p["second"], "last": towards},
        "pixel_weights": {"tv": 1e-3, "norm": 1e-10, "range": 0},
    }
    x = X[0].astype("float64")
    expected = {
        "first": -0.125 * np.sum(f["first"].astype("float64") ** 2),
        "second": np.sum((f["second"] - p["second"]) ** 2) + np.sum(f["second"] * p["second"]),
        "last": np.sum(f["last"] * towards),
        "tv": 1e-3 * sum(np.square(np.diff(x, axis=a)).sum() for a in (0, 1)),
        "norm": 1e-10 * np.sum((x - 127.5) ** 6),
    }
    found = [FeatureObjective(CompiledNetwork(net, tile), X.shape, **terms)(X) for tile in (None, 33)]
    for loss, parts, gradient in found:
        assert parts.keys() == expected.keys() and loss == sum(parts.values())
        np.testing.assert_allclose(list(parts.values()), list(expected.values()), rtol=1e-4)
        assert np.abs(gradient - found[0][2]).max() < 1e-4 * np.abs(gradient).max() and gradient.any()
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), net.model.get_weights(), strict=True))


def test_paper_balance_is_the_papers(net, compiled):
    objective = StyleObjective(
        compiled,
        CONTENT,
        [STYLE],
        content_weight=2.0,
        style_weight=5.0,
        balance="paper",
        layer_weights=(0.5, 0.3, 0.2),
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


def test_relative_balance(compiled):
    """Zero features would cost content_weight and style_weight; the content itself costs its distance in style."""
    objective = StyleObjective(compiled, CONTENT, [STYLE], content_weight=1.0, style_weight=10.0)
    _, parts, _ = objective(CONTENT)
    assert parts["content"] == 0
    np.testing.assert_allclose(parts["style"], 10 * np.mean(list(objective.distances(CONTENT).values())), rtol=1e-4)


def test_the_relative_weight_of_published_weights_is_the_ratio_of_the_terms_for_zero_features(compiled):
    published = {"content_weight": 2.0, "style_weight": 30.0, "balance": "paper"}
    objective = StyleObjective(compiled, CONTENT, [STYLE], **published)
    grams = compiled.grams(STYLE)[0]
    style = content = 0.0
    for n, g in grams.items():
        positions = np.prod(compiled.shapes(*STYLE.shape[1:3])[n][1:3])
        style += 30 / len(grams) * np.square(g / positions).sum() / (4 * g.shape[-1] ** 2)
    for f in objective.content.values():
        content += 2 / len(objective.content) * np.square(f).sum() / 2
    np.testing.assert_allclose(objective.relative_weight, style / content, rtol=1e-4)
    relative = StyleObjective(compiled, CONTENT, [STYLE], content_weight=2.0, style_weight=30.0)
    np.testing.assert_allclose(relative.relative_weight, 15, rtol=1e-5)
    assert StyleObjective(compiled, CONTENT, [STYLE], content_weight=0.0).relative_weight is None


def test_gradient_balance_pulls_equally(net, compiled):
    objective = StyleObjective(compiled, CONTENT, [STYLE], balance="gradient")
    norms = [objective.gradient_norm(n, CONTENT) for n in net.style]
    np.testing.assert_allclose(norms, np.mean(norms), rtol=1e-3)


def test_several_styles_have_the_gradient_of_the_sum(compiled):
    weights = [3.0, 1.0]
    given = {"content_weight": 0.0, "style_weight": 1.0, "balance": "paper"}
    _, _, both = StyleObjective(compiled, CONTENT, [STYLE, OTHER], style_weights=weights, **given)(X)
    one, two = (StyleObjective(compiled, CONTENT, [s], **given)(X)[2] for s in (STYLE, OTHER))
    np.testing.assert_allclose(both, 0.75 * one + 0.25 * two, rtol=1e-3, atol=1e-4 * np.abs(one).max())


def test_a_region_takes_its_own_style(compiled):
    """Where a region's style is the picture itself nothing pulls; the other region is pulled."""
    left = np.zeros((90, 130, 2), "float32")
    left[:, :64, 0] = left[:, 64:, 1] = 1
    everywhere = np.ones((70, 85, 2), "float32")
    objective = StyleObjective(
        compiled,
        X,
        [X, STYLE],
        style_weights=np.eye(2),
        guides=(left, [left, everywhere]),
        content_weight=0.0,
    )
    gradient = np.abs(objective(X)[2][0]).max((0, 2))
    assert gradient[:32].max() < 1e-3 * gradient[80:].max()


def test_an_empty_region_is_refused(compiled):
    with pytest.raises(KzooError, match="mask leaves"):
        StyleObjective(compiled, CONTENT, [STYLE], guides=(np.zeros((90, 130, 1)), [np.ones((70, 85, 1))]))


def test_layer_weights_count_where_gradients_are_balanced():
    net = make(content_layers=("block4_conv2",), style_layers=tuple(f"block{i}_conv1" for i in range(1, 6)))
    norms, compiled = {}, CompiledNetwork(net)
    for weights in ((0.8, 0.1, 0.05, 0.05, 0.0), None):
        objective = StyleObjective(compiled, CONTENT, [STYLE], balance="gradient", layer_weights=weights)
        norms[weights] = np.array([objective.gradient_norm(n, CONTENT) for n in net.style])
    asked = next(w for w in norms if w)
    np.testing.assert_allclose(norms[None] / norms[None].sum(), 0.2, rtol=1e-3)
    np.testing.assert_allclose(norms[asked] / norms[asked].sum(), asked, rtol=1e-3)


def test_other_networks_paint_whole_and_in_tiles_where_these_are_exact():
    layers = {"content_layers": ("conv2_block1_out",), "style_layers": ("conv1_relu", "conv3_block1_out")}
    net = cut_network(catalog_model("resnet20", "random"), picture=STYLE[0], **layers)
    loss, _, gradient = StyleObjective(CompiledNetwork(net), CONTENT, [STYLE])(X)
    assert loss > 0 and np.isfinite(gradient).all() and np.abs(gradient).max() > 0
    tiled_loss, _, tiled = StyleObjective(CompiledNetwork(net, 32), CONTENT, [STYLE])(X)
    np.testing.assert_allclose(tiled_loss, loss, rtol=1e-5)
    assert np.abs(tiled - gradient).max() < 1e-4 * np.abs(gradient).max()
    # Its strides pad by "same", so where their grid begins depends on the size.
    layers = {"content_layers": ("conv4",), "style_layers": ("conv1",)}
    net = cut_network(catalog_model("allcnn_c", "random"), picture=STYLE[0], **layers)
    assert net.halo is None
    with pytest.raises(KzooError, match="tiles"):
        CompiledNetwork(net, 32)


def of_file(path):
    layers = LAYERS["style_layers"]
    return cut_network(catalog_model("vgg11", path), content_layers=layers[-1:], style_layers=layers)


PROGRAM = """
import sys
import numpy as np
sys.path.insert(0, {tests!r})
from test_objective import CONTENT, STYLE, X, of_file
from kzoo.synthesis.objective import CompiledNetwork, StyleObjective
net = of_file({weights!r})
for tile in (None, 48):
    loss, _, gradient = StyleObjective(CompiledNetwork(net, tile), CONTENT, [STYLE])(X)
    np.savez({out!r} + str(tile or 0), loss=loss, gradient=gradient)
"""


@pytest.mark.slow
@pytest.mark.deep("2026-11-27")
def test_jax_agrees_with_tensorflow(tmp_path):
    pytest.importorskip("jax")
    weights = str(tmp_path / "front.npz")
    layers = [l for l in make().model.layers if l.weights][:3]
    np.savez(weights, **{v.path: np.asarray(v) for l in layers for v in l.weights})
    loss, _, gradient = StyleObjective(CompiledNetwork(of_file(weights)), CONTENT, [STYLE])(X)
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
