"""Checks before a pixel is decoded."""

import io

import numpy as np
import pytest
from PIL import Image
from support.photos import fails, photos

from kzoo.data import guards
from kzoo.data.guards import as_uint8, fault, foreign, is_clutter, is_picture
from kzoo.data.loading import load_data
from kzoo.errors import DataError

PHONE = bytes([0, 0, 0, 24]) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(40)


@pytest.mark.parametrize(
    "head, name, kind",
    [
        (PHONE, "a.heic", "HEIC"),
        (PHONE, "renamed.jpg", "HEIC"),
        (bytes(4) + b"ftypmif1" + bytes(4) + b"mif1heic", "a", "HEIC"),
        (bytes(4) + b"ftypmif1" + bytes(4) + b"mif1avif", "a", "AVIF"),
        (bytes(4) + b"ftypmif1" + bytes(4) + b"mif1miaf", "a", "HEIF"),
        (bytes(4) + b"ftypavif" + bytes(20), "a.avif", "AVIF"),
        (b"II+\x00\x08\x00\x00\x00" + bytes(30), "a.tif", "BigTIFF"),
        (b"II*\x00\x08\x00\x00\x00" + bytes(30), "a.NEF", "camera raw (NEF)"),
        (b"II*\x00\x10\x00\x00\x00CR\x02\x00" + bytes(30), "a.cr2", "camera raw (CR2)"),
        (bytes(4) + b"ftypcrx " + bytes(20), "a.cr3", "camera raw (CR3)"),
        (b"FUJIFILMCCD-RAW 0201", "a.raf", "camera raw (RAF)"),
        (b"\xff\x0a" + bytes(20), "a.jxl", "JPEG XL"),
        (b"%PDF-1.7", "a.pdf", "PDF"),
    ],
)
def test_formats_that_kzoo_does_not_read_are_named_with_how_to_convert_them(tmp_path, head, name, kind):
    (tmp_path / name).write_bytes(head)
    reason = fault(tmp_path / name)
    assert f" {kind} file, which kzoo does not read: convert it to JPEG or PNG, for example with " in reason
    assert fault(io.BytesIO(head)).startswith(("is a ", "is an ")) and "\n" not in reason
    assert foreign(b"\xff\xd8\xff" + bytes(30)) is None


def test_a_phones_pictures_in_a_folder_and_other_files(tmp_path):
    photos(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "a" / "IMG_1.HEIC").write_bytes(PHONE)
    (tmp_path / "b" / "letter.txt").write_text("not a picture")
    Image.new("RGB", (9, 9)).save(tmp_path / "b" / "scan.tif")
    (tmp_path / "b" / "film.tif").write_bytes((tmp_path / "b" / "scan.tif").read_bytes()[:40])
    reasons = dict(load_data(tmp_path).skipped)
    assert reasons["a/IMG_1.HEIC"].startswith("is a HEIC file") and "heif-convert" in reasons["a/IMG_1.HEIC"]
    assert "b/scan.tif" not in reasons and reasons["b/film.tif"] == "is a TIFF that is truncated or has a broken header"
    assert reasons["b/letter.txt"] == "is not a JPEG, PNG, GIF, BMP or WebP image"
    assert is_picture(tmp_path / "a" / "IMG_1.HEIC") and not is_picture(tmp_path / "b" / "letter.txt")
    (tmp_path / "a" / "000.png").rename(tmp_path / "a" / "number")
    assert is_picture(tmp_path / "a" / "number"), "by its header"


def test_clutter():
    names = "__MACOSX @eaDir Thumbs.db THUMBS.DB .DS_Store desktop.ini .ipynb_checkpoints .git lost+found $RECYCLE.BIN"
    assert all(map(is_clutter, (*names.split(), "._cat.jpg", "System Volume Information")))
    assert not any(map(is_clutter, ("cat", "thumbs", "MACOSX", "git", "cat.db")))


def test_channels_first_is_refused_by_name_and_small_pictures_are_not():
    for shape, last in (((5, 3, 16, 16), "(5, 16, 16, 3)"), ((5, 1, 28, 20), "(5, 28, 20, 1)")):
        with pytest.raises(DataError) as e:
            as_uint8(np.zeros(shape, "uint8"))
        assert f"{shape} looks channels-first: transpose to {last}" in str(e.value)
    for shape in ((5, 16, 16, 3), (5, 3, 3, 3), (5, 3, 4, 8), (5, 16, 16, 9), (5, 1, 1, 3), (5, 2, 16, 3)):
        assert as_uint8(np.zeros(shape, "uint8")).shape == shape


def test_black_pictures_are_black_and_floats_up_to_one_are_refused(tmp_path):
    assert as_uint8(np.zeros((2, 4, 4, 1), "float32")).max() == 0
    np.savez(tmp_path / "x.npz", images=np.full((6, 4, 4), 1.0), labels=np.arange(6) % 2)
    fails(tmp_path / "x.npz", "these lie in 0..1: multiply them by 255")


def test_a_glance_reads_the_beginning_only(tmp_path, monkeypatch):
    """Of large files, unless what is asked for stands behind; decoding refuses what it does not see."""
    pixels = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype("uint8")
    paths = {name: tmp_path / name for name in ("a.jpg", "b.jpg", "c.png", "d.png", "e.txt", "f.tif")}
    Image.fromarray(pixels).save(paths["a.jpg"], quality=95)
    data = paths["a.jpg"].read_bytes()
    paths["b.jpg"].write_bytes(data[:2] + b"\xff\xe2\xff\xff" + bytes(65_533) + data[2:])  # a profile in front
    Image.fromarray(pixels).save(paths["c.png"])
    paths["d.png"].write_bytes(paths["c.png"].read_bytes()[:16] + b"\x7f" * 8 + bytes(40_000))
    paths["e.txt"].write_bytes(b"a letter" * 5000)
    Image.fromarray(pixels).save(paths["f.tif"])
    assert all(path.stat().st_size > guards.HEAD for path in paths.values())
    whole, faults = [], guards.fault
    monkeypatch.setattr(guards, "fault", lambda path: whole.append(path.name) or faults(path))
    found = {name: guards.glance(path) for name, path in paths.items()}
    assert found == {name: faults(path) for name, path in paths.items()}
    assert whole == ["b.jpg", "f.tif"] and "declares" in found["d.png"] and "is not a JPEG" in found["e.txt"]
    assert guards.glance(tmp_path / "gone.jpg") == "can't be read (No such file or directory)"
