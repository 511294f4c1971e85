"""Sources of data: what is found, how it is divided, and what a user reads when it can't be used."""

import gzip
import io
import os
import struct
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kzoo.data import load_data
from kzoo.data.batches import batches, prepared
from kzoo.data.sources import read_idx, read_npz
from kzoo.errors import DataError
from kzoo.spec import Preprocessing

PLAIN = Preprocessing()


def picture(seed=0, size=(12, 9)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype("uint8"))


def photos(root, counts, suffix=".png"):
    for name, n in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(n):
            picture(i).save(root / name / f"{i:03}{suffix}")
    return root


# --- found and divided ---


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


def test_a_folder_of_classes(tmp_path):
    data = load_data(photos(tmp_path, {"cat": 10, "dog": 20}))
    assert data.classes == ("cat", "dog")
    assert {k: np.bincount(s.labels).tolist() for k, s in data.splits.items()} == {
        "train": [7, 14], "val": [1, 2], "test": [2, 4],
    }  # fmt: skip


def test_folders_of_splits_keep_them(tmp_path):
    photos(tmp_path / "train", {"a": 10, "b": 10})
    photos(tmp_path / "valid", {"a": 2, "b": 1})
    data = load_data(tmp_path)
    assert {k: len(s) for k, s in data.splits.items()} == {"train": 20, "val": 3}
    assert all(i.startswith("valid") for i in data.splits["val"].ids)


def test_every_class_keeps_an_image_to_train_on(tmp_path):
    data = load_data(photos(tmp_path, {"many": 20, "one": 1}))
    assert np.bincount(data.splits["train"].labels).tolist()[1] == 1


def test_npz_and_its_classes(tmp_path):
    x = np.zeros((30, 5, 5), "uint8")
    y = np.arange(30) % 3
    np.savez(tmp_path / "a.npz", images=x, labels=y, classes=np.array(["x", "y", "z"]))
    data = load_data(tmp_path / "a.npz")
    assert data.classes == ("x", "y", "z") and data.splits["train"].images.shape[1:] == (5, 5, 1)
    np.savez(tmp_path / "b.npz", x_train=x, y_train=y, x_test=x[:3], y_test=y[:3])
    assert {k: len(v) for k, v in load_data(tmp_path / "b.npz").splits.items()} == {"train": 27, "val": 3, "test": 3}


def test_mnist_in_every_place_is_the_same_mnist(shared, monkeypatch, tmp_path):
    if not (shared / "mnist").is_dir():
        pytest.skip("needs MNIST in the shared data")
    npz = load_data("mnist")
    assert {k: len(v) for k, v in npz.splits.items()} == {"train": 54000, "val": 6000, "test": 10000}
    (tmp_path / "mnist").mkdir()
    for f in (shared / "mnist").glob("*.gz"):
        os.symlink(f, tmp_path / "mnist" / f.name)
    monkeypatch.setenv("KZOO_DATA", str(tmp_path))
    assert load_data("mnist").fingerprint() == npz.fingerprint(), "the IDX files give what the .npz gives"


@pytest.mark.slow
def test_tfds_without_a_network(shared):
    if not (shared / "tfds" / "mnist").is_dir():
        pytest.skip("needs the prepared TFDS MNIST in the shared data")
    a, b = load_data("tfds:mnist"), load_data("mnist")
    assert a.classes == b.classes and len(a.splits["test"]) == 10000
    ready, bad = prepared(a.splits["test"].take(np.arange(50)), (28, 28, 1), PLAIN)
    assert not bad and ready.images.shape == (50, 28, 28, 1)
    x = {im.tobytes() for im in b.splits["test"].images}
    assert all(im.tobytes() in x for im in ready.images), "the same digits, in another order"


def test_cifar10_from_its_archive(tmp_path, monkeypatch):
    import tarfile

    (tmp_path / "cifar10").mkdir()
    with tarfile.open(tmp_path / "cifar10" / "cifar10_jpg.tar.gz", "w:gz") as archive:
        for part, n in (("train", 10), ("test", 2)):
            for name in ("cat", "dog"):
                for i in range(n):
                    buffer = io.BytesIO()
                    picture(i, (32, 32)).save(buffer, "JPEG")
                    info = tarfile.TarInfo(f"{part}/{name}/{i}.jpg")
                    info.size = len(buffer.getvalue())
                    archive.addfile(info, io.BytesIO(buffer.getvalue()))
        evil = tarfile.TarInfo("../../evil.jpg")
        archive.addfile(evil)
    monkeypatch.setenv("KZOO_DATA", str(tmp_path))
    data = load_data("cifar10")
    assert {k: len(v) for k, v in data.splits.items()} == {"train": 18, "val": 2, "test": 4}
    assert not (tmp_path.parent / "evil.jpg").exists() and data.classes == ("cat", "dog")


# --- bad input: both halves of the error, once through the command, else its message ---


def fails(source, message, **options):
    with pytest.raises(DataError) as e:
        load_data(source, **options)
    assert message in str(e.value), str(e.value)


def test_a_path_that_does_not_exist(kzoo_command):
    code, _, err = kzoo_command("train", "mnist_softmax", "--data", "no/such/folder")
    assert code == 1 and err.startswith("Error: There is no data set 'no/such/folder'") and err.count("\n") == 1


def test_bad_folders(tmp_path):
    fails(photos(tmp_path / "a", {"only": 3}), "has 1 class; a classifier needs at least two")
    (tmp_path / "b").mkdir()
    fails(tmp_path / "b", "has no class folders")
    photos(tmp_path / "c", {"x": 3, "y": 0})
    fails(tmp_path / "c", "no usable image of class 'y'")
    (tmp_path / "d.txt").write_text("hello")
    fails(tmp_path / "d.txt", "neither a folder nor an .npz")
    fails("digits", "val_fraction must be in [0, 1)", val_fraction=1.5)


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


def test_truncated_images_are_found_when_they_are_read(tmp_path):
    photos(tmp_path, {"a": 4, "b": 4}, ".jpg")
    whole = (tmp_path / "a" / "000.jpg").read_bytes()
    (tmp_path / "a" / "000.jpg").write_bytes(whole[:-40])
    data = load_data(tmp_path, val_fraction=0, test_fraction=0)
    ready, bad = prepared(data.splits["train"], (8, 8, 3), PLAIN)
    assert [name for name, _ in bad] == ["a/000.jpg"] and "can't be decoded" in bad[0][1]
    assert len(ready) == 7 and ready.images.shape == (7, 8, 8, 3) and ready.ids == data.splits["train"].ids[1:]


def test_loops_and_links_give_each_file_once(tmp_path):
    photos(tmp_path, {"a": 3, "b": 3})
    os.symlink(tmp_path, tmp_path / "a" / "loop")
    os.symlink(tmp_path / "a" / "000.png", tmp_path / "a" / "again.png")
    data = load_data(tmp_path)
    assert sum(len(s) for s in data.splits.values()) == 6


def test_bad_arrays(tmp_path):
    def npz(**arrays):
        np.savez(tmp_path / "x.npz", **arrays)
        return tmp_path / "x.npz"

    x, y = np.zeros((6, 4, 4, 3), "uint8"), np.array([0, 1, 2] * 2)
    fails(npz(images=x, labels=y - 1), "there is a -1 in all")
    fails(npz(images=x, labels=y, classes=np.array(["p", "q"])), "labels are 0 to 1, but there is a 2")
    fails(npz(images=x, labels=y.astype(float)), "must be whole numbers")
    fails(npz(images=x, labels=y[:5]), "6 images but 5 labels")
    fails(npz(images=x[0, 0, 0], labels=y), "must be an array (N, H, W)")
    fails(npz(images=x + np.nan, labels=y), "must lie in 0..255")
    fails(npz(images=np.full((6, 4, 4), 0.5), labels=y), "multiply them by 255")
    fails(npz(pictures=x), "must hold x_train and y_train")
    fails(npz(images=x, labels=np.array(list("abcabc"), object)), "pickled objects")
    (tmp_path / "junk.npz").write_bytes(b"PK\x03\x04 and then nothing")
    fails(tmp_path / "junk.npz", "no readable .npz")


def test_an_npz_that_declares_more_than_it_holds_is_refused(tmp_path):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"shape": (10**6, 10**6), "fortran_order": False, "descr": "|u1"})
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        archive.writestr("images.npy", buffer.getvalue())
    with pytest.raises(DataError, match="declares arrays"):
        read_npz(tmp_path / "bomb.npz")


@pytest.mark.parametrize("keep", [0, 3, 8, 15, 30])
def test_truncated_idx_files_are_named(tmp_path, keep):
    raw = struct.pack(">HBBIII", 0, 8, 3, 2, 5, 5) + bytes(50)
    with gzip.open(tmp_path / "a.gz", "wb") as f:
        f.write(raw)
    assert read_idx(tmp_path / "a.gz").shape == (2, 5, 5)
    with gzip.open(tmp_path / "b.gz", "wb") as f:
        f.write(raw[:keep])
    with pytest.raises(DataError, match=r"b\.gz"):
        read_idx(tmp_path / "b.gz")


def test_channels_that_do_not_fit_are_said(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((6, 4, 4, 2), "uint8"), labels=[0, 1] * 3)
    split = load_data(tmp_path / "x.npz").splits["train"]
    with pytest.raises(DataError, match="have 2 channels, the model takes 3"):
        prepared(split, (4, 4, 3), PLAIN)


# --- batches ---


def test_batches_visit_each_image_once_in_an_order_of_seed_and_epoch():
    split = load_data("digits").splits["val"]

    def seen(seed, epoch):
        got = batches(split, (8, 8, 1), PLAIN, 32, num_classes=10, order=(seed, epoch))
        assert [len(y) for _, y in got] == [32, 32, 32, 32, 32, 20]
        return np.concatenate([x for x, _ in got])

    first, second = seen(0, 0), seen(0, 1)
    assert not np.array_equal(first, second)
    key = lambda a: sorted(im.tobytes() for im in a)  # noqa: E731
    assert key(first) == key(second) == key(split.images)
    assert not np.array_equal(seen(1, 0), first)
    epoch = tf.Variable(0, dtype=tf.int64)
    data = batches(split, (8, 8, 1), PLAIN, 32, num_classes=10, order=(0, epoch))
    for number, expected in ((0, first), (1, second)):
        epoch.assign(number)
        np.testing.assert_array_equal(np.concatenate([x for x, _ in data]), expected)


def test_images_too_large_to_keep_are_prepared_on_the_way(tmp_path, monkeypatch):
    from kzoo.data import batches as module

    data = load_data(photos(tmp_path, {"a": 6, "b": 6}), val_fraction=0, test_fraction=0).splits["train"]
    kept, _ = prepared(data, (8, 8, 3), PLAIN)
    monkeypatch.setattr(module, "MEMORY", 10)
    on_disk, bad = prepared(data, (8, 8, 3), PLAIN)
    assert isinstance(on_disk.images, np.memmap) and not bad
    monkeypatch.setattr(module, "DISK", 10)
    on_the_way, bad = prepared(data, (8, 8, 3), PLAIN)
    assert on_the_way.files and not bad
    get = lambda s: np.concatenate([x for x, _ in batches(s, (8, 8, 3), PLAIN, 5, num_classes=2)])  # noqa: E731
    np.testing.assert_array_equal(get(kept), get(on_disk))
    np.testing.assert_array_equal(get(kept), get(on_the_way))


def test_a_disk_that_fills_while_images_are_kept_there_costs_time_only(tmp_path, monkeypatch):
    from kzoo.data import batches as module

    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    data = load_data(photos(tmp_path, {"a": 3, "b": 3}), val_fraction=0, test_fraction=0).splits["train"]
    monkeypatch.setattr(module, "MEMORY", 10)
    monkeypatch.setattr(module.tempfile, "TemporaryFile", Full)
    on_the_way, bad = prepared(data, (8, 8, 3), PLAIN)
    assert on_the_way.files and len(on_the_way) == 6 and not bad
