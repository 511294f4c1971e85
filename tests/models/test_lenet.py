"""LeNet-5 as the paper has it: counts, the RBF units, the criterion's codes."""

import numpy as np

import kzoo


def test_lenet_has_the_papers_count_in_every_layer():
    model = kzoo.build("lenet5")
    counts = {layer.name: sum(int(np.prod(v.shape)) for v in layer.trainable_weights) for layer in model.layers}
    assert {k: n for k, n in counts.items() if n} == {
        "C1": 156,
        "S2": 12,
        "C3": 1_516,
        "S4": 32,
        "C5": 48_120,
        "F6": 10_164,
    }


def test_lenets_rbf_is_minus_the_squared_distance():
    from kzoo.models.lenet import RBF

    x = np.random.default_rng(0).normal(size=(3, 84)).astype("float32")
    layer = RBF(10)
    y = np.asarray(layer(x))
    codes = np.asarray(layer.codes)
    assert set(np.unique(codes)) == {-1.0, 1.0}
    np.testing.assert_allclose(y, -((x[:, None] - codes[None]) ** 2).sum(-1), rtol=1e-4)
