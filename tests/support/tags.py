"""A drawn set with several labels an image: a stripe of each colour that is in its labels, perhaps none."""

import numpy as np
from PIL import Image

CLASSES = ("blue", "green", "red")
SHARES = (0.2, 0.35, 0.5)


def drawn(n=120, seed=0, side=16):
    """(uint8 images (n, side, side, 3), uint8 labels (n, 3)): noise, brighter in a third of the rows for each label."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 3)) < SHARES).astype("uint8")
    images = rng.integers(0, 140, (n, side, side, 3)).astype("uint8")
    third = side // 3
    for k, channel in enumerate((2, 1, 0)):
        images[labels[:, k] == 1, k * third : (k + 1) * third, :, channel] += 80
    return images, labels


def write(folder, n=120, seed=0, parts=False):
    """Write the images and a table of them; returns the path of the table."""
    images, labels = drawn(n, seed)
    (folder / "p").mkdir(parents=True)
    lines = ["path,labels,split" if parts else "path,labels"]
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / "p" / f"{i:03}.png")
        named = ";".join(CLASSES[k] for k in np.flatnonzero(labels[i]))
        lines.append(f"p/{i:03}.png,{named}" + (f",{'train' if i < n // 2 else 'test'}" if parts else ""))
    (folder / "tags.csv").write_text("\n".join(lines) + "\n")
    return folder / "tags.csv"
