"""TensorFlow Datasets without a network."""

import numpy as np
import pytest
from support.photos import PLAIN

from kzoo.data.batches import decode_split
from kzoo.data.loading import load_data


@pytest.mark.slow
def test_tfds_without_a_network(shared):
    if not (shared / "tfds" / "mnist").is_dir():
        pytest.skip("needs the prepared TFDS MNIST in the shared data")
    a, b = load_data("tfds:mnist"), load_data("mnist")
    assert a.classes == b.classes and len(a.splits["test"]) == 10000
    ready, bad = decode_split(a.splits["test"].take(np.arange(50)), (28, 28, 1), PLAIN)
    assert not bad and ready.images.shape == (50, 28, 28, 1)
    x = {im.tobytes() for im in b.splits["test"].images}
    assert all(im.tobytes() in x for im in ready.images), "the same digits, in another order"
