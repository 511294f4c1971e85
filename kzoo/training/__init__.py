"""Training: how (recipes), the loop (fit), its folder (run), and what came of it (evaluation, prediction)."""

from importlib import import_module

_HOME = {
    "RECIPES": "recipes",
    "Recipe": "recipes",
    "recipe": "recipes",
    "train": "fit",
    "finetune": "finetuning",
    "scout": "scouting",
    "load_run": "run",
    "evaluate": "evaluation",
    "predict": "prediction",
}


def __getattr__(name):  # so that `kzoo train --help`, which shows the recipes, imports no Keras
    if name not in _HOME:
        raise AttributeError(f"module 'kzoo.training' has no attribute '{name}'")
    return getattr(import_module(f"kzoo.training.{_HOME[name]}"), name)
