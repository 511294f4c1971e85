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
