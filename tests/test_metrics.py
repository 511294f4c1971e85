"""Metrics against SciPy, scikit-learn, hand-written numbers and the definitions."""

import numpy as np
import pytest
from scipy import special
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import average_precision_score, f1_score
from support.calibrated import drawn

from kzoo.metrics import (
    MIN_TEMPERATURE_MISTAKES,
    average_precision,
    best_f1_threshold,
    bootstrap_interval,
    calibration_error,
    choose_temperature,
    choose_threshold,
    class_intervals,
    class_scores,
    cross_fitted,
    f1_of,
    fit_temperature,
    label_log_losses,
    log_losses,
    log_mean_softmax,
    mcnemar,
    negative_log_likelihood,
    paired_difference,
    reliability,
    softmax,
    top_k_hits,
    weighted_calibration_error,
    weighted_mean_average_precision,
    wilson,
)

# --- softmax and top-k ---


def test_softmax_is_that_of_scipy_and_does_not_overflow():
    rng = np.random.default_rng(0)
    for scale in (1e-3, 1.0, 30.0, 1e4):
        z = rng.normal(0, scale, (50, 7)).astype("float32")
        found = softmax(z)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, special.softmax(z.astype("float64"), axis=-1), rtol=1e-12, atol=1e-300)
        np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-12)


def test_the_negative_log_likelihood_is_that_of_scipys_softmax():
    rng = np.random.default_rng(1)
    z, y = rng.normal(0, 3, (40, 6)), rng.integers(0, 6, 40)
    for temperature in (0.5, 1.0, 2.5):
        want = -np.log(special.softmax(z / temperature, axis=-1)[np.arange(40), y]).mean()
        np.testing.assert_allclose(negative_log_likelihood(z, y, temperature), want, rtol=1e-12)


def test_top_k_is_numpys_stable_sort_with_ties():
    rng = np.random.default_rng(2)
    tied = 0
    for _ in range(500):
        n, classes = rng.integers(1, 20), rng.integers(1, 12)
        z = rng.integers(-2, 3, (n, classes)).astype("float32")  # few values, so many are equal
        tied += any(len(np.unique(row)) < classes for row in z)
        y = rng.integers(0, classes, n)
        order = np.argsort(-z, axis=-1, kind="stable")
        for k in range(1, classes + 2):
            np.testing.assert_array_equal(top_k_hits(z, y, k), (order[:, :k] == y[:, None]).any(1))
        np.testing.assert_array_equal(top_k_hits(z, y), z.argmax(-1) == y)
    assert tied > 400


@pytest.mark.parametrize("k", [1, 2, 3, 4, 10])
def test_a_row_with_nan_is_never_a_hit(k):
    z = np.array([[np.nan, 1, 2, 3], [3, np.nan, 2, 1], [np.nan] * 4, [3, 2, 1, np.nan], [4, 3, 2, 1]])
    assert top_k_hits(z, np.array([0, 0, 1, 3, 0]), k).tolist() == [False, False, False, False, True]
    for label in range(4):
        assert not top_k_hits(z[:4], np.full(4, label), k).any()


@pytest.mark.parametrize("value", [0.0, -7.5, 1e30])
def test_equal_logits_hit_the_first_classes_only(value):
    labels = np.arange(6)
    for k in range(1, 7):
        assert top_k_hits(np.full((6, 6), value), labels, k).tolist() == (labels < k).tolist()


def test_as_many_answers_as_classes_hit_every_finite_row():
    rng = np.random.default_rng(3)
    z, y = rng.normal(0, 1, (30, 5)), rng.integers(0, 5, 30)
    for k in (5, 6, 100):
        assert top_k_hits(z, y, k).all()
    z[7, 2] = np.nan
    assert np.flatnonzero(~top_k_hits(z, y, 5)).tolist() == [7]


# --- calibration ---


def test_calibration_error_by_hand_and_bin_by_bin():
    p = np.array([[0.95, 0.05], [0.85, 0.15], [0.45, 0.55], [1.0, 0.0]])
    y = np.array([0, 1, 1, 0])
    # Bins of 15: 0.95 and 1.0 in the last (0.933, 1], 0.85 in (0.8, 0.867], 0.55 in (0.533, 0.6].
    want = (2 * abs(1 - 0.975) + abs(0 - 0.85) + abs(1 - 0.55)) / 4
    np.testing.assert_allclose(calibration_error(p, y), want, rtol=1e-12)
    assert [r["images"] for r in reliability(p, y) if r["images"]] == [1, 1, 2]
    z, y = drawn(500, 4, 0.7)
    p = special.softmax(z, -1)
    total = 0.0
    for b in range(10):  # the definition, in another arrangement
        inside = [i for i in range(500) if b / 10 < p[i].max() <= (b + 1) / 10]
        total += abs(sum(p[i].argmax() == y[i] for i in inside) - sum(p[i].max() for i in inside)) / 500
    np.testing.assert_allclose(calibration_error(p, y, bins=10), total, rtol=1e-9)


@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_the_temperature_is_the_true_one_and_the_best_of_a_grid(true):
    z, y = drawn(6000, 5, true)
    found = fit_temperature(z, y)
    np.testing.assert_allclose(found, true, rtol=0.06)
    grid = np.exp(np.linspace(np.log(0.1), np.log(10), 400))
    p = [-np.log(special.softmax(z / t, -1)[np.arange(len(y)), y]).mean() for t in grid]
    assert negative_log_likelihood(z, y, found) <= min(p) + 1e-9
    assert abs(np.log(found / grid[np.argmin(p)])) < 0.02


def test_a_temperature_that_can_not_be_fitted_is_one():
    z = np.array([[5.0, 0.0], [0.0, 3.0]])
    assert fit_temperature(z, np.array([0, 1])) == 1.0  # all right: it would go to 0
    assert fit_temperature(np.zeros((0, 2)), np.zeros(0, int)) == 1.0
    assert np.isfinite(fit_temperature(z * 1e4, np.array([1, 0])))


def test_a_temperature_is_used_where_it_helps_out_of_fold():
    for true, n in ((3.0, 300), (0.4, 2000)):
        z, y = drawn(n, 5, true)
        found = choose_temperature(z, y, seed=1)
        assert found.temperature == found.fitted == fit_temperature(z, y) and found.images == n
        # The rule, in other words: the mean of -log p before minus after, and its standard error.
        p, q = (special.softmax(x, -1)[np.arange(n), y] for x in (z, cross_fitted(z, y, seed=1)))
        saved = np.log(q / p)
        np.testing.assert_allclose((found.gain, found.error), (saved.mean(), saved.std(ddof=1) / n**0.5), rtol=1e-9)
        assert found.gain > found.error and found.mistakes == (z.argmax(1) != y).sum()
        assert found.reason.startswith(f"Temperature {found.fitted:.3g}: it lowers the log loss of {n:,} validation")
        fresh, labels = drawn(5000, 5, true, seed=9)
        after = negative_log_likelihood(fresh, labels, found.temperature)
        assert after < negative_log_likelihood(fresh, labels)


def test_a_temperature_is_not_used_where_it_does_not_help():
    kept = 0
    for seed in range(20):  # calibrated as they are
        z, y = drawn(150, 3, 1.0, seed)
        found = choose_temperature(z, y)
        kept += found.temperature != 1
        assert (found.temperature == 1) == (found.gain <= found.error) == found.reason.startswith("Temperature 1, no")
        assert found.fitted == fit_temperature(z, y)
    assert kept <= 4, "as often as a normal variable exceeds one standard deviation, at most"
    assert "does not clearly lower the log loss of 150 validation images out of fold" in found.reason or kept


def test_few_images_or_mistakes_fit_no_temperature():
    found = choose_temperature(*drawn(9, 3, 3.0))
    assert found.temperature == 1 != found.fitted and found.gain is None and "9 validation images" in found.reason
    # 49 images of which one is narrowly wrong: the fit becomes as sure as that one allows.
    z, y = np.array([[4.0, 0.0]] * 48 + [[1.0, 1.1]]), np.zeros(49, int)
    found = choose_temperature(z, y)
    assert found.fitted < 0.5 and found.temperature == 1 and found.mistakes == 1
    assert "1 of 49 validation images are misclassified; fewer than 5" in found.reason
    z[:MIN_TEMPERATURE_MISTAKES] = [0.0, 8.0]  # surely wrong
    found = choose_temperature(z, y)
    assert found.temperature == found.fitted > 2 and found.mistakes == MIN_TEMPERATURE_MISTAKES + 1
    nothing = choose_temperature(np.zeros((0, 3)), np.zeros(0, int))
    assert (nothing.temperature, nothing.images, nothing.mistakes) == (1.0, 0, 0)


def test_cross_fitting_uses_no_fold_on_itself():
    z, y = drawn(200, 3, 2.0)
    scaled = cross_fitted(z, y, seed=4)
    ratio = (z / scaled)[:, 0]
    temperatures = np.unique(ratio.round(9))
    assert len(temperatures) == 5
    for t in temperatures:
        rest = abs(ratio - t) > 1e-6
        assert rest.sum() == 160
        np.testing.assert_allclose(t, fit_temperature(z[rest], y[rest]), rtol=1e-6)
    np.testing.assert_array_equal(scaled, cross_fitted(z, y, seed=4))


def test_accuracy_and_confidence_of_a_bin_are_those_of_its_images():
    z, y = drawn(400, 3, 1.0)
    p = softmax(z)
    confidence, right = p.max(-1), p.argmax(-1) == y
    rows = reliability(p, y, bins=7)
    assert sum(r["images"] for r in rows) == 400
    for row in rows:
        inside = (confidence > row["low"]) & (confidence <= row["high"])
        assert row["images"] == inside.sum()
        if not inside.any():
            assert row["accuracy"] is None and row["confidence"] is None
            continue
        np.testing.assert_allclose(
            [row["accuracy"], row["confidence"]], [right[inside].mean(), confidence[inside].mean()]
        )
    assert calibration_error(np.zeros((0, 3)), np.zeros(0, int)) == 0


# --- intervals and scores by class ---


def test_wilsons_interval_is_that_of_scipy():
    rng = np.random.default_rng(4)
    cases = [(right, n) for n in range(1, 31) for right in range(n + 1)]
    for n in rng.integers(31, 10**6, 300).tolist():
        cases += [(0, n), (n, n), (int(rng.integers(0, n + 1)), n)]
    for right, n in cases:
        theirs = binomtest(right, n).proportion_ci(method="wilson")
        np.testing.assert_allclose(
            wilson(right, n), [theirs.low, theirs.high], rtol=0, atol=1e-12, err_msg=f"{right}/{n}"
        )


def test_class_scores_are_those_of_scikit_learn_and_their_intervals_those_of_drawn_images():
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 240)
    predicted = np.where(rng.random(240) < 0.75, y, rng.integers(0, 3, 240))
    confusion = confusion_matrix(y, predicted)
    want = np.array(precision_recall_fscore_support(y, predicted)[:3]).T
    np.testing.assert_allclose(class_scores(confusion), want)
    draws = []
    for _ in range(1500):
        i = rng.integers(0, 240, 240)
        draws.append(class_scores(confusion_matrix(y[i], predicted[i], labels=[0, 1, 2])))
    np.testing.assert_allclose(
        class_intervals(confusion), np.moveaxis(np.percentile(draws, [2.5, 97.5], axis=0), 0, -1), atol=0.02
    )
    empty = class_intervals(np.array([[3, 0], [0, 0]]))
    assert np.isnan(empty[1]).all() and (empty[0] == 1).all()


def test_the_average_of_probabilities_is_numpys():
    rng = np.random.default_rng(0)
    logits, temperatures = rng.normal(0, 4, (3, 50, 7)), (1.0, 2.0, 0.5)
    want = np.mean([softmax(z / t) for z, t in zip(logits, temperatures, strict=True)], 0)
    found = log_mean_softmax(logits, temperatures)
    np.testing.assert_allclose(np.exp(found), want, rtol=1e-12)
    np.testing.assert_allclose(softmax(found), want, rtol=1e-12)
    far = log_mean_softmax([[[0.0, 1e4]], [[0.0, 2e4]]], (1.0, 1.0))  # probabilities that float64 does not hold
    np.testing.assert_allclose(far, [[-1e4 - np.log(2), 0.0]])
    broken = log_mean_softmax([[[0.0, np.nan], [np.inf, 0]], np.zeros((2, 2))], (1.0, 1.0))
    assert np.isnan(broken).any(1).all()
    labels = np.arange(50) % 7
    np.testing.assert_allclose(log_losses(logits[0], labels).mean(), negative_log_likelihood(logits[0], labels))


@pytest.mark.parametrize(("gained", "lost", "n"), [(30, 10, 1000), (0, 0, 20), (5, 0, 5), (12, 41, 597)])
def test_two_accuracies_on_the_same_images(gained, lost, n):
    # Wald's interval of the mean of n + 2 differences of -1, 0 and 1, with half an image more in each of four cells.
    values, weights = np.array([1, -1, 0]), np.array([gained + 0.5, lost + 0.5, n - gained - lost + 1.0])
    mean = np.average(values, weights=weights)
    half = 1.959963984540054 * np.sqrt(np.average((values - mean) ** 2, weights=weights) / (n + 2))
    want = np.clip([mean - half, mean + half], -1, 1)
    np.testing.assert_allclose(paired_difference(gained, lost, n), want, rtol=1e-12)
    p = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    np.testing.assert_allclose(mcnemar(gained, lost), p, rtol=1e-12)


def test_the_bootstrap_is_that_of_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.2, 1, 300), rng.normal(0, 1, 300)
    found = bootstrap_interval(lambda counts: counts @ (x - y) / 300, 300, resamples=4000)
    want = bootstrap((x - y,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    np.testing.assert_allclose(found, want, atol=0.015)  # the same draws would be needed for equal numbers


def test_the_calibration_error_of_repeated_images_is_the_weighted_one():
    logits, labels = drawn(200, 5, 2.0, seed=3)
    p, counts = softmax(logits), np.random.default_rng(0).integers(0, 4, 200)
    error = weighted_calibration_error(p, labels)
    np.testing.assert_allclose(error(np.ones(200)), calibration_error(p, labels))
    np.testing.assert_allclose(error(counts), calibration_error(p.repeat(counts, 0), labels.repeat(counts)))


def test_average_precision_and_f1_are_scikit_learns_also_with_equal_scores():
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 200):
        scores, positive = rng.integers(0, 6, n) / 6, rng.random(n) < 0.4
        positive[0] = True
        np.testing.assert_allclose(average_precision(scores, positive), average_precision_score(positive, scores))
        t = best_f1_threshold(scores, positive)
        found = f1_of(scores >= t, positive)
        np.testing.assert_allclose(found, f1_score(positive, scores >= t))
        np.testing.assert_allclose(found, max(f1_score(positive, scores >= s) for s in scores))
    assert average_precision([0.3, 0.2], [False, False]) is None
    assert f1_of([False], [False]) == 0


def test_a_threshold_needs_images_of_both_kinds_and_a_gain_out_of_fold():
    p, y = np.linspace(0, 1, 40), np.arange(40) >= 10
    assert choose_threshold(p, y)[0] == pytest.approx((p[9] + p[10]) / 2)
    assert choose_threshold(p, np.arange(40) >= 9) == (0.5, "9 without it")
    assert choose_threshold(p[:19], np.arange(19) >= 10) == (0.5, "9 with it")
    assert choose_threshold(p, np.arange(40) >= 20) == (0.5, "no better out of fold")


def test_weighted_mean_average_precision_is_that_of_repeated_images():
    rng = np.random.default_rng(0)
    positive = rng.random((40, 3)) < [0.5, 0.2, 0.1]
    scores = np.round(positive + rng.normal(0, 1, (40, 3)), 1)  # with equal ones
    measure = weighted_mean_average_precision(scores, positive)
    np.testing.assert_allclose(measure(np.ones(40, int)), average_precision_score(positive, scores))
    counts = rng.integers(0, 4, 40)
    again = np.repeat(np.arange(40), counts)
    np.testing.assert_allclose(measure(counts), average_precision_score(positive[again], scores[again]))
    counts[positive[:, 2]] = 0  # a class that no image has is in no mean
    again = np.repeat(np.arange(40), counts)
    np.testing.assert_allclose(measure(counts), average_precision_score(positive[again, :2], scores[again, :2]))
    assert np.isnan(measure(np.zeros(40, int)))


def test_label_log_losses_by_hand_and_without_overflow():
    found = label_log_losses([[np.log(3), -np.log(3)], [-800.0, 0.0]], np.array([[1, 1], [0, 1]]))
    np.testing.assert_allclose(found, [(-np.log(0.75) - np.log(0.25)) / 2, np.log(2) / 2])
