"""kzoo data: check a data set before training on it."""

import click

from kzoo.cli.options import as_json, json_text, print_json
from kzoo.data.sources import accepted
from kzoo.errors import DataError


@click.group("data")
def command():
    """Check a data set.

    \b
    Example: kzoo data check photos
    """


@command.command("check", epilog=f"PHOTOS: {accepted()}. Example: kzoo data check photos --json > passport.json")
@click.argument("photos")
@click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), default=0, help="Of the split into parts, if PHOTOS has none."
)
@click.option(
    "--bits", type=click.IntRange(8, 16), help="Of 16-bit images, how many bits are used, as training will be told."
)
@click.option("--strict", is_flag=True, help="Exit with code 1 if files are unusable, or if parts share duplicates.")
@click.option("--out", metavar="FILE", help="Write the passport to FILE, as JSON if it ends in .json.")
@click.option("--quiet", is_flag=True, help="No progress.")
@as_json
def check_command(photos, seed, bits, strict, out, quiet, as_json):
    """Report on PHOTOS: counts, sizes, unreadable and corrupt files, duplicates, class weights."""
    from kzoo.data.passport import check_data
    from kzoo.files import write_atomically
    from kzoo.progress import progress

    with progress(quiet=quiet) as bar:
        found = check_data(photos, seed=seed, bits=bits, bar=bar)
    if out:
        with write_atomically(out, "w") as f:
            f.write((json_text(found.to_dict()) if out.lower().endswith(".json") else str(found)) + "\n")
    if as_json:
        print_json(found.to_dict())
    elif not out:
        click.echo(str(found))
    if strict and not found.ok:
        raise DataError(f"{found.warnings[0]} (--strict)")
