"""kzoo: the classic convolutional networks, as published, on Keras 3.

The names below load what they need when they are first used; importing kzoo imports no Keras.
"""

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

try:
    __version__ = version("kzoo")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"

_HOME = {
    "KzooError": "kzoo.errors",
    "ModelSpec": "kzoo.spec",
    "Paper": "kzoo.spec",
    "Preprocessing": "kzoo.spec",
    "Weights": "kzoo.spec",
    "list_models": "kzoo.catalog",
    "register": "kzoo.catalog",
    "spec": "kzoo.catalog",
    "build": "kzoo.build",
    "ledger": "kzoo.ledger",
    "load_data": "kzoo.data",
    "check_data": "kzoo.data",
    "train": "kzoo.training",
    "finetune": "kzoo.training",
    "scout": "kzoo.training",
    "evaluate": "kzoo.training",
    "load_run": "kzoo.training",
    "predict": "kzoo.training",
    "stylize": "kzoo.style",
    "train_stylenet": "kzoo.style.stylenet",
    "apply_stylenet": "kzoo.style.stylenet",
    "export": "kzoo.export",
    "verify": "kzoo.export",
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


class _Package(ModuleType):
    """kzoo.build is the function, although importing the file kzoo/build.py would bind the module to that name."""

    def __setattr__(self, name, value):
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
