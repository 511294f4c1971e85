"""Names of classes: those of ImageNet are in the package, and nothing is downloaded for them."""

import json
import urllib.request

import pytest

from kzoo.errors import ExportError
from kzoo.weights.classes import class_names, read_names


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a request that nobody asked for")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def test_imagenet(no_network, monkeypatch, tmp_path):
    """The names of ILSVRC-2012 at their numbers; two words name two classes each (a bird and a machine, two suits)."""
    for variable in ("KZOO_CACHE", "KERAS_HOME", "HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.delenv("KZOO_DATA", raising=False)
    names = class_names("imagenet", 1000)
    assert len(names) == 1000 and all(n == n.strip() and n for n in names)
    places = {"tench": 0, "robin": 15, "tabby": 281, "zebra": 340, "espresso": 967, "toilet_tissue": 999}
    assert {n: names.index(n) for n in places} == places
    assert sorted({n for n in names if names.count(n) > 1}) == ["crane", "maillot"]


def test_imagenet_as_published(shared):
    published = shared / "imagenet_sample" / "class_index.json"
    if not published.is_file():
        pytest.skip("needs imagenet_sample/class_index.json in the shared data")
    assert class_names("imagenet", 1000) == read_names(published)


def test_own_weights_and_unknown_ones(no_network):
    assert class_names("cifar10", 10)[:2] == ("airplane", "automobile")
    assert class_names("imagenet", 3) == class_names("nobody_knows", 3) == ("0", "1", "2")


def test_files(tmp_path):
    (tmp_path / "a.txt").write_text("cat\ndog\n")
    (tmp_path / "a.json").write_text(json.dumps(["cat", "dog"]))
    (tmp_path / "b.json").write_text(json.dumps({"1": ["n2", "dog"], "0": ["n1", "cat"]}))
    assert {read_names(tmp_path / n) for n in ("a.txt", "a.json", "b.json")} == {("cat", "dog")}
    (tmp_path / "c.json").write_text("{")
    for name in ("c.json", "missing.txt"):
        with pytest.raises(ExportError, match="holds no class names"):
            read_names(tmp_path / name)
