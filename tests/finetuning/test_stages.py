"""Stages: their layers, their optimiser, their loss."""

import keras
import numpy as np
import pytest

import kzoo
from kzoo.errors import UnknownName
from kzoo.finetuning import stage_training, stages
from kzoo.finetuning.heads import HeadObjective


def test_rates_and_decay_fall_together():
    """By hand: the first step of AdamW is w - r d w - r sign(g), r = rate * factor."""
    w0, rate, decay = 2.0, 0.1, 0.5
    variables = [keras.Variable([w0], name="kernel") for _ in range(2)] + [keras.Variable([w0], name="bias")]
    factors = {variables[1].path: 0.01}
    layers = [keras.layers.Dense(1, name=n) for n in ("top", "low")]
    for layer in layers:
        layer.build((None, 1))
        layer.kernel.assign([[w0]])
        layer.bias.assign([w0])
    trainable = [v for layer in layers for v in layer.trainable_variables]
    factors = {"low/kernel": 0.01, "low/bias": 0.01}
    optimizer = stage_training.StageAdamW(rate, decay, factors, epsilon=1e-12)
    optimizer.build(trainable)
    optimizer.apply([keras.ops.ones_like(v) for v in trainable])
    for v in trainable:
        r = rate * factors.get(v.path, 1.0)
        expected = w0 - (r * decay * w0 if v.path.endswith("kernel") else 0) - r
        np.testing.assert_allclose(keras.ops.convert_to_numpy(v).item(), expected, rtol=1e-6, err_msg=v.path)


@pytest.mark.parametrize("objective", [HeadObjective(), HeadObjective((1.0, 3.0), 0.1, 2.0)])
def test_keras_loss_is_the_heads(objective):
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(6, 2)).astype("float32"), np.array([0, 1, 1, 0, 1, 0])
    total, _ = objective(z.astype("float64"), y, objective.weights(y))
    ours = stage_training.head_loss(objective)(np.eye(2, dtype="float32")[y], z)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(ours).sum(), total, rtol=1e-5)


def test_stages_of_the_families():
    def first(name, n):
        return [s.name for s in stages.stages(kzoo.build(name, num_classes=3))][:n]

    assert first("mobilenet_v2", 2) == ["7x7", "14x14"]
    assert first("squeezenet1_1", 2) == ["14x14", "28x28"]
    model = kzoo.build("resnet20", num_classes=3)
    top = stages.selected_stages(model, "conv4")
    assert len(top) == 1 and all(name.startswith("conv4") for name in top[0].layers)
    with pytest.raises(UnknownName, match=r"Unknown stage 'conv9'.*8x8: "):
        stages.selected_stages(model, "conv9")
