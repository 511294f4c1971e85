"""Segmentation: losses, figures and answers against hand-worked numbers, scikit-learn and SciPy."""

import base64
import io
import json
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image
from scipy.special import log_softmax, softmax
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score

import kzoo
from kzoo.catalog import registry
from kzoo.evaluating.loading import LoadedModel
from kzoo.exporting.reader import Export
from kzoo.finetuning.backbone import backbone
from kzoo.finetuning.scouting import scout
from kzoo.serving.app import json_classifier
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


def test_weights_of_classes_worked_by_hand():
    masks = np.array([[[0, 1, 255]]], "uint8")
    logits = by_hand([[0.8, 0.2], [0.4, 0.6], [0.01, 0.99]])
    weights = np.array([2.0, 0.5])
    entropy, focal = -np.log([0.8, 0.6]), -np.array([0.04, 0.16]) * np.log([0.8, 0.6])
    overlaps = {"dice": [2 * 0.8 / 2.2, 2 * 0.6 / 1.8], "jaccard": [0.8 / 1.4, 0.6 / 1.2]}
    expected = {
        "cross_entropy": (weights * entropy).sum() / 2,
        "focal": (weights * focal).sum() / 2,
        **{name: (weights * (1 - np.array(scores))).sum() / 2.5 for name, scores in overlaps.items()},
    }
    expected["cross_entropy+dice"] = expected["cross_entropy"] + expected["dice"]
    for name, want in expected.items():
        loss = TASK.losses[name](None, weights)(*map(keras.ops.convert_to_tensor, (masks, logits)))
        np.testing.assert_allclose(np.asarray(loss).ravel(), [want], rtol=1e-5, err_msg=name)
    labels = np.array([[[0, 0, 0, 1, 255]]], "uint8")  # 4 pixels: n / (C * n_c), and 1 for a class without pixels
    np.testing.assert_allclose(TASK.class_weights("balanced", labels, CLASSES), [4 / 9, 4 / 3, 1])
    np.testing.assert_allclose(TASK.class_weights({"road": 3.0}, labels, CLASSES), [1, 1, 3])
    assert TASK.class_weights(None, labels, CLASSES) is None


def test_a_stage_is_judged_by_the_iou_of_each_picture_and_of_all():
    losses, score = TASK.judge([(LOGITS[:3], MASKS[:3]), (LOGITS[3:], MASKS[3:])])
    about = {"run": "", "data": "", "split": ""}
    each = [TASK.evaluate(LOGITS[i : i + 1], MASKS[i : i + 1], CLASSES, **about).mean_iou for i in range(4)]
    np.testing.assert_allclose(1 - losses, each)
    assert score == pytest.approx(TASK.evaluate(LOGITS, MASKS, CLASSES, **about).mean_iou)


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


def test_networks_of_another_kind_are_refused_before_training():
    x = keras.Input((8, 8, 3))
    for y in (keras.layers.GlobalAveragePooling2D()(x), keras.layers.UpSampling2D()(x)):
        with pytest.raises(kzoo.KzooError, match=r"gives \(.*\) for 8 x 8 pixels; segmentation needs logits"):
            TASK.check_outputs(keras.Model(x, y))
    TASK.check_outputs(keras.Model(x, keras.layers.Conv2D(2, 3)(x)))


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


def test_the_same_answer_allows_one_pixel_in_a_hundred_and_what_rounding_decides():
    expected = np.zeros((1, 20, 20, 2), "float32")
    expected[..., 0] = 1
    for flips, same in ((4, True), (5, False)):
        other = expected.copy()
        other[0, 0, :flips, 1] = 2
        assert TASK.same(other, expected).tolist() == [same]
    assert TASK.same(-expected[:, :1, :1], expected[:, :1, :1]).all(), "one pixel in any case"
    expected[..., 1] = 0.99  # 1 % lower than the best, everywhere
    assert TASK.same(expected[..., ::-1], expected).all()
    expected[..., 1] = 0.97
    assert not TASK.same(expected[..., ::-1], expected).any()


def test_the_palette_is_that_of_pascal_voc():
    assert palette()[[0, 1, 2, 3, 7, 15, 20, 255]].tolist() == [
        *([0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [128, 128, 128], [192, 128, 128], [0, 64, 128]),
        [224, 224, 192],
    ]


# --- every verb, with a tiny network whose output is smaller than its input -----------------------------------------

COLOURS = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200]], "uint8")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(a folder of pictures and masks, the run of a network on it)."""
    root = tmp_path_factory.mktemp("segmentation")
    for name in ("images", "masks"):
        (root / "data" / name).mkdir(parents=True)
    (root / "data" / "classes.csv").write_text("name,r,g,b\nsky,0,0,0\ntree,9,9,9\nroad,255,0,0\nvoid,1,2,3\n")
    coded = np.array([[0, 0, 0], [9, 9, 9], [255, 0, 0], [1, 2, 3]], "uint8")
    for i in range(30):
        rng = np.random.default_rng(i)
        mask = rng.integers(0, 3, (4, 6)).repeat(5, 0).repeat(5, 1)
        picture = COLOURS[mask] + rng.integers(0, 40, (20, 30, 3)).astype("uint8")
        mask[0] = 3
        Image.fromarray(picture).save(root / "data" / "images" / f"{i}.png")
        Image.fromarray(coded[mask]).save(root / "data" / "masks" / f"{i}.png")
    row = kzoo.ModelSpec(
        *("pixels", "support.pixels:network", (16, 16, 3), 3, kzoo.Paper("None", "Nobody", 2026)),
        config={"margin": 2},
        preprocessing=kzoo.Preprocessing(scale=1 / 255, offset=0.0),
        task="segmentation",
    )
    kzoo.register(row)
    recipe = Recipe("p", "", learning_rate=0.02, batch_size=7, epochs=6, augment=(("flip", 0.5), ("brightness", 0.05)))
    run = kzoo.train("pixels", root / "data", recipe=recipe, loss="focal+dice", out=root / "run", quiet=True)
    yield root, run
    del registry.ROWS["pixels"]


def test_it_learns_and_is_measured_by_class(world, kzoo_command):
    _, run = world
    best = json.loads((run.path / "metrics.json").read_text())
    assert best["val_mean_iou"] > 0.6 and run.config["recipe"]["loss"] == "focal+dice"
    assert run.classes == ("sky", "tree", "road")
    code, out, _ = kzoo_command("evaluate", run.path)
    assert code == 0 and "mean IoU" in out and "road" in out
    written = json.loads((run.path / "evaluation-test.json").read_text())
    assert written["images"] == 6 and written["mean_iou"] > 0.6 and written["pixels"] == 6 * 12 * 12
    again = kzoo.train(out=run.path, resume=True, quiet=True)
    assert again.config["recipe"] == run.config["recipe"]
    validation = kzoo.evaluate(run, split="val", quiet=True)
    assert validation.mean_iou == pytest.approx(best["val_mean_iou"], abs=0.02), "one figure in training and afterwards"


def test_other_classes_are_matched_by_name(world, tmp_path):
    root, run = world
    shutil.copytree(root / "data", tmp_path / "same")
    rows = (root / "data" / "classes.csv").read_text().splitlines()
    (tmp_path / "same" / "classes.csv").write_text("\n".join([rows[0], *rows[:0:-1]]))
    found = kzoo.evaluate(run, tmp_path / "same", quiet=True)
    assert found.images == 30 and found.mean_iou > 0.6 and found.classes == run.classes
    (tmp_path / "same" / "classes.csv").write_text("\n".join(rows).replace("road", "river"))
    with pytest.raises(kzoo.KzooError, match="have the class 'river', which"):
        kzoo.evaluate(run, tmp_path / "same", quiet=True)


def test_masks_are_written_and_nothing_is_replaced(world, tmp_path, kzoo_command):
    root, run = world
    files = [root / "data" / "images" / f"{i}.png" for i in range(2)]
    (tmp_path / "no.png").write_bytes(b"no")
    code, out, err = kzoo_command("predict", run.path, *files, tmp_path / "no.png", "--out", tmp_path / "seen")
    assert code == 1 and "is not a JPEG" in err and len(out.splitlines()) == 2
    assert sorted(p.name for p in (tmp_path / "seen").iterdir()) == ["0-overlay.png", "0.png", "1-overlay.png", "1.png"]
    with Image.open(tmp_path / "seen" / "0.png") as image, Image.open(tmp_path / "seen" / "0-overlay.png") as over:
        mask = np.asarray(image)
        assert image.mode == "P" and image.size == (30, 20) and over.size == (30, 20) and over.mode == "RGB"
    truth = np.random.default_rng(0).integers(0, 3, (4, 6)).repeat(5, 0).repeat(5, 1)
    seen = mask != 255  # the output is the middle 12 x 12 of 16 x 16
    assert 0.3 < seen.mean() < 0.5 and (mask == truth)[seen].mean() > 0.6
    code, _, err = kzoo_command("predict", run.path, files[0], "--out", tmp_path / "seen")
    assert code == 1 and "would replace one in" in err
    with pytest.raises(kzoo.KzooError, match="Two images would be written as"):
        kzoo.predict(run, [files[0], files[0]], out=tmp_path / "twice")
    classifier = LoadedModel(find("classification"), ("a", "b"), lambda encoded, top: [])
    with pytest.raises(kzoo.KzooError, match="a model for classification are no pictures"):
        kzoo.predict(classifier, files, out=tmp_path / "none")


def test_tiles_keep_a_pictures_own_resolution(world, tmp_path, kzoo_command):
    """The network answers for the middle 12 x 12 of 16 x 16; by tiles for every pixel, as if the picture went on."""
    root, run = world
    picture = root / "data" / "images" / "0.png"
    code, out, err = kzoo_command("predict", run.path, picture, "--tiles", "--out", tmp_path / "seen")
    assert code == 0 and "Tiles of 16 x 16 pixels; 2 x 2 on each side overlap." in err
    mask = np.asarray(Image.open(tmp_path / "seen" / "0.png"))
    pixels = np.pad(np.asarray(Image.open(picture)), [(2, 2), (2, 2), (0, 0)], "reflect")
    layers = [run.model.get_layer(name) for name in ("preprocessing", "conv1", "predictions")]
    x = pixels[None].astype("float32")
    for layer in layers:  # the whole picture at once
        x = layer(x)
    np.testing.assert_array_equal(mask, np.asarray(x)[0, 2:-2, 2:-2].argmax(-1))
    share = float((mask == 0).mean())
    assert f"sky {share:.1%}" in out
    classifier = LoadedModel(find("classification"), ("a", "b"), lambda encoded, top: [])
    with pytest.raises(kzoo.KzooError, match="tiles are for masks; classification gives one answer for a picture"):
        kzoo.predict(classifier, picture, tiles=True)
    (tmp_path / "no.png").write_bytes(b"no")
    assert "error" in next(iter(kzoo.predict(run, tmp_path / "no.png", tiles=True)))


@pytest.mark.deep("2026-11-27")
def test_an_export_gives_masks_of_the_size_of_pictures(world, tmp_path):
    root, run = world
    folder = kzoo.export(run, ("saved_model", "onnx", "litert"), out=tmp_path / "export", quiet=True)
    assert kzoo.verify(folder)["ok"], "and no operation that other exports lack"
    card = json.loads((folder / "card.json").read_text())
    assert card["task"] == "segmentation" and card["measured"]["original"]["mean_iou"] > 0.6
    assert card["measured"]["formats"]["saved_model"]["agree"] == 1
    export = Export(folder)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype("uint8"))
    jpeg, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    picture.save(jpeg, "JPEG", exif=exif)
    files = [jpeg.getvalue(), (root / "data" / "images" / "3.png").read_bytes(), b"no image"]
    for name, data in zip("abc", files, strict=True):
        (tmp_path / f"{name}.jpg").write_bytes(data)
    of_run = list(kzoo.predict(run, [tmp_path / f"{name}.jpg" for name in "abc"]))
    rows = export.answer(files)
    assert rows[2] == {"error": "is not a JPEG, PNG, GIF, BMP or WebP image"}
    for row, other, size in zip(rows, of_run, ((50, 70), (30, 20)), strict=False):  # the JPEG lies on its side
        masks = [np.asarray(Image.open(io.BytesIO(base64.b64decode(r["mask"])))) for r in (row, other)]
        assert masks[0].shape == size[::-1] and (masks[0] != masks[1]).mean() < 0.02
    served = json_classifier(export)(files)
    assert served[0]["mask"] == rows[0]["mask"] and "logits" not in served[0] and served[2]["mask"] == ""
    pixels = np.asarray(Image.open(root / "data" / "images" / "3.png"))
    given = export.model.signatures["images"](image=pixels[None])
    assert base64.b64encode(given["mask"].numpy()[0]).decode() == rows[1]["mask"]


ALONE = """
import sys
for name in ("kzoo", "keras", "PIL", "sklearn", "scipy"):
    sys.modules[name] = None
import numpy as np, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
run = model.signatures["serving_default"]
golden = np.load(sys.argv[1] + "/golden.npz")
whole, lengths = golden["bytes"].tobytes(), golden["lengths"]
files = [whole[end - n : end] for end, n in zip(np.cumsum(lengths), lengths)]
logits = run(image=tf.constant(files))["logits"].numpy()
print(float(np.abs(logits - golden["logits"]).max()), float(np.abs(golden["logits"]).max()))
for path in sys.argv[2:]:
    found = run(image=tf.constant([open(path, "rb").read()]))
    open(path + ".mask.png", "wb").write(found["mask"].numpy()[0])
    print(tf.io.decode_png(found["mask"][0]).shape.as_list())
"""


@pytest.mark.deep("2026-11-27")
def test_an_export_needs_tensorflow_alone_for_golden_and_odd_pictures(world, tmp_path):
    _, run = world
    folder, rng = kzoo.export(run, out=tmp_path / "export", quiet=True), np.random.default_rng(1)
    sizes, paths = [(1, 1), (3, 200), (517, 33), (16, 16), (255, 257)], []
    for i, size in enumerate(sizes):
        paths.append(tmp_path / f"{i}.{('png', 'jpg')[i % 2]}")
        Image.fromarray(rng.integers(0, 256, (*size, 3)).astype("uint8")).save(paths[-1])
    out = subprocess.run(
        [sys.executable, "-c", ALONE, str(folder), *map(str, paths)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert out.returncode == 0, out.stderr[-800:]
    first, *shapes = out.stdout.splitlines()
    difference, largest = map(float, first.split())
    assert difference < 1e-3 * largest and [json.loads(s) for s in shapes] == [[*size, 1] for size in sizes]
    for path, row in zip(paths, Export(folder).answer([p.read_bytes() for p in paths]), strict=True):
        with Image.open(f"{path}.mask.png") as image:
            expected = np.asarray(Image.open(io.BytesIO(base64.b64decode(row["mask"]))))
            np.testing.assert_array_equal(np.asarray(image), expected)


def test_data_of_another_task_is_refused_in_a_line(world, tmp_path):
    root, run = world
    with pytest.raises(kzoo.KzooError, match="has a mask for each picture and not one class"):
        kzoo.train("mnist_softmax", root / "data", out=tmp_path / "a", quiet=True)
    with pytest.raises(kzoo.KzooError, match="'digits' has one class for each picture; segmentation needs a mask"):
        kzoo.train("pixels", "digits", out=tmp_path / "b", quiet=True)
    with pytest.raises(kzoo.KzooError, match="'digits' has one class for each picture"):
        kzoo.evaluate(run, "digits", quiet=True)
    with pytest.raises(kzoo.KzooError, match="has a mask for each picture"):
        scout(root / "data", [])
    with pytest.raises(kzoo.KzooError, match="pixels gives a class for each pixel, and kzoo finetune takes a class"):
        backbone("pixels")
    cutout = Recipe("holes", "", augment=(("cutout", 0.2),))
    with pytest.raises(kzoo.KzooError, match="augmentation cutout hides pixels"):
        kzoo.train("pixels", root / "data", recipe=cutout, out=tmp_path / "c", quiet=True)
