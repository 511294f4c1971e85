"""Images a second of a training step by itself, and of `fit` around it, on JAX: how much the feed costs.

"step" is the compiled step on one batch that is on the device already. "fit" is what `kzoo train` runs on arrays: uint8
rows gathered in the order of an epoch, copied two batches ahead, augmented on the device. Both train the same network
with its recipe's optimizer, on noise. "fit float32" is plain Keras' fit on a float32 array, shuffled by Keras. The
result is the median of three epochs of --steps batches, after two warm-up epochs. Without TensorFlow the hardware is
not measured: `--worker fit` and `--worker step` print the numbers.
"""

from statistics import median

from bench.common import timed
from bench.train import flops, images, recipe_of

__all__ = ["flops"]
HELP = "images/s of training on JAX: the step alone, fit, and fit on float32 arrays"
UNIT, BETTER, BASE = "images/s", "more", "step"
SIZES = {"mnist_cnn": (128, 100), "resnet20": (128, 10), "resnet50": (16, 3)}  # batch, steps


def arguments(parser):
    parser.add_argument("--model", nargs="+", default=["resnet50"])
    parser.add_argument("--batch", type=int, help="images in a batch; 256 on a GPU")
    parser.add_argument("--steps", type=int, help="batches in an epoch")
    parser.add_argument("--precision", default="auto", help="float32 or bfloat16")


def contenders(options):
    return ["step", "fit", "fit float32"]


def environment(name):
    return {"KERAS_BACKEND": "jax"}


def measure(name, options):
    from kzoo.builder import build
    from kzoo.catalog import spec
    from kzoo.data.dataset import Split
    from kzoo.data.feed import epoch_number, feed
    from kzoo.hardware import auto_precision
    from kzoo.tasks import find
    from kzoo.training.fitting import training_model

    model = options.model[0]
    row, task = spec(model), find(spec(model).task)
    batch, steps = SIZES.get(model, (32, 10))
    batch, steps = options.batch or batch, options.steps or steps
    precision = auto_precision()[0] if options.precision == "auto" else options.precision
    network = build(model, precision=precision, seed=0)
    trainer = training_model(network, task, recipe_of(model, batch), steps=steps, seed=0)
    x, y = images(model, batch * steps)

    def targets(labels):
        return task.targets(labels, range(row.num_classes))

    data = feed(
        Split(x, y, [""] * len(x), prepared=True),
        row.input_shape,
        row.preprocessing,
        batch,
        targets=targets,
        order=(0, epoch_number()),
    )
    if name == "step":
        epoch = _step_alone(trainer, data[0], steps)
    elif name == "fit":

        def epoch():
            trainer.fit(data, verbose=0, shuffle=False)
    else:
        arrays = x.astype("float32"), targets(y)

        def epoch():
            trainer.fit(*arrays, batch_size=batch, verbose=0)

    return {"value": batch * steps / median(timed(epoch, 0)), "precision": precision, "batch": batch}


def _step_alone(trainer, batch, steps):
    """A function that computes as many steps on one batch and waits for them."""
    import jax

    trainer.fit(iter_of(batch), steps_per_epoch=1, verbose=0, shuffle=False)  # makes the step
    groups = (
        trainer.trainable_variables,
        trainer.non_trainable_variables,
        trainer.optimizer.variables,
        trainer.metrics_variables,
    )
    state = [tuple([jax.numpy.array(v.value) for v in group] for group in groups)]  # the step overwrites what it gets

    def epoch():
        for _ in range(steps):
            logs, state[0] = trainer.train_function(state[0], iter([batch]))
        jax.block_until_ready(logs)

    return epoch


def iter_of(batch):
    """The batch, again and again."""
    while True:
        yield batch
