"""kzoo: the classic convolutional networks, as published, on Keras 3.

The names below load what they need when they are first used; importing kzoo imports no Keras.
"""

import sys
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import FunctionType

try:
    __version__ = version("kzoo")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"


class _RegisterLayers:
    """Finds Keras as the other finders do, and registers kzoo's layers with it once it is imported.

    So `import kzoo, keras` is enough for `keras.models.load_model` on the model of a run or an export.
    """

    def find_spec(self, name, path=None, target=None):
        if name != "keras":
            return None
        others = (f for f in sys.meta_path if f is not self and hasattr(f, "find_spec"))
        spec = next((s for f in others if (s := f.find_spec(name, path, target)) is not None), None)
        execute = getattr(spec and spec.loader, "exec_module", None)
        if execute is not None:

            def execute_and_register(module):
                execute(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                _register_layers()

            spec.loader.exec_module = execute_and_register
        return spec


def _register_layers():
    """Import the modules whose layers register themselves with Keras."""
    with suppress(ImportError):  # a Keras that is too old: kzoo says so when it is used, importing Keras still works
        import_module("kzoo.layers")
        import_module("kzoo.models")


if "keras" in sys.modules:
    _register_layers()
else:
    sys.meta_path.insert(0, _RegisterLayers())

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
    "load": "kzoo.evaluating.model",
    "load_run": "kzoo.runs",
    "predict": "kzoo.evaluating.prediction",
    "stylize": "kzoo.style",
    "train_stylenet": "kzoo.style.stylenet",
    "apply_stylenet": "kzoo.style.painter",
    "visualize": "kzoo.visualizing.report",
    "export": "kzoo.exporting.write",
    "verify": "kzoo.exporting.check",
}
# What imports Keras when it is imported, which is then done without TensorFlow's messages, as the commands do it.
_IMPORTING_KERAS = {
    "kzoo.builder",
    "kzoo.graph.ledger",
    "kzoo.training.loop",
    "kzoo.evaluating.evaluation",
    "kzoo.evaluating.model",
    "kzoo.evaluating.prediction",
    "kzoo.finetuning.scouting",
    "kzoo.style",
    "kzoo.style.stylenet",
    "kzoo.style.painter",
    "kzoo.exporting.write",
    "kzoo.exporting.check",
}
__all__ = sorted(_HOME)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module 'kzoo' has no attribute '{name}'")
    from kzoo.checks import checking_keywords
    from kzoo.hardware import load_keras, quiet_tensorflow

    if _HOME[name] in _IMPORTING_KERAS:
        load_keras()
    else:
        quiet_tensorflow()  # it may be imported later
    value = getattr(import_module(_HOME[name]), name)
    if isinstance(value, FunctionType):
        value = checking_keywords(value)
    setattr(sys.modules[__name__], name, value)
    return value


def __dir__():
    return sorted([*globals(), *__all__])
