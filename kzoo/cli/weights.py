"""kzoo weights: list published weights, and check what a model computes with them."""

from __future__ import annotations

import click

from kzoo.catalog import image_spec, list_models, spec
from kzoo.cli.options import as_json, load_keras, print_json
from kzoo.errors import UnknownName


@click.group("weights")
def command():
    """List published weights, or verify a file.

    \b
    Example: kzoo weights list 'resnet*'
    """


@command.command("list", epilog="Example: kzoo weights list 'resnet*'")
@click.argument("pattern", default="*")
@as_json
def list_command(pattern, as_json):
    """List the weights published for the models that match PATTERN: size, accuracy, licence; --json has it all."""
    names = list_models(pattern)
    if not names:
        raise UnknownName(f"No model's name matches '{pattern}'. kzoo list shows all.")
    rows = [
        {
            "model": name,
            "tag": w.tag,
            "source": w.source,
            "licence": w.licence,
            "size": w.size,
            "hash": w.hash,
            "top1": w.top1,
            "top5": w.top5,
            "classes": w.num_classes,
            "file": w.file,
        }
        for name in names
        for w in spec(name).weights
    ]
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo(f"No weights are published for {', '.join(names)}.", err=True)
        return
    table = [("model", "tag", "MB", "top-1", "licence")]
    for r in rows:
        size = f"{r['size'] / 2**20:.{0 if r['size'] > 2**20 else 1}f}" if r["size"] else "-"
        table.append((r["model"], r["tag"], size, f"{r['top1']:.1f}" if r["top1"] else "-", r["licence"]))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for model, tag, size, accuracy, licence in table:
        row = f"{model:{widths[0]}}  {tag:{widths[1]}}  {size:>{widths[2]}}  {accuracy:>{widths[3]}}  {licence}"
        click.echo(row.rstrip())
    click.echo("top-1: per cent on ImageNet, as published. Source, hash, top-5 and file: --json.", err=True)


@command.command("verify", epilog="Example: kzoo weights verify resnet50 imagenet")
@click.argument("model")
@click.argument("weights")
@click.option("--features", is_flag=True, help="Load no classifier, for files without one.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the probe images.")
@as_json
def verify_command(model, weights, features, seed, as_json):
    """Load WEIGHTS (a tag or a file) into MODEL, and show statistics of each block's output for fixed probe images.

    The images have the published size, and one pixel more, so that even and odd sizes are tested. Compare the numbers
    between machines or between files.
    """
    row = image_spec(model)
    load_keras()
    from keras import ops

    from kzoo.builder import build
    from kzoo.errors import WeightsError
    from kzoo.weights.verify import probe, statistics

    height, width, channels = row.input_shape
    results = []
    for more in (0, 1):
        shape = (height + more, width + more, channels)
        try:
            network = build(row, weights=weights, input_shape=shape, num_classes=None if features else "published")
        except WeightsError:
            if not more:
                raise
            click.echo(f"These weights fit {row.name} at {height}x{width} only.", err=True)
            continue
        images = probe(*shape, seed=seed)
        logits = ops.convert_to_numpy(network(images, training=False))
        best = None if features else (-logits).argsort(1)[:, :5].tolist()
        results.append({"input_shape": shape, "blocks": statistics(network, images), "top5": best})
    if as_json:
        print_json({"model": row.name, "weights": weights, "seed": seed, "sizes": results})
        return
    for result in results:
        click.echo(f"{row.name}, {'x'.join(map(str, result['input_shape']))}")
        wide = max(len(b["layer"]) for b in result["blocks"])
        click.echo(f"  {'':{wide}}  {'output':>12}{'mean':>12}{'std':>12}{'min':>12}{'max':>12}")
        for b in result["blocks"]:
            shape = "x".join(map(str, b["shape"]))
            numbers = "".join(f"{b[k]:>12.4g}" for k in ("mean", "std", "min", "max"))
            click.echo(f"  {b['layer']:{wide}}  {shape:>12}{numbers}")
