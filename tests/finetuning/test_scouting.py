"""Scouting: candidates ranked by their features, on photos that fine-tuning does not measure on."""

import shutil
from contextlib import nullcontext

import numpy as np
import pytest
from PIL import Image
from support.tuning import SHAPE, draw

import kzoo
from kzoo.data.loading import load_data
from kzoo.finetuning import backbone, scouting
from kzoo.finetuning.features import Features
from kzoo.finetuning.options import FinetuneOptions
from kzoo.finetuning.parts import make_parts


@pytest.fixture
def named(world, monkeypatch):
    def named(name, **_):
        return backbone.backbone(name, str(world / "weights.npz"), input_shape=SHAPE, precision="float32")

    monkeypatch.setattr(scouting, "backbone", named)


def finetune_parts(folder, seed):
    """{part: paths} of the parts that `kzoo finetune` makes."""
    parts = make_parts(
        load_data(folder, val_fraction=0.0, test_fraction=0.0),
        options=FinetuneOptions(seed=seed),
        needs_network=lambda hashes: False,
        quiet=True,
        timed=lambda step: nullcontext(),
    )
    return {name: {str(p) for p in split.images} for name, split in parts.splits.items()}


@pytest.fixture
def read(monkeypatch):
    """The paths whose features were asked for; the features are random numbers, so that no network runs."""
    found = []

    def noted(images, *args, hashes, **options):
        found.extend(map(str, images))
        x = np.random.default_rng(0).normal(size=(len(images), 4)).astype("float32")
        return Features(x, np.arange(len(images)), hashes, [])

    monkeypatch.setattr(scouting, "features", noted)
    return found


@pytest.fixture(scope="module")
def undivided(tmp_path_factory):
    """A folder without parts, with equal files and a near duplicate of most of the others."""
    folder = draw(tmp_path_factory.mktemp("undivided"), {("", c): 16 for c in ("red", "blue")}, seed=5, noise=30)
    for name in ("red", "blue"):
        for i in range(0, 16, 3):
            shutil.copy(folder / name / f"{i}.png", folder / name / f"{i}-copy.png")
            with Image.open(folder / name / f"{i + 1 if i < 15 else 1}.png") as image:
                pixels = np.asarray(image).astype(int) + 3
            Image.fromarray(np.clip(pixels, 0, 255).astype("uint8")).save(folder / name / f"{i}-brighter.png")
    return folder


@pytest.mark.parametrize("seed", [0, 1, 2, 7])
def test_scout_never_reads_what_finetune_measures_on(named, read, undivided, seed):
    found = kzoo.scout(undivided, ["resnet20"], seed=seed, quiet=True)
    parts, everything = finetune_parts(undivided, seed), {str(p) for p in undivided.rglob("*.png")}
    assert len(read) == len(set(read)) and parts["test"]
    assert set(read) == parts["train"] | parts["val"] == everything - parts["test"]
    assert found.images == len(read) and found.held_out == {"test": len(parts["test"])}
    assert f"{len(parts['test'])} of the test part (drawn by kzoo; as kzoo finetune and seed {seed})" in str(found)
    # Copies lie on one side, so no copy of a test photo was read either.
    contents = {p: np.asarray(Image.open(p)).tobytes() for p in everything}
    assert not {contents[p] for p in read} & {contents[p] for p in parts["test"]}


def test_scout_leaves_out_parts_of_ones_own(named, read, tmp_path):
    folder = draw(
        tmp_path / "photos", {(p, c): n for p, n in (("train", 12), ("val", 3), ("test", 4)) for c in ("red", "blue")}
    )
    found = kzoo.scout(folder, ["resnet20"], quiet=True)
    assert set(read) == {str(p) for p in (folder / "train").rglob("*.png")}
    assert found.held_out == {"test": 8, "val": 6}
    assert "24 training photos; left out: 8 of the test part (your test; as kzoo finetune), 6 of your val" in str(found)


def test_scout_ranks(named, world):
    found = kzoo.scout(world / "photos", ["resnet20"], quiet=True)
    row = found.rows[0]
    assert row["low"] < row["accuracy"] <= row["high"] <= 1 and found.images == 48 and row["features"] == 64
    assert "resnet20" in str(found)
    assert repr(found).endswith(
        f"photos: best of 1 is resnet20, {row['accuracy']:.2%} [{row['low']:.2%}, {row['high']:.2%}]>"
    )
    assert found.held_out == {"test": 16} and found.test_from == "your val"
