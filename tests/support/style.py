"""A small style transfer without any download."""

import numpy as np

import kzoo

# 64 pixels, from 45 on.
SMALL = {
    "model": "vgg11",
    "weights": "random",
    "content_layers": ("block2_conv1",),
    "precision": "float32",
    "style_layers": ("block1_conv1", "block2_conv1"),
    "size": 64,
    "coarsest": 45,
    "margin": 4,
    "evaluations": 12,
}
LAYERS = {k: SMALL[k] for k in ("content_layers", "style_layers")}
# The same on the command line, but for the sizes.
OPTIONS = [
    "--model",
    "vgg11",
    "--weights",
    "random",
    "--content-layers",
    "block2_conv1",
    "--style-layers",
    "block1_conv1,block2_conv1",
    "--size",
    "64",
    "--coarsest",
    "64",
    "--precision",
    "float32",
]
NETWORKS = {}  # compiled once for most tests


def picture(height, width, seed):
    """Patches and noise: something to see for every layer. (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    patches = np.kron(rng.uniform(0, 255, (height // 8 + 1, width // 8 + 1, 3)), np.ones((8, 8, 1)))[:height, :width]
    return np.clip(patches + rng.normal(0, 20, patches.shape), 0, 255).astype("uint8")


CONTENT, STYLE, OTHER = picture(70, 72, 0), picture(60, 80, 1), picture(64, 64, 2)


def stylize(*args, **options):
    return kzoo.stylize(*args, quiet=True, **{"networks": NETWORKS, **SMALL, **options})
