"""kzoo reproduce: train shipped weights again, and compare the accuracy."""

import sys

import click

from kzoo.catalog import shipped
from kzoo.cli.options import as_json, load_keras, print_json


@click.command("reproduce", epilog="Example: kzoo reproduce lenet5")
@click.argument("name", required=False)
@click.option("--out", metavar="RUN", help="The run folder; runs/NAME-again by default.")
@click.option("--resume", is_flag=True, help="Continue the run in --out.")
@click.option("--quiet", is_flag=True, help="No progress.")
@as_json
def command(name, out, resume, quiet, as_json):
    """Train the shipped weights NAME again, as their card describes, and compare. Without NAME: list all of them.

    The exit code is 1 if an accuracy differs from that of the card by more than three standard errors.
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
    shipped.card(name)  # before Keras is imported: a wrong name is refused at once
    load_keras()
    from kzoo.reproducing.comparison import reproduce

    result = reproduce(name, out=out, resume=resume, quiet=quiet)
    print_json(result.to_dict()) if as_json else click.echo(str(result))
    if not result.agrees:
        sys.exit(1)
