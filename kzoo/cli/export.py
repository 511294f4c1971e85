"""kzoo export: write a trained classifier as a folder, with a card and checks."""

import click

from kzoo.cli.options import given, load_keras, option_of
from kzoo.exporting.options import FORMATS, PRECISIONS, ExportOptions

option = option_of(ExportOptions)


@click.command("export", epilog="Example: kzoo export runs/mnist --out saved_models/mnist")
@click.argument("models", metavar="RUN|MODEL...", nargs=-1, required=True)
@option(
    "formats",
    flag="--format",
    metavar="NAMES",
    help=f"The formats to write, of {', '.join(FORMATS)}, separated by commas.",
)
@click.option("--out", metavar="DIR", help="The folder to write; saved_models/NAME by default.")
@option("precision", type=click.Choice(PRECISIONS), help="Of the SavedModel; auto: the fastest on this machine.")
@option(
    "abstain",
    type=float,
    metavar="LEVEL",
    help="Report when to abstain, by conformal prediction at a level such as 0.99.",
)
@option("weights", help="For a model of the catalog: a tag or a file; the first published set by default.")
@option("classes", metavar="FILE", help="Class names, one on each line, for weights without class names.")
@option(
    "pixels",
    metavar="RANGE",
    help="What a Keras model of a file takes, if it does not say: 0..255, 0..1, -1..1, imagenet or caffe.",
)
@option("top", type=click.IntRange(1), help="The number of labels in an answer.")
@option(
    "measure",
    type=click.IntRange(0),
    help="The number of images on which the accuracy of each format is measured; 0: none.",
)
@option("licence", help="Licence of the weights, for the card.")
@option("data_licence", help="Licence of the data, for the card.")
@click.option("--force", is_flag=True, help="Replace an existing export.")
@click.option("--quiet", is_flag=True, help="No progress.")
def command(models, out, force, quiet, **options):
    """Write RUN or MODEL as a SavedModel that takes encoded images, with labels, card and golden images.

    Several become one: an ensemble, which averages their probabilities.

    Each format runs the golden images in a new process. One whose results differ from the model's is left out and
    named; the exit code is then 1.
    """
    options = given(options)
    ExportOptions(**options)
    load_keras()
    from kzoo.exporting.write import export
    from kzoo.weights.classes import read_names

    if "classes" in options:
        options["classes"] = read_names(options["classes"])
    written = export(models[0] if len(models) == 1 else models, out=out, force=force, quiet=quiet, **options)
    if quiet:
        click.echo(str(written))
