"""kzoo: the classic convolutional networks, as published, on Keras 3.

The names below load what they need when they are first used; importing kzoo imports no Keras.
"""

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("kzoo")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"

_HOME = {
    "KzooError": "kzoo.errors",
    "ModelSpec": "kzoo.catalog",
    "Paper": "kzoo.catalog",
    "Preprocessing": "kzoo.catalog",
    "Weights": "kzoo.catalog",
    "list_models": "kzoo.catalog",
    "register": "kzoo.catalog",
    "spec": "kzoo.catalog",
    "build": "kzoo.builder",
    "ledger": "kzoo.graph.ledger",
    "load_data": "kzoo.data.loading",
    "check_data": "kzoo.data.passport",
    "train": "kzoo.training.loop",
    "finetune": "kzoo.finetuning.pipeline",
    "scout": "kzoo.finetuning.scouting",
    "evaluate": "kzoo.evaluating.evaluation",
    "load_run": "kzoo.runs",
    "predict": "kzoo.evaluating.prediction",
    "stylize": "kzoo.style",
    "train_stylenet": "kzoo.style.stylenet",
    "apply_stylenet": "kzoo.style.stylenet",
    "export": "kzoo.exporting.write",
    "verify": "kzoo.exporting.check",
}
__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module 'kzoo' has no attribute '{name}'")
    value = getattr(import_module(_HOME[name]), name)
    setattr(sys.modules[__name__], name, value)
    return value


def __dir__():
    return sorted([*globals(), *__all__])
