"""kzoo train: train a model and leave a run folder."""

from inspect import signature

import click

from kzoo.catalog import spec
from kzoo.cli.options import input_shape, load_keras
from kzoo.errors import KzooError
from kzoo.training.recipes import RECIPES


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
@click.option(
    "--data", metavar="DATA", help="Folder, .csv, .npz, tfds:NAME, mnist, fashion_mnist, cifar10 or digits (default)."
)
@click.option("--recipe", type=click.Choice(list(RECIPES)), help="How to train; the model's own recipe by default.")
@click.option("--epochs", type=click.IntRange(1))
@click.option("--batch-size", type=click.IntRange(1))
@click.option("--learning-rate", type=float)
@click.option(
    "--patience", type=click.IntRange(1), help="Stop after so many epochs without a better validation accuracy."
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="0 by default.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    help="auto (default): what this machine is fast in.",
)
@click.option("--val-fraction", type=float, help="Share of the training images to validate on, if DATA has none (0.1).")
@click.option("--test-fraction", type=float, help="Share to test on, if DATA is undivided (0.2).")
@click.option(
    "--set",
    "config",
    multiple=True,
    callback=assignments,
    metavar="NAME=VALUE",
    help="An option of the model, such as dropout=0.5.",
)
@input_shape
@click.option("--strict", is_flag=True, help="Refuse unreadable images instead of leaving them out.")
@click.option("--out", metavar="RUN", help="The run folder; runs/MODEL-DATA by default.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--quiet", is_flag=True)
def command(model, config, **options):
    """Train MODEL and leave a run folder: settings, labels, splits, history, best model, checkpoint.

    Ctrl-C keeps the finished epochs; the same command with --resume goes on.
    """
    if model is None and not options["resume"]:
        raise click.UsageError("Missing argument 'MODEL': kzoo list shows all.")
    if model is not None:
        spec(model)  # before Keras is imported: a wrong name answers at once
    load_keras()
    from kzoo.training.loop import train

    for key in config.keys() & signature(train).parameters.keys():
        use = f": use --{key.replace('_', '-')}" if key in options else ""
        raise KzooError(f"--set is for options of the network, and {key} is none{use}.")
    run = train(model, **options, **config)
    if not options["quiet"]:
        click.echo(f"Wrote {run.path}. Next: kzoo evaluate {run.path}", err=True)
