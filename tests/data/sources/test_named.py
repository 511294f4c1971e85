"""The named sets, in every place where they may be."""

import io
import os
import sys

import numpy as np
import pytest
from support.photos import fails, picture

from kzoo.data.loading import load_data
from kzoo.errors import DataError


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


def test_cifar10_from_its_archive(tmp_path, monkeypatch):
    import tarfile

    (tmp_path / "cifar10").mkdir()
    with tarfile.open(tmp_path / "cifar10" / "cifar10_jpg.tar.gz", "w:gz") as archive:
        for part, n in (("Training", 10), ("holdout", 2)):
            for k, name in enumerate(("cat", "dog")):
                for i in range(n):
                    buffer = io.BytesIO()
                    picture(100 * k + i, (32, 32)).save(buffer, "JPEG")
                    info = tarfile.TarInfo(f"{part}/{name}/{i}.jpg")
                    info.size = len(buffer.getvalue())
                    archive.addfile(info, io.BytesIO(buffer.getvalue()))
        for name in ("../../evil.jpg", "./Testing/cat/._0.jpg", "__MACOSX/train/cat/0.jpg", "extra/cat/0.jpg"):
            archive.addfile(tarfile.TarInfo(name))
    monkeypatch.setenv("KZOO_DATA", str(tmp_path))
    data = load_data("cifar10")
    assert {k: len(v) for k, v in data.splits.items()} == {"train": 18, "val": 2, "test": 4}
    assert not (tmp_path.parent / "evil.jpg").exists() and data.classes == ("cat", "dog")
    assert [name for name, _ in data.skipped] == ["extra/cat/0.jpg"]


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
    noise = np.random.default_rng(0).integers(0, 256, (5, 20, 3073)).astype("uint8")  # no two images alike
    noise[..., 0] = np.arange(20) % 10
    files = {f"data_batch_{i + 1}.bin": noise[i].tobytes() for i in range(5)} | {"test_batch.bin": records}
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
