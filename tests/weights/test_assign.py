"""All variables or none: what does not fit is listed in full, and the model stays as it was, bit for bit."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kzoo
from kzoo.errors import KzooError, WeightsError
from kzoo.weights import assign, load, read, resolve
from kzoo.weights.maps import MAPS, Names, rename


@pytest.fixture(scope="module")
def model():
    """conv1, conv1_bn, ... predictions: a small residual network."""
    return kzoo.build("resnet20", depth=8, num_classes=4, seed=1)


@pytest.fixture
def arrays(model):
    """A full set of arrays, other than the model's own."""
    rng = np.random.default_rng(0)
    return {v.path: rng.uniform(0.5, 1, v.shape).astype("float32") for v in model.weights}


def values(model):
    return {v.path: np.asarray(v).tobytes() for v in model.weights}


def test_loads_all(model, arrays):
    report = assign(model, arrays)
    assert values(model) == {k: v.tobytes() for k, v in arrays.items()}
    assert set(report.loaded) == set(arrays) and not report.new and not report.left_out and not report.notes


def without(arrays, name):
    return {k: v for k, v in arrays.items() if k != name}


def nan(a, value=np.nan):
    a = a.copy()
    a.flat[a.size // 2] = value
    return a


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: without(a, "conv1_bn/beta"), "missing: conv1_bn/beta, shape (16,)"),
        (lambda a: {**a, "extra/kernel": np.ones((2, 2), "float32")}, "unexpected: extra/kernel, shape (2, 2)"),
        (
            lambda a: {**a, "predictions/kernel": a["predictions/kernel"].T},
            "wrong shape: predictions/kernel has (4, 64), expected (64, 4) (transposed?)",
        ),
        (lambda a: {**a, "conv1_conv/kernel": a["conv1_conv/kernel"][..., :5]}, "wrong shape: conv1_conv/kernel"),
        (lambda a: {**a, "conv1_conv/kernel": a["conv1_conv/kernel"][:, :, :1]}, "(adapt_input=True fits it"),
        (
            lambda a: {**a, "conv1_bn/beta": nan(a["conv1_bn/beta"])},
            "not finite: conv1_bn/beta holds 1 NaN or infinite values of 16",
        ),
        (lambda a: {**a, "conv1_bn/beta": nan(a["conv1_bn/beta"], -np.inf)}, "not finite: conv1_bn/beta"),
        (lambda a: {**a, "conv1_bn/beta": np.ones(16, "int32")}, "wrong type: conv1_bn/beta is int32"),
        (lambda a: {**a, "conv1_bn/beta": np.ones(16, "complex64")}, "wrong type: conv1_bn/beta is complex64"),
        (lambda a: {**a, "conv1_bn/1": a["conv1_bn/beta"]}, "conv1_bn/beta: given twice"),
        (lambda a: {**without(a, "conv1_bn/beta"), "conv1_bn/4": np.ones(16, "float32")}, "unexpected: conv1_bn/4"),
        (
            lambda a: without(without(a, "predictions/kernel"), "predictions/bias"),
            "missing: predictions/kernel, shape (64, 4) (new_classifier=True",
        ),
        (lambda a: without(a, "predictions/bias"), "missing: predictions/bias"),
        (lambda a: {"\n\x1b[2Jevil": np.ones(1, "float32"), **a}, "unexpected: \\n\\x1b[2Jevil"),
        (lambda a: {}, "missing: conv1_conv/kernel"),
    ],
)
def test_nothing_or_all(model, arrays, change, message):
    before = values(model)
    with pytest.raises(WeightsError) as e:
        assign(model, change(arrays), source="x.npz")
    assert message in str(e.value), str(e.value)
    assert str(e.value).startswith("x.npz does not fit resnet20: ") and "nothing was loaded" in str(e.value)
    assert values(model) == before


def test_everything_is_listed(model, arrays):
    broken = {k: v[:-1] if "kernel" in k else v.astype("int64") for k, v in arrays.items() if "mean" not in k}
    with pytest.raises(WeightsError) as e:
        assign(model, broken)
    lines = str(e.value).splitlines()
    assert len(lines) == 1 + len(arrays) and f"{len(arrays)} problems" in lines[0]
    assert all(any(name in line for line in lines) for name in arrays)


def test_half_precision_is_exact(model, arrays):
    half = {k: v.astype("float16") for k, v in arrays.items()}
    assign(model, half)
    assert values(model) == {k: v.astype("float32").tobytes() for k, v in half.items()}


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(st.data())
def test_any_mix_of_faults(model, data):
    rng = np.random.default_rng(0)
    arrays = {v.path: rng.normal(size=v.shape).astype("float32") for v in model.weights}
    before = values(model)
    for name in data.draw(st.lists(st.sampled_from(list(arrays)), min_size=1, max_size=5, unique=True)):
        fault = data.draw(st.sampled_from(["drop", "rename", "cut", "nan", "type"]))
        a = arrays.pop(name)
        if fault != "drop":
            arrays[name + "x" * (fault == "rename")] = {
                "rename": a,
                "cut": a[:-1],
                "nan": nan(a),
                "type": a.astype("int64"),
            }[fault]
    try:
        report = assign(model, arrays)
    except WeightsError:
        assert values(model) == before
    else:  # only a classifier that was cut to three classes all over
        assert set(report.new) == {"predictions/kernel", "predictions/bias"}


# --- The classifier, the input ---------------------------------------------------------------------------


def test_another_number_of_classes(model, arrays, tmp_path, caplog):
    np.savez(tmp_path / "a.npz", **arrays)
    with caplog.at_level(logging.WARNING, "kzoo"):
        other = kzoo.build("resnet20", depth=8, num_classes=3, weights=tmp_path / "a.npz", seed=5)
    assert "The classifier is new" in caplog.text and "predictions/bias, predictions/kernel" in caplog.text
    fresh = kzoo.build("resnet20", depth=8, num_classes=3, seed=5)
    np.testing.assert_array_equal(other.get_layer("predictions").kernel, fresh.get_layer("predictions").kernel)
    np.testing.assert_array_equal(other.get_layer("conv1_conv").kernel, arrays["conv1_conv/kernel"])


def test_the_same_number_of_classes_is_loaded(arrays, tmp_path, caplog):
    """A user's own classifier with the number that the model is built for, and another one than published."""
    np.savez(tmp_path / "a.npz", **arrays)
    same = kzoo.build("resnet20", depth=8, num_classes=4, weights=tmp_path / "a.npz")
    np.testing.assert_array_equal(same.get_layer("predictions").kernel, arrays["predictions/kernel"])
    assert not caplog.records
    new = kzoo.build("resnet20", depth=8, num_classes=4, weights=tmp_path / "a.npz", new_classifier=True, seed=3)
    assert "The classifier is new" in caplog.text
    assert not np.array_equal(new.get_layer("predictions").kernel, arrays["predictions/kernel"])


def test_files_without_classifier(arrays, tmp_path, caplog):
    np.savez(tmp_path / "a.npz", **{k: v for k, v in arrays.items() if not k.startswith("predictions")})
    kzoo.build("resnet20", depth=8, num_classes=None, weights=tmp_path / "a.npz")
    assert not caplog.records
    kzoo.build("resnet20", depth=8, num_classes=4, weights=tmp_path / "a.npz")
    assert "The classifier is new" in caplog.text
    with pytest.raises(WeightsError, match=r"missing: predictions/kernel.*new_classifier=True"):
        kzoo.build("resnet20", depth=8, weights=tmp_path / "a.npz")


def test_without_a_number_of_classes_the_classifier_is_never_new(arrays, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(WeightsError, match=r"wrong shape: predictions/bias has \(4,\), expected \(10,\)"):
        kzoo.build("resnet20", depth=8, weights=tmp_path / "a.npz")


def test_features_from_a_file_with_classifier(arrays, tmp_path, caplog):
    np.savez(tmp_path / "a.npz", **arrays)
    kzoo.build("resnet20", depth=8, num_classes=None, weights=tmp_path / "a.npz")
    assert "The model has no classifier; that of" in caplog.text


def test_lenet_counts_its_classes_first(tmp_path):
    kzoo.build("lenet5", seed=0).save_weights(tmp_path / "a.weights.h5")
    assert load(kzoo.build("lenet5", num_classes=3), tmp_path / "a.weights.h5").new == ("predictions/codes",)


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_other_input_channels(arrays, tmp_path, channels):
    np.savez(tmp_path / "a.npz", **arrays)
    options = {"depth": 8, "num_classes": 4, "preprocessing": kzoo.Preprocessing(scale=1 / 255, offset=0.0)}
    three = kzoo.build("resnet20", weights=tmp_path / "a.npz", **options)
    shape = (32, 32, channels)
    with pytest.raises(WeightsError, match="adapt_input=True"):
        kzoo.build("resnet20", weights=tmp_path / "a.npz", input_shape=shape, **options)
    other = kzoo.build("resnet20", weights=tmp_path / "a.npz", input_shape=shape, adapt_input=True, **options)
    x = np.random.default_rng(1).uniform(0, 255, (2, 32, 32, 1)).astype("float32")
    three_out = three(np.repeat(x, 3, -1), training=False)
    np.testing.assert_allclose(other(np.repeat(x, channels, -1), training=False), three_out, rtol=1e-3, atol=1e-5)
    kernel = arrays["conv1_conv/kernel"]
    adapted = np.asarray(other.get_layer("conv1_conv").kernel)
    assert adapted.shape == (3, 3, channels, 16)
    if channels == 4:
        np.testing.assert_allclose(adapted[:, :, 3], kernel[:, :, 0] / 2, rtol=1e-6)
        np.testing.assert_array_equal(adapted[:, :, 1:3], kernel[:, :, 1:])


# --- From a name to a file -------------------------------------------------------------------------------


def test_resolve():
    assert resolve("vgg16", "imagenet").hash == "md5:64373286793e3c8b2b4e3219cbf3544b"
    assert resolve("vgg16", "torchvision").preprocessing != resolve("vgg16", "imagenet").preprocessing
    with pytest.raises(
        KzooError, match=r"Unknown weights 'imagenett'. Did you mean 'imagenet'\? It has: imagenet, torchvision"
    ):
        resolve("vgg16", "imagenett")
    with pytest.raises(KzooError, match="None are published for plain56"):
        resolve("plain56", "imagenet")
    with pytest.raises(WeightsError, match=r"There is no weights file no/such\.h5"):
        kzoo.build("lenet5", weights="no/such.h5")


def test_a_published_file_is_known_by_its_hash(arrays, tmp_path):
    """Whatever it is called, it brings its preprocessing."""
    from dataclasses import replace

    from kzoo.files import digest

    np.savez(tmp_path / "a.npz", **arrays)
    own = kzoo.Preprocessing(channel_order="bgr", scale=1.0, offset=(-1.0, -2.0, -3.0))
    size, hash = (tmp_path / "a.npz").stat().st_size, f"sha256:{digest(tmp_path / 'a.npz')[:8]}"
    published = kzoo.Weights("imagenet", "https://example.org/published.npz", hash, own, size=size + 99)
    row = replace(kzoo.spec("resnet20"), weights=(published,))
    found = resolve(row, tmp_path / "a.npz")
    assert found.preprocessing == own and found.tag == "imagenet" and found.file == str(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", **{**arrays, "more": np.ones(1)})
    assert resolve(row, tmp_path / "b.npz").preprocessing is None


def test_arrays_of_other_dimensions_fit_no_map(tmp_path):
    np.savez(
        tmp_path / "a.npz", **{"classifier.0.kernel": np.ones(3), "fc.scale": np.float32(2), "conv1.weight": np.ones(2)}
    )
    with pytest.raises(WeightsError, match="does not fit"):
        kzoo.build("resnet20", depth=8, weights=tmp_path / "a.npz")


def test_the_weights_bring_their_preprocessing(arrays, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    own = kzoo.Preprocessing(channel_order="bgr", scale=1.0, offset=(-1.0, -2.0, -3.0))
    row = kzoo.Weights("mine", str(tmp_path / "a.npz"), preprocessing=own, config={"depth": 8})

    def build(**more):
        return kzoo.build("resnet20", num_classes=4, weights=row, **more).get_layer("preprocessing")

    assert (build().channel_order, build().offset) == ("bgr", (-1.0, -2.0, -3.0))
    assert build(preprocessing=kzoo.Preprocessing(scale=2.0)).scale == 2.0
    path = kzoo.build("resnet20", num_classes=4, depth=8, weights=tmp_path / "a.npz")
    assert path.get_layer("preprocessing").offset == kzoo.spec("resnet20").preprocessing.offset


@pytest.mark.parametrize("suffix", ["keras", "weights.h5", "h5", "npz", "safetensors"])
def test_own_files_round_trip(model, suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    if suffix == "npz":
        np.savez(path, **{v.path: np.asarray(v) for v in model.weights})
    elif suffix == "safetensors":
        pytest.importorskip("safetensors.numpy").save_file({v.path: np.asarray(v) for v in model.weights}, path)
    elif suffix == "weights.h5":
        model.save_weights(path)
    else:
        model.save(path)
    other = kzoo.build("resnet20", depth=8, num_classes=4, weights=path, seed=9)
    assert values(other) == values(model)


def test_early_keras_files_name_no_layers(model, tmp_path):
    """Files of Keras 3.0: the key is the class and a count, the names stand in config.json only."""
    import zipfile

    import h5py

    model.save(tmp_path / "a.keras")
    with zipfile.ZipFile(tmp_path / "a.keras") as z:
        config, weights = z.read("config.json"), z.read("model.weights.h5")
    (tmp_path / "w.h5").write_bytes(weights)
    with h5py.File(tmp_path / "w.h5", "a") as f:
        f.visititems(lambda name, item: item.attrs.pop("name") if "name" in item.attrs else None)
    with zipfile.ZipFile(tmp_path / "b.keras", "w") as z:
        z.writestr("config.json", config)
        z.write(tmp_path / "w.h5", "model.weights.h5")
    a, b = read(tmp_path / "a.keras"), read(tmp_path / "b.keras")
    assert set(a) == set(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


# --- Maps ------------------------------------------------------------------------------------------------


def test_rename_by_rows():
    one = np.ones(1, "float32")
    names = Names(((r"layer(\d)\.conv", "conv{1+1}"), (r"junk\..+", None)), "torch")
    renamed = rename({"layer3.conv.bias": one, "junk.x.bias": one, "other.bias": one}, names)
    assert list(renamed.arrays) == ["conv4/bias", "other.bias"] and renamed.left_out == ["junk.x.bias"]
    names = Names(((r"conv2d(?:_(\d+))?", ("a", "b")),))
    renamed = rename({f"conv2d_{n}/kernel": one for n in (10, 9, 11)}, names)
    assert list(renamed.arrays) == [
        "b/kernel",
        "a/kernel",
        "conv2d_11/kernel",
    ]  # by number, not by letters; one too many
    with pytest.raises(WeightsError, match="There is no map of names 'tensorflow'"):
        rename({}, "tensorflow")


def test_two_for_one_place(model, arrays):
    with pytest.raises(WeightsError, match="two arrays of the file are to go there"):
        assign(model, {**arrays, "probs/bias": arrays["predictions/bias"]}, names="keras")


def test_flatten_order():
    """A dense layer behind a flatten: torch flattens (C, H, W), Keras (H, W, C)."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 3, 7, 7)), rng.normal(size=(5, 3 * 7 * 7)).astype("float32")
    kernel = rename({"classifier.0.weight": w}, "torch_vgg16").arrays["fc1/kernel"]
    np.testing.assert_allclose(x.transpose(0, 2, 3, 1).reshape(2, -1) @ kernel, x.reshape(2, -1) @ w.T, rtol=1e-5)


def test_inception_v3_of_torchvision_names_every_layer():
    """The map's targets are our layers, each once."""
    targets = [row[1] for row in MAPS["torch_inception_v3"].rows if row[1]]
    layers = {l.name.rpartition("_")[0] for l in kzoo.build("inception_v3").layers if l.weights} - {""}
    assert sorted(t.removesuffix("_{1}") for t in targets) == sorted(layers | {"predictions"})
