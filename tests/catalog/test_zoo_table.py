"""The manual's table of all models is what the catalog and the ledger say now."""

import importlib.util
from pathlib import Path

import pytest

import kzoo
from kzoo.catalog.fingerprints import FINGERPRINTS
from kzoo.errors import KzooError
from kzoo.graph.ledger import without_values
from kzoo.weights.explain import fingerprint

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def zoo_table():
    path = importlib.util.spec_from_file_location("zoo_table", ROOT / "scripts" / "zoo_table.py")
    module = importlib.util.module_from_spec(path)
    path.loader.exec_module(module)
    return module


def test_a_row(zoo_table):
    assert zoo_table.table(["vgg19"]).splitlines()[-1] == (
        "| `vgg19` | [Simonyan and Zisserman 2014](https://arxiv.org/abs/1409.1556) | 224×224×3 "
        "| 143,667,240 | 143,667,240 | 19.63G | 19.6G |"
    )


def test_markers(zoo_table):
    text = f"a\n{zoo_table.BEGIN}\nold\n{zoo_table.END}\nb"
    assert zoo_table.between_markers(text) == ("a\n", "old", "\nb")
    with pytest.raises(KzooError, match="no place for the table"):
        zoo_table.between_markers("a")


@pytest.mark.slow
def test_the_manual_has_it(zoo_table):
    _, now, _ = zoo_table.between_markers(zoo_table.PAGE.read_text("utf-8"))
    assert now == zoo_table.table(), "run python scripts/zoo_table.py --write"


@pytest.mark.slow
@pytest.mark.parametrize("name", kzoo.list_models())
def test_no_layer_of_the_zoo_is_unknown(name):
    assert [(r.name, r.kind, r.unknown) for r in kzoo.ledger(name).rows if r.unknown] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", kzoo.list_models())
def test_fingerprints_are_those_of_the_networks(name):
    """By them a weights file that fits another row is found."""
    model = without_values(lambda: kzoo.build(name))
    assert fingerprint((v.path, v.shape) for v in model.weights) == FINGERPRINTS[name]
