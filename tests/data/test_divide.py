"""The division into train, validation and test."""

import numpy as np
from PIL import Image
from support.photos import fails, parts_of, photos, picture

from kzoo.data.loading import load_data


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
    assert any(apart[f"a/{i:02}.jpg"] != apart[f"a/{i:02}-copy.jpg"] for i in range(12)), "else this test says nothing"


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
