"""The terms of the objective against the papers' closed forms, finite differences and NumPy."""

import keras
import numpy as np
import pytest

from kzoo.synthesis import losses
from kzoo.synthesis.objective import differentiable

rng = np.random.default_rng(0)
# A picture of features with ReLU's zeros in it: (1, 5, 6, 4), in float64.
F, P = (np.maximum(rng.normal(size=(1, 5, 6, 4)), 0) for _ in "FP")
M, N = 30, 4


@pytest.fixture(autouse=True)
def in_float64():
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_dtype_policy("float64")
    keras.config.set_floatx("float64")
    yield
    keras.config.set_dtype_policy(before[0])
    keras.config.set_floatx(before[1])


def slope(function, x, *arguments):
    """(value, gradient) of function(x, *arguments), computed in float64."""
    same = keras.Sequential([keras.Input((None, None, x.shape[-1])), keras.layers.Identity()])
    (value, _), gradient = differentiable(same, lambda y, a: (function(y, *a), ()))(x, arguments)
    return float(value), np.asarray(gradient)


def by_differences(function, x, step=1e-6):
    gradient = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        gradient[i] = (function(up) - function(down)) / (2 * step)
    return gradient


def test_content_loss_is_the_papers():
    value, gradient = slope(losses.content_loss, F, P)
    np.testing.assert_allclose(value, 0.5 * np.sum((F - P) ** 2), rtol=1e-12)
    np.testing.assert_allclose(gradient, F - P, rtol=1e-12)  # eq. 2


def test_style_loss_is_the_papers():
    f, p = F.reshape(M, N).T, P.reshape(M, N).T  # the paper's F: filters x positions
    g, a = f @ f.T, p @ p.T
    value, gradient = slope(lambda x, t: losses.style_loss(losses.gram(x) / M, t), F, a[None] / M)
    np.testing.assert_allclose(value, np.sum((g - a) ** 2) / (4 * N**2 * M**2), rtol=1e-12)  # eq. 4
    expected = (f.T @ (g - a)).T / (N**2 * M**2)  # eq. 6, where F > 0; F = 0 is ReLU's to stop
    np.testing.assert_allclose(gradient.reshape(M, N).T, expected, rtol=1e-10, atol=1e-14)


def test_style_loss_takes_m_for_each_picture():
    """A painting of twice the positions, but the same textures, is no further away."""
    tall = np.concatenate([F, F], 1)
    target = keras.ops.convert_to_numpy(losses.gram(tall)) / (2 * M)
    np.testing.assert_allclose(float(losses.style_loss(losses.gram(F) / M, target)), 0, atol=1e-20)


def test_style_slope_is_the_derivative():
    g, a = (rng.normal(size=(2, 3, 3)) for _ in "ga")
    positions = np.array([7.0, 11.0])

    def value(g):
        return float(losses.style_loss(g / positions[:, None, None], a))

    ours = losses.style_slope(g / positions[:, None, None], a, positions)
    np.testing.assert_allclose(ours, by_differences(value, g), rtol=1e-6, atol=1e-9)


def test_total_variation():
    x = rng.normal(size=(1, 4, 5, 3))
    expected = np.sum(np.diff(x, axis=1) ** 2) + np.sum(np.diff(x, axis=2) ** 2)
    value, gradient = slope(losses.total_variation, x)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient, by_differences(lambda x: float(losses.total_variation(x)), x), atol=1e-6)


def test_out_of_range():
    x = np.array([-3.0, 0.0, 100.0, 255.0, 257.0, 300.0]).reshape(1, 1, 2, 3)
    value, gradient = slope(losses.out_of_range, x)
    np.testing.assert_allclose(value, 9 + 4 + 45**2)
    np.testing.assert_allclose(gradient.ravel(), [-6, 0, 0, 0, 4, 90])


def test_power_norm():
    x = np.array([127.5, 129.5, 0.0]).reshape(1, 1, 1, 3)
    value, gradient = slope(losses.power_norm, x)
    np.testing.assert_allclose(value, 2**6 + 127.5**6)
    np.testing.assert_allclose(gradient.ravel(), [0, 6 * 2**5, -6 * 127.5**5])


def test_guided_grams_share_out_the_whole():
    mask = rng.uniform(size=(1, 5, 6, 1))
    parts = losses.gram(F, [mask, 1 - mask])
    np.testing.assert_allclose(np.sum(parts, 0), losses.gram(F)[0], rtol=1e-12)
    np.testing.assert_array_equal(losses.gram(F, np.stack([mask, 1 - mask])), parts)
    f = F.reshape(M, N)
    np.testing.assert_allclose(parts[0], (f * mask.reshape(M, 1)).T @ f, rtol=1e-12)


def test_the_gram_matrix_has_its_gradient_for_any_slope():
    """Sum S * G for a slope that is not symmetric: m F (S + S^T)."""
    mask, s = rng.uniform(size=(1, 5, 6, 1)), rng.normal(size=(2, N, N))
    value, gradient = slope(lambda x, m, s: keras.ops.sum(s * losses.gram(x, [m, 1 - m])), F, mask, s)
    f, m = F.reshape(M, N), mask.reshape(M, 1)
    np.testing.assert_allclose(value, np.sum(s[0] * ((f * m).T @ f) + s[1] * ((f * (1 - m)).T @ f)), rtol=1e-12)
    expected = m * f @ (s[0] + s[0].T) + (1 - m) * f @ (s[1] + s[1].T)
    np.testing.assert_allclose(gradient.reshape(M, N), expected, rtol=1e-10)


def test_sixteen_bits_do_not_reach_the_sums():
    ones = keras.ops.cast(np.ones((1, 200, 300, 2)), "bfloat16")
    assert (np.asarray(losses.gram(ones)) == 60_000).all()  # bfloat16 has 59,904 and 60,160
    f = np.abs(rng.normal(size=(1, 101, 103, 3))).astype("float32")
    half = keras.ops.cast(f, "bfloat16")
    exact = np.asarray(keras.ops.cast(half, "float64")).reshape(-1, 3)
    found = np.asarray(losses.gram(half))[0]
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, exact.T @ exact, rtol=2e-3)  # one rounding of the sum: up to 4e-3


def test_the_gradient_of_the_style_loss_in_sixteen_bits():
    half = keras.Sequential([keras.Input((None, None, N), dtype="float32"), keras.layers.Identity(dtype="bfloat16")])
    run = differentiable(half, lambda x, a: (losses.style_loss(losses.gram(x) / M, a), ()))
    _, gradient = run(F.astype("float32"), np.zeros((1, N, N), "float32"))
    f = F.reshape(M, N)
    np.testing.assert_allclose(np.reshape(gradient, (M, N)), f @ f.T @ f / (N**2 * M**2), rtol=0.02)


def test_gradient_through_a_network_by_differences():
    """All terms at once, through convolutions, ReLU and pooling, in float64."""
    keras.utils.set_random_seed(0)
    x = image = keras.Input((None, None, 3))
    x = a = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    x = keras.layers.AveragePooling2D(2)(x)
    b = keras.layers.Conv2D(5, 3, padding="same", activation="relu")(x)
    model = keras.Model(image, [a, b])
    content, style, picture = rng.normal(size=(3, 1, 8, 10, 3))
    target, wanted = (keras.tree.map_structure(np.asarray, model(p)) for p in (content, style))

    def objective(outputs, a):
        total = 0.3 * losses.content_loss(outputs[1], a["content"])
        for f, t in zip(outputs, a["style"], strict=True):
            total = total + 2.0 * losses.style_loss(losses.gram(f) / (f.shape[1] * f.shape[2]), t)
        return total, ()

    grams = [np.asarray(losses.gram(f)) / (f.shape[1] * f.shape[2]) for f in wanted]
    run = differentiable(model, objective)
    arguments = {"content": target[1], "style": grams}
    gradient = np.asarray(run(picture, arguments)[1])
    assert gradient.dtype == "float64"
    numeric = by_differences(lambda x: float(run(x, arguments)[0][0]), picture, 1e-5)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-7)
