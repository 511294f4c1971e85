"""Arrays: .npz and IDX files."""

import gzip
import io
import struct
import zipfile

import numpy as np
import pytest
from support.photos import fails

from kzoo.data.loading import load_data, read_data
from kzoo.data.sources.arrays import load_arrays, read_idx
from kzoo.errors import DataError


def test_npz_and_its_classes(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (30, 5, 5)).astype("uint8")
    y = np.arange(30) % 3
    np.savez(tmp_path / "a.npz", images=x, labels=y, classes=np.array(["x", "y", "z"]))
    data = load_data(tmp_path / "a.npz")
    assert data.classes == ("x", "y", "z") and data.splits["train"].images.shape[1:] == (5, 5, 1)
    np.savez(tmp_path / "b.npz", x_train=x, y_train=y, x_test=x[:3], y_test=y[:3])
    assert {k: len(v) for k, v in load_data(tmp_path / "b.npz").splits.items()} == {"train": 27, "val": 3, "test": 3}


def test_bad_arrays(tmp_path):
    def npz(**arrays):
        np.savez(tmp_path / "x.npz", **arrays)
        return tmp_path / "x.npz"

    x, y = np.zeros((6, 4, 4, 3), "uint8"), np.array([0, 1, 2] * 2)
    fails(npz(images=x, labels=y - 1), "there is a -1 in all")
    fails(npz(images=x, labels=y, classes=np.array(["p", "q"])), "labels are 0 to 1, but there is a 2")
    fails(npz(images=x, labels=y + 0.5), "must be whole numbers")
    fails(npz(images=x, labels=np.where(y == 1, np.nan, y)), "must be whole numbers")
    fails(npz(images=x, labels=y[:5]), "6 images but 5 labels")
    fails(npz(images=x[0, 0, 0], labels=y), "must be an array (N, H, W)")
    fails(npz(images=x + np.nan, labels=y), "must lie in 0..255")
    fails(npz(images=np.full((6, 4, 4), 0.5), labels=y), "multiply them by 255")
    fails(npz(photographs=x), "must hold x_train and y_train")
    fails(npz(images=x, labels=np.where(y == 1, 1e300, y)), "has the label 1e+300, which can't be a class number")
    fails(npz(images=x, labels=np.where(y == 1, np.uint64(2**63), y.astype("uint64"))), "can't be a class number")
    fails(npz(images=x), "must hold x_train and y_train")
    fails(
        npz(images=x, labels=y + 1), "begin at 1 (1 to 3), and kzoo counts classes from 0: subtract 1 from all of them"
    )
    fails(npz(images=x, labels=y + 1, classes=np.array(list("abc"))), "subtract 1 from all of them")
    fails(npz(images=x, labels=y, classes=np.array(["a", "b", "a"])), "has the class 'a' more than once in classes")
    fails(npz(images=x, labels=y, classes=np.array(["ab", "b", "AB "])), "differ only in case and white space")
    fails(npz(images=x.transpose(0, 3, 1, 2).repeat(4, 3).repeat(4, 2), labels=y), "transpose to (6, 16, 16, 3)")
    fails(npz(images=x, labels=np.full((6, 3), 0.33)), "are not one-hot (a single 1 in each row)")
    fails(npz(images=x, labels=np.array(["a", "nan", "b"] * 2)), "has images without a label ('nan')")
    fails(
        npz(images=x, labels=np.array(["a", "A?", "b"] * 2), classes=np.array(["a", "b"])), "'A?', which is not among"
    )
    fails(npz(images=x, labels=y, x_train=x, y_train=y), "holds images and x_train: the first is undivided")
    fails(npz(x_train=x, train_images=x, y_train=y), "holds train_images and x_train, which mean the same")
    fails(npz(images=x, labels=y, is_valid=y > 1), "says in is_valid which part an image belongs to")
    fails(npz(images=x, labels=np.array(list("abcabc"), object)), "pickled objects")
    (tmp_path / "junk.npz").write_bytes(b"PK\x03\x04 and then nothing")
    fails(tmp_path / "junk.npz", "not a readable .npz")


def load(tmp_path, **arrays):
    np.savez(tmp_path / "x.npz", **arrays)
    return load_data(tmp_path / "x.npz", val_fraction=0, test_fraction=0)


Y = np.arange(6) % 3


@pytest.mark.parametrize(
    "labels, classes",
    [
        (np.eye(3)[Y], "012"),
        (np.eye(3, dtype=bool)[Y], "012"),
        (Y.astype("float32"), "012"),
        (Y[:, None].astype("uint8"), "012"),
        (np.array(["a", "b", "c"])[Y], "abc"),
        (np.array(["caf\u00e9", "b", "c"])[[1, 0, 2] * 2], ("b", "caf\u00e9", "c")),
        (np.array([b"a", b"b", b"c"])[Y], "abc"),
    ],
)
def test_labels_in_every_common_form(tmp_path, labels, classes):
    data = load(tmp_path, images=np.zeros((6, 4, 4), "uint8"), labels=labels)
    assert data.classes == tuple(sorted(classes)) and not data.skipped
    expected = Y if "caf\u00e9" not in classes else np.array([0, 2, 1] * 2)
    assert data.splits["train"].labels.tolist() == expected.tolist()
    assert data.splits["train"].labels.dtype == np.int64


def test_booleans_classes_as_bytes_and_black_floats(tmp_path):
    x = np.zeros((6, 4, 4), "float32")
    data = load(tmp_path, x=x, y=Y > 0, class_names=np.array(["caf\u00e9".encode(), "d\u00e9j\u00e0".encode("cp1252")]))
    assert data.classes == ("caf\u00e9", "d\u00e9j\u00e0") and data.splits["train"].labels.tolist() == [0, 1, 1] * 2
    assert data.splits["train"].images.dtype == np.uint8 and not data.splits["train"].images.any()
    data = load(tmp_path, X=x, y=np.array(list("bab" * 2)), classes=np.array(["b", "a"]))
    assert data.classes == ("b", "a") and data.splits["train"].labels.tolist() == [0, 1, 0] * 2, "in the order given"


@pytest.mark.parametrize(
    "names",
    [
        ("train_images train_labels", "val_images val_labels", "test_images test_labels"),
        ("X_train Y_train", "X_valid y_valid", "X_holdout y_holdout"),
        ("images_training labels_training", "images_dev labels_dev", "images_testing labels_testing"),
    ],
)
def test_parts_of_arrays_under_other_names_and_what_is_not_used(tmp_path, names):
    arrays = {}
    for n, pair in zip((6, 3, 9), names, strict=True):
        x, y = pair.split()
        arrays[x], arrays[y] = np.zeros((n, 4, 4), "uint8"), np.arange(n) % 3
    data = load(tmp_path, **arrays, notes=np.arange(6))
    assert {k: len(s) for k, s in data.splits.items()} == {"train": 6, "val": 3, "test": 9} and not data.skipped
    del arrays[names[2].split()[1]]
    data = load(tmp_path, **arrays, x_extra=np.zeros((2, 4, 4), "uint8"))
    assert {k: len(s) for k, s in data.splits.items()} == {"train": 6, "val": 3}
    assert data.skipped == [
        (names[2].split()[0], "holds 9 images without labels"),
        ("x_extra", "is an array (2, 4, 4) under a name that kzoo does not read"),
    ]


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


def test_channels_in_front_of_any_number_masks_and_little_of_the_range(tmp_path, capsys):
    y = np.arange(20) % 2
    for shape in ((5, 32, 32), (13, 64, 64), (5, 48, 64)):
        np.savez(tmp_path / "a.npz", images=np.zeros((20, *shape), "uint8"), labels=y)
        fails(tmp_path / "a.npz", "looks channels-first")
    rng = np.random.default_rng(0)
    for shape in ((9, 9, 200), (32, 32, 13), (8, 64, 3)):
        x = rng.integers(0, 256, (20, *shape)).astype("uint8")
        assert load(tmp_path, images=x, labels=y).splits["train"].images.shape[1:] == shape
    mask = rng.integers(0, 2, (20, 8, 8))
    for x in (mask, mask.astype("uint8")):
        np.savez(tmp_path / "a.npz", images=x, labels=y)
        fails(tmp_path / "a.npz", "are 0 and 1 and must lie in 0..255: multiply them by 255")
    capsys.readouterr()
    load(tmp_path, images=16 * mask, labels=y)
    assert "lie in 0..16 of 0..255, nearly black" in capsys.readouterr().err


def test_several_labels_an_image(tmp_path, capsys):
    x = np.random.default_rng(0).integers(0, 256, (8, 5, 5)).astype("uint8")
    y = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]] * 2)
    one_hot = np.eye(3)[[0, 1, 2, 0, 1, 2, 0, 1]]
    for dtype in ("int64", "float32", "bool"):
        np.savez(tmp_path / "a.npz", x_train=x, y_train=y.astype(dtype), x_test=x, y_test=one_hot.astype(dtype))
        data = read_data(tmp_path / "a.npz")
        assert data.several and data.classes == ("0", "1", "2") and data.splits["train"].labels.dtype == np.uint8
        np.testing.assert_array_equal(data.splits["train"].labels, y)
        np.testing.assert_array_equal(data.splits["test"].labels, one_hot)
    assert (
        "several labels an image. Images without a label: 2; with one: 10; with several: 4." in capsys.readouterr().err
    )
    np.savez(tmp_path / "b.npz", images=x, labels=one_hot.astype("uint8"), classes=np.array(list("abc")))
    assert not read_data(tmp_path / "b.npz").several
    np.savez(tmp_path / "c.npz", images=x, labels=y, classes=np.array(list("ab")))
    fails(tmp_path / "c.npz", "names 2 classes, and its labels have 3 columns")
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x, y_test=y[:, :2])
    fails(tmp_path / "d.npz", "different numbers of classes: 3 in train, 2 in test")
    np.savez(tmp_path / "e.npz", images=x, labels=y[:7])
    fails(tmp_path / "e.npz", "8 images but 7 labels")


# --- what a notebook has in memory ---


def pictures(n=30):
    x = np.random.default_rng(0).integers(0, 256, (n, 6, 5, 3)).astype("uint8")
    return x, np.arange(n) % 3


def test_arrays_in_memory_are_as_those_of_a_file(tmp_path):
    x, y = pictures()
    np.savez(tmp_path / "a.npz", images=x, labels=y)
    file = load_data(tmp_path / "a.npz", seed=1)
    for source in ((x, y), [x.astype("float32"), y], {"x": x, "y": np.eye(3)[y]}):
        data = load_data(source, seed=1)
        assert (data.name, data.classes) == ("arrays", ("0", "1", "2"))
        assert data.fingerprint() == file.fingerprint()
    parts = load_data(
        {"x_train": x, "y_train": np.array(["a", "b", "c"])[y], "x_test": x[:9] // 2, "y_test": ["a"] * 9}
    )
    assert parts.classes == ("a", "b", "c") and len(parts.splits["test"]) == 9


def test_a_tf_data_set_is_read_whole():
    import tensorflow as tf

    x, y = pictures()
    pairs = tf.data.Dataset.from_tensor_slices((x, y))
    for dataset in (pairs, pairs.batch(7), pairs.map(lambda image, label: (image, tf.one_hot(label, 3)))):
        assert load_data(dataset).fingerprint() == load_data((x, y)).fingerprint()
    fails(pairs.repeat(), "has no end: take")
    fails(pairs.map(lambda image, label: image), "must give (image, label) pairs")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (5, "A int is no data"),
        ((pictures()[0],), "A tuple is no data"),
        ((pictures()[0], [0, 1]), "30 images but 2 labels"),
        ((np.random.default_rng(0).random((30, 6, 5, 3)), pictures()[1]), "multiply them by 255"),
        (([np.zeros((2, 2)), np.zeros((3, 3))], [0, 1]), "rows of different shapes"),
    ],
)
def test_what_is_no_data_is_named(source, reason):
    fails(source, reason)
