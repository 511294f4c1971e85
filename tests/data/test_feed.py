"""The feed of JAX: what each process serves of a batch. tests/catalog/test_jax.py runs it."""

import keras
import numpy as np
import pytest

from kzoo.catalog import Preprocessing
from kzoo.data.dataset import Split
from kzoo.data.feed import epoch_number, feed
from kzoo.distribution import Group
from kzoo.errors import RunError

if keras.backend.backend() != "jax":
    pytest.skip("runs on JAX", allow_module_level=True)

N, BATCH = 22, 8
PIXELS = np.random.default_rng(0).integers(0, 256, (N, 4, 4, 1)).astype("uint8")


def served(split, epoch=0, **options):
    """The batches of an epoch as arrays, of labels (B, 1)."""
    number = epoch_number()
    data = feed(
        split,
        (4, 4, 1),
        Preprocessing(),
        BATCH,
        targets=lambda labels: labels[:, None].astype("float32"),
        order=(7, number),
        **options,
    )
    number.assign(epoch)
    return [tuple(map(np.asarray, data[i])) for i in range(len(data))]


def split_of(prepared):
    return Split(PIXELS, np.arange(N), list(map(str, range(N))), prepared)


def test_an_epoch_has_each_image_once_and_fills_up_its_last_batch_with_its_first_images():
    batches = served(split_of(True), epoch=1)
    assert [x.shape for x, _, _ in batches] == [(BATCH, 4, 4, 1)] * 3 and batches[0][0].dtype == np.uint8
    assert [count.shape for _, _, count in batches] == [(1, 8), (1, 8), (1, 6)], "how many images count"
    labels = np.concatenate([y[: count.shape[1], 0] for _, y, count in batches]).astype(int)
    assert sorted(labels) == list(range(N))
    np.testing.assert_array_equal(np.concatenate([x[: c.shape[1]] for x, _, c in batches]), PIXELS[labels])
    np.testing.assert_array_equal(batches[2][1][6:], batches[0][1][:2])
    again, other = served(split_of(True), epoch=1), served(split_of(True), epoch=2)
    for one, two in zip(batches, again, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not np.array_equal(batches[0][1], other[0][1])


def test_arrays_and_what_tensorflow_serves_are_the_same_batches():
    """The second is what files that are decoded on the fly, moved masks and mixtures are served by."""
    for epoch, options in ((0, {}), (1, {"alternate_flip": True})):
        one = served(split_of(True), epoch, **options)
        two = served(split_of(True), epoch, move=lambda x, y, seed: (x, y), **options)
        for a, b in zip(one, two, strict=True):
            for first, second in zip(a, b, strict=True):
                np.testing.assert_array_equal(first, second)


def test_processes_serve_their_own_rows_of_one_batch():
    whole = served(split_of(True))
    for kind in ({}, {"move": lambda x, y, seed: (x, y)}):
        parts = [served(split_of(True), group=Group(4, i, 2), **kind) for i in range(2)]
        for batch, *own in zip(whole, *parts, strict=True):
            np.testing.assert_array_equal(np.concatenate([x for x, _, _ in own]), batch[0])
            np.testing.assert_array_equal(np.concatenate([y for _, y, _ in own]), batch[1])
            assert [count.shape for _, _, count in own] == [(2, batch[2].shape[1])] * 2, "a row for each device"
    with pytest.raises(RunError, match="A batch of 8 can't be shared equally by 3 devices: use 6 or 9"):
        served(split_of(True), group=Group(3))


def test_fewer_images_than_a_batch():
    few = split_of(True).take(np.arange(3))
    ((x, y, count),) = served(few)
    assert x.shape == (BATCH, 4, 4, 1) and count.shape == (1, 3) and sorted(y[:3, 0]) == [0, 1, 2]
    np.testing.assert_array_equal(y[3:6], y[:3])
