"""Plot loss and accuracy of runs by epoch, or the training error of shipped weights from their cards.

    python scripts/curves.py runs/a runs/b --out curves.png
    python scripts/curves.py plain20 resnet20 --out scripts/pictures/residual.png

The second is He et al. 2015, figure 6; the dot at the end of a curve is the test error.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kzoo.catalog import shipped
from kzoo.errors import KzooError
from kzoo.plots import learning_curves, png
from kzoo.runs import history_of


def of_runs(folders):
    """Loss and metric of runs, as bytes of a PNG."""
    names = [Path(f).name if len({Path(g).name for g in folders}) == len(folders) else f for f in folders]
    return png(learning_curves({name: history_of(f) for name, f in zip(names, folders, strict=True)}))


def of_cards(names, parser):
    """Training error of shipped weights, as bytes of a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name in names:
        card = shipped.card(name)
        if "train_top1" not in card:
            parser.error(f"The card of {name} has no training curve.")
        error = [100 * (1 - share) for share in card["train_top1"]]
        line = axes.plot(range(1, len(error) + 1), error, label=f"{name}: {error[-1]:.1f} %")[0]
        test = 100 * (1 - card["test_top1"])
        axes.plot(len(error), test, "o", color=line.get_color(), label=f"... test: {test:.1f} %")
    axes.set(xlabel="epoch", ylabel="error, %", ylim=(0, 30), title="Training error (augmented images)")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return png(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="run folders, or names of shipped weights")
    parser.add_argument("--out", required=True, help="the image file to write")
    args = parser.parse_args()
    try:
        runs = all(Path(name).is_dir() for name in args.runs)
        drawn = of_runs(args.runs) if runs else of_cards(args.runs, parser)
    except KzooError as e:
        parser.error(str(e))
    Path(args.out).write_bytes(drawn)


main()
