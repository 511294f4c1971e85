"""A short training and what to compare of two runs."""

import csv
from pathlib import Path

import numpy as np

import kzoo
from kzoo import runs
from kzoo.training.recipes import Recipe

QUICK = Recipe(
    "quick",
    "a test",
    optimizer="adamw",
    learning_rate=2e-3,
    weight_decay=0.01,
    schedule="cosine",
    warmup=0.5,
    batch_size=64,
    epochs=3,
    label_smoothing=0.1,
    augment=(("shift", 0.1), ("rotate", 5.0)),
)


def weights_of(run):
    run = run if isinstance(run, runs.Run) else kzoo.load_run(run)
    return {v.path: np.asarray(v) for v in run.model.weights}


def history_of(folder):
    with open(Path(folder) / "history.csv") as f:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(f)]


def same_run(a, b):
    """The same final weights, best weights, optimiser state and history, to the bit."""
    assert history_of(a) == history_of(b)
    for one, two in zip(*(runs.load_checkpoint(Path(f) / "checkpoint.npz")[0].items() for f in (a, b)), strict=True):
        assert one[0] == two[0]
        np.testing.assert_array_equal(one[1], two[1], err_msg=one[0])
    wa, wb = weights_of(a), weights_of(b)
    assert wa.keys() == wb.keys() and all(np.array_equal(wa[k], wb[k]) for k in wa)
