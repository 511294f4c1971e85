"""Images a second of inference: kzoo's predictor, plain Keras (predict), PyTorch when installed.

All run the same network (kzoo's graph with random weights, biases and batch norms) on float32 images in memory, and
return NumPy logits. Plain Keras is the graph with keras.layers.BatchNormalization and model.predict_on_batch, compiled
by default. PyTorch is the translated graph, channels last, in eval and inference mode: the faster of eager and of
traced and frozen, which folds batch norm. Its logits are checked against those of the graph on Keras' torch backend.
"""

from statistics import median

from bench.common import network, timed, translate

HELP = "images/s of a trained network: kzoo's predictor, plain Keras, PyTorch if installed"
UNIT, BETTER, BASE = "images/s", "more", "kzoo bfloat16"


def arguments(parser):
    parser.add_argument("--model", nargs="+", default=["resnet50", "vgg16", "mobilenet_v2", "inception_v3"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 32])
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="duration of each measurement, of at least three calls"
    )


def contenders(options):
    return [f"{peer} {precision}" for peer in ("kzoo", "keras", "torch") for precision in ("float32", "bfloat16")]


def environment(name):
    return {"KERAS_BACKEND": "torch" if name.startswith("torch") else "tensorflow"}


def flops(ledger):
    return 2 * ledger.totals.multiply_adds


def measure(name, options):
    import numpy as np

    from kzoo.catalog import spec

    model = options.model[0]
    peer, precision = name.split()
    functions = {"kzoo": with_kzoo, "keras": with_keras, "torch": with_torch}[peer](model, precision)
    found = {}
    for batch in options.batch:
        x = np.random.default_rng(0).uniform(0, 255, (batch, *spec(model).input_shape)).astype("float32")
        speeds = [batch / median(timed(lambda: f(x), options.seconds)) for f in functions]  # noqa: B023
        found[f"batch {batch}"] = {"value": max(speeds)}
    return found


def with_kzoo(name, precision):
    from kzoo.graph.inference import predictor

    return [predictor(network(name), precision)]


def with_keras(name, precision):
    import keras

    model = network(name, precision, keras.layers.BatchNormalization)
    model.compile()
    return [model.predict_on_batch]


def with_torch(name, precision):
    import numpy as np
    import torch

    model = network(name)
    translated = translate(model)
    x = np.random.default_rng(1).uniform(0, 255, (2, *model.input_shape[1:])).astype("float32")
    with torch.no_grad():
        expected = model(x, training=False).cpu().numpy()
    del model
    with torch.inference_mode():
        found = translated(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * np.abs(expected).max())

    dtype = getattr(torch, precision)
    translated = translated.to(dtype).to(memory_format=torch.channels_last)

    def run(network):
        def predict(x):
            with torch.inference_mode():
                x = torch.from_numpy(x).permute(0, 3, 1, 2).to(dtype)  # a view, which is channels last
                return network(x).float().numpy()

        return predict

    with torch.no_grad():
        sample = torch.zeros(2, x.shape[3], x.shape[1], x.shape[2], dtype=dtype).to(memory_format=torch.channels_last)
        frozen = torch.jit.freeze(torch.jit.trace(translated, sample))
    return [run(translated), run(frozen)]
