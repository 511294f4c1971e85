"""Which weights paint how well, and the pictures of the README.

    python scripts/style_figures.py compare --vgg VGG19_WEIGHTS      random, kzoo's own and the real network, in numbers
    python scripts/style_figures.py pictures --vgg VGG19_WEIGHTS     scripts/pictures/*.jpg

The numbers: for each picture the relative Gram distance |G - A|^2 / |A|^2 from the style and the relative distance
|F - P|^2 / |P|^2 from the content, both as the real network's first layers (block1_conv1 .. block3_conv1) see them.
Contents are scikit-learn's sample photographs (china.jpg by danielbuechele, flower.jpg by vultilion, CC BY 2.0), styles
kzoo's own paintings, so what comes out may be shown.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

FOLDER = Path(__file__).parent / "pictures"
FRONT = tuple(f"block{i}_conv1" for i in (1, 2, 3))


def photographs():
    from sklearn.datasets import load_sample_images

    sample = load_sample_images()
    return {Path(f).stem: np.asarray(i) for f, i in zip(sample.filenames, sample.images, strict=True)}


def paintings():
    from kzoo.data.drawn import PAINTINGS, painting

    return {name: np.asarray(painting(name)) for name in PAINTINGS}


def compare(options):
    """Every way of looking, every pair: the distances as VGG-19 sees them."""
    import kzoo
    from kzoo.synthesis import pictures
    from kzoo.synthesis.network import catalog_model, cut_network
    from kzoo.synthesis.objective import CompiledNetwork, StyleObjective

    network = cut_network(catalog_model("vgg19", options.vgg), content_layers=FRONT[-1:], style_layers=FRONT)
    compiled = CompiledNetwork(network)
    ways = {
        "content as it is": None,
        "random": {"weights": "random"},
        "cifar10": {"weights": "cifar10"},
        "cifar10, relative": {"weights": "cifar10", "balance": "relative"},
        "cifar10, block1 to block3": {
            "weights": "cifar10",
            "balance": "relative",
            "style_layers": FRONT,
            "content_layers": FRONT[-1:],
        },
        "VGG-19's front": {"weights": options.vgg},
    }
    print(f"{'':28}{'Gram distance':>15}{'content distance':>18}   mean of all pairs at {options.size} px")
    for name, how in ways.items():
        found = []
        for content_name, content in photographs().items():
            for style_name, style in paintings().items():

                def fitted(p):
                    return pictures.resized(p, pictures.fitted(p.shape, options.size)).astype("float32")[None]

                objective = StyleObjective(compiled, fitted(content), [fitted(style)], range_weight=0)
                picture = fitted(content)
                if how is not None:
                    result = kzoo.stylize(
                        content, style, size=options.size, evaluations=options.evaluations, quiet=True, **how
                    )
                    picture = result.picture[None].astype("float32")
                    if options.out:
                        file = Path(options.out) / f"{content_name}-{style_name}-{name.replace(' ', '_')}.png"
                        _save(file, result.picture)
                gram = float(np.mean(list(objective.distances(picture).values())))
                found.append((gram, objective(picture)[1]["content"]))
        gram, content = np.mean(found, 0)
        print(f"{name:28}{gram:15.4f}{content:18.3f}", flush=True)
    if options.out:
        montage(Path(options.out), ("random", "cifar10", "VGG-19's front"))


def montage(folder, ways):
    """scripts/pictures/weights.jpg: what each of the ways made of the two pairs, in a row."""
    from PIL import Image

    rows = []
    for pair in ("china-strokes", "flower-glass"):
        row = [np.asarray(Image.open(folder / f"{pair}-{way.replace(' ', '_')}.png")) for way in ways]
        rows.append(np.concatenate([np.pad(p, ((2, 2), (2, 2), (0, 0)), constant_values=255) for p in row], 1))
    FOLDER.mkdir(exist_ok=True)
    _save(FOLDER / "weights.jpg", np.concatenate(rows))


def _save(path, picture):
    from PIL import Image

    Image.fromarray(picture).save(path, quality=88)


def draw(options):
    """The README's pictures."""
    import kzoo
    from kzoo.synthesis import pictures

    FOLDER.mkdir(exist_ok=True)
    photos, styles = photographs(), paintings()
    for content, style in (("china", "strokes"), ("flower", "glass")):
        result = kzoo.stylize(photos[content], styles[style], size=640, weights=options.vgg, quiet=True)
        joined = FOLDER / "joined.png"
        pictures.side_by_side(joined, [styles[style], result.picture])  # not the photograph: it is not ours
        shrink(joined, FOLDER / f"{content}-{style}.jpg")


def shrink(path, out, width=640):
    """A PNG as a JPEG of that width; the PNG goes."""
    from PIL import Image

    with Image.open(path) as picture:
        picture.convert("RGB").resize((width, round(picture.height * width / picture.width))).save(out, quality=85)
    path.unlink()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["compare", "pictures"])
    parser.add_argument("--vgg", required=True, help="VGG-19's weights, or a file with its first layers")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--out", help="a folder for the pictures that are compared")
    options = parser.parse_args()
    {"compare": compare, "pictures": draw}[options.what](options)


if __name__ == "__main__":
    main()
