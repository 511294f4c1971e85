"""Formats: which can be written here, what each file takes and gives, and that all answer as predict does."""

import contextlib
import io
import json
import re
import zipfile
from collections import Counter

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
import tf2onnx
from ai_edge_litert.interpreter import Interpreter
from support.deep import DEEP
from support.exports import CLASSES, PREP, RNG, SHAPE, changed, encoded
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

import kzoo
from kzoo.data import images
from kzoo.errors import ExportError
from kzoo.exporting import card as cards
from kzoo.exporting import check, formats, litert_file, onnx_file
from kzoo.exporting.pictures import preparation
from kzoo.exporting.write import only_outputs
from kzoo.files import sha256
from kzoo.metrics import sigmoid, softmax
from kzoo.source import Source, find_source, photographs
from kzoo.tasks import find
from kzoo.tasks.multilabel import Multilabel

SIZES = ((47, 33), (32, 40), (301, 225), (1, 1), (20, 500))  # width, height
KINDS = (
    {"mode": "L"},
    {"mode": "CMYK"},
    {"mode": "RGBA", "format": "PNG"},
    {"mode": "P", "format": "PNG"},
    {"format": "GIF"},
)
# How far a probability may be from that of predict; int8 is reported only.
ALLOWED = {"onnx": 1e-3, "litert_float32": 1e-3, "litert_float16": 1e-2, "litert_int8": 1.0}


def decoded(data, preprocessing, channels=3):
    bits = {"bits": preprocessing.bits, "rules": preprocessing.rules}
    return images.decode(tf.constant(data), images.given_channels(channels), **bits).numpy()


def test_a_format_whose_packages_are_missing_is_an_error_before_any_work(model, monkeypatch, tmp_path):
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    assert formats.missing("saved_model") is None
    with pytest.raises(ExportError, match=r"onnx needs tf2onnx, onnx, onnxruntime: pip install 'kzoo\[onnx\]'"):
        kzoo.export(model, ("saved_model", "onnx"), tmp_path / "e", quiet=True)
    with pytest.raises(ExportError, match="litert needs ai_edge_litert"):
        kzoo.export(model, "saved_model,litert", tmp_path / "e", quiet=True)
    assert not (tmp_path / "e").exists()


def largest_changes(folder, card, data, expected, preprocessing, channels=3):
    """{variant: (the largest change of a probability, how many top answers differ)} from what is expected.

    Args:
        expected: a Counter of probabilities by class name for each picture; ImageNet has two classes of one name.
    """
    found = {}
    for variant in ALLOWED:
        run = formats.picture_runner(variant, folder)
        changes, flips = [], 0
        for file, want in zip(data, expected, strict=True):
            out = run(decoded(file, preprocessing, channels)[None])
            p = out["probabilities"][0]
            np.testing.assert_allclose(p, softmax(out["logits"] / card["temperature"])[0], atol=1e-5)
            got = by_name(zip(card["classes"], p.tolist(), strict=True))
            changes += [abs(got[name] - want[name]) for name in got]
            flips += got.most_common(1)[0][0] != want.most_common(1)[0][0]
        found[variant] = max(changes), flips
    return found


def by_name(pairs):
    found = Counter()
    for name, probability in pairs:
        found[name] += probability
    return found


def test_every_format_answers_for_odd_sizes_and_kinds_as_predict_does(exported, serve):
    folder, card = exported
    data = [encoded(size) for size in SIZES] + [encoded(**kind) for kind in KINDS]
    p = softmax(serve["serving_default"](image=tf.constant(data))["logits"].numpy() / card["temperature"])
    expected = [by_name(zip(CLASSES, row, strict=True)) for row in p]
    for variant, (change, _) in largest_changes(folder, card, data, expected, PREP).items():
        assert change <= ALLOWED[variant], variant
    run = formats.picture_runner("litert_float32", folder)
    batch = RNG.integers(0, 256, (3, 51, 77, 3)).astype("uint8")
    alone = np.concatenate([run(x[None])["logits"] for x in batch])
    for variant in ("onnx", "litert_float32"):
        np.testing.assert_allclose(
            formats.picture_runner(variant, folder)(batch)["logits"], alone, rtol=0.02, atol=0.02
        )


@pytest.mark.deep("2026-11-27")
@pytest.mark.parametrize("name", ["lenet5", "resnet20", "vgg_cifar10", "efficientnet_lite0"])
def test_the_grid_of_sizes_and_kinds(name, tmp_path):
    """Every size in every mode, and real photographs, through a network of the catalog, against kzoo.load's answers."""
    try:
        folder = kzoo.export(name, ("saved_model", "onnx", "litert"), tmp_path / name, measure=0, quiet=True)
    except kzoo.KzooError as e:
        pytest.skip(str(e))
    card = json.loads((folder / "card.json").read_text("utf-8"))
    source = find_source(name)
    sizes = [*SIZES, (33, 47), (224, 224), (225, 301), (500, 20), (640, 427), (1, 600), (2000, 7), (256, 256)]
    data = [encoded(size) for size in sizes] + [encoded(s, **kind) for kind in KINDS for s in sizes if min(s) > 7]
    data += [file for _, file, _ in photographs()]
    rows = kzoo.load(folder).predict(data, top=len(card["classes"]))
    expected = [by_name((t["class"], t["probability"]) for t in row["top"]) for row in rows]
    found = largest_changes(folder, card, data, expected, source.preprocessing, source.shape[2])
    for variant, (change, flips) in found.items():
        print(f"{name} {variant}: {flips} of {len(data)} top answers differ, a probability by {change:.2g} at most")
        assert change <= ALLOWED[variant], variant


def test_inputs_and_outputs_are_named_and_have_one_batch_dimension(exported):
    folder, card = exported
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    found = {x.name: (x.shape, x.type) for x in [*session.get_inputs(), *session.get_outputs()]}
    assert found == {
        "image": (["batch", "height", "width", 3], "tensor(uint8)"),
        "probabilities": (["batch", 4], "tensor(float)"),
        "logits": (["batch", 4], "tensor(float)"),
    }
    onnx.checker.check_model(str(folder / "model.onnx"), full_check=True)
    assert [x.version for x in onnx.load(str(folder / "model.onnx")).opset_import] == [18]
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["labels"]) == list(CLASSES) and float(facts["temperature"]) == card["temperature"]
    assert facts["kzoo"] == kzoo.__version__ and facts["task"] == "classification"
    for kind in formats.LITERT_VARIANTS:
        file = str(folder / f"model-{kind}.tflite")
        network = Interpreter(file)
        names = {"inputs": ["image"], "outputs": ["logits", "probabilities"]}
        assert network.get_signature_list() == {"serving_default": names}
        taken = network.get_input_details()[0]
        assert taken["dtype"] is np.uint8 and taken["shape_signature"].tolist() == [-1, -1, -1, 3]
        with zipfile.ZipFile(file) as archive:
            assert archive.read("labels.txt").decode().splitlines() == list(CLASSES)
            assert json.loads(archive.read("kzoo.json"))["labels"] == list(CLASSES)


def blocks(text):
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_lines_of_the_card_classify_a_picture(exported, serve, tmp_path, monkeypatch, capsys):
    """Each block as it stands, on a picture with transparency; and only the formats that are there are shown."""
    folder, card = exported
    data = encoded((61, 47), "PNG", "RGBA")
    (tmp_path / "photo.jpg").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    best = serve["serving_default"](image=tf.constant([data]))["labels"].numpy()[0, 0].decode()
    found = blocks((folder / "card.md").read_text("utf-8"))
    assert len(found) == 4
    for lines in found:
        exec(compile(lines.replace("DIR", str(folder)), "card.md", "exec"), {})
        said = capsys.readouterr().out
        assert best in said or repr(best.encode())[1:] in said, lines
    for kept, words in (("onnx", "onnxruntime"), ("litert_float16", "model-float16.tflite"), ("keras", "import kzoo")):
        text = cards.markdown({**card, "measured": None, "formats": {kept: card["formats"][kept]}})
        assert len(blocks(text)) == 1 and words in blocks(text)[0]
        assert "saved_model.load" not in text and ("image`, uint8" in text) == (kept != "keras")


def rewritten(folder, card, files):
    """Write files into an export, with their hashes in its card."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
        card["files"][name]["sha256"] = sha256(folder / name)
    (folder / "card.json").write_text(json.dumps(card), "utf-8")


def test_files_of_earlier_exports_take_prepared_images_and_verify(exported, tmp_path):
    folder = changed(exported, tmp_path)
    card = json.loads((folder / "card.json").read_text("utf-8"))
    card["formats"] = {k: card["formats"][k] for k in ("onnx", "litert_float32")}
    for facts in card["formats"].values():
        del facts["takes"], facts["golden"]
    network = onnx_file.without_preparation(onnx.load(str(folder / "model.onnx")), ["logits"])
    lite = litert_file.without_preparation((folder / "model-float32.tflite").read_bytes(), "logits")
    assert not litert_file.is_joined(lite)
    rewritten(folder, card, {"model.onnx": network.SerializeToString(), "model-float32.tflite": lite})
    report = kzoo.verify(folder)
    assert {c["changed"] for c in report["checks"] if "changed" in c} == {0}


def test_verify_finds_a_file_that_prepares_pictures_otherwise(exported, tmp_path):
    folder = changed(exported, tmp_path)
    card = json.loads((folder / "card.json").read_text("utf-8"))
    card["formats"] = {"onnx": card["formats"]["onnx"]}
    whole = onnx.load(str(folder / "model.onnx"))
    other = preparation(SHAPE, 3, kzoo.Preprocessing(crop=0.6))
    prepare, _ = tf2onnx.convert.from_function(other, input_signature=other.input_signature, opset=18)
    network = onnx_file.without_preparation(whole, ["probabilities", "logits"])
    whole = onnx_file.joined(prepare, network, SHAPE, {"probabilities": (4,), "logits": (4,)}, {})
    rewritten(folder, card, {"model.onnx": whole.SerializeToString()})
    report = {c["check"]: c["ok"] for c in kzoo.verify(folder, raises=False)["checks"]}
    assert report["onnx"] and report["onnx, from encoded images"] is False


def test_a_changed_answer_counts_where_the_image_is_certain():
    z = np.log([[0.7, 0.3], [0.501, 0.499]])
    card = {"task": "classification", "temperature": 1.0, "classes": ["a", "b"]}

    def ok(found, precision="float32", near=(False, True)):
        return check.compare_answers("x", np.log(found), None, z, card, precision, np.array(near))

    assert ok([[0.7, 0.3], [0.499, 0.501]], "int8")["ok"] and ok([[0.7, 0.3], [0.499, 0.501]])["changed"] == 1
    assert not ok([[0.7, 0.3], [0.49, 0.51]])["ok"], "more than rounding in float32"
    assert not ok([[0.3, 0.7], [0.501, 0.499]], "int8")["ok"]
    assert "change by 0.4 at most" in ok([[0.3, 0.7], [0.501, 0.499]], "int8")["detail"]


PREPARATIONS = {
    "crop": ((40, 32, 3), 3, kzoo.Preprocessing(crop=0.875)),
    "bicubic": ((28, 28, 1), 3, kzoo.Preprocessing(crop=0.9, interpolation="bicubic")),
    "four": pytest.param((9, 12, 4), 4, kzoo.Preprocessing(), marks=pytest.mark.deep("2026-11-27")),
}


@pytest.mark.parametrize(("shape", "given", "preprocessing"), PREPARATIONS.values(), ids=PREPARATIONS)
def test_pixels_are_those_of_images_fit_but_for_ties(shape, given, preprocessing):
    """Where a value lies half way between two whole numbers, the order of additions decides: 1 level of 255."""
    run = session_of(preparation(shape, given, preprocessing))
    sizes = ((33, 47), (45, 36), (1, 1), (500, 20), (1, 700), (640, 427))
    for height, width in sizes + (((9, 12), (1000, 999), (2, 40), (1536, 1539), (3000, 4000)) if DEEP else ()):
        x = RNG.integers(0, 256, (2, height, width, given)).astype("uint8")
        want = images.fit(images.with_channels(x, shape[2]), *shape[:2], preprocessing).numpy().astype(int)
        found = run(x)
        assert np.abs(found - want).max() <= 1 and (found != want).mean() < 0.02, (height, width)


def session_of(function):
    """A tf.function of one input, run by onnxruntime."""
    model, _ = tf2onnx.convert.from_function(function, input_signature=function.input_signature, opset=18)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def tiny_source(task):
    x = keras.Input((8, 6, 3))
    y = keras.layers.Rescaling(1 / 255)(x)
    y = keras.layers.Conv2D(3, 3, padding="same", name="predictions")(y)
    y = y if task.dense else keras.layers.GlobalAveragePooling2D()(y)
    return Source("tiny", keras.Model(x, y), ("a", "b", "c"), kzoo.Preprocessing(crop=0.8), task)


def multilabel():
    return Multilabel({"thresholds": [0.1, 0.5, 0.9], "reason": ""})


@pytest.mark.parametrize(
    ("task", "probabilities"),
    [
        (find("classification"), lambda z: softmax(z / 2.0)),
        (find("segmentation"), None),
        pytest.param(multilabel(), sigmoid, marks=pytest.mark.deep("2026-11-27")),
    ],
    ids=["classification", "segmentation", "multilabel"],
)
def test_every_task_gives_its_outputs(task, probabilities, tmp_path):
    """Classes: softmax after the temperature. Several labels: sigmoids, thresholds in the file. Masks: logits alone."""
    source, temperature = tiny_source(task), 2.0

    @tf.function(input_signature=[tf.TensorSpec((None, *source.shape))], autograph=False)
    def network(tensor):
        return {"outputs": source.model(tensor, training=False)}

    facts = cards.file_facts(source, temperature, None)
    prepared = RNG.integers(0, 256, (4, *source.shape)).astype("uint8")
    parts = formats.FormatInputs(
        None, {}, source.model, only_outputs(network, task), "float32", prepared, source, temperature, facts
    )
    written = formats.write("onnx", tmp_path, parts) | formats.write("litert", tmp_path, parts)
    picture = RNG.integers(0, 256, (1, 31, 17, 3)).astype("uint8")
    want = np.asarray(source.model(images.fit(picture, 8, 6, source.preprocessing).numpy().astype("float32")))
    for variant in ("onnx", "litert_float32"):
        assert written[variant]["takes"] == "pictures"
        out = formats.picture_runner(variant, tmp_path)(picture)
        np.testing.assert_allclose(out["logits"], want, atol=0.01)  # a pixel may be rounded otherwise
        if probabilities:
            np.testing.assert_allclose(out["probabilities"], probabilities(out["logits"]), atol=1e-5)
        assert out.keys() == {"logits", *(["probabilities"] if probabilities else [])}
        network_alone = formats.runner(variant, tmp_path, None, "logits")
        np.testing.assert_allclose(network_alone(prepared), source.model(prepared.astype("float32")), atol=1e-4)
    kept = {p.key: p.value for p in onnx.load(str(tmp_path / "model.onnx")).metadata_props}
    assert json.loads(kept["temperature"]) == temperature and ("thresholds" in kept) == task.several
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(task.array_example, {"out": out, **facts})
    assert said.getvalue()


def test_images_are_decoded_on_one_device(exported):
    """Each mapped function says so; without it TensorFlow finds it out from all of their operations at every call."""
    functions = SavedModel.FromString((exported[0] / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def.library
    mapped = [f for f in functions.function if "Dataset_map" in f.signature.name]
    assert mapped and all(f.attr["experimental_ints_on_device"].b for f in mapped)
    called = {n.attr["f"].func.name for f in functions.function for n in f.node_def if n.op == "ParallelMapDatasetV2"}
    assert {f.signature.name for f in mapped} >= called > set()
