"""What fine-tuning reaches on ants and bees, the figures of the README: python scripts/finetune_figures.py.

Needs the photos and weights in $KZOO_DATA (hymenoptera/, weights/). The val folder only measures; whatever is chosen is
chosen by the training photos. Each part prints as it goes; --only heads,shots,scout,auto,scratch picks some.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

MODELS = ("mobilenet_v2", "squeezenet1_1")


def spread(values):
    v = 100 * np.array(values)
    return f"{v.mean():.2f} % (deviation {v.std():.2f}, {v.min():.2f} to {v.max():.2f}, n = {len(v)})"


def measured(photos, out, model, **options):
    """The accuracy on the val folder of a new run."""
    from kzoo.finetuning.pipeline import finetune_run
    from kzoo.runs import read_json

    folder = finetune_run(photos, model, options, out=out, quiet=True)
    return read_json(folder / "metrics.json")["test_accuracy"]


def heads(photos, out):
    for model in MODELS:
        found = [measured(photos, out / f"head-{model}-{s}", model, unfreeze="none", seed=s) for s in range(5)]
        print(f"{model}, --unfreeze none, 5 seeds: {spread(found)}", flush=True)


def shots(photos, out):
    for model in MODELS:
        # Ten draws still depend on luck (a deviation of 3 points each is one of the mean): so fifty, too.
        found = [measured(photos, out / f"shots-{model}-{s}", model, shots=5, seed=s) for s in range(50)]
        print(f"{model}, --shots 5, seeds 0 to 9: {spread(found[:10])}", flush=True)
        print(f"{model}, --shots 5, seeds 0 to 49: {spread(found)}", flush=True)


def scout(photos, out):
    import kzoo

    print(kzoo.scout(photos, quiet=True), flush=True)


def auto(photos, out):
    found = [measured(photos, out / f"auto-{s}", MODELS[0], seed=s) for s in range(5)]
    print(f"{MODELS[0]}, --unfreeze auto, 5 seeds: {spread(found)}", flush=True)


def scratch(photos, out):
    import kzoo

    for model in MODELS:
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
    parser.add_argument("--only", default=",".join(parts), help="a list of " + ", ".join(parts))
    chosen = parser.parse_args().only.split(",")
    photos = next((p / "hymenoptera" for p in data_folders() if (p / "hymenoptera").is_dir()), None)
    if photos is None:
        sys.exit("Needs hymenoptera/ in the shared data: set KZOO_DATA to its folder.")
    with tempfile.TemporaryDirectory(prefix="kzoo-figures-") as folder:
        for name in chosen:
            parts[name](photos, Path(folder))


if __name__ == "__main__":
    main()
