"""Verify: what was changed is found."""

import json

import numpy as np
import pytest
from support.exports import CLASSES, PREP, SHAPE, saved_model_alone

import kzoo
from kzoo.errors import ExportError
from kzoo.exporting import check, golden
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
    assert len(data) == 8 and arrays["logits"].shape == (8, 4)
    assert not list(out.parent.glob(".tmp*"))
    report = kzoo.verify(out)
    assert report["ok"] and {"files", "pixels", "saved_model", "encoded images", "keras"} <= {
        c["check"] for c in report["checks"]
    }
    for name in set(card["formats"]):
        assert next(c for c in report["checks"] if c["check"] == name)["flips"] == 0


def test_verify_finds_what_was_changed(exported, tmp_path, kzoo_command):
    folder = saved_model_alone(exported, tmp_path)
    arrays = dict(np.load(folder / "golden.npz"))
    arrays["logits"] = arrays["logits"][:, ::-1]
    with open(folder / "golden.npz", "wb") as f:
        np.savez(f, **arrays)
    report = kzoo.verify(folder, raises=False)
    bad = {c["check"]: c["detail"] for c in report["checks"] if c["ok"] is False}
    assert "golden.npz has changed" in bad["files"] and "get another answer" in bad["saved_model"]
    with pytest.raises(ExportError, match="does not give the results it gave"):
        kzoo.verify(folder)
    code, out, err = kzoo_command("verify", folder)
    assert code == 1 and "FAILED  files" in out and "Error: " in err

    card = json.loads((folder / "card.json").read_text())
    for key, value, name in (("temperature", 7.0, "probabilities"), ("classes", [*CLASSES[1:], CLASSES[0]], "labels")):
        (folder / "card.json").write_text(json.dumps({**card, key: value}))
        report = kzoo.verify(folder, raises=False)
        assert name in {c["check"] for c in report["checks"] if c["ok"] is False}
    for key, value in (("files", {"saved_model.pb": 1}), ("formats", None), ("classes", "ab"), ("temperature", 0)):
        (folder / "card.json").write_text(json.dumps({**card, key: value}))
        code, _, err = kzoo_command("verify", folder)
        assert code == 1 and f"{key} can't be read" in err


def test_a_check_can_fail():
    z = np.array([[3.0, 1.0], [0.0, 2.0]])
    assert check.compare("x", z + 0.001, z, 0.01, TASK)["ok"]
    assert not check.compare("x", z + 0.1, z, 0.01, TASK)["ok"]
    assert not check.compare("x", z[:, ::-1], z, 10.0, TASK)["ok"]
    assert not check.compare("x", z * np.nan, z, 10.0, TASK)["ok"]
