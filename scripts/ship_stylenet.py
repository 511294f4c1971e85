"""Turn a folder of `kzoo stylenet train` into the stylenet that kzoo carries: a 16-bit .npz and a card.

    python scripts/ship_stylenet.py stylenets/painter --name painter --photographs "hymenoptera_data: ..."

The objective is measured again after rounding, on the held-out photographs. They and the loss network's weights must
be where they were in training.
"""

import argparse
import json
import sys
from dataclasses import fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", help="the folder")
    parser.add_argument("--name", required=True)
    parser.add_argument("--photographs", required=True, help="what it was trained on, for the card")
    parser.add_argument("--loss-network", required=True, help="whose weights, for the card")
    args = parser.parse_args()

    import numpy as np

    from kzoo import runs
    from kzoo.catalog.shipped import FOLDER
    from kzoo.files import digest, write_atomically
    from kzoo.style.painter import load_stylenet
    from kzoo.style.settings import StylenetOptions
    from kzoo.style.stylenet import METRICS, objective_of

    folder = Path(args.net)
    config, before = runs.read_json(folder / runs.CONFIG), runs.read_json(folder / METRICS)
    net = load_stylenet(folder)
    arrays = {v.path: np.asarray(v).astype("float16") for v in net.model.weights}
    for v in net.model.weights:
        v.assign(arrays[v.path].astype("float32"))
    network, after = objective_of(net, config)
    for style, row in after.items():
        print(
            f"{style}: {before['styles'][style]['loss']:.4f} as trained, {row['loss']:.4f} in 16 bits", file=sys.stderr
        )
        if row["loss"] > 1.02 * before["styles"][style]["loss"]:
            raise SystemExit("Rounding to 16 bits makes it worse: nothing was written.")
    file = FOLDER / f"{args.name}.npz"
    with write_atomically(file) as f:
        np.savez_compressed(f, **arrays)
    options = {f.name: config[f.name] for f in fields(StylenetOptions)}
    options |= {"weights": "imagenet", "content_layers": network.content, "style_layers": network.style}
    card = {
        "name": args.name,
        "styles": config["styles"],
        "drawn": {"side": 512, "seed": 0, "by": "kzoo.data.drawn.painting"},
        "options": options,
        "loss_network": args.loss_network,
        "images": args.photographs,
        "images_sha256": config["images_sha256"],
        "held_out": before["held_out"],
        "metrics": {s: {k: round(v, 4) for k, v in row.items()} for s, row in after.items()},
        "seconds": round(sum(float(row["seconds"]) for row in runs.read_csv(folder / runs.HISTORY))),
        "hardware": config["hardware"],
        "versions": config["versions"],
        "command": f"kzoo reproduce {args.name} --data PHOTOGRAPHS",
        "sha256": digest(file),
        "licence": "Apache-2.0 (kzoo)",
        "data_licence": "The drawings are kzoo's own. No photograph is in the package.",
        "intended_use": "Painting photographs in one pass; teaching; a first look before a stylenet of one's own.",
        "limits": f"Trained on crops of {config['size']} pixels: strokes have one size in pixels, so that a large "
        "picture gets fine ones (--size makes it smaller first).",
    }
    with write_atomically(file.with_suffix(".json"), "w") as f:
        json.dump(card, f, indent=2)
        f.write("\n")
    print(f"{file}: {file.stat().st_size:,} bytes")


main()
