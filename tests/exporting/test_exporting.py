"""Exports: the graph computes what training does; the folder proves itself or does not appear."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import kzoo
from kzoo.data import images
from kzoo.errors import ExportError
from kzoo.exporting import check, golden, graph, source, write
from kzoo.exporting.reader import Export

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(0)
PREP = kzoo.Preprocessing(crop=0.875, scale=1 / 64, offset=-1.0)
SHAPE = (40, 32, 3)
CLASSES = ("ant", "bee", "käfer", "d")


def encoded(size=(61, 47), format="JPEG", mode="RGB", **options):
    buffer = io.BytesIO()
    pixels = Image.fromarray(RNG.integers(0, 256, (9, 11, 3)).astype("uint8")).resize(size, Image.Resampling.BICUBIC)
    pixels.convert(mode).save(buffer, format, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def model():
    """A small network with batch norm, dropout, random statistics."""
    network = kzoo.build(
        "resnet20", depth=8, num_classes=4, input_shape=SHAPE, preprocessing=PREP, precision="float32", seed=0
    )
    for v in network.weights:
        if v.name in ("gamma", "moving_variance"):
            v.assign(RNG.uniform(0.5, 1.5, v.shape))
        elif v.name in ("beta", "moving_mean", "bias"):
            v.assign(RNG.normal(0, 0.3, v.shape))
    return network


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """(folder, card) of an export in every format that is installed."""
    out = tmp_path_factory.mktemp("exports") / "small"
    want = source.Source("small", model, CLASSES, PREP)
    found = pytest.MonkeyPatch()
    found.setattr(write, "find", lambda *args, **kwargs: want)
    try:
        kzoo.export(model, ("saved_model", "keras", "onnx", "litert"), out, quiet=True)
    finally:
        found.undo()
    return out, json.loads((out / "card.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def serve(exported):
    """The signatures of the SavedModel."""
    return tf.saved_model.load(str(exported[0])).signatures


def prepare():
    return images.make_preparer(SHAPE, PREP)


# --- what it computes ---

EXIF = Image.Exif()
EXIF[0x0112] = 6
KINDS = {
    "odd": {},
    "tall": {"size": (13, 101)},
    "tiny": {"size": (1, 1), "format": "PNG"},
    "exif": {"exif": EXIF},
    "cmyk": {"mode": "CMYK"},
    "grey": {"mode": "L"},
    "alpha": {"mode": "RGBA", "format": "PNG"},
    "palette": {"mode": "P", "format": "PNG"},
    "16 bit": {"mode": "I;16", "format": "PNG"},
    "gif": {"format": "GIF"},
    "bmp": {"format": "BMP"},
    "webp": {"format": "WEBP"},
}


def test_pixels_and_logits_are_those_of_training_on_odd_sizes_and_kinds(model, serve):
    data = []
    for name, options in KINDS.items():
        if name == "16 bit":
            buffer = io.BytesIO()
            Image.fromarray(RNG.integers(0, 65536, (33, 35)).astype("uint16")).save(buffer, "PNG")
            data.append(buffer.getvalue())
        else:
            data.append(encoded(**options))
    want = np.stack([prepare()(d) for d in data])
    pixels, errors = graph.prepared(tf.constant(data), SHAPE, PREP)
    assert not any(errors.numpy())
    np.testing.assert_array_equal(pixels, want)
    logits = np.asarray(model(want.astype("float32"), training=False))
    out = serve["serving_default"](image=tf.constant(data))
    np.testing.assert_allclose(out["logits"], logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        serve["tensor"](tensor=tf.cast(want, tf.float32))["logits"], logits, rtol=1e-4, atol=1e-4
    )
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(out["probabilities"], -np.sort(-p), rtol=1e-3, atol=1e-5)
    best = [[CLASSES[i].encode() for i in row] for row in np.argsort(-p)]
    assert out["labels"].numpy().tolist() == best
    raw = RNG.integers(0, 256, (2, 51, 77, 3)).astype("uint8")
    fitted = np.asarray(images.fit(raw, 40, 32, PREP)).astype("float32")
    want = np.asarray(model(fitted, training=False))
    np.testing.assert_allclose(serve["images"](image=tf.constant(raw))["logits"], want, rtol=1e-4, atol=1e-4)
    features = keras.Model(model.inputs[0], model.get_layer("predictions").input)(fitted, training=False)
    got = serve["features"](image=tf.constant([png(x) for x in raw]))["features"]
    np.testing.assert_allclose(got, features, rtol=1e-3, atol=1e-3)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_bad_images_in_a_batch_are_marked_and_the_others_answered(serve):
    good = encoded()
    bomb = bytearray(encoded(format="PNG"))
    bomb[16:24] = (50_000).to_bytes(4, "big") * 2
    batch = [good, b"", b"text", good[:300], bytes(bomb), good]
    out = {k: v.numpy() for k, v in serve["serving_default"](image=tf.constant(batch)).items()}
    alone = serve["serving_default"](image=tf.constant([good]))
    assert [e.decode() for e in out["error"]] == [
        "",
        "is empty",
        "is not a JPEG, PNG, GIF, BMP or WebP image",
        "can't be decoded",
        "declares 50000x50000 pixels; at most 100,000,000 are accepted",
        "",
    ]
    for k in ("logits", "labels", "probabilities"):
        for i in (0, 5):
            if k == "labels":
                assert out[k][i].tolist() == alone[k].numpy()[0].tolist()
            else:
                np.testing.assert_allclose(out[k][i], alone[k][0], rtol=1e-5, atol=1e-5)
    assert not out["probabilities"][1:5].any() and set(out["labels"][1:5].ravel()) == {b""}
    with pytest.raises(tf.errors.InvalidArgumentError, match="batch is empty"):
        serve["serving_default"](image=tf.constant([], tf.string))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "BMP"]), st.data())
def test_mutants_are_answered(serve, format, draw):
    data = bytearray(encoded(format=format))
    for _ in range(draw.draw(st.integers(1, 6))):
        data[draw.draw(st.integers(0, min(len(data) - 1, 60)))] = draw.draw(st.integers(0, 255))
    out = serve["serving_default"](image=tf.constant([bytes(data), encoded()]))
    assert out["error"].numpy()[1] == b"" and np.isfinite(out["logits"].numpy()).all()


def test_temperature_and_threshold_are_in_the_answers():
    logits = np.log([[0.5, 0.3, 0.2], [0.98, 0.01, 0.01]]).astype("float32")
    out = graph.answer(tf.constant(logits), "abc", 2, temperature=1.0, threshold=0.75)  # p of at least 0.25
    assert out["set_size"].numpy().tolist() == [2, 1] and out["abstain"].numpy().tolist() == [True, False]
    np.testing.assert_allclose(out["probabilities"], [[0.5, 0.3], [0.98, 0.01]], rtol=1e-5)
    hot = graph.answer(tf.constant(logits), "abc", 1, temperature=2.0)["probabilities"].numpy()
    root = np.sqrt([[0.5, 0.3, 0.2], [0.98, 0.01, 0.01]])
    np.testing.assert_allclose(hot[:, 0], (root / root.sum(1, keepdims=True))[:, 0], rtol=1e-5)


def test_the_conformal_set_covers_what_it_promises():
    p = RNG.dirichlet(np.ones(5) * 0.4, 6000)
    y = (p.cumsum(1) > RNG.uniform(size=(6000, 1))).argmax(1)
    q = write.conformal_threshold(p[:3000], y[:3000], 0.9)["threshold"]
    covered = (p[3000:][np.arange(3000), y[3000:]] >= 1 - q).mean()
    assert 0.88 < covered < 0.92  # three deviations of both halves
    with pytest.raises(ExportError, match="at least 99 validation images; the run has 10"):
        write.conformal_threshold(p[:10], y[:10], 0.99)


# --- the folder ---


def test_the_folder_holds_what_it_says(exported):
    out, card = exported
    assert (out / "labels.txt").read_text("utf-8").splitlines() == list(CLASSES)
    assert card["preprocessing_sha256"] == PREP.fingerprint(SHAPE) and card["classes"] == list(CLASSES)
    text = (out / "card.md").read_text("utf-8")
    for word in ("ant, bee, käfer", "Licences", "limits", "Preprocessing: " + PREP.fingerprint(SHAPE)):
        assert word in text
    data, arrays = golden.load(out / "golden.npz")
    assert len(data) == 8 and arrays["logits"].shape == (8, 4)
    assert not list(out.parent.glob(".tmp*"))
    report = kzoo.verify(out)
    assert report["ok"] and {"files", "pixels", "saved_model", "encoded images", "keras"} <= {
        c["check"] for c in report["checks"]
    }
    for name in set(card["formats"]):
        assert next(c for c in report["checks"] if c["check"] == name)["flips"] == 0


def changed(exported, tmp_path):
    """A copy of the export to damage."""
    import shutil

    shutil.copytree(exported[0], tmp_path / "copy")
    return tmp_path / "copy"


def test_verify_finds_what_was_changed(exported, tmp_path, kzoo_command):
    folder = changed(exported, tmp_path)
    arrays = dict(np.load(folder / "golden.npz"))
    arrays["logits"] = arrays["logits"][:, ::-1]
    with open(folder / "golden.npz", "wb") as f:
        np.savez(f, **arrays)
    report = kzoo.verify(folder, raises=False)
    bad = {c["check"]: c["detail"] for c in report["checks"] if c["ok"] is False}
    assert "golden.npz has changed" in bad["files"] and "changed their top-1" in bad["saved_model"]
    with pytest.raises(ExportError, match="does not compute what it did"):
        kzoo.verify(folder)
    code, out, err = kzoo_command("verify", folder)
    assert code == 1 and "FAILED  files" in out and "Error: " in err

    card = json.loads((folder / "card.json").read_text())
    for key, value, name in (("temperature", 7.0, "probabilities"), ("classes", [*CLASSES[1:], CLASSES[0]], "labels")):
        (folder / "card.json").write_text(json.dumps({**card, key: value}))
        report = kzoo.verify(folder, raises=False)
        assert name in {c["check"] for c in report["checks"] if c["ok"] is False}
    for key, value in (("files", {"saved_model.pb": 1}), ("formats", None), ("classes", "ab"), ("temperature", 0)):
        (folder / "card.json").write_text(json.dumps({**card, key: value}))
        code, _, err = kzoo_command("verify", folder)
        assert code == 1 and f"{key} can't be read" in err


@pytest.mark.parametrize("fault", ["crop", "graph", "card", "none"])
def test_a_changed_export_is_not_loaded(exported, tmp_path, kzoo_command, fault):
    folder = changed(exported, tmp_path)
    card = json.loads((folder / "card.json").read_text())
    if fault == "crop":
        card["preprocessing"]["crop"] = 1.0
        (folder / "card.json").write_text(json.dumps(card))
        want = "not that of its fingerprint"
    elif fault == "graph":
        data = bytearray((folder / "saved_model.pb").read_bytes())
        data[len(data) // 2] ^= 1
        (folder / "saved_model.pb").write_bytes(data)
        want = "is damaged"
    elif fault == "card":
        (folder / "card.json").write_text("{")
        want = "config.json"  # it is no export, so a run is looked for
    else:
        folder, want = tmp_path / "nothing", "no run"
    code, _, err = kzoo_command("predict", folder, ROOT / "README.md")
    assert code == 1 and want in err and err.count("\n") == 1
    code, _, err = kzoo_command("verify", folder)
    assert code == 1 and "Traceback" not in err


@pytest.mark.parametrize(
    ("spying", "op"),
    [
        (lambda x: tf.io.read_file(x), "ReadFile"),
        # TensorFlow writes every SavedModel's saver with this one: nothing else may call it.
        (
            lambda x: tf.raw_ops.RestoreV2(prefix=x, tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32])[0],
            "RestoreV2",
        ),
        (lambda x: tf.raw_ops.MatchingFilesDataset(patterns=x), "MatchingFilesDataset"),
        (lambda x: tf.cond(x == "", lambda: x, lambda: tf.io.read_file(x)), "ReadFile"),
        (lambda x: tf.raw_ops.DatasetFromGraph(graph_def=x), "DatasetFromGraph"),
    ],
)
def test_a_graph_that_reads_files_is_refused(tmp_path, spying, op):
    from kzoo.exporting.reader import load_saved_model

    spy = tf.Module()
    spy.f = tf.function(spying, input_signature=[tf.TensorSpec((), tf.string)])
    tf.saved_model.save(spy, str(tmp_path))
    with pytest.raises(ExportError, match=f"its graph would {op}"):
        load_saved_model(tmp_path)


def test_the_features_are_those_below_the_classifier(tmp_path):
    """LeNet-5's classifier has codes and no kernel; the paper's F6 has 84 values."""
    assert graph.penultimate(kzoo.build("lenet5")).shape == (None, 84)
    assert graph.penultimate(kzoo.build("squeezenet1_1", input_shape=(64, 64, 3))).shape == (None, 512)
    x = keras.Input((4, 4, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(x)
    logits = keras.layers.Activation("linear", name="predictions")(keras.layers.Dense(5)(pooled))
    assert graph.penultimate(keras.Model(x, logits)).shape == (None, 3), "as Keras' MobileNets end"
    assert graph.penultimate(keras.Model(x, keras.layers.GlobalAveragePooling2D()(x))).shape == (None, 3)


def test_a_classifier_of_other_classes_is_not_exported_as_one_of_imagenet(tmp_path):
    own = kzoo.build("mnist_softmax", num_classes=4, seed=1)
    own.save_weights(tmp_path / "own.weights.h5")
    with pytest.raises(kzoo.KzooError, match=r"wrong shape: predictions/kernel has \(784, 4\)"):
        kzoo.export("mnist_softmax", weights=tmp_path / "own.weights.h5", out=tmp_path / "x", quiet=True)
    assert not (tmp_path / "x").exists()
    from kzoo.exporting.source import find

    source = find("mnist_softmax", weights=tmp_path / "own.weights.h5", classes=list("abcd"))
    assert source.classes == tuple("abcd") and "published" not in source.facts
    np.testing.assert_array_equal(source.model.get_layer("predictions").kernel, own.get_layer("predictions").kernel)


def test_an_export_is_not_overwritten_unless_forced(exported, model, tmp_path, monkeypatch):
    out = changed(exported, tmp_path)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}

    def same():
        return {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before

    with pytest.raises(ExportError, match="exists: --force"):
        kzoo.export(model, out=out, quiet=True)
    assert same()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "novel.txt").write_text("years of work")
    with pytest.raises(ExportError, match="no kzoo export, so it is not replaced"):
        kzoo.export(model, out=tmp_path / "mine", force=True, quiet=True)
    # A wrong graph: the check in a fresh process finds it, and the old export stays.
    real = graph.network

    def wrong(network, precision):
        _, form = real(network, precision)
        form.get_layer("predictions").bias.assign([50.0, 0, 0, 0])
        return real(form, precision)

    monkeypatch.setattr(graph, "network", wrong)
    with pytest.raises(ExportError, match="check in a fresh process failed"):
        kzoo.export(model, out=out, force=True, quiet=True)
    assert same() and not list(tmp_path.glob(".tmp*"))


def test_a_full_disk_leaves_the_old_export(exported, model, tmp_path, monkeypatch):
    out = changed(exported, tmp_path)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(kzoo.KzooError, match="unchanged"):
            kzoo.export(model, out=out, force=True, quiet=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    assert not list(tmp_path.glob(".tmp*"))


def test_a_kill_leaves_the_old_folder_or_the_new_one(tmp_path):
    from kzoo.files import write_folder

    out = tmp_path / "export"
    with write_folder(out) as folder:
        (folder / "a").write_text("1")
    code = (
        "from kzoo.files import write_folder\nimport itertools\n"
        "for n in itertools.count(2):\n"
        f"    with write_folder({str(out)!r}, replace=lambda: None) as f: [(f / x).write_text(str(n)) for x in 'ab']\n"
    )
    for _ in range(8):
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
        time.sleep(0.25 + RNG.uniform(0, 0.1))
        process.kill()
        process.wait()
        found = {p.name: p.read_text() for p in out.iterdir()}
        assert found.get("a") and found.get("b", found["a"]) == found["a"]
    with pytest.raises(kzoo.KzooError, match="exists"), write_folder(out):
        pass


# --- using it ---


def test_predict_on_an_export_many_files_and_bad_ones(exported, tmp_path, kzoo_command):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(70):
        (folder / f"{i:03}.jpg").write_bytes(encoded() if i % 10 else b"broken")
    found = list(kzoo.predict(exported[0], folder, top=2))
    assert len(found) == 70 and [("error" in r) for r in found] == [i % 10 == 0 for i in range(70)]
    alone = next(iter(kzoo.predict(Export(exported[0]), folder / "001.jpg", top=2)))
    assert found[1]["top"][0]["class"] == alone["top"][0]["class"]
    np.testing.assert_allclose(found[1]["top"][0]["probability"], alone["top"][0]["probability"], rtol=1e-4)
    code, out, err = kzoo_command("predict", exported[0], folder, "--csv", "--top", "2")
    lines = out.splitlines()
    assert (
        code == 1 and lines[0] == "image,error,class_1,probability_1,class_2,probability_2,abstain" and len(lines) == 71
    )
    assert "7 of 70 images could not be read" in err
    code, out, _ = kzoo_command("predict", exported[0], folder, "--json")
    assert [r["image"] for r in json.loads(out)] == [r["image"] for r in found]


def test_a_changed_preprocessing_in_a_run_is_found(tmp_path):
    run = kzoo.train("mnist_softmax", "digits", epochs=1, out=tmp_path / "run", quiet=True)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["preprocessing_sha256"] == run.preprocessing.fingerprint(run.input_shape)
    for key, value in (("scale", 1.0), ("crop", 0.5), ("interpolation", "bicubic"), ("scale", "big")):
        changed = {**config, "preprocessing": {**config["preprocessing"], key: value}}
        (tmp_path / "run" / "config.json").write_text(json.dumps(changed))
        with pytest.raises(kzoo.KzooError, match="preprocessing"):
            kzoo.load_run(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    out = kzoo.export(run, out=tmp_path / "out", abstain=0.9, measure=100, quiet=True)
    card = json.loads((out / "card.json").read_text())
    assert card["measured"]["formats"]["saved_model"]["agree"] == 1.0 and card["measured"]["part"] == "test"
    assert card["conformal"]["images"] == 180 and card["training"]["recipe"]["name"]
    low, high = card["measured"]["original"]["top1_interval"]
    assert low < card["measured"]["original"]["top1"] < high
    out = Export(out).run([encoded((8, 8), "PNG", "L")])
    assert out["abstain"].shape == (1,)


def test_loading_needs_tensorflow_alone(exported, tmp_path):
    (tmp_path / "x.jpg").write_bytes(encoded())
    code = (
        "import sys\nfor m in ('kzoo', 'keras', 'PIL', 'sklearn'): sys.modules[m] = None\n"
        "import tensorflow as tf\n"
        f"model = tf.saved_model.load({str(exported[0])!r})\n"
        "data = open('x.jpg', 'rb').read()\n"
        "out = model.signatures['serving_default'](image=tf.constant([data]))\n"
        "print(out['labels'][0, 0].numpy().decode(), out['error'][0].numpy())\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": "", "PYTHONIOENCODING": "utf-8", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert out.returncode == 0, out.stderr[-500:]
    assert out.stdout.split()[0] in CLASSES and out.stdout.strip().endswith("b''")


def test_what_can_not_be_exported_is_named(tmp_path, kzoo_command):
    for args, want in (
        (("export", "mnist_softmax"), "No weights are published for mnist_softmax"),
        (("export", "runs/none"), "There is no run"),
        (("export", "resnet5"), "Did you mean 'resnet"),
        (("export", "mnist_softmax", "--format", "onyx"), "Did you mean 'onnx'"),
    ):
        code, _, err = kzoo_command(*args)
        assert code == 1 and want in err and err.count("\n") == 1
    model = kzoo.build("mnist_softmax", seed=0)
    with pytest.raises(ExportError, match="between 0 and 1"):
        kzoo.export(model, abstain=2, out=tmp_path / "x")
    with pytest.raises(ExportError, match="needs a run with a validation part"):
        kzoo.export(model, abstain=0.9, out=tmp_path / "x", quiet=True)
    ends = keras.Model(model.inputs[0], keras.layers.Softmax()(model.output))
    with pytest.raises(ExportError, match="ends in probabilities"):
        kzoo.export(ends, out=tmp_path / "x", quiet=True)
    model.get_layer("predictions").bias.assign(np.full(10, np.nan))
    with pytest.raises(ExportError, match="NaN"):
        kzoo.export(model, out=tmp_path / "x", quiet=True)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_leaves_out_its_format(model, monkeypatch, capsys):
    from kzoo.exporting import formats

    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    assert write._chosen(("saved_model", "onnx")) == ["saved_model"]
    assert "pip install 'kzoo[onnx]'" in capsys.readouterr().err
    with pytest.raises(ExportError, match="litert needs ai_edge_litert"):
        write._chosen(("litert",))


def test_a_check_can_fail():
    z = np.array([[3.0, 1.0], [0.0, 2.0]])
    assert check.compare("x", z + 0.001, z, 0.01)["ok"]
    assert not check.compare("x", z + 0.1, z, 0.01)["ok"]
    assert not check.compare("x", z[:, ::-1], z, 10.0)["ok"]
    assert not check.compare("x", z * np.nan, z, 10.0)["ok"]
