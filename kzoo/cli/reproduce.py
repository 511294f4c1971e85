"""kzoo reproduce: train shipped weights again and compare."""

import sys

import click

from kzoo.catalog import shipped
from kzoo.cli.options import as_json, load_keras, print_json


@click.command("reproduce", epilog="Example: kzoo reproduce lenet5")
@click.argument("name", required=False)
@click.option("--out", metavar="RUN", help="The run folder; runs/NAME-again by default.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--quiet", is_flag=True)
@as_json
def command(name, out, resume, quiet, as_json):
    """Train the weights that kzoo ships under NAME again, as their card says, and compare. Without NAME: list them.

    Exit code 1: an accuracy is not within three standard errors of the card's.
    """
    if name is None and as_json:
        print_json(shipped.cards())
        return
    if name is None:
        for card in shipped.cards().values():
            click.echo(
                f"{card['name']:14}{card['data']:10}{card['test_top1']:8.2%}  {card['epochs']:3} epochs, "
                f"{card['seconds'] / 60:.0f} min on {card['hardware']}"
            )
        return
    shipped.card(name)  # before Keras is imported: a wrong name answers at once
    load_keras()
    from kzoo.reproducing.comparison import reproduce

    result = reproduce(name, out=out, resume=resume, quiet=quiet)
    print_json(result.to_dict()) if as_json else click.echo(str(result))
    if not result.agrees:
        sys.exit(1)
