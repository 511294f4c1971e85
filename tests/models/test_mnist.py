"""The networks for MNIST: what each is for."""

import numpy as np
import pytest
from support.training import history_of

import kzoo
from kzoo.data.dataset import DataSet
from kzoo.errors import KzooError
from kzoo.layers import ACTIVATIONS

AS_IS = kzoo.Preprocessing(scale=1.0, offset=0.0)
FORMULAS = {
    "relu": lambda a: np.maximum(a, 0),
    "leaky_relu": lambda a: np.maximum(0.1 * a, a),
    "prelu": lambda a: np.where(a > 0, a, np.linspace(-0.5, 1.5, 5) * a),  # the slopes that the test sets
    "tanh": np.tanh,
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "maxout": lambda a: np.maximum(a[..., ::2], a[..., 1::2]),
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_activation_of_a_hidden_layer_is_its_formula(activation):
    model = kzoo.build("mnist_mlp", input_shape=(3, 2, 1), preprocessing=AS_IS, units=5, activation=activation, seed=0)
    x = np.random.default_rng(0).normal(size=(4, 3, 2, 1)).astype("float32")
    if activation == "prelu":
        layer = model.get_layer("fc1_act")
        np.testing.assert_allclose(layer.alpha, np.full(5, 0.25))
        layer.alpha.assign(np.linspace(-0.5, 1.5, 5))
    kernel, bias = map(np.asarray, model.get_layer("fc1").weights)
    out, _ = map(np.asarray, model.get_layer("predictions").weights)
    hidden = FORMULAS[activation](x.reshape(4, 6).astype("float64") @ kernel + bias)
    np.testing.assert_allclose(model(x), hidden @ out, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["mnist_cnn", "mnist_shift", "figure1_cifar"])
def test_every_activation_fits_the_convolutions(name):
    base = kzoo.ledger(name)
    for activation in ACTIVATIONS:
        table = kzoo.ledger(name, activation=activation)
        assert table.rows[-1].output == (10,) and table.totals.multiply_adds is not None
        assert (table.totals.params == base.totals.params) == (activation not in ("prelu", "maxout"))
    if name == "mnist_cnn":  # a slope for each of 32 + 64 maps and 1024 units
        assert kzoo.ledger(name, activation="prelu").totals.params - base.totals.params == 32 + 64 + 1024
        layer = kzoo.ledger(name, activation="maxout")["conv2"]
        assert (layer.output, layer.weights, layer.biases) == ((14, 14, 128), 25 * 32 * 128, 128)


def test_an_unknown_activation_names_the_nearest():
    with pytest.raises(KzooError, match=r"Unknown activation 'sigmiod'\. Did you mean 'sigmoid'"):
        kzoo.build("mnist_mlp", activation="sigmiod")


@pytest.mark.deep("2026-11-27")
def test_figure_1_trains_with_relus_and_with_tanh(shared, tmp_path):
    """On every tenth training image of CIFAR-10, eight epochs at the recipe's rate; the paper chose one for each."""
    whole = kzoo.load_data("cifar10")
    every = np.arange(0, len(whole.splits["train"]), 10)
    data = DataSet("cifar10", whole.classes, {"train": whole.splits["train"].take(every)})
    found = {}
    for activation in ("relu", "tanh"):
        run = kzoo.train("figure1_cifar", data, activation=activation, epochs=8, out=tmp_path / activation, quiet=True)
        found[activation] = [float(row["accuracy"]) for row in history_of(run.path)]
    print(found)
    assert min(max(found["relu"]), max(found["tanh"])) > 0.4


@pytest.mark.deep("2026-11-27")
def test_mnist_shift_is_less_sensitive_to_shifts_than_mnist_cnn(shared, tmp_path):
    if not (shared / "mnist").is_dir():
        pytest.skip("needs MNIST in the shared data")
    data = kzoo.load_data("mnist")
    train, test = data.splits["train"].take(np.arange(10_000)), data.splits["test"].take(np.arange(2000))
    np.savez(tmp_path / "m.npz", x_train=train.images, y_train=train.labels, x_test=test.images, y_test=test.labels)
    accuracy = {}
    for name in ("mnist_shift", "mnist_cnn"):
        run = kzoo.train(name, tmp_path / "m.npz", epochs=3, out=tmp_path / name, quiet=True)
        from kzoo.graph.inference import predictor

        network = predictor(run.model)
        for pixels in (0, 3):
            moved = np.roll(test.images, (pixels, -pixels), axis=(1, 2))
            accuracy[name, pixels] = np.mean(network(moved).argmax(-1) == test.labels)
    print(accuracy)
    assert min(accuracy["mnist_shift", 0], accuracy["mnist_cnn", 0]) > 0.9
    lost = {name: accuracy[name, 0] - accuracy[name, 3] for name in ("mnist_shift", "mnist_cnn")}
    assert lost["mnist_shift"] < lost["mnist_cnn"]
