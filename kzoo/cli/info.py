"""kzoo info: parameters, multiply-adds and memory of each layer of a model."""

import shutil
from textwrap import fill

import click

from kzoo.catalog import spec
from kzoo.cli.options import as_json, load_keras, print_json, shape


@click.command("info", epilog="Example: kzoo info vgg16 --input-shape 160x160x3")
@click.argument("model")
@click.option(
    "--input-shape",
    callback=shape,
    metavar="HxWxC",
    help="Size of the input, such as 160x160x3; as published by default.",
)
@click.option("--num-classes", type=click.IntRange(1), help="The number of classes; as published by default.")
@as_json
def command(model, input_shape, num_classes, as_json):
    """Show output size, parameters, multiply-adds, memory and receptive field of each layer of MODEL."""
    row = spec(model)  # before Keras is imported: a wrong name is refused at once
    load_keras()
    from kzoo.graph.ledger import count, ledger
    from kzoo.training.recipes import RECIPES

    recipe = RECIPES.get(row.recipe)
    table = ledger(row, input_shape=input_shape, num_classes=num_classes or row.num_classes)
    if as_json:
        published = {
            "paper": str(row.paper),
            "input_shape": row.input_shape,
            "num_classes": row.num_classes,
            "params": row.params,
            "multiply_adds": row.multiply_adds,
            "deviations": row.deviations,
        }
        print_json({**table.to_dict(), "published": published, "recipe": recipe.to_dict() if recipe else row.recipe})
        return
    width = min(shutil.get_terminal_size((80, 24)).columns, 120)
    totals = table.totals

    def say(text, indent=""):
        return click.echo(fill(text, width, subsequent_indent=indent))

    say(f"{row.name}: {row.paper}", "  ")

    def figure(v):
        return "none" if v is None else f"{v:,}" if isinstance(v, int) else v

    ours = "?" if totals.multiply_adds is None else f"{totals.multiply_adds:,} ({count(totals.multiply_adds)})"
    published = "x".join(map(str, row.input_shape))
    click.echo(f"  input          {'x'.join(map(str, table.rows[0].output))}, published {published}")
    click.echo(f"  parameters     {totals.trainable:,} trainable, published {figure(row.params)}")
    click.echo(f"  multiply-adds  {ours}, published {figure(row.multiply_adds)}")
    for deviation in row.deviations:
        say(f"  deviation      {deviation}", " " * 17)
    if recipe and len(row.input_shape) == 3:  # clips can't be trained on
        say(
            f"  recipe         {recipe.name}: {recipe.optimizer}, learning rate {recipe.learning_rate:g}, "
            f"{recipe.epochs} epochs of batches of {recipe.batch_size}; kzoo train {row.name} takes it by default",
            " " * 17,
        )
    click.echo("\n" + table.table(width) + "\n\n" + "\n".join(table.notes()))
