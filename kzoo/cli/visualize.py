"""kzoo visualize: look inside a network."""

import os
from pathlib import Path

import click

from kzoo.cli.options import as_json, load_keras, print_json, seconds


def names(ctx, param, value):
    """A click callback: "a,b" to ("a", "b")."""
    return None if value is None else tuple(v.strip() for v in value.split(",") if v.strip())


@click.command("visualize", epilog="Example: kzoo visualize vgg_cifar10 photo.jpg --budget 2m --out look")
@click.argument("model", metavar="RUN|NAME|FILE.keras")
@click.argument("photos", nargs=-1, metavar="[PHOTO ...]")
@click.option("--images", metavar="FOLDER", help="Pictures in which the patches that excite each unit most are found.")
@click.option("--methods", callback=names, metavar="A,B", help="Those alone, such as filters,maps,occlusion,dream.")
@click.option("--layer", metavar="NAME", help="For feature maps, class activation maps, patches.")
@click.option("--unit", type=click.IntRange(0), metavar="N", help="Of that layer, for patches and maximisation.")
@click.option("--class", "target", metavar="NAME", help="The class to explain; by default the most probable one.")
@click.option("--weights", help="For a name: a tag, a file or random; the first published set by default.")
@click.option(
    "--budget", callback=seconds, metavar="TIME", help="What takes longer is left out, and said; 1m by default."
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, help="Of noise and of random weights; 0.")
@click.option("--out", metavar="DIR", help="The folder to write; MODEL-look by default.")
@click.option("--force", is_flag=True, help="Replace a report with other settings.")
@as_json
@click.option("--quiet", is_flag=True, help="No progress.")
def command(*, model, photos, out, as_json, quiet, **options):
    """Look inside a network: filters, feature maps, and which pixels a class score depends on, in one report.

    Without a PHOTO it looks at images of the run, a drawing or a photograph. Finished parts are kept: the same command
    goes on where Ctrl-C or the budget stopped.
    """
    load_keras()
    from kzoo.visualizing.report import visualize

    name = Path(os.path.abspath(model)).name.removesuffix(".keras")
    report = visualize(model, photos, out=out or f"{name}-look", quiet=quiet, **options)
    if as_json:
        print_json({"path": str(report.path), **report.data})
    elif not quiet:
        click.echo(f"Wrote {report.path}.", err=True)
