"""Sources of data: what is found, how it is divided, and what a user reads when it can't be used."""

import gzip
import io
import os
import struct
import sys
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kzoo.catalog import Preprocessing
from kzoo.data.batches import batches, decode_split
from kzoo.data.dataset import Split
from kzoo.data.loading import load_data
from kzoo.data.sources.arrays import load_arrays, read_idx
from kzoo.errors import DataError

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
    ready, bad = decode_split(a.splits["test"].take(np.arange(50)), (28, 28, 1), PLAIN)
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


def test_cifar10_from_its_own_binary_version(tmp_path, monkeypatch):
    import tarfile

    def pack(files):
        with tarfile.open(tmp_path / "cifar10" / "cifar-10-binary.tar.gz", "w:gz") as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))

    monkeypatch.setenv("KZOO_DATA", str(tmp_path))
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "cifar10_jpg.tar.gz").write_bytes(b"worse, and not looked at")
    red = bytes([255]) * 1024 + bytes(2048)
    corner = bytes(1024) + bytes([0, 7]) + bytes(1022) + bytes(1024)  # green 7 in the second pixel of the first row
    records = b"".join(bytes([i]) + (red if i != 3 else corner) for i in range(10))
    files = {f"data_batch_{i}.bin": records * 2 for i in range(1, 6)} | {"test_batch.bin": records}
    pack({"batches.meta.txt": b"airplane\n", **files})
    data = load_data("cifar10")
    assert {k: len(v) for k, v in data.splits.items()} == {"train": 90, "val": 10, "test": 10}
    assert data.classes[3] == "cat"
    test = data.splits["test"]
    assert test.images.shape == (10, 32, 32, 3) and test.labels.tolist() == list(range(10))
    assert (test.images[0] == [255, 0, 0]).all() and test.images[3, 0, 1].tolist() == [0, 7, 0]
    assert test.images[3].sum() == 7

    for wrong, message in (
        ({k: v for k, v in files.items() if k != "data_batch_4.bin"}, "lacks data_batch_4.bin"),
        ({**files, "test_batch.bin": records[:-1]}, "not a multiple of 3073"),
        ({**files, "test_batch.bin": bytes([10]) + red}, "there is a 10 in test"),
    ):
        pack(wrong)
        with pytest.raises(DataError, match=message):
            load_data("cifar10")
    whole = (tmp_path / "cifar10" / "cifar-10-binary.tar.gz").read_bytes()
    (tmp_path / "cifar10" / "cifar-10-binary.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not a readable"):
        load_data("cifar10")


# --- tables ---


def table(root, text, encoding="utf-8", name="photos.csv"):
    (root / name).write_bytes(text.encode(encoding) if isinstance(text, str) else text)
    return root / name


def test_a_table_with_and_without_splits(tmp_path, monkeypatch):
    photos(tmp_path / "p", {"x": 10, "y": 20})
    rows = [(f"p/{c}/{i:03}.png", c) for c, n in (("x", 10), ("y", 20)) for i in range(n)]
    plain = load_data(table(tmp_path, "path,label\n" + "".join(f"{p},{c}\n" for p, c in rows)))
    folder = load_data(tmp_path / "p")
    assert plain.classes == ("x", "y") and plain.drawn == ("train", "val", "test") and not plain.skipped
    for part, split in folder.splits.items():  # the same images in the same order are divided in the same way
        assert [os.path.join("p", i) for i in split.ids] == plain.splits[part].ids
    split = ["training", "Valid", " test"]
    text = "Split;Note;LABEL;Path\r\n" + "".join(f"{split[i % 3]};n;{c};{p}\r\n" for i, (p, c) in enumerate(rows))
    divided = load_data(table(tmp_path, text, "utf-8-sig"))
    assert {k: len(s) for k, s in divided.splits.items()} == {"train": 10, "val": 10, "test": 10}
    assert divided.drawn == () and divided.splits["val"].ids[0] == os.path.join("p", "x", "001.png")
    monkeypatch.chdir(tmp_path / "p")
    assert load_data("../photos.csv").splits.keys() == divided.splits.keys(), "a path with .. in it"


def test_rows_of_a_table_that_can_not_be_used_are_skipped_with_the_reason(tmp_path):
    inside = tmp_path / "in"
    photos(inside, {"a": 3, "b": 3})
    picture(9).save(tmp_path / "secret.png")
    (inside / "text.png").write_text("no picture")
    os.symlink(inside / "a" / "000.png", inside / "again.png")
    text = (
        "path,label,split\na/000.png,a,train\nb/000.png,b,train\na/001.png,a,val\n"
        "../secret.png,a,train\n" + f"{tmp_path}/secret.png,a,train\n" + f"{inside}/b/001.png,b,train\n"
        "gone.png,a,train\ntext.png,a,train\n,a,train\na/002.png,,train\na/002.png,a,tset\na/002.png,a\n\n"
        "again.png,b,train\nb/../b/000.png,b,train\n\0x.png,a,train\n"
    )
    data = load_data(table(inside, text))
    assert {k: s.ids for k, s in data.splits.items()} == {
        "train": ["a/000.png", "b/000.png", "b/001.png"],
        "val": ["a/001.png"],
    }
    reasons = [reason for _, reason in data.skipped]
    assert reasons[:2] == ["leads out of the table's folder"] * 2
    assert "No such file" in reasons[2] and "not a JPEG" in reasons[3]
    assert reasons[4:6] == ["has no path", "has no label"]
    assert reasons[6] == "has the split 'tset'; there are train, val and test"
    assert reasons[7] == "has no split, though others have"
    assert reasons[8:10] == ["duplicate of row 2, with another label", "duplicate of row 3"]
    assert reasons[10] == "has a zero byte in its path" and len(reasons) == 11
    assert data.skipped[0][0] == "row 5 (../secret.png)"


def test_tables_that_are_none(tmp_path):
    fails(table(tmp_path, "file,class\na.png,x\n"), "must name the columns path and label")
    fails(table(tmp_path, b""), "it has none")
    fails(table(tmp_path, b"\xff\xfe\0p\0a"), "must name the columns")
    fails(table(tmp_path, "path,label\n"), "has no usable row: it is empty")
    fails(table(tmp_path, "path,label\nno.png,x\n"), "has no usable row: 1 unusable file: row 2 (no.png) can't be read")
    fails(table(tmp_path, "path,label\n" + '"' + "x" * 200_000), "is not a readable .csv file (field larger")
    (tmp_path / "f.csv").mkdir()
    fails(tmp_path / "f.csv", "has no class folders")


def test_names_in_a_table_need_not_be_utf_8(tmp_path):
    photos(tmp_path, {"a": 2, "b": 2})
    os.rename(tmp_path / "a" / "000.png", os.fsdecode(os.fsencode(tmp_path) + b"/a/\xe9.png"))
    data = load_data(
        table(tmp_path, b"path,label\na/\xe9.png,a\na/001.png,a\nb/000.png,b\n"), val_fraction=0, test_fraction=0
    )
    assert data.splits["train"].ids[0] == "a/\udce9.png" and not data.skipped


# --- duplicates together ---


def parts_of(data):
    return {id: part for part, split in data.splits.items() for id in split.ids}


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


def test_without_duplicates_together_changes_nothing(tmp_path):
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


# --- bad input: both halves of the error, once through the command, else its message ---


def fails(source, message, **options):
    with pytest.raises(DataError) as e:
        load_data(source, **options)
    assert message in str(e.value), str(e.value)


def test_a_named_set_that_is_nowhere_and_no_network(tmp_path, monkeypatch, kzoo_command):
    monkeypatch.delenv("KZOO_DATA", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    tried = []
    monkeypatch.setattr("urllib.request.urlopen", lambda request, timeout: tried.append(request) or _refuse())
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)  # it would retry for a minute: not even imported
    code, out, err = kzoo_command("data", "check", "mnist")
    assert (code, out) == (1, "") and "there is no network to download it" in err and err.count("\n") == 1
    assert len(tried) == 1
    monkeypatch.setattr("urllib.request.urlopen", lambda request, timeout: io.BytesIO())
    fails("tfds:mnist", "tensorflow_datasets can't be imported")  # with a network it goes on


def _refuse():
    raise OSError("no route to host")


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
    fails(tmp_path / "d.txt", "is not a kind of data set that kzoo reads")
    fails("digits", "val_fraction must be in [0, 1)", val_fraction=1.5)
    fails("digits", "leave nothing to train on", val_fraction=0.5, test_fraction=0.5)


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
    ready, bad = decode_split(data.splits["train"], (8, 8, 3), PLAIN)
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
    fails(tmp_path / "junk.npz", "not a readable .npz")


def test_an_npz_that_declares_more_than_it_holds_is_refused(tmp_path):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"shape": (10**6, 10**6), "fortran_order": False, "descr": "|u1"})
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        archive.writestr("images.npy", buffer.getvalue())
    with pytest.raises(DataError, match="declares arrays"):
        load_arrays(tmp_path / "bomb.npz")


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
        decode_split(split, (4, 4, 3), PLAIN)


# --- batches ---


def test_batches_visit_each_image_once_in_an_order_of_seed_and_epoch():
    split = load_data("digits").splits["val"]

    def seen(seed, epoch):
        got = batches(split, (8, 8, 1), PLAIN, 32, num_classes=10, order=(seed, epoch))
        assert [len(y) for _, y in got] == [32, 32, 32, 32, 32, 20]
        return np.concatenate([x for x, _ in got])

    first, second = seen(0, 0), seen(0, 1)
    assert not np.array_equal(first, second)

    def key(a):
        return sorted(im.tobytes() for im in a)

    assert key(first) == key(second) == key(split.images)
    assert not np.array_equal(seen(1, 0), first)
    epoch = tf.Variable(0, dtype=tf.int64)
    data = batches(split, (8, 8, 1), PLAIN, 32, num_classes=10, order=(0, epoch))
    for number, expected in ((0, first), (1, second)):
        epoch.assign(number)
        np.testing.assert_array_equal(np.concatenate([x for x, _ in data]), expected)


def test_flips_alternate():
    images = np.random.default_rng(1).integers(0, 256, (50, 4, 6, 3)).astype("uint8")
    split = Split(images, np.arange(50) % 10, [str(i) for i in range(50)])

    def mirrored(seed, epoch):
        """For each image whether it came mirrored; every one must come once, with its label."""
        got = batches(split, (4, 6, 3), PLAIN, 8, num_classes=10, order=(seed, epoch), alternate_flip=True)
        found = {}
        for x, y in got:
            for image, label in zip(x.numpy(), y.numpy().argmax(-1), strict=True):
                same = (images == image).all((1, 2, 3)), (images[:, :, ::-1] == image).all((1, 2, 3))
                i = int(np.flatnonzero(same[0] | same[1])[0])
                assert label == i % 10 and i not in found
                found[i] = bool(same[1][i])
        assert len(found) == 50
        return np.array([found[i] for i in range(50)])

    first = mirrored(0, 0)
    assert 10 < first.sum() < 40
    np.testing.assert_array_equal(mirrored(0, 1), ~first)
    np.testing.assert_array_equal(mirrored(0, 2), first)
    assert (mirrored(1, 0) != first).any()


def test_images_too_large_to_keep_are_prepared_on_the_way(tmp_path, monkeypatch):
    from kzoo.data import batches as module

    data = load_data(photos(tmp_path, {"a": 6, "b": 6}), val_fraction=0, test_fraction=0).splits["train"]
    kept, _ = decode_split(data, (8, 8, 3), PLAIN)
    monkeypatch.setattr(module, "MEMORY", 10)
    on_disk, bad = decode_split(data, (8, 8, 3), PLAIN)
    assert isinstance(on_disk.images, np.memmap) and not bad
    monkeypatch.setattr(module, "DISK", 10)
    on_the_way, bad = decode_split(data, (8, 8, 3), PLAIN)
    assert on_the_way.files and not bad

    def get(s):
        return np.concatenate([x for x, _ in batches(s, (8, 8, 3), PLAIN, 5, num_classes=2)])

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
    on_the_way, bad = decode_split(data, (8, 8, 3), PLAIN)
    assert on_the_way.files and len(on_the_way) == 6 and not bad
