"""How far one device, two devices and two processes agree: loss and gradients of one step, and 20 steps.

    python scripts/devices.py

On a CPU, whose virtual devices stand for two (XLA_FLAGS), in float32. resnet20 with 8 layers, batch norm and shifted
pictures trains on 20 random pictures, a batch of 24 that is filled up. All start from the same state. The gradient is
what a step of rate 1 changes. Prints a table in Markdown: the largest differences from one device.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

TWO = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
# Name -> (what is measured again for the same bits, environment, how to start: devices and processes).
CASES = {
    "one device": ({}, 1, 1),
    "two devices": (TWO, 2, 1),
    "two devices, again": (TWO, 2, 1),
    "two processes": ({}, 1, 2),
}


def measured(network, together, *, images=20, batch=24, steps=20, augment=(("shift", 0.1),)):
    """One step and several from the same state, on the devices of a `kzoo.distribution.Together`.

    Args:
        network: a function that makes it.

    Returns:
        {"loss", "gradients", "losses", "weights"}: float64 arrays; losses are the means of epochs.
    """
    import keras
    import numpy as np

    from kzoo.catalog import Preprocessing
    from kzoo.data.dataset import Split
    from kzoo.data.feed import epoch_number, feed
    from kzoo.tasks import find
    from kzoo.training.fitting import training_model
    from kzoo.training.recipes import Recipe

    task, recipe = find("classification"), Recipe("", "", "sgd", 1.0, 0.0, batch_size=batch, augment=augment)
    with together.group() as group:
        keras.utils.set_random_seed(0)
        made = network()
        shape, classes = made.input_shape[1:], tuple(map(str, range(made.output_shape[-1])))
        rng = np.random.default_rng(0)
        x = rng.integers(0, 256, (images, *shape)).astype("uint8")
        split = Split(x, rng.integers(0, len(classes), images), list(map(str, range(images))), prepared=True)
        epoch = epoch_number()
        data = feed(
            split,
            shape,
            Preprocessing(),
            batch,
            targets=lambda labels: task.targets(labels, classes),
            order=(0, epoch),
            group=group,
        )
        model = training_model(made, task, recipe, steps=len(data), seed=0)

        def values():
            return [np.array(keras.ops.convert_to_numpy(v), "float64") for v in made.weights]

        def state():
            return [np.array(keras.ops.convert_to_numpy(v)) for v in model.variables]

        before, first = state(), values()
        one = model.fit(data, steps_per_epoch=1, verbose=0, shuffle=False).history["loss"]
        gradients = [a - b for a, b in zip(first, values(), strict=True)]
        for v, value in zip(model.variables, before, strict=True):
            v.assign(value)
        model.optimizer.learning_rate = 0.05
        count = keras.callbacks.LambdaCallback(on_epoch_begin=lambda e, logs: epoch.assign(e))
        many = model.fit(data, epochs=steps // len(data), verbose=0, shuffle=False, callbacks=[count]).history["loss"]
        found = {"loss": one, "gradients": gradients, "losses": many, "weights": values()}
        return {k: np.concatenate([np.ravel(a) for a in v]).astype("float64") for k, v in found.items()}


def worker(file, devices, coordinator, process):
    import numpy as np

    import kzoo
    from kzoo.distribution import Together

    together = Together(devices, coordinator, process)
    together.join()

    def network():
        return kzoo.build("resnet20", depth=8, precision="float32", seed=0)

    np.savez(file, **measured(network, together))


def run(name, folder):
    """The arrays of a case, from processes of its own; of several processes those of the last one."""
    import numpy as np

    environment, devices, processes = CASES[name]
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
    running = []
    for i in range(processes):
        more = ["--coordinator", address, "--process", f"{i}/{processes}"] if processes > 1 else []
        file = Path(folder) / f"{name}-{i}.npz"
        command = [sys.executable, __file__, "--worker", str(file), "--devices", str(devices), *more]
        env = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "KERAS_BACKEND": "jax", **environment}
        env["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        running.append(subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL))
    if any([p.wait() for p in running]):
        sys.exit(f"{name}: failed")
    with np.load(file) as arrays:
        return dict(arrays)


def main():
    import numpy as np

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--devices", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--coordinator", help=argparse.SUPPRESS)
    parser.add_argument("--process", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return worker(options.worker, options.devices, options.coordinator, options.process)
    with tempfile.TemporaryDirectory() as folder:
        found = {name: run(name, folder) for name in CASES}
    base, two = found["one device"], found["two devices"]
    print("| | Loss of a step | Gradients | Loss, 20 steps | Weights, 20 steps | Bits |\n|---|--:|--:|--:|--:|---|")
    for name, arrays in found.items():
        numbers = [f"{np.abs(arrays[k] - base[k]).max():.0e}" for k in base]
        like = two if name.startswith("two") else base
        same = all(np.array_equal(arrays[k], like[k]) for k in like)
        bits = "" if arrays is like else f"{'those' if same else 'not those'} of {'two' if like is two else 'one'}"
        print(f"| {name} | {' | '.join(numbers)} | {bits} |")
    return None


if __name__ == "__main__":
    main()
