"""An ensemble as one network: the average of its members' probabilities, by NumPy."""

import keras
import numpy as np

import kzoo
from kzoo.graph.ensemble import ensemble
from kzoo.graph.inference import predictor


def test_the_network_averages_and_is_flat(tmp_path):
    shape = (28, 28, 1)  # LeNet-5 has an operation that is no layer, resnet20 batch norms to fold
    layers = keras.layers
    plain = [layers.Input(shape), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(10)]
    members = [
        kzoo.build("lenet5", seed=0, precision="float32"),
        kzoo.build("resnet20", depth=8, num_classes=10, input_shape=shape, seed=1, precision="float32"),
        keras.Sequential(plain),
    ]
    before = [[layer.name for layer in model.layers] for model in members]
    x = np.random.default_rng(0).integers(0, 256, (5, *shape)).astype("uint8")
    logits = [keras.ops.convert_to_numpy(m(x.astype("float32"))).astype("float64") for m in members]
    p = [np.exp(z / t - np.max(z / t, 1, keepdims=True)) for z, t in zip(logits, (1, 2, 3), strict=True)]
    want = np.mean([e / e.sum(1, keepdims=True) for e in p], 0)

    whole = ensemble(members, (1, 2, 3))
    assert not any(isinstance(layer, keras.Model) for layer in whole.layers)
    assert whole.get_layer("member2_predictions") is not members[1].get_layer("predictions")
    assert before == [[layer.name for layer in model.layers] for model in members], "the members stay as they are"
    run = predictor(whole)
    np.testing.assert_allclose(np.exp(run(x)), want, rtol=1e-4, atol=1e-7)
    half = np.exp(predictor(whole, "bfloat16")(x))
    np.testing.assert_allclose(half.sum(1), 1, rtol=1e-5)  # what gives the output stays in float32
    whole.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    np.testing.assert_array_equal(predictor(again)(x), run(x))
