"""Figures: their numbers against formulas, and each trained as small as can be."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from kzoo.cli import group
from kzoo.cli.reproduce import FIGURES as NAMES
from kzoo.data.dataset import DataSet, Split
from kzoo.errors import KzooError, RunError
from kzoo.interrupt import Interrupted
from kzoo.reproducing import figures


def noise(side, channels, images=(60, 20, 30)):
    """Pictures of noise, divided; every class is in each part."""
    rng = np.random.default_rng(0)

    def part(n):
        pictures = rng.integers(0, 256, (n, side, side, channels)).astype("uint8")
        return Split(pictures, np.arange(n) % 10, [str(i) for i in range(n)])

    names = tuple("abcdefghij")
    return DataSet("noise", names, dict(zip(("train", "val", "test"), map(part, images), strict=True)))


def test_gradients_of_the_losses_are_those_of_their_formulas():
    margins = np.array([-10.0, -3.0, 0.0, 4.0])
    p = 1 / (1 + np.exp(-margins))  # of the right class; the others but one are as good as impossible
    np.testing.assert_allclose(figures.gradient_sizes("cross_entropy", margins), 2**0.5 * (1 - p), atol=1e-3)
    # z_j - z_y + 1 > 0 for the one other class that is near, unless the right class is ahead by 1
    np.testing.assert_allclose(figures.gradient_sizes("hinge", margins), 2**0.5 * (margins < 1), atol=1e-3)
    squared = figures.gradient_sizes("mse", margins)
    # d/dz of ((1 - p)^2 + (1 - p)^2), summed or averaged over the classes: the same up to a factor
    formula = 4 * 2**0.5 * (1 - p) * p * (1 - p)
    np.testing.assert_allclose(squared / squared[2], formula / formula[2], atol=1e-3)


def test_moved_pictures_lose_what_leaves_and_get_zeros():
    x = np.zeros((1, 5, 5, 1), "uint8")
    x[0, 2, 1] = 7
    at = [tuple(np.argwhere(y[0, ..., 0])[0]) if y.any() else None for y in figures.moved(x, 2)]
    assert at == [(4, 1), (0, 1), (2, 3), None]
    assert figures.moved(x, 0)[0] is x


@pytest.fixture
def told(monkeypatch):
    """Trainings whose histories are told: (activation or loss, rate) -> accuracies; an error fails the run."""
    histories = {}

    def train(model, data, *, learning_rate, out, **options):
        accuracies = histories[options.get("activation", options.get("loss")), learning_rate]
        out.mkdir()
        (out / "config.json").write_text("{}")
        if isinstance(accuracies, Exception):
            raise accuracies
        lines = [f"{i},{a},{a}" for i, a in enumerate(accuracies, 1)]
        (out / "history.csv").write_text("\n".join(["epoch,accuracy,val_accuracy", *lines]))

    monkeypatch.setattr(figures, "train", train)
    return histories


def test_each_activation_is_shown_at_the_rate_that_reaches_25_percent_first(told, tmp_path, capsys):
    told["relu", 0.01], told["relu", 0.1] = [0.5, 0.75, 0.8], [0.8, 0.7, 0.76]
    told["tanh", 0.01], told["tanh", 0.1] = [0.1, 0.6, 0.74], RunError("The loss is NaN.")
    options = {"data": noise(32, 3), "epochs": 3, "images": 20, "rates": (0.01, 0.1)}
    figure = figures.draw("relu-tanh", tmp_path / "r.png", **options)
    assert figure.notes == [
        "relu  at rate 0.1: 25 % training error in epoch 1, 24.0% in the end",
        "tanh  at rate 0.01: 25 % not reached, 26.0% in the end",
    ]
    assert list(figure.panels[0][3]) == ["relu, rate 0.1", "tanh, rate 0.01"]
    assert figure.data == "noise, 20 training images"
    assert "Left out rate 0.1: The loss is NaN." in capsys.readouterr().err
    told["relu", 0.01] = told["relu", 0.1] = RunError("The loss is NaN.")
    with pytest.raises(RunError, match=r"at none of the rates 0\.01, 0\.1"):
        figures.relu_tanh(noise(32, 3), rates=(0.01, 0.1))
    told["relu", 0.01] = Interrupted("Stopped before the end.")
    with pytest.raises(Interrupted, match="nothing of it is kept"):  # Ctrl-C does not leave out a rate
        figures.draw("relu-tanh", tmp_path / "s.png", **options)


def test_the_losses_are_shown_at_the_rate_that_validates_best(told, tmp_path, monkeypatch):
    tried = []

    def unlearn(data, trials, *, epochs, seed):
        tried.extend(trials)
        return [(0.5, [0.1, 0.2, 0.3]) for _ in trials]

    monkeypatch.setattr(figures, "unlearn", unlearn)
    told["cross_entropy", 0.1], told["cross_entropy", 1.0] = [0.8, 0.9], [0.9, 0.8]
    for loss in ("hinge", "mse"):
        told[loss, 0.1], told[loss, 1.0] = [0.9, 0.8], [0.7, 0.85]
    figure = figures.draw("losses", tmp_path / "l.png", data=noise(28, 1), epochs=2, rates=(0.1, 1.0))
    assert figure.panels[1][3]["mse, rate 1"] == ([1, 2], [0.7, 0.85])
    assert figure.notes[1] == "hinge         at rate 1: validation accuracy 70.0% after one epoch, 85.0% in the end"
    assert tried == [("cross_entropy", 0.1), ("hinge", 1.0), ("mse", 1.0), ("mse", 0.1)]
    assert figure.panels[2][3]["mse, rate 0.1"] == ([0, 1, 2], [0.1, 0.2, 0.3])
    assert figure.notes[-1] == (
        "mse           at rate 0.1 from a sure and wrong network: gradient 0.5, validation accuracy 10.0%, 20.0% after "
        "one epoch, 30.0% in the end"
    )
    assert (tmp_path / "l.png").read_bytes().startswith(b"\x89PNG")


def test_a_sure_and_wrong_network_unlearns_by_its_loss(monkeypatch):
    """Ten pictures that a linear map tells apart; behind the softmax only the squared error has no gradient."""
    monkeypatch.setattr(figures, "BATCH", 10)
    x = np.zeros((10, 28, 28, 1), "uint8")
    x[np.arange(10), np.arange(10)] = 255
    part = Split(x, np.arange(10), list("abcdefghij"))
    data = DataSet("rows", tuple("abcdefghij"), {"train": part, "val": part})
    trials = [("cross_entropy", 0.2), ("mse", 0.2)]
    (entropy, learned), (squared, kept) = figures.unlearn(data, trials, epochs=12)
    assert learned[0] == kept[0] == 0.0, "each is taken for the next one"
    assert len(learned) == 13 and learned[-1] == 1.0 and kept[-1] < 0.5
    assert squared < 0.1 < 1.3 < entropy < 1.42, "at most the root of 2"


def test_shift_is_trained_and_drawn(tmp_path):
    figure = figures.draw("shift", tmp_path / "s.png", data=noise(28, 1), epochs=1, most=1, quiet=True)
    assert json.loads(json.dumps(figure.to_dict()))["notes"] == figure.notes
    lines = figure.panels[0][3]
    assert list(lines) == ["mnist_shift", "mnist_cnn"]
    assert all(x == [0, 1] and 0 <= min(y) <= max(y) <= 1 for x, y in lines.values())
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_and_the_module_know_the_same_figures():
    assert tuple(figures.FIGURES) == NAMES


@pytest.mark.deep("2026-11-27")
def test_the_figures_that_try_rates_train(tmp_path):
    figure = figures.losses("digits", epochs=3, quiet=True)
    assert min(y[-1] for _, y in figure.panels[1][3].values()) > 0.8
    assert len(figures.relu_tanh("digits", epochs=1, images=100, rates=(0.01,), quiet=True).panels[0][3]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--figure", "nonsense"], "is not one of"),
        (["--figure", "shift", "lenet5"], "without NAME"),
        (["--figure", "shift", "--resume"], "without NAME"),
        (["lenet5", "--epochs", "3"], "--epochs: only with --figure"),
        (["--figure", "shift", "--images", "0"], "not in the range"),
    ],
)
def test_wrong_options_are_refused(arguments, message):
    result = CliRunner().invoke(group, ["reproduce", *arguments])
    assert result.exit_code == 2 and message in result.stderr


def test_what_can_not_be_drawn_is_refused_before_the_training(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(KzooError, match=r"exists already; give another --out"):
        figures.draw("shift", tmp_path / "a.png")
    with pytest.raises(KzooError, match="there is no folder"):
        figures.draw("shift", tmp_path / "b" / "a.png")
    with pytest.raises(KzooError, match="Did you mean 'shift'"):
        figures.draw("shft", tmp_path / "c.png")
    with pytest.raises(KzooError, match="images must be a whole number"):
        figures.draw("losses", tmp_path / "c.png", data=noise(8, 1), images=0)
    whole = noise(8, 1)
    with pytest.raises(KzooError, match="noise has none"):
        figures.draw(
            "shift", tmp_path / "c.png", data=DataSet("noise", whole.classes, {"train": whole.splits["train"]})
        )
    assert not (tmp_path / "c.png").exists()
    train_only = DataSet("noise", whole.classes, {"train": whole.splits["train"]})
    with pytest.raises(KzooError, match="and noise lacks such a part"):
        figures.losses(train_only)
    several = Split(np.zeros((4, 8, 8, 3), "uint8"), np.array([[1, 1], [0, 1], [0, 0], [1, 0]]), list("abcd"))
    with pytest.raises(KzooError, match="one class an image, and tags has others"):
        figures.relu_tanh(DataSet("tags", ("a", "b"), {"train": several}))
