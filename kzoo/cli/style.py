"""kzoo style: paint a picture in the style of another."""

from pathlib import Path

import click

from kzoo.catalog import image_spec
from kzoo.cli.options import as_json, load_keras, print_json, seconds
from kzoo.errors import DataError, KzooError


def comma_separated(kind):
    """A click callback: "a,b" to (kind("a"), kind("b"))."""

    def split(ctx, param, value):
        if value is None:
            return None
        try:
            found = tuple(kind(v.strip()) for v in value.split(",") if v.strip())
        except ValueError:
            raise click.BadParameter(f"expected numbers with commas between, such as 1,0.5; got '{value}'.") from None
        if not found:
            raise click.BadParameter(f"expected values with commas between; got '{value}'.")
        return found

    return split


def one_or_more_counts(ctx, param, value):
    """A click callback: "300" to 300, "100,100,50" to (100, 100, 50)."""
    numbers = comma_separated(int)(ctx, param, value)
    return numbers[0] if numbers and len(numbers) == 1 else numbers


@click.command("style", epilog="Example: kzoo style photo.jpg painting.jpg --out painted.png --budget 2m")
@click.argument("content", required=False)
@click.argument("styles", nargs=-1)
@click.option(
    "--out", metavar="FILE", help="A .png or .jpg; CONTENT-STYLE.png by default. For a folder of contents, a folder."
)
@click.option("--size", type=click.IntRange(1), help="Longer side of the result in pixels; 512 by default.")
@click.option(
    "--style-scale", type=float, metavar="X", help="Size of the styles relative to the result's; 1 by default."
)
@click.option(
    "--evaluations",
    callback=one_or_more_counts,
    metavar="N",
    help="How often the loss is computed, over all sizes; 300 by default. Or N,N,.. for each size.",
)
@click.option(
    "--budget",
    callback=seconds,
    metavar="TIME",
    help="The time to take, such as 2m, in place of a number of evaluations.",
)
@click.option(
    "--weights",
    metavar="TAG|FILE",
    help="auto (default): imagenet, or cifar10 where it can't be downloaded; a file (the first layers are enough); "
    "cifar10: kzoo's own small network; random: colours and strokes, no objects.",
)
@click.option("--model", help="Any of kzoo list; vgg19 by default.")
@click.option(
    "--content-layers",
    callback=comma_separated(str),
    metavar="A,B",
    help="block4_conv2 by default; with kzoo's own weights block2_conv2,block4_conv2.",
)
@click.option(
    "--style-layers", callback=comma_separated(str), metavar="A,B", help="block1_conv1 to block5_conv1 by default."
)
@click.option(
    "--layer-weights",
    callback=comma_separated(float),
    metavar="W,W",
    help="One for each style layer; equal by default.",
)
@click.option(
    "--style-weights", callback=comma_separated(float), metavar="W,W", help="One for each style; equal by default."
)
@click.option("--content-weight", type=float, metavar="X", help="alpha; 1 by default.")
@click.option("--style-weight", type=float, metavar="X", help="beta; 100 by default: more is more style.")
@click.option(
    "--tv-weight", type=float, metavar="X", help="Of the total variation; 0 by default, 1e-7 smooths a little."
)
@click.option("--range-weight", type=float, metavar="X", help="Keeps pixels within 0..255; 1e-6 by default.")
@click.option(
    "--balance",
    type=click.Choice(["relative", "gradient", "paper"]),
    help="How weights are scaled: relative to each term; also to equal gradients of the style layers; as published.",
)
@click.option("--optimizer", type=click.Choice(["lbfgs", "adam"]), help="lbfgs by default.")
@click.option("--learning-rate", type=float, metavar="X", help="Adam's, in grey levels; 5 by default.")
@click.option("--init", metavar="WHAT", help="content (default), noise, or a picture to start from.")
@click.option(
    "--start-noise",
    type=float,
    metavar="X",
    help="Noise on the content that is begun with, in grey levels; 4 by default. Without any flat skies get a hatch.",
)
@click.option("--coarsest", type=click.IntRange(0), help="Size to begin with, 128 by default; 0: no smaller sizes.")
@click.option("--pooling", type=click.Choice(["average", "max"]), help="average by default.")
@click.option("--padding", type=click.Choice(["replicate", "zeros"]), help="replicate by default.")
@click.option(
    "--margin",
    type=click.IntRange(0),
    metavar="N",
    help="Pixels around the picture that are painted and cut off, so that no frame grows; 16 by default.",
)
@click.option(
    "--preserve-color",
    type=click.Choice(["none", "luminance", "histogram"]),
    help="Keep the content's colours; none by default.",
)
@click.option(
    "--mask",
    "masks",
    type=(str, str),
    multiple=True,
    metavar="CONTENT STYLE",
    help="Black and white pictures: this region of the content takes its texture from that of the style (- "
    "for all of it). Repeat it for each region; with several styles, one for each.",
)
@click.option(
    "--average", is_flag=True, default=None, help="The result is the average of the last iterates, which is smoother."
)
@click.option(
    "--tile", type=click.IntRange(1), metavar="N", help="Compute in tiles of N pixels: the same result in less memory."
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    help="auto (default): what this machine is fast in.",
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="Of the noise and of random weights; 0 by default.")
@click.option(
    "--like",
    metavar="PNG",
    help="The settings of a picture that kzoo style made, and its pictures unless others are given.",
)
@click.option(
    "--save-every", type=click.IntRange(1), metavar="N", help="Write the picture and a state every N evaluations."
)
@click.option("--resume", is_flag=True, help="Continue where Ctrl-C or a kill stopped the same command.")
@click.option("--force", is_flag=True, help="Replace a picture that exists, and a state to resume from.")
@click.option("--from-last", is_flag=True, help="For frames: begin each picture of a folder with the result before it.")
@click.option(
    "--report/--no-report",
    default=None,
    help="Write OUT-compare.png and OUT-loss.png as well; by default for one picture, not for a folder.",
)
@click.option("--quiet", is_flag=True)
@as_json
def command(
    content, styles, *, out, like, budget, save_every, resume, force, from_last, report, quiet, as_json, **options
):
    """Paint CONTENT in the style of STYLE, or of several (Gatys, Ecker and Bethge 2016).

    CONTENT may be a folder: each of its pictures is painted, in the order of their numbers. Ctrl-C keeps the picture
    and a state; the same command with --resume continues.
    """
    if not like and not styles:
        raise click.UsageError("Give a CONTENT and at least one STYLE picture.")
    if options["model"]:
        image_spec(options["model"])  # before Keras is imported: a wrong name answers at once
    if budget and options["evaluations"] is not None:
        raise click.UsageError("Give --evaluations or --budget, which stands in place of them, not both.")
    load_keras()
    from kzoo.style import Settings
    from kzoo.style.folder import stylize_folder
    from kzoo.style.network import model_of
    from kzoo.style.transfer import stylize
    from kzoo.synthesis.pictures import read_record

    given = {k: v for k, v in options.items() if v is not None and v != ()}
    settings = Settings()
    if like:
        found = read_record(like)
        settings = Settings.recorded(found["settings"], given)
        if "weights" in given and model_of(Settings.model, settings.weights) == settings.model:
            given.setdefault("model", Settings.model)  # the model that it names came with its weights
        if budget:
            given.setdefault("evaluations", Settings.evaluations)
        if given.keys() & {"size", "coarsest"} and isinstance(settings.evaluations, tuple):
            given.setdefault("evaluations", sum(settings.evaluations))  # made for other sizes
        content, theirs = content or found.get("content"), found.get("styles") or ()
        styles = styles or (tuple(theirs) if isinstance(theirs, list) else ())
        if not all(isinstance(p, (str, type(None))) for p in (content, *styles)):
            raise KzooError(f"{like} names no pictures: give a CONTENT and at least one STYLE picture.")
    if not content or not styles or None in styles:
        raise click.UsageError("Give a CONTENT and at least one STYLE picture.")
    shared = dict(settings=settings, budget=budget, save_every=save_every, resume=resume, force=force, quiet=quiet)
    name = f"{Path(content).stem}-{Path(styles[0]).stem}"
    if like and not Path(content).is_dir() and Path(out or f"{name}.png").resolve() == Path(like).resolve():
        raise KzooError(f"{like} has the settings, and would be overwritten: give --out.")
    failed = None
    if Path(content).is_dir():
        try:
            results = stylize_folder(
                content, styles, out or name, from_last=from_last, report=bool(report), **shared, **given
            )
        except DataError as e:  # some could not be painted; the others are listed all the same
            failed, results = e, getattr(e, "results", [])
    elif from_last:
        raise KzooError(f"--from-last is for a folder of frames; {content} is not a folder.")
    else:
        results = [stylize(content, styles, out=out or f"{name}.png", report=report, **shared, **given)]
    if as_json:
        print_json([{"path": str(r.path), **r.record} for r in results])
    elif not quiet:
        for r in results:
            click.echo(f"Wrote {r.path}.", err=True)
    if failed:
        raise failed
