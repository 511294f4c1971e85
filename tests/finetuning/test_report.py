"""The report: its numbers against oracles, its page against hostile names, bounds and missing parts."""

import io
import json
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax
from support.calibrated import drawn

from kzoo.errors import KzooError
from kzoo.finetuning.report import jsonable, write_report
from kzoo.metrics import calibration_error, choose_temperature, cross_fitted, fit_temperature
from kzoo.tasks import find

# --- the page ---

EVIL = ['<script>alert("1")</script>', "quo\"te' & \n line", "caf\udce9"]


def record(n=60, names=EVIL, **more):
    """A record with everything in it, and hostile names."""
    rng = np.random.default_rng(0)
    c = len(names)
    z, y = drawn(n, c, 2.0)
    files = {f"{names[i % c]}/{i}.jpg": rng.integers(0, 256, (90, 120, 3)).astype("uint8") for i in range(2 * n)}
    ids = list(files)
    passport = {
        "classes": names,
        "counts": {"train": dict.fromkeys(names, n), "val": dict.fromkeys(names, n)},
        "images": 2 * n,
        "class_weights": dict.fromkeys(names, 1.0),
        "warnings": [f"odd {names[0]}"],
        "drawn": [],
        "seed": 0,
        "fingerprint": "ab",
        "formats": {"JPEG": n},
        "modes": {},
        "orientations": {},
        "damaged": [],
        "unreadable": [{"id": ids[0], "reason": "is empty"}],
        "duplicates": [{"ids": ids[:3], "splits": ["train", "train", "val"], "classes": [names[0]] * 3, "exact": True}],
    }
    return {
        "title": f"A {names[0]}",
        "command": "kzoo finetune 'x' <y>",
        "run": "runs/x",
        "model": "m",
        "data": "d",
        "classes": names,
        "seed": 3,
        "outcome": f"It is {names[1]}",
        "weights": {"tag": names[2]},
        "passport": passport,
        "phases": [
            {
                "name": "head",
                "seconds": 1.5,
                "trainable": ["predictions"],
                "trainable_parameters": 9,
                "frozen_parameters": 10,
                "val_accuracy": 0.5,
                "text": names[0],
                "audit": {"ok": True, "frozen_checked": 3, "moved": 2, "text": "all <identical>"},
            }
        ],
        "history": [
            {
                "phase": names[0],
                "epoch": e,
                "loss": 1.0 / (e + 1),
                "accuracy": 0.5,
                "val_loss": float("nan"),
                "val_accuracy": 0.4,
                "learning_rate": 1e-3,
                "seconds": 1.0,
            }
            for e in range(5)
        ],
        "head": {
            "kind": "ridge",
            "strength": 0.1,
            "cross_validation": [{"kind": "ridge", "strength": 0.1, "accuracy": 0.5, "loss": 1.0}],
        },
        "parts": {"val": {"ids": ids[n:], "labels": y, "logits": z}},
        "train_features": {"ids": ids[:n], "labels": rng.integers(0, c, n), "features": rng.normal(0, 1, (n, 4))},
        "picture": files.__getitem__,
        "versions": {"kzoo": "1"},
        "hardware": "cpu",
        "precision": "float32",
        **more,
    }


class Page(HTMLParser):
    """Tags, what they link to, and the text outside of tags."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "action") or k.startswith("on")]

    def handle_data(self, data):
        self.text += data


def test_a_whole_report_with_hostile_names(tmp_path):
    data = write_report(tmp_path, record())
    html = (tmp_path / "report.html").read_text("utf-8")
    page = Page(html)
    assert "script" not in page.tags and "<script" not in html, "names are text"
    assert all(link.startswith(("data:image/", "#")) for link in page.links), "nothing is loaded from anywhere"
    assert not re.search(r"url\(|@import|https?://", html)
    expected = [
        '<script>alert("1")</script>',
        "caf\\udce9",
        "kzoo finetune 'x' <y>",
        "Suspect labels",
        "all <identical>",
        "Most confident mistakes",
        "Learning curves",
        "in train and val",
        "Calibration",
        "its ECE is not optimistic",
    ]
    for words in expected:
        assert words in page.text, words
    assert json.loads((tmp_path / "report.json").read_text("utf-8")) == data
    assert not [p for p in os.listdir(tmp_path) if p.startswith(".tmp")]


def test_the_numbers_of_a_report(tmp_path):
    given = record(names=["a", "b", "c"])
    given["parts"]["test"] = given["parts"]["val"]
    data = write_report(tmp_path, given)
    z, y = (given["parts"]["val"][k] for k in ("logits", "labels"))
    val, test = data["parts"]["val"], data["parts"]["test"]
    np.testing.assert_allclose(val["accuracy"], np.mean(z.argmax(1) == y))
    low, high = val["accuracy_interval"]
    assert low < val["accuracy"] < high
    np.testing.assert_allclose(data["temperature"], fit_temperature(z, y))
    assert data["temperature_choice"] == choose_temperature(z, y, seed=3).to_dict()
    np.testing.assert_allclose(val["calibration"]["ece"], calibration_error(softmax(z, -1), y))
    want = calibration_error(softmax(cross_fitted(z, y, seed=3), -1), y)
    np.testing.assert_allclose(val["calibration"]["ece_scaled"], want)
    want = calibration_error(softmax(z / data["temperature"], -1), y)
    np.testing.assert_allclose(test["calibration"]["ece_scaled"], want)
    wrong = [m["probability"] for m in val["mistakes"]]
    assert wrong == sorted(wrong, reverse=True) and len(wrong) == np.sum(z.argmax(1) != y)
    assert val["mistakes"][0]["label"] != val["mistakes"][0]["predicted"]
    assert np.sum(val["confusion"]) == 60 and data["history"][0]["val_loss"] is None


def test_the_cells_of_the_confusion_matrix_open_their_photos(tmp_path):
    data = write_report(tmp_path, record(names=["a", "b", "c"]))
    html = (tmp_path / "report.html").read_text("utf-8")
    part = data["parts"]["val"]
    for i, counts in enumerate(part["confusion"]):
        for j, n in enumerate(counts):
            anchor = f"val-{i}-{j}"
            assert (f'<a href="#{anchor}">{n}</a>' in html) == (f'id="{anchor}"' in html) == (i != j and n > 0)
            if i != j and n:
                shown = html.partition(f'id="{anchor}"')[2].partition("</ul>")[0]
                wrong = [m["id"] for m in part["mistakes"] if (m["label"], m["predicted"]) == ("abc"[i], "abc"[j])]
                assert re.findall(r'"file">([^<]*)<', shown) == wrong[:4] and len(wrong) == n


def test_a_temperature_that_does_not_help_is_not_used_and_the_report_says_so(tmp_path):
    z, y = drawn(49, 3, 1.0, 1)
    z[np.arange(49), y] += 12  # nearly all are right
    z[0, y[0]] -= 30
    part = {"ids": [str(i) for i in range(49)], "labels": y, "logits": z}
    data = write_report(tmp_path, record(names=["a", "b", "c"], parts={"val": part, "test": part}))
    choice = data["temperature_choice"]
    assert data["temperature"] == choice["temperature"] == 1.0 != choice["fitted"] and choice["mistakes"] < 5
    for name in ("val", "test"):
        assert {*data["parts"][name]["calibration"]} == {"ece", "bins"}
    text = Page((tmp_path / "report.html").read_text("utf-8")).text
    assert choice["reason"] in text and "no temperature is used" in text and "divide the logits" not in text


def test_what_is_missing_is_left_out(tmp_path):
    full = record(names=["a", "b", "c"])
    for keys in ([], ["classes", "parts"], ["passport"], ["phases", "history", "head"]):
        part = {k: full[k] for k in keys}
        data = write_report(tmp_path, part)
        assert {*data} == {*keys, "temperature", "parts", *(["temperature_choice"] if "parts" in keys else [])}
        text = Page((tmp_path / "report.html").read_text("utf-8")).text
        assert ("Learning curves" in text) == ("history" in keys) and ("Calibration" in text) == ("parts" in keys)
        assert ("Head" in text) == ("head" in keys) and "Suspect" not in text
    write_report(tmp_path, {"phases": [{"name": "x"}], "head": {"kind": "ridge"}, "history": [{"epoch": 1}]})
    full["parts"] = {"val": None, "test": full["parts"]["val"]}
    only = write_report(tmp_path, full)["parts"]  # no temperature where there are no validation images to fit it to
    assert {*only} == {"test"} and "ece_scaled" not in only["test"]["calibration"]
    few = record(n=4, names=["a", "b", "c"])
    data = write_report(tmp_path, few)
    assert data["temperature"] == 1.0 and "ece_scaled" not in data["parts"]["val"]["calibration"]


def test_a_learning_curve_needs_two_epochs(tmp_path):
    given = record(names=["a", "b", "c"])
    given["history"][2]["val_loss"] = None
    write_report(tmp_path, given)
    html = (tmp_path / "report.html").read_text("utf-8")
    assert html.count('aria-label="Loss by epoch"') == html.count('aria-label="Accuracy by epoch"') == 1
    assert not re.search(r"<g id=|clip-path|<metadata", html), "nothing that two charts in one page would share"
    write_report(tmp_path, {**given, "history": given["history"][:1]})
    assert "Learning curves" not in (tmp_path / "report.html").read_text("utf-8")


def test_two_hundred_classes_and_many_mistakes_stay_small(tmp_path):
    given = record(n=1500, names=[f"class {i}" for i in range(200)])
    given["parts"]["val"]["labels"] = (given["parts"]["val"]["logits"].argmax(1) + 1) % 200
    data = write_report(tmp_path, given)
    html = (tmp_path / "report.html").read_text("utf-8")
    assert len(html) < 1_500_000 and "image/png" in html and html.count("image/jpeg") <= 24 + 24 + 2 * 12 + 20 * 4
    assert "with the lowest F1" in html and "All 200 classes" in html
    assert data["parts"]["val"]["accuracy"] == 0 and len(data["parts"]["val"]["mistakes"]) == 1500


def test_pictures_that_can_not_be_shown_are_left_out(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "a secret place"
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((300, 400, 3), "uint8")).save(buffer, "JPEG", exif=exif, comment=b"a secret place")
    (tmp_path / "good.jpg").write_bytes(buffer.getvalue())
    answers = [tmp_path / "good.jpg", buffer.getvalue(), b"junk", None, "no/such/file.jpg", KeyError]

    def picture(id):
        answer = answers[int(id.rsplit("/", 1)[1].split(".")[0]) % len(answers)]
        if answer is KeyError:
            raise KeyError(id)
        return answer

    write_report(tmp_path, record(names=["a", "b", "c"], picture=picture))
    html = (tmp_path / "report.html").read_text("utf-8")
    import base64

    shown = [base64.b64decode(code) for code in re.findall(r"image/jpeg;base64,([^\"]+)", html)]
    assert shown and "no picture" in Page(html).text
    for data in shown:
        with Image.open(io.BytesIO(data)) as image:
            assert max(image.size) <= 150 and not image.getexif()
        assert b"secret" not in data


def test_logits_of_another_shape_are_refused_and_the_old_report_stays(tmp_path):
    write_report(tmp_path, {"title": "old"})
    before = (tmp_path / "report.html").read_bytes()
    with pytest.raises(KzooError, match="shape \\(images, 2\\)"):
        write_report(
            tmp_path, {"classes": ["a", "b"], "parts": {"val": {"ids": ["x"], "labels": [0], "logits": [[1.0]]}}}
        )
    assert (tmp_path / "report.html").read_bytes() == before
    with pytest.raises(KzooError, match="Can't write"):
        write_report(tmp_path / "missing", {"title": "x"})


def test_jsonable():
    data = {1: np.float32(0.5), "a": (np.nan, np.inf, None, True), "b": np.arange(2), "c": b"\xff", "d": "\udcff"}
    assert jsonable(data) == {"1": 0.5, "a": [None, None, None, True], "b": [0, 1], "c": "\\udcff", "d": "\\udcff"}


def test_the_template_is_package_data():
    from importlib.resources import files
    from pathlib import Path

    assert (files("kzoo.finetuning") / "report.html.j2").is_file()
    text = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text()
    assert '"finetuning/*.j2"' in text


def test_masks_have_iou_in_place_of_accuracy(tmp_path):
    masks, logits = np.array([[[0, 1, 1]]], "uint8"), np.array([[[[1.0, 0], [0, 1], [1, 0]]]])
    names = ("<sky>", "road")
    about = {"run": "r", "data": "d", "split": "test"}
    result = find("segmentation").evaluate(logits, masks, names, **about).to_dict()
    history = [{"phase": "decoder", "epoch": i, "mean_iou": 0.1 * i, "val_mean_iou": 0.2} for i in (1, 2)]
    phase = {"name": "decoder", "seconds": 1.0, "val_mean_iou": 0.25}
    record = {"classes": list(names), "masks": {"test": result}, "history": history, "phases": [phase]}
    found = write_report(tmp_path, record)
    page = (tmp_path / "report.html").read_text()
    assert found["masks"]["test"]["per_class"][1]["iou"] == 0.5 and found["parts"] == {}
    assert "test mean IoU of 1 pictures" in page and "&lt;sky&gt;" in page and "<sky>" not in page
    assert "Mean IoU" in page and "25.0" in page
