"""Weights that kzoo carries: files, cards, what they are worth; and the way from a run to them and back."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import kzoo
from kzoo.catalog import shipped
from kzoo.cli import group
from kzoo.errors import KzooError
from kzoo.files import digest
from kzoo.training.recipes import find_recipe

ROOT = Path(__file__).resolve().parents[2]
FIELDS = {
    "name",
    "trained_as",
    "data",
    "classes",
    "recipe",
    "options",
    "epochs",
    "seed",
    "val_fraction",
    "precision",
    "input_shape",
    "train_top1",
    "val_top1",
    "test_top1",
    "test_images",
    "seconds",
    "hardware",
    "versions",
    "fingerprint",
    "command",
    "sha256",
    "data_note",
    "licence",
    "data_licence",
    "intended_use",
    "limits",
}


@pytest.mark.parametrize("name", shipped.cards())
def test_a_card_has_its_file_and_its_row(name):
    card = shipped.card(name)
    assert card.keys() | {"train_top1"} == FIELDS  # the first cards have no curve
    file = shipped.FOLDER / f"{name}.npz"
    assert digest(file, "sha256") == card["sha256"]
    row = next(w for w in kzoo.spec(name).weights if w.tag == card["data"])
    assert row.hash == f"sha256:{card['sha256']}" and row.size == file.stat().st_size
    assert find_recipe(card["recipe"]).name in (kzoo.spec(card["trained_as"]).recipe, "modern")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.deep("2026-11-27")) if "cifar" in n or "plain" in n else n
        for n in shipped.cards()
    ],
)
def test_what_the_weights_are_worth(name):
    """On 500 test images of the real data: within three standard errors of the card."""
    card = shipped.card(name)
    try:
        test = kzoo.load_data(card["data"]).splits["test"]
    except KzooError:
        pytest.skip(f"{card['data']} is not here")
    from kzoo.data.batches import batches, decode_split

    chosen = np.random.default_rng(0).choice(len(test), 500, replace=False)
    shape, prep = tuple(card["input_shape"]), kzoo.spec(name).preprocessing
    ready, _ = decode_split(test.take(np.sort(chosen)), shape, prep)
    model = kzoo.build(name, weights=card["data"])
    from kzoo.graph.inference import predictor

    predict = predictor(model, "float32")
    hits = [predict(x).argmax(-1) == y.numpy() for x, y in batches(ready, shape, prep, 250)]
    p = card["test_top1"]
    assert abs(np.mean(hits) - p) <= 3 * (p * (1 - p) / 500) ** 0.5 + 1e-3


@pytest.mark.parametrize("name", shipped.cards())
def test_the_exports_and_the_table_are_of_these_weights(name):
    if not (ROOT / "saved_models").is_dir():
        pytest.skip("needs a checkout")
    card = shipped.card(name)
    export = json.loads((ROOT / "saved_models" / name / "card.json").read_text())
    assert export["training"]["hash"] == f"sha256:{card['sha256']}"
    for file, facts in export["files"].items():  # a formatter has changed card.md before
        assert digest(ROOT / "saved_models" / name / file, "sha256") == facts["sha256"], file
    manual = (ROOT / "kzoo" / "catalog" / "README.md").read_text("utf-8")
    row = next(x for x in manual.splitlines() if x.startswith(f"| `{name}`, "))
    cells = [cell.strip() for cell in row.split("|")]
    assert f"{100 * card['test_top1']:.2f} %" in cells and str(card["epochs"]) in cells
    assert f"{card['seconds'] / 60:.0f} min" in cells
    if card["command"].startswith("kzoo train"):
        assert f"| `{name}` | `{card['command']}` |" in manual
    top1 = f"{100 * card['test_top1']:.2f} %"
    results = next(x for x in (ROOT / "README.md").read_text("utf-8").splitlines() if f"`kzoo reproduce {name}`" in x)
    assert f"| {top1} |" in results
    shelf = next(
        x for x in (ROOT / "saved_models" / "README.md").read_text("utf-8").splitlines() if f"| `{name}` |" in x
    )
    assert f"| {top1} |" in shelf


def test_all_is_small():
    saved = ROOT / "saved_models"
    files = [*shipped.FOLDER.iterdir(), *(saved.rglob("*") if saved.is_dir() else ())]
    assert sum(f.stat().st_size for f in files if f.is_file()) < 40e6


def test_from_a_run_to_weights_and_again(tmp_path, monkeypatch, kzoo_command):
    folder = tmp_path / "shipped"
    folder.mkdir()
    monkeypatch.setattr(shipped, "FOLDER", folder)
    monkeypatch.chdir(tmp_path)
    kzoo.train(
        "mnist_mlp", "digits", epochs=2, dropout=0.3, val_fraction=0.2, precision="float32", out="run", quiet=True
    )
    monkeypatch.setattr(sys, "argv", ["ship.py", "run", "--name", "mnist_mlp"])
    runpy.run_path(str(ROOT / "scripts" / "ship.py"))
    card = json.loads((folder / "mnist_mlp.json").read_text())
    assert card.keys() == FIELDS and card["epochs"] == 2 and card["data"] == "digits"
    assert len(card["train_top1"]) == 2 and card["train_top1"][1] > 0.5
    assert card["options"] == {"dropout": 0.3} and card["data_note"] == ""
    assert "--val-fraction 0.2" in card["command"] and card["command"].endswith("--set dropout=0.3")

    file = kzoo.Weights("digits", f"{shipped.PREFIX}mnist_mlp.npz", f"sha256:{card['sha256']}")
    small = kzoo.build("mnist_mlp", weights=file)
    trained = kzoo.load_run("run").model
    for a, b in zip(small.weights, trained.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b).astype("float16").astype("float32"))

    result = CliRunner().invoke(group, ["reproduce", "mnist_mlp", "--out", "again", "--json", "--quiet"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["agrees"] and [r[0] for r in found["rows"]] == ["val top-1", "test top-1"]
    assert all(abs(a - b) < 0.01 for _, a, b, _ in found["rows"]), "the same seed gives the same run, but for 16 bits"
    card["test_top1"] = 0.1
    (folder / "mnist_mlp.json").write_text(json.dumps(card))
    listed = CliRunner().invoke(group, ["reproduce"])
    assert "mnist_mlp" in listed.output and "10.00%" in listed.output
    from kzoo.reproducing.comparison import Comparison

    assert found["same_data"]
    differs = Comparison("x", "again", [("test top-1", 0.1, found["rows"][1][2], 359)], False)
    code, _, _ = kzoo_command("reproduce", "mnist_mlp", "--out", "again", "--resume", "--quiet")
    assert code == 1, "the help promises it"
    assert not differs.agrees and "not those of the card" in str(differs)
    (folder / "mnist_mlp.json").write_text(json.dumps(card | {"fingerprint": "0" * 64, "data_note": "They were JPEG."}))
    again = CliRunner().invoke(group, ["reproduce", "mnist_mlp", "--out", "again", "--resume", "--json"])
    assert again.exit_code == 1 and "They were JPEG." in again.stderr, again.output
    assert not json.loads(again.stdout)["same_data"]
    assert list(json.loads(CliRunner().invoke(group, ["reproduce", "--json"]).stdout)) == ["mnist_mlp"]


def test_weights_trained_without_a_validation_part(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    monkeypatch.chdir(tmp_path)
    kzoo.train("mnist_softmax", "digits", epochs=2, val_fraction=0.0, out="run", quiet=True)
    monkeypatch.setattr(sys, "argv", ["ship.py", "run", "--name", "mnist_softmax"])
    runpy.run_path(str(ROOT / "scripts" / "ship.py"))
    card = shipped.card("mnist_softmax")
    assert card["val_top1"] is None and 0.5 < card["test_top1"] <= 1 and "--val-fraction 0.0" in card["command"]
    result = CliRunner().invoke(group, ["reproduce", "mnist_softmax", "--json", "--quiet"])
    assert result.exit_code == 0, result.output
    assert [r[0] for r in json.loads(result.stdout)["rows"]] == ["test top-1"]


def test_a_wrong_name_and_a_damaged_file(tmp_path, monkeypatch):
    result = CliRunner().invoke(group, ["reproduce", "no_such_name"])
    assert isinstance(result.exception, KzooError) and "kzoo carries" in str(result.exception)
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    (tmp_path / "x.npz").write_bytes(b"damaged")
    with pytest.raises(KzooError, match="has the hash"):
        kzoo.build("mnist_softmax", weights=kzoo.Weights("mnist", "kzoo:x.npz", "sha256:" + "0" * 64))
    with pytest.raises(KzooError, match="There is no weights file"):
        kzoo.build("mnist_softmax", weights=kzoo.Weights("mnist", "kzoo:y.npz"))
