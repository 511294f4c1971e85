"""The stylenet that kzoo carries: its card, what it paints; and the way from a training to it and back."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import kzoo
from kzoo.catalog import shipped
from kzoo.data.drawn import PAINTINGS, painting
from kzoo.errors import KzooError
from kzoo.files import digest
from kzoo.style.painter import apply_stylenet, load_stylenet, paint

ROOT = Path(__file__).resolve().parents[2]


def test_the_card_has_its_file_and_its_drawings():
    card = shipped.stylenets()["painter"]
    file = shipped.FOLDER / "painter.npz"
    assert digest(file) == card["sha256"] and file.stat().st_size < 2e6
    with np.load(file) as arrays:
        assert {a.dtype for a in arrays.values()} == {np.dtype("float16")}
    assert card["styles"] == ["strokes", "mosaic", "ink"] and set(card["styles"]) <= PAINTINGS.keys()
    assert shipped.stylenet("ink") == shipped.stylenet("painter") == card and shipped.stylenet("glass") is None
    assert all(row["at_limits"] < 0.02 for row in card["metrics"].values())
    assert "painter" not in shipped.cards()


def test_it_paints_at_once_in_each_style_by_name(tmp_path, monkeypatch, kzoo_command):
    monkeypatch.chdir(tmp_path)
    painting("glass", side=96).save("photo.png")
    photo = np.asarray(Image.open("photo.png"))
    net = load_stylenet("painter")
    painted = {s: paint(net, photo, {s: 1.0}).astype(int) for s in net.styles}
    blue, light = ({s: f(p.mean((0, 1))) for s, p in painted.items()} for f in (lambda m: m[2] - m[0], np.mean))
    assert max(blue, key=blue.get) == "strokes" and max(light, key=light.get) == "ink"
    assert all(np.mean((p == 0) | (p == 255)) < 0.05 for p in painted.values()), "no blobs"
    (path,) = apply_stylenet("ink", ["photo.png"], quiet=True)
    assert path == Path("ink-painted/photo.png")
    assert np.abs(np.asarray(Image.open(path)).astype(int) - painted["ink"]).max() <= 1
    with pytest.raises(KzooError, match=r"Unknown stylenet .oil"):
        apply_stylenet("oil", ["photo.png"])
    Path("ink").mkdir()
    with pytest.raises(KzooError, match=r"There is no ink.*model.keras"):  # a folder of that name comes first
        load_stylenet("ink")
    code, _, err = kzoo_command("reproduce", "painter")
    assert code == 1 and "give their folder by --data" in err
    assert "only with painter" in kzoo_command("reproduce", "lenet5", "--weights", "x.npz")[2]
    assert "only with --figure" in kzoo_command("reproduce", "painter", "--epochs", "3")[2]
    assert "paints strokes, mosaic, ink" in kzoo_command("reproduce")[1]


@pytest.mark.deep("2026-11-27")
def test_from_a_training_to_what_ships_and_again(tmp_path, monkeypatch, kzoo_command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for i in range(20):
        painting("glass", side=200, seed=i).save(f"photos/{i}.png")
    for name in ("strokes", "glass"):
        painting(name).save(f"{name}.png")
    options = {"size": 64, "steps": 4, "width": 4, "blocks": 1, "model": "vgg11", "weights": "random"}
    layers = {"content_layers": ["block2_conv1"], "style_layers": ["block1_conv1", "block2_conv1"]}
    kzoo.train_stylenet(["strokes.png", "glass.png"], "photos", out="net", quiet=True, **options, **layers)
    (tmp_path / "shipped").mkdir()
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "shipped")
    more = ["--photographs", "drawings", "--loss-network", "VGG-11 with random weights"]
    monkeypatch.setattr(sys, "argv", ["ship_stylenet.py", "net", "--name", "small", *more])
    runpy.run_path(str(ROOT / "scripts" / "ship_stylenet.py"))
    assert load_stylenet("small").styles == ("strokes", "glass")
    code, out, _ = kzoo_command("reproduce", "small", "--data", "photos", "--weights", "random", "--json")
    found = json.loads(out)
    assert code == 0 and found["agrees"] and found["same_data"]
    for _, known, now in found["rows"]:
        assert abs(known - now) < 0.02 * known, "but for 16 bits the same"


@pytest.mark.deep("2026-11-27")
def test_its_export_verifies(tmp_path):
    from kzoo.exporting.stylenet import export_stylenet

    report = kzoo.verify(export_stylenet("mosaic", tmp_path / "saved"))
    assert report["ok"] and len(report["checks"]) == 6
    card = json.loads((tmp_path / "saved" / "card.json").read_text())
    assert card["paints"] == {"strokes": 0.0, "mosaic": 1.0, "ink": 0.0}
