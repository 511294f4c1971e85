"""The networks for MNIST: what each is for."""

import numpy as np
import pytest

import kzoo


@pytest.mark.deep("2026-11-26")
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
