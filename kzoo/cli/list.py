"""kzoo list: the models of the catalog."""

import click

from kzoo.catalog import list_models, spec
from kzoo.cli.options import as_json, print_json
from kzoo.errors import UnknownName


@click.command("list", epilog="Example: kzoo list 'vgg*'")
@click.argument("pattern", default="*")
@as_json
def command(pattern, as_json):
    """List the models whose name matches PATTERN (a shell pattern; all by default)."""
    rows = [spec(name) for name in list_models(pattern)]
    if not rows:
        raise UnknownName(f"No model's name matches '{pattern}'. kzoo list shows all.")
    if as_json:
        print_json(
            [
                {
                    "name": r.name,
                    "input_shape": r.input_shape,
                    "num_classes": r.num_classes,
                    "params": r.params,
                    "multiply_adds": r.multiply_adds,
                    "paper": str(r.paper),
                    "deviations": r.deviations,
                    "weights": [w.tag for w in r.weights],
                }
                for r in rows
            ]
        )
        return
    width = max(len(r.name) for r in rows)
    for r in rows:
        size = "x".join(map(str, r.input_shape))
        params = f"{r.params:,}" if isinstance(r.params, int) else r.params or ""
        click.echo(f"{r.name:{width}}  {size:>9}  {params:>11}  {r.paper.authors} {r.paper.year}")
