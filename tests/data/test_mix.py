"""Mixup and CutMix."""

import numpy as np


def test_mixtures():
    import tensorflow as tf

    from kzoo.data.mix import mixed

    x = np.stack([np.full((8, 8, 3), v, "uint8") for v in (0, 80, 160, 240)])
    data = tf.data.Dataset.from_tensors((x, np.eye(4, dtype="float32"))).repeat(6)
    for kind in ("mixup", "cutmix"):
        for a, b in zip(mixed(data, kind, 3), mixed(data, kind, 3), strict=True):
            pixels, labels = (t.numpy() for t in a)
            np.testing.assert_array_equal(pixels, b[0])
            np.testing.assert_allclose(labels.sum(1), 1, atol=1e-6)
            np.testing.assert_allclose(pixels.mean((1, 2, 3)), labels @ [0, 80, 160, 240], atol=1e-3)
            later = next(iter(mixed(data, kind, 3, epoch=1)))
            assert not np.array_equal(later[1], next(iter(mixed(data, kind, 3)))[1])
            if kind == "cutmix":
                assert set(np.unique(pixels)) <= {0, 80, 160, 240}
