"""Gradient accumulation: the same steps as with the whole batch, on TensorFlow and JAX."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from support.training import history_of, same_run, weights_of

import kzoo
from kzoo.errors import KzooError
from kzoo.interrupt import Interrupted
from kzoo.training import fitting
from kzoo.training.callbacks import RunKeeper
from kzoo.training.recipes import Recipe

PLAN = Recipe(
    "steps",
    "a test",
    optimizer="adamw",
    learning_rate=1e-2,
    weight_decay=0.1,
    schedule="cosine",
    warmup=0.5,
    epochs=2,
    label_smoothing=0.1,
)


@pytest.fixture(scope="module")
def numbers():
    """44 pictures: with 24 a step the second step of an epoch has 20, in parts of 8, 8 and 4."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 44)
    return {"train": ((rng.uniform(0, 90, (44, 6, 6, 1)) + 60 * labels[:, None, None, None]).astype("uint8"), labels)}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    more = [layers.Conv2D(3, 3, activation="relu", kernel_regularizer="l2"), layers.Flatten(), layers.Dense(3)]
    return keras.Sequential([keras.Input((6, 6, 1)), layers.Rescaling(1 / 127.5, -1), *more], name="tiny")


def train(model, numbers, out, **options):
    options = {"recipe": PLAN, "val_fraction": 0, "test_fraction": 0, "precision": "float32", "quiet": True, **options}
    return kzoo.train(model, numbers["train"], out=out, **options)


@pytest.fixture(scope="module")
def accumulated(model, numbers, tmp_path_factory):
    out = tmp_path_factory.mktemp("steps") / "r"
    return train(model, numbers, out, batch_size=8, gradient_accumulation_steps=3)


@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("sgd", marks=pytest.mark.deep("2026-11-27"))])
def test_batches_together_are_one_batch(accumulated, model, numbers, tmp_path, optimizer):
    plan = PLAN.changed(optimizer=optimizer)
    if optimizer != "adamw":
        options = {"batch_size": 8, "gradient_accumulation_steps": 3, "recipe": plan}
        accumulated = train(model, numbers, tmp_path / "parts", **options)
    whole = train(model, numbers, tmp_path / "whole", batch_size=24, recipe=plan)
    for path, value in weights_of(whole).items():
        np.testing.assert_allclose(weights_of(accumulated)[path], value, rtol=0, atol=1e-6, err_msg=path)
    for a, b in zip(history_of(accumulated.path), history_of(whole.path), strict=True):
        assert a["learning_rate"] == b["learning_rate"] and a["accuracy"] == b["accuracy"]
        np.testing.assert_allclose(float(a["loss"]), float(b["loss"]), rtol=1e-5)
    assert accumulated.config["recipe"]["gradient_accumulation_steps"] == 3


@pytest.mark.slow
@pytest.mark.deep("2026-11-27")
def test_on_jax():
    path = Path(__file__)
    options = ("-p", "no:cacheprovider", "-n", "0", "-k", "one_batch")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(path)],
        env={**os.environ, "KERAS_BACKEND": "jax", "KZOO_DEEP": "1"},
        cwd=path.parents[2],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.deep("2026-11-27")
def test_it_resumes_to_the_bit_and_with_other_steps(accumulated, model, numbers, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        finish = RunKeeper.on_epoch_end
        patch.setattr(
            RunKeeper, "on_epoch_end", lambda self, *a: (os.kill(os.getpid(), signal.SIGINT), finish(self, *a))
        )
        with pytest.raises(Interrupted):
            train(model, numbers, tmp_path / "r", batch_size=8, gradient_accumulation_steps=3)
    kzoo.train(data=numbers["train"], out=tmp_path / "r", resume=True, quiet=True)
    same_run(accumulated.path, tmp_path / "r")
    options = {"epochs": 3, "gradient_accumulation_steps": 2}
    run = kzoo.train(data=numbers["train"], out=tmp_path / "r", resume=True, quiet=True, **options)
    changes = {"after_epoch": 2, "epochs": [2, 3], "gradient_accumulation_steps": [3, 2]}
    assert run.config["resumed"][-1] == changes and len(history_of(run.path)) == 3


@pytest.mark.deep("2026-11-27")
def test_other_steps_within_an_epoch_end_it_where_the_schedule_does(model, numbers, tmp_path, monkeypatch):
    """24 of 44 pictures are done, then the other 20 are one step: of the two that an epoch of 32 a step has."""
    monkeypatch.setattr(fitting, "steps_per_execution", lambda *_: 1)
    with monkeypatch.context() as patch:
        end = RunKeeper.on_train_batch_end
        patch.setattr(
            RunKeeper,
            "on_train_batch_end",
            lambda self, *a, **k: (os.kill(os.getpid(), signal.SIGINT), end(self, *a, **k)),
        )
        with pytest.raises(Interrupted):
            train(model, numbers, tmp_path / "r", batch_size=8, gradient_accumulation_steps=3)
    options = {"batch_size": 8, "gradient_accumulation_steps": 4}
    run = kzoo.train(data=numbers["train"], out=tmp_path / "r", resume=True, quiet=True, **options)
    whole = train(model, numbers, tmp_path / "whole", **options)
    rates = [[row["learning_rate"] for row in history_of(r.path)] for r in (run, whole)]
    assert rates[0] == rates[1] and len(set(rates[0])) == 2


def test_wrong_numbers_of_batches(model, numbers, tmp_path):
    with pytest.raises(KzooError, match="gradient_accumulation_steps must be a whole number of at least 1, got 0"):
        train(model, numbers, tmp_path / "r", gradient_accumulation_steps=0)
