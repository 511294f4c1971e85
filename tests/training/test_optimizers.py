"""Optimisers and schedules against the papers' updates and Keras' own."""

import keras
import numpy as np
import pytest

from kzoo.training.optimizers import SGDAsPrinted, plateau_rate, rate_schedule
from kzoo.training.recipes import RECIPES, find_recipe


def test_rates_by_epoch_and_step():
    lecture = rate_schedule(RECIPES["lecture_mlp"], steps=100)
    np.testing.assert_allclose([float(lecture(s)) for s in (0, 99, 100, 250)], [0.01, 0.01, 0.006, 0.0036], rtol=1e-5)
    plan = find_recipe("modern").changed(epochs=10)
    cosine = rate_schedule(plan, steps=10)
    assert float(cosine(0)) == 0
    np.testing.assert_allclose(float(cosine(10)), plan.learning_rate, rtol=1e-5)
    np.testing.assert_allclose(float(cosine(55)), plan.learning_rate / 2, rtol=1e-5)
    assert float(cosine(100)) < 1e-9


def test_the_plateau_divides_by_ten_after_five_epochs_without_progress():
    accuracies = [0.1, 0.2, *[0.2] * 5, 0.3, *[0.1] * 5]
    history = [{"accuracy": 0, "val_accuracy": a} for a in accuracies]
    rates = [plateau_rate(RECIPES["alexnet"], history[:n]) for n in range(len(history) + 1)]
    np.testing.assert_allclose(rates, [0.01] * 7 + [0.001] * 6 + [0.0001], rtol=1e-9)


def test_sgd_is_krizhevskys_update():
    w, v = np.array([1.0, -2.0]), np.zeros(2)
    variable = keras.Variable(w.astype("float32"), name="kernel")
    optimizer = SGDAsPrinted(0.1, 0.9, decay=0.5)
    for gradient in ([0.3, 0.1], [-0.2, 0.4], [0.0, 1.0]):
        v = 0.9 * v - 0.5 * 0.1 * w - 0.1 * np.array(gradient)
        w = w + v
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    np.testing.assert_allclose(np.asarray(variable), w, rtol=1e-5)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_the_fused_adam_is_keras_adam(name):
    from kzoo.training import optimizers

    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(5, 7)), rng.normal(size=(4, 5, 7))
    results = []
    for kind in (getattr(optimizers, name), getattr(keras.optimizers, name)):
        variable = keras.Variable(start.astype("float32"), name="kernel")
        optimizer = kind(keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5))
        for gradient in gradients:
            optimizer.apply([keras.ops.convert_to_tensor(gradient, "float32")], [variable])
        results.append([np.asarray(v) for v in (variable, *optimizer.variables)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-6)
    assert not np.allclose(results[0][0], start)


def test_biases_decay_only_where_the_recipe_says_so():
    for decay_all, want in ((False, 1.0), (True, 0.95)):
        bias = keras.Variable(np.ones(1, "float32"), name="bias")
        SGDAsPrinted(0.1, decay=0.5, decay_all=decay_all).apply([keras.ops.zeros(1)], [bias])
        np.testing.assert_allclose(np.asarray(bias), [want], rtol=1e-6)
