"""Recipes: checked, written and read again."""

import json

import pytest

import kzoo
from kzoo.training.recipes import RECIPES, find_recipe


def test_every_recipe_builds_its_optimiser_and_survives_json():
    from kzoo.training.optimizers import make_optimizer

    for plan in RECIPES.values():
        assert make_optimizer(plan, 10) is not None
        assert find_recipe(json.loads(json.dumps(plan.to_dict()))) == plan
    with pytest.raises(kzoo.KzooError, match="Did you mean 'modern'"):
        find_recipe("moderm")
    with pytest.raises(kzoo.KzooError, match="epochs must be"):
        find_recipe("modern").changed(epochs=0)
