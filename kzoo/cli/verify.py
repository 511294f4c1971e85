"""kzoo verify: whether an export still computes what it did when it was made."""

import sys

import click

from kzoo.cli.options import as_json, load_keras, print_json


@click.command("verify", epilog="Example: kzoo verify saved_models/mnist")
@click.argument("folder", metavar="DIR")
@as_json
def command(folder, as_json):
    """Run the golden images of the export DIR through each of its formats and compare; check files and preprocessing.

    The exit code is 1 if anything differs.
    """
    from kzoo.exporting.reader import read_card

    read_card(folder)  # before TensorFlow is imported: what is no export is told at once
    load_keras()
    from kzoo.exporting.check import verify

    report = verify(folder, raises=False)
    if as_json:
        print_json(report)
    else:
        for check in report["checks"]:
            mark = {True: "ok", False: "FAILED", None: "-"}[check["ok"]]
            click.echo(f"{mark:6}  {check['check']}: {check['detail']}")
    if not report["ok"]:
        click.echo(f"Error: {folder} does not compute what it did when it was made.", err=True)
        sys.exit(1)
