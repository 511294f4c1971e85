"""Names that are not in the catalog, and networks of one's own."""

import sys
import types

import keras
import pytest

import kzoo
from kzoo.catalog import registry
from kzoo.errors import KzooError, UnknownName


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("inception_v1", "It is called 'googlenet' here"),
        ("ResNet50", "It is called 'resnet50' here"),
        ("MobileNetV2", "It is called 'mobilenet_v2' here"),
        ("vgg-16", "It is called 'vgg16' here"),
        ("InceptionResNetV2", "It is called 'inception_resnet_v2' here"),
        ("densenet121", "kzoo has no DenseNet"),
        ("EfficientNetB0", "kzoo has no EfficientNet but EfficientNet-Lite0"),
        ("vit_base_patch16_224", "kzoo has no vision transformer"),
        ("resnet51", "Did you mean 'resnet"),
    ],
)
def test_a_wrong_name_is_explained(name, reason):
    with pytest.raises(UnknownName, match=reason):
        kzoo.spec(name)


def test_every_alias_leads_to_a_row():
    for plain, row in registry.ALIASES.items():
        assert kzoo.spec(row).name == row and registry._plain(plain) == plain
        assert plain not in map(registry._plain, registry.ROWS)
    for start in registry.LACKING:
        assert not any(registry._plain(row).startswith(start) for row in registry.ROWS if row != "efficientnet_lite0")


def test_the_list_fits_a_terminal(kzoo_command):
    code, out, err = kzoo_command("list")
    lines = (out + err).splitlines()
    assert (
        code == 0
        and max(map(len, lines)) <= 80
        and lines[0].split() == ["model", "input", "parameters", "MAdds", "paper"]
    )
    assert "vgg19                  224x224x3 143,667,240   19.6G Simonyan & Zisserman 2014" in lines


@pytest.fixture
def net(monkeypatch):
    """A module of a user's with a network in it."""
    module = types.ModuleType("their_nets")
    source = """
from keras import layers

def their_net(x, *, num_classes, width=4):
    x = layers.Flatten()(layers.Conv2D(width, 3)(x))
    return x if num_classes is None else layers.Dense(num_classes, name="predictions")(x)
"""
    exec(source, module.__dict__)
    monkeypatch.setitem(sys.modules, "their_nets", module)
    yield module.their_net
    registry.ROWS.pop("their_net", None)
    registry.REGISTERED_BY.pop("their_net", None)


def test_a_plain_function_is_a_network(net):
    row = kzoo.register(net, input_shape=(8, 8, 3), num_classes=3)
    assert (row.name, row.architecture, row.num_classes) == ("their_net", "their_nets:their_net", 3)
    model = kzoo.build("their_net", width=5)
    assert model.output_shape == (None, 3) and model.input_shape == (None, 8, 8, 3)
    assert isinstance(model, keras.Model) and kzoo.ledger("their_net").totals.params > 0
    with pytest.raises(KzooError, match="registered already"):
        kzoo.register(net, input_shape=(8, 8, 3))


def test_what_register_does_not_take(net):
    with pytest.raises(KzooError, match="Of which pictures is their_net"):
        kzoo.register(net)
    with pytest.raises(KzooError, match="a function at the top of a module"):
        kzoo.register(lambda x, num_classes: x, input_shape=(8, 8, 3))
    with pytest.raises(KzooError, match=r"takes a kzoo\.ModelSpec or a function, got str"):
        kzoo.register("net")
    with pytest.raises(KzooError, match="A ModelSpec has its own input_shape"):
        kzoo.register(kzoo.spec("lenet5"), input_shape=(8, 8, 3))
