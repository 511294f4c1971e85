"""A network of a user's own, in a file that registers it, and a catalog that forgets it after a test."""

import sys

import pytest

from kzoo.catalog import imports, registry

SOURCE = """
import keras

import kzoo
from kzoo.layers import classifier


@keras.saving.register_keras_serializable(package="of_a_test")
class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2 * x


def my_net(x, *, num_classes, filters=2):
    x = keras.layers.Conv2D(filters, 3, name="conv1")(x)
    x = Doubled(name="doubled")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return classifier(x, num_classes)


kzoo.register(kzoo.ModelSpec("my_net", f"{__name__}:my_net", (8, 8, 1), 10, kzoo.Paper("None yet", "I", 2026)))
"""


@pytest.fixture
def forgetful(monkeypatch):
    """What a test imports and registers is forgotten; call it to forget in the middle, as a new process has."""
    rows, by, modules, path = dict(registry.ROWS), dict(registry.REGISTERED_BY), set(sys.modules), list(sys.path)

    def forget():
        monkeypatch.setattr(registry, "ROWS", dict(rows))
        monkeypatch.setattr(registry, "REGISTERED_BY", dict(by))
        monkeypatch.setattr(sys, "path", list(path))
        for name in [n for n in sys.modules if n not in modules and n.startswith("own_of_a_test")]:
            del sys.modules[name]

    monkeypatch.delenv(imports.VARIABLE, raising=False)
    forget()
    yield forget
    forget()
