"""kzoo stylenet: train a network that paints one style in one pass, and paint with it."""

import shlex

import click

from kzoo.catalog import image_spec
from kzoo.cli.options import load_keras
from kzoo.cli.style import comma_separated
from kzoo.errors import DataError


@click.group(
    "stylenet", epilog="Example: kzoo stylenet train painting.jpg --images my-photos/ --out stylenets/painting"
)
def command():
    """Train a network that paints one style in one pass, and paint with it (Johnson et al. 2016).

    kzoo style takes minutes for a picture; this takes minutes to hours once, and then less than a second for each.
    """


@command.command(
    "train", epilog="Example: kzoo stylenet train painting.jpg --images my-photos/ --size 128 --steps 1000"
)
@click.argument("style")
@click.option(
    "--images", required=True, metavar="FOLDER", help="Pictures to train on; any will do, the more the better."
)
@click.option("--out", metavar="NET", help="The folder to write; stylenets/STYLE by default.")
@click.option("--size", type=click.IntRange(64), help="Side of the training pictures in pixels; 256 by default.")
@click.option("--style-size", type=click.IntRange(64), help="Shorter side of STYLE in pixels; twice --size by default.")
@click.option("--steps", type=click.IntRange(1), help="2000 by default; the paper took 40,000.")
@click.option("--batch-size", type=click.IntRange(1), help="4 by default.")
@click.option("--width", type=click.IntRange(1), help="Filters of the first convolution; 32 by default, 16 is quicker.")
@click.option("--blocks", type=click.IntRange(0), help="Residual blocks; 5 by default.")
@click.option("--style-weight", type=float, metavar="X", help="10 by default: more is more style.")
@click.option("--content-weight", type=float, metavar="X", help="1 by default.")
@click.option("--tv-weight", type=float, metavar="X", help="Of the total variation; 1e-8 by default.")
@click.option("--learning-rate", type=float, help="Adam's; 0.001 by default, falling to 0 along a cosine.")
@click.option(
    "--weights", metavar="TAG|FILE", help="Of the loss network: imagenet (default), a file, cifar10 or random."
)
@click.option("--model", help="The loss network; vgg19 by default.")
@click.option("--content-layers", callback=comma_separated(str), metavar="A,B", help="block4_conv2 by default.")
@click.option(
    "--style-layers", callback=comma_separated(str), metavar="A,B", help="block1_conv1 to block5_conv1 by default."
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="0 by default.")
@click.option("--precision", type=click.Choice(["auto", "float32", "bfloat16"]), help="auto by default.")
@click.option("--resume", is_flag=True, help="Continue with what is in --out: give the same command again.")
@click.option("--quiet", is_flag=True)
def train_command(style, **options):
    """Train a network to paint in the style of the picture STYLE.

    Ctrl-C keeps the training so far; the same command with --resume continues.
    """
    if options["model"]:
        image_spec(options["model"])  # before Keras is imported: a wrong name answers at once
    load_keras()
    from kzoo.style.stylenet import train_stylenet

    quiet = options["quiet"]
    folder = train_stylenet(style, **{k: v for k, v in options.items() if v is not None})
    if not quiet:
        click.echo(f"Wrote {folder}. Next: kzoo stylenet apply {shlex.quote(str(folder))} photo.jpg", err=True)


@command.command("apply", epilog="Example: kzoo stylenet apply stylenets/painting photo.jpg holiday/ --out painted")
@click.argument("net")
@click.argument("images", nargs=-1, required=True)
@click.option("--out", metavar="FOLDER", help="Where the PNGs go; NET-painted by default.")
@click.option("--size", type=click.IntRange(32), help="Longer side in pixels; that of the picture by default.")
@click.option("--force", is_flag=True, help="Replace pictures that exist.")
@click.option("--quiet", is_flag=True)
def apply_command(net, images, out, size, force, quiet):
    """Paint IMAGES (files, or folders of them) with the trained NET."""
    load_keras()
    from kzoo.style.stylenet import apply_stylenet

    try:
        written = apply_stylenet(net, images, out=out, size=size, force=force, quiet=quiet)
    except DataError as e:  # some could not be painted
        for path in getattr(e, "results", ()):
            click.echo(path)
        raise
    for path in written:
        click.echo(path)


@command.command("export", epilog="Example: kzoo stylenet export stylenets/painting --out saved_models/painting")
@click.argument("net")
@click.option("--out", required=True, metavar="FOLDER", help="The SavedModel to write.")
@click.option("--force", is_flag=True, help="Overwrite it.")
def export_command(net, out, force):
    """Write NET as a SavedModel: images (B, H, W, 3) uint8 of any size in, painted ones out."""
    load_keras()
    from kzoo.exporting.stylenet import export_stylenet

    click.echo(f"Wrote {export_stylenet(net, out, force=force)}.", err=True)
