"""The sanity check of Adebayo et al. 2018 finds what is known of a network."""

import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import spearmanr

import kzoo
from kzoo.visualizing.attribution import gradient, magnitude
from kzoo.visualizing.gradients import scores
from kzoo.visualizing.network import find_network
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


CODE = """
import numpy as np, sys
from kzoo.visualizing import attribution, cam, projection
from kzoo.visualizing.network import find_network
network, x = find_network("vgg_cifar10"), np.load(sys.argv[1])
found = [attribution.gradient(network, x, 3), attribution.integrated_gradients(network, x, 3, steps=16).attributions]
found += [cam.gradcam(network, x, 3).maps, projection.deconvnet(network, x, 3).maps]
np.savez(sys.argv[2], *found)
"""


@pytest.mark.deep("2026-11-27")
def test_jax_gives_what_tensorflow_gives(shipped, tmp_path):
    np.save(tmp_path / "x.npy", shipped[1])
    found = []
    for backend in ("tensorflow", "jax"):
        out = tmp_path / f"{backend}.npz"
        environment = {**os.environ, "KERAS_BACKEND": backend}
        subprocess.run([sys.executable, "-c", CODE, tmp_path / "x.npy", out], check=True, env=environment)
        with np.load(out) as arrays:
            found.append([arrays[name] for name in arrays.files])
    # A point of the integral that lies on a ReLU's kink may fall to either side of it.
    for ours, theirs, most in zip(*found, (1e-5, 1e-2, 1e-5, 1e-5), strict=True):
        assert np.abs(ours - theirs).max() <= most * np.abs(ours).max()


@pytest.mark.deep("2026-11-27")
def test_the_check_on_photos(shared):
    """Sixteen photos of CIFAR-10: the gradient changes with the classifier, guided backpropagation does not."""
    network = find_network("vgg_cifar10")
    images = kzoo.load_data("cifar10").splits["test"].images[:16]
    x, (other, _) = network.batch(list(images)), randomised(network)
    targets = scores(network, x).argmax(-1)
    found = {}
    for rule, method in (("gradient", gradient), ("guided", lambda *a: guided_backpropagation(*a).maps)):
        pairs = zip(method(network, x, targets), method(other, x, targets), strict=True)
        found[rule] = np.mean([similarity(a, b) for a, b in pairs])
    print(found)
    assert found["guided"] > 0.9 and found["gradient"] < 0.7


def test_similarity_is_spearmans_of_absolute_values():
    a, b = np.random.default_rng(0).normal(0, 1, (2, 5, 4, 3)).round(1)
    expected = spearmanr(np.abs(a).reshape(-1), np.abs(b).reshape(-1)).statistic
    np.testing.assert_allclose(similarity(a, b), expected, rtol=1e-6)
    assert similarity(a, -3 * a) > 0.999999 and similarity(np.zeros((2, 2)), np.ones((2, 2))) == 0
    assert magnitude(np.array([[[-3.0, 2.0]]])) == 3
