"""kzoo train: train a model, and write a run folder."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from inspect import signature
from typing import Any

import click

from kzoo.catalog import image_spec
from kzoo.catalog.pretrained import PIXELS
from kzoo.checks import MAX_SEED, PRECISIONS
from kzoo.cli.options import given, load_keras, on_devices, option_of, shape, weights_by_class
from kzoo.data.sources import accepted
from kzoo.errors import KzooError
from kzoo.files import is_model_file
from kzoo.training.options import TrainOptions
from kzoo.training.recipes import RECIPES

option = option_of(TrainOptions)


def assignments(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, Any]:
    """A click callback: ("dropout=0.5", "filters=8,16") to {"dropout": 0.5, "filters": (8, 16)}."""
    found = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise click.BadParameter(f"expected NAME=VALUE, such as dropout=0.5; got '{text}'.")
        items = tuple(_number(v) for v in value.split(",") if v)
        found[key] = items if "," in value else _number(value)
    return found


def _number(text):
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)


@click.command("train", epilog="Example: kzoo train mnist_cnn --data mnist --out runs/mnist")
@click.argument("model", required=False)
@click.option("--data", metavar="DATA", help=f"{accepted()} [default: digits]")
@option("recipe", type=click.Choice(list(RECIPES)), help="How to train; the recipe of the model by default.")
@option(
    "epochs",
    type=click.IntRange(1),
    help="Number of epochs; that of the recipe by default. With --resume, more of them.",
)
@option("batch_size", type=click.IntRange(1), help="Images in a batch; as in the recipe by default.")
@option(
    "gradient_accumulation_steps",
    type=click.IntRange(1),
    help="Batches whose gradients are averaged for one step of the optimizer; 1 by default.",
)
@option("learning_rate", type=float, help="Learning rate; that of the recipe by default.")
@option(
    "loss",
    metavar="LOSS",
    help="cross_entropy (the default for classes), hinge or mse; for several labels an image binary_cross_entropy (the "
    "default) or focal; for masks focal, dice, jaccard or cross_entropy+dice, too; that of the recipe by default.",
)
@option(
    "class_weights",
    callback=weights_by_class,
    metavar="balanced|a=1,b=2",
    help="Weights of the classes in the loss, of masks of their pixels; 1 for those that are not named.",
)
@option("weights", metavar="TAG|FILE", help="Pretrained weights to start from; random ones by default.")
@option("pixels", type=click.Choice(list(PIXELS)), help="What a Keras model takes that does not scale pixels itself.")
@option("patience", type=click.IntRange(1), help="Early stopping: epochs to wait for a better validation accuracy.")
@option("seed", type=click.IntRange(0, MAX_SEED), help="Of initial weights, order of images, augmentation and dropout.")
@option("precision", type=click.Choice(PRECISIONS), help="auto: the fastest on this machine.")
@option("val_fraction", type=float, help="Share of the training images for validation, if DATA has no validation part.")
@option("test_fraction", type=float, help="Share of the images for testing, if DATA is not split into parts.")
@click.option(
    "--set",
    "config",
    multiple=True,
    callback=assignments,
    metavar="NAME=VALUE",
    help="An option of the model, such as dropout=0.5; may be repeated.",
)
@option(
    "input_shape",
    callback=shape,
    metavar="HxWxC",
    help="Size of the input, such as 160x160x3; as published by default.",
)
@option("bits", type=click.IntRange(8, 16), help="Of 16-bit images, how many bits are used, such as 12.")
@option("strict", help="Stop at unreadable images instead of leaving them out.")
@click.option("--out", metavar="RUN", help="The run folder; runs/MODEL-DATA by default.")
@click.option("--resume", is_flag=True, help="Continue the run in --out.")
@click.option("--quiet", is_flag=True, help="No progress.")
@on_devices
def command(model, data, config, out, resume, quiet, together, **options):
    """Train MODEL, and write a run folder: settings, labels, splits, history, best model, checkpoint.

    MODEL is a name of kzoo list, or a file of a Keras model of your own: .keras, .h5.

    Ctrl-C keeps the finished epochs; the same command with --resume continues.
    """
    if model is None and not resume:
        raise click.UsageError("Missing argument 'MODEL': kzoo list shows all.")
    if model is not None and not is_model_file(model):
        image_spec(model)  # before Keras is imported: a wrong name is refused at once
    TrainOptions(**given(options))
    together.join()
    load_keras()
    from kzoo.training.loop import train, train_run

    for key in config.keys() & signature(train).parameters.keys():
        use = (
            f": use --{key.replace('_', '-')}" if key in (*options, "data", "out", "resume", "quiet", "devices") else ""
        )
        raise KzooError(f"--set is for options of the network, and {key} is not one of them{use}.")
    run = train_run(model, data, given(options), config, out=out, resume=resume, quiet=quiet, together=together)
    if not quiet and together.first:
        click.echo(f"Wrote {run.path}. Next: kzoo evaluate {shlex.quote(str(run.path))}", err=True)
