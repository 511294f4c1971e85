"""Checks of options that several verbs share: a keyword that a function does not take."""

import inspect
import pickle
from types import FunctionType

import pytest

import kzoo
from kzoo.errors import KzooError

FUNCTIONS = [name for name in kzoo.__all__ if isinstance(getattr(kzoo, name), FunctionType)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_wrong_keyword_names_the_one_that_was_meant(name):
    function = getattr(kzoo, name)
    parameters = inspect.signature(function).parameters.values()
    own = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)][-1]
    asked = ("mnist_mlp",) if name in ("train", "build", "ledger") else ()  # which take options of the network, too
    helped = "build" if name == "ledger" else name
    with pytest.raises(KzooError, match=rf"'{own}s'\. Did you mean '{own}'\?.* help\(kzoo\.{helped}\) shows") as e:
        function(*asked, **{f"{own}s": 1})
    assert isinstance(e.value, TypeError)
    assert "\n" not in str(e.value)


def test_what_a_network_does_not_take_may_have_been_meant_for_the_function():
    with pytest.raises(
        TypeError, match=r"^Unknown option of mnist_mlp 'epoch'\. Did you mean 'epochs'\? mnist_mlp has"
    ):
        kzoo.train("mnist_mlp", epoch=3)
    with pytest.raises(TypeError, match=r"'epoch'\. Did you mean 'epochs'"):
        kzoo.finetune("photos", epoch=3)


def test_functions_keep_their_signature_and_can_be_pickled():
    assert "label_smoothing: " in str(inspect.signature(kzoo.finetune))
    for name in FUNCTIONS:
        assert pickle.loads(pickle.dumps(getattr(kzoo, name))) is getattr(kzoo, name)
