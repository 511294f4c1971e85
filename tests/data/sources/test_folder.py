"""Folders of classes, with and without folders of parts."""

import os

import numpy as np
import pytest
from support.photos import fails, photos, picture

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


def sizes(root, **options):
    data = load_data(root, **options)
    return {part: len(split) for part, split in data.splits.items()}, data


@pytest.mark.parametrize(
    "train, val, test",
    [
        ("Training", None, "Testing"),
        ("train", "dev", "test"),
        ("TRAIN", "validate", "Holdout"),
        ("train", "eval", None),
        ("seg_train/seg_train", None, "seg_test/seg_test"),
        ("train_images", "val-images", "test images"),
        ("data/set/train", "data/set/valid", "data/set/test"),
        ("train/images", "validation/images", "testing/testing"),
    ],
)
def test_parts_under_every_name_and_behind_wrappers(tmp_path, train, val, test):
    photos(tmp_path / train, {"a": 9, "b": 9})
    for name in filter(None, (val, test)):
        photos(tmp_path / name, {"a": 4, "b": 3})
    found, data = sizes(tmp_path)
    given = {"train": 18, "val": 7} if val else {"train": 16, "val": 2}
    assert found == {**given, **({"test": 7} if test else {})}
    assert data.classes == ("a", "b") and not data.skipped
    for split in data.splits.values():
        assert [os.path.join(tmp_path, id) for id in split.ids] == split.images


def test_wrappers_of_undivided_classes(tmp_path):
    photos(tmp_path / "w" / "images" / "all", {"a": 5, "b": 5})
    picture().save(tmp_path / "w" / "cover.png")
    found, data = sizes(tmp_path / "w")
    assert found == {"train": 7, "val": 1, "test": 2} and data.classes == ("a", "b")
    assert data.skipped == [("cover.png", "lies outside the class folders")]
    (tmp_path / "loop").mkdir()
    os.symlink(tmp_path / "loop", tmp_path / "loop" / "again")
    fails(tmp_path / "loop", "has 1 class")


def test_what_is_not_used_is_listed(tmp_path):
    for name in ("train", "val"):
        photos(tmp_path / name, {"a": 6, "b": 6})
    photos(tmp_path, {"test": 5})
    photos(tmp_path / "extra", {"a": 2, "c": 1})
    picture().save(tmp_path / "train" / "stray.png")
    picture().save(tmp_path / "cover.png")
    (tmp_path / "README.md").write_text("no picture")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "a.xml").write_text("<a/>")
    found, data = sizes(tmp_path)
    assert found == {"train": 12, "val": 12} and data.classes == ("a", "b")
    assert dict(data.skipped) == {
        "cover.png": "lies outside the class folders",
        "train/stray.png": "lies outside the class folders",
        **{f"test/00{i}.png": "lies outside the class folders" for i in range(5)},
        **{
            f"extra/{n}.png": "lies in extra/, which is none of the parts test, train, val"
            for n in ("a/000", "a/001", "c/000")
        },
    }
    fails(tmp_path, "10 unusable files: cover.png lies outside", strict=True)


def test_a_part_without_pictures_or_without_a_class_is_named(tmp_path):
    photos(tmp_path / "train", {"a": 10, "b": 10})
    photos(tmp_path / "val", {"a": 0, "b": 0})
    photos(tmp_path / "test", {"a": 4})
    found, data = sizes(tmp_path)
    assert found == {"train": 18, "val": 2, "test": 4}
    assert data.skipped == [("val", "holds no usable picture, so there is no val part")]
    from kzoo.data.passport import check_data

    assert "No image in test: b." in check_data(tmp_path).warnings
    photos(tmp_path / "test", {"unknown": 2})
    fails(tmp_path, "no usable image of class 'unknown' to train on")
    fails(tmp_path, "('unknown' is only in test.)")
    photos(tmp_path / "train", {"empty": 0})
    fails(tmp_path, "no usable image of class 'empty', 'unknown' to train on")


def test_what_can_be_read_in_two_ways_is_refused_with_the_choice(tmp_path):
    photos(tmp_path / "1" / "train", {"day": 3, "night": 3})
    photos(tmp_path / "1", {"bus": 3, "car": 3})
    fails(tmp_path / "1", "has train/ beside bus/, car/, which can be read in two ways. If train is the training part")
    photos(tmp_path / "2", {"cat": 3, "dog": 3, "test": 3})
    fails(tmp_path / "2", "has test/ beside cat/, dog/, which can be read in two ways")
    photos(tmp_path / "3" / "test", {"cat": 3, "dog": 3})
    photos(tmp_path / "3", {"cat": 3, "dog": 3})
    fails(tmp_path / "3", "If test is the test part, put the class folders of each part into train/")
    for name in ("cat", "dog"):
        photos(tmp_path / "4" / name, {"train": 3, "test": 3})
    fails(tmp_path / "4", "cat' holds test/, train/, so it would be a class with parts in it")
    photos(tmp_path / "5" / "train_a", {"a": 3, "b": 3})
    photos(tmp_path / "5" / "train_b", {"a": 3, "b": 3})
    photos(tmp_path / "5" / "test", {"a": 3, "b": 3})
    fails(tmp_path / "5", "has train_a/ and train_b/, which mean the same part")
    photos(tmp_path / "6" / "test", {"a": 3, "b": 3})
    fails(tmp_path / "6", "has no training part, only test")
    for n, names in enumerate((("fold1", "fold2", "fold_3"), ("images", "resized"))):
        for name in names:
            photos(tmp_path / f"8{n}" / name, {"a": 3, "b": 3})
        fails(tmp_path / f"8{n}", "with the same folders (a/, b/) in each, so they would be the classes")
    for name in ("cat", "dog"):
        photos(tmp_path / "9" / name, {"day": 3, "night": 3})
    assert load_data(tmp_path / "9").classes == ("cat", "dog"), "classes may have folders in them"
    for n, names in enumerate((("valid", "invalid"), ("freight_train", "test_tube"), ("training", "resting"))):
        photos(tmp_path / f"7{n}", dict.fromkeys(names, 5))
        assert load_data(tmp_path / f"7{n}").classes == tuple(sorted(names)), "classes may have such names"


def test_clutter_is_no_class_and_no_part(tmp_path):
    photos(tmp_path / "train", {"a": 5, "b": 5, "@eaDir": 2, ".ipynb_checkpoints": 2})
    photos(tmp_path / "__MACOSX" / "train", {"a": 5, "b": 5})
    photos(tmp_path, {"$RECYCLE.BIN": 2, "lost+found": 0})
    (tmp_path / "train" / "a" / "Thumbs.db").write_text("x")
    (tmp_path / "train" / "a" / "._000.png").write_text("x")
    found, data = sizes(tmp_path)
    assert found == {"train": 9, "val": 1} and data.classes == ("a", "b") and not data.skipped


def test_files_in_two_places_count_once_in_each_part_and_are_named(tmp_path, capsys):
    """Links, hard links and oversampling by links."""
    photos(tmp_path / "train", {"a": 9, "b": 9})
    for name in "ab":
        (tmp_path / "val" / name).mkdir(parents=True)
        for i in range(3):
            link = os.symlink if name == "a" else os.link
            link(tmp_path / "train" / name / f"00{i}.png", tmp_path / "val" / name / f"{i}.png")
        os.link(tmp_path / "train" / name / "000.png", tmp_path / "train" / name / "again.png")
    os.symlink(tmp_path / "train" / "a" / "001.png", tmp_path / "train" / "b" / "wrong.png")
    os.symlink(tmp_path / "train", tmp_path / "test")
    found, data = sizes(tmp_path)
    assert found == {"train": 18, "val": 6, "test": 18}
    assert data.skipped[:3] == [
        ("train/a/again.png", "is the same file as train/a/000.png"),
        ("train/b/again.png", "is the same file as train/b/000.png"),
        ("train/b/wrong.png", "is the same file as train/a/001.png, which has another label"),
    ]
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("Warning: 6 files are in train and in val (train/a/000.png and val/a/0.png)")
    assert said[1].startswith("Warning: 18 files are in train and in test") and len(said) == 3
    from kzoo.data.passport import check_data

    passport = check_data(tmp_path)
    assert {id for d in passport.across for id in d["ids"]} == {id for s in data.splits.values() for id in s.ids}
    assert not passport.ok and "of duplicates across splits: the result will look better" in passport.warnings[0]


def test_spellings_of_a_class_are_merged_or_refused(tmp_path):
    photos(tmp_path / "a" / "train", {"caf\u00e9": 5, "b": 5})
    photos(tmp_path / "a" / "test", {"cafe\u0301": 4, "b": 4})
    found, data = sizes(tmp_path / "a")
    assert data.classes == ("b", "caf\u00e9") and found["test"] == 8
    assert np.bincount(data.splits["test"].labels).tolist() == [4, 4]
    assert "test/cafe\u0301/000.png" in data.splits["test"].ids, "as on disk"
    photos(tmp_path / "b" / "train", {"Red": 5, "b": 5})
    photos(tmp_path / "b" / "test", {"red": 4, "b": 4})
    fails(tmp_path / "b", "has the classes 'Red' and 'red', which differ only in case")


def test_every_name_that_the_file_system_allows_is_read(tmp_path):
    root = photos(tmp_path / "a[1]*?" / "new\nline", {"x[0]": 5, "y\n*": 5})
    found, data = sizes(root)
    assert sum(found.values()) == 10 and data.classes == ("x[0]", "y\n*") and not data.skipped


def test_parts_in_one_word_and_with_numbers_are_parts(tmp_path):
    for name in ("trainset", "TestImages", "val2017"):
        photos(tmp_path / "d" / name, {"a": 4, "b": 4})
    assert {k: len(s) for k, s in load_data(tmp_path / "d").splits.items()} == {"train": 8, "val": 8, "test": 8}
    photos(tmp_path / "d" / "train2", {"a": 4, "b": 4})
    fails(tmp_path / "d", "train2/ and trainset/, which mean the same part")


def test_a_part_in_each_class_and_a_class_in_a_class_are_refused(tmp_path):
    for year in ("2023", "2024"):
        photos(tmp_path / "d" / year / "train", {"a": 4, "b": 4})
    fails(tmp_path / "d", "2023' holds train/, so it would be a class with parts in it")
    photos(tmp_path / "vehicles", {"road/car": 3, "rail/train": 3})  # a train of the other kind
    assert load_data(tmp_path / "vehicles").classes == ("rail", "road")
    photos(tmp_path / "e", {"cat": 4, "dog": 4, "dog/cat": 1, "dog/dog": 1})
    fails(tmp_path / "e", "lies in the class dog and has the name of another class")
