"""kzoo export: write a trained classifier as a folder that proves itself."""

import click

from kzoo.cli.options import given, load_keras, option_of
from kzoo.exporting.options import FORMATS, PRECISIONS, ExportOptions

option = option_of(ExportOptions)


@click.command("export", epilog="Example: kzoo export runs/mnist --out saved_models/mnist")
@click.argument("model", metavar="RUN|MODEL")
@option("formats", flag="--format", metavar="NAMES", help=f"Of {', '.join(FORMATS)}, with commas.")
@click.option("--out", metavar="DIR", help="saved_models/NAME by default.")
@option("precision", type=click.Choice(PRECISIONS), help="Of the SavedModel; auto: what this machine is fast in.")
@option("abstain", type=float, metavar="LEVEL", help="Say when to abstain, at a level such as 0.99.")
@option("weights", help="For a model of the catalog: a tag or a file; the first published set by default.")
@option("classes", metavar="FILE", help="Names of the classes, a line each, for weights that bring none.")
@option("top", type=click.IntRange(1), help="How many labels an answer has.")
@option("measure", type=click.IntRange(0), help="Of how many images the accuracy of each format is measured; 0: none.")
@option("licence", help="Of the weights, for the card.")
@option("data_licence", help="Of the data, for the card.")
@click.option("--force", is_flag=True, help="Replace an export that is there.")
@click.option("--quiet", is_flag=True)
def command(model, out, force, quiet, **options):
    """Write RUN or MODEL as a SavedModel that takes encoded images, with labels, card and golden images.

    Each format runs the golden images in a fresh process; nothing is written if one computes anything else.
    """
    options = given(options)
    ExportOptions(**options)
    load_keras()
    from kzoo.exporting.write import export
    from kzoo.weights.classes import read_names

    if "classes" in options:
        options["classes"] = read_names(options["classes"])
    written = export(model, out=out, force=force, quiet=quiet, **options)
    if quiet:
        click.echo(str(written))
