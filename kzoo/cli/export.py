"""kzoo export: write a trained classifier as a folder that proves itself."""

import click

from kzoo.cli.options import load_keras


def names(ctx, param, value):
    """A click callback: "saved_model,onnx" to ("saved_model", "onnx")."""
    return tuple(n.strip() for n in value.split(",") if n.strip())


@click.command("export", epilog="Example: kzoo export runs/mnist --out saved_models/mnist")
@click.argument("model", metavar="RUN|MODEL")
@click.option(
    "--format",
    "formats",
    default="saved_model",
    show_default=True,
    callback=names,
    metavar="NAMES",
    help="Of saved_model, keras, onnx, litert, with commas.",
)
@click.option("--out", metavar="DIR", help="saved_models/NAME by default.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16", "auto"]),
    default="float32",
    show_default=True,
    help="Of the SavedModel; auto: what this machine is fast in.",
)
@click.option("--abstain", type=float, metavar="LEVEL", help="Say when to abstain, at a level such as 0.99.")
@click.option("--weights", help="For a model of the catalog: a tag or a file; the first published set by default.")
@click.option("--classes", metavar="FILE", help="Names of the classes, a line each, for weights that bring none.")
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="How many labels an answer has.")
@click.option(
    "--measure",
    type=click.IntRange(0),
    default=2000,
    show_default=True,
    help="Of how many images the accuracy of each format is measured; 0 for none.",
)
@click.option("--licence", help="Of the weights, for the card.")
@click.option("--data-licence", help="Of the data, for the card.")
@click.option("--force", is_flag=True, help="Replace an export that is there.")
@click.option("--quiet", is_flag=True)
def command(model, formats, classes, quiet, **options):
    """Write RUN or MODEL as a SavedModel that takes encoded images, with labels, card and golden images.

    Each format runs the golden images in a fresh process; nothing is written if one computes anything else.
    """
    load_keras()
    from kzoo.exporting.write import export
    from kzoo.weights.classes import read_names

    names = read_names(classes) if classes else None
    out = export(model, formats, classes=names, quiet=quiet, **options)
    if quiet:
        click.echo(str(out))
