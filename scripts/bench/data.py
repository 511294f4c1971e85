"""Input pipelines on folders of photos: the speed of decoding and cropping, and how long training waits for input.

The photos are --photos generated JPEGs of 500 x 375 pixels, a size that is typical of ImageNet (noise over gradients,
quality 90). "kzoo decode" and "keras decode" (image_dataset_from_directory) prepare all of them once. "kept in memory",
"kept on disk" and "decoded each time" measure how long the training steps of the model wait for batches, as a share of
the time.

--many 10000 100000 measures folders of so many small JPEGs in 100 classes, no two of them equal, which are read while
training with the crops of the recipe imagenet: seconds to list, divide and name them all ("listed"), until the first
batch is there ("first batch"), the share of waiting, and by how much memory (of the process alone, RssAnon) grew while
the data was listed and while the network trained.
"""

import shutil
import tempfile
import time
from itertools import chain, islice
from pathlib import Path

HELP = "photos/s decoded, and the share of training that waits for input"
UNIT, BETTER, BASE = "images/s", "more", "keras decode"


def arguments(parser):
    parser.add_argument("--model", nargs="+", default=["mobilenet_v2"], help="the model that is trained")
    parser.add_argument("--photos", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--many", type=int, nargs="+", default=[], metavar="N", help="also folders of N small JPEGs")


def contenders(options):
    return [
        "keras decode",
        "kzoo decode",
        "kept in memory",
        "kept on disk",
        "decoded each time",
        *map(files, options.many),
    ]


def files(n):
    """The name of a contender."""
    return f"{n:,} files"


def measure(name, options):
    with tempfile.TemporaryDirectory() as folder:
        if name.endswith(" files"):
            many_photos(Path(folder), int(name.split()[0].replace(",", "")))
            return streamed(folder, options)
        photos(Path(folder), options.photos)
        if name == "keras decode":
            return keras_decode(folder, options)
        return kzoo_data(name, folder, options)


def photos(folder, n):
    """Write n JPEGs into two class folders."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, 500)[None, :, None] * np.linspace(0.2, 1, 375)[:, None, None]
    for i in range(n):
        path = folder / "ab"[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 56, (12, 16, 3)).astype("uint8")
        noise = np.asarray(Image.fromarray(coarse).resize((500, 375))) + rng.integers(0, 12, (375, 500, 3))
        Image.fromarray((ramp + noise).clip(0, 255).astype("uint8")).save(path, quality=90)


def many_photos(folder, n, distinct=200):
    """Write n JPEGs of 500 x 375 into 100 class folders: `distinct` pictures, and in each file a comment of its own."""
    photos(folder / "made", distinct)
    made = [path.read_bytes() for path in (folder / "made").rglob("*.jpg")]
    shutil.rmtree(folder / "made")
    for i in range(n):
        path = folder / f"class_{i % 100:02}" / f"n{i:08}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        note = str(i).encode() + b" " * (i % 997)  # many sizes
        path.write_bytes(
            made[i % distinct][:2] + b"\xff\xfe" + (len(note) + 2).to_bytes(2, "big") + note + made[i % distinct][2:]
        )


def anonymous():
    """MiB of memory that belong to this process alone (Linux)."""
    found = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(found.split()[1]) / 1024


def streamed(folder, options):
    import numpy as np

    from kzoo.builder import build
    from kzoo.catalog import spec
    from kzoo.data.batches import batches
    from kzoo.data.loading import load_data
    from kzoo.hardware import auto_precision
    from kzoo.tasks import find
    from kzoo.training.fitting import training_model
    from kzoo.training.recipes import RECIPES

    row, recipe = spec(options.model[0]), RECIPES["imagenet"].changed(batch_size=options.batch)
    task, classes = find(row.task), [str(i) for i in range(100)]
    network = build(row, num_classes=100, precision=auto_precision(build(row))[0], seed=0)
    model = training_model(network, task, recipe, steps=1000, seed=0)
    shape = (options.batch, *row.input_shape)
    model.train_on_batch(np.zeros(shape, "uint8"), np.zeros((options.batch, 100), "float32"))  # compiles
    before, began = anonymous(), time.perf_counter()
    data = load_data(folder, val_fraction=0.1, test_fraction=0)
    data.fingerprint()
    listed, split = time.perf_counter() - began, data.splits["train"]
    held = anonymous() - before
    served = iter(
        batches(
            split,
            row.input_shape,
            row.preprocessing,
            options.batch,
            targets=lambda labels: task.targets(labels, classes),
            order=(0, 0),
            crop=recipe.crop,
        )
    )
    batch = next(served)
    first = time.perf_counter() - began
    model.train_on_batch(*batch)
    before, timed_batches = anonymous(), TimedIterator(served)
    began, n = time.perf_counter(), 0
    for x, y in islice(timed_batches, 30):
        model.train_on_batch(x, y)
        n += len(x)
    took, grown = time.perf_counter() - began, anonymous() - before
    return {
        "value": n / took,
        "waiting": f"{timed_batches.seconds / took:.1%}",
        "listed": f"{listed:.1f} s",
        "first batch": f"{first:.1f} s",
        "memory": f"{held:.0f} MiB listing and {grown:.0f} MiB training",
    }


def keras_decode(folder, options):
    import keras

    data = keras.utils.image_dataset_from_directory(
        folder, image_size=(224, 224), crop_to_aspect_ratio=True, batch_size=options.batch, verbose=0
    )
    began = time.perf_counter()
    n = sum(len(x) for x, _ in data)
    return {"value": n / (time.perf_counter() - began)}


def kzoo_data(name, folder, options):
    from kzoo.builder import build
    from kzoo.catalog import spec
    from kzoo.data import batches as module
    from kzoo.data.loading import load_data
    from kzoo.hardware import auto_precision
    from kzoo.tasks import find
    from kzoo.training.fitting import training_model
    from kzoo.training.recipes import RECIPES

    row = spec(options.model[0])
    split = load_data(folder, val_fraction=0, test_fraction=0).splits["train"]
    if name != "kept in memory":
        module.MEMORY = 0
    if name in ("decoded each time", "kzoo decode"):
        module.DISK = 0
    if name == "kzoo decode":
        began = time.perf_counter()
        module.decode_split(split, row.input_shape, row.preprocessing)
        return {"value": len(split) / (time.perf_counter() - began)}
    split, _ = module.decode_split(split, row.input_shape, row.preprocessing)
    task = find(row.task)
    data = module.batches(
        split,
        row.input_shape,
        row.preprocessing,
        options.batch,
        targets=lambda labels: task.targets(labels, ("a", "b")),
        order=(0, 0),
    )
    network = build(row, num_classes=2, precision=auto_precision(build(row))[0], seed=0)
    model = training_model(network, task, RECIPES["modern_sgd"].changed(batch_size=options.batch), steps=10, seed=0)
    waited, began, n = 0.0, 0.0, 0
    passes = chain.from_iterable(data for _ in range(100))  # as epochs follow each other
    for i, (x, y) in enumerate(timed_batches := TimedIterator(passes)):
        if i == 8:  # the first calls compile, while some batches are decoded ahead
            timed_batches.seconds, began, n = 0.0, time.perf_counter(), 0
        model.train_on_batch(x, y)
        n += len(x)
        if i == 31:
            break
    took, waited = time.perf_counter() - began, timed_batches.seconds
    return {"value": n / took, "waiting": f"{waited / took:.1%}"}


class TimedIterator:
    """An iterator over items that adds up the seconds that it waits for them."""

    def __init__(self, items):
        self.items, self.seconds = iter(items), 0.0

    def __iter__(self):
        return self

    def __next__(self):
        began = time.perf_counter()
        item = next(self.items)
        self.seconds += time.perf_counter() - began
        return item
