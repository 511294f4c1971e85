"""Verify: what was changed is found."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf
from support.exports import CLASSES, PREP, SHAPE, changed, saved_model_alone

import kzoo
from kzoo.errors import ExportError
from kzoo.exporting import check, formats, golden
from kzoo.source import find_source
from kzoo.tasks.classification import TASK


def test_the_folder_holds_what_it_says(exported):
    out, card = exported
    assert (out / "labels.txt").read_text("utf-8").splitlines() == list(CLASSES)
    assert card["preprocessing_sha256"] == PREP.fingerprint(SHAPE) and card["classes"] == list(CLASSES)
    text = (out / "card.md").read_text("utf-8")
    for word in (
        "ant, bee, käfer",
        "Licences",
        "limits",
        "Preprocessing: " + PREP.fingerprint(SHAPE),
        "import kzoo, keras\n",
    ):
        assert word in text
    data, arrays = golden.load(out / "golden.npz")
    assert len(data) == 16 and arrays["logits"].shape == (16, 4) and arrays["near"].sum() == 8
    assert not list(out.parent.glob(".tmp*"))
    report = kzoo.verify(out)
    assert report["ok"] and {"files", "pixels", "saved_model", "encoded images", "keras"} <= {
        c["check"] for c in report["checks"]
    }
    for name in set(card["formats"]):
        assert next(c for c in report["checks"] if c["check"] == name)["flips"] == 0


@pytest.mark.usefixtures("the_graph_is_loaded_once")
def test_verify_finds_what_was_changed(exported, tmp_path, kzoo_command):
    folder = saved_model_alone(exported, tmp_path)
    arrays = dict(np.load(folder / "golden.npz"))
    arrays["logits"] = arrays["logits"][:, ::-1]
    with open(folder / "golden.npz", "wb") as f:
        np.savez(f, **arrays)
    with pytest.raises(ExportError, match="does not give the results it gave") as e:
        kzoo.verify(folder)
    assert re.search(r"files: .*golden\.npz has changed.*; saved_model: .*get another answer", str(e.value))
    code, out, err = kzoo_command("verify", folder)
    assert code == 1 and "FAILED  files" in out and "Error: " in err

    card = json.loads((folder / "card.json").read_text())
    wrong = {"temperature": 7.0, "classes": [*CLASSES[1:], CLASSES[0]]}
    (folder / "card.json").write_text(json.dumps({**card, **wrong}))
    report = kzoo.verify(folder, raises=False)
    assert {"probabilities", "labels"} <= {c["check"] for c in report["checks"] if c["ok"] is False}
    for key, value in (("files", {"saved_model.pb": 1}), ("formats", None), ("classes", "ab"), ("temperature", 0)):
        (folder / "card.json").write_text(json.dumps({**card, key: value}))
        code, _, err = kzoo_command("verify", folder)
        assert code == 1 and f"{key} can't be read" in err


def damaged_draws(name, draws):
    """In how many draws verify's comparison notices 1 % of a random layer's weights multiplied by 1.5, in float32."""
    found = find_source(name)
    run = golden.reference(found.model)
    gold = golden.choose(found, run)
    network = tf.function(lambda x: found.model(x, training=False))
    x, rng, noticed = tf.constant(gold["prepared"], tf.float32), np.random.default_rng(0), 0

    def differs():
        outputs = network(x).numpy()
        allowed = formats.tolerance("float32", unharmed)
        return not check.compare(name, outputs, gold["logits"], allowed, TASK, gold["near"])["ok"]

    unharmed = check.compare(name, network(x).numpy(), gold["logits"], 1.0, TASK)["moved"]
    assert not differs()
    layers = [layer for layer in found.model.layers if layer.weights]
    for _ in range(draws):
        layer = layers[rng.integers(len(layers))]
        before = layer.get_weights()
        flat = np.concatenate([w.ravel() for w in before])
        flat[rng.choice(flat.size, max(1, round(flat.size / 100)), replace=False)] *= 1.5
        parts = np.split(flat, np.cumsum([w.size for w in before])[:-1])
        layer.set_weights([p.reshape(w.shape) for p, w in zip(parts, before, strict=True)])
        noticed += differs()
        layer.set_weights(before)
    assert not differs()
    print(f"{name}: {noticed} of {draws} draws noticed; float32 moves by {unharmed:.2g} unharmed")
    return noticed


def test_damage_to_one_percent_of_a_layer_is_noticed():
    assert damaged_draws("lenet5", 100) >= 99


@pytest.mark.deep("2026-11-27")
@pytest.mark.parametrize("name", ["lenet5", "mnist_cnn", "plain20", "resnet20", "vgg_cifar10"])
def test_damage_to_one_percent_of_a_layer_is_noticed_in_all_that_ships(name):
    assert damaged_draws(name, 400) >= 396


def test_golden_images_are_certain_and_near_a_decision():
    found = find_source("lenet5")
    gold = golden.choose(found, golden.reference(found.model))
    _, margin = TASK.certainty(gold["logits"])
    near = gold["near"]
    assert near.sum() == 8 and (~near).sum() == 8 and margin[near].max() < np.median(margin[~near])
    assert len(set(gold["logits"][~near].argmax(-1))) >= 6, "one predicted class at a time"


def test_tolerances_follow_what_was_measured(exported):
    card = exported[1]
    for name, facts in card["formats"].items():
        low, high = formats.LOWEST[facts["precision"]], formats.HIGHEST[facts["precision"]]
        assert facts["moved"] <= high and low <= facts["tolerance"] <= high, name
        assert facts["tolerance"] <= max(low, 3.01 * facts["moved"]), name
    assert formats.tolerance("float32", 99.0) == 1e-3, "an edited card allows no more"
    assert formats.tolerance("int4") == formats.tolerance(None, 1.0) == 0.0


def test_an_export_of_0_1_0_keeps_its_tolerance(exported, tmp_path):
    """Its card has format 1, and its golden images none near a decision."""
    folder = changed(exported, tmp_path)
    card = json.loads((folder / "card.json").read_text())
    card["formats"] = {"keras": card["formats"]["keras"]}  # the others take longer
    arrays = {k: v for k, v in np.load(folder / "golden.npz").items() if k != "near"}
    arrays["logits"] = arrays["logits"] + 5e-4 * np.abs(arrays["logits"]).max()
    with open(folder / "golden.npz", "wb") as f:
        np.savez(f, **arrays)
    for version, ok in ((1, True), (2, False)):
        (folder / "card.json").write_text(json.dumps({**card, "kzoo_export": version}))
        report = kzoo.verify(folder, raises=False)
        assert {c["ok"] for c in report["checks"] if c["check"] == "keras"} == {ok}, version
    (folder / "card.json").write_text(json.dumps({**card, "kzoo_export": 3}))
    with pytest.raises(ExportError, match=r"by a later kzoo \(format 3; this one knows 1 and 2\)"):
        kzoo.verify(folder)


def test_a_check_can_fail():
    z = np.array([[3.0, 1.0], [0.0, 2.0]])
    assert check.compare("x", z + 0.001, z, 0.01, TASK)["ok"]
    assert not check.compare("x", z + 0.1, z, 0.01, TASK)["ok"]
    assert not check.compare("x", z[:, ::-1], z, 10.0, TASK)["ok"]
    assert not check.compare("x", z * np.nan, z, 10.0, TASK)["ok"]
    near = np.array([False, True])
    assert check.compare("x", z[:, ::-1], z, 10.0, TASK, ~near)["flips"] == 1
    close = np.array([[3.0, 1.0], [1.0, 1.01]])
    assert check.compare("x", close + [[0, 0], [0.02, 0]], close, 0.01, TASK, near)["ok"]
    assert not check.compare("x", close + [[0, 0], [0.02, 0]], close, 0.01, TASK)["ok"]
