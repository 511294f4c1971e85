"""Segmentation: losses, figures and answers against hand-worked numbers, scikit-learn and SciPy."""

import keras
import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score

import kzoo
from kzoo.tasks import find
from kzoo.tasks.segmentation import central, palette
from kzoo.training.recipes import Recipe

TASK = find("segmentation")
CLASSES = ("sky", "tree", "road")
RNG = np.random.default_rng(0)
MASKS = RNG.integers(0, 3, (4, 6, 5)).astype("uint8")
MASKS[RNG.random(MASKS.shape) < 0.2] = 255
LOGITS = (3 * RNG.normal(size=(4, 6, 5, 3))).astype("float32")


def value(name, masks, logits, recipe=None):
    loss = (TASK.losses[name])(recipe)(keras.ops.convert_to_tensor(masks), keras.ops.convert_to_tensor(logits))
    return np.asarray(keras.ops.convert_to_numpy(loss))


def by_hand(probabilities):
    """Logits (1, 1, n, C) of these probabilities (n, C)."""
    return np.log(np.array(probabilities, "float32"))[None, None]


def test_losses_of_two_pixels_worked_by_hand():
    masks = np.array([[[0, 1, 255]]], "uint8")
    logits = by_hand([[0.8, 0.2], [0.4, 0.6], [0.01, 0.99]])  # the third pixel counts nowhere
    np.testing.assert_allclose(value("cross_entropy", masks, logits), [-(np.log(0.8) + np.log(0.6)) / 2], rtol=1e-5)
    np.testing.assert_allclose(
        value("focal", masks, logits), [-(0.04 * np.log(0.8) + 0.16 * np.log(0.6)) / 2], rtol=1e-5
    )
    # Class 0: both = 0.8, |A| = 0.8 + 0.4, |B| = 1; class 1: both = 0.6, |A| = 0.2 + 0.6, |B| = 1.
    dice = 1 - (2 * 0.8 / 2.2 + 2 * 0.6 / 1.8) / 2
    jaccard = 1 - (0.8 / 1.4 + 0.6 / 1.2) / 2
    np.testing.assert_allclose(value("dice", masks, logits), dice, rtol=1e-5)
    np.testing.assert_allclose(value("jaccard", masks, logits), jaccard, rtol=1e-5)
    for name in ("cross_entropy+dice", "cross_entropy+jaccard", "focal+dice", "focal+jaccard"):
        a, b = name.split("+")
        both = value(a, masks, logits) + value(b, masks, logits)
        np.testing.assert_allclose(value(name, masks, logits), both, rtol=1e-6)


def test_dice_is_the_mean_over_classes_that_occur_in_the_batch():
    masks = np.zeros((2, 1, 2), "uint8")
    logits = np.broadcast_to(by_hand([[0.5, 0.3, 0.2]]), (2, 1, 2, 3))
    np.testing.assert_allclose(value("dice", masks, logits), 1 - 2 * 2 / (2 + 4), rtol=1e-5)
    perfect = 50 * np.eye(3, dtype="float32")[np.where(MASKS == 255, 0, MASKS)]
    for name in ("dice", "jaccard"):
        assert value(name, MASKS, perfect) < 1e-6


def test_cross_entropy_is_the_mean_over_the_labelled_pixels_of_an_image():
    logs = log_softmax(LOGITS.astype("float64"), -1)
    for smoothing in (0.0, 0.1):
        recipe = Recipe("r", "", label_smoothing=smoothing)
        target = np.eye(3)[np.where(MASKS == 255, 0, MASKS)] * (1 - smoothing) + smoothing / 3
        want = [-(t * p).sum(-1)[m < 3].mean() for t, p, m in zip(target, logs, MASKS, strict=True)]
        np.testing.assert_allclose(value("cross_entropy", MASKS, LOGITS, recipe), want, rtol=1e-5)
    p = softmax(LOGITS.astype("float64"), -1)
    own = np.take_along_axis(p, np.where(MASKS == 255, 0, MASKS)[..., None].astype(int), -1)[..., 0]
    want = [(-((1 - o) ** 2) * np.log(o))[m < 3].mean() for o, m in zip(own, MASKS, strict=True)]
    np.testing.assert_allclose(value("focal", MASKS, LOGITS), want, rtol=1e-5)


def test_without_a_labelled_pixel_every_loss_is_zero_and_so_is_its_gradient():
    empty = np.full((2, 3, 3), 255, "uint8")
    for name in TASK.losses:
        np.testing.assert_array_equal(value(name, empty, np.ones((2, 3, 3, 4), "float32")), 0)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        z = tf.Variable(np.ones((2, 3, 3, 4), "float32"))
        for name in TASK.losses:
            with tf.GradientTape() as tape:
                loss = TASK.losses[name]()(tf.constant(empty), z)
            assert not np.any(tape.gradient(loss, z).numpy()), name


def test_a_smaller_output_is_compared_with_the_middle():
    assert central(np.arange(20).reshape(1, 4, 5), 2, 3).tolist() == [[[6, 7, 8], [11, 12, 13]]]
    for name in TASK.losses:
        small = LOGITS[:, 1:5, 1:4]
        np.testing.assert_allclose(value(name, MASKS, small), value(name, MASKS[:, 1:5, 1:4], small), rtol=1e-6)
    with pytest.raises(kzoo.KzooError, match=r"gives 6 x 5 pixels and the masks have 5 x 5"):
        value("dice", MASKS[:, :5], LOGITS)


def test_recipes_that_do_not_fit_are_refused():
    smooth, rubbish = Recipe("smooth", "", label_smoothing=0.1), Recipe("r", "", rubbish=1.0)
    for name in ("focal", "dice", "jaccard"):
        with pytest.raises(kzoo.KzooError, match=f"The loss {name} takes one class for each pixel.*smoothed by 0.1"):
            TASK.losses[name](smooth)
    TASK.losses["cross_entropy+dice"](smooth)
    for name in TASK.losses:
        with pytest.raises(kzoo.KzooError, match="has a rubbish class"):
            TASK.losses[name](rubbish)


def test_evaluation_is_that_of_scikit_learn_over_all_pixels():
    labelled = MASKS != 255
    true, predicted = MASKS[labelled], LOGITS.argmax(-1)[labelled]
    parts = [(LOGITS[:3], MASKS[:3]), (LOGITS[3:], MASKS[3:])]
    about = {"run": "r", "data": "d", "split": "test"}
    for found in (TASK.evaluate(LOGITS, MASKS, CLASSES, **about), TASK.evaluate_batches(parts, CLASSES, **about)):
        np.testing.assert_array_equal(found.confusion, confusion_matrix(true, predicted))
        iou = jaccard_score(true, predicted, average=None)
        np.testing.assert_allclose([row["iou"] for row in found.per_class], iou)
        np.testing.assert_allclose([row["dice"] for row in found.per_class], f1_score(true, predicted, average=None))
        assert found.mean_iou == pytest.approx(iou.mean()) and found.pixels == labelled.sum() and found.images == 4
        assert found.pixel_accuracy == pytest.approx((true == predicted).mean())
        logs = log_softmax(LOGITS.astype("float64"), -1)[labelled]
        assert found.loss == pytest.approx(-logs[np.arange(len(true)), true].mean())
    text = str(found)
    assert f"mean IoU {iou.mean():.2%}" in text and f"tree   {iou[1]:7.2%}" in text


def test_the_metrics_of_training_count_all_pixels_not_batches():
    iou, accuracy = TASK.trackers(3)
    for part in (slice(0, 3), slice(3, 4)):
        iou.update_state(MASKS[part].astype("float32"), LOGITS[part])
        accuracy.update_state(MASKS[part].astype("float32"), LOGITS[part])
    found = TASK.evaluate(LOGITS, MASKS, CLASSES, run="", data="", split="")
    assert float(iou.result()) == pytest.approx(found.mean_iou)
    assert float(accuracy.result()) == pytest.approx(found.pixel_accuracy)
    iou.reset_state()
    several = TASK.trackers(3, several=True)[0]
    for metric, z in ((iou, LOGITS), (several, np.stack([LOGITS, -LOGITS], 1))):
        metric.update_state(MASKS, z)
        assert float(metric.result()) == pytest.approx(found.mean_iou)


def test_a_class_that_is_nowhere_has_no_figure_and_nan_counts_as_wrong():
    masks, logits = np.zeros((2, 2, 2), "uint8"), np.zeros((2, 2, 2, 3), "float32")
    logits[..., 0] = 1
    logits[1, 0, 0, 2] = np.nan
    found = TASK.evaluate(logits, masks, CLASSES, run="", data="", split="")
    assert [row["iou"] for row in found.per_class] == [0.5, None, None] and found.mean_iou == 0.5
    assert found.pixel_accuracy == 0.5 and found.not_finite == 1 and found.confusion.sum() == 4
    assert "counted as wrong" in str(found) and "road         -       -" in str(found)
    nothing = TASK.evaluate(logits, masks + 255, CLASSES, run="", data="", split="")
    assert nothing.mean_iou == 0 and nothing.pixels == 0


def test_a_number_without_a_class_is_refused():
    for check in (
        lambda masks: TASK.check_labels(masks, CLASSES),
        lambda masks: TASK.evaluate(LOGITS, masks, CLASSES, run="", data="", split=""),
    ):
        with pytest.raises(kzoo.KzooError, match=r"holds the number 7; there are 3 classes, so pixels are 0 to 2"):
            check(np.where(MASKS == 1, 7, MASKS).astype("uint8"))
    with pytest.raises(kzoo.KzooError, match="No pixel of the training masks has a label"):
        TASK.check_labels(np.full((2, 2, 2), 255, "uint8"), CLASSES)
    TASK.check_labels(MASKS, CLASSES)


def test_answers_are_shares_of_the_pixels():
    logits = np.zeros((1, 2, 5, 3), "float32")
    logits[0, 0, :3, 2] = 1
    (row,) = TASK.answer(logits, CLASSES, 5)
    assert row == {"top": [{"class": "sky", "share": 0.7}, {"class": "road", "share": pytest.approx(0.3)}]}
    assert TASK.row_text(row) == "sky 70.0%, road 30.0%"
    assert TASK.columns(2) == ["class_1", "share_1", "class_2", "share_2"]
    assert TASK.cells({"top": row["top"][:1]}, 2) == ["sky", "0.700000", "", ""]


def test_the_same_answer_allows_one_pixel_in_a_hundred():
    expected = np.zeros((1, 20, 20, 2), "float32")
    expected[..., 0] = 1
    for flips, same in ((4, True), (5, False)):
        other = expected.copy()
        other[0, 0, :flips, 1] = 2
        assert TASK.same(other, expected).tolist() == [same]
    assert TASK.same(-expected[:, :1, :1], expected[:, :1, :1]).all(), "one pixel in any case"


def test_the_palette_is_that_of_pascal_voc():
    assert palette(4)[[0, 1, 2, 3, 7, 15, 20, 255]].tolist() == [
        *([0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [128, 128, 128], [192, 128, 128], [0, 64, 128]),
        [224, 224, 192],
    ]
