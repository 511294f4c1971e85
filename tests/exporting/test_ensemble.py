"""An ensemble as one SavedModel: the average of what its members predict, with a card that names them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from support.exports import png

import kzoo
from kzoo.errors import ExportError
from kzoo.evaluating.loading import load_model
from kzoo.exporting import ensemble
from kzoo.exporting.reader import Export
from kzoo.metrics import choose_temperature


@pytest.fixture(scope="module")
def export(members, tmp_path_factory):
    out = tmp_path_factory.mktemp("ensembles") / "two"
    return kzoo.export([members / "softmax", members / "mlp"], out=out, top=10, abstain=0.8, quiet=True)


def test_the_export_averages(members, export):
    """What `kzoo.verify` checks was checked while it was written."""
    photo = export.parent / "a.png"
    photo.write_bytes(png(np.random.default_rng(0).integers(0, 256, (21, 33, 3)).astype("uint8")))
    softmax, whole = load_model(members / "softmax"), Export(export)
    rows = [next(kzoo.predict(model, photo, top=10)) for model in (softmax, members / "mlp", whole, [whole, softmax])]
    soft, mlp, found, again = ({t["class"]: t["probability"] for t in row["top"]} for row in rows)
    first, second = (
        m["temperature"] for m in json.loads((export / "card.json").read_text("utf-8"))["training"]["members"]
    )
    root = {c: p ** (1 / first) for c, p in soft.items()}, {c: p ** (1 / second) for c, p in mlp.items()}
    want = {c: sum(r[c] / sum(r.values()) for r in root) / 2 for c in soft}
    assert found == pytest.approx(want, rel=1e-4, abs=1e-7) and "abstain" in rows[2]
    assert again == pytest.approx({c: (want[c] + soft[c]) / 2 for c in want}, rel=1e-4, abs=1e-7)  # exports are members

    encoded = tf.constant([photo.read_bytes(), b"none"])
    out = {k: v.numpy() for k, v in whole.model.signatures["serving_default"](image=encoded).items()}
    of_graph = {c.decode(): p for c, p in zip(out["labels"][0], out["probabilities"][0], strict=True)}
    assert of_graph == pytest.approx(want, rel=1e-4, abs=1e-7) and out["error"][1] and out["abstain"][1]
    features = whole.model.signatures["features"](image=encoded)["features"]
    assert features.shape == (2, 784 + 128), "those of both members, side by side"


def test_the_card_names_the_members(members, export):
    card = json.loads((export / "card.json").read_text("utf-8"))
    assert [m["name"] for m in card["training"]["members"]] == ["softmax", "mlp"]
    with np.load(members / "digits.npz") as data:
        np.savez(export.parent / "val.npz", x_val=data["x_val"])
        labels = data["y_val"]
    rows = kzoo.predict(members / "softmax", export.parent / "val.npz", top=10)
    p = [[t["probability"] for t in sorted(row["top"], key=lambda t: t["class"])] for row in rows]
    fitted = choose_temperature(np.log(p), labels).temperature  # of a run that records none, as for its own export
    assert [m["temperature"] for m in card["training"]["members"]] == [pytest.approx(fitted, rel=1e-3), 2.0]
    assert fitted != 1 and card["training"]["members"][1]["temperature_reason"] == "A test."
    assert [m["model"] for m in card["training"]["members"]] == ["mnist_softmax", "mnist_mlp"]
    assert card["temperature"] == 1.0 and card["conformal"]["images"] == 100
    assert card["measured"]["part"] == "test" and card["measured"]["original"]["images"] == 200
    text = (export / "card.md").read_text("utf-8")
    assert f"- Member 1: softmax; Temperature: {fitted:.3g}" in text.replace("\\", "")
    assert "- Member 2: mlp; Temperature: 2; Network: mnist_mlp" in text.replace("\\", "")


def test_other_pixels_are_refused_and_other_parts_left_out(members, tmp_path, kzoo_command, monkeypatch, capfd):
    code, _, err = kzoo_command("export", members / "softmax", members / "small", "--out", tmp_path / "x")
    assert code == 1 and "small takes 14x14x1" in err and "share their input" in err and not (tmp_path / "x").exists()

    original, seen = ensemble.find_source, []

    def other_parts(member, **options):
        found = original(member, **options)
        seen.append({name: split.take(np.arange(len(seen), 50)) for name, split in found.splits.items()})
        return replace(found, splits=seen[-1], preprocessing=replace(found.preprocessing, scale=float(len(seen))))

    monkeypatch.setattr(ensemble, "find_source", other_parts)
    found = ensemble.ensemble_source([members / "softmax", members / "mlp"])
    assert list(found.splits) == ["train"] and found.splits["train"] is seen[0]["val"]
    assert found.preprocessing.scale == 1.0, "of members that scale otherwise none is named"
    assert "do not have the same test images" in capfd.readouterr().err
    with pytest.raises(ExportError, match="abstain needs a run with a validation part"):
        kzoo.export([members / "softmax", members / "mlp"], out=tmp_path / "y", abstain=0.9, quiet=True)
