"""The sanity check of Adebayo et al. 2018 finds what is known of a network."""

import numpy as np
from scipy.stats import spearmanr

from kzoo.visualizing.attribution import gradient, magnitude
from kzoo.visualizing.projection import guided_backpropagation
from kzoo.visualizing.sanity import randomised, similarity


def test_guided_backpropagation_does_not_see_the_classifier_and_the_gradient_does(shipped):
    """vgg_cifar10 with its top layer randomised: guided above 0.9, gradient below 0.7; on photos 0.998 and 0.36."""
    network, photos = shipped
    other, top = randomised(network)
    assert top == "predictions"
    changed = [
        v.path for v, w in zip(network.model.weights, other.model.weights, strict=True) if not np.array_equal(v, w)
    ]
    assert {path.split("/")[0] for path in changed} == {"predictions"}
    found = {}
    for name, method in (("gradient", gradient), ("guided", lambda *a: guided_backpropagation(*a).maps)):
        pairs = zip(method(network, photos, 3), method(other, photos, 3), strict=True)
        found[name] = np.mean([similarity(a, b) for a, b in pairs])
    print(found)
    assert found["guided"] > 0.9 and found["gradient"] < 0.7


def test_similarity_is_spearmans_of_absolute_values():
    a, b = np.random.default_rng(0).normal(0, 1, (2, 5, 4, 3)).round(1)
    expected = spearmanr(np.abs(a).reshape(-1), np.abs(b).reshape(-1)).statistic
    np.testing.assert_allclose(similarity(a, b), expected, rtol=1e-6)
    assert similarity(a, -3 * a) > 0.999999 and similarity(np.zeros((2, 2)), np.ones((2, 2))) == 0
    assert magnitude(np.array([[[-3.0, 2.0]]])) == 3
