"""Exports of one network: kzoo's formats in float32 and bfloat16, compared with Keras' own model.export.

Every contender is written to a folder and loaded again. All run the same network (--model: a run folder, or a name of
the catalog with random weights) on prepared float32 images. "plain export" is the same graph with
keras.layers.BatchNormalization, written by model.export, and its serving signature. "ms" is the median of a call. For a
run, top-1 is measured on its test part, or else its validation part, which kzoo prepares for all contenders.
"""

import tempfile
from pathlib import Path
from statistics import median

from bench.common import exchanged, network, timed

HELP = "latency and images/s of exported networks: kzoo's formats, plain Keras export, onnxruntime, LiteRT"
UNIT, BETTER, BASE = "images/s", "more", "plain export"

FORMATS = {
    "kzoo float32": ("saved_model", "saved_model", "float32"),
    "kzoo bfloat16": ("saved_model", "saved_model", "bfloat16"),
    "keras": ("keras", "keras", "float32"),
    "onnx": ("onnx", "onnx", "float32"),
    "litert float32": ("litert", "litert_float32", "float32"),
    "litert float16": ("litert", "litert_float16", "float32"),
    "litert int8": ("litert", "litert_int8", "float32"),
}


def arguments(parser):
    parser.add_argument("--model", nargs="+", default=["resnet50"], metavar="NAME|RUN")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 32])
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="duration of each measurement, of at least three calls"
    )
    parser.add_argument("--formats", nargs="+", default=["kzoo float32", "kzoo bfloat16"], choices=list(FORMATS))


def contenders(options):
    from kzoo.exporting.formats import missing

    return ["plain export", *(n for n in options.formats if not missing(FORMATS[n][0]))]


def flops(ledger):
    return 2 * ledger.totals.multiply_adds


def subject(name, norm=None):
    """The network: (Source, keras.Model).

    Args:
        name: the folder of a run, or a name of the catalog, which gets random weights.
        norm: the class of the model's batch norms, in place of its own.
    """
    import os

    from kzoo.catalog import spec
    from kzoo.source import Source, find_source
    from kzoo.tasks import find

    if not os.path.isdir(name):
        row, model = spec(name), network(name, norm=norm)
        classes = tuple(str(i) for i in range(row.num_classes))
        return Source(name, model, classes, row.preprocessing, find(row.task)), model
    source = find_source(name)
    model = source.model
    if norm:
        copy = exchanged(model, norm)
        copy.set_weights(model.get_weights())
        model = copy
    return source, model


def measure(name, options):
    import keras
    import numpy as np

    from kzoo.exporting.write import read_part

    source, model = subject(options.model[0], keras.layers.BatchNormalization if name == "plain export" else None)
    tested = read_part(source, "test" if "test" in source.splits else "val", 10**6, quiet=True)
    with tempfile.TemporaryDirectory() as folder:
        run, size = (run_plain if name == "plain export" else run_kzoo)(name, source, model, Path(folder))
        facts = {"mb": round(size / 1e6, 2)}
        if tested:
            part, split = tested
            right = sum(
                (np.argmax(run(split.images[i : i + 32].astype("float32")), axis=1) == split.labels[i : i + 32]).sum()
                for i in range(0, len(split), 32)
            )
            facts[f"{part} top-1"] = f"{right / len(split):.2%}"
        found = {}
        for batch in options.batch:
            x = np.random.default_rng(0).uniform(0, 255, (batch, *source.shape)).astype("float32")
            seconds = median(timed(lambda: run(x), options.seconds))  # noqa: B023
            found[f"batch {batch}"] = {"value": batch / seconds, "ms": round(1e3 * seconds, 2), **facts}
        return found


def run_plain(name, source, model, folder):
    import tensorflow as tf

    model.export(str(folder / "plain"), verbose=False)
    loaded = tf.saved_model.load(str(folder / "plain"))
    signature = loaded.signatures["serving_default"]
    key = next(iter(signature.structured_input_signature[1]))

    def run(x, loaded=loaded):  # the signature does not keep the model alive
        return next(iter(signature(**{key: tf.constant(x)}).values())).numpy()

    return run, size_of(folder / "plain")


def run_kzoo(name, source, model, folder):
    import numpy as np
    import tensorflow as tf

    from kzoo.exporting import formats, graph
    from kzoo.exporting.card import file_facts
    from kzoo.exporting.write import only_outputs, representative_images

    format, variant, precision = FORMATS[name]
    function, form = graph.network(model, precision)
    module, signatures = graph.module(function, source)
    representative = representative_images(source)
    if representative is None:
        representative = np.random.default_rng(1).integers(0, 256, (16, *source.shape)).astype("uint8")
    parts = formats.FormatInputs(
        module,
        signatures,
        form=form,
        outputs=only_outputs(function, source.task),
        precision=precision,
        representative=representative,
        source=source,
        temperature=1.0,
        facts=file_facts(source, 1.0, None),
    )
    files = formats.write(format, folder, parts)[variant]["files"]
    loaded = tf.saved_model.load(str(folder)) if format == "saved_model" else None
    size = size_of(folder) if loaded else sum((folder / f).stat().st_size for f in files)
    return formats.runner(variant, folder, loaded, source.task.output), size


def size_of(folder):
    """Bytes of all files in a folder."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
