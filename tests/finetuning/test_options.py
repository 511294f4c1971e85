"""The options of fine-tuning: checked before any work, and recorded as they were given."""

import dataclasses

import pytest

from kzoo.errors import KzooError, UnknownName
from kzoo.finetuning.options import FinetuneOptions


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"augment": "ligt"}, "Did you mean 'light'"),
        ({"mix": "cutmixx"}, "Did you mean 'cutmix'"),
        ({"unfreeze": 3}, "unfreeze must be none, auto, all"),
        ({"epochs": 0}, "epochs"),
        ({"views": -1}, "views"),
        ({"shots": 0}, "shots"),
        ({"shots": 5, "unfreeze": "all"}, "too few photos to validate"),
        ({"label_smoothing": 1.0}, r"\[0, 1\), got 1.0"),
        ({"focal": -0.1}, r"\[0, 10\], got -0.1"),
        ({"budget": 0.0}, "positive number of seconds"),
        ({"budget": float("nan")}, "positive number of seconds"),
        ({"class_weights": "even"}, "None, 'balanced' or a dict"),
        ({"seed": -1}, "seed"),
        ({"precision": "float8"}, "precision"),
        ({"input_shape": (0, 3, 3)}, "shape"),
    ],
)
def test_wrong_options_are_refused(wrong, message):
    with pytest.raises(KzooError, match=message):
        FinetuneOptions(**wrong)


def test_unknown_names_are_of_their_own_kind():
    with pytest.raises(UnknownName):
        FinetuneOptions(augment="heavy")


def test_options_can_not_change_and_class_weights_are_numbers():
    options = FinetuneOptions(class_weights={"ants": 2})
    assert options.class_weights == {"ants": 2.0}
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.seed = 1


def test_every_option_is_recorded_or_stands_beside():
    beside = {"seed", "precision", "input_shape", "budget", "strict", "bits"}
    names = {f.name for f in dataclasses.fields(FinetuneOptions)}
    assert FinetuneOptions().recorded().keys() == names - beside
