"""kzoo verify: check that an export still gives the results it gave when it was written."""

import sys

import click

from kzoo.cli.options import as_json, in_columns, load_keras, print_json, trust
from kzoo.errors import printable


@click.command("verify", epilog="Example: kzoo verify saved_models/mnist")
@click.argument("folder", metavar="DIR")
@trust
@as_json
def command(folder, trust, as_json):
    """Check files, preprocessing and every format of the export DIR on its golden images.

    Of an export of kzoo stylenet: its files, and what it paints.

    The exit code is 1 if anything differs from when it was written.
    """
    from kzoo.exporting.reader import is_stylenet, read_card

    if not is_stylenet(folder):
        read_card(folder)  # before TensorFlow is imported: a folder that is not an export is refused at once
    load_keras()
    from kzoo.exporting.check import verify

    report = verify(folder, raises=False, trust=trust)
    if as_json:
        print_json(report)
    else:
        for check in report["checks"]:
            mark = {True: "ok", False: "FAILED", None: "-"}[check["ok"]]
            click.echo(in_columns(f"{mark:6}  ", printable(f"{check['check']}: {check['detail']}")))
    if not report["ok"]:
        click.echo(f"Error: {printable(folder)} does not give the results it gave when it was written.", err=True)
        sys.exit(1)
