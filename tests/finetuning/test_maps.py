"""Where a fine-tuned network sees the class that it wrongly predicts."""

import base64
import io

import numpy as np
from PIL import Image

from kzoo.finetuning import maps
from kzoo.finetuning.report import write_report
from kzoo.runs import load_run
from kzoo.visualizing.cam import cam
from kzoo.visualizing.drawing import overlay, scale_of
from kzoo.visualizing.network import find_network


def test_the_maps_are_those_of_the_run_and_unreadable_photos_have_none(head_only, world):
    files = {"a": world / "photos/val/red/0.png", "bad": world / "gone.png", "array": np.full((30, 40, 3), 99, "uint8")}
    draw = maps.maps_of_mistakes(head_only, files.__getitem__)
    found, about = draw([("a", "blue"), ("bad", "red"), ("array", "red"), ("unknown", "red")])
    network = find_network(head_only)
    expected = cam(network, files["a"], "blue").maps[0]
    np.testing.assert_array_equal(found[0], overlay(network.prepare(files["a"]), expected, scale_of(expected)))
    assert found[1] is None and found[3] is None and found[2].shape == network.shape
    draw = maps.maps_of_mistakes(head_only, files.__getitem__, lambda: load_run(head_only).model)  # in memory
    np.testing.assert_array_equal(draw([("a", "blue")])[0][0], found[0])
    assert "CAM on" in about and "red" in about


def test_without_keras_there_are_none(monkeypatch):
    monkeypatch.setattr(maps.sys, "modules", {})
    assert maps.maps_of_mistakes("run", {}.get) is None


def test_the_report_shows_the_map_beside_the_mistake(tmp_path):
    asked = []

    def drawn(pairs):
        asked.extend(pairs)
        return [np.full((40, 40, 3), (200, 0, 0), "uint8"), None], "On the right: <why>."

    logits = np.array([[0.0, 5.0], [4.0, 0.0], [1.0, 0.0]])
    write_report(
        tmp_path,
        {
            "classes": ["ant", "bee"],
            "parts": {"val": {"ids": ["one", "two", "three"], "labels": np.array([0, 1, 0]), "logits": logits}},
            "picture": lambda id: np.full((40, 40, 3), 90, "uint8"),
            "maps": drawn,
        },
    )
    assert asked == [("one", "bee"), ("two", "ant")]
    page = (tmp_path / "report.html").read_text("utf-8")
    assert (
        "&lt;why&gt;" in page and page.count("data:image/jpeg") == 3 + 2
    )  # and the photos behind the confusion matrix
    pictures = [part.split('"')[0] for part in page.split("base64,")[1:]]
    reds = [np.asarray(Image.open(io.BytesIO(base64.b64decode(p))))[20, 20].tolist() for p in pictures]
    assert sum(r[0] > 180 and r[1] < 40 for r in reds) == 1
