"""kzoo train: train a model and leave a run folder."""

from inspect import signature

import click

from kzoo.catalog import spec
from kzoo.checks import MAX_SEED, PRECISIONS
from kzoo.cli.options import given, load_keras, option_of, shape
from kzoo.data.sources import SOURCES
from kzoo.errors import KzooError
from kzoo.training.options import TrainOptions
from kzoo.training.recipes import RECIPES

option = option_of(TrainOptions)


def assignments(ctx, param, values):
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
@click.option("--data", metavar="DATA", help=f"{'; '.join(SOURCES.values())} [default: digits]")
@option("recipe", type=click.Choice(list(RECIPES)), help="How to train; the model's own recipe by default.")
@option("epochs", type=click.IntRange(1), help="In place of the recipe's.")
@option("batch_size", type=click.IntRange(1), help="In place of the recipe's.")
@option("learning_rate", type=float, help="In place of the recipe's.")
@option("patience", type=click.IntRange(1), help="Stop after so many epochs without a better validation accuracy.")
@option("seed", type=click.IntRange(0, MAX_SEED), help="Of weights, order, augmentation and dropout.")
@option("precision", type=click.Choice(PRECISIONS), help="auto: what this machine is fast in.")
@option("val_fraction", type=float, help="Share of the training images to validate on, if DATA has no such part.")
@option("test_fraction", type=float, help="Share to test on, if DATA is undivided.")
@click.option(
    "--set",
    "config",
    multiple=True,
    callback=assignments,
    metavar="NAME=VALUE",
    help="An option of the model, such as dropout=0.5.",
)
@option("input_shape", callback=shape, metavar="HxWxC", help="Such as 160x160x3; as published by default.")
@option("strict", help="Refuse unreadable images instead of leaving them out.")
@click.option("--out", metavar="RUN", help="The run folder; runs/MODEL-DATA by default.")
@click.option("--resume", is_flag=True, help="Continue the run in --out.")
@click.option("--quiet", is_flag=True)
def command(model, data, config, out, resume, quiet, **options):
    """Train MODEL and leave a run folder: settings, labels, splits, history, best model, checkpoint.

    Ctrl-C keeps the finished epochs; the same command with --resume continues.
    """
    if model is None and not resume:
        raise click.UsageError("Missing argument 'MODEL': kzoo list shows all.")
    if model is not None:
        spec(model)  # before Keras is imported: a wrong name answers at once
    TrainOptions(**given(options))
    load_keras()
    from kzoo.training.loop import train, train_run

    for key in config.keys() & signature(train).parameters.keys():
        use = f": use --{key.replace('_', '-')}" if key in (*options, "data", "out", "resume", "quiet") else ""
        raise KzooError(f"--set is for options of the network, and {key} is none{use}.")
    run = train_run(model, data, given(options), config, out=out, resume=resume, quiet=quiet)
    if not quiet:
        click.echo(f"Wrote {run.path}. Next: kzoo evaluate {run.path}", err=True)
