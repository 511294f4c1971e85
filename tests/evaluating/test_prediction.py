"""Prediction on files."""

import json
import struct
from pathlib import Path

import numpy as np
from PIL import Image

import kzoo
from kzoo.data.guards import npy


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


def tiff(image):
    """An uncompressed TIFF of (H, W, C) uint16: fields, the bits of each channel, pixels."""
    height, width, channels = image.shape
    end = 8 + 2 + 12 * 8 + 4
    fields = [(256, 1, width), (257, 1, height), (258, channels, end), (259, 1, 1), (262, 1, 1)]
    fields += [(273, 1, end + 4 * channels), (277, 1, channels), (279, 1, 2 * image.size)]
    entries = b"".join(struct.pack("<HHII", tag, 4, n, value) for tag, n, value in fields)
    bits = struct.pack(f"<{channels}I", *[16] * channels)
    return b"II*\0" + struct.pack("<IH", 8, 8) + entries + bytes(4) + bits + image.astype("<u2").tobytes()


def test_five_channels_of_12_bits_in_tiff_files_at_every_door(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for label, c in enumerate("ab"):
        (tmp_path / "d" / c).mkdir(parents=True)
        for i in range(12):
            image = rng.integers(0, 2000, (12, 12, 5))
            image[..., 3] = 4095 * label
            (tmp_path / "d" / c / f"{i}.tif").write_bytes(tiff(image))
    passport = kzoo.check_data(tmp_path / "d")
    assert passport.formats == {"TIFF": 24} and passport.bits == 12 and not passport.wrong_suffix
    assert any("use --bits 12" in w for w in passport.warnings)
    options = {"epochs": 3, "input_shape": (12, 12, 5), "learning_rate": 0.01, "quiet": True}
    run = kzoo.train("mnist_softmax", tmp_path / "d", out=tmp_path / "r", bits=12, **options)
    assert "use --bits" not in capsys.readouterr().err
    assert kzoo.evaluate(run, quiet=True).top1 == 1
    (tmp_path / "b.npy").write_bytes(npy(image))
    Image.new("RGB", (12, 12)).save(tmp_path / "rgb.png")
    found = list(kzoo.predict(run, [tmp_path / "d/b/11.tif", tmp_path / "b.npy", tmp_path / "rgb.png"], top=1))
    assert found[0]["top"] == found[1]["top"] and found[0]["top"][0]["class"] == "b"
    assert found[2]["error"] == "has 3 channels, the model takes 5"
