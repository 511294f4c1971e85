"""Backbones: which weights are found locally, and what their features depend on."""

import sys
from types import ModuleType

import kzoo
from kzoo.finetuning import backbone


def test_a_broken_download_is_not_at_hand(world, tmp_path, monkeypatch):
    """Keras may leave half of one under the final name."""
    from kzoo.files import digest

    good = kzoo.Weights("a", str(world / "weights.npz"), f"sha256:{digest(world / 'weights.npz')}")
    (tmp_path / "half.npz").write_bytes((world / "weights.npz").read_bytes()[:999])
    row = kzoo.spec("resnet20")
    monkeypatch.setattr(
        backbone,
        "found_locally",
        lambda model=None: [(row, good, tmp_path / "half.npz"), (row, good, world / "weights.npz")],
    )
    assert backbone.backbone("resnet20", precision="float32").path == world / "weights.npz"


def test_the_key_of_a_cache_changes_with_all_that_features_depend_on(world, monkeypatch):
    base = backbone.backbone("resnet20", world / "weights.npz", precision="float32")
    key = base.key()
    assert key == base.key() and key["code"] != backbone.code_of("kzoo.models.vgg")
    assert key["versions"].keys() >= {"keras", "tensorflow"} and all(key["versions"].values())
    for name, value in (("RULES", 99), ("package", lambda name: "99"), ("code_of", lambda module: "99")):
        with monkeypatch.context() as patch:
            patch.setattr(backbone, name, value)
            assert base.key() != key and base.cache().folder.name != backbone.Cache(key).folder.name, name


def test_the_code_of_an_architecture_is_its_module_and_those_beside_it_that_it_names(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_nets_of_a_test.py").write_text("from own_blocks_of_a_test import block")
    (tmp_path / "own_blocks_of_a_test.py").write_text("import own_parts_of_a_test")
    for name in ("own_parts_of_a_test", "own_other_of_a_test"):
        (tmp_path / f"{name}.py").write_text("a = 1")
    known = {backbone.code_of("own_nets_of_a_test")}
    for name in ("own_nets_of_a_test", "own_blocks_of_a_test", "own_parts_of_a_test"):
        (tmp_path / f"{name}.py").write_text((tmp_path / f"{name}.py").read_text() + "  # changed")
        known.add(backbone.code_of("own_nets_of_a_test"))
    assert len(known) == 4
    (tmp_path / "own_other_of_a_test.py").write_text("a = 2")
    assert backbone.code_of("own_nets_of_a_test") in known
    monkeypatch.setitem(sys.modules, "own_notebook_of_a_test", ModuleType("own_notebook_of_a_test"))
    for name in ("own_notebook_of_a_test", "own_package_of_a_test.missing"):  # without a file: never found again
        assert backbone.code_of(name) != backbone.code_of(name)
