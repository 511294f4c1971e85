"""kzoo predict: what a trained model sees in images."""

import click

from kzoo.cli.options import as_json, load_keras, print_json
from kzoo.errors import DataError


@click.command("predict", epilog="Example: kzoo predict runs/mnist photo.jpg")
@click.argument("run")
@click.argument("images", nargs=-1, required=True)
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="How many classes to show.")
@as_json
def command(run, images, top, as_json):
    """Classify IMAGES (files or folders) with RUN's best model.

    Unreadable images are named, the others classified; the exit code is 1 if there was any.
    """
    load_keras()
    from kzoo.data.images import shown
    from kzoo.training import predict

    results = []
    for r in predict(run, images, top=top):
        results.append(r)
        if as_json:
            continue
        name = shown(r["image"])
        if "error" in r:
            click.echo(f"{name}: {r['error']}", err=True)
        else:
            click.echo(f"{name}: " + ", ".join(f"{shown(t['class'])} {t['probability']:.1%}" for t in r["top"]))
    if as_json:
        print_json(results)
    bad = sum("error" in r for r in results)
    if bad:
        raise DataError(f"{bad} of {len(results)} images could not be read.")
