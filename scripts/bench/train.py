"""Images a second of training: the pipeline and step of `kzoo train`, plain Keras (fit), PyTorch if installed.

All train the same network with the optimizer of its recipe, without augmentation, on the same images in memory. Plain
Keras is the graph with keras.layers.BatchNormalization, fit on float32 arrays, compiled by default: on TensorFlow, in
float32 and mixed bfloat16, and on JAX. "tuner off" is bfloat16 on a tf.data.Dataset without autotuning, which can make
the end of an epoch wait as long as the epoch took. PyTorch is the translated graph, channels last, in float32 and
bfloat16 (autocast). The result is the median of three epochs of --steps batches, after two warm-up epochs.
"""

from statistics import median

from bench.common import network, timed, translate

HELP = "images/s of training: kzoo, plain Keras on TensorFlow and JAX, PyTorch if installed"
UNIT, BETTER, BASE = "images/s", "more", "kzoo auto"
SIZES = {"mnist_cnn": (128, 100), "resnet20": (128, 30), "resnet50": (16, 3)}  # batch, steps


def arguments(parser):
    parser.add_argument("--model", nargs="+", default=list(SIZES))
    parser.add_argument("--batch", type=int, help="images in a batch")
    parser.add_argument("--steps", type=int, help="batches in an epoch")


CONTENDERS = {
    "kzoo auto": ("kzoo", "auto"),
    "kzoo float32": ("kzoo", "float32"),
    "keras float32": ("keras", "float32"),
    "keras bfloat16": ("keras", "bfloat16"),
    "keras tuner off": ("keras", "bfloat16", False),
    "keras jax float32": ("keras", "float32"),
    "torch float32": ("torch", "float32"),
    "torch bfloat16": ("torch", "bfloat16"),
}


def contenders(options):
    return list(CONTENDERS)


def environment(name):
    return {"KERAS_BACKEND": "jax" if " jax " in name else "torch" if name.startswith("torch") else "tensorflow"}


def flops(ledger):
    return 3 * 2 * ledger.totals.multiply_adds  # forward, and backward to the inputs and to the weights


def measure(name, options):
    model = options.model[0]
    batch, steps = SIZES.get(model, (32, 10))
    batch, steps = options.batch or batch, options.steps or steps
    peer, *settings = CONTENDERS[name]
    epoch, facts = {"kzoo": with_kzoo, "keras": with_keras, "torch": with_torch}[peer](model, batch, steps, *settings)
    return {"value": batch * steps / median(timed(epoch, 0)), **facts, "batch": batch}


def images(model, n):
    """Images and labels, the same for all: MNIST if it is found locally and fits, else seeded noise."""
    import numpy as np

    from kzoo.catalog import spec
    from kzoo.data.loading import load_data
    from kzoo.errors import KzooError

    shape = spec(model).input_shape
    if shape == (28, 28, 1):
        try:
            split = load_data("mnist", val_fraction=0).splits["train"]
            return split.images[:n], split.labels[:n]
        except KzooError:
            pass
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, *shape)).astype("uint8"), rng.integers(0, 10, n)


def recipe_of(model, batch):
    """The recipe of a model, without augmentation."""
    from dataclasses import replace

    from kzoo.catalog import spec
    from kzoo.training.recipes import find_recipe

    return replace(find_recipe(spec(model).recipe), augment=(), batch_size=batch)


def with_kzoo(model, batch, steps, precision):
    from kzoo.builder import build
    from kzoo.catalog import spec
    from kzoo.data.batches import batches
    from kzoo.data.dataset import Split
    from kzoo.hardware import auto_precision
    from kzoo.tasks import find
    from kzoo.training.fitting import training_model

    if precision == "auto":
        precision = auto_precision(build(model))[0]
    row = spec(model)
    task = find(row.task)
    network = build(model, precision=precision, seed=0)
    trainer = training_model(network, task, recipe_of(model, batch), steps=steps, seed=0)
    x, y = images(model, batch * steps)
    data = batches(
        Split(x, y, [""] * len(x)),
        row.input_shape,
        row.preprocessing,
        batch,
        targets=lambda labels: task.targets(labels, range(row.num_classes)),
        order=(0, 0),
    )
    return lambda: trainer.fit(data, verbose=0, shuffle=False), {"precision": precision}


def with_keras(model, batch, steps, precision, tuner=True):
    import keras
    import numpy as np

    recipe = recipe_of(model, batch)
    trained = network(model, precision, keras.layers.BatchNormalization)
    kind = {
        "sgd": lambda: keras.optimizers.SGD(1e-3, 0.9, nesterov=recipe.nesterov, weight_decay=recipe.weight_decay),
        "adam": lambda: keras.optimizers.Adam(1e-3),
        "adamw": lambda: keras.optimizers.AdamW(1e-3, weight_decay=recipe.weight_decay),
    }
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trained.compile(kind[recipe.optimizer](), loss, metrics=["accuracy"])
    x, y = images(model, batch * steps)
    x = x.astype(np.float32)
    data = {"x": x, "y": y, "batch_size": batch}
    if not tuner:
        import tensorflow as tf

        options = tf.data.Options()
        options.autotune.enabled = False
        data = {"x": tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x)).batch(batch).with_options(options)}
    return lambda: trained.fit(**data, verbose=0), {"jit_compile": trained.jit_compile}


def with_torch(model, batch, steps, precision):
    import torch

    recipe = recipe_of(model, batch)
    trained = translate(network(model)).train().to(memory_format=torch.channels_last)
    kind = {
        "sgd": lambda p: torch.optim.SGD(p, 1e-3, 0.9, nesterov=recipe.nesterov, weight_decay=recipe.weight_decay),
        "adam": lambda p: torch.optim.Adam(p, 1e-3),
        "adamw": lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=recipe.weight_decay),
    }
    for p in trained.parameters():
        p.requires_grad_()
    optimizer = kind[recipe.optimizer](trained.parameters())
    x, y = images(model, batch * steps)
    x = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(y).long()

    def epoch():
        order = torch.randperm(len(x))
        for i in range(0, len(x), batch):
            index = order[i : i + batch]
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                loss = torch.nn.functional.cross_entropy(trained(x[index].float()), y[index])
            loss.backward()
            optimizer.step()

    return epoch, {"threads": torch.get_num_threads()}
