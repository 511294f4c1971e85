"""The losses for classes: against numbers by hand, against loops, and through a run."""

import shutil

import keras
import numpy as np
import pytest
from scipy.special import softmax as softmax_of
from sklearn.utils.class_weight import compute_class_weight
from support.training import QUICK, history_of, same_run

import kzoo
from kzoo.data.batches import decode_split
from kzoo.data.dataset import DataSet, Split
from kzoo.errors import KzooError, RunError
from kzoo.graph.inference import predictor
from kzoo.metrics import TEMPERATURES, fit_temperature, negative_log_likelihood
from kzoo.tasks import find
from kzoo.tasks.classification import TASK, cross_entropy, hinge, mse
from kzoo.training.recipes import RECIPES, Recipe

PLAIN = QUICK.changed(label_smoothing=0.0)


def one_hot(labels, classes):
    return np.eye(classes, dtype="float32")[labels]


def some(n=6, classes=5):
    rng = np.random.default_rng(0)
    return rng.normal(0, 2, (n, classes)).astype("float32"), rng.integers(0, classes, n)


def test_hinge_is_the_lectures_sum():
    """CS231n, lecture 3: the cat, the car and the frog, whose mean is 5.27 on the slide with 5.3 for it."""
    scores = np.array([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]], "float32")
    found = np.asarray(hinge()(one_hot([0, 1, 2], 3), scores))
    np.testing.assert_allclose(found, [2.9, 0.0, 12.9], atol=1e-5)
    np.testing.assert_allclose(found.mean(), 15.8 / 3, rtol=1e-6)


def test_hinge_and_mse_are_their_formulas():
    z, labels = some()
    exact = z.astype("float64")
    want = [sum(max(0, s[j] - s[y] + 1) for j in range(5) if j != y) for s, y in zip(exact, labels, strict=True)]
    np.testing.assert_allclose(hinge()(one_hot(labels, 5), z), want, rtol=1e-5)
    p = np.exp(exact) / np.exp(exact).sum(-1, keepdims=True)
    want = [np.mean([(p[i, j] - (j == y)) ** 2 for j in range(5)]) for i, y in enumerate(labels)]
    np.testing.assert_allclose(mse()(one_hot(labels, 5), z), want, rtol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="one backend's gradients are enough")
def test_behind_a_softmax_that_is_certainly_wrong_only_mse_has_no_gradient():
    import tensorflow as tf

    z, y = tf.constant([[12.0, 0.0, 0.0]]), one_hot([1], 3)
    size = {}
    for loss in (cross_entropy, hinge, mse):
        with tf.GradientTape() as tape:
            tape.watch(z)
            value = tf.reduce_sum(loss()(y, z))
        size[loss] = float(tf.norm(tape.gradient(value, z)))
    assert size[mse] < 1e-4 and size[cross_entropy] > 1 and size[hinge] > 1


def test_weights_of_classes_count_an_image_as_often_as_its_class():
    y = np.eye(3, dtype="float32")[[0, 1, 0, 0]]
    z = np.array([[3.0, 1, 0], [0, 2, 2], [-1, 4, 1], [1, 1, 1]], "float32")
    weights = np.array([2.0, 0.5, 7.0])
    each = {
        "cross_entropy": -(y * np.log(softmax_of(z, -1))).sum(-1),
        "hinge": ((1 - y) * np.maximum(z - (y * z).sum(-1, keepdims=True) + 1, 0)).sum(-1),
        "mse": ((softmax_of(z, -1) - y) ** 2).mean(-1),
    }
    for name, values in each.items():
        loss = TASK.losses[name](None, weights)(y, z)
        assert float(np.mean(loss)) == pytest.approx((values * [2, 0.5, 2, 2]).mean(), rel=1e-5), name
    labels = np.array([0, 0, 0, 1])
    sklearns = compute_class_weight("balanced", classes=np.arange(2), y=labels)
    np.testing.assert_allclose(TASK.class_weights("balanced", labels, ("a", "b")), sklearns)
    TASK.check_class_weights({"a": 2.0}, ("a", "b"))
    with pytest.raises(kzoo.KzooError, match="Unknown class 'c'"):
        TASK.check_class_weights({"c": 2.0}, ("a", "b"))
    with pytest.raises(kzoo.KzooError, match="losses of multilabel take no weights of classes"):
        find("multilabel").check_class_weights("balanced", ("a", "b"))


def test_training_weighs_classes_and_records_it(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1)).astype("uint8")
    parts = {"train": np.arange(40), "val": np.arange(40, 60)}
    splits = {p: Split(x[i], (i % 2).astype("int64"), [f"{p}/{k}" for k in i]) for p, i in parts.items()}
    data, out = DataSet("noise", ("a", "b"), splits), tmp_path / "run"
    given = {"epochs": 1, "input_shape": (8, 8, 1), "out": out, "quiet": True}
    run = kzoo.train("mnist_softmax", data, class_weights={"b": 0.0}, learning_rate=2.0, **given)
    assert kzoo.evaluate(run, data, split="val", quiet=True).confusion.tolist() == [[10, 0], [10, 0]], (
        "b counts nothing"
    )
    assert run.config["class_weights"] == {"b": 0.0}
    assert kzoo.train(None, data, out=out, resume=True, quiet=True).config["class_weights"] == {"b": 0.0}
    with pytest.raises(kzoo.KzooError, match=r"can't be resumed with other settings\. .*class_weights"):
        kzoo.train(None, data, class_weights="balanced", out=out, resume=True, quiet=True)


def test_a_recipe_names_its_loss():
    z, labels = some()
    y = one_hot(labels, 5)
    for name, loss in (("hinge", hinge), ("mse", mse), ("cross_entropy", cross_entropy)):
        recipe = Recipe("mine", "a test", loss=name)
        np.testing.assert_array_equal(TASK.loss(recipe)(y, z), loss()(y, z))
    np.testing.assert_array_equal(TASK.loss()(y, z), cross_entropy()(y, z))
    with pytest.raises(KzooError, match=r"Unknown loss 'squared_error'.*classification has: cross_entropy, hinge, mse"):
        TASK.loss(Recipe("mine", "a test", loss="squared_error"))


@pytest.mark.parametrize("loss", ["hinge", "mse"])
@pytest.mark.parametrize(
    ("recipe", "what"), [("modern", "modern has labels smoothed by 0.1"), ("lenet", "has a rubbish class")]
)
def test_a_loss_of_one_class_refuses_what_it_would_drop(loss, recipe, what, tmp_path):
    with pytest.raises(RunError, match=f"The loss {loss} takes one class for each image.*{what}.*lecture_cnn"):
        kzoo.train("mnist_softmax", "digits", recipe=recipe, loss=loss, out=tmp_path / "r", quiet=True)
    assert not (tmp_path / "r").exists()
    assert RECIPES["lecture_cnn"].label_smoothing == 0 and RECIPES["lecture_cnn"].rubbish is None


@pytest.fixture(scope="module")
def margins(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "hinge"
    kzoo.train("mnist_softmax", "digits", recipe=PLAIN, loss="hinge", out=folder, quiet=True)
    return folder


def test_a_run_learns_by_its_loss_and_records_and_keeps_it(margins, tmp_path):
    history = history_of(margins)
    assert float(history[-1]["val_loss"]) < float(history[0]["val_loss"])
    again = shutil.copytree(margins, tmp_path / "again")
    with pytest.raises(RunError, match=r'recipe.loss: the run has "hinge", this command "mse"'):
        kzoo.train(out=again, loss="mse", resume=True, quiet=True)
    resumed = kzoo.train(out=again, resume=True, quiet=True)
    assert resumed.config["recipe"]["loss"] == "hinge"
    same_run(margins, again)


def test_evaluate_names_its_figure_and_a_temperature_calibrates_the_margins(margins):
    run = kzoo.load_run(margins)
    result = kzoo.evaluate(run, split="val", quiet=True)
    assert f"cross-entropy {result.loss:.4f}" in str(result).splitlines()[0]
    split, _ = decode_split(kzoo.load_data("digits").splits["val"], run.input_shape, run.preprocessing)
    logits = predictor(run.model)(np.asarray(split.images))
    np.testing.assert_allclose(negative_log_likelihood(logits, split.labels), result.loss, rtol=1e-4)
    temperature = fit_temperature(logits, split.labels)  # as kzoo export does
    assert TEMPERATURES[0] < temperature < TEMPERATURES[1]
    assert negative_log_likelihood(logits, split.labels, temperature) < result.loss


def test_the_command_says_what_hinge_logits_are(tmp_path, kzoo_command):
    code, _, err = kzoo_command(
        *("train", "mnist_softmax", "--loss", "hinge", "--epochs", "1", "--out", tmp_path / "r")
    )
    assert code == 0 and "Loss hinge. Its logits are margins" in err
