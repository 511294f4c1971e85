"""A PNG carries how it was made; pictures on JAX are those on TensorFlow."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from support.style import picture

from kzoo.synthesis.pictures import read_picture, read_record
from kzoo.visualizing.dream import dream
from kzoo.visualizing.features import KEY, photo, write
from kzoo.visualizing.inversion import invert
from kzoo.visualizing.maximisation import maximise
from kzoo.visualizing.network import find_network
from kzoo.visualizing.patches import top_patches


def test_a_png_carries_how_it_was_made(tmp_path):
    pixels, settings = picture(40, 48, 0), {"method": "dream", "layer": "conv1"}
    write(tmp_path / "a.png", pixels, settings)
    record = read_record(tmp_path / "a.png", key=KEY)
    assert record["settings"] == settings and "kzoo" in record
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png"), pixels)
    assert photo(tmp_path / "a.png", 3).shape == (40, 48, 3)
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    assert np.abs(photo(pixels, 1)[..., 0] - grey).max() <= 0.51


def all_methods():
    """A few numbers and pictures of each method, for a network whose weights are NumPy's."""
    image = keras.Input((32, 32, 3), name="image")
    x = layers.Rescaling(1 / 127.5, -1)(image)
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="conv1")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(5, 3, activation="relu", name="conv2")(x)
    model = keras.Model(image, layers.Dense(3, name="predictions")(layers.GlobalAveragePooling2D()(x)))
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.3, w.shape) for w in model.get_weights()])
    network, pixels = find_network(model), picture(32, 32, 0)
    unit = maximise(network, layer="conv2", unit=1, steps=6)
    dead = maximise(network, layer="conv1", unit=0, position=(0, 0), steps=3, transforms=False)
    found = invert(network, pixels, "conv2", steps=6)
    dreamt = dream(network, picture(48, 40, 1), target_class=2, octaves=2, steps=3)
    (best,) = top_patches(network, np.stack([picture(32, 32, seed) for seed in range(6)]), "conv2", [3], n=2)
    return {
        "values": np.array([*unit.values, unit.value, *dead.values, *best.values]),
        "errors": np.array(found.errors),
        "octaves": np.array([[row["start"], row["end"]] for row in dreamt.octaves]),
        "pictures": np.stack([unit.picture, found.picture]),
        "dreamt": dreamt.picture,
        "images": np.array(best.images),
        "projections": np.stack(best.projections),
    }


PROGRAM = """
import sys
import numpy as np
sys.path[:0] = [{tests!r}, {folder!r}]
from test_features import all_methods
np.savez({out!r}, **all_methods())
"""


@pytest.mark.slow
@pytest.mark.deep("2026-11-27")
def test_jax_agrees_with_tensorflow(tmp_path):
    pytest.importorskip("jax")
    folder, root = Path(__file__).parent, Path(__file__).parents[2]
    out = str(tmp_path / "out.npz")
    subprocess.run(
        [sys.executable, "-c", PROGRAM.format(tests=str(folder.parent), folder=str(folder), out=out)],
        check=True,
        cwd=root,
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(root)},
    )
    ours = all_methods()
    with np.load(out) as other:
        for name in ("values", "errors", "octaves", "projections"):
            np.testing.assert_allclose(other[name], ours[name], rtol=2e-3, atol=1e-3 * np.abs(ours[name]).max())
        for name in ("pictures", "dreamt"):
            assert np.abs(other[name].astype(int) - ours[name]).mean() < 0.5, name
        np.testing.assert_array_equal(other["images"], ours["images"])
