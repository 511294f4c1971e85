"""Turn a run into weights that kzoo ships: a 16-bit .npz and a card, measured again after rounding.

    python scripts/ship.py runs/resnet20 --name resnet20
    python scripts/ship.py runs/vgg --name vgg_cifar10 --fold

--fold folds each batch norm into the convolution in front of it; NAME is then the model without batch norm. Prints the
row for kzoo/catalog/pretrained.py. The test images are used here, once, and not in training. A run without a validation
part (--val-fraction 0, as the papers train on CIFAR-10) has the weights of its last epoch, and is measured on the test
images only.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kzoo.catalog import spec
from kzoo.training.recipes import RECIPES

LICENCES = {
    "mnist": "MNIST: Y. LeCun and C. Cortes, CC BY-SA 3.0",
    "cifar10": "CIFAR-10: A. Krizhevsky, V. Nair, G. Hinton; free for research, no licence text",
}
NOTE = (
    "The images were JPEG files, CIFAR-10's pixels encoded again (quality 75, colour at half size); others report 2 to "
    "3 points less with such a copy than with the pixels themselves."
)


def arrays_of(model, fold):
    """{layer/variable: float32 array} of a model; `fold` folds its batch norms."""
    import keras

    from kzoo.graph.inference import fold

    number = keras.ops.convert_to_numpy
    if not fold:
        return {v.path: number(v) for v in model.weights}
    found, norms = {}, {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            norms[layer.input._keras_history.operation.name] = layer
    for layer in model.layers:
        if layer.weights and not isinstance(layer, keras.layers.BatchNormalization):
            followers = [norms[layer.name]] if layer.name in norms else []
            for name, value in zip(("kernel", "bias"), fold(layer, followers), strict=True):
                found[f"{layer.name}/{name}"] = value
    return found


def is_jpeg(data):
    """Whether the test images of a data set are JPEG files."""
    from kzoo.data.guards import MAGIC

    split = data.splits["test"]
    return split.files and split.images[0].startswith(MAGIC["JPEG"][1])


def command(config, options):
    """The command line that trains a run again."""
    recipe = config["recipe"]
    arguments = {
        "data": config["data"],
        "recipe": recipe["name"],
        "epochs": recipe["epochs"],
        "val-fraction": config["val_fraction"],
        "seed": config["seed"],
        "precision": config["precision"],
    }
    defaults = json.loads(json.dumps(RECIPES[recipe["name"]].to_dict()))
    changes = [k for k in ("batch_size", "learning_rate") if recipe[k] != defaults[k]]
    arguments |= {k.replace("_", "-"): recipe[k] for k in changes}
    if tuple(config["input_shape"]) != tuple(spec(config["model"]).input_shape):
        arguments["input-shape"] = "x".join(map(str, config["input_shape"]))
    changed = {k: v for k, v in options.items() if k != "aux"}  # kzoo train sets aux itself
    pairs = [f"--{k} {v}" for k, v in arguments.items()] + [f"--set {k}={v}" for k, v in changed.items()]
    return " ".join(["kzoo train", config["model"], *pairs])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="the run folder")
    parser.add_argument("--name", required=True, help="the model of the catalog that the weights are for")
    parser.add_argument("--fold", action="store_true", help="fold batch norms")
    args = parser.parse_args()

    import numpy as np

    import kzoo
    from kzoo import runs
    from kzoo.builder import options as known_options
    from kzoo.catalog.shipped import FOLDER
    from kzoo.evaluating.evaluation import evaluate
    from kzoo.files import digest, write_atomically

    run = kzoo.load_run(args.run)
    config = run.config
    defaults = json.loads(json.dumps(known_options(spec(config["model"]))))  # tuples become lists, as in config.json
    options = {k: v for k, v in config["options"].items() if defaults[k] != v and k != "aux"}
    data = kzoo.load_data(config["data"], seed=config["seed"], val_fraction=config["val_fraction"])
    parts = [part for part in ("val", "test") if part in data.splits]
    if "test" not in parts:
        raise SystemExit(f"{config['data']} has no test part, which is needed to measure the weights.")
    before = {part: evaluate(run, split=part, quiet=True) for part in parts}
    rounded_arrays = {k: v.astype("float16") for k, v in arrays_of(run.model, args.fold).items()}
    file = FOLDER / f"{args.name}.npz"
    draft = run.path / "shipped.npz"
    with write_atomically(draft) as f:
        np.savez(f, **rounded_arrays)
    model = kzoo.build(
        args.name, input_shape=run.input_shape, preprocessing=run.preprocessing, weights=str(draft), **options
    )
    rounded = runs.Run(run.path, {**config, "precision": "float32"}, model)
    after = {part: evaluate(rounded, split=part, quiet=True) for part in parts}
    for part in before:
        a, b = before[part].top1, after[part].top1
        print(f"{part}: {a:.4%} as trained, {b:.4%} in 16 bits", file=sys.stderr)
        if b < a - 0.001:
            raise SystemExit("Rounding to 16 bits loses too much accuracy: nothing was written.")

    history = runs.read_csv(run.path / runs.HISTORY)
    seconds = sum(float(row["seconds"]) for row in history)
    card = {
        "name": args.name,
        "trained_as": config["model"],
        "data": config["data"],
        "classes": config["classes"],
        "recipe": config["recipe"],
        "options": options,
        "epochs": len(history),
        "seed": config["seed"],
        "val_fraction": config["val_fraction"],
        "precision": config["precision"],
        "input_shape": config["input_shape"],
        "val_top1": after["val"].top1 if "val" in after else None,
        "test_top1": after["test"].top1,
        "test_images": after["test"].images,
        # On augmented images, while the weights were changing: the papers' training error.
        "train_top1": [round(float(row["accuracy"]), 4) for row in history],
        "seconds": round(seconds),
        "hardware": config["hardware"],
        "versions": config["versions"],
        "fingerprint": config["fingerprint"],
        "command": command(config, options),
        "sha256": digest(draft),
        "data_note": NOTE if config["data"] == "cifar10" and is_jpeg(data) else "",
        "licence": "Apache-2.0 (kzoo)",
        "data_licence": LICENCES.get(config["data"], "see the data"),
        "intended_use": "Teaching, tests, a start for fine-tuning, and demonstrations.",
        "limits": f"Trained on {len(config['classes'])} classes and images of "
        f"{'x'.join(map(str, config['input_shape'][:2]))} pixels; it answers with one of its classes for any image.",
    }
    with write_atomically(file) as f:
        f.write(draft.read_bytes())
    with write_atomically(file.with_suffix(".json"), "w") as f:
        json.dump(card, f, indent=2)
        f.write("\n")
    print(f'    "{args.name}": (own("{args.name}", "{config["data"]}", {file.stat().st_size}, "{card["sha256"]}"),),')


main()
