"""From a run to weights that kzoo carries: 16-bit .npz and card, measured again after rounding.

    python scripts/ship.py runs/resnet20 --name resnet20
    python scripts/ship.py runs/vgg --name vgg_cifar10 --fold

--fold folds each batch norm into the convolution in front of it: NAME is then the model without batch norm. Prints the
row for kzoo/pretrained.py. The test images are looked at here, once, and not in training. A run without a validation
part (--val-fraction 0, as the papers train on CIFAR-10) is measured on them alone, and is that of its last epoch.
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
    """{layer/variable: float32 array}, batch norm folded if asked for."""
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
            behind = [norms[layer.name]] if layer.name in norms else []
            for name, value in zip(("kernel", "bias"), fold(layer, behind), strict=True):
                found[f"{layer.name}/{name}"] = value
    return found


def is_jpeg(data):
    from kzoo.data.guards import MAGIC

    split = data.splits["test"]
    return split.files and split.images[0].startswith(MAGIC["JPEG"][1])


def command(config, options):
    """The command that trains a run again."""
    recipe = config["recipe"]
    said = {
        "data": config["data"],
        "recipe": recipe["name"],
        "epochs": recipe["epochs"],
        "val-fraction": config["val_fraction"],
        "seed": config["seed"],
        "precision": config["precision"],
    }
    usual = json.loads(json.dumps(RECIPES[recipe["name"]].to_dict()))
    said |= {k.replace("_", "-"): recipe[k] for k in ("batch_size", "learning_rate") if recipe[k] != usual[k]}
    if tuple(config["input_shape"]) != tuple(spec(config["model"]).input_shape):
        said["input-shape"] = "x".join(map(str, config["input_shape"]))
    changed = {k: v for k, v in options.items() if k != "aux"}  # train's own default
    pairs = [f"--{k} {v}" for k, v in said.items()] + [f"--set {k}={v}" for k, v in changed.items()]
    return " ".join(["kzoo train", config["model"], *pairs])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--name", required=True, help="of the catalog's model that takes the weights")
    parser.add_argument("--fold", action="store_true")
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
    usual = json.loads(json.dumps(known_options(spec(config["model"]))))  # tuples as JSON has them
    options = {k: v for k, v in config["options"].items() if usual[k] != v and k != "aux"}
    data = kzoo.load_data(config["data"], seed=config["seed"], val_fraction=config["val_fraction"])
    parts = [part for part in ("val", "test") if part in data.splits]
    if "test" not in parts:
        raise SystemExit(f"{config['data']} has no test part: what is shipped was measured.")
    exact = {part: evaluate(run, split=part, quiet=True) for part in parts}
    small = {k: v.astype("float16") for k, v in arrays_of(run.model, args.fold).items()}
    file = FOLDER / f"{args.name}.npz"
    draft = run.path / "shipped.npz"
    with write_atomically(draft) as f:
        np.savez(f, **small)
    model = kzoo.build(
        args.name, input_shape=run.input_shape, preprocessing=run.preprocessing, weights=str(draft), **options
    )
    rounded = runs.Run(run.path, {**config, "precision": "float32"}, model)
    after = {part: evaluate(rounded, split=part, quiet=True) for part in parts}
    for part in exact:
        a, b = exact[part].top1, after[part].top1
        print(f"{part}: {a:.4%} as trained, {b:.4%} in 16 bits", file=sys.stderr)
        if b < a - 0.001:
            raise SystemExit("Rounding to 16 bits costs too much: nothing was shipped.")

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
        # As the recipe distorts the images, and while the weights moved: the papers' training error.
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
        "limits": f"Knows {len(config['classes'])} classes and pictures of "
        f"{'x'.join(map(str, config['input_shape'][:2]))} pixels; says something about any picture.",
    }
    with write_atomically(file) as f:
        f.write(draft.read_bytes())
    with write_atomically(file.with_suffix(".json"), "w") as f:
        json.dump(card, f, indent=2)
        f.write("\n")
    print(f'    "{args.name}": (own("{args.name}", "{config["data"]}", {file.stat().st_size}, "{card["sha256"]}"),),')


main()
