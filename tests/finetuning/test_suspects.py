"""Suspect labels: planted ones are found, few others are."""

import numpy as np

from kzoo.finetuning.suspects import suspects


def test_planted_wrong_labels_are_suspect_and_few_others_are():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 40)
    x = np.eye(3)[y] @ rng.normal(0, 1, (3, 20)) * 3 + rng.normal(0, 0.4, (120, 20))
    given = y.copy()
    given[[5, 50]] = [2, 0]
    found = suspects(x * rng.uniform(0.1, 10, (120, 1)), given)  # cosine: lengths do not matter
    assert {(s["index"], s["label"], s["suggested"]) for s in found} == {(5, 2, 0), (50, 0, 1)}
    assert all(0.5 < s["share"] <= 1 for s in found)
    z = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = z @ z[5]
    cosine[5] = -2
    nearest = np.argsort(-cosine)[:10]
    (five,) = (s for s in found if s["index"] == 5)
    np.testing.assert_allclose(five["similarity"], cosine[nearest].mean(), rtol=1e-4)
    np.testing.assert_allclose(five["share"], (given[nearest] == 0).mean())


def test_rare_classes_are_judged_by_as_many_neighbours_as_they_have():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 0.1, (50, 4)) + [9, 0, 0, 0], rng.normal(0, 0.1, (3, 4)) + [0, 9, 0, 0]])
    y = np.repeat([0, 1], [50, 3])
    assert suspects(x, y) == [] == suspects(x[:51], y[:51]) == suspects(x[:1], y[:1])
    assert len(suspects(np.zeros((30, 4)), np.arange(30) % 2)) <= 30, "features without direction do no harm"
