"""Stylenets: the network, its objective, training that resumes, painting, export."""

import json
import zipfile
from dataclasses import asdict, fields
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import kzoo
from kzoo import runs
from kzoo.cli import group
from kzoo.errors import DataError, KzooError, RunError, UnknownName
from kzoo.exporting.stylenet import export_stylenet
from kzoo.files import sha256
from kzoo.models.stylenet import ConditionalInstanceNorm, Grain, ReflectionPadding2D
from kzoo.style import painter, strips, stylenet
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
    (folder / "empty.jpg").write_bytes(b"")
    return str(folder.parent)


def test_the_network_is_the_papers():
    """Supplement, table 1: sizes by hand for a picture of 256 x 256."""
    model = stylenet.build_stylenet()
    probe = keras.Model(
        model.inputs, [model.get_layer(n).output for n in ("conv1", "conv2", "conv3", "block5_add", "conv5")]
    )
    shapes = [tuple(s) for s in probe.compute_output_shape([(1, 256, 256, 3), (1, 1)])]
    assert shapes == [(1, 256, 256, 32), (1, 128, 128, 64), (1, 64, 64, 128), (1, 64, 64, 128), (1, 256, 256, 32)]
    assert sum(layer.name.startswith("block") and layer.name.endswith("_add") for layer in model.layers) == 5
    # Kernels and biases of convolutions, by hand, and two numbers a channel and style for each instance norm.
    convolutions = 9 * 9 * 3 * 32 + 32 + 9 * 32 * 64 + 64 + 9 * 64 * 128 + 128 + 10 * (9 * 128 * 128 + 128)
    convolutions += 9 * 128 * 64 + 64 + 9 * 64 * 32 + 32 + 9 * 9 * 32 * 3 + 3
    norms = 2 * (32 + 64 + 128 + 10 * 128 + 64 + 32)
    assert model.count_params() == convolutions + norms


def test_reflection_padding_and_conditional_instance_norm_are_numpys():
    x = RNG.normal(size=(2, 6, 5, 3)).astype("float32")
    y = np.asarray(ReflectionPadding2D(2)(x))
    np.testing.assert_array_equal(y, np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect"))
    norm, which = ConditionalInstanceNorm(2), np.array([[1, 0], [0.25, 0.75]], "float32")
    norm.build([x.shape, which.shape])
    gamma, beta = RNG.normal(size=(2, 2, 3))
    norm.set_weights([gamma, beta])
    plain = (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-5)
    expected = [plain[0] * gamma[0] + beta[0], plain[1] * (which[1] @ gamma) + which[1] @ beta]
    np.testing.assert_allclose(np.asarray(norm([x, which])), expected, rtol=1e-4, atol=1e-5)
    assert norm.get_config()["styles"] == 2 and norm.compute_output_shape([x.shape, which.shape]) == x.shape


def test_grain_depends_on_the_place_only():
    """Tiles of a seed, repeated: by NumPy. A picture of one colour has a variance for the norms."""
    layer = Grain(20.0)
    noise = np.asarray(layer(np.zeros((1, 200, 180, 3), "float32")))[0]
    rng, expected = np.random.RandomState(0), 0
    for sides in ((89, 97), (101, 83)):
        tile = rng.normal(0, 20 / 2**0.5, (*sides, 3))
        expected = expected + np.tile(tile, (3, 3, 1))[:200, :180]
    np.testing.assert_allclose(noise, expected, atol=1e-4)
    assert 19 < noise.std() < 21
    assert np.abs(np.corrcoef(noise[:89, :97].ravel(), noise[89:178, :97].ravel())[0, 1]) < 0.6, "half of it repeats"
    x = RNG.uniform(0, 255, (2, 12, 8, 3)).astype("float32")
    np.testing.assert_allclose(np.asarray(layer(x)) - x, np.broadcast_to(noise[:12, :8], x.shape), atol=1e-4)
    assert Grain.from_config(layer.get_config()).strength == 20


def test_the_objective_is_that_of_style_transfer():
    first, second, painted, content = RNG.uniform(0, 255, (4, 1, 40, 48, 3)).astype("float32")
    painted = painted * 1.2 - 20
    layers = dict(content_layers=("block2_conv1",), style_layers=("block1_conv1", "block2_conv1"))
    net, _ = style_network("vgg11", "random", picture=first[0], **layers)
    weights = {"content_weight": 2.0, "style_weight": 3.0, "tv_weight": 0.5, "range_weight": 0.25}
    terms = stylenet.PerceptualLoss(net, [first[0], second[0]], **weights)
    which = np.array([[0, 1], [1, 0]], "float32")
    got = np.asarray(terms([np.concatenate([painted, content]), np.concatenate([content, content]), which]))
    f = {k: net.named(net.model(x)) for k, x in (("style", second), ("painted", painted), ("content", content))}

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
        0.25 * (np.sum(np.maximum(painted - 255, 0) ** 2) + np.sum(np.minimum(painted, 0) ** 2)),
    ]
    np.testing.assert_allclose(got[0], expected, rtol=2e-4)
    assert got[1, 0] == got[1, 3] == 0


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
        (crops, which), _ = stylenet.random_crops(4, 3, seed)(i, (x, 0))
        return crops.numpy(), which.numpy().argmax(1)

    whole, styles = cut((1, 10), 0, x)
    np.testing.assert_array_equal(styles, [1, 2, 0, 1], "they take turns, from picture to picture")
    for other, name in ((cut((1, 10), 1, x[2:]), "the second batch of two"), (cut((1, 12), 0, x[2:]), "resumed")):
        np.testing.assert_array_equal(whole[2:], other[0], name)
        np.testing.assert_array_equal(styles[2:], other[1], name)
    assert (whole != cut((2, 10), 0, x)[0]).any()
    for piece, picture in zip(whole, x, strict=True):
        places = [q[i : i + 4, j : j + 4] for q in (picture, picture[:, ::-1]) for i in range(5) for j in range(5)]
        assert any((piece == q).all() for q in places)


@pytest.fixture(scope="module")
def scrambled():
    """A small stylenet of two styles, all of whose weights matter."""
    model = stylenet.build_stylenet(styles=2, width=4, blocks=1)
    rng = np.random.default_rng(3)
    for v in model.weights:
        v.assign(np.asarray(v) + rng.normal(0, 0.1, v.shape))
    return painter.Stylenet(model, ("a", "b"))


def test_strips_give_what_one_piece_gives(scrambled):
    """The statistics are those of the whole picture: 64 x 52 pixels in strips of 4, 20 and 64 rows."""
    x, w = RNG.uniform(0, 255, (64, 52, 3)).astype("float32"), np.array([0.3, 0.7], "float32")
    whole = np.asarray(scrambled.model([x[None], w[None]], training=False))[0]
    assert whole.std() > 20
    for rows in (4, 20, 64):
        pieces = strips.paint_in_strips(scrambled.model, x, w, rows)
        np.testing.assert_allclose(pieces, whole, atol=255e-4, err_msg=str(rows))


@pytest.mark.parametrize("size", [1e308, 1e-320])
def test_weights_of_any_size_are_a_mix(scrambled, size):
    assert scrambled.weights({"a": size, "b": size}).tolist() == [0.5, 0.5]


def test_a_stylenet_that_is_not_there():
    with pytest.raises(UnknownName, match=r"Unknown stylenet 'no/mosaics'.* strokes, mosaic, ink"):
        painter.load_stylenet("no/mosaics")


def test_styles_are_chosen_and_mixed(scrambled, tmp_path):
    x = RNG.integers(0, 256, (40, 36, 3)).astype("uint8")
    a, b, mixed = (painter.paint(scrambled, x, mix).astype(int) for mix in ({"a": 2}, {"b": 1}, {"a": 0.9, "b": 0.1}))
    assert np.abs(mixed - a).mean() < np.abs(mixed - b).mean() and np.abs(a - b).mean() > 2
    for mix, text in (
        (None, "has the styles a, b: choose"),
        ({"c": 1.0}, "Unknown style 'c'"),
        ({"a": -1.0, "b": 2.0}, "must be 0 or above"),
        ({"a": float("nan")}, "must be 0 or above"),
        ({}, "must be 0 or above"),
        ({"a": float("inf"), "b": 1.0}, "must be 0 or above"),
        ("a", "A mix of styles is a dict of numbers"),
        ({"a": "x"}, "A mix of styles is a dict of numbers"),
    ):
        with pytest.raises(KzooError, match=text):
            scrambled.weights(mix)
    assert scrambled.weights({"a": np.float32(3), "b": np.int64(1)}).tolist() == [0.75, 0.25]
    y = painter.coloured(a.astype("uint8"), x, "luminance")
    chroma = [(p[..., 0].astype(float) - p[..., 2]).ravel() for p in (x, y, a)]
    assert np.corrcoef(chroma[0], chroma[1])[0, 1] > 0.9 > np.corrcoef(chroma[0], chroma[2])[0, 1]
    z = painter.coloured(a.astype("uint8"), x, "histogram")
    assert np.abs(z.mean((0, 1)) - x.mean((0, 1))).max() < 8


def test_no_other_picture_is_overwritten_and_none_is_lost(tmp_path, monkeypatch, capsys):
    def paint(net, x, mix, rows):
        if len(x) == 34:
            raise MemoryError("Unable to allocate")
        return 255 - x

    monkeypatch.setattr(painter, "load_stylenet", lambda net: painter.Stylenet(None, ("a",)))
    monkeypatch.setattr(painter, "_rows", lambda *_: None)
    monkeypatch.setattr(painter, "paint", paint)
    here = tmp_path / "here"
    here.mkdir()
    mine, other, theirs = (
        picture(here / name, seed=i) for i, name in enumerate(("mine.png", "other.jpg", "other.png"))
    )
    before = {p.name: p.read_bytes() for p in here.iterdir()}
    with pytest.raises(KzooError, match=r"other.png exists: --force"):
        painter.apply_stylenet("net", [mine, other], out=here)
    assert {p.name: p.read_bytes() for p in here.iterdir()} == before
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.png").symlink_to(theirs)  # which is painted later
    with pytest.raises(DataError, match="1 of 2") as e:
        painter.apply_stylenet("net", [mine, theirs], out=out, force=True)
    assert e.value.results == [out / "other.png"] and Path(theirs).read_bytes() == before["other.png"]
    (here / "empty.jpg").write_bytes(b"")
    picture(here / "large.png", (34, 40))
    (here / "other.jpg").unlink()
    with pytest.raises(DataError, match="2 of 4"):
        painter.apply_stylenet("net", str(here), out=tmp_path / "all")
    said = capsys.readouterr().err
    assert (
        "empty.jpg" in said and "large.png needs more memory than there is (Unable to allocate): give a --size" in said
    )
    assert sorted(p.name for p in (tmp_path / "all").iterdir()) == ["mine.png", "other.png"]
    with pytest.raises(KzooError, match="images are paths of pictures and folders, got ndarray"):
        painter.apply_stylenet("net", [np.zeros((40, 40, 3), "uint8")])


def test_train_interrupt_resume_apply_export(tmp_path, photos, monkeypatch, scrambled):
    paths = [picture(tmp_path / f"{name}.png", seed=9 + i) for i, name in enumerate(("sea", "sand"))]
    whole, cut = str(tmp_path / "whole"), str(tmp_path / "cut")
    monkeypatch.setattr(stylenet, "STEPS_PER_CHECKPOINT", 2)
    monkeypatch.setattr(stylenet, "HELD_OUT", 3)
    train = ["stylenet", "train", *paths, "--images", photos, "--steps", "6", *SMALL, "--out"]
    said = run(*train, whole).stderr
    assert "Left out 1 unusable file: more/empty.jpg is empty" in said
    assert "(1 are held out) for the styles sea, sand" in said and "sand, on 1 held-out pictures: loss " in said
    assert {"config.json", "model.keras", "history.csv", "example.png", "metrics.json"} <= {
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
    a, b = (painter.load_stylenet(p) for p in (whole, cut))
    for v, w in zip(a.model.weights, b.model.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(v), np.asarray(w))
    assert a.styles == ("sea", "sand")
    network, measured = stylenet.objective_of(a, config)
    recorded = json.loads((tmp_path / "whole" / "metrics.json").read_text())["styles"]
    assert network.style == ("block1_conv1", "block2_conv1") and measured == recorded
    assert recorded["sea"]["loss"] == pytest.approx(recorded["sea"]["content"] + recorded["sea"]["style"], abs=1e-5)
    other = run(*train, cut, "--resume", "--seed", "1")
    assert isinstance(other, RunError) and "seed" in str(other)
    (tmp_path / "cut" / "config.json").write_text(json.dumps({**config, "kzoo_stylenet": None}))
    assert "of another version of kzoo" in str(run(*train, cut, "--resume"))

    runs.save_model(scrambled.model, tmp_path / "whole" / "model.keras")  # whose styles differ, unlike after six steps
    odd = picture(tmp_path / "odd.png", (65, 51), seed=5)
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    apply = ["stylenet", "apply", whole, odd]
    assert "choose one by --style" in str(run(*apply)) and not (tmp_path / "whole-painted").exists()
    assert "not both" in str(run(*apply, "--style", "sea", "--blend", "sea=1"))
    assert "expected weights such as" in run(*apply, "--blend", "sea", code=2).output
    broken = run(*apply, str(tmp_path / "bad.jpg"), "--style", "sand", "--out", str(tmp_path / "painted"))
    assert isinstance(broken, DataError) and str(broken) == "1 of 2 pictures could not be painted."
    painted = pictures.read_picture(tmp_path / "painted" / "odd.png")
    assert painted.shape == (65, 51, 3) and painted.std() > 0
    run(*apply, "--style", "sand", "--tile", "32", "--out", str(tmp_path / "strips"))
    assert np.abs(pictures.read_picture(tmp_path / "strips" / "odd.png").astype(int) - painted).max() <= 1
    monkeypatch.setattr(painter, "available_memory", lambda: 65 * 51 * 4 * 20)
    run(*apply, "--style", "sand", "--force", "--out", str(tmp_path / "strips"))
    assert np.abs(pictures.read_picture(tmp_path / "strips" / "odd.png").astype(int) - painted).max() <= 1
    monkeypatch.setattr(painter, "available_memory", lambda: None)
    monkeypatch.setattr(painter, "LARGE", 65 * 51 - 1)
    monkeypatch.setattr(painter, "ROWS", 4)
    run(*apply, "--style", "sand", "--force", "--out", str(tmp_path / "strips"))
    assert np.abs(pictures.read_picture(tmp_path / "strips" / "odd.png").astype(int) - painted).max() <= 1
    monkeypatch.setattr(painter, "available_memory", lambda: 65 * 51 * 4)
    assert isinstance(run(*apply, "--style", "sand", "--out", str(tmp_path / "none")), DataError)
    monkeypatch.undo()

    saved = tmp_path / "saved"
    run("stylenet", "export", whole, "--blend", "sea=1,sand=3", "--out", str(saved))
    assert "exists" in str(run("stylenet", "export", whole, "--out", str(saved)))
    import tensorflow as tf

    served = tf.saved_model.load(str(saved)).signatures
    x = tf.constant(pictures.read_picture(odd)[None])
    again = served["blend"](images=x, weights=tf.constant([0.0, 2.0]))["painted"].numpy()[0]
    assert np.abs(again.astype(int) - painted).max() <= 1
    for weights in ([3e38, 3e38], [1e-30, 1e-30]):
        even = served["blend"](images=x, weights=tf.constant(weights))["painted"].numpy()
        assert np.array_equal(even, served["blend"](images=x, weights=tf.constant([1.0, 1.0]))["painted"].numpy())
    for weights in ([0.0, 0.0], [-1.0, 2.0], [np.nan, 1.0], [np.inf, 1.0]):
        with pytest.raises(tf.errors.InvalidArgumentError, match="must be 0 or above, and not all 0; got"):
            served["blend"](images=x, weights=tf.constant(weights))
    mixed = painter.paint(painter.load_stylenet(whole), x.numpy()[0], {"sea": 0.25, "sand": 0.75})
    assert np.abs(served["serving_default"](images=x)["painted"].numpy()[0].astype(int) - mixed).max() <= 1
    verified = run("verify", str(saved)).output
    assert verified.count("ok ") == 5 and "painted, sand: differs by" in verified
    assert "is the export of a stylenet" in str(run("predict", str(saved), odd))
    golden = dict(np.load(saved / "golden.npz"))
    np.savez(saved / "golden.npz", **{**golden, "painted0_0": 255 - golden["painted0_0"]})
    assert "golden.npz has changed" in run("verify", str(saved), code=1).output
    card = json.loads((saved / "card.json").read_text())
    card["files"]["golden.npz"]["sha256"] = sha256(saved / "golden.npz")
    (saved / "card.json").write_text(json.dumps(card))
    assert "FAILED  painted, serving_default: differs by" in run("verify", str(saved), code=1).output
    mixed = {name: 0.5 for name in card["styles"]}
    (saved / "card.json").write_text(json.dumps({**card, "paints": mixed}))
    assert "FAILED  card" in run("verify", str(saved), code=1).output
    (saved / "card.json").write_text(json.dumps({**card, "styles": []}))
    with pytest.raises(KzooError, match="is corrupt"):
        kzoo.verify(saved)
    (saved / "card.json").write_text(json.dumps({**card, "files": 3}))
    with pytest.raises(KzooError, match="can't be read as the card of a stylenet"):
        kzoo.verify(saved)


def test_a_stylenet_of_0_1_0_paints_what_it_painted(tmp_path):
    """Written by 0.1.0: GroupNormalization, a tanh at the end, one input."""
    with zipfile.ZipFile(Path(__file__).parents[1] / "fixtures" / "stylenet-0.1.0.zip") as archive:
        archive.extractall(tmp_path)
    net, known = painter.load_stylenet(tmp_path), np.load(tmp_path / "answers.npz")
    assert net.styles == ("waves",)
    for rows in (None, 12):
        found = painter.paint(net, known["picture"], rows=rows).astype(int)
        assert np.abs(found - known["painted"]).max() <= 1
    (tmp_path / "config.json").unlink()
    assert painter.load_stylenet(tmp_path).styles == (tmp_path.name,)
    export = export_stylenet(tmp_path, tmp_path / "saved")
    assert kzoo.verify(export)["ok"]


def test_an_export_replaces_no_other_folder(tmp_path, scrambled):
    net = tmp_path / "net"
    net.mkdir()
    runs.save_model(scrambled.model, net / "model.keras")
    with pytest.raises(RunError, match="does not name the 2 styles"):
        painter.load_stylenet(net)
    runs.write_json(net / "config.json", {"styles": ["a", "b"]})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(KzooError, match="is not a SavedModel"):
        export_stylenet(net, tmp_path / "mine", force=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
    x = keras.Input((4,))
    runs.save_model(keras.Model(x, keras.layers.Dense(2)(x), name="other"), net / "model.keras")
    with pytest.raises(RunError, match="not a stylenet"):
        painter.load_stylenet(net)


def test_bad_input_is_one_line(tmp_path, photos):
    style = picture(tmp_path / "style.png")
    (tmp_path / "empty").mkdir()
    for args, text in (
        ((style, "--images", str(tmp_path / "nowhere")), "There is no folder"),
        ((style, "--images", str(tmp_path / "empty")), "holds no JPEG, PNG"),
        ((str(tmp_path / "none.jpg"), "--images", photos), "none.jpg"),
        ((style, "--images", photos, "--size", "66"), "multiple of 4"),
        ((style, style, "--images", photos), "Two styles would both be called 'style'"),
        ((style, "--images", photos, "--range-weight", "-1"), "range_weight must be"),
        ((style, "--images", photos, "--style-weight", "1e300"), "style_weight must be at most 1e+15"),
        ((style, "--images", photos, "--model", "vgg99"), "Unknown model 'vgg99'"),
    ):
        error = run("stylenet", "train", *args, "--out", str(tmp_path / "out"))
        assert isinstance(error, KzooError) and text in str(error), error
    assert not (tmp_path / "out").exists()
    assert "There is no" in str(run("stylenet", "apply", str(tmp_path / "empty"), style))
    (tmp_path / "stopped").mkdir()
    (tmp_path / "stopped" / "config.json").write_text("{}")
    assert "its training is not finished" in str(run("stylenet", "apply", str(tmp_path / "stopped"), style))
