"""Loading data: what a user reads when it can't be used."""

import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from support.photos import fails, photos

from kzoo.data.dataset import DataSet, Split
from kzoo.data.loading import load_data, read_data
from kzoo.data.sources import SOURCES
from kzoo.errors import DataError


def test_a_path_that_does_not_exist(kzoo_command):
    code, _, err = kzoo_command("train", "mnist_softmax", "--data", "no/such/folder")
    assert code == 1 and err.startswith("Error: There is no data set 'no/such/folder'") and err.count("\n") == 1


@pytest.mark.parametrize("name", ["none.npz", "none.csv", "none.tsv"])
def test_a_file_that_does_not_exist(name):
    fails(name, f"There is no data set '{name}'")


def test_data_that_was_in_memory_is_asked_for_again():
    fails("arrays", "are needed again: data=(images, labels)")  # what the config.json of such a run has


def test_a_kind_of_source_may_need_no_file(monkeypatch):
    split = Split(np.zeros((20, 4, 4, 1), "uint8"), np.arange(20) % 2, [*map(str, range(20))])
    module = SimpleNamespace(matches="stripes".__eq__, read=lambda name: DataSet(name, ("a", "b"), {"all": split}))
    monkeypatch.setitem(SOURCES, "stripes", "stripes, which are drawn")
    monkeypatch.setitem(sys.modules, "kzoo.data.sources.stripes", module)
    assert len(load_data("stripes").whole()) == 20


def test_unreadable_images_are_listed_and_left_out_or_refused(tmp_path):
    photos(tmp_path, {"a": 5, "b": 5})
    (tmp_path / "a" / "empty.jpg").touch()
    (tmp_path / "a" / "text.jpg").write_text("not an image, whatever its name says")
    (tmp_path / "b" / "cut\nname.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    data = load_data(tmp_path)
    reasons = dict(data.skipped)
    assert len(reasons) == 3 and reasons["a/empty.jpg"] == "is empty"
    assert "not a JPEG" in reasons["a/text.jpg"]
    assert sum(len(s) for s in data.splits.values()) == 10
    fails(tmp_path, "3 unusable files: a/empty.jpg is empty", strict=True)
    with pytest.raises(DataError) as e:
        load_data(tmp_path, strict=True)
    assert "\n" not in str(e.value), "a newline in a name does not break the line"


def test_a_small_file_that_declares_a_huge_picture_is_refused_from_its_header(tmp_path):
    photos(tmp_path, {"a": 3, "b": 3})
    raw = bytearray((tmp_path / "a" / "000.png").read_bytes())
    raw[16:24] = struct.pack(">II", 50_000, 50_000)
    import zlib

    raw[29:33] = struct.pack(">I", zlib.crc32(bytes(raw[12:29])))
    (tmp_path / "a" / "bomb.png").write_bytes(raw)
    ((name, reason),) = load_data(tmp_path).skipped
    assert name == "a/bomb.png" and "pixels" in reason


def test_reprs_fit_into_a_line():
    data = load_data("digits")
    assert repr(data) == "<DataSet digits: 10 classes; 1,258 train, 180 val, 359 test>"
    assert repr(data.splits["val"]) == "<Split of 180 images: uint8 arrays of (8, 8, 1)>"


def test_a_class_with_a_mark_between_labels_in_its_name_is_refused_for_several_labels(tmp_path):
    """kzoo predict writes "a; b", which would be read as two labels."""
    images = np.zeros((4, 2, 2), "uint8") + np.arange(4, dtype="uint8")[:, None, None]
    several = {"images": images, "labels": np.array([[1, 1], [0, 1], [0, 0], [1, 0]])}
    for name in ("cat;dog", "cat|dog"):
        np.savez(tmp_path / "x.npz", classes=np.array([name, "frog"]), **several)
        with pytest.raises(DataError, match="stand between several labels: rename it"):
            read_data(tmp_path / "x.npz")
    one = {**several, "labels": np.array([0, 1, 1, 0])}
    np.savez(tmp_path / "y.npz", classes=np.array(["cat;dog", "frog"]), **one)
    assert read_data(tmp_path / "y.npz").classes == ("cat;dog", "frog")
