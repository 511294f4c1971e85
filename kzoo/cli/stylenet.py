"""kzoo stylenet: paint in one pass with a network, kzoo's own or one trained here."""

import shlex
from pathlib import Path

import click

from kzoo.catalog import image_spec
from kzoo.cli.options import load_keras
from kzoo.cli.style import comma_separated
from kzoo.errors import DataError


def mixture(ctx, param, value):
    """A click callback: "strokes=0.7,ink=0.3" to {"strokes": 0.7, "ink": 0.3}."""
    if value is None:
        return None
    try:
        found = {}
        for item in value.split(","):
            name, equals, weight = item.rpartition("=")
            if not equals or name.strip() in found:
                raise ValueError
            found[name.strip()] = float(weight)
        return found
    except ValueError:
        raise click.BadParameter(f"expected weights such as strokes=0.7,ink=0.3; got '{value}'.") from None


style = click.option("--style", metavar="NAME", help="Which of several styles; a style has the name of its picture.")
blend = click.option("--blend", callback=mixture, metavar="A=X,B=Y", help="A mixture of styles, such as a=0.7,b=0.3.")


@click.group("stylenet", epilog="Example: kzoo stylenet apply strokes photo.jpg")
def command():
    """Paint in one pass (Johnson et al. 2016), with kzoo's own network or with one trained here.

    kzoo style takes minutes for a picture. A stylenet takes minutes to hours once, to learn one style or several, and
    then less than a second for each picture.
    """


@command.command(
    "train", epilog="Example: kzoo stylenet train painting.jpg drawing.jpg --images my-photos/ --size 128 --steps 4000"
)
@click.argument("styles", nargs=-1, required=True)
@click.option(
    "--images", required=True, metavar="FOLDER", help="Pictures to train on; any will do, the more the better."
)
@click.option("--out", metavar="NET", help="The folder to write; stylenets/STYLE-STYLE by default.")
@click.option("--size", type=click.IntRange(64), help="Side of the training pictures in pixels; 256 by default.")
@click.option(
    "--style-size", type=click.IntRange(64), help="Shorter side of the STYLES in pixels; three times --size by default."
)
@click.option("--steps", type=click.IntRange(1), help="2000 by default; the paper took 40,000.")
@click.option("--batch-size", type=click.IntRange(1), help="4 by default.")
@click.option("--width", type=click.IntRange(1), help="Filters of the first convolution; 32 by default, 16 is quicker.")
@click.option("--blocks", type=click.IntRange(0), help="Residual blocks; 5 by default.")
@click.option("--style-weight", type=float, metavar="X", help="5 by default: more is more style.")
@click.option("--content-weight", type=float, metavar="X", help="1 by default.")
@click.option("--tv-weight", type=float, metavar="X", help="Of the total variation; 1e-8 by default.")
@click.option("--range-weight", type=float, metavar="X", help="Of pixels outside 0..255; 1e-6 by default.")
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
def train_command(styles, **options):
    """Train a network to paint in the style of the picture STYLES, or in each of several.

    Ctrl-C keeps the training so far; the same command with --resume continues.
    """
    if options["model"]:
        image_spec(options["model"])  # before Keras is imported: a wrong name answers at once
    load_keras()
    from kzoo.style.stylenet import train_stylenet

    quiet = options["quiet"]
    folder = train_stylenet(styles, **{k: v for k, v in options.items() if v is not None})
    if not quiet:
        which = f" --style {shlex.quote(Path(styles[0]).stem)}" if len(styles) > 1 else ""
        click.echo(f"Wrote {folder}. Next: kzoo stylenet apply {shlex.quote(str(folder))} photo.jpg{which}", err=True)


@command.command("apply", epilog="Example: kzoo stylenet apply strokes photo.jpg holiday/ --out painted")
@click.argument("net")
@click.argument("images", nargs=-1, required=True)
@style
@blend
@click.option(
    "--preserve-color",
    type=click.Choice(["none", "luminance", "histogram"]),
    help="Keep the picture's colours; none by default.",
)
@click.option("--out", metavar="FOLDER", help="Where the PNGs go; NET-painted by default.")
@click.option("--size", type=click.IntRange(32), help="Longer side in pixels; that of the picture by default.")
@click.option(
    "--tile",
    type=click.IntRange(32),
    metavar="N",
    help="Compute in strips of N rows: the same result in a tenth of the memory. By itself beyond a megapixel.",
)
@click.option("--force", is_flag=True, help="Replace pictures that exist.")
@click.option("--quiet", is_flag=True)
def apply_command(net, images, **options):
    """Paint IMAGES (files, or folders of them) with NET.

    NET is a folder of kzoo stylenet train; or painter, the network that kzoo carries, or one of its styles: strokes,
    mosaic, ink. A folder of that name comes first.
    """
    load_keras()
    from kzoo.style.painter import apply_stylenet

    try:
        written = apply_stylenet(net, images, **{k: v for k, v in options.items() if v is not None})
    except DataError as e:  # some could not be painted
        for path in getattr(e, "results", ()):
            click.echo(path)
        raise
    for path in written:
        click.echo(path)


@command.command("export", epilog="Example: kzoo stylenet export stylenets/painting --out saved_models/painting")
@click.argument("net")
@style
@blend
@click.option("--out", required=True, metavar="FOLDER", help="The SavedModel to write.")
@click.option("--force", is_flag=True, help="Overwrite it.")
def export_command(net, out, **options):
    """Write NET as a SavedModel: images (B, H, W, 3) uint8 of any size in, painted ones out.

    --style or --blend fixes what its signature serving_default paints; the signature blend takes the weights of the
    styles, too. kzoo verify checks the folder.
    """
    load_keras()
    from kzoo.exporting.stylenet import export_stylenet

    click.echo(f"Wrote {export_stylenet(net, out, **options)}.", err=True)
