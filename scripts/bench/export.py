"""Exports of one network: kzoo's in every format, float32 and bfloat16, beside Keras' own model.export.

Every contender is written to a folder, read again, and runs the same network (kzoo's graph, batch norm, biases and
weights random) on prepared float32 pictures, by the signature `tensor` or its like. Plain: that graph with
keras.layers.BatchNormalization, model.export, its serving signature. "ms" is the median of a call.
"""

import tempfile
from pathlib import Path
from statistics import median

from bench.common import network, timed

HELP = "latency and images/s of exported networks: kzoo's formats, plain Keras export, onnxruntime, LiteRT"
UNIT, BETTER, BASE = "images/s", "more", "plain export"

FORMATS = {
    "kzoo float32": ("saved_model", "saved_model", "float32"),
    "kzoo bfloat16": ("saved_model", "saved_model", "bfloat16"),
    "onnx": ("onnx", "onnx", "float32"),
    "litert float32": ("litert", "litert_float32", "float32"),
    "litert float16": ("litert", "litert_float16", "float32"),
    "litert int8": ("litert", "litert_int8", "float32"),
}


def arguments(parser):
    parser.add_argument("--model", nargs="+", default=["resnet50"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement, at least three calls")
    parser.add_argument("--formats", nargs="+", default=["kzoo float32", "kzoo bfloat16"], choices=list(FORMATS))


def contenders(options):
    from kzoo.export.formats import missing

    return ["plain export", *(n for n in options.formats if not missing(FORMATS[n][0]))]


def flops(ledger):
    return 2 * ledger.totals.multiply_adds


def measure(name, options):
    import numpy as np

    from kzoo.catalog import spec

    shape = spec(options.model[0]).input_shape
    with tempfile.TemporaryDirectory() as folder:
        run, size = (plain if name == "plain export" else kzoo)(name, options.model[0], Path(folder))
        found = {}
        for batch in options.batch:
            x = np.random.default_rng(0).uniform(0, 255, (batch, *shape)).astype("float32")
            seconds = median(timed(lambda: run(x), options.seconds))  # noqa: B023
            found[f"batch {batch}"] = {
                "value": batch / seconds,
                "ms": round(1e3 * seconds, 2),
                "mb": round(size / 1e6, 2),
            }
        return found


def plain(name, model, folder):
    import keras
    import tensorflow as tf

    network(model, norm=keras.layers.BatchNormalization).export(str(folder / "plain"), verbose=False)
    loaded = tf.saved_model.load(str(folder / "plain"))
    signature = loaded.signatures["serving_default"]
    key = next(iter(signature.structured_input_signature[1]))

    def run(x, loaded=loaded):
        return next(iter(signature(**{key: tf.constant(x)}).values())).numpy()

    return run, sum(p.stat().st_size for p in (folder / "plain").rglob("*") if p.is_file())


def kzoo(name, model, folder):
    import numpy as np
    import tensorflow as tf

    from kzoo.catalog import spec
    from kzoo.export import formats, graph
    from kzoo.export.write import Parts, only_logits

    format, variant, precision = FORMATS[name]
    row, built = spec(model), network(model)
    function, form = graph.network(built, precision)
    classes = [str(i) for i in range(row.num_classes)]
    module, signatures = graph.module(function, row.input_shape, row.preprocessing, classes)
    few = np.random.default_rng(1).integers(0, 256, (16, *row.input_shape)).astype("uint8")
    parts = Parts(module, signatures, form, only_logits(function), precision, few)
    files = formats.write(format, folder, parts)[variant]["files"]
    loaded = tf.saved_model.load(str(folder)) if format == "saved_model" else None
    return formats.runner(variant, folder, loaded), sum((folder / f).stat().st_size for f in files)
