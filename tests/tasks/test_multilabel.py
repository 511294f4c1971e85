"""Several labels for an image: losses, metrics and thresholds against numbers by hand and scikit-learn."""

import json
import shutil

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score, precision_recall_fscore_support
from support import tags

import kzoo
from kzoo.data.dataset import DataSet, Split
from kzoo.errors import KzooError, RunError
from kzoo.exporting.reader import Export
from kzoo.serving.app import json_classifier
from kzoo.tasks import find, task_for
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
    low, high = found.interval
    assert low < found.mean_average_precision < high and f"% [{low:.2%}, {high:.2%}]," in str(found)
    rng, again = np.random.default_rng(1), []
    for _ in range(200):
        i = rng.integers(0, 60, 60)
        again.append(average_precision_score(labels[i], p[i]))
    np.testing.assert_allclose([low, high], np.percentile(again, [2.5, 97.5]), atol=0.03)
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
    assert (
        empty.interval is None
        and empty.mean_average_precision is None
        and empty.exact == 1
        and TASK.headline(vars(empty)) == "none"
    )


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
    group, certainty = task.certainty(z)
    assert list(group) == [1, 0]
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


def test_a_new_network_starts_at_the_shares_of_the_classes():
    labels = np.zeros((99, 3), "uint8")
    labels[:24, 0], labels[:, 2] = 1, 1
    network = kzoo.build("mnist_softmax", num_classes=3, input_shape=(2, 2, 1))
    kernel = np.array(network.layers[-1].kernel)
    TASK.prepare(network, labels)
    found = 1 / (1 + np.exp(-np.array(network.layers[-1].bias, "float64")))
    np.testing.assert_allclose(found, [24.5 / 100, 0.5 / 100, 99.5 / 100], rtol=1e-4)
    np.testing.assert_array_equal(network.layers[-1].kernel, kernel)
    TASK.prepare(keras.Sequential([keras.Input((3,)), keras.layers.ReLU(name="predictions")]), labels)  # no bias
    find("classification").prepare(network, labels)


def test_the_best_epoch_is_that_of_the_lowest_loss():
    better, f1_better = {"val_loss": 0.2, "val_f1": 0.5}, {"val_loss": 0.3, "val_f1": 0.9}
    assert TASK.score(better) > TASK.score(f1_better)
    assert TASK.score({"epoch": 2}) > TASK.score({"epoch": 1}), "without a validation part the last one"


# --- every verb ---

PLAIN = Recipe("plain", "a test", optimizer="sgd", learning_rate=0.05, batch_size=16, epochs=8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A softmax regression's network, trained on a table of pictures with several labels."""
    root = tmp_path_factory.mktemp("tags")
    table = tags.write(root / "data", 240)
    return kzoo.train("mnist_softmax", table, input_shape=(16, 16, 3), recipe=PLAIN, out=root / "run", quiet=True)


def test_a_table_with_several_labels_trains_and_is_evaluated(run, kzoo_command):
    assert run.config["task"] == "multilabel" and run.classes == tags.CLASSES
    metrics = json.loads((run.path / "metrics.json").read_text())
    assert metrics["val_f1"] > 0.8 and run.task.decision == metrics["decision"]
    assert {r["label"] for r in run.division()} > {"", "blue", "blue; green; red"}
    result = kzoo.evaluate(run, quiet=True)
    assert result.split == "test" and result.images == 48 and result.mean_average_precision > 0.9
    assert json.loads((run.path / "evaluation-test.json").read_text())["per_class"] == result.per_class
    assert [row["threshold"] for row in result.per_class] == metrics["decision"]["thresholds"]
    code, out, _ = kzoo_command("evaluate", run.path, "--split", "val")
    assert code == 0 and "mAP" in out and metrics["decision"]["reason"] in out


def test_a_run_decides_again_when_it_is_resumed_and_by_its_own_thresholds(run, tmp_path):
    again = shutil.copytree(run.path, tmp_path / "again")
    metrics = json.loads((again / "metrics.json").read_text())
    (again / "metrics.json").unlink()
    assert kzoo.train(out=again, resume=True, quiet=True).task.decision == metrics["decision"]
    metrics["decision"]["thresholds"] = [0.0, 0.0, 1.0]
    (again / "metrics.json").write_text(json.dumps(metrics))
    (row,) = kzoo.predict(again, run.config["data"].replace("tags.csv", "p/000.png"))
    assert [t["class"] for t in sorted(row["labels"], key=lambda t: t["class"])] == ["blue", "green"]
    metrics["decision"]["thresholds"] = [0.5]
    (again / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(KzooError, match="expected 3 numbers"):
        kzoo.evaluate(again, quiet=True)


@pytest.mark.deep("2026-11-27")
def test_predict_and_an_export_answer_with_all_labels(run, tmp_path, kzoo_command):
    images, _ = tags.drawn(20, seed=7)
    paths = [tmp_path / f"{i:02}.png" for i in range(20)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    answers = list(kzoo.predict(run, paths))
    assert {len(a["labels"]) for a in answers} >= {0, 1, 2}
    code, out, _ = kzoo_command("predict", run.path, *paths, "--csv")
    assert code == 0 and out.splitlines()[0] == "image,error,labels,probabilities"
    (tmp_path / "seen.csv").write_text(out)
    found = kzoo.load_data(tmp_path / "seen.csv", val_fraction=0, test_fraction=0)
    assert found.several and len(found.splits["train"]) == 20, "what predict writes can be read as data"
    code, out, _ = kzoo_command("predict", run.path, *paths[:2], "--json")
    assert code == 0 and [r["labels"] for r in json.loads(out)] == [a["labels"] for a in answers[:2]]

    folder = kzoo.export(run, ("saved_model", "onnx", "litert"), out=tmp_path / "export", quiet=True)
    card = json.loads((folder / "card.json").read_text())
    assert card["task"] == "multilabel" and card["decision"] == run.task.decision
    assert card["measured"]["original"]["mean_average_precision"] > 0.9
    text = (folder / "card.md").read_text()
    assert run.task.decision["reason"] in text and "softmax(" not in text and "Wilson" not in text
    loaded = Export(folder)
    for a, b in zip(kzoo.predict(loaded, paths), answers, strict=True):
        assert [t["class"] for t in a["labels"]] == [t["class"] for t in b["labels"]]
        probabilities = [[t["probability"] for t in row["labels"]] for row in (a, b)]
        np.testing.assert_allclose(*probabilities, atol=1e-5)
    assert loaded.answer([b"no image"])[0]["error"] == "is not a JPEG, PNG, GIF, BMP or WebP image"
    served, bad = json_classifier(loaded)([paths[0].read_bytes(), b"no image"])
    found = {c: p for c, p in zip(served["labels"], served["probabilities"], strict=True) if c}
    assert list(found) == [t["class"] for t in answers[0]["labels"]] and len(served["labels"]) == 3
    assert bad["error"] and bad["labels"] == [""] * 3


def test_what_several_labels_can_not_do_is_refused_in_a_line(run, tmp_path):
    table = run.config["data"]
    with pytest.raises(KzooError, match="abstain needs a classifier"):
        kzoo.export(run, out=tmp_path / "e", abstain=0.9, quiet=True)
    with pytest.raises(KzooError, match="Unknown loss 'hinge'"):
        kzoo.train("mnist_softmax", table, loss="hinge", out=tmp_path / "r", quiet=True)
    with pytest.raises(KzooError, match="several labels an image, and kzoo scout takes one class"):
        kzoo.scout(table)
    assert not any(tmp_path.iterdir())


def test_other_data_is_measured_by_the_names_of_its_classes(run, tmp_path, capsys):
    images, labels = tags.drawn(12, seed=3)
    np.savez(tmp_path / "x.npz", images=images, labels=labels[:, ::-1], classes=np.array(tags.CLASSES[::-1]))
    all_three = kzoo.evaluate(run, tmp_path / "x.npz", quiet=True)
    assert [r["images"] for r in all_three.per_class] == labels.sum(0).tolist()
    np.savez(tmp_path / "y.npz", images=images[:2], labels=np.array([0, 1]), classes=np.array(["red", "blue"]))
    one = kzoo.evaluate(run, tmp_path / "y.npz", quiet=True)
    said = capsys.readouterr().err
    assert [r["images"] for r in one.per_class] == [1, 0, 1] and "has one label an image" in said
    assert "has no class 'green', which" in said and "no image counts as having it" in said


def test_a_network_for_something_else_refuses_several_labels(trained, tmp_path):
    images, labels = tags.drawn(10)
    several = DataSet("tags", tags.CLASSES, {"train": Split(images, labels, [str(i) for i in range(10)])})
    single = DataSet(
        "one", tags.CLASSES, {"train": Split(images, labels[:, 0].astype(int), several.splits["train"].ids)}
    )
    assert task_for("classification", several) is task_for("multilabel", several) is find("multilabel")
    with pytest.raises(RunError, match="'tags' has several labels an image, and the network is for brightness"):
        task_for("brightness", several)
    with pytest.raises(RunError, match="'one' has one class an image, and the network is for several"):
        task_for("multilabel", single)
    digits = np.zeros((4, 8, 8), "uint8")
    np.savez(tmp_path / "x.npz", images=digits, labels=np.array([[1, 1], [0, 1], [0, 0], [1, 0]]))
    with pytest.raises(RunError, match=r"has several labels an image, and .* was trained for one class"):
        kzoo.evaluate(shutil.copytree(trained, tmp_path / "run"), tmp_path / "x.npz", quiet=True)
