"""Arrays: .npz and IDX files."""

import gzip
import io
import struct
import zipfile

import numpy as np
import pytest
from support.photos import fails

from kzoo.data.loading import load_data
from kzoo.data.sources.arrays import load_arrays, read_idx
from kzoo.errors import DataError


def test_npz_and_its_classes(tmp_path):
    x = np.zeros((30, 5, 5), "uint8")
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
