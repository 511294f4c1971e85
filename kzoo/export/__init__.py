"""Export: the whole classifier in one folder (graph, formats), its evidence (golden, card), its proof (verify)."""

from importlib import import_module

_HOME = {"export": "write", "verify": "check", "Export": "reader", "is_export": "reader"}


def __getattr__(name):  # so that `kzoo export --help` imports no Keras
    if name not in _HOME:
        raise AttributeError(f"module 'kzoo.export' has no attribute '{name}'")
    return getattr(import_module(f"kzoo.export.{_HOME[name]}"), name)
