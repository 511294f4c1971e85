"""Scouting: candidates ranked by their features."""

from support.tuning import SHAPE

import kzoo
from kzoo.finetuning import backbone


def test_scout_ranks(world, monkeypatch):
    from kzoo.finetuning import scouting

    def named(name, **_):
        return backbone.backbone(name, str(world / "weights.npz"), input_shape=SHAPE, precision="float32")

    monkeypatch.setattr(scouting, "backbone", named)
    found = kzoo.scout(world / "photos", ["resnet20"], quiet=True)
    row = found.rows[0]
    assert row["low"] < row["accuracy"] <= row["high"] <= 1 and found.images == 48 and row["features"] == 64
    assert "resnet20" in str(found)
