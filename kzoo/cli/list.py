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
    cells = [("model", "input", "parameters", "MAdds", "paper")]
    for r in rows:
        adds = f"{r.multiply_adds:,}" if isinstance(r.multiply_adds, int) else r.multiply_adds or "-"
        params = f"{r.params:,}" if isinstance(r.params, int) else r.params or "-"
        cells.append(
            (
                r.name,
                "x".join(map(str, r.input_shape)),
                params,
                adds,
                f"{r.paper.authors.replace(' and ', ' & ')} {r.paper.year}",
            )
        )
    one, two, three, four, _ = (max(map(len, column)) for column in zip(*cells, strict=True))
    for name, size, params, adds, paper in cells:
        click.echo(f"{name:{one}} {size:>{two}} {params:>{three}} {adds:>{four}} {paper}")
    click.echo("Counts as the paper or source prints them (-: not at all); kzoo info counts.", err=True)
