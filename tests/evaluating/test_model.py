"""kzoo.load: one object for everything that classifies, with the rows of kzoo.predict."""

import keras
import numpy as np
import pytest
from PIL import Image

import kzoo
from kzoo.data.batches import decode_split
from kzoo.data.drawn import painting
from kzoo.errors import DataError, ExportError, KzooError


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """A drawing as file, PIL image, bytes and array."""
    path = tmp_path_factory.mktemp("picture") / "glass.png"
    painting("glass", side=48).save(path)
    return path


@pytest.fixture(scope="module")
def model():
    return kzoo.load("resnet20")


def without_names(rows):
    return [{k: v for k, v in row.items() if k != "image"} for row in rows]


def test_every_form_of_an_image_gives_the_same_row(model, picture):
    image = Image.open(picture)
    array = np.asarray(image.convert("RGB"))
    expected = list(kzoo.predict("resnet20", picture, top=3))
    assert expected[0]["image"] == str(picture) and len(expected[0]["top"]) == 3
    forms = {
        "path": picture,
        "bytes": picture.read_bytes(),
        "PIL": image,
        "array": array,
        "float": array.astype("float32"),
        "batch": array[None],
        "tensor": keras.ops.convert_to_tensor(array),
        "list": [image],
    }
    for name, form in forms.items():
        rows = model.predict(form, top=3)
        assert without_names(rows) == without_names(expected), name
        assert rows[0]["image"] == (str(picture) if name == "path" else "0")
    rows = model.predict([picture, array, picture.read_bytes(), np.stack([array, array])], top=3)
    assert [row["image"] for row in rows] == [str(picture), "1", "2", "3", "4"]
    assert without_names(rows) == 5 * without_names(expected)


def test_a_photo_is_turned_as_its_camera_says(model, tmp_path):
    image = painting("glass", side=48).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("turned.jpg", "plain.png"):  # of a PNG it does not count, neither in a file nor here
        image.save(tmp_path / name, exif=exif, quality=100, subsampling=0)
        file, opened, other = (
            row["top"][0]["probability"] for row in model.predict([tmp_path / name, Image.open(tmp_path / name), image])
        )
        assert abs(file - opened) < 1e-3 and (abs(file - other) > 5e-3) == (name == "turned.jpg")


def test_tf_data_is_read_as_it_comes(model, picture):
    import tensorflow as tf

    array = np.asarray(Image.open(picture).convert("RGB"))
    expected = without_names(model.predict(picture))
    images = tf.data.Dataset.from_tensor_slices((np.stack([array, array, array]), [0, 1, 2]))
    encoded = tf.data.Dataset.from_tensors(picture.read_bytes()).repeat(3)
    for dataset in (images, images.batch(2), encoded, images.map(lambda image, label: {"image": image, "id": label})):
        rows = model.predict(dataset)
        assert [row["image"] for row in rows] == ["0", "1", "2"] and without_names(rows) == 3 * expected
    endless = tf.data.Dataset.from_tensors(array).repeat()
    rows = kzoo.predict(model, endless)
    assert [next(rows)["image"] for _ in range(40)][-1] == "39"


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (3.5, "A float is no image"),
        ([None], "A NoneType is no image"),
        (np.zeros((2, 3, 32, 32), "float32") + 0.5, "looks channels-first"),
        (np.random.default_rng(0).random((32, 32, 3)), "these lie in 0..1: multiply them by 255"),
        (np.full((32, 32, 3), np.nan), "must lie in 0..255"),
        (np.array([1, "a"], object), "must hold encoded images"),
        (Image.new("F", (8, 8), -4.0), "must lie in 0..255"),
        ("nowhere.jpg", "There is no file 'nowhere.jpg'"),
    ],
)
def test_what_is_no_image_is_named(model, form, reason):
    with pytest.raises(DataError, match=reason):
        model.predict(form)


def test_bytes_that_are_no_image_give_a_row(model, picture):
    rows = model.predict([b"nothing", picture])
    assert rows[0] == {"image": "0", "error": "is not a JPEG, PNG, GIF, BMP or WebP image"} and "top" in rows[1]


def test_every_mode_of_pil_is_as_its_png(model, tmp_path):
    grey = Image.effect_noise((40, 40), 64)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "I;16"):
        picture = grey.convert(mode) if mode != "I;16" else Image.fromarray(np.asarray(grey).astype("uint16") * 257)
        file = tmp_path / "a.png"
        stored = {"CMYK": "RGB", "YCbCr": "RGB", "HSV": "RGB", "I": "I;16"}.get(mode, mode)
        (picture if stored == mode else picture.convert(stored)).save(file)
        rows = model.predict([picture, file])
        assert "top" in rows[0] and without_names(rows[:1]) == without_names(rows[1:]), (mode, rows)
    with pytest.raises(DataError, match=r"must lie in 0\.\.65535, got 70000 to 70000"):
        model.predict(Image.new("I", (8, 8), 70000))


def test_what_it_is(model, tmp_path):
    assert isinstance(model.model, keras.Model) and model.classes[0] == "airplane"
    assert repr(model) == ("<Model resnet20: classification, 10 classes: airplane, automobile, bird, cat, deer, ...>")
    with pytest.raises(KzooError, match="resnet20 has no data of its own"):
        model.evaluate()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return kzoo.train("mnist_softmax", "digits", epochs=1, out=tmp_path_factory.mktemp("run") / "a", quiet=True)


def test_a_run_an_export_and_a_file_of_it(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaded = kzoo.load(run.path)
    result = loaded.evaluate()
    assert result.images == 359 and result.top1 == kzoo.evaluate(run, quiet=True).top1
    export = kzoo.load(kzoo.export(run, out="export", measure=0, quiet=True))
    # The same images: an .npz of the test part.
    data = kzoo.load_data("digits")
    part = data.splits["test"]
    np.savez("d.npz", x_test=part.images, y_test=part.labels, x_train=part.images[:0], y_train=part.labels[:0])
    np.savez("d.npz", images=part.images, labels=part.labels)
    found = export.evaluate("d.npz")
    assert found.images == 359 and abs(found.top1 - result.top1) < 0.005 and not (tmp_path / "evaluation.json").exists()
    file = kzoo.load(run.path / "model.keras")
    image = part.images[0]
    assert without_names(file.predict(image)) == without_names(loaded.predict(image))
    assert file.classes == loaded.classes
    with pytest.raises(ExportError, match="has no Keras model: kzoo export --format saved_model,keras"):
        _ = export.model


def test_what_a_notebook_sees_of_a_run(run):
    assert run.metrics["best_epoch"] == 1 and run.history["epoch"] == [1]
    assert run.history["val_accuracy"] == [pytest.approx(run.metrics["val_accuracy"])]
    assert len(run.plot().axes) == 2 and len(repr(run)) < 300
    html = run._repr_html_()
    assert html.startswith("<p>Run ") and html.count("<img") <= 1  # one epoch has no curve


def test_an_ensemble(run):
    with pytest.raises(kzoo.KzooError, match="got NoneType"):
        kzoo.load(None)
    both = kzoo.load(["mnist_cnn", "lenet5"])
    image = kzoo.load_data("digits").splits["test"].images[0]
    assert both.predict(image)[0]["top"]
    with pytest.raises(KzooError, match="no single Keras model"):
        _ = both.model


def test_a_file_without_scaling_asks(tmp_path):
    image = keras.Input((8, 8, 3))
    x = keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(image))
    keras.Model(image, x).save(tmp_path / "mine.keras")
    with pytest.raises(KzooError, match=r"does not say what it was trained on: say it with --pixels"):
        kzoo.load(tmp_path / "mine.keras")
    original = keras.saving.load_model(tmp_path / "mine.keras")
    array = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype("uint8")
    for pixels, scaled in (("0..1", array / 255), ("-1..1", array / 127.5 - 1), ("0..255", array / 1)):
        loaded = kzoo.load(tmp_path / "mine.keras", pixels=pixels, classes=["a", "b", "c"])
        row = loaded.predict(array)[0]["top"]
        expected = np.asarray(original(scaled[None].astype("float32")))[0]
        np.testing.assert_allclose(
            [next(r["probability"] for r in row if r["class"] == c) for c in "abc"], expected, atol=1e-3
        )
    with pytest.raises(KzooError, match="pixels must be"):
        kzoo.load(tmp_path / "mine.keras", pixels="rgb")
    with pytest.raises(KzooError, match="runs and networks of the catalog know it"):
        kzoo.load("resnet20", pixels="0..1")


def test_a_run_abstains_as_its_export_would(members):
    run = kzoo.load_run(members / "mlp")  # it records a temperature of 2, and why
    digits = kzoo.load_data(members / "digits.npz")

    def calibrated(split):
        images = decode_split(split, run.input_shape, run.preprocessing)[0].images
        z = keras.ops.convert_to_numpy(run.model(images.astype("float32"))).astype("float64") / 2
        return np.exp(z - z.max(-1, keepdims=True)) / np.exp(z - z.max(-1, keepdims=True)).sum(-1, keepdims=True)

    # Split conformal prediction by hand: the 91st smallest of 100 scores, ceil(101 * 0.9).
    p, labels = calibrated(digits.splits["val"]), digits.splits["val"].labels
    q = np.sort(1 - p[np.arange(100), labels])[90]
    test = digits.splits["test"].take(np.arange(40))
    images, expected = test.images, (calibrated(test) >= 1 - q).sum(-1) > 1
    rows = kzoo.load(run, abstain=0.9).predict(list(images), top=1)
    assert [row["abstain"] for row in rows] == expected.tolist() and 0 < expected.sum() < 40
    assert "abstain" not in kzoo.load(run).predict(images[0])[0]
    with pytest.raises(ExportError, match=r"abstain=0\.995 needs at least 199 validation images; the run has 100"):
        kzoo.load(run, abstain=0.995)
    with pytest.raises(ExportError, match="abstain must lie between 0 and 1"):
        kzoo.load(run, abstain=95)
    with pytest.raises(DataError, match="abstain is for a run"):
        kzoo.load("resnet20", abstain=0.9)


def test_what_is_said_of_the_pixels_of_a_model_in_memory_counts():
    image = keras.Input((8, 8, 1))
    model = keras.Model(image, keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(image)))
    x = np.random.default_rng(0).integers(0, 256, (8, 8, 1)).astype("uint8")
    row = kzoo.load(model, pixels="0..1", classes=("a", "b")).predict(x)[0]["top"]
    expected = keras.ops.convert_to_numpy(model(x[None] / np.float32(255)))[0]
    np.testing.assert_allclose([p["probability"] for p in sorted(row, key=lambda p: p["class"])], expected, rtol=1e-4)
