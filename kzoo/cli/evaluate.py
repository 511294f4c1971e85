"""kzoo evaluate: measure a trained model."""

import click

from kzoo.cli.options import as_json, load_keras, print_json


@click.command("evaluate", epilog="Example: kzoo evaluate runs/mnist")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--data",
    metavar="DATA",
    help="As in kzoo train; by default the data that RUN was trained on. Other data is not divided.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test", "all"]),
    help="The part to measure on; by default test, else val, else all.",
)
@click.option("--batch-size", type=click.IntRange(1), default=256, show_default=True, help="Images computed at once.")
@as_json
def command(runs, data, split, batch_size, as_json):
    """Measure RUN's best model: top-1, top-5, loss, precision and recall by class, confusion matrix; IoU of masks.

    The results are also written to RUN as evaluation-SPLIT.json and confusion-SPLIT.png; for other data than that of
    RUN the names of its files begin with the name of the data.

    Several runs are measured as an ensemble, which averages their probabilities, and compared with each of them;
    nothing is written.
    """
    load_keras()
    from kzoo.evaluating.evaluation import evaluate

    result = evaluate(runs[0] if len(runs) == 1 else runs, data, split=split, batch_size=batch_size)
    if as_json:
        print_json(result.to_dict())
    else:
        click.echo(str(result))
        if len(runs) == 1:
            click.echo(f"Wrote {', '.join(result.files())} in {runs[0]}.", err=True)
