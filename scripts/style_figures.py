"""Compare weights for style transfer, and draw the pictures of the README.

    python scripts/style_figures.py compare --vgg VGG19_WEIGHTS      numbers for random weights, kzoo's own and VGG-19
    python scripts/style_figures.py flat --vgg VGG19_WEIGHTS         flat skies, with and without noise and margin
    python scripts/style_figures.py stylenets --vgg VGG19_WEIGHTS --images FOLDER   stylenets by seed and style weight
    python scripts/style_figures.py pictures --vgg VGG19_WEIGHTS     scripts/pictures/*.jpg

The numbers are, for each result, the relative Gram distance |G - A|^2 / |A|^2 to the style and the relative distance
|F - P|^2 / |P|^2 to the content, both in the feature maps of VGG-19's first layers (block1_conv1 .. block3_conv1). The
contents are scikit-learn's sample photographs (china.jpg by danielbuechele, flower.jpg by vultilion, CC BY 2.0), the
styles kzoo's own paintings, so the results may be published.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

FOLDER = Path(__file__).parent / "pictures"
FIRST_LAYERS = tuple(f"block{i}_conv1" for i in (1, 2, 3))


def photographs():
    """{name: (H, W, 3) uint8} of the contents."""
    from sklearn.datasets import load_sample_images

    sample = load_sample_images()
    return {Path(f).stem: np.asarray(i) for f, i in zip(sample.filenames, sample.images, strict=True)}


def paintings():
    """{name: (H, W, 3) uint8} of the styles."""
    from kzoo.data.drawn import painting

    return {name: np.asarray(painting(name)) for name in ("strokes", "glass")}


def compare(options):
    """Print the mean distances, in VGG-19's feature maps, of all pairs for each variant."""
    import kzoo
    from kzoo.synthesis import pictures
    from kzoo.synthesis.network import catalog_model, cut_network
    from kzoo.synthesis.objective import CompiledNetwork, StyleObjective

    network = cut_network(
        catalog_model("vgg19", options.vgg), content_layers=FIRST_LAYERS[-1:], style_layers=FIRST_LAYERS
    )
    compiled = CompiledNetwork(network)
    variants = {
        "content as it is": None,
        "random": {"weights": "random"},
        "cifar10": {"weights": "cifar10"},
        "cifar10, block4_conv2": {"weights": "cifar10", "content_layers": ("block4_conv2",)},
        "cifar10, relative": {"weights": "cifar10", "balance": "relative"},
        "cifar10, block1 to block3": {
            "weights": "cifar10",
            "balance": "relative",
            "style_layers": FIRST_LAYERS,
            "content_layers": FIRST_LAYERS[-1:],
        },
        "VGG-19's front": {"weights": options.vgg},
    }
    print(f"{'':28}{'Gram distance':>15}{'content distance':>18}   mean of all pairs at {options.size} px")
    for name, settings in variants.items():
        found = []
        for content_name, content in photographs().items():
            for style_name, style in paintings().items():

                def fitted(p):
                    return pictures.resized(p, pictures.fitted(p.shape, options.size)).astype("float32")[None]

                objective = StyleObjective(compiled, fitted(content), [fitted(style)], range_weight=0)
                picture = fitted(content)
                if settings is not None:
                    result = kzoo.stylize(
                        content, style, size=options.size, evaluations=options.evaluations, quiet=True, **settings
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


def flat(options):
    """Print the hatch and the frame of flat pictures, with and without the noise and the margin of the start."""
    import kzoo

    y = np.linspace(0, 1, 240)[:, None, None]
    sky = np.round([90, 140, 210] + y * np.array([100, 65, 15]) + np.zeros((240, 320, 1))).astype("uint8")
    grey = np.full((256, 256, 3), (140, 150, 170), "uint8")
    styles = paintings()
    for noise in (0.0, 4.0):
        made = kzoo.stylize(
            sky,
            styles["glass"],
            weights=options.vgg,
            size=160,
            coarsest=0,
            evaluations=25,
            start_noise=noise,
            quiet=True,
        )
        style_loss = made.record["last"]["style"]
        print(f"noise {noise:.0f}: hatch {hatch(made.picture):6.1f}, style {style_loss:.3f}", flush=True)
    for margin in (0, 16):
        made = kzoo.stylize(
            grey, styles["strokes"], weights=options.vgg, size=256, evaluations=60, margin=margin, quiet=True
        )
        print(f"margin {margin:2}: frame {frame(made.picture):5.1f} grey levels", flush=True)


def stylenets(options):
    """Train a small stylenet for each style weight and seed, and print its objective on held-out photographs."""
    import tempfile

    from kzoo.runs import read_json
    from kzoo.style.stylenet import METRICS, train_stylenet

    with tempfile.TemporaryDirectory(prefix="kzoo-") as folder:
        style = Path(folder) / "strokes.png"
        _save(style, paintings()["strokes"])
        for weight in options.style_weight:
            for seed in options.seed:
                out = Path(options.out or folder) / f"weight-{weight:g}-seed-{seed}"
                train_stylenet(
                    style,
                    options.images,
                    out=out,
                    size=options.size,
                    steps=options.steps,
                    batch_size=2,
                    width=16,
                    style_weight=weight,
                    learning_rate=0.002,
                    weights=options.vgg,
                    content_layers=FIRST_LAYERS[-1:],
                    style_layers=FIRST_LAYERS,
                    seed=seed,
                    quiet=True,
                )
                row = read_json(out / METRICS)["styles"]["strokes"]
                print(
                    f"style weight {weight:g}, seed {seed}, {options.size} px, {options.steps:,} steps: loss "
                    f"{row['loss']:.3f}, content {row['content']:.3f}, style / weight {row['style'] / weight:.4f}, "
                    f"at a limit {row['at_limits']:.2%}",
                    flush=True,
                )


def hatch(picture):
    """How many times its surroundings the strongest frequency of period 2 is, in the spectrum of the grey values."""
    from scipy.ndimage import median_filter

    side = min(128, *picture.shape[:2])
    window = np.hanning(side)[:, None] * np.hanning(side)
    grey, power = picture.mean(-1), 0
    for y in range(0, grey.shape[0] - side + 1, side // 2):
        for x in range(0, grey.shape[1] - side + 1, side // 2):
            part = grey[y : y + side, x : x + side]
            power = power + np.abs(np.fft.fft2((part - part.mean()) * window)) ** 2
    f = np.abs(np.fft.fftfreq(side))
    highest = np.maximum(f[:, None], f) > 0.5 - 1.5 / side
    return float((power / median_filter(power, 13, mode="wrap"))[highest].max())


def frame(picture):
    """How far the mean colour of the outermost two to eight pixels is from that of the middle, in grey levels."""
    p = picture.astype("float64")
    rows, columns = np.indices(p.shape[:2])
    away = np.min([rows, rows[::-1], columns, columns[:, ::-1]], 0)  # of each pixel from the border
    middle = p[away >= 40].mean(0)
    return max(float(np.abs(p[(away >= a) & (away < b)].mean(0) - middle).mean()) for a, b in ((0, 2), (2, 4), (4, 8)))


def montage(folder, variants):
    """Write scripts/pictures/weights.jpg: a row for each pair, with the result of each variant."""
    from PIL import Image

    rows = []
    for pair in ("china-strokes", "flower-glass"):
        row = [np.asarray(Image.open(folder / f"{pair}-{variant.replace(' ', '_')}.png")) for variant in variants]
        rows.append(np.concatenate([np.pad(p, ((2, 2), (2, 2), (0, 0)), constant_values=255) for p in row], 1))
    FOLDER.mkdir(exist_ok=True)
    _save(FOLDER / "weights.jpg", np.concatenate(rows))


def _save(path, picture):
    from PIL import Image

    Image.fromarray(picture).save(path, quality=88)


def draw(options):
    """Write the pictures of the README."""
    import kzoo
    from kzoo.synthesis import pictures

    FOLDER.mkdir(exist_ok=True)
    photos, styles = photographs(), paintings()
    for content, style in (("china", "strokes"), ("flower", "glass")):
        result = kzoo.stylize(photos[content], styles[style], size=640, weights=options.vgg, quiet=True)
        joined = FOLDER / "joined.png"
        # Without the photograph: its rights are not ours.
        pictures.side_by_side(joined, [styles[style], result.picture])
        shrink(joined, FOLDER / f"{content}-{style}.jpg")


def shrink(path, out, width=640):
    """Write a PNG as a JPEG of that width, and delete the PNG."""
    from PIL import Image

    with Image.open(path) as picture:
        picture.convert("RGB").resize((width, round(picture.height * width / picture.width))).save(out, quality=85)
    path.unlink()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["compare", "flat", "stylenets", "pictures"])
    parser.add_argument("--vgg", required=True, help="VGG-19's weights, or a file with its first layers")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--out", help="a folder for the results of compare and stylenets")
    parser.add_argument("--images", help="of stylenets: a folder of photographs to train on")
    parser.add_argument("--steps", type=int, default=120, help="of stylenets")
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2], help="of stylenets")
    parser.add_argument("--style-weight", type=float, nargs="+", default=[10.0], help="of stylenets")
    options = parser.parse_args()
    {"compare": compare, "flat": flat, "stylenets": stylenets, "pictures": draw}[options.what](options)


if __name__ == "__main__":
    main()
