"""The examples in the docstrings run and give what they say."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import kzoo
from kzoo.catalog import registry

PACKAGE = Path(kzoo.__file__).parent
MODULES = sorted(
    ".".join(("kzoo", *p.relative_to(PACKAGE).with_suffix("").parts))
    for p in PACKAGE.rglob("*.py")
    if ">>>" in p.read_text("utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # examples write to relative paths
    monkeypatch.setattr(registry, "ROWS", dict(registry.ROWS))  # what an example registers is forgotten
    module = import_module(name)
    result = doctest.testmod(module, extraglobs={"kzoo": kzoo}, optionflags=doctest.ELLIPSIS)
    assert result.attempted and not result.failed


def test_there_are_examples():
    assert len(MODULES) > 8
