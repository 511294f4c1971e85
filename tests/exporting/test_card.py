"""The card says on which images its numbers were chosen, and how far they reach."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binomtest

from kzoo.catalog import Preprocessing
from kzoo.exporting import card as cards
from kzoo.exporting.options import ExportOptions
from kzoo.source import Source
from kzoo.tasks.classification import TASK


def markdown(part, conformal=True, **more):
    """A card of a network of two classes, measured on ten images of a part."""
    model = SimpleNamespace(input_shape=(None, 4, 4, 3))
    source = Source("x", model, ("a", "b"), Preprocessing(), TASK)
    facts = {"level": 0.8, "threshold": 0.7, "images": 49, "coverage": [0.68, 0.89]} if conformal else None
    card = cards.initial_card(source, ExportOptions(), "float32", multiply_adds=9, conformal=facts, written={}, **more)
    labels = np.arange(10) % 2
    logits = np.where(np.eye(2)[labels] > 0, 2.0, 0.0)  # p = 0.88: alone in its set
    logits[:3] = [[0.3, 0.0], [0.0, 0.3], [0.0, 0.3]]  # p = 0.57: both are in the set; the last is wrong
    card["measured"] = cards.measurements(TASK, part, labels, logits, {}, temperature=1.0, conformal=facts)
    return cards.markdown(card)


def shown(right, n):
    interval = binomtest(right, n).proportion_ci(method="wilson")
    return f"{right / n:.2%} [{interval.low:.2%}, {interval.high:.2%}]"


def test_the_temperature_comes_with_its_reason():
    text = markdown("test", temperature=1.0, temperature_reason="Temperature 1, no scaling: 2 of 49 <b>.")
    assert (
        "- Temperature 1: probabilities are softmax(logits / temperature). Temperature 1, no scaling: 2 of 49" in text
    )
    assert "\\<b\\>" in text
    assert "softmax(logits / temperature).\n" in markdown("test", temperature=1.5), "none is known of older runs"


@pytest.mark.parametrize("part", ["val", "test"])
def test_what_was_chosen_on_the_measured_images_is_said(part):
    text = markdown(part, temperature=1.0)
    assert "this one covers between 68.00% and 89.00% of new images (95 % interval)" in text
    expected = f"for {shown(10, 10)} of the images; it abstains on {shown(3, 10)}; top-1 of the others {shown(7, 7)}."
    assert expected in text
    for words in ("the best epoch was chosen on these images", "on which the threshold was computed"):
        assert (words in text) == (part == "val")
    assert "threshold" not in markdown(part, conformal=False, temperature=1.0).partition("## Numbers")[2]


def test_the_table_of_a_terminal_fits_it_and_says_what_the_card_says():
    facts = {
        "precision": "bfloat16",
        "bytes": 1_234_567,
        "moved": 0.0123,
        "golden": {"changed": 1, "images": 32, "change": 0.0012},
    }
    scores = {"top1": 0.9749, "top1_interval": (0.9531, 0.9868), "images": 359, "agree": 0.9972}
    card = {
        "classes": ["a", "b"],
        "formats": {"saved_model": facts, "litert_float16": {**facts, "precision": "float16", "bytes": 99e6}},
        "measured": {"original": scores, "formats": {"saved_model": scores}},
    }
    lines = cards.text_table(card).splitlines()
    assert max(map(len, lines)) <= 80 and not any("|" in line for line in lines)
    assert lines[3].split() == [
        "saved_model,",
        "bfloat16",
        "97.49%",
        "99.72%",
        "1",
        "of",
        "32",
        "0.0012",
        "0.012",
        "1.23",
    ]
    assert lines[4].split() == ["litert_float16", "-", "1", "of", "32", "0.0012", "0.012", "99.00"]
    assert "97.49% [95.31%, 98.68%] | 99.72% | 1 of 32" in cards.table(card)
