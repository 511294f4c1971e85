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


def test_the_manual_has_the_models_in_the_order_of_the_catalog(zoo_table):
    head, _, *rows = published_lines(zoo_table)
    assert head == "| " + " | ".join(zoo_table.HEAD) + " |"
    assert [line.split("`")[1] for line in rows] == kzoo.list_models(), "run python scripts/zoo_table.py --write"


def published_lines(zoo_table):
    return zoo_table.between_markers(zoo_table.PAGE.read_text("utf-8"))[1].splitlines()


@pytest.mark.parametrize("name", kzoo.list_models())
def test_a_network_as_published_is_what_table_ledger_and_fingerprint_say(zoo_table, name):
    """Each at its own size, without values: its line in the manual, no unknown layer, the shapes of its weights."""
    model = without_values(lambda: kzoo.build(name))
    table = kzoo.ledger(model)
    written = next(line for line in published_lines(zoo_table) if line.startswith(f"| `{name}` |"))
    assert written == zoo_table.line(kzoo.spec(name), table.totals), "run python scripts/zoo_table.py --write"
    assert [(r.name, r.kind, r.unknown) for r in table.rows if r.unknown] == []
    assert max(map(len, str(table).splitlines())) <= 80, "as kzoo info prints it"
    # By it a weights file that fits another row is found.
    found = fingerprint((v.path, v.shape) for v in model.weights)
    assert FINGERPRINTS.get(name) == found, f'kzoo/catalog/fingerprints.py needs the line "{name}": "{found}",'
