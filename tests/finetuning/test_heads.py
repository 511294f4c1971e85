"""Linear heads: exact against scikit-learn, chosen by cross-validation, folded back to features as they came."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import average_precision_score

from kzoo.finetuning.heads import (
    HeadObjective,
    Rows,
    cross_validate,
    fit_head,
    fit_one_vs_rest,
    folds,
    logistic,
    prototypes,
    ridge,
    ridge_folds,
    threads,
)


def blobs(n=90, d=20, classes=3, seed=0, apart=1.5):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    centres = rng.normal(size=(classes, d)) * apart
    return (centres[y] + rng.normal(size=(n, d)) + 5).astype("float32"), y


def scaled(rows, x):
    return (x - rows.mean) / rows.scale


@pytest.mark.parametrize("n", [90, 15])  # more photos than features, and fewer: two ways to compute
def test_logistic_is_scikit_learns(n):
    x, y = blobs(n)
    rows = Rows(x)
    kernel, bias = rows.unfold(*logistic(rows, y, 3, 1.0))
    reference = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000).fit(scaled(rows, x), y)
    ours, theirs = x @ kernel + bias, reference.decision_function(scaled(rows, x))
    np.testing.assert_allclose(ours - ours.mean(1, keepdims=True), theirs - theirs.mean(1, keepdims=True), atol=0.02)


@pytest.mark.parametrize("n", [90, 15])
def test_ridge_is_scikit_learns_with_class_weights(n):
    x, y = blobs(n)
    rows, objective = Rows(x), HeadObjective((1.0, 3.0, 0.5))
    w = objective.weights(y)
    kernel, bias = rows.unfold(*ridge(rows, y, 3, 0.3, objective))
    reference = Ridge(alpha=0.3 * w.sum() / 100).fit(scaled(rows, x), np.eye(3)[y], sample_weight=w)
    np.testing.assert_allclose(x @ kernel + bias, reference.predict(scaled(rows, x)), atol=1e-4)


@pytest.mark.parametrize("weights", [None, (1.0, 3.0, 0.5)])
@pytest.mark.parametrize("n", [90, 15])
def test_out_of_fold_ridge_is_scikit_learns_fold_by_fold(n, weights):
    x, y = blobs(n)
    rows, objective = Rows(x).principal(), HeadObjective(weights)
    held_out, w = [np.arange(0, n, 4), np.arange(1, n, 3)], objective.weights(y)
    for strength, scores in zip((0.003, 3.0), ridge_folds(rows, y, 3, (0.003, 3.0), held_out, objective), strict=True):
        expected = []
        for h in held_out:
            fold = np.delete(np.arange(n), h)
            reference = Ridge(alpha=strength * w[fold].sum() / 100)
            reference.fit(scaled(rows, x[fold]), np.eye(3)[y[fold]], sample_weight=w[fold])
            expected.append(reference.predict(scaled(rows, x[h])))
        np.testing.assert_allclose(scores, np.concatenate(expected), atol=1e-4)


def test_cross_validated_losses_are_scikit_learns(monkeypatch):
    x, y = blobs(60, 8, apart=0.5)
    rows, fold = Rows(x), np.random.default_rng(0)
    with threads(x.size):
        table, _, _ = cross_validate(rows, y, 3, seed=0)
        monkeypatch.setattr("kzoo.finetuning.heads.MAX_UNKNOWNS", 1)  # one fold after another
        alone, _, _ = cross_validate(rows, y, 3, seed=0)
        ours, theirs = ({r["strength"]: r["loss"] for r in t if r["kind"] == "logistic"} for t in (table, alone))
        np.testing.assert_allclose(list(ours.values()), list(theirs.values()), atol=1e-3)
        z, losses = scaled(rows, x), []
        for parts in (folds(y, np.arange(60), fold) for _ in range(3)):
            for k in range(5):
                fitted = LogisticRegression(C=3.0, tol=1e-6, max_iter=5000).fit(z[parts != k], y[parts != k])
                p = fitted.predict_proba(z[parts == k])
                losses.append(-np.log(p[np.arange(len(p)), y[parts == k]]))
    np.testing.assert_allclose(ours[3.0], np.concatenate(losses).mean(), atol=5e-4)


def test_axes_of_a_sample_give_the_same_fit(monkeypatch):
    x, y = blobs(400, 30, apart=0.4)
    with threads(x.size):
        whole = Rows(x)
        expected = whole.unfold(*logistic(whole, y, 3, 30.0))
        for most in (100, 20):  # a sample with more photos than features, and one with fewer
            monkeypatch.setattr("kzoo.finetuning.heads.MAX_CV_IMAGES", most)
            rows = Rows(x)
            assert rows.axes[0].shape == (30, min(most - 1, 30))
            for ours, theirs in zip(rows.unfold(*logistic(rows, y, 3, 30.0)), expected, strict=True):
                np.testing.assert_allclose(ours, theirs, atol=0.01)


@pytest.mark.parametrize("n", [90, 15])
def test_prototypes_are_the_nearest_class_means(n):
    x, y = blobs(n, apart=0.5)
    rows = Rows(x)
    kernel, bias = rows.unfold(*prototypes(rows, y, 3))
    means = np.stack([x[y == k].mean(0) for k in range(3)])
    distance = ((x[:, None] - means) ** 2).sum(-1) / rows.scale**2
    logits = x @ kernel + bias
    np.testing.assert_allclose(logits - logits[:, :1], -(distance - distance[:, :1]), atol=2e-3)


@pytest.mark.parametrize(
    "objective",
    [
        HeadObjective(),
        HeadObjective((1.0, 2.0, 0.5)),
        HeadObjective(smoothing=0.2),
        HeadObjective(focal=2.0),
        HeadObjective((0.5, 1.0, 2.0), 0.1, 0.5),
    ],
)
def test_objective_and_its_gradient(objective):
    rng = np.random.default_rng(1)
    z, y = rng.normal(size=(5, 3)) * 2, np.array([0, 1, 2, 1, 0])
    w = objective.weights(y)

    def by_hand(z):
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        t = np.eye(3)[y] * (1 - objective.smoothing) + objective.smoothing / 3
        each = -(t * (1 - p) ** objective.focal * np.log(p)).sum(1)
        return float((w * each).sum())

    loss, gradient = objective(z, y, w)
    np.testing.assert_allclose(loss, by_hand(z), rtol=1e-10)
    for i in np.ndindex(z.shape):
        step = np.zeros_like(z)
        step[i] = 1e-6
        np.testing.assert_allclose(gradient[i], (by_hand(z + step) - by_hand(z - step)) / 2e-6, atol=1e-7)


def test_focal_loss_of_lin_et_al():
    """FL(p_t) = -(1 - p_t)^gamma log p_t, at p_t = 0.9 and 0.1 with gamma 2."""
    for p, expected in ((0.9, -0.01 * np.log(0.9)), (0.1, -0.81 * np.log(0.1))):
        z = np.log([[p, 1 - p]])
        np.testing.assert_allclose(HeadObjective(focal=2.0)(z, np.array([0]), np.ones(1))[0], expected, rtol=1e-9)


def test_many_photos_and_classes_are_looked_at_in_pieces(monkeypatch):
    rng = np.random.default_rng(0)
    z, y, w = rng.normal(size=(101, 7)), rng.integers(0, 7, 101), rng.uniform(0.5, 2, 101)
    whole = HeadObjective(None, 0.1, 2.0)(z, y, w)
    monkeypatch.setattr("kzoo.finetuning.heads.CHUNK", 50)
    loss, gradient = HeadObjective(None, 0.1, 2.0)(z, y, w)
    np.testing.assert_allclose(loss, whole[0], rtol=1e-12)
    np.testing.assert_array_equal(gradient, whole[1])


def test_the_scale_is_the_root_of_the_mean_square_distance():
    x = np.random.default_rng(0).normal(size=(2049, 3)).astype("float32")
    x[-1] *= 50
    want = np.sqrt(np.square(x - x.mean(0, dtype="float64")).sum(1).mean())
    np.testing.assert_allclose([Rows(x).scale, Rows(x[::-1]).scale], want, rtol=1e-6)


def test_folds_keep_groups_whole_and_classes_even():
    y = np.array([0] * 20 + [1] * 10 + [2])
    groups = np.arange(31)
    groups[:4] = 0
    groups[4] = groups[20]  # a duplicate with another label
    fold = folds(y, groups, np.random.default_rng(0))
    assert fold[30] == -1, "a class with one photo always trains"
    assert len(set(fold[:4])) == 1 and fold[4] == fold[20]
    for k in range(5):
        assert (fold[:20] == k).any() and (fold[y == 1] == k).any()


def test_cross_validation_prefers_what_generalises():
    x, y = blobs(60, 200, 2, apart=0.25)
    head = fit_head(x, y, 2)
    fresh, truth = blobs(2000, 200, 2, apart=0.25)
    table = head.table
    assert {r["kind"] for r in table} == {"logistic", "ridge", "prototypes"}
    assert table[0]["kind"] == head.kind and all(r["loss"] > 0 for r in table)
    rng = np.random.default_rng(7)
    noise = rng.normal(size=(60, 200)).astype("float32")
    found, _, _ = cross_validate(Rows(noise), y, 2)
    assert found[0]["loss"] < 0.80 and found[0]["accuracy"] < 0.75, "noise is not believed"
    assert np.mean(head.logits(fresh).argmax(1) == truth) > 0.75


def test_one_photo_in_a_class_and_one_in_each():
    x, y = blobs(12, 8, 2)
    y = np.array([0] * 11 + [1])
    head = fit_head(x, y, 2)
    assert np.isfinite(head.kernel).all() and set(head.tested) == set(range(11))
    alone = fit_head(x[:2], np.array([0, 1]), 2)
    assert alone.kind == "prototypes" and alone.table == []
    assert (alone.logits(x[:2]).argmax(1) == [0, 1]).all()


def test_the_same_seed_gives_the_same_head_and_like_keeps_the_choice():
    x, y = blobs(80, 30, 2, apart=0.4)
    a, b = fit_head(x, y, 2, seed=3), fit_head(x, y, 2, seed=3)
    np.testing.assert_array_equal(a.kernel, b.kernel)
    again = fit_head(x[:60], y[:60], 2, like=a)
    assert (again.kind, again.strength) == (a.kind, a.strength)


def test_the_polish_serves_the_asked_objective():
    x, y = blobs(80, 30, 2, apart=0.4)
    plain = fit_head(x, y, 2)
    smooth = fit_head(x, y, 2, objective=HeadObjective(smoothing=0.2))

    def top(h):
        return np.exp(h.logits(x).max(1) - np.logaddexp.reduce(h.logits(x), 1)).mean()

    assert top(smooth) < top(plain), "smoothed labels make a less certain head"
    noisy = np.random.default_rng(0).integers(0, 2, 80)  # nothing to learn: the weight decides

    def said(o):
        return (fit_head(x, noisy, 2, objective=o).logits(x).argmax(1) == 1).sum()

    assert said(HeadObjective((1.0, 20.0))) > said(HeadObjective((20.0, 1.0)))


def test_many_photos_are_not_copied():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5000, 16)).astype("float32")
    y = (x[:, 0] + 0.1 * rng.normal(size=5000) > 0).astype(int)
    rows = Rows(x)
    assert rows.z is x
    assert np.mean(fit_head(x, y, 2).logits(x).argmax(1) == y) > 0.95


def test_one_vs_rest_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 6)).astype("float32")
    y = (x @ rng.normal(size=(6, 3)) + rng.normal(size=(120, 3)) > [0, 1, -1]).astype("uint8")
    head = fit_one_vs_rest(x, y)
    assert head.kind == "one-vs-rest" and head.kernel.shape == (6, 3) and head.bias.dtype == np.float32
    centred = x - x.mean(0)
    centred /= np.sqrt(np.square(centred).sum(1).mean())
    for k, (own, row) in enumerate(zip(head.each, head.table, strict=True)):
        assert row["class"] == k and (row["kind"], row["strength"]) == (own.kind, own.strength)
        np.testing.assert_allclose(head.logits(x)[:, k], np.diff(own.logits(x))[:, 0], atol=1e-5)
        if own.kind == "logistic":  # two columns of weights, w and -w: twice the penalty's strength of one
            other = LogisticRegression(C=2 * own.strength, tol=1e-8, max_iter=5000).fit(centred, y[:, k])
            np.testing.assert_allclose(head.logits(x)[:, k], other.decision_function(centred), atol=0.01)
    assert {own.kind for own in head.each} == {"logistic"}, "else the comparison says little"
    again = fit_one_vs_rest(x, y, like=head)
    np.testing.assert_allclose(again.kernel, head.kernel, atol=1e-5)
    assert again.folded is None and len(head.tested) == 120 and head.folded.shape == (120, 3)
    apart = [average_precision_score(y[:, k], head.folded[:, k]) for k in range(3)]
    assert min(apart) > 0.6


def test_one_vs_rest_keeps_the_photos_that_every_class_was_tested_on():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 4)).astype("float32"), np.zeros((20, 2), int)
    y[:10, 0], y[3, 1] = 1, 1  # the only photo of a class always trains
    head = fit_one_vs_rest(x, y)
    assert 3 not in head.tested and len(head.tested) == 19 == len(head.folded)
