"""Fine-tuning a network on photos: kzoo with an empty and a full cache, and the plain Keras tutorial.

    python scripts/benchmark.py finetune
    python scripts/benchmark.py finetune --heads

The second one needs no photos: it measures the processor seconds of choosing and fitting the head.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

HELP = "Fine-tune mobilenet_v2 on ants and bees: whole commands, process start included. Needs $KZOO_DATA."
UNIT, BETTER, BASE = "s", "less", "keras tutorial"
# Of each contender of kzoo: what is given to --unfreeze, the seed, and whether the features are cached. With seed 0
# auto sees that no stage could improve these photos measurably, with seed 4 it has to train one to know.
KZOO = {
    "kzoo none, cold": ("none", 0, False),
    "kzoo none, cached": ("none", 0, True),
    "kzoo auto, cold": ("auto", 0, False),
    "kzoo auto, cached": ("auto", 0, True),
    "kzoo auto, seed 4, cold": ("auto", 4, False),
    "kzoo auto, seed 4, cached": ("auto", 4, True),
}
# (photos, features of each, classes) that --heads draws.
HEADS = [(244, 1280, 2), (691, 1280, 5), (2763, 1280, 5), (2763, 4096, 5), (50_000, 1280, 5)]


def arguments(parser):
    parser.add_argument("--epochs", type=int, default=10, help="epochs of the tutorial")
    parser.add_argument("--heads", action="store_true", help="processor seconds of heads on features drawn at random")


def contenders(options):
    return [f"{n:,} x {width:,}, {k} classes" for n, width, k in HEADS] if options.heads else [*KZOO, BASE]


def measure(name, options):
    """{"value": seconds of the whole command, "processor": those of all cores, "training": seconds of the training,
    "accuracy": on the val folder}.

    The training of the tutorial is fit() with validation, as the tutorial has it; that of kzoo is hashing the photos,
    the features (from the network or the cache), the head and the stages.
    """
    if options.heads:
        return _head(*HEADS[contenders(options).index(name)])
    with tempfile.TemporaryDirectory(prefix="kzoo-bench-") as folder:
        if name == BASE:
            return _tutorial(Path(folder), options.epochs)
        return _kzoo(Path(folder), *KZOO[name])


def _head(images, width, classes):
    """Processor seconds of choosing and fitting a head, on normal features around centres of deviation 0.1."""
    sys.path.insert(0, str(ROOT))
    import numpy as np

    from kzoo.finetuning.heads import fit_head

    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, images)
    x = rng.normal(0, 0.1, (classes, width)).astype("float32")[labels]
    x += rng.standard_normal((images, width), "float32")
    fit_head(x[:50], labels[:50], classes)  # imports SciPy
    began = time.process_time()
    head = fit_head(x, labels, classes)
    chosen = head.kind if head.strength is None else f"{head.kind} {head.strength:g}"
    return {"value": time.process_time() - began, "chosen": chosen, "accuracy": round(head.table[0]["accuracy"], 3)}


def _photos():
    sys.path.insert(0, str(ROOT))
    from kzoo.files import data_folders

    found = next((p for p in data_folders() if (p / "hymenoptera").is_dir() and (p / "weights").is_dir()), None)
    if found is None:
        sys.exit("Needs hymenoptera/ and weights/: set KZOO_DATA to the folder that has them.")
    return found


def _run(command, environment):
    """(wall seconds, processor seconds, stdout) of a command."""
    import resource

    def spent():
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    began, before = time.perf_counter(), spent()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    seconds, processor = time.perf_counter() - began, spent() - before
    if done.returncode:
        sys.exit(f"{command} failed:\n{done.stderr[-3000:]}")
    return seconds, round(processor, 1), done.stdout


def _kzoo(folder, unfreeze, seed, cached):
    import json

    environment = {**os.environ, "KZOO_FEATURES": str(folder / "features")}
    command = [sys.executable, str(ROOT / "scripts/finetune.py"), str(_photos() / "hymenoptera")]
    command += ["--model", "mobilenet_v2", "--unfreeze", unfreeze, "--seed", str(seed), "--out"]
    if cached:
        _run([*command, str(folder / "before"), "--unfreeze", "none"], environment)
    seconds, processor, _ = _run([*command, str(folder / "run")], environment)
    found = json.loads((folder / "run/metrics.json").read_text())
    parts = found["seconds"]
    training = sum(parts.get(k, 0) for k in ("hashing", "features", "head", "stages"))
    return {
        "value": seconds,
        "processor": processor,
        "training": round(training, 3),
        "accuracy": round(found["test_accuracy"], 4),
        "kept": found["winner"],
    }


def _tutorial(folder, epochs):
    import json

    data = _photos()
    # The same weights in the file format of Keras, which the tutorial downloads; converting them is not measured.
    weights = folder / "mobilenet_v2.weights.h5"
    subprocess.run([sys.executable, __file__, "convert", str(data), str(weights)], check=True, capture_output=True)
    seconds, processor, out = _run(
        [sys.executable, __file__, "tutorial", str(data), str(weights), str(epochs)], dict(os.environ)
    )
    return {"value": seconds, "processor": processor, **json.loads(out.strip().splitlines()[-1])}


def convert(data, path):
    """Write the weights of the shared file as a .weights.h5 for keras.applications.MobileNetV2 without top."""
    sys.path.insert(0, str(ROOT))
    import keras

    import kzoo

    file = Path(data) / "weights/mobilenet_v2_1.0_224_imagenet.npz"
    ours = {v.path: v for v in kzoo.build("mobilenet_v2", num_classes=None, weights=file).weights}
    model = keras.applications.MobileNetV2(input_shape=(224, 224, 3), include_top=False, weights=None)
    for v in model.weights:
        v.assign(ours[v.path])
    model.save_weights(path)


def tutorial(data, weights, epochs):
    """The code of keras.io/guides/transfer_learning: a frozen network inside a model, and fit()."""
    import json

    import keras

    def load(part, shuffle):
        return keras.utils.image_dataset_from_directory(
            Path(data) / "hymenoptera" / part,
            image_size=(224, 224),
            batch_size=32,
            shuffle=shuffle,
            seed=0,
            verbose=False,
        )

    train, val = load("train", True), load("val", False)
    base = keras.applications.MobileNetV2(input_shape=(224, 224, 3), include_top=False, weights=None)
    base.load_weights(weights)
    base.trainable = False
    inputs = keras.Input((224, 224, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = base(x, training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(0.2)(x)
    outputs = keras.layers.Dense(1)(x)
    model = keras.Model(inputs, outputs)
    model.compile(
        keras.optimizers.Adam(),
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)],
    )
    began = time.perf_counter()
    history = model.fit(train, validation_data=val, epochs=int(epochs), verbose=0)
    seconds = time.perf_counter() - began
    model.save(Path(weights).with_name("tutorial.keras"))
    accuracy = history.history["val_binary_accuracy"][-1]
    print(json.dumps({"training": round(seconds, 3), "accuracy": accuracy}))


if __name__ == "__main__":
    {"convert": convert, "tutorial": tutorial}[sys.argv[1]](*sys.argv[2:])
