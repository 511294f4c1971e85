"""Prediction on files."""

import json
from pathlib import Path

from PIL import Image

import kzoo


def test_predict_files(trained, tmp_path, kzoo_command):
    data = kzoo.load_data("digits").splits["test"]
    for i in range(3):
        Image.fromarray(data.images[i, ..., 0]).save(tmp_path / f"{i}.png")
    (tmp_path / "note.txt").write_text("no image")
    code, out, err = kzoo_command("predict", trained, tmp_path, "--json", "--top", "2")
    results = json.loads(out)
    assert code == 1 and "1 of 4 images could not be read" in err
    assert [Path(r["image"]).name for r in results] == ["0.png", "1.png", "2.png", "note.txt"]
    assert "error" in results[3] and all(len(r["top"]) == 2 for r in results[:3])
    code, out, err = kzoo_command("predict", trained, tmp_path / "0.png")
    assert code == 0 and out.count("%") == 5 and err == ""
    code, _, err = kzoo_command("predict", trained, tmp_path / "nothing.png")
    assert code == 1 and "There is no file" in err
    code, _, err = kzoo_command("predict", tmp_path, tmp_path / "0.png")
    assert code == 1 and "not a kzoo run" in err


def test_a_folder_with_clutter_and_an_odd_name(trained, tmp_path):
    folder = tmp_path / "a[1]*?\nx"
    folder.mkdir()
    Image.new("L", (8, 8)).save(folder / "[0].png")
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._[0].png"):
        (folder / name).write_bytes(b"clutter")
    for name in ("@eaDir", "__MACOSX"):
        (folder / name).mkdir()
    (row,) = kzoo.predict(trained, folder)
    assert row["image"] == str(folder / "[0].png") and len(row["top"]) == 5
    (row,) = kzoo.predict(trained, folder / "Thumbs.db")  # asked for by name, it is answered
    assert row["error"] == "is not a JPEG, PNG, GIF, BMP or WebP image"
