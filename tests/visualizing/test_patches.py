"""The nine best patches against brute force in NumPy, cut to the receptive field, recomputed and projected."""

import io

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image
from support.style import picture

from kzoo.errors import DataError, KzooError
from kzoo.interrupt import Interrupted
from kzoo.visualizing import network as seen
from kzoo.visualizing import patches
from kzoo.visualizing.network import find_network
from kzoo.visualizing.patches import box_of, cut, in_place, top_patches

IMAGES = np.stack([picture(12, 14, seed) for seed in range(24)])
KERNELS = np.random.default_rng(0).normal(size=(3, 3, 3, 4)), np.random.default_rng(1).normal(size=(2, 2, 4, 3))


@pytest.fixture(scope="module")
def network():
    """3x3 same, ReLU, pool 2, 2x2 valid, ReLU: a unit at (y, x) sees rows 2y - 1 to 2y + 4."""
    image = keras.Input((12, 14, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, activation="relu", name="conv1")(image)
    x = layers.MaxPooling2D(2, name="pool")(x)
    x = layers.Conv2D(3, 2, use_bias=False, activation="relu", name="conv2")(x)
    model = keras.Model(image, layers.Dense(2, name="predictions")(layers.Flatten(name="flat")(x)))
    for name, kernel in zip(("conv1", "conv2"), KERNELS, strict=True):
        model.get_layer(name).set_weights([kernel])
    return find_network(model)


def convolved(x, kernel):
    """A valid convolution of (H, W, C), with a ReLU, window by window."""
    size = kernel.shape[0]
    rows, columns = x.shape[0] - size + 1, x.shape[1] - size + 1
    out = np.array(
        [[np.tensordot(x[i : i + size, j : j + size], kernel, 3) for j in range(columns)] for i in range(rows)]
    )
    return np.maximum(out, 0)


def by_hand(x):
    """conv2 of (H, W, C) in NumPy."""
    y = convolved(np.pad(x.astype("float64"), ((1, 1), (1, 1), (0, 0))), KERNELS[0])
    return convolved(y.reshape(6, 2, 7, 2, 4).max((1, 3)), KERNELS[1])


def test_brute_force_finds_the_same(network, monkeypatch):
    monkeypatch.setattr(patches, "batch_size", lambda model: 7)  # several batches, the last one smaller
    found = top_patches(network, IMAGES, "conv2", [2, 0])
    assert [each.unit for each in found] == [2, 0]
    features = np.stack([by_hand(x) for x in IMAGES])
    for each in found:
        of_unit = features[..., each.unit]
        best = of_unit.max((1, 2))
        expected = np.argsort(-best, kind="stable")[:9]
        assert each.images == expected.tolist() and each.names == [str(i) for i in expected]
        np.testing.assert_allclose(each.values, best[expected], rtol=1e-5)
        assert each.positions == [np.unravel_index(of_unit[i].argmax(), of_unit[i].shape) for i in expected]
        for i, (y, x), box, crop in zip(each.images, each.positions, each.boxes, each.crops, strict=True):
            assert box == (2 * y - 1, 2 * x - 1, 2 * y + 4, 2 * x + 4)
            padded = np.pad(IMAGES[i].astype("float32"), ((1, 1), (1, 1), (0, 0)), constant_values=127.5)
            np.testing.assert_array_equal(crop, padded[2 * y : 2 * y + 6, 2 * x : 2 * x + 6])
        np.testing.assert_allclose(each.recomputed, each.values, rtol=1e-5)
        assert all(p.shape == (6, 6, 3) and p.any() for p in each.projections)


def test_the_projection_of_a_first_layer_is_its_kernel(network):
    (found,) = top_patches(network, IMAGES[:3], "conv1", [1], n=2)
    for projection, (top, left, bottom, right) in zip(found.projections, found.boxes, strict=True):
        inside = np.ones((3, 3, 1), bool)
        inside[: max(0, -top)] = inside[:, : max(0, -left)] = False
        inside[3 - max(0, bottom - 11) :] = inside[:, 3 - max(0, right - 13) :] = False
        np.testing.assert_allclose(projection, np.where(inside, KERNELS[0][..., 1], 0), rtol=1e-5)
    (plain,) = top_patches(network, IMAGES[:3], "conv1", [1], n=2, rule=None)
    assert plain.projections == [] and plain.images == found.images


def test_a_vector_shows_whole_images_and_ties_go_to_the_first(network):
    same = np.concatenate([IMAGES[:1]] * 3)
    (found,) = top_patches(network, same, "predictions", [0], n=2)
    assert found.images == [0, 1] and found.positions == [(), ()] and found.boxes == [(0, 0, 11, 13)] * 2
    np.testing.assert_array_equal(found.crops[0], IMAGES[0])
    np.testing.assert_array_equal(found.recomputed, found.values)


def test_a_box_is_cut_and_put_back():
    x = np.arange(24.0).reshape(4, 6, 1)
    box = (-1, 4, 1, 7)
    patch = cut(x, box, -5)
    np.testing.assert_array_equal(patch[..., 0], [[-5] * 4, [4, 5, -5, -5], [10, 11, -5, -5]])
    back = in_place(patch, box, x.shape, 0)
    assert back[0, 4] == 4 and back[1, 5] == 11 and np.count_nonzero(back) == 4
    assert box_of(None, (), (4, 6)) == (0, 0, 3, 5)


def test_folders_are_read_one_batch_at_a_time(network, tmp_path, monkeypatch):
    def decoding(shape, preprocessing):  # compiling the graph that does it would take seconds
        return lambda data: np.asarray(Image.open(io.BytesIO(data)).resize((14, 12)))

    monkeypatch.setattr(seen, "make_preparer", decoding)
    monkeypatch.setattr(patches, "batch_size", lambda model: 4)
    (tmp_path / "sub").mkdir()
    for i in range(6):
        Image.fromarray(picture(24, 28, i)).save(tmp_path / ("sub" if i % 2 else "") / f"{i}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("no picture either")
    skipped = []
    (found,) = top_patches(network, tmp_path, "conv2", [0], n=3, skipped=skipped)
    assert len(found.names) == 3 and all(name.endswith(".png") for name in found.names)
    assert [name for name, _ in skipped] == [str(tmp_path / "broken.png")] and "broken.png" in skipped[0][1]
    with pytest.raises(Interrupted):
        top_patches(network, tmp_path, "conv2", [0], interrupted=lambda: True)
    (first,) = top_patches(network, IMAGES, "conv2", [0], n=9, budget=1e-9)
    assert len(first.images) == 4 and max(first.images) < 4, "the first batch only"


def test_a_unit_that_sees_more_than_its_box_is_warned_of(network, monkeypatch):
    monkeypatch.setattr(patches, "field_of", lambda model, layer: _Small())
    with pytest.warns(UserWarning, match="sees more than its box"):
        top_patches(network, IMAGES, "conv2", [0])


class _Small:
    def of(self, y, x):
        return (2 * y, 2 * y + 1), (2 * x, 2 * x + 1)


def test_what_can_not_be_had_is_said(network, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for options, message in (
        ({"layer": "conv9"}, "conv"),
        ({"units": [3]}, "units 0 to 2"),
        ({"n": 0}, "n must be"),
        ({"images": []}, "no images"),
        ({"images": tmp_path}, "broken.png"),
        ({"images": tmp_path / "none"}, "no folder"),
        ({"rule": "deconv"}, "deconvnet"),
    ):
        with pytest.raises(KzooError, match=message):
            top_patches(network, **{"images": IMAGES, "layer": "conv2", **options})
    assert issubclass(DataError, KzooError)
