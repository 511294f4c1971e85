"""How many times as fast as plain Keras kzoo's predictor is, for any networks, batches and both precisions.

As in `infer`, but both are in one process and called in turn, so that a noisy machine changes both, and a whole
catalog takes an hour: `--model all`. The result is the ratio of the median times.
"""

import time
from statistics import median

from bench.infer import with_keras, with_kzoo

HELP = "kzoo's predictor against plain Keras, called in turn in one process; --model all for the whole catalog"
UNIT, BETTER, BASE = "times plain Keras", "more", None


def arguments(parser):
    parser.add_argument("--model", nargs="+", default=["resnet20", "resnet50", "vgg16", "mobilenet_v2"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--calls", type=int, default=3, help="least calls of each")
    parser.add_argument("--seconds", type=float, default=2.0, help="duration of each measurement, at least")


def contenders(options):
    return ["float32", "bfloat16"]


def measure(name, options):
    import numpy as np

    from kzoo.catalog import spec

    model = options.model[0]
    functions = with_kzoo(model, name) + with_keras(model, name)
    found = {}
    for batch in options.batch:
        x = np.random.default_rng(0).uniform(0, 255, (batch, *spec(model).input_shape)).astype("float32")
        times, began = ([], []), None
        while began is None or len(times[0]) < options.calls or time.perf_counter() - began < options.seconds:
            for f, seconds in zip(functions, times, strict=True):
                before = time.perf_counter()
                f(x)
                seconds.append(time.perf_counter() - before)
            if began is None:  # the first calls compile
                began, times = time.perf_counter(), ([], [])
        kzoo, keras = (batch / median(t) for t in times)
        found[f"batch {batch}"] = {"value": kzoo / keras, "kzoo": round(kzoo, 1), "keras": round(keras, 1)}
    return found
