"""kzoo finetune: from a folder of photos to a classifier."""

import click

from kzoo.catalog import spec
from kzoo.checks import MAX_SEED, PRECISIONS
from kzoo.cli.options import given, option_of, seconds, shape
from kzoo.finetuning.options import AUGMENTATIONS, MIXTURES, FinetuneOptions

option = option_of(FinetuneOptions)


def weights_by_class(ctx, param, value):
    """A click callback: "balanced", or "ants=1,bees=2" to a dict."""
    if value is None or value == "balanced":
        return value
    try:
        pairs = [item.rpartition("=") for item in value.split(",")]
        return {name: float(weight) for name, _, weight in pairs}
    except ValueError:
        raise click.BadParameter(f"expected balanced, or weights such as ants=1,bees=2.5; got '{value}'.") from None


@click.command("finetune", epilog="Example: kzoo finetune photos --model mobilenet_v2 --out runs/photos")
@click.argument("photos", required=False)
@click.option("--model", metavar="NAME", help="Of kzoo list; the one with the best weights found locally by default.")
@click.option("--weights", metavar="TAG|PATH", help="Such as imagenet; the best found locally by default.")
@option("unfreeze", metavar="none|auto|STAGE|all", help="How deep to train; auto: while it helps.")
@option("epochs", type=click.IntRange(1), help="Of each stage.")
@option("budget", callback=seconds, metavar="TIME", help="For all of it, such as 90s, 5m, 1h.")
@option("augment", type=click.Choice(AUGMENTATIONS), help="For deeper layers.")
@option("mix", type=click.Choice(MIXTURES), help="Mix pictures while deeper layers train.")
@option("views", type=click.IntRange(0), help="Augmented views of each photo for the head.")
@option("shots", type=click.IntRange(1), metavar="K", help="Use K photos of each class, drawn by the seed.")
@option("class_weights", callback=weights_by_class, metavar="balanced|a=1,b=2", help="Weights in the loss.")
@option("label_smoothing", type=float, help="Of the loss, in [0, 1).")
@option("focal", type=float, metavar="GAMMA", help="The focal loss's exponent; 0 is cross-entropy.")
@option("seed", type=click.IntRange(0, MAX_SEED), help="Of everything that is drawn.")
@option("precision", type=click.Choice(PRECISIONS), help="auto: what this machine is fast in.")
@option("input_shape", callback=shape, metavar="HxWxC", help="Such as 160x160x3; as published by default.")
@option("strict", help="Refuse unusable photos instead of leaving them out.")
@click.option("--out", metavar="RUN", help="The run folder; runs/MODEL-PHOTOS by default.")
@click.option("--resume", is_flag=True, help="Continue the run in --out.")
@click.option("--quiet", is_flag=True)
def command(photos, model, weights, out, resume, quiet, **options):
    """Make a classifier from PHOTOS and a pretrained network, and leave a run folder with a report.

    PHOTOS is a folder of class folders, one with train/, val/ and perhaps test/, a CSV (path,label[,split]), or
    tfds:NAME. A part that you set apart is never trained on: test measures; val validates if there is a test part, and
    measures if there is none.
    """
    if photos is None and not resume:
        raise click.UsageError("Missing argument 'PHOTOS'.")
    if model is not None:
        spec(model)  # a wrong name answers at once
    FinetuneOptions(**given(options))
    from kzoo.finetuning.pipeline import finetune_run

    folder = finetune_run(photos, model, given(options), weights=weights, out=out, resume=resume, quiet=quiet)
    if not quiet:
        click.echo(f"Wrote {folder}, and {folder}/report.html. Next: kzoo predict {folder} photo.jpg", err=True)
