"""The report: what it has, what it keeps, what it skips and says, and what it refuses."""

import json
import os
import signal
from html import escape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kzoo
from kzoo.errors import DataError, KzooError, UnknownName
from kzoo.interrupt import Interrupted
from kzoo.visualizing import drawing, pieces
from kzoo.visualizing.network import find_network
from kzoo.visualizing.options import ALWAYS, IF_TIME, VisualizeOptions
from kzoo.visualizing.report import visualize

EVIL = "<script>alert(1)</script>"


def page(folder):
    return (folder / "report.html").read_text("utf-8")


HERE = [name for name in (*ALWAYS, *IF_TIME) if name not in ("patches", "inversion", "maximisation")]


@pytest.fixture(scope="module")
def network(pooled):
    return find_network(pooled.model, classes=["ant & bee", EVIL, "cat"])


@pytest.fixture(scope="module")
def whole(network, pictures, tmp_path_factory):
    """(folder, Report) of all methods that this package has at hand, of one picture."""
    folder = tmp_path_factory.mktemp("look") / "report"
    return folder, visualize(network, pictures[:1], methods=HERE, target=EVIL, out=folder, quiet=True)


def test_a_report_has_every_piece_as_pictures_numbers_and_one_page(whole, network, pictures):
    folder, report = whole
    data = json.loads((folder / "report.json").read_text("utf-8"))
    assert data == json.loads(json.dumps(report.data)) and not data["skipped"]
    slug = next(iter(data["pictures"]))
    assert list(data["pieces"]) == [n if n == "filters" else f"{slug}/{n}" for n in HERE]
    text = page(folder)
    assert EVIL not in text and escape(EVIL) in text and "ant &amp; bee" in text
    assert text.count("data:image/png;base64,") == sum(len(p["figures"]) for p in data["pieces"].values()) >= 20
    assert "http" not in text, "one file that opens offline"
    for piece in data["pieces"].values():
        for figure in piece["figures"]:
            with Image.open(folder / figure["file"]) as image:
                assert list(image.size) == figure["size"]
    facts = {key.rpartition("/")[2]: piece["facts"] for key, piece in data["pieces"].items()}
    assert facts["guided"]["replaced"] == 2 and facts["integrated"]["share"] <= 0.01
    assert facts["prediction"]["method"] == "CAM" and facts["prediction"]["gap"] <= 1e-5
    assert facts["fullgrad"]["gap"] <= 1e-5 and set(facts["sanity"]) == set(pieces.MAPS)
    assert set(facts["areas"]) == {*pieces.MAPS, "random"}
    # The pictures are the arrays of the functions.
    found = drawing.signed
    expected = kzoo.visualizing.attribution.integrated_gradients(network, pictures[:1], EVIL).attributions[0].sum(-1)
    np.testing.assert_array_equal(
        report.figures[f"{slug}/integrated"]["integrated"],
        found(expected, drawing.scale_of(expected, drawing.GREATEST)),
    )


def test_the_same_call_goes_on_with_what_is_there(whole, network, pictures, monkeypatch):
    folder, report = whole
    computed = []

    def counted(name, function):
        return lambda *args: (computed.append(name), function(*args))[1]

    for name, function in pieces.FUNCTIONS.items():
        monkeypatch.setitem(pieces.FUNCTIONS, name, counted(name, function))
    again = visualize(network, pictures[:1], methods=HERE, target=EVIL, out=folder, quiet=True)
    assert computed == [] and again.data["pieces"] == report.data["pieces"]
    assert again.data["pictures"] == report.data["pictures"] and f"for {escape(EVIL)}" in page(folder)
    (folder / "filters.png").unlink()
    again = visualize(network, pictures[:1], methods=["filters"], target=EVIL, out=folder, quiet=True)
    assert computed == ["filters"] and set(again.data["pieces"]) == set(report.data["pieces"]), "nothing is dropped"
    with pytest.raises(KzooError, match=r"other settings \(target: it has .* --force"):
        visualize(network, pictures[:1], methods=["filters"], target=0, out=folder, quiet=True)
    other = visualize(network, pictures[:1], methods=["filters"], target=0, out=folder, quiet=True, force=True)
    assert list(other.data["pieces"]) == ["filters"]
    assert sorted(p.name for p in folder.rglob("*.png")) == ["filters.png"], "what is replaced is gone"


def test_ctrl_c_keeps_what_is_finished_and_the_same_call_goes_on(network, pictures, tmp_path, monkeypatch):
    methods, original = ["filters", "saliency", "smoothgrad"], pieces.FUNCTIONS["smoothgrad"]

    def interrupted(look, photo):
        os.kill(os.getpid(), signal.SIGINT)
        return original(look, photo)

    monkeypatch.setitem(pieces.FUNCTIONS, "smoothgrad", interrupted)
    with pytest.raises(Interrupted, match="the same command goes on") as e:
        visualize(network, pictures[:1], methods=methods, out=tmp_path / "r", quiet=True)
    assert e.value.exit_code == 130
    data = json.loads((tmp_path / "r" / "report.json").read_text())
    assert len(data["pieces"]) == 2 and "Ctrl-C" in data["skipped"][-1]["reason"]
    assert "Ctrl-C" in (tmp_path / "r" / "report.html").read_text()
    monkeypatch.setitem(pieces.FUNCTIONS, "smoothgrad", original)
    found = visualize(network, pictures[:1], methods=methods, out=tmp_path / "r", quiet=True)
    assert len(found.data["pieces"]) == 3 and len(found.figures) == 1 and not found.data["skipped"]


def test_what_the_budget_does_not_allow_is_left_out_and_said(network, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pieces, "estimate", lambda look, name, photo: 0.0 if name in ALWAYS else 100.0)
    report = visualize(network, pictures[:1], budget=30, out=tmp_path / "r")
    assert {p["method"] for p in report.data["pieces"].values()} == set(ALWAYS)
    left_out = {row["method"] for row in report.data["skipped"]}
    assert left_out == set(IF_TIME) - {"patches"}
    assert "It takes about 100 s" in capsys.readouterr().err and "--budget 3m" in report.data["skipped"][0]["reason"]
    assert "Left out" in (tmp_path / "r" / "report.html").read_text()


def test_what_a_method_can_not_do_is_one_line(pictures, tmp_path):
    network = find_network(kzoo.build("mnist_softmax", seed=0))
    x = np.random.default_rng(0).uniform(0, 255, (28, 28, 1))
    report = visualize(network, x, methods=["filters", "prediction", "guided", "maps", "saliency"], quiet=True)
    assert {p["method"] for p in report.data["pieces"].values()} == {"filters", "prediction", "saliency"}
    reasons = {row["method"]: row["reason"] for row in report.data["skipped"]}
    assert "has no ReLU" in reasons["guided"] and "no layer with feature maps" in reasons["maps"]


def test_faults_are_told_before_any_work(network, pictures, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"GIF89a")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years")
    (tmp_path / "odd").mkdir()
    piece = {"figures": [{"file": "../full/thesis.txt"}]}
    odd = {"kzoo_visualize": 1, "settings": {}, "pictures": {}, "pieces": {"filters": piece}}
    (tmp_path / "odd" / "report.json").write_text(json.dumps(odd))
    options = dict(methods=["filters"], quiet=True)
    for kind, match, args, more in (
        (DataError, "bad.jpg can't be used", [tmp_path / "bad.jpg"], {}),
        (UnknownName, "Did you mean 'conv1'", pictures[:1], dict(layer="conv11")),
        (UnknownName, "Did you mean 'cat'", pictures[:1], dict(target="cats")),
        (KzooError, "holds no report", pictures[:1], dict(out=tmp_path / "full")),
        (KzooError, "holds no report", pictures[:1], dict(out=tmp_path / "full", force=True)),
        (KzooError, "holds no report", pictures[:1], dict(out=tmp_path / "odd", force=True)),
        (KzooError, "is a file", pictures[:1], dict(out=tmp_path / "bad.jpg")),
    ):
        with pytest.raises(kind, match=match):
            visualize(network, args, **{**options, **more})
    assert (tmp_path / "full" / "thesis.txt").read_text() == "years"
    for match, more in (
        ("Did you mean 'filters'", dict(methods=("filter",))),
        ("names none", dict(methods=())),
        ("above 0", dict(budget=0.0)),
        ("A unit belongs to a layer", dict(unit=3)),
    ):
        with pytest.raises(KzooError, match=match):
            VisualizeOptions(**more)


def test_a_run_is_shown_its_own_held_out_images(kzoo_command, old_runs, monkeypatch):
    """A run of kzoo 0.1.0; its validation images, one of each class, from the command line."""
    monkeypatch.chdir(old_runs)
    code, out, err = kzoo_command("visualize", "run", "--methods", "filters,prediction", "--json", "--quiet")
    assert code == 0, err
    data = json.loads(out)
    held_out = {row["id"] for row in kzoo.load_run("run").division() if row["split"] == "val"}
    shown = [picture["name"] for picture in data["pictures"].values()]
    assert shown and set(shown) <= held_out, shown
    assert data["path"] == "run-look/report.html" and Path(data["path"]).is_file()
    code, _, err = kzoo_command("visualize", "run", "nothing.png", "--out", "x")
    assert code == 1 and "nothing.png can't be used" in err and err.count("\n") == 1 and not Path("x").exists()
    code, _, err = kzoo_command("visualize", "c3d")
    assert code == 1 and "takes clips" in err
