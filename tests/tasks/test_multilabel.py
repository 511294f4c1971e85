"""Several labels for an image: losses, metrics and thresholds against numbers by hand and scikit-learn."""

import keras
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_recall_fscore_support

from kzoo.errors import KzooError, RunError
from kzoo.tasks.multilabel import TASK, binary_cross_entropy, f1, focal, label_accuracy
from kzoo.training.recipes import Recipe

CLASSES = ("cat", "dog", "frog")


def numpy(x):
    return keras.ops.convert_to_numpy(x)


def some(n=60, seed=0):
    """(logits, multi-hot labels) of three classes that the logits tell from one another, more or less."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 3)) < [0.5, 0.3, 0.4]).astype("uint8")
    return (2.0 * labels - 1.5 + rng.normal(0, 1, (n, 3))).astype("float32"), labels


def test_losses_by_hand():
    y, z = np.array([[1, 0], [0, 1]], "float32"), np.array([[np.log(3), 0], [0, -np.log(3)]], "float32")
    # p = 3/4 where there, 1/2 where absent; then 1/2 where absent and 1/4 where there
    entropy = [(-np.log(0.75) - np.log(0.5)) / 2, (-np.log(0.5) - np.log(0.25)) / 2]
    np.testing.assert_allclose(numpy(binary_cross_entropy()(y, z)), entropy, rtol=1e-6)
    squares = [(0.25**2 * -np.log(0.75) + 0.5**2 * -np.log(0.5)) / 2]
    squares += [(0.5**2 * -np.log(0.5) + 0.75**2 * -np.log(0.25)) / 2]
    np.testing.assert_allclose(numpy(focal()(y, z)), squares, rtol=1e-6)
    far = np.array([[500.0, -500.0]], "float32")
    assert numpy(binary_cross_entropy()(y[:1], far)) == 0 and numpy(binary_cross_entropy()(y[1:], far)) == 500
    assert numpy(focal()(y[:1], far)) == 0 and numpy(focal()(y[1:], far)) == 500


def test_losses_smooth_as_the_recipe_says_and_refuse_a_rubbish_class():
    z, labels = some(6)
    y = labels.astype("float32")
    smooth = Recipe("smooth", "a test", label_smoothing=0.2)
    for loss in (binary_cross_entropy, focal):
        want = loss()(y * 0.8 + 0.1, z)
        np.testing.assert_allclose(numpy(loss(smooth)(y, z)), numpy(want), rtol=1e-6)
        with pytest.raises(RunError, match=f"The loss {loss.__name__} has no rubbish class, and the recipe lenet"):
            loss(Recipe("lenet", "a test", rubbish=1.0))
    np.testing.assert_array_equal(numpy(TASK.loss(smooth)(y, z)), numpy(binary_cross_entropy(smooth)(y, z)))
    with pytest.raises(KzooError, match=r"Unknown loss 'hinge'.*multilabel has: binary_cross_entropy, focal"):
        TASK.loss(Recipe("mine", "a test", loss="hinge"))


def test_metrics_of_an_epoch_are_scikit_learns():
    z, labels = some()
    labels[:5], z[:3] = 0, -1  # no label, and for three of these none is predicted
    y, predicted = labels.astype("float32"), z >= 0
    want = f1_score(labels, predicted, average="samples", zero_division=1)
    np.testing.assert_allclose(numpy(f1(y, z)).mean(), want, rtol=1e-6)
    np.testing.assert_allclose(numpy(label_accuracy(y, z)).mean(), (predicted == labels).mean(), rtol=1e-6)


def test_evaluate_is_scikit_learns_with_thresholds_by_class():
    z, labels = some()
    labels[:7] = 0
    thresholds = [0.5, 0.3, 0.6]
    task = TASK.decided({"thresholds": thresholds, "reason": "By hand."}, CLASSES)
    found = task.evaluate(z, labels, CLASSES, run="r", data="d", split="test")
    p = 1 / (1 + np.exp(-z.astype("float64")))
    predicted = p >= thresholds
    scores = average_precision_score(labels, p, average=None)
    np.testing.assert_allclose([r["average_precision"] for r in found.per_class], scores)
    np.testing.assert_allclose(found.mean_average_precision, average_precision_score(labels, p))
    precision, recall, each, support = precision_recall_fscore_support(labels, predicted)
    for key, want in (("precision", precision), ("recall", recall), ("f1", each), ("images", support)):
        np.testing.assert_allclose([r[key] for r in found.per_class], want)
    assert [r["threshold"] for r in found.per_class] == thresholds
    np.testing.assert_allclose(found.f1_macro, each.mean())
    np.testing.assert_allclose(found.f1_micro, f1_score(labels, predicted, average="micro"))
    assert found.exact == (predicted == labels).all(1).mean() and found.unlabelled == (~labels.any(1)).sum()
    entropy = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean()
    np.testing.assert_allclose(found.loss, entropy, rtol=1e-6)
    assert f"mAP {found.mean_average_precision:.2%}" in str(found) and str(found).endswith("By hand.")
    assert "0.600" in next(line for line in str(found).splitlines() if line.startswith("frog"))
    np.testing.assert_allclose(task.scores(z, labels)["f1_micro"], found.f1_micro)


def test_a_class_that_no_image_has_is_in_no_mean_and_nan_counts_as_wrong():
    z = np.array([[1.0, -1, -1], [-1, -1, 2], [np.nan, 0, 0]])
    labels = np.array([[1, 0, 0], [0, 0, 1], [1, 0, 0]])
    found = TASK.evaluate(z, labels, CLASSES, run="", data="", split="all")
    cat, dog, frog = found.per_class
    assert dog["average_precision"] is None and dog["images"] == 0
    # The third image: behind both others for cat; before both for frog, which it has not.
    np.testing.assert_allclose([cat["average_precision"], frog["average_precision"]], [(1 + 2 / 3) / 2, 1 / 2])
    np.testing.assert_allclose(found.mean_average_precision, (cat["average_precision"] + 0.5) / 2)
    assert found.not_finite == 1 and found.exact == 2 / 3 and cat["recall"] == 0.5
    assert "1 images have outputs that are NaN" in str(found) and "none" in str(found)
    empty = TASK.evaluate(np.array([[-1.0, -1, -1]]), np.zeros((1, 3), int), CLASSES, run="", data="", split="all")
    assert empty.mean_average_precision is None and empty.exact == 1 and TASK.headline(vars(empty)) == "none"


def test_answer_has_all_at_or_above_their_thresholds_and_perhaps_none():
    task = TASK.decided({"thresholds": [0.5, 0.2, 0.8], "reason": ""}, CLASSES)
    z = np.log([[1.0, 1 / 3, 3], [0.5, 1 / 9, 0.1]])  # p: 1/2, 1/4, 3/4; 1/3, 1/10, 1/11
    first, second = task.answer(z, CLASSES, top=1)
    assert [(t["class"], round(t["probability"], 9)) for t in first["labels"]] == [("cat", 0.5), ("dog", 0.25)]
    assert second == {"labels": []} and task.row_text(second) == "(no label)"
    assert task.row_text(first) == "cat 50.0%, dog 25.0%"
    assert dict(zip(task.columns(1), task.cells(first, 1), strict=True)) == {
        "labels": "cat; dog",
        "probabilities": "0.500000; 0.250000",
    }
    assert task.cells({"error": "x"}, 1) == ["", ""] and "error" in task.rows(z * np.nan, CLASSES, 5)[0]
    assert list(task.same(z, z + [[0, 0, 1], [0.1, 0, 0]])) == [False, True]
    _, certainty = task.certainty(z)
    np.testing.assert_allclose(certainty, [0, np.log(2)], atol=1e-9)


def test_thresholds_are_chosen_where_enough_images_tell():
    rng = np.random.default_rng(0)
    labels = np.zeros((400, 3), "uint8")
    labels[:100, 0], labels[:9, 1], labels[:100, 2] = 1, 1, 1
    z = rng.normal(0, 1, (400, 3)) + 3 * labels
    z[:, 0] -= 5  # shifted: far too few at 0.5
    z[:, 2] = np.where(labels[:, 2] == 1, 2, -2)  # nothing to gain
    decision = TASK.decide(z, labels, CLASSES)
    cat, dog, frog = decision["thresholds"]
    p = 1 / (1 + np.exp(-z[:, 0]))
    best = max(f1_score(labels[:, 0], p >= t) for t in p)
    assert f1_score(labels[:, 0], p >= cat) == best and cat < 0.2
    assert dog == frog == 0.5
    assert decision["reason"] == (
        "Thresholds: of highest F1 on 400 validation images for 1 of 3 classes, 0.5 for dog (9 with it), frog (no "
        "better out of fold)."
    )
    assert decision == TASK.decide(z, labels, CLASSES)
    none = TASK.decide(np.zeros((0, 3)), np.zeros((0, 3), int), CLASSES)
    assert none["thresholds"] == [0.5] * 3 and "no validation images" in none["reason"]


@pytest.mark.parametrize("wrong", [[], {"thresholds": [0.5] * 2, "reason": ""}, {"thresholds": [0.5, 2, 0]}, "x"])
def test_thresholds_that_do_not_fit_are_refused(wrong):
    with pytest.raises(KzooError, match=r"expected 3 numbers in 0\.\.1"):
        TASK.decided(wrong, CLASSES)
    assert TASK.decided(None, CLASSES) is TASK


def test_a_class_without_a_training_image_is_refused():
    with pytest.raises(RunError, match="No usable training image is left of class 'frog'"):
        TASK.check_labels(np.array([[1, 1, 0]]), CLASSES)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="an export is TensorFlow's")
def test_signature_is_the_answer():
    z, _ = some(20)
    task = TASK.decided({"thresholds": [0.5, 0.3, 0.9], "reason": ""}, CLASSES)
    found = {k: np.asarray(v) for k, v in task.signature(z, CLASSES, top=5, temperature=1.0, threshold=None).items()}
    for labels, p, row in zip(found["labels"], found["probabilities"], task.answer(z, CLASSES, 5), strict=True):
        n = len(row["labels"])
        assert [x.decode() for x in labels[:n]] == [t["class"] for t in row["labels"]] and not any(labels[n:])
        np.testing.assert_allclose(p[:n], [t["probability"] for t in row["labels"]], rtol=1e-5)
        assert not p[n:].any()
    assert [ok for _, ok, _ in task.check_signature(found, z, {"classes": CLASSES})] == [True, True]
    moved = task.check_signature(found, z + 0.1, {"classes": CLASSES})
    assert not moved[0][1]
