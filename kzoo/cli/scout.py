"""kzoo scout: which pretrained network suits photos, before anybody trains."""

import click

from kzoo.cli.options import as_json, print_json


@click.command("scout", epilog="Example: kzoo scout photos --models mobilenet_v2,squeezenet1_1")
@click.argument("photos")
@click.option("--models", metavar="A,B", help="Of kzoo list; by default all with weights at hand.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@click.option("--precision", type=click.Choice(["auto", "float32", "bfloat16"]), help="auto by default.")
@click.option("--quiet", is_flag=True)
@as_json
def command(photos, models, seed, precision, quiet, as_json):
    """Rank networks by a linear classifier on their features of PHOTOS' training part, cross-validated.

    With 95 % confidence intervals and seconds. The features stay in the cache: kzoo finetune starts from there.
    """
    from kzoo.finetuning.scouting import scout

    found = scout(photos, models.split(",") if models else None, seed=seed, precision=precision, quiet=quiet)
    if as_json:
        print_json(found.to_dict())
    else:
        click.echo(str(found))
