"""The division into train, validation and test."""

import os

import numpy as np
from PIL import Image
from support import tags
from support.photos import fails, parts_of, photos, picture

from kzoo.data import divide
from kzoo.data.dataset import DataSet, Split
from kzoo.data.loading import load_data
from kzoo.files import sha256


def test_digits_are_divided_evenly_and_the_same_every_time():
    a, b, c = load_data("digits"), load_data("digits"), load_data("digits", seed=1)
    assert {k: len(v) for k, v in a.splits.items()} == {"train": 1258, "val": 180, "test": 359}
    assert a.fingerprint() == b.fingerprint() != c.fingerprint()
    ids = [set(s.ids) for s in a.splits.values()]
    assert len(set.union(*ids)) == 1797 == sum(map(len, ids)), "no image is in two splits"
    for split in a.splits.values():  # stratified: 10 classes, nearly equal
        counts = np.bincount(split.labels, minlength=10)
        assert counts.max() - counts.min() <= 0.1 * counts.mean() + 2
    assert a.splits["train"].images.dtype == np.uint8 and a.splits["train"].images.max() == 255


def test_every_class_keeps_an_image_to_train_on(tmp_path):
    data = load_data(photos(tmp_path, {"many": 20, "one": 1}))
    assert np.bincount(data.splits["train"].labels).tolist()[1] == 1


def test_duplicates_stay_in_one_part(tmp_path):
    """Twelve pictures of each class, of each an exact and a smaller, newly encoded copy."""
    for k, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        for i in range(12):
            one = picture(100 * k + i, (8, 8)).resize((160, 120), Image.Resampling.BICUBIC)
            one.save(tmp_path / name / f"{i:02}.jpg", quality=95)
            (tmp_path / name / f"{i:02}-copy.jpg").write_bytes((tmp_path / name / f"{i:02}.jpg").read_bytes())
            one.resize((100, 75)).save(tmp_path / name / f"{i:02}-small.png")
    data = load_data(tmp_path, group_duplicates=True, val_fraction=0.2, seed=3)
    where = parts_of(data)
    assert len(where) == 72
    for name in "ab":
        for i in range(12):
            assert len({where[f"{name}/{i:02}{end}"] for end in (".jpg", "-copy.jpg", "-small.png")}) == 1
    for part, share in (("test", 0.2), ("val", 0.2)):
        counts = np.bincount(data.splits[part].labels, minlength=2)
        assert (abs(counts - share * 36) <= 3).all(), counts
    assert data.fingerprint() == load_data(tmp_path, group_duplicates=True, val_fraction=0.2, seed=3).fingerprint()
    apart = parts_of(load_data(tmp_path, val_fraction=0.2, seed=3))
    assert any(apart[f"a/{i:02}.jpg"] != apart[f"a/{i:02}-small.png"] for i in range(12)), "else this test says nothing"


def test_without_duplicates_group_duplicates_changes_nothing(tmp_path):
    root = photos(tmp_path, {"a": 15, "b": 9})
    for i, path in enumerate(sorted(root.rglob("*.png"))):
        picture(50 + i).save(path)
    assert load_data(root, group_duplicates=True).fingerprint() == load_data(root).fingerprint()
    assert load_data(root, group_duplicates=True, seed=5).fingerprint() == load_data(root, seed=5).fingerprint()


def test_contradictory_duplicates_stay_in_training_and_undecodable_files_stay_out(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (40, 9, 9, 3)).astype("uint8")
    y = np.arange(40) % 2
    x[1] = x[0]
    x[39] = x[0]
    np.savez(tmp_path / "a.npz", images=x, labels=y)
    for seed in range(8):
        where = parts_of(
            load_data(tmp_path / "a.npz", group_duplicates=True, seed=seed, val_fraction=0.4, test_fraction=0.4)
        )
        assert {where[f"all/{i}"] for i in (0, 1, 39)} == {"train"}
    photos(tmp_path / "p", {"a": 6, "b": 6}, ".jpg")
    whole = (tmp_path / "p" / "a" / "000.jpg").read_bytes()
    (tmp_path / "p" / "a" / "000.jpg").write_bytes(whole[:-60])
    data = load_data(tmp_path / "p", group_duplicates=True)
    assert data.skipped == [("a/000.jpg", "is truncated (the file ends before the picture)")]
    assert "a/000.jpg" not in parts_of(data)
    fails(tmp_path / "p", "1 unusable file: a/000.jpg is truncated", group_duplicates=True, strict=True)


def test_equal_copies_stay_together_wherever_kzoo_divides_as_the_check_describes_it(tmp_path):
    """Files that are copied, and rows of arrays; `kzoo train` and `kzoo data check` divide them alike."""
    photos(tmp_path / "p", {"a": 20, "b": 20})
    for path in sorted((tmp_path / "p").rglob("*.png")):
        (path.parent / f"{path.stem}-copy.png").write_bytes(path.read_bytes())
    os.rename(tmp_path / "p" / "b" / "000-copy.png", tmp_path / "p" / "a" / "wrong.png")
    x = np.random.default_rng(0).integers(0, 256, (40, 5, 5, 3)).astype("uint8")
    np.savez(tmp_path / "a.npz", images=np.concatenate([x, x]), labels=np.r_[np.arange(40) % 2, np.arange(40) % 2])
    np.savez(tmp_path / "b.npz", x_train=np.concatenate([x, x]), y_train=np.r_[np.arange(40) % 2, np.arange(40) % 2])
    for seed in range(3):
        data = load_data(tmp_path / "p", seed=seed, val_fraction=0.2)
        where = parts_of(data)
        for name in "ab":
            for i in range(1, 20):
                assert where[f"{name}/{i:03}.png"] == where[f"{name}/{i:03}-copy.png"]
        assert where["b/000.png"] == where["a/wrong.png"] == "train", "one of the labels is wrong, so neither measures"
        assert set(where.values()) == {"train", "val", "test"} and len(where) == 80
        checked = load_data(tmp_path / "p", seed=seed, val_fraction=0.2, group_duplicates=True)
        assert checked.fingerprint() == data.fingerprint()
        for file, part in (("a.npz", "all"), ("b.npz", "train")):
            where = parts_of(load_data(tmp_path / file, seed=seed, val_fraction=0.3))
            assert all(where[f"{part}/{i}"] == where[f"{part}/{i + 40}"] for i in range(40))
            assert len(set(where.values())) == (3 if part == "all" else 2)
        apart = parts_of(load_data(tmp_path / "p", seed=seed, val_fraction=0.2, division=1))
        assert any(apart[f"a/{i:03}.png"] != apart[f"a/{i:03}-copy.png"] for i in range(20)), "the rules of 0.1.0"
    fails(tmp_path / "p", "knows the rules of division 1 and 2, not 3", division=3)


def test_only_files_of_one_size_are_read_to_find_copies(tmp_path, monkeypatch):
    names = {"1": b"one", "2": b"two", "3": b"three", "4": b"one"}
    for name, content in names.items():
        (tmp_path / name).write_bytes(content)
    read = []
    monkeypatch.setattr(divide, "sha256", lambda path: read.append(path) or sha256(path))
    paths = [str(tmp_path / n) for n in (*names, "gone", "gone")]
    assert divide.copies(Split(paths, np.zeros(6, int), list("123456"))).tolist() == [0, 1, 2, 0, 4, 5]
    assert sorted(read) == [paths[0], paths[3]], "the end of the other one differs"


def test_a_part_that_copies_leave_empty_is_named(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", images=np.zeros((30, 5, 5), "uint8"), labels=np.arange(30) % 3)
    assert set(load_data(tmp_path / "a.npz").splits) == {"train"}
    said = capsys.readouterr().err
    assert "has no val part: there are too few images that are no copies of others" in said and "no test part" in said


def test_several_labels_are_divided_by_their_rarest_and_copies_stay_together(tmp_path):
    images, labels = tags.drawn(200, seed=1)
    labels[:, 0] &= np.arange(200) < 60  # rare
    images[100:110], labels[100:110] = images[:10], labels[:10]  # copies
    images[110], labels[110] = images[10], 1 - labels[10]  # a copy with other labels
    np.savez(tmp_path / "x.npz", images=images, labels=labels)
    data, again = load_data(tmp_path / "x.npz"), load_data(tmp_path / "x.npz")
    assert data.fingerprint() == again.fingerprint() != load_data(tmp_path / "x.npz", seed=1).fingerprint()
    where = parts_of(data)
    assert len(where) == 200 and all(where[f"all/{i}"] == where[f"all/{100 + i}"] for i in range(10))
    assert where["all/10"] == where["all/110"] == "train"
    for k in range(3):
        total = labels[:, k].sum()
        for part, share in (("test", 0.2), ("val", 0.1)):
            assert abs(data.splits[part].labels[:, k].sum() - share * total) <= 0.04 * total + 2, (k, part)
    nothing = sum(int((~s.labels.any(1)).sum()) for s in data.splits.values())
    assert abs(int((~data.splits["test"].labels.any(1)).sum()) - 0.2 * nothing) <= 3


def test_every_label_keeps_an_image_to_train_on():
    """The images of "a" are all drawn as one of rarer classes, and half of everything is drawn."""
    labels = np.array([[1, 1, 0], [1, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 0], [0, 0, 1]] + [[0, 0, 0]] * 6, "uint8")
    for seed in range(20):
        data = DataSet(
            "x", tuple("abc"), {"all": Split(np.arange(12 * 4).reshape(12, 2, 2, 1), labels, list("abcdefghijkl"))}
        )
        divided = divide.divide(data, 0.3, 0.5, seed)
        assert divided.splits["train"].labels.any(0).all()
