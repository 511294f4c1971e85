"""The parts: what the user divided stays so, what is drawn keeps duplicates together, a second run decodes nothing."""

from contextlib import nullcontext

import numpy as np
import pytest
from support.tuning import draw

from kzoo.data.loading import load_data
from kzoo.finetuning import parts as module
from kzoo.finetuning.options import FinetuneOptions
from kzoo.finetuning.parts import RememberedGroups, make_parts


def parts_of(folder, **options):
    return make_parts(
        load_data(folder, val_fraction=0.0, test_fraction=0.0),
        options=FinetuneOptions(**options),
        needs_network=lambda hashes: False,
        quiet=True,
        timed=lambda name: nullcontext(),
    )


def counts(found):
    return {name: len(split) for name, split in found.splits.items()}


def photos(folder, *parts):
    return draw(folder, {(p, c): n for p, n in parts for c in ("red", "blue")})


@pytest.mark.parametrize(
    ("given", "expected", "test_from", "val_given"),
    [
        ((("train", 20), ("val", 4), ("test", 6)), {"train": 40, "val": 8, "test": 12}, "your test", True),
        ((("train", 20), ("val", 4)), {"train": 32, "val": 8, "test": 8}, "your val", False),
        ((("train", 20), ("test", 6)), {"train": 32, "val": 8, "test": 12}, "your test", False),
        ((("", 20),), {"train": 26, "val": 6, "test": 8}, "drawn by kzoo", False),
        ((("train", 5), ("val", 4)), {"train": 10, "test": 8}, "your val", False),  # too few to validate on
    ],
)
def test_who_divides(tmp_path, given, expected, test_from, val_given):
    found = parts_of(photos(tmp_path / "photos", *given))
    assert counts(found) == expected and (found.test_from, found.val_given) == (test_from, val_given)
    ids = [id for split in found.splits.values() for id in split.ids]
    assert len(ids) == len(set(ids)) and set(ids) == found.images.keys() == found.hashes.keys()
    assert test_from in found.describe(("blue", "red")) and f"{expected['train']} training" in found.describe("ab")


def test_the_share_for_validation_is_the_users(tmp_path):
    folder = photos(tmp_path / "photos", ("train", 20), ("test", 6))
    assert counts(parts_of(folder, val_fraction=0.4)) == {"train": 24, "val": 16, "test": 12}


def test_a_second_run_decodes_nothing_and_gives_the_same(tmp_path, monkeypatch):
    folder = photos(tmp_path / "photos", ("", 20))
    first = parts_of(folder, seed=3)
    monkeypatch.setattr(module, "scan_images", lambda *_: pytest.fail("the photos were decoded again"))
    second = parts_of(folder, seed=3)
    assert {k: s.ids for k, s in first.splits.items()} == {k: s.ids for k, s in second.splits.items()}
    np.testing.assert_array_equal(first.groups, second.groups)
    assert first.passport == second.passport
    memo = max((module.cache_dir() / "passports").iterdir(), key=lambda p: p.stat().st_mtime_ns)
    memo.write_text(memo.read_text().replace('"seed": 3', '"seed": 4'))
    assert module._read_memo(memo) is None, "a changed file is not believed"


def drawn_parts(folder, seed=3):
    return {name: split.ids for name, split in parts_of(folder, seed=seed).splits.items()}


def test_a_resumed_run_keeps_the_parts_of_its_splits_csv(tmp_path):
    """Other parts than today's rules would draw, with photos that are in no part, as --shots leaves them."""
    folder = photos(tmp_path / "photos", ("", 20))
    data = load_data(folder, val_fraction=0.0, test_fraction=0.0)
    ids = data.splits["train"].ids
    recorded = [{"split": ("train", "val", "test", "train")[i % 4], "id": id} for i, id in enumerate(ids[:-3])]
    rest = dict(needs_network=lambda hashes: False, quiet=True, timed=lambda name: nullcontext())
    found = make_parts(data, options=FinetuneOptions(seed=3), recorded=recorded, **rest)
    for part, split in found.splits.items():
        assert split.ids == [row["id"] for row in recorded if row["split"] == part]
    assert {*found.splits} == {"train", "val", "test"} and drawn_parts(folder)["test"] != found.splits["test"].ids
    assert (
        found.test_from == "drawn by kzoo" and not found.val_given and len(found.groups) == len(found.splits["train"])
    )
    # A division of one's own stays; only what kzoo drew of the training photos is taken from the record.
    folder = photos(tmp_path / "divided", ("train", 20), ("val", 4))
    data = load_data(folder, val_fraction=0.0, test_fraction=0.0)
    own = {name: split.ids for name, split in data.splits.items()}
    recorded = [{"split": "val" if i < 2 else "train", "id": id} for i, id in enumerate(own["train"])]
    recorded += [{"split": "test", "id": id} for id in own["val"]]
    found = make_parts(data, options=FinetuneOptions(), recorded=recorded, **rest)
    assert {name: split.ids for name, split in found.splits.items()} == {
        "train": own["train"][2:],
        "val": own["train"][:2],
        "test": own["val"],
    }


def test_a_data_set_that_was_loaded_with_parts_keeps_them(tmp_path):
    """It has a test part that kzoo drew; another one must not be drawn from its training part in its place."""
    data = load_data(photos(tmp_path / "photos", ("", 20)), seed=1)
    found = make_parts(
        data,
        options=FinetuneOptions(seed=2),
        needs_network=lambda hashes: False,
        quiet=True,
        timed=lambda name: nullcontext(),
    )
    assert {name: split.ids for name, split in found.splits.items()} == {n: s.ids for n, s in data.splits.items()}
    assert {*found.splits} == {"train", "val", "test"}


def test_cached_groups_number_what_has_no_duplicate_apart():
    groups = RememberedGroups([["a", "b"], ["c", "d"]]).groups_of(["a", "x", "b", "y", "d"])
    assert groups[0] == groups[2] and len(set(groups.tolist())) == 4
