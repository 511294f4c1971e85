"""Draw the pictures of kzoo.visualizing's manual, and compare L-BFGS with momentum.

    python scripts/visualize_figures.py classes units dream patches    with networks that ship with kzoo
    python scripts/visualize_figures.py filters attribution --squeezenet WEIGHTS --mobilenet WEIGHTS
    python scripts/visualize_figures.py imagenet inversion compare --squeezenet WEIGHTS      with SqueezeNet 1.0's

Photos are scikit-learn's (china.jpg by danielbuechele, flower.jpg by vultilion, CC BY 2.0), digits are scikit-learn's,
too. The pictures go to scripts/pictures/.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

FOLDER = Path(__file__).parent / "pictures"
CLASSES = ("airplane", "bird", "cat", "frog", "horse", "ship")
IMAGENET = ("flamingo", "zebra", "goldfish", "balloon")
UNITS = (("block2_conv2", 5), ("block3_conv3", 9), ("block3_conv3", 40), ("block4_conv3", 30), ("block5_conv1", 11))
DIGIT_UNITS = (47, 40, 13, 24, 23, 4)
DREAMT = ("block2_conv2", "block3_conv2", "block4_conv1", "block5_conv1")
DEPTHS = ("conv1", "fire3_concat", "fire5_concat", "fire8_concat", "predictions")


def photograph(name, side=None):
    """scikit-learn's china or flower, (H, W, 3) uint8; with a side the square in its middle."""
    from sklearn.datasets import load_sample_image

    photo = load_sample_image(f"{name}.jpg")
    if side is None:
        return photo
    left = {"china": 50, "flower": 130}[name]
    return resized(photo[:, left : left + photo.shape[0]], side)


def resized(picture, side):
    """A square picture at another side, bicubic."""
    from PIL import Image

    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))


def save(name, picture):
    """Write a picture as scripts/pictures/NAME."""
    from PIL import Image

    FOLDER.mkdir(exist_ok=True)
    Image.fromarray(picture).save(FOLDER / name, **({"quality": 80} if name.endswith(".jpg") else {"optimize": True}))
    print(f"{FOLDER / name}: {(FOLDER / name).stat().st_size / 1000:.0f} kB", flush=True)


def row(pictures, side, columns=None):
    """Square pictures side by side."""
    from kzoo.visualizing.drawing import grid

    return grid([resized(p, side) for p in pictures], columns or len(pictures), gap=4)


def classes(options):
    """visualize-classes.jpg: classes of kzoo's own VGG for CIFAR-10."""
    from kzoo.visualizing.maximisation import maximise
    from kzoo.visualizing.network import find_network

    network = find_network("vgg_cifar10")
    save("visualize-classes.jpg", row([maximise(network, target_class=c, steps=200).picture for c in CLASSES], 128))


def units(options):
    """visualize-units.jpg: units of kzoo's own VGG, from its second block to its fifth, at 96 pixels."""
    from kzoo.visualizing.maximisation import maximise
    from kzoo.visualizing.network import find_network

    network = find_network("vgg_cifar10")
    found = [maximise(network, layer=layer, unit=unit, size=96, steps=256).picture for layer, unit in UNITS]
    save("visualize-units.jpg", row(found, 152))


def imagenet(options):
    """visualize-imagenet.jpg: classes of SqueezeNet for ImageNet."""
    from kzoo.visualizing.maximisation import maximise
    from kzoo.visualizing.network import find_network

    network = find_network("squeezenet1_0", weights=options.squeezenet)
    save("visualize-imagenet.jpg", row([maximise(network, target_class=c, steps=256).picture for c in IMAGENET], 190))


def inversion(options):
    """visualize-inversion.jpg: the pagoda, and pictures with its features at five depths of SqueezeNet."""
    from kzoo.visualizing.inversion import invert
    from kzoo.visualizing.network import find_network

    network = find_network("squeezenet1_0", weights=options.squeezenet)
    photo = photograph("china", 227)
    found = [photo]
    for layer in DEPTHS:
        result = invert(network, photo, layer, steps=400)
        found.append(result.picture)
        print(f"{layer:14} features {result.relative_error:.4f}, pixels {result.photo_error:.3f}", flush=True)
    save("visualize-inversion.jpg", row(found, 227, 3))


def dream(options):
    """visualize-dream.jpg: the pagoda, dreamt by kzoo's own VGG for CIFAR-10 from four depths."""
    import kzoo.visualizing.dream
    from kzoo.visualizing.drawing import grid
    from kzoo.visualizing.network import find_network

    network, photo, found = find_network("vgg_cifar10"), photograph("china"), []
    for layer in DREAMT:
        dreamt = kzoo.visualizing.dream.dream(network, photo, layer=layer, size=360)
        found.append(dreamt.picture)
        print(layer, [f"{octave['start']:.3g} to {octave['end']:.3g}" for octave in dreamt.octaves])
    save("visualize-dream.jpg", grid(found, 2, gap=4))


def digits():
    """scikit-learn's digits as MNIST has them: (1797, 28, 28, 1) uint8, white on black, in the middle."""
    from sklearn.datasets import load_digits

    large = np.stack([resized((8 * x).astype("uint8") * 2, 20) for x in load_digits().images.clip(0, 15.9)])
    return np.pad(large, ((0, 0), (4, 4), (4, 4)))[..., None]


def patches(options):
    """visualize-patches.png: the nine digits that excite each unit most, and their projections by the deconvnet."""
    from kzoo.visualizing.drawing import around_grey, as_rgb, grid, scale_of
    from kzoo.visualizing.patches import top_patches

    tiles = []
    for found in top_patches("mnist_cnn", digits(), "conv2", DIGIT_UNITS):
        scale = scale_of(np.stack(found.projections))
        crops = [as_rgb(crop) for crop in found.crops]
        projections = [as_rgb(around_grey(each, scale)) for each in found.projections]
        pair = [grid(each, 3, gap=1, enlarge=3) for each in (crops, projections)]
        tiles.append(np.concatenate([pair[0], np.full((len(pair[0]), 5, 3), 255, "uint8"), pair[1]], 1))
    save("visualize-patches.png", grid(tiles, 3, gap=14))


def filters(options):
    """visualize-filters.png: the first layers of mnist_cnn, resnet20 and vgg_cifar10, below SqueezeNet 1.0's."""
    from kzoo.visualizing.drawing import grid
    from kzoo.visualizing.filters import filters as filters_of
    from kzoo.visualizing.network import find_network

    own = on_one_line([filters_of(name).picture() for name in ("mnist_cnn", "resnet20", "vgg_cifar10")], 250)
    found = filters_of(find_network("squeezenet1_0", weights=options.squeezenet))
    below = grid(found.tiles(), 24, gap=2, enlarge=9)
    width = max(own.shape[1], below.shape[1])
    rows = [np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in (own, below)]
    save("visualize-filters.png", np.concatenate([rows[0], np.full((14, width, 3), 255, "uint8"), rows[1]]))


def attribution(options):
    """visualize-attribution.jpg: the flower in MobileNet v2: CAM, integrated gradients, SmoothGrad, guided."""
    from kzoo.visualizing import attribution, cam, drawing, occlusion, projection
    from kzoo.visualizing.network import find_network

    network = find_network("mobilenet_v2", weights=options.mobilenet)
    x = network.batch(resized(photograph("flower", 224), 224))
    best = network.class_name(int(cam.cam(network, x).targets[0]))
    print(f"most probable: {best}")
    spots = cam.cam(network, x).maps[0]
    hidden = occlusion.occlusion(network, x)
    drop = hidden.of_pixels(hidden.drop, x.shape[1:3])[0]
    integrated = attribution.integrated_gradients(network, x)
    print(integrated.text())
    summed = integrated.attributions[0].sum(-1)
    smooth = attribution.magnitude(attribution.smoothgrad(network, x)[0])
    guided = projection.guided_backpropagation(network, x).maps[0]
    tiles = [
        drawing.as_rgb(x[0]),
        drawing.overlay(x[0], spots, drawing.scale_of(spots)),
        drawing.overlay(x[0], drop, drawing.scale_of(drop)),
        drawing.signed(summed, drawing.scale_of(summed, drawing.GREATEST)),
        drawing.unsigned(smooth, drawing.scale_of(smooth, drawing.GREATEST)),
        drawing.as_rgb(drawing.around_grey(guided, drawing.scale_of(guided, drawing.GREATEST))),
    ]
    save("visualize-attribution.jpg", row(tiles, 224, 3))


def on_one_line(pictures, height):
    """Pictures of any sizes side by side at about one height, enlarged by whole numbers."""
    scaled = [p.repeat(k, 0).repeat(k, 1) for p in pictures for k in [max(1, round(height / p.shape[0]))]]
    tallest = max(p.shape[0] for p in scaled)
    padded = [np.pad(p, ((0, tallest - p.shape[0]), (0, 14), (0, 0)), constant_values=255) for p in scaled]
    return np.concatenate(padded, 1)[:, :-14]


def compare(options):
    """Print the losses of inversion by L-BFGS and by momentum as published, for one layer and the published weights."""
    import time

    from kzoo.visualizing.inversion import invert
    from kzoo.visualizing.network import find_network

    network = find_network("squeezenet1_0", weights=options.squeezenet)
    for name in ("china", "flower"):
        photo = photograph(name, 227)
        for optimizer in ("lbfgs", "momentum"):
            start = time.monotonic()
            found = invert(network, photo, "fire3_concat", optimizer=optimizer, tv_weight=1.0, norm_weight=8e-10)
            curve = [f"{n}: {found.losses[n - 1]:.4f}" for n in (50, 100, 200) if n <= len(found.losses)]
            print(
                f"{name:8}{optimizer:10} loss at step {', '.join(curve)}, last {found.losses[-1]:.4f}; "
                f"features {found.relative_error:.4f}, pixels {found.photo_error:.3f}; "
                f"{found.settings['made']} evaluations, {time.monotonic() - start:.0f} s",
                flush=True,
            )


FIGURES = {f.__name__: f for f in (filters, attribution, classes, units, imagenet, inversion, dream, patches, compare)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=list(FIGURES))
    parser.add_argument("--squeezenet", help="SqueezeNet 1.0's weights for ImageNet")
    parser.add_argument("--mobilenet", help="MobileNet v2's weights for ImageNet")
    options = parser.parse_args()
    for name in options.what:
        FIGURES[name](options)


if __name__ == "__main__":
    main()
