"""kzoo scout: rank pretrained networks for photos, before training."""

import click

from kzoo.cli.options import as_json, print_json


@click.command("scout", epilog="Example: kzoo scout photos --models mobilenet_v2,squeezenet1_1")
@click.argument("photos")
@click.option("--models", metavar="A,B", help="Networks of kzoo list; by default all whose weights are found locally.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    show_default=True,
    help="Of all random choices: kzoo finetune's, so that both hold out the same test part.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    help="auto by default: the fastest on this machine.",
)
@click.option("--quiet", is_flag=True, help="No progress.")
@as_json
def command(photos, models, seed, precision, quiet, as_json):
    """Rank networks by the cross-validated accuracy of a linear classifier on features of PHOTOS' training part.

    Parts of your own are left out, and from an undivided folder the photos that kzoo finetune with the same seed
    measures on. Accuracies have 95 % confidence intervals. The features are kept in the cache, where kzoo finetune
    reuses them.
    """
    from kzoo.finetuning.scouting import scout

    found = scout(photos, models.split(",") if models else None, seed=seed, precision=precision, quiet=quiet)
    if as_json:
        print_json(found.to_dict())
    else:
        click.echo(str(found))
