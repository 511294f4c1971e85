"""Images a second of inference: kzoo's predictor, plain Keras (predict), PyTorch when installed.

    python scripts/benchmark_infer.py
    python scripts/benchmark_infer.py --models resnet50 --batches 8 --rounds 5 --json speed.json

Each measurement is a process of its own; the peers take turns, round by round, so that a busy machine is busy for all
of them. Every peer runs the same network (kzoo's graph, batch norm and biases random, weights random) on float32
pictures in memory and gives NumPy logits. Plain Keras is that graph with keras.layers.BatchNormalization and
model.predict_on_batch, as compiled by default; PyTorch is the graph translated, channels last, in eval and inference
mode, eager and traced and frozen (which folds batch norm), the faster counting. Its logits are checked against those
of the graph on Keras' torch backend: its process runs nothing on TensorFlow. Ratios are those of the fastest precision
of each, of the medians and (in brackets) of the best calls: compare the two before believing either on a busy machine.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PEERS = [f"{who} {precision}" for who in ("kzoo", "keras", "torch") for precision in ("float32", "bfloat16")]


def network(name, precision="float32", norm=None):
    """The network with random weights, the same for every peer. norm: the class of its batch norms."""
    import keras
    import numpy as np

    import kzoo
    from kzoo.build import computing_in
    from kzoo.layers import BatchNormalization

    # RGB in -1..1 for all: PyTorch, whose backend of Keras is the check of the translation, can't reverse by a slice.
    model = kzoo.build(name, preprocessing=kzoo.Preprocessing(), precision=precision, seed=0)
    if norm:
        kind = lambda layer: norm if isinstance(layer, BatchNormalization) else type(layer)  # noqa: E731
        with computing_in(precision):
            clone = lambda layer: kind(layer).from_config(layer.get_config())  # noqa: E731
            model = keras.models.clone_model(model, clone_function=clone)
    rng = np.random.default_rng(0)
    for v in model.weights:
        if v.name in ("gamma", "moving_variance"):
            v.assign(rng.uniform(0.5, 1.5, v.shape))
        elif v.name in ("beta", "bias", "moving_mean"):
            v.assign(rng.normal(0, 0.1, v.shape))
        else:
            v.assign(rng.normal(0, 1, v.shape) * (2 / max(1, np.prod(v.shape[:-1]))) ** 0.5)
    return model


# --- The peers: (name, precision) -> functions from a batch of pictures to logits ---------------------------


def with_kzoo(name, precision):
    from kzoo.inference import predictor

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
                x = torch.from_numpy(x).permute(0, 3, 1, 2).to(dtype)  # of channels-last pictures: channels last
                return network(x).float().numpy()

        return predict

    with torch.no_grad():
        sample = torch.zeros(2, x.shape[3], x.shape[1], x.shape[2], dtype=dtype).to(memory_format=torch.channels_last)
        frozen = torch.jit.freeze(torch.jit.trace(translated, sample))
    return [run(translated), run(frozen)]


def translate(model):
    """A Keras model of the benchmark as a torch.nn.Module, its preprocessing included."""
    import keras
    import numpy as np
    import torch
    from keras import layers
    from torch import nn
    from torch.nn import functional as F

    array = keras.ops.convert_to_numpy
    tensor = lambda a: torch.from_numpy(np.array(a if isinstance(a, np.ndarray) else array(a)))  # noqa: E731

    def sides(layer, size):
        """Padding (left, right, top, bottom) of a window on an input (height, width)."""
        if layer.padding == "valid":
            return (0, 0, 0, 0)
        window = getattr(layer, "kernel_size", None) or layer.pool_size
        total = [max((-(-n // s) - 1) * s + k - n, 0) for n, s, k in zip(size, layer.strides, window, strict=True)]
        return (total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2)

    def convolution(layer):
        kernel, pad = array(layer.kernel), sides(layer, layer.input.shape[1:3])
        groups = kernel.shape[2] if isinstance(layer, layers.DepthwiseConv2D) else 1
        kernel = kernel.transpose(2, 3, 0, 1) if groups > 1 else kernel.transpose(3, 2, 0, 1)
        even = pad[0] == pad[1] and pad[2] == pad[3]
        conv = nn.Conv2d(kernel.shape[1] * groups, kernel.shape[0], kernel.shape[2:], layer.strides,
                         (pad[2], pad[0]) if even else 0, groups=groups, bias=layer.use_bias)  # fmt: skip
        conv.weight.data = tensor(kernel)
        if layer.use_bias:
            conv.bias.data = tensor(layer.bias)
        steps = [conv] if even else [nn.ZeroPad2d(pad), conv]
        return nn.Sequential(*steps, *([nn.ReLU()] if layer.activation.__name__ == "relu" else []))

    def batch_norm(layer):
        bn = nn.BatchNorm2d(layer.moving_mean.shape[0], eps=layer.epsilon)
        ones = np.ones(bn.num_features, "float32")
        bn.weight.data = tensor(ones if layer.gamma is None else layer.gamma)
        bn.bias.data, bn.running_mean, bn.running_var = map(
            tensor, (layer.beta, layer.moving_mean, layer.moving_variance)
        )
        return bn

    def dense(layer):
        linear = nn.Linear(*layer.kernel.shape)
        linear.weight.data, linear.bias.data = tensor(array(layer.kernel).T), tensor(layer.bias)
        return nn.Sequential(linear, *([nn.ReLU()] if layer.activation.__name__ == "relu" else []))

    class Scale(nn.Module):
        def __init__(self, layer):
            super().__init__()
            column = lambda v: torch.as_tensor(v, dtype=torch.float32).reshape(-1, 1, 1)  # noqa: E731
            self.register_buffer("scale", column(layer.scale))
            self.register_buffer("offset", column(layer.offset))

        def forward(self, x):
            return x * self.scale + self.offset

    class Call(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def forward(self, *x):
            return self.function(*x)

    def pool(layer):
        pad = sides(layer, layer.input.shape[1:3])
        if isinstance(layer, layers.MaxPooling2D):
            # Asymmetric padding does not occur in these networks.
            return nn.MaxPool2d(layer.pool_size, layer.strides, (pad[2], pad[0]))
        return nn.AvgPool2d(layer.pool_size, layer.strides, (pad[2], pad[0]), count_include_pad=False)

    def module(layer):
        kind = type(layer).__name__
        if kind in ("Conv2D", "DepthwiseConv2D"):
            return convolution(layer)
        if kind in ("MaxPooling2D", "AveragePooling2D"):
            return pool(layer)
        return {
            "Preprocess": lambda: Scale(layer),
            "BatchNormalization": lambda: batch_norm(layer),
            "Dense": lambda: dense(layer),
            "ReLU": lambda: nn.ReLU6() if layer.max_value == 6 else nn.ReLU(),
            "ZeroPadding2D": lambda: nn.ZeroPad2d((*layer.padding[1], *layer.padding[0])),
            "Add": lambda: Call(lambda a, b: a + b),
            "Concatenate": lambda: Call(lambda *x: torch.cat(x, 1)),
            "GlobalAveragePooling2D": lambda: Call(lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1)),
            "Flatten": lambda: Call(lambda x: x.permute(0, 2, 3, 1).flatten(1)),  # Keras' order
            "Dropout": nn.Identity,
        }[kind]()

    class Translated(nn.Module):
        def __init__(self):
            super().__init__()
            self.steps, self.places, number = nn.ModuleList(), [], {id(model.input): 0}
            for layer in model.layers[1:]:
                inputs = layer.input if isinstance(layer.input, list) else [layer.input]
                self.steps.append(module(layer))
                self.places.append([number[id(t)] for t in inputs])
                number[id(layer.output)] = len(number)

        def forward(self, x):
            found = [x]
            for step, places in zip(self.steps, self.places, strict=True):
                found.append(step(*(found[i] for i in places)))
            return found[-1]

    return Translated().eval()


# --- Measuring ---------------------------------------------------------------------------------------------


def measure(name, peer, batches, seconds):
    """{batch: images a second, best and median of the calls} of one peer, in this process."""
    import numpy as np

    from kzoo.catalog import spec

    who, precision = peer.split()
    functions = {"kzoo": with_kzoo, "keras": with_keras, "torch": with_torch}[who](name, precision)
    result = {}
    for batch in batches:
        x = np.random.default_rng(0).uniform(0, 255, (batch, *spec(name).input_shape)).astype("float32")
        for predict in functions:
            predict(x), predict(x)
            times, start = [], time.perf_counter()
            while len(times) < 3 or time.perf_counter() - start < seconds:
                before = time.perf_counter()
                predict(x)
                times.append(time.perf_counter() - before)
            found = {"median": batch / median(times), "best": batch / min(times)}
            if found["median"] > result.get(batch, {"median": 0})["median"]:
                result[batch] = found
    return result


def ahead(speed):
    """How many times faster kzoo is than each other library, both in their faster precision."""
    fastest = {}
    for peer, v in speed.items():
        who = peer.split()[0]
        fastest[who] = max(v, fastest.get(who, 0))
    return {who: fastest["kzoo"] / v for who, v in fastest.items() if who != "kzoo" and "kzoo" in fastest}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet50", "vgg16", "mobilenet_v2", "inception_v3"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--peers", nargs="+", default=PEERS, choices=PEERS, metavar="PEER", help=", ".join(PEERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement, at least three calls")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.models[0], args.peers[0], args.batches, args.seconds)))
        return

    from kzoo.hardware import describe

    rows = []
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(
        f"{describe()}; {load}; {args.rounds} rounds; images/s, median of the rounds' medians (best call)", flush=True
    )
    for name in args.models:
        rounds = {}
        for _ in range(args.rounds):
            for peer in args.peers:
                command = [sys.executable, __file__, "--one", "--models", name, "--peers", peer, "--seconds",
                           str(args.seconds), "--batches", *map(str, args.batches)]  # fmt: skip
                backend = "torch" if peer.startswith("torch") else "tensorflow"
                # Threads that spin while they wait make PyTorch ten times slower where others use the cores, too.
                env = {"OMP_WAIT_POLICY": "passive", **os.environ, "KERAS_BACKEND": backend}
                env["TF_CPP_MIN_LOG_LEVEL"] = "3"
                done = subprocess.run(command, capture_output=True, text=True, env=env)
                if done.returncode:
                    print(f"{name} {peer}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr, flush=True)
                    continue
                for batch, found in json.loads(done.stdout.splitlines()[-1]).items():
                    rounds.setdefault((int(batch), peer), []).append(found)
        for batch in args.batches:
            speed = {p: median(f["median"] for f in rounds[batch, p]) for p in args.peers if (batch, p) in rounds}
            best = {p: max(f["best"] for f in rounds[batch, p]) for p in speed}
            ratios, of_best = ahead(speed), ahead(best)
            rows.append({"model": name, "batch": batch, "median": speed, "best": best, "ratios": ratios,
                         "ratios_of_best": of_best})  # fmt: skip
            cells = "  ".join(f"{p} {v:.1f} ({best[p]:.1f})" for p, v in speed.items())
            compared = ", ".join(f"{r:.2f}x {w} ({of_best[w]:.2f})" for w, r in ratios.items())
            print(f"{name} batch {batch}: {cells}  |  {compared}", flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps({"hardware": describe(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
