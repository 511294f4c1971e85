"""Plot the training error of shipped weights by epoch, from their cards (He et al. 2015, figure 6).

    python scripts/curves.py plain20 resnet20 --out scripts/pictures/residual.png

The dot at the end of a curve is the test error.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kzoo.catalog import shipped


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", help="of shipped weights")
    parser.add_argument("--out", required=True, help="the image file to write")
    args = parser.parse_args()

    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.4), dpi=100, layout="constrained")
    axes = figure.subplots()
    for name in args.names:
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
    figure.savefig(args.out)


main()
