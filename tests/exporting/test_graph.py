"""The exported graph computes what training does."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.exports import CLASSES, PREP, RNG, SHAPE, encoded, png, prepare

import kzoo
from kzoo.data import images
from kzoo.exporting import graph
from kzoo.tasks.classification import TASK

EXIF = Image.Exif()
EXIF[0x0112] = 6


KINDS = {
    "odd": {},
    "tall": {"size": (13, 101)},
    "tiny": {"size": (1, 1), "format": "PNG"},
    "exif": {"exif": EXIF},
    "cmyk": {"mode": "CMYK"},
    "grey": {"mode": "L"},
    "alpha": {"mode": "RGBA", "format": "PNG"},
    "palette": {"mode": "P", "format": "PNG"},
    "16 bit": {"mode": "I;16", "format": "PNG"},
    "gif": {"format": "GIF"},
    "bmp": {"format": "BMP"},
    "webp": {"format": "WEBP"},
}


def test_pixels_and_logits_are_those_of_training_on_odd_sizes_and_kinds(model, serve):
    data = []
    for name, options in KINDS.items():
        if name == "16 bit":
            buffer = io.BytesIO()
            Image.fromarray(RNG.integers(0, 65536, (33, 35)).astype("uint16")).save(buffer, "PNG")
            data.append(buffer.getvalue())
        else:
            data.append(encoded(**options))
    want = np.stack(list(map(prepare(), data)))
    pixels, errors = graph.decode_batch(tf.constant(data), SHAPE, PREP)
    assert not any(errors.numpy())
    np.testing.assert_array_equal(pixels, want)
    logits = np.asarray(model(want.astype("float32"), training=False))
    out = serve["serving_default"](image=tf.constant(data))
    np.testing.assert_allclose(out["logits"], logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        serve["tensor"](tensor=tf.cast(want, tf.float32))["logits"], logits, rtol=1e-4, atol=1e-4
    )
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(out["probabilities"], -np.sort(-p), rtol=1e-3, atol=1e-5)
    best = [[CLASSES[i].encode() for i in row] for row in np.argsort(-p)]
    assert out["labels"].numpy().tolist() == best
    raw = RNG.integers(0, 256, (2, 51, 77, 3)).astype("uint8")
    fitted = np.asarray(images.fit(raw, 40, 32, PREP)).astype("float32")
    want = np.asarray(model(fitted, training=False))
    np.testing.assert_allclose(serve["images"](image=tf.constant(raw))["logits"], want, rtol=1e-4, atol=1e-4)
    features = keras.Model(model.inputs[0], model.get_layer("predictions").input)(fitted, training=False)
    got = serve["features"](image=tf.constant([png(x) for x in raw]))["features"]
    np.testing.assert_allclose(got, features, rtol=1e-3, atol=1e-3)


def test_bad_images_in_a_batch_are_marked_and_the_others_answered(serve):
    good = encoded()
    bomb = bytearray(encoded(format="PNG"))
    bomb[16:24] = (50_000).to_bytes(4, "big") * 2
    batch = [good, b"", b"text", good[:300], bytes(bomb), good]
    out = {k: v.numpy() for k, v in serve["serving_default"](image=tf.constant(batch)).items()}
    alone = serve["serving_default"](image=tf.constant([good]))
    assert [e.decode() for e in out["error"]] == [
        "",
        "is empty",
        "is not a JPEG, PNG, GIF, BMP or WebP image",
        "can't be decoded",
        "declares 50000x50000 pixels; at most 100,000,000 are accepted",
        "",
    ]
    for k in ("logits", "labels", "probabilities"):
        for i in (0, 5):
            if k == "labels":
                assert out[k][i].tolist() == alone[k].numpy()[0].tolist()
            else:
                np.testing.assert_allclose(out[k][i], alone[k][0], rtol=1e-5, atol=1e-5)
    assert not out["probabilities"][1:5].any() and set(out["labels"][1:5].ravel()) == {b""}
    with pytest.raises(tf.errors.InvalidArgumentError, match="batch is empty"):
        serve["serving_default"](image=tf.constant([], tf.string))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "BMP"]), st.data())
def test_mutants_are_answered(serve, format, draw):
    data = bytearray(encoded(format=format))
    for _ in range(draw.draw(st.integers(1, 6))):
        data[draw.draw(st.integers(0, min(len(data) - 1, 60)))] = draw.draw(st.integers(0, 255))
    out = serve["serving_default"](image=tf.constant([bytes(data), encoded()]))
    assert out["error"].numpy()[1] == b"" and np.isfinite(out["logits"].numpy()).all()


def test_temperature_and_threshold_are_in_the_answers():
    logits = np.log([[0.5, 0.3, 0.2], [0.98, 0.01, 0.01]]).astype("float32")
    out = TASK.signature(tf.constant(logits), "abc", top=2, temperature=1.0, threshold=0.75)  # p of at least 0.25
    assert out["set_size"].numpy().tolist() == [2, 1] and out["abstain"].numpy().tolist() == [True, False]
    np.testing.assert_allclose(out["probabilities"], [[0.5, 0.3], [0.98, 0.01]], rtol=1e-5)
    hot = TASK.signature(tf.constant(logits), "abc", top=1, temperature=2.0, threshold=None)["probabilities"].numpy()
    root = np.sqrt([[0.5, 0.3, 0.2], [0.98, 0.01, 0.01]])
    np.testing.assert_allclose(hot[:, 0], (root / root.sum(1, keepdims=True))[:, 0], rtol=1e-5)


def test_the_features_are_those_below_the_classifier(tmp_path):
    """LeNet-5's classifier has codes and no kernel; the paper's F6 has 84 values."""
    assert graph.penultimate(kzoo.build("lenet5")).shape == (None, 84)
    assert graph.penultimate(kzoo.build("squeezenet1_1", input_shape=(64, 64, 3))).shape == (None, 512)
    x = keras.Input((4, 4, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(x)
    logits = keras.layers.Activation("linear", name="predictions")(keras.layers.Dense(5)(pooled))
    assert graph.penultimate(keras.Model(x, logits)).shape == (None, 3), "as Keras' MobileNets end"
    assert graph.penultimate(keras.Model(x, keras.layers.GlobalAveragePooling2D()(x))).shape == (None, 3)
