"""kzoo finetune: from a folder of photos to a classifier."""

import click

from kzoo.catalog import spec
from kzoo.cli.options import input_shape, seconds


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
@click.option("--model", metavar="NAME", help="Of kzoo list; the best with weights at hand by default.")
@click.option("--weights", metavar="TAG|PATH", help="Such as imagenet; the best at hand without a download by default.")
@click.option("--out", metavar="RUN", help="The run folder; runs/MODEL-PHOTOS by default.")
@click.option("--unfreeze", metavar="none|auto|STAGE|all", help="How deep to train; auto (default): while it helps.")
@click.option("--epochs", type=click.IntRange(1), help="Of each stage (6).")
@click.option("--budget", callback=seconds, metavar="TIME", help="For all of it, such as 90s, 5m, 1h.")
@click.option("--augment", type=click.Choice(["none", "light", "strong"]), help="For deeper layers (light).")
@click.option("--mix", type=click.Choice(["mixup", "cutmix"]), help="Mix pictures while deeper layers train.")
@click.option("--views", type=click.IntRange(0), help="Augmented views of each photo for the head (0).")
@click.option("--shots", type=click.IntRange(1), metavar="K", help="Use K photos of each class, drawn by the seed.")
@click.option("--class-weights", callback=weights_by_class, metavar="balanced|a=1,b=2", help="Weights in the loss.")
@click.option("--label-smoothing", type=float, help="0 by default.")
@click.option("--focal", type=float, metavar="GAMMA", help="The focal loss's exponent; 0 is cross-entropy.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="0 by default.")
@click.option("--precision", type=click.Choice(["auto", "float32", "bfloat16"]), help="auto by default.")
@input_shape
@click.option("--strict", is_flag=True, help="Refuse unusable photos instead of leaving them out.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--quiet", is_flag=True)
def command(photos, model, **options):
    """Make a classifier from PHOTOS and a pretrained network, and leave a run folder with a report.

    PHOTOS is a folder of class folders, one with train/, val/ and perhaps test/, a CSV (path,label[,split]), or
    tfds:NAME. A part that you set apart is never trained on: test measures; val chooses if there is a test part, and
    measures if there is none.
    """
    if photos is None and not options["resume"]:
        raise click.UsageError("Missing argument 'PHOTOS'.")
    if model is not None:
        spec(model)  # a wrong name answers at once
    from kzoo.finetuning.finetuning import finetune_folder

    folder = finetune_folder(photos, model, **options)
    if not options["quiet"]:
        click.echo(f"Wrote {folder}, and {folder}/report.html. Next: kzoo predict {folder} photo.jpg", err=True)
