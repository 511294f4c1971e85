"""Stylenets: the network, its objective, training that resumes, painting, export."""

import json
from dataclasses import asdict, fields

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from kzoo import runs
from kzoo.cli import group
from kzoo.errors import DataError, KzooError, RunError
from kzoo.exporting.stylenet import export_stylenet
from kzoo.models.stylenet import ReflectionPadding2D
from kzoo.style import stylenet
from kzoo.style.network import style_network
from kzoo.style.settings import StylenetOptions
from kzoo.synthesis import losses, pictures

RNG = np.random.default_rng(0)


def picture(path, size=(80, 72), seed=0):
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype("uint8")).save(path)
    return str(path)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos" / "more"
    folder.mkdir(parents=True)
    for i in range(3):
        picture(folder / f"{i}.png", seed=i)
    (folder / "notes.txt").write_text("no picture")
    return str(folder.parent)


def test_the_network_is_the_papers():
    """Supplement, table 1: sizes by hand for a picture of 256 x 256."""
    model = stylenet.build_stylenet()
    probe = keras.Model(
        model.input, [model.get_layer(n).output for n in ("conv1", "conv2", "conv3", "block5_add", "conv5")]
    )
    shapes = [tuple(s) for s in probe.compute_output_shape((1, 256, 256, 3))]
    assert shapes == [(1, 256, 256, 32), (1, 128, 128, 64), (1, 64, 64, 128), (1, 64, 64, 128), (1, 256, 256, 32)]
    assert sum(layer.name.startswith("block") and layer.name.endswith("_add") for layer in model.layers) == 5
    # Kernels and biases of convolutions, by hand, and two numbers a channel for each instance norm.
    convolutions = 9 * 9 * 3 * 32 + 32 + 9 * 32 * 64 + 64 + 9 * 64 * 128 + 128 + 10 * (9 * 128 * 128 + 128)
    convolutions += 9 * 128 * 64 + 64 + 9 * 64 * 32 + 32 + 9 * 9 * 32 * 3 + 3
    norms = 2 * (32 + 64 + 128 + 10 * 128 + 64 + 32)
    assert model.count_params() == convolutions + norms


def test_reflection_padding_and_instance_norm_are_numpys():
    x = RNG.normal(size=(2, 6, 5, 3)).astype("float32")
    y = np.asarray(ReflectionPadding2D(2)(x))
    np.testing.assert_array_equal(y, np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect"))
    norm = keras.layers.GroupNormalization(groups=-1, epsilon=1e-5)
    expected = (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-5)
    np.testing.assert_allclose(np.asarray(norm(x)), expected, rtol=1e-4, atol=1e-5)


def test_the_objective_is_that_of_style_transfer():
    style, painted, content = RNG.uniform(0, 255, (3, 1, 40, 48, 3)).astype("float32")
    layers = dict(content_layers=("block2_conv1",), style_layers=("block1_conv1", "block2_conv1"))
    net, _ = style_network("vgg11", "random", picture=style[0], **layers)
    terms = stylenet.PerceptualLoss(net, style, content_weight=2.0, style_weight=3.0, tv_weight=0.5)
    got = np.asarray(terms([np.concatenate([painted, content]), np.concatenate([content, content])]))
    f = {k: net.named(net.model(x)) for k, x in (("style", style), ("painted", painted), ("content", content))}

    def gram(k, n):
        return np.asarray(losses.gram(f[k][n])[0]) / np.prod(f[k][n].shape[1:3])

    p, q = (np.asarray(f[k]["block2_conv1"]) for k in ("painted", "content"))
    expected = [
        2 * np.sum((p - q) ** 2) / np.sum(q**2),
        3
        * np.mean(
            [
                np.sum((gram("painted", n) - gram("style", n)) ** 2) / np.sum(gram("style", n) ** 2)
                for n in layers["style_layers"]
            ]
        ),
        0.5 * (np.sum(np.diff(painted[0], axis=0) ** 2) + np.sum(np.diff(painted[0], axis=1) ** 2)),
    ]
    np.testing.assert_allclose(got[0], expected, rtol=2e-4)
    assert got[1, 0] == 0


NET = {
    "size": 64,
    "batch-size": 2,
    "width": 4,
    "blocks": 1,
    "precision": "float32",
    "weights": "random",
    "model": "vgg11",
    "style-layers": "block1_conv1,block2_conv1",
    "content-layers": "block2_conv1",
}
SMALL = [str(x) for option, value in NET.items() for x in (f"--{option}", value)]


def run(*args, code=0):
    result = CliRunner().invoke(group, list(args))
    if isinstance(result.exception, KzooError):
        return result.exception
    assert result.exit_code == code, result.output
    return result


def test_crops_depend_on_the_seed_and_the_number_of_the_picture_only():
    x = np.arange(4 * 8 * 8 * 3, dtype="uint8").reshape(4, 8, 8, 3)

    def cut(seed, i, x):
        return stylenet.random_crops(4, seed)(i, (x, 0))[0].numpy()

    whole = cut((1, 10), 0, x)
    np.testing.assert_array_equal(whole[2:], cut((1, 10), 1, x[2:]), "the second batch of two")
    np.testing.assert_array_equal(whole[1:], cut((1, 11), 0, x[1:]), "resumed after one more")
    assert (whole != cut((2, 10), 0, x)).any()
    for piece, picture in zip(whole, x, strict=True):
        assert any((picture[i : i + 4, j : j + 4] == piece).all() for i in range(5) for j in range(5))


def test_train_interrupt_resume_apply_export(tmp_path, photos, monkeypatch):
    style, whole, cut = picture(tmp_path / "style.png", seed=9), str(tmp_path / "whole"), str(tmp_path / "cut")
    monkeypatch.setattr(stylenet, "STEPS_PER_CHECKPOINT", 2)
    train = ["stylenet", "train", style, "--images", photos, "--steps", "6", *SMALL, "--out"]
    run(*train, whole)
    assert {"config.json", "model.keras", "history.csv", "example.png"} <= {
        p.name for p in (tmp_path / "whole").iterdir()
    }
    rows = (tmp_path / "whole" / "history.csv").read_text().splitlines()
    assert [r.split(",")[0] for r in rows] == ["step", "2", "4", "6"]
    assert "is not empty" in str(run(*train, whole))
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    given = {"size": 64, "batch_size": 2, "width": 4, "blocks": 1, "steps": 6, "precision": "float32", "model": "vgg11"}
    given |= {"weights": "random", "content_layers": ["block2_conv1"], "style_layers": ["block1_conv1", "block2_conv1"]}
    chosen = {"style_size": 72}
    assert {f.name: config[f.name] for f in fields(StylenetOptions)} == asdict(StylenetOptions()) | given | chosen

    real, calls = stylenet.runs.save_checkpoint, []

    def killed(*args):
        real(*args)
        calls.append(args)
        raise MemoryError("killed")

    monkeypatch.setattr(stylenet.runs, "save_checkpoint", killed)
    assert isinstance(CliRunner().invoke(group, [*train, cut]).exception, MemoryError)
    monkeypatch.setattr(stylenet.runs, "save_checkpoint", real)
    run(*train, cut, "--resume")
    a, b = (stylenet.load_stylenet(p) for p in (whole, cut))
    for v, w in zip(a.weights, b.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(v), np.asarray(w))
    other = run(*train, cut, "--resume", "--seed", "1")
    assert isinstance(other, RunError) and "seed" in str(other)

    odd = picture(tmp_path / "odd.png", (65, 51), seed=5)
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    broken = run("stylenet", "apply", whole, odd, str(tmp_path / "bad.jpg"), "--out", str(tmp_path / "painted"))
    assert isinstance(broken, DataError) and str(broken) == "1 of 2 pictures could not be painted."
    painted = pictures.read_picture(tmp_path / "painted" / "odd.png")
    assert painted.shape == (65, 51, 3) and painted.std() > 0
    run("stylenet", "export", whole, "--out", str(tmp_path / "saved"))
    assert "exists" in str(run("stylenet", "export", whole, "--out", str(tmp_path / "saved")))
    import tensorflow as tf

    served = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    again = served(images=tf.constant(pictures.read_picture(odd)[None]))["painted"].numpy()[0]
    assert np.abs(again.astype(int) - painted).max() <= 1


def test_an_export_replaces_no_other_folder(tmp_path):
    net = tmp_path / "net"
    net.mkdir()
    runs.save_model(stylenet.build_stylenet(width=4, blocks=1), net / "model.keras")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(KzooError, match="is not a SavedModel"):
        export_stylenet(net, tmp_path / "mine", force=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
    x = keras.Input((4,))
    runs.save_model(keras.Model(x, keras.layers.Dense(2)(x), name="other"), net / "model.keras")
    with pytest.raises(RunError, match="not a stylenet"):
        stylenet.load_stylenet(net)


def test_bad_input_is_one_line(tmp_path, photos):
    style = picture(tmp_path / "style.png")
    (tmp_path / "empty").mkdir()
    for args, text in (
        ((style, "--images", str(tmp_path / "nowhere")), "There is no folder"),
        ((style, "--images", str(tmp_path / "empty")), "holds no JPEG, PNG"),
        ((str(tmp_path / "none.jpg"), "--images", photos), "none.jpg"),
        ((style, "--images", photos, "--size", "66"), "multiple of 4"),
        ((style, "--images", photos, "--model", "vgg99"), "Unknown model 'vgg99'"),
    ):
        error = run("stylenet", "train", *args, "--out", str(tmp_path / "out"))
        assert isinstance(error, KzooError) and text in str(error), error
    assert not (tmp_path / "out").exists()
    assert "There is no" in str(run("stylenet", "apply", str(tmp_path / "empty"), style))
