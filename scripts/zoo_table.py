"""Print the table of all models, from the catalog and the ledger; --write updates kzoo/catalog/README.md."""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from kzoo.catalog import list_models, spec  # noqa: E402
from kzoo.errors import KzooError  # noqa: E402

PAGE = ROOT / "kzoo" / "catalog" / "README.md"
BEGIN, END = "<!-- zoo:begin -->", "<!-- zoo:end -->"
HEAD = ("Model", "Paper", "Input", "Parameters", "published", "Multiply-adds", "published")


def line(row, totals):
    """The row of a model, a ModelSpec; totals: those of its ledger."""
    from kzoo.graph.ledger import count

    paper = f"{row.paper.authors} {row.paper.year}"
    if row.paper.arxiv:
        paper = f"[{paper}](https://arxiv.org/abs/{row.paper.arxiv})"

    def figure(v):
        return "" if v is None else f"{v:,}" if isinstance(v, int) else v

    costs = "?" if totals.multiply_adds is None else count(totals.multiply_adds)
    size = "×".join(map(str, row.input_shape))
    params = (f"{totals.trainable:,}", figure(row.params))
    return "| " + " | ".join((f"`{row.name}`", paper, size, *params, costs, figure(row.multiply_adds))) + " |"


def table(names=None):
    """The table as Markdown: trainable parameters and multiply-adds of one image, computed and published."""
    from kzoo.graph.ledger import ledger

    lines = ["| " + " | ".join(HEAD) + " |", "|---|---|---|--:|--:|--:|--:|"]
    return "\n".join(lines + [line(spec(name), ledger(name).totals) for name in names or list_models()])


def between_markers(text):
    """Split the page into (before, table, after); KzooError if it lacks the two markers."""
    before, begin, rest = text.partition(BEGIN)
    now, end, after = rest.partition(END)
    if not (begin and end):
        raise KzooError(f"{PAGE} has no place for the table: add the lines {BEGIN} and {END} there.")
    return before, now.strip(), after


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the table between the markers of the page")
    if not parser.parse_args().write:
        print(table())
        return
    try:
        before, _, after = between_markers(PAGE.read_text("utf-8"))
    except KzooError as e:
        sys.exit(f"Error: {e}")
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
