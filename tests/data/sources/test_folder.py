"""Folders of classes, with and without folders of parts."""

import os

import numpy as np
import pytest
from support.photos import fails, photos

from kzoo.data.loading import load_data
from kzoo.errors import DataError


def test_a_folder_of_classes(tmp_path):
    data = load_data(photos(tmp_path, {"cat": 10, "dog": 20}))
    assert data.classes == ("cat", "dog")
    assert {k: np.bincount(s.labels).tolist() for k, s in data.splits.items()} == {
        "train": [7, 14],
        "val": [1, 2],
        "test": [2, 4],
    }


def test_folders_of_splits_keep_them(tmp_path):
    photos(tmp_path / "train", {"a": 10, "b": 10})
    photos(tmp_path / "valid", {"a": 2, "b": 1})
    data = load_data(tmp_path)
    assert {k: len(s) for k, s in data.splits.items()} == {"train": 20, "val": 3}
    assert all(i.startswith("valid") for i in data.splits["val"].ids)


def test_names_that_are_no_utf_8_have_a_fingerprint(tmp_path):
    data = load_data(photos(tmp_path, {os.fsdecode(b"caf\xe9"): 3, "b": 3}))
    assert len(data.fingerprint()) == 64


def test_folders_that_cannot_be_read_are_said(tmp_path, monkeypatch):
    photos(tmp_path, {"a": 4, "b": 4})
    (tmp_path / "a" / "inner").mkdir()
    real = os.scandir

    def refuse(path):
        if str(path).endswith("inner"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert load_data(tmp_path).skipped == [("a/inner", "can't be read (Permission denied)")]
    with pytest.raises(DataError, match="a/inner"):
        load_data(tmp_path, strict=True)


def test_a_class_may_be_called_train(tmp_path):
    data = load_data(photos(tmp_path, {"bus": 5, "car": 5, "train": 5}))
    assert data.classes == ("bus", "car", "train") and set(data.splits) == {"train", "val", "test"}


def test_two_folders_for_one_part_and_parts_without_classes(tmp_path):
    for name in ("train", "val", "validation"):
        photos(tmp_path / "two" / name, {"a": 3, "b": 3})
    fails(tmp_path / "two", "has val/ and validation/, which mean the same part")
    photos(tmp_path / "none", {"train": 3, "test": 3})
    fails(tmp_path / "none", "has no class folders")


def test_bad_folders(tmp_path):
    fails(photos(tmp_path / "a", {"only": 3}), "has 1 class; a classifier needs at least two")
    (tmp_path / "b").mkdir()
    fails(tmp_path / "b", "has no class folders")
    photos(tmp_path / "c", {"x": 3, "y": 0})
    fails(tmp_path / "c", "no usable image of class 'y'")
    (tmp_path / "d.txt").write_text("hello")
    fails(tmp_path / "d.txt", "is not a kind of data set that kzoo reads")
    fails("digits", "val_fraction must be in [0, 1)", val_fraction=1.5)
    fails("digits", "leave nothing to train on", val_fraction=0.5, test_fraction=0.5)


def test_loops_and_links_give_each_file_once(tmp_path):
    photos(tmp_path, {"a": 3, "b": 3})
    os.symlink(tmp_path, tmp_path / "a" / "loop")
    os.symlink(tmp_path / "a" / "000.png", tmp_path / "a" / "again.png")
    data = load_data(tmp_path)
    assert sum(len(s) for s in data.splits.values()) == 6
