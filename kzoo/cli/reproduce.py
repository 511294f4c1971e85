"""kzoo reproduce: train shipped weights again, and compare; or train for a figure, and draw it."""

import logging
import sys

import click

from kzoo.catalog import shipped
from kzoo.cli.options import as_json, load_keras, print_json

FIGURES = ("relu-tanh", "losses", "shift")  # those of kzoo.reproducing.figures, for --help without NumPy


@click.command("reproduce", epilog="Example: kzoo reproduce lenet5")
@click.argument("name", required=False)
@click.option("--figure", type=click.Choice(FIGURES), help="Draw this figure; NAME is left out.")
@click.option("--data", help="For a figure: the data set; cifar10 or mnist by default. For painter: its photographs.")
@click.option("--weights", metavar="TAG|FILE", help="For painter: of the loss network; imagenet by default.")
@click.option("--epochs", type=click.IntRange(1), help="For a figure: of each training.")
@click.option("--images", type=click.IntRange(1), help="For a figure: training images; all by default.")
@click.option("--seed", type=click.IntRange(0), help="For a figure: of each training; 0 by default.")
@click.option("--out", metavar="RUN|PNG", help="The run folder, runs/NAME-again by default; of a figure: FIGURE.png.")
@click.option("--resume", is_flag=True, help="Continue the run in --out.")
@click.option("--quiet", is_flag=True, help="No progress.")
@as_json
def command(name, figure, data, weights, epochs, images, seed, out, resume, quiet, as_json):
    """Train the shipped weights NAME again, as their card describes, and compare. Without NAME: list all of them.

    The exit code is 1 if an accuracy differs from that of the card by more than three standard errors.

    painter, the network that paints, is trained on photographs that kzoo does not carry: --data gives their folder. The
    exit code is 1 if its objective on held-out ones is worse than the card's by more than 15 %.

    --figure trains for minutes and draws: relu-tanh (training error with ReLU and tanh, each at its best rate), losses
    (why the squared error is a bad loss behind a softmax), shift (accuracy on moved digits).
    """
    options = {"data": data, "epochs": epochs, "images": images, "seed": seed}
    if figure is not None:
        if name is not None or resume or weights is not None:
            raise click.UsageError("--figure goes without NAME, --weights and --resume.")
        load_keras()
        logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns that each training is traced anew
        from kzoo.reproducing.figures import draw

        drawn = draw(figure, out, quiet=quiet, **options)
        print_json(drawn.to_dict()) if as_json else click.echo(
            f"{drawn}\n{drawn.seconds:.0f} s: {out or f'{figure}.png'}"
        )
        return
    if name in shipped.stylenets():
        given = [f"--{key}" for key, value in options.items() if value is not None and key != "data"]
        if given:
            raise click.UsageError(f"{', '.join(given)}: only with --figure.")
        load_keras()
        from kzoo.reproducing.painter import reproduce_stylenet

        painted = reproduce_stylenet(name, data, weights or "imagenet", out=out, resume=resume, quiet=quiet)
        print_json(painted.to_dict()) if as_json else click.echo(str(painted))
        sys.exit(0 if painted.agrees else 1)
    if weights is not None:
        raise click.UsageError(f"--weights: only with {' or '.join(shipped.stylenets())}.")
    given = [f"--{key}" for key, value in options.items() if value is not None]
    if given:
        raise click.UsageError(f"{', '.join(given)}: only with --figure.")
    if name is None and as_json:
        print_json({**shipped.cards(), **shipped.stylenets()})
        return
    if name is None:
        for card in shipped.cards().values():
            click.echo(
                f"{card['name']:12}{card['data']:8}{card['test_top1']:.2%} {card['epochs']:3} epochs, "
                f"{card['seconds'] / 60:.0f} min on {card['hardware']}"
            )
        for card in shipped.stylenets().values():
            steps, minutes = card["options"]["steps"], card["seconds"] / 60
            click.echo(
                f"{card['name']:12}paints {', '.join(card['styles'])}; {steps:,} steps, {minutes:.0f} min on "
                f"{card['hardware']}"
            )
        return
    shipped.card(name)  # before Keras is imported: a wrong name is refused at once
    load_keras()
    from kzoo.reproducing.comparison import reproduce

    result = reproduce(name, out=out, resume=resume, quiet=quiet)
    print_json(result.to_dict()) if as_json else click.echo(str(result))
    if not result.agrees:
        sys.exit(1)
