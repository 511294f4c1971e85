"""Recipes: checked, written and read again."""

import json

import keras
import numpy as np
import pytest

import kzoo
from kzoo.training.recipes import RECIPES, find_recipe


def test_every_recipe_builds_its_optimiser_and_survives_json():
    from kzoo.training.optimizers import make_optimizer

    for plan in RECIPES.values():
        variable = keras.Variable(np.ones(2, "float32"), name="kernel")
        optimizer = make_optimizer(plan, 10)
        for _ in range(2):  # the first step of a warm-up has the rate 0
            optimizer.apply([keras.ops.convert_to_tensor([1.0, 0.0])], [variable])
        moved = variable.numpy()
        assert np.isfinite(moved).all() and moved[0] < min(1.0, moved[1] + 1e-9), plan.name
        assert find_recipe(json.loads(json.dumps(plan.to_dict()))) == plan
    with pytest.raises(kzoo.KzooError, match="Did you mean 'modern'"):
        find_recipe("moderm")
    with pytest.raises(kzoo.KzooError, match="epochs must be"):
        find_recipe("modern").changed(epochs=0)


def rates(plan, steps, at):
    """The rates of these steps."""
    from kzoo.training.optimizers import rate_schedule

    schedule = rate_schedule(plan, steps)
    assert type(schedule).from_config(schedule.get_config()).get_config() == schedule.get_config()
    return [float(schedule(step)) for step in at]


def test_the_rates_of_goyal_et_al_by_hand():
    plan = find_recipe("imagenet")  # ImageNet: 5,005 steps of 256 an epoch
    ends = [30 * 5005 - 1, 30 * 5005, 60 * 5005 - 1, 60 * 5005, 80 * 5005 - 1, 80 * 5005, 90 * 5005 - 1]
    np.testing.assert_allclose(rates(plan, 5005, [0, *ends]), [0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-4], rtol=1e-5)
    large = plan.changed(batch_size=8192)  # k = 32: 3.2, from 0.1 in 5 epochs of 157 steps
    want = [0.1, 0.1 + 3.1 / 785, 1.65, 3.2, 3.2, 0.32, 0.032, 0.0032]
    at = [0, 1, 392.5, 785, 30 * 157 - 1, 30 * 157, 60 * 157, 80 * 157]
    np.testing.assert_allclose(rates(large, 157, at), want, rtol=1e-5)
    small = plan.changed(batch_size=64, epochs=9)  # no warm-up above its own rate; after a third, two thirds, 8/9
    np.testing.assert_allclose(
        rates(small, 10, [0, 29, 30, 59, 60, 79, 80]), np.repeat([1, 0.1, 0.01, 1e-3], [2, 2, 2, 1]) / 40
    )
    assert (plan.nesterov, plan.momentum, plan.weight_decay, plan.decay_all) == (True, 0.9, 1e-4, False)
    assert find_recipe(json.loads(json.dumps(large.to_dict()))) == large


def test_the_rates_of_he_et_al_by_hand():
    from kzoo.training.optimizers import make_optimizer, plateau_rate

    plan = find_recipe("imagenet_he")
    assert plan.epochs * -(-1_281_167 // plan.batch_size) == 600_600
    assert (plan.momentum, plan.nesterov, plan.weight_decay, plan.batch_size) == (0.9, False, 1e-4, 256)
    accuracies = [0.1, 0.2, *[0.2] * 5, 0.3, *[0.25] * 5, *[0.3] * 5]
    history = [{"accuracy": 0.9, "val_accuracy": a} for a in accuracies]
    found = [plateau_rate(plan, history[:n]) for n in range(len(history) + 1)]
    np.testing.assert_allclose(found, [0.1] * 7 + [0.01] * 6 + [1e-3] * 5 + [1e-4])
    assert float(make_optimizer(plan, 5005).learning_rate) == np.float32(0.1)
