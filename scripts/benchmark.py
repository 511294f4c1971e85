"""Speed, measured fairly: each contender in a process of its own, in turn, several rounds; medians, bests, ratios.

    python scripts/benchmark.py train --model mnist_cnn --rounds 3

The machine may be shared and noisy, so only ratios within one run count.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def peak_memory():
    """MiB that this process has held at most."""
    import resource

    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, KiB elsewhere
    return held / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def batch_of(model, batch, steps):
    """The same seeded images and labels for all: real MNIST where it is at hand, else noise of the model's shape."""
    import numpy as np

    from kzoo.catalog import spec
    from kzoo.data import load_data
    from kzoo.errors import KzooError

    shape, n = spec(model).input_shape, batch * steps
    if shape == (28, 28, 1):
        try:
            split = load_data("mnist", val_fraction=0).splits["train"]
            return split.images[:n], split.labels[:n], 10
        except KzooError:
            pass
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, *shape)).astype("uint8"), rng.integers(0, 10, n), 10


# --- contenders: each trains `steps` batches, after `warm` batches that don't count; returns images/s -------------


def timed(epoch, images, warm):
    epoch()  # compiles
    for _ in range(warm):
        epoch()
    began = time.perf_counter()
    epoch()
    return images / (time.perf_counter() - began)


def train_kzoo(model, batch, steps, precision):
    """What `kzoo train` runs: its pipeline, its compiled step."""
    from kzoo.build import build
    from kzoo.catalog import spec
    from kzoo.data.batches import batches
    from kzoo.data.sources import Split
    from kzoo.hardware import auto_precision
    from kzoo.training.fit import training_model
    from kzoo.training.recipes import RECIPES

    x, y, classes = batch_of(model, batch, steps)
    if precision == "auto":
        precision = auto_precision(build(model, num_classes=classes))[0]
    network = build(model, num_classes=classes, precision=precision, seed=0)
    plan = RECIPES["lecture_cnn"].changed(batch_size=batch)
    trainer = training_model(network, plan, steps, 0)
    split = Split(x, y, [""] * len(x))
    shape = spec(model).input_shape

    def epoch():
        data = batches(split, shape, spec(model).preprocessing, batch, num_classes=classes, order=(0, 0, 1))
        trainer.fit(data, verbose=0, shuffle=False)

    return timed(epoch, batch * steps, 1), {"precision": precision}


def train_keras(model, batch, steps, xla):
    """The same network through plain model.fit on arrays, float32, as a Keras user writes it."""
    import keras
    import numpy as np

    from kzoo.build import build

    x, y, classes = batch_of(model, batch, steps)
    network = build(model, num_classes=classes, precision="float32", seed=0)
    network.compile(
        keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"], **({} if xla else {"jit_compile": False}),
    )  # fmt: skip
    x = x.astype(np.float32)
    return timed(lambda: network.fit(x, y, batch_size=batch, verbose=0), batch * steps, 1), {
        "jit_compile": network.jit_compile
    }


def train_torch(model, batch, steps, dtype):
    """mnist_cnn in PyTorch, channels last, as a PyTorch user writes it; other models have no definition here."""
    import torch
    from torch import nn

    if model != "mnist_cnn":
        raise SystemExit("no PyTorch definition of this model here")
    x, y, classes = batch_of(model, batch, steps)
    network = nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3136, 1024), nn.ReLU(), nn.Linear(1024, classes),
    ).to(memory_format=torch.channels_last)  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    x = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(y).long()
    half = dtype == "bfloat16"

    def epoch():
        order = torch.randperm(len(x))
        for i in range(0, len(x), batch):
            index = order[i : i + batch]
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = nn.functional.cross_entropy(network(x[index].float() / 255), y[index])
            loss.backward()
            optimizer.step()

    return timed(epoch, batch * steps, 1), {"threads": torch.get_num_threads()}


CONTENDERS = {
    "kzoo auto": (train_kzoo, "auto"),
    "kzoo float32": (train_kzoo, "float32"),
    "keras float32": (train_keras, True),
    "keras float32, no XLA": (train_keras, False),
    "torch float32": (train_torch, "float32"),
    "torch bfloat16": (train_torch, "bfloat16"),
}


def worker(name, options):
    function, argument = CONTENDERS[name]
    speed, facts = function(options.model, options.batch, options.steps, argument)
    print("RESULT", json.dumps({"images_per_s": speed, "peak_mib": peak_memory(), **facts}))


def train(options):
    from importlib.util import find_spec

    names = [
        n
        for n in CONTENDERS
        if not (n.startswith("torch") and (not find_spec("torch") or options.model != "mnist_cnn"))
    ]
    results = {name: [] for name in names}
    for turn in range(options.rounds):
        for name in names:
            out = subprocess.run(
                [sys.executable, __file__, "train", "--worker", name, "--model", options.model,
                 "--batch", str(options.batch), "--steps", str(options.steps)],
                capture_output=True, text=True,
            )  # fmt: skip
            line = next((x for x in out.stdout.splitlines() if x.startswith("RESULT ")), None)
            if line is None:
                raise SystemExit(f"{name} failed:\n{out.stderr[-2000:]}")
            results[name].append(json.loads(line[7:]))
            print(f"round {turn + 1}: {name}: {results[name][-1]['images_per_s']:,.0f} images/s", file=sys.stderr)
    table = {}
    for name, found in results.items():
        speeds = [r["images_per_s"] for r in found]
        extra = {k: v for k, v in found[0].items() if k not in ("images_per_s", "peak_mib")}
        table[name] = {"median": statistics.median(speeds), "best": max(speeds),
                       "peak_mib": max(r["peak_mib"] for r in found), **extra}  # fmt: skip
    from kzoo.hardware import describe

    plain = table["keras float32"]
    if options.json:
        print(
            json.dumps(
                {"model": options.model, "hardware": describe(), "rounds": options.rounds, "results": table}, indent=2
            )
        )
        return
    print(f"Training {options.model}, batch {options.batch}, {options.rounds} rounds, {describe()}")
    print(f"{'':24}{'median':>10}{'best':>10}{'peak MiB':>10}  best / plain Keras")
    for name, row in table.items():
        facts = ", ".join(f"{k} {v}" for k, v in row.items() if k not in ("median", "best", "peak_mib"))
        print(f"{name:24}{row['median']:10,.0f}{row['best']:10,.0f}{row['peak_mib']:10,.0f}"
              f"  {row['best'] / plain['best']:.2f}  ({facts})")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    t = commands.add_parser(
        "train", help="images/s and peak memory of training: kzoo, plain Keras, PyTorch if installed"
    )
    t.add_argument("--model", default="mnist_cnn")
    t.add_argument("--batch", type=int, default=128)
    t.add_argument("--steps", type=int, default=100, help="batches that are timed")
    t.add_argument("--rounds", type=int, default=3)
    t.add_argument("--json", action="store_true")
    t.add_argument("--worker", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options)
    else:
        train(options)


main()
