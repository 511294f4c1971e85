"""Reading an export: what is refused, what predict gives."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from support.exports import CLASSES, encoded, saved_model_alone
from support.processes import ROOT

import kzoo
from kzoo.errors import ExportError
from kzoo.evaluating.loading import load_model
from kzoo.exporting.reader import Export, multiply_adds


def test_a_folder_whose_name_is_a_pattern_to_tensorflow(exported, tmp_path, kzoo_command):
    folder = tmp_path / "a[1]*?{b}\\" / "export[2]"
    shutil.copytree(saved_model_alone(exported, tmp_path), folder)
    photo = [encoded()]
    assert Export(folder).answer(photo) == Export(exported[0]).answer(photo)
    code, _, _ = kzoo_command("verify", folder)
    assert code == 0


def test_a_changed_temperature_is_no_answer_and_a_replaced_export_is_loaded_anew(exported, tmp_path):
    folder, photo = saved_model_alone(exported, tmp_path), tmp_path / "a.png"
    photo.write_bytes(encoded())
    loaded = load_model(folder)
    assert load_model(folder).answer.__self__ is loaded.answer.__self__, "TensorFlow frees no graph"
    first = list(kzoo.predict(folder, photo))
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**card, "temperature": 100.0}))
    with pytest.raises(ExportError, match=r"^The temperature in .* the card was changed\.$"):
        list(kzoo.predict(folder, photo))
    (folder / "card.json").write_text(json.dumps(card))
    assert list(kzoo.predict(folder, photo)) == first


def test_what_an_export_computes(exported):
    convolutions = 40 * 32 * 9 * (3 + 2 * 16) * 16 + 20 * 16 * 9 * (16 + 32) * 32 + 10 * 8 * 9 * (32 + 64) * 64
    assert exported[1]["multiply_adds"] == convolutions + 64 * 4 == multiply_adds(exported[0])
    of_0_1_0 = multiply_adds(ROOT / "saved_models" / "resnet20")  # whose card says none; they are 41 million
    assert 41e6 < of_0_1_0 < 1e9


@pytest.mark.parametrize("fault", ["crop", "graph", "card", "none"])
def test_a_changed_export_is_not_loaded(exported, tmp_path, kzoo_command, fault):
    folder = saved_model_alone(exported, tmp_path)
    card = json.loads((folder / "card.json").read_text())
    if fault == "crop":
        card["preprocessing"]["crop"] = 1.0
        (folder / "card.json").write_text(json.dumps(card))
        want = "does not match its fingerprint"
    elif fault == "graph":
        data = bytearray((folder / "saved_model.pb").read_bytes())
        data[len(data) // 2] ^= 1
        (folder / "saved_model.pb").write_bytes(data)
        want = "is corrupt"
    elif fault == "card":
        (folder / "card.json").write_text("{")
        want = "card.json can't be read"
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
    with pytest.raises(ExportError, match=f"its graph has operations that no kzoo export has: .*{op}"):
        load_saved_model(tmp_path)


def permuted(names):
    return [*names[1:], names[0]]


CHANGES = {
    "other names": lambda card, folder: card.update(classes=["x" + name for name in card["classes"]]),
    "another order": lambda card, folder: card.update(classes=permuted(card["classes"])),
    "cut short": lambda card, folder: card.update(classes=card["classes"][:-1]),
    "a dict for a name": lambda card, folder: card.update(classes=[{}, *card["classes"][1:]]),
    "a name that is null": lambda card, folder: card.update(classes=[None, *card["classes"][1:]]),
    "classes in a dict": lambda card, folder: card.update(classes=dict.fromkeys(card["classes"])),
    "no classes": lambda card, folder: card.update(classes=[]),
    "labels.txt": lambda card, folder: (folder / "labels.txt").write_text("\n".join(permuted(card["classes"])) + "\n"),
    "a short labels.txt": lambda card, folder: (folder / "labels.txt").write_text(card["classes"][0] + "\n"),
    "labels.txt of no text": lambda card, folder: (folder / "labels.txt").write_bytes(b"\xff\xfe\0"),
    "NaN": lambda card, folder: card.update(temperature=float("nan")),
    "infinity": lambda card, folder: card.update(temperature=float("inf")),
    "a true temperature": lambda card, folder: card.update(temperature=True),
    "a shape of NaN": lambda card, folder: card.update(input_shape=[float("nan"), 32, 3]),
    "a preprocessing of NaN": lambda card, folder: card["preprocessing"].update(scale=float("nan")),
    "a preprocessing of text": lambda card, folder: card.update(preprocessing="as always"),
    "a network of text": lambda card, folder: card.update(multiply_adds="few"),
    "a task in a list": lambda card, folder: card.update(task=["classification"]),
    "files in a list": lambda card, folder: card["formats"]["saved_model"].update(files=[["saved_model.pb"]]),
    "a name in a dict": lambda card, folder: card.update(name={"a": 1}),
}


@pytest.mark.usefixtures("the_graph_is_loaded_once")
@pytest.mark.parametrize("what", CHANGES)
def test_card_labels_and_graph_agree_or_one_line_says_what_does_not(exported, tmp_path, kzoo_command, what):
    folder = saved_model_alone(exported, tmp_path)
    card = json.loads((folder / "card.json").read_text())
    CHANGES[what](card, folder)
    (folder / "card.json").write_text(json.dumps(card))
    with pytest.raises(ExportError) as caught:
        Export(folder)
    said = str(caught.value)
    assert "\n" not in said and ("class" in said or "labels.txt" in said or "can't be read" in said)
    code, out, err = kzoo_command("verify", folder)
    assert code == 1 and "Traceback" not in err and ("FAILED" in out or err.startswith("Error: "))


@pytest.mark.usefixtures("the_graph_is_loaded_once")
def test_what_a_card_does_not_list_fails_verify(exported, tmp_path):
    folder = saved_model_alone(exported, tmp_path)
    (folder / "more.py").write_text("print(1)")
    card = json.loads((folder / "card.json").read_text())
    del card["files"]["labels.txt"]
    (folder / "card.json").write_text(json.dumps(card))
    report = kzoo.verify(folder, raises=False)
    detail = next(c["detail"] for c in report["checks"] if c["check"] == "files")
    assert not report["ok"] and detail == "labels.txt is not in the card; more.py is not in the card"


def test_a_network_that_computes_nan_gives_a_reason_in_place_of_an_answer(
    exported, monkeypatch, tmp_path, kzoo_command
):
    export, data = Export(exported[0]), [encoded(), encoded()]
    found = export.run(data)
    found["logits"][0, 1] = np.nan
    monkeypatch.setattr(Export, "run", lambda self, data: found)
    rows = export.answer(data)
    assert rows[0] == {"error": "makes the network compute NaN or infinity, so there is no answer"} and "top" in rows[1]
    for name in "ab":
        (tmp_path / f"{name}.jpg").write_bytes(data[0])
    code, out, err = kzoo_command("predict", exported[0], tmp_path, "--json")
    assert code == 1 and "NaN" not in out.replace("compute NaN", "") and json.loads(out)[0]["error"] == rows[0]["error"]
    code, out, err = kzoo_command("predict", exported[0], tmp_path)
    assert code == 1 and "nan" not in out and "1 of 2 images could not be read" in err


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
