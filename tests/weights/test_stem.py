"""The stem check knows a wrong range and BGR; probe pictures are the same everywhere; the commands of kzoo weights."""

import json
import os
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest

import kzoo
from kzoo.cli import main
from kzoo.weights.stem import check_stem
from kzoo.weights.verify import block_of, probe, statistics

DATA = Path(os.environ.get("KZOO_DATA") or Path(__file__).parents[3] / "shared" / "data")


@cache
def photos(part, count):
    from kzoo.data.images import make_preparer

    prepare = make_preparer((96, 96, 3), kzoo.Preprocessing(crop=0.875))
    files = sorted((DATA / "hymenoptera" / part).rglob("*.jp*g"))
    return np.stack([prepare(p.read_bytes()) for p in files[:: max(1, len(files) // count)][:count]])


def paintings(seed, count=48):
    """Pictures of coarse patches with photos' mean colours: where there are no photos."""
    rng = np.random.default_rng(seed)
    grey = rng.normal(0, 45, (count, 12, 12, 1)) + rng.normal(0, 15, (count, 1, 1, 3))
    patches = grey + rng.normal(0, 12, (count, 12, 12, 3)) + [130, 115, 95]
    return np.clip(np.kron(patches, np.ones((1, 8, 8, 1))), 0, 255).astype("uint8")


def trained(name, pictures, **options):
    """A model whose first batch norm has the statistics of these pictures, as training leaves them."""
    model = kzoo.build(name, input_shape=(96, 96, 3), seed=0, num_classes=None, **options)
    norm = next(l for l in model.layers if isinstance(l, keras.layers.BatchNormalization))
    y = np.asarray(keras.Model(model.input, norm.input)(pictures.astype("float32")))
    norm.moving_mean.assign(y.mean((0, 1, 2)))
    norm.moving_variance.assign(y.var((0, 1, 2)))
    return model


CAFFE = np.float32([103.939, 116.779, 123.68])
WRONG = {
    "0..1": lambda x: x / 255,
    "-1..1": lambda x: x / 127.5 - 1,
    "standardised": lambda x: (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    "BGR": lambda x: x[..., ::-1],
    "0..255 minus the mean; BGR": lambda x: x[..., ::-1] - CAFFE,
}


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("resnet18", "photos"),
        ("mobilenet_v2", "photos"),
        ("inception_v3", "paintings"),
        ("resnet20", "paintings"),
    ],
)
def test_check_stem(name, source, caplog):
    if source == "photos" and not (DATA / "hymenoptera").is_dir():
        pytest.skip(f"needs the photos in {DATA} (set KZOO_DATA)")
    train, val = (
        (photos("train", 120), photos("val", 32)) if source == "photos" else (paintings(0, 120), paintings(1, 32))
    )
    model = trained(name, train)
    assert check_stem(model, val) is None and check_stem(model, val.astype("float32")) is None
    assert not [r for r in caplog.records if r.name == "kzoo"]
    for wrong, change in WRONG.items():
        message = check_stem(model, change(val.astype("float32")).astype("float32"))
        assert message and all(part in message for part in wrong.split("; ")), (wrong, message)
        assert message in caplog.text


def test_nothing_to_compare_with():
    x = paintings(0, 4)
    assert check_stem(kzoo.build("vgg16", num_classes=None, input_shape=(96, 96, 3)), x) is None
    assert check_stem(kzoo.build("mobilenet_v2", num_classes=None, input_shape=(96, 96, 3)), x) is None
    with pytest.raises(kzoo.KzooError, match="A batch is"):
        check_stem(trained("resnet18", x), x[0])


def test_probe():
    images = probe(33, 30, 3)
    assert images.shape == (2, 33, 30, 3) and images.dtype == np.uint8
    np.testing.assert_array_equal(images, probe(33, 30, 3))
    assert int(images.sum()) == 795685 and (images != probe(33, 30, 3, seed=1)).any()


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v1", "inception_v4", "squeezenet1_0", "googlenet_bn"])
def test_blocks(name):
    """Every layer has a block, and a block is a run of neighbours, not the whole network."""
    layers = [l.name for l in kzoo.build(name, num_classes=None).layers]
    blocks = {block_of(n) for n in layers}
    assert 5 < len(blocks) < len(layers)


def test_statistics_are_of_the_outputs():
    model = kzoo.build("resnet20", depth=8, seed=0)
    images = probe(32, 32)
    rows = statistics(model, images)
    assert [r["block"] for r in rows][1:5] == ["conv1", "conv2_block1", "conv3_block1", "conv4_block1"]
    y = np.asarray(keras.Model(model.input, model.get_layer("conv2_block1_out").output)(images.astype("float32")))
    row = next(r for r in rows if r["layer"] == "conv2_block1_out")
    assert row["shape"] == [32, 32, 16]
    np.testing.assert_allclose(
        [row[k] for k in ("mean", "std", "min", "max")], [y.mean(), y.std(), y.min(), y.max()], rtol=1e-4
    )
    model.get_layer("conv2_block1_1_bn").moving_variance.assign([-1.0] * 16)
    with pytest.raises(kzoo.KzooError, match="NaN or infinite values at conv2_block1"):
        statistics(model, images)


# --- kzoo weights ----------------------------------------------------------------------------------------


def run(capsys, *args):
    try:
        main(list(args))
        code = 0
    except SystemExit as e:
        code = e.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_list(capsys):
    code, out, _ = run(capsys, "weights", "list", "vgg1?")
    assert code == 0 and out.startswith("model  tag ") and "CC BY 4.0" in out and "  71.3  " in out
    code, out, _ = run(capsys, "weights", "list", "--json")
    rows = json.loads(out)
    assert code == 0 and len(rows) > 30
    for row in rows:
        assert row["file"].startswith(("https://", "kzoo:", "package:")) and row["licence"] and row["source"]
        assert row["hash"] or "mobilenet" in row["model"]  # keras.applications publishes none for these
    code, _, err = run(capsys, "weights", "list", "vgg?")
    assert code == 1 and err.startswith("Error: No model's name matches")
    code, _, err = run(capsys, "weights", "list", "plain56")
    assert code == 0 and "No weights are published for plain56" in err


def test_verify(capsys, tmp_path):
    kzoo.build("resnet20", seed=3).save_weights(tmp_path / "a.weights.h5")
    path = str(tmp_path / "a.weights.h5")
    code, out, _ = run(capsys, "weights", "verify", "resnet20", path, "--json")
    first = json.loads(out)
    assert code == 0 and [s["input_shape"] for s in first["sizes"]] == [[32, 32, 3], [33, 33, 3]]
    assert len(first["sizes"][0]["top5"]) == 2
    assert json.loads(run(capsys, "weights", "verify", "resnet20", path, "--json")[1]) == first
    code, out, _ = run(capsys, "weights", "verify", "resnet20", path, "--features")
    assert code == 0 and "conv4_block3_out" in out and "predictions" not in out
    code, _, err = run(capsys, "weights", "verify", "resnet32", path)
    assert code == 1 and "nothing was loaded" in err


def test_verify_one_size_only(capsys, tmp_path):
    kzoo.build("mnist_softmax").save_weights(tmp_path / "a.weights.h5")
    code, out, err = run(capsys, "weights", "verify", "mnist_softmax", str(tmp_path / "a.weights.h5"))
    assert code == 0 and "28x28x1" in out and "fit mnist_softmax at 28x28 only" in err
