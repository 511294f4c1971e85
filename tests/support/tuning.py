"""Fine-tuning of a small residual network on drawn photos of two classes."""

import numpy as np
from PIL import Image
from support.training import weights_of

from kzoo import runs
from kzoo.finetuning.pipeline import finetune_run

SHAPE = (16, 16, 3)


def draw(folder, counts, seed=0, noise=60):
    """Photos of class red and blue: noise with a tint; counts by part and class."""
    rng = np.random.default_rng(seed)
    for (part, name), n in counts.items():
        where = folder / part / name
        where.mkdir(parents=True, exist_ok=True)
        for i in range(n):
            x = rng.normal(110, noise, (20, 20, 3))
            x[..., 0 if name == "red" else 2] += 50
            Image.fromarray(np.clip(x, 0, 255).astype("uint8")).save(where / f"{i}.png")
    return folder


def tune(world, out, photos=None, **options):
    options = {"weights": world / "weights.npz", "input_shape": SHAPE, "precision": "float32", "quiet": True, **options}
    return finetune_folder(photos or world / "photos", "resnet20", out=out, **options)


class Killed(BaseException):
    """What a kill is to a test in one process: nothing catches it."""


def same(a, b):
    """Whether two runs have the same weights, bit for bit, and the same history."""
    x, y = weights_of(a), weights_of(b)
    for path in x:
        np.testing.assert_array_equal(x[path], y[path], err_msg=path)
    for row, other in zip(runs.read_csv(a / "history.csv"), runs.read_csv(b / "history.csv"), strict=True):
        assert {**row, "seconds": ""} == {**other, "seconds": ""}


def finetune_folder(photos=None, model=None, **options):
    """`kzoo.finetune`, but what it gives is the folder, which needs no Keras."""
    own = {name: options.pop(name) for name in ("weights", "out", "resume", "quiet") if name in options}
    return finetune_run(photos, model, options, **own)
