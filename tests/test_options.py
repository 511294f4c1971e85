"""Options: the same in the dataclass, the function, the command, the messages and the run's config.json."""

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from types import SimpleNamespace

import click
import pytest

import kzoo
from kzoo.cli import export as export_command
from kzoo.cli import finetune as finetune_command
from kzoo.cli import style as style_command
from kzoo.cli import stylenet as stylenet_command
from kzoo.cli import train as train_command
from kzoo.distribution import ALONE
from kzoo.errors import KzooError
from kzoo.exporting.options import ExportOptions
from kzoo.finetuning.options import FinetuneOptions
from kzoo.style.settings import Settings, StylenetOptions
from kzoo.training.options import TrainOptions

DEFAULT = re.compile(r"\[default: (.*)\]")
BY_DEFAULT = re.compile(r"([^\s:;,]+)(?: by default| \(default\))")
RUN = {"out": None, "resume": False, "quiet": False}  # what does not decide the result
DEVICES = {"devices": None, "coordinator": None, "process": None}  # likewise, and where it is computed
STYLE = {"settings": None, "budget": None, "save_every": None, "report": None, "networks": None, "force": False}


@dataclass(frozen=True)
class Verb:
    """A function, the dataclass of its options, and its command.

    Attributes:
        subject: the function's parameters for what it works on.
        own: its other parameters that are not in the dataclass, with their defaults.
        arguments: the command's parameters that are not in the dataclass.
        shortest: a command line without options.
        shown: how the command's help shows a default.
    """

    function: Callable
    options: type
    command: click.Command
    subject: set
    own: dict
    arguments: set
    shortest: tuple
    shown: re.Pattern = DEFAULT


CASES = {
    "train": Verb(
        kzoo.train,
        TrainOptions,
        train_command.command,
        subject={"model", "data"},
        own={**RUN, **DEVICES},
        arguments={"model", "data", "config", *RUN, *DEVICES},
        shortest=("mnist_softmax",),
    ),
    "finetune": Verb(
        kzoo.finetune,
        FinetuneOptions,
        finetune_command.command,
        subject={"photos", "model"},
        own={"weights": None, **RUN, **DEVICES},
        arguments={"photos", "model", "weights", *RUN, *DEVICES},
        shortest=("photos",),
    ),
    "export": Verb(
        kzoo.export,
        ExportOptions,
        export_command.command,
        subject={"run_or_model"},
        own={"out": None, "force": False, "quiet": False},
        arguments={"models", "out", "force", "quiet"},
        shortest=("runs/mnist",),
    ),
    "style": Verb(
        kzoo.stylize,
        Settings,
        style_command.command,
        subject={"content", "styles"},
        own={**STYLE, **RUN},
        arguments={
            "content",
            "styles",
            "budget",
            "like",
            "save_every",
            "report",
            "from_last",
            "as_json",
            "force",
            *RUN,
        },
        shortest=(),
        shown=BY_DEFAULT,
    ),
    "stylenet": Verb(
        kzoo.train_stylenet,
        StylenetOptions,
        stylenet_command.train_command,
        subject={"styles", "images"},
        own=RUN,
        arguments={"styles", "images", *RUN},
        shortest=("painting.jpg", "--images", "photos"),
        shown=BY_DEFAULT,
    ),
}
every_verb = pytest.mark.parametrize("verb", CASES.values(), ids=CASES)


def defaults_of(options):
    return {f.name: f.default for f in fields(options)}


@every_verb
def test_the_function_has_the_names_and_defaults_of_the_dataclass(verb):
    parameters = inspect.signature(verb.function).parameters.values()
    found = {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD and p.name not in verb.subject}
    assert found == {**defaults_of(verb.options), **verb.own}
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert len(positional) <= 3 and verb.subject <= set(positional)


@every_verb
def test_the_command_has_the_names_of_the_dataclass_and_no_defaults_of_its_own(verb):
    names = defaults_of(verb.options).keys()
    found = {p.name for p in verb.command.params} - {"imports"}  # which every command gets when it is first used
    assert found == names | verb.arguments
    given = verb.command.make_context("kzoo", [*verb.shortest]).params
    assert {name: given[name] for name in names if given[name] not in (None, ())} == {}


@every_verb
def test_the_help_shows_the_defaults_of_the_dataclass(verb):
    defaults = defaults_of(verb.options)
    for parameter in verb.command.params:
        default = defaults.get(parameter.name)
        if parameter.name not in defaults or default is None or default is False:
            continue
        if verb.shown is BY_DEFAULT and not isinstance(default, (int, float, str)):
            continue
        told = verb.shown.search(parameter.help)
        assert told, f"--{parameter.name}: {parameter.help}"
        text = ",".join(default) if isinstance(default, tuple) else default
        assert told[1] == text if isinstance(text, str) else float(told[1]) == text, f"--{parameter.name}: {told[0]}"


# --- what was not given stays away ---


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """What reaches the functions behind train, finetune and export: [(positional arguments, keywords)] of each."""
    found = []

    def spy(*args, **keywords):
        found.append((args, keywords))
        return SimpleNamespace(path=tmp_path)

    for name in ("training.loop.train_run", "finetuning.pipeline.finetune_run", "exporting.write.export"):
        monkeypatch.setattr(f"kzoo.{name}", spy)
    monkeypatch.setattr("kzoo.runs.load_run", lambda path: path)
    return found


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("", {}),
        ("--epochs 2 --seed 0", {"epochs": 2, "seed": 0}),  # seed is the default, but it was given
        ("--strict --val-fraction 0.25", {"strict": True, "val_fraction": 0.25}),
        ("--input-shape 12x14x1", {"input_shape": (12, 14, 1)}),
    ],
)
def test_only_what_was_given_reaches_train(calls, kzoo_command, line, options):
    assert kzoo_command("train", "mnist_softmax", *line.split())[0] == 0
    assert calls == [(("mnist_softmax", None, options, {}), {**RUN, "together": ALONE})]


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("", {}),
        ("--epochs 6 --budget 2m", {"epochs": 6, "budget": 120.0}),
        ("--class-weights a=1,b=2 --mix cutmix", {"class_weights": {"a": 1.0, "b": 2.0}, "mix": "cutmix"}),
    ],
)
def test_only_what_was_given_reaches_finetune(calls, kzoo_command, line, options):
    assert kzoo_command("finetune", "photos", *line.split())[0] == 0
    assert calls == [(("photos", None, options), {"weights": None, **RUN, "together": ALONE})]


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("", {}),
        ("--top 5 --data-licence CC0", {"top": 5, "data_licence": "CC0"}),
        ("--format keras,onnx --abstain 0.9", {"formats": "keras,onnx", "abstain": 0.9}),
    ],
)
def test_only_what_was_given_reaches_export(calls, kzoo_command, line, options):
    assert kzoo_command("export", "runs/mnist", *line.split())[0] == 0
    assert calls == [(("runs/mnist",), {"out": None, "force": False, "quiet": False, **options})]


def test_functions_hand_on_what_differs_from_the_defaults(calls):
    kzoo.train("mnist_softmax", seed=0, epochs=2, precision="float32")
    kzoo.finetune("photos", "resnet20", epochs=6, shots=3)
    given = [args[2] for args, _ in calls]
    assert given == [{"epochs": 2, "precision": "float32"}, {"shots": 3}]


# --- wrong values ---

WRONG = [
    ("train", {"bits": 7}, "--bits 7", "bits must be a whole number from 8 to 16, got 7."),
    ("finetune", {"bits": 17}, "--bits 17", "bits must be a whole number from 8 to 16, got 17."),
    ("train", {"epochs": 0}, "--epochs 0", "epochs must be a whole number of at least 1, got 0."),
    ("train", {"batch_size": 0}, "--batch-size 0", "batch_size must be a whole number of at least 1, got 0."),
    (
        "train",
        {"gradient_accumulation_steps": 0},
        "--gradient-accumulation-steps 0",
        "gradient_accumulation_steps must be a whole number of at least 1, got 0.",
    ),
    ("train", {"pixels": "0..2"}, "--pixels 0..2", "pixels must be 0..255 (as they are), 0..1"),
    ("finetune", {"pixels": "0..2"}, "--pixels 0..2", "pixels must be 0..255 (as they are), 0..1"),
    ("train", {"learning_rate": -1.0}, "--learning-rate -1", "learning_rate must be positive, got -1.0."),
    ("train", {"loss": "hing"}, "--loss hing", "Unknown loss 'hing'. Did you mean 'hinge'?"),
    ("train", {"patience": 0}, "--patience 0", "patience must be a whole number of at least 1, got 0."),
    ("train", {"seed": -1}, "--seed -1", "seed must be a whole number from 0 to 2147483647, got -1."),
    ("train", {"recipe": "moderm"}, "--recipe moderm", "Unknown recipe 'moderm'. Did you mean 'modern'?"),
    ("train", {"precision": "int8"}, "--precision int8", "Unknown precision 'int8'."),
    ("train", {"val_fraction": 1.0}, "--val-fraction 1", "val_fraction must be in [0, 1), got 1.0."),
    ("train", {"test_fraction": -0.1}, "--test-fraction -0.1", "test_fraction must be in [0, 1), got -0.1."),
    ("train", {"input_shape": (4, 4)}, "--input-shape 4x4x4x4", "input_shape must be (height, width, channels)"),
    ("finetune", {"epochs": 0}, "--epochs 0", "epochs must be a whole number of at least 1, got 0."),
    ("finetune", {"budget": 0.0}, "--budget 0", "budget must be a positive number of seconds, got 0.0."),
    ("finetune", {"augment": "much"}, "--augment much", "Unknown augmentation 'much'."),
    ("finetune", {"learning_rate": 0.0}, "--learning-rate 0", "learning_rate must be a positive number, got 0.0."),
    ("finetune", {"batch_size": 0}, "--batch-size 0", "batch_size must be a whole number of at least 1, got 0."),
    ("finetune", {"val_fraction": 1.0}, "--val-fraction 1", "val_fraction must be in (0, 1), got 1.0."),
    ("finetune", {"mix": "cutmax"}, "--mix cutmax", "Unknown mixture 'cutmax'. Did you mean 'cutmix'?"),
    ("finetune", {"views": -1}, "--views -1", "views must be a whole number of at least 0, got -1."),
    ("finetune", {"shots": 0}, "--shots 0", "shots must be a whole number of at least 1, got 0."),
    ("train", {"class_weights": {"a": -1.0}}, "--class-weights a=-1", "A class weight is a number of at least 0, and"),
    ("finetune", {"class_weights": "even"}, "--class-weights even", "class_weights is None, 'balanced' or a dict"),
    ("finetune", {"label_smoothing": 1.0}, "--label-smoothing 1", "label_smoothing must be in [0, 1), got 1.0."),
    ("finetune", {"focal": -1.0}, "--focal -1", "focal, the exponent, must be in [0, 10], got -1.0."),
    (
        "finetune",
        {"seed": 2**31},
        f"--seed {2**31}",
        "seed must be a whole number from 0 to 2147483647, got 2147483648.",
    ),
    ("finetune", {"precision": "int8"}, "--precision int8", "Unknown precision 'int8'."),
    ("finetune", {"input_shape": (0, 4, 3)}, "--input-shape 0x4x3", "input_shape must be (height, width, channels)"),
    (
        "finetune",
        {"shots": 3, "unfreeze": "all"},
        "--shots 3 --unfreeze all",
        "--shots leaves too few photos to validate on, so deeper layers stay frozen: --unfreeze all needs all photos.",
    ),
    (
        "export",
        {"formats": ()},
        "--format ,",
        "No format was asked for; the formats are saved_model, keras, onnx, litert.",
    ),
    ("export", {"formats": "keras,onx"}, "--format keras,onx", "Unknown format 'onx'. Did you mean 'onnx'?"),
    ("export", {"precision": "int8"}, "--precision int8", "Unknown precision 'int8'."),
    ("export", {"abstain": 1.0}, "--abstain 1", "abstain must lie between 0 and 1, such as 0.95; got 1.0."),
    ("export", {"top": 0}, "--top 0", "top must be a whole number of at least 1, got 0."),
    ("export", {"pixels": "rgb"}, "--pixels rgb", "pixels must be 0..255 (as they are), 0..1, -1..1, imagenet"),
    ("export", {"measure": -1}, "--measure -1", "measure must be a whole number of at least 0, got -1."),
]


@pytest.mark.parametrize(("verb", "options", "line", "message"), WRONG, ids=[f"{w[0]} {w[2]}" for w in WRONG])
def test_a_wrong_value_is_refused_with_one_message_before_any_work(verb, options, line, message, calls, kzoo_command):
    verb = CASES[verb]
    with pytest.raises(KzooError) as refused:
        verb.options(**options)
    assert str(refused.value).startswith(message)
    if verb.function is not kzoo.export:  # in place of which the fixture has a spy; it makes its ExportOptions first
        with pytest.raises(KzooError) as raised:
            verb.function("no_such_thing", **options)
        assert (type(raised.value), str(raised.value)) == (type(refused.value), str(refused.value))
    code, out, err = kzoo_command(verb.command.name, *verb.shortest, *line.split())
    assert out == "" and calls == []
    if code == 1:
        assert err == f"Error: {refused.value}\n"
    else:  # click refuses what is not of the option's type, and shows its usage
        assert code == 2 and f"Invalid value for '{line.split()[0]}'" in err


@pytest.mark.parametrize("options", [w[1] for w in WRONG if w[0] == "export"])
def test_export_refuses_wrong_values_before_it_looks_for_the_run(options):
    with pytest.raises(KzooError) as refused:
        ExportOptions(**options)
    with pytest.raises(KzooError) as raised:
        kzoo.export("no/such/run", **options)
    assert str(raised.value) == str(refused.value)


def test_every_option_that_can_be_wrong_has_a_wrong_value():
    free = {
        "train": {"strict", "weights"},
        "finetune": {"strict"},
        "export": {"weights", "classes", "licence", "data_licence"},  # any text
    }
    for name, anything in free.items():
        tried = {key for verb, options, _, _ in WRONG if verb == name for key in options}
        assert tried | anything == defaults_of(CASES[name].options).keys()


# --- what a run records ---


def recorded(config, name):
    """Where config.json has an option: in "finetune", at the top level or in "recipe"."""
    if name == "recipe":
        return config["recipe"]["name"]
    # The recipe has a patience of its own, that of its schedule: the top level comes first.
    return next(place for place in (config.get("finetune", {}), config, config.get("recipe", {})) if name in place)[
        name
    ]


def as_json(value):
    return json.loads(json.dumps(value))


def test_a_run_records_the_options_that_it_was_trained_with(tmp_path):
    given = {"patience": 3, "seed": 7, "precision": "float32", "val_fraction": 0.25, "test_fraction": 0.3}
    kzoo.train("mnist_softmax", "digits", epochs=1, out=tmp_path / "run", quiet=True, **given)
    config = json.loads((tmp_path / "run/config.json").read_text("utf-8"))
    recipe = kzoo.training.recipes.RECIPES[kzoo.spec("mnist_softmax").recipe]
    used = {
        **defaults_of(TrainOptions),
        "recipe": recipe.name,
        "epochs": 1,
        "batch_size": recipe.batch_size,
        "gradient_accumulation_steps": 1,
        "learning_rate": recipe.learning_rate,
        "input_shape": kzoo.spec("mnist_softmax").input_shape,
        **given,
    }
    assert {name: recorded(config, name) for name in used} == as_json(used)


def test_a_run_records_the_options_that_it_was_fine_tuned_with(world, tmp_path):
    from support.tuning import SHAPE, tune

    given = {
        "unfreeze": "none",
        "epochs": 2,
        "budget": 600.0,
        "augment": "strong",
        "mix": "cutmix",
        "views": 1,
        "class_weights": {"red": 1.0, "blue": 2.0},
        "label_smoothing": 0.05,
        "focal": 0.5,
        "seed": 3,
        "precision": "float32",
        "strict": True,
    }
    folder = tune(world, tmp_path / "run", **given)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    used = {**defaults_of(FinetuneOptions), "input_shape": SHAPE, **given}
    assert {name: recorded(config, name) for name in used} == as_json(used)
