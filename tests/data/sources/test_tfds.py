"""TensorFlow Datasets without a network."""

import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from support.photos import PLAIN, fails

from kzoo.data.batches import decode_split
from kzoo.data.loading import load_data


@pytest.mark.deep("2026-11-27")
def test_tfds_without_a_network(shared):
    if not (shared / "tfds" / "mnist").is_dir():
        pytest.skip("needs the prepared TFDS MNIST in the shared data")
    a, b = load_data("tfds:mnist"), load_data("mnist")
    assert load_data("tfds:mnist/3.0.1").fingerprint() == a.fingerprint() != b.fingerprint()
    assert a.classes == b.classes and len(a.splits["test"]) == 10000
    ready, bad = decode_split(a.splits["test"].take(np.arange(50)), (28, 28, 1), PLAIN)
    assert not bad and ready.images.shape == (50, 28, 28, 1)
    x = {im.tobytes() for im in b.splits["test"].images}
    assert all(im.tobytes() in x for im in ready.images), "the same digits, in another order"


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A stand-in for tensorflow_datasets with one prepared set; a function of its label and its splits."""
    (tmp_path / "birds").mkdir()
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    asked = []

    def builder(name, **options):
        asked.append(name)
        return fake

    fake = SimpleNamespace(data_path=tmp_path)
    module = SimpleNamespace(builder=builder, decode=SimpleNamespace(SkipDecoding=object))
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", module)

    def prepare(label, masks=None, **splits):
        def as_dataset(split, decoders):
            rows = [{"image": bytes([i]), "label": i % 3} for i in range(splits[split])]
            if "segmentation_mask" in decoders:
                rows = [{**row, "segmentation_mask": masks} for row in rows]
            return SimpleNamespace(as_numpy_iterator=lambda: iter(rows))

        counts = {k: SimpleNamespace(num_examples=n) for k, n in splits.items()}
        features = {"image": None, "label": label}
        if masks:
            features["segmentation_mask"] = SimpleNamespace(dtype="uint8", shape=(None, None, 1))
        fake.info = SimpleNamespace(features=features, splits=counts)
        fake.as_dataset = as_dataset
        return asked

    return prepare


def test_a_label_without_names_parts_under_other_names_and_versions(prepared):
    asked = prepared(SimpleNamespace(dtype="int64", shape=()), Training=9, dev=3, holdout=6, unlabelled=1000)
    data = load_data("tfds:birds/3.0.1")
    assert asked == ["birds:3.0.1"] and data.classes == ("0", "1", "2")
    assert {k: len(s) for k, s in data.splits.items()} == {"train": 9, "val": 3, "test": 6}
    assert data.skipped == [("unlabelled", "is none of the parts train, validation, test (1,000 images are not used)")]
    prepared(SimpleNamespace(dtype="int64", shape=(), num_classes=3, names=None), train=9)
    assert load_data("tfds:birds").classes == ("0", "1", "2")
    prepared(SimpleNamespace(dtype="int64", shape=(), num_classes=3, names=["a", "b", "c"]), train=9)
    assert load_data("tfds:birds").classes == ("a", "b", "c")


def test_slices_and_what_is_no_set_are_refused_in_one_line(prepared, kzoo_command):
    prepared(SimpleNamespace(dtype="int64", shape=()), train=9, valid=3, dev=3)
    fails("tfds:birds", "has the splits valid and dev, which mean the same part")
    code, out, err = kzoo_command("data", "check", "tfds:birds[:10%]")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "'tfds:birds[:10%]' asks for a slice, and kzoo reads whole sets: give tfds:birds, or" in err
    for name in ("tfds:", "tfds:a b", "tfds:../x"):
        fails(name, "names no set: write tfds:NAME")
    prepared(SimpleNamespace(dtype="float32", shape=(4,)), train=9)
    fails("tfds:birds", "has labels of the kind float32 (4,)")


def png(values):
    file = io.BytesIO()
    Image.fromarray(np.array(values, "uint8")).save(file, "PNG")
    return file.getvalue()


def test_masks_are_another_feature_and_those_of_the_pets_are_trimaps(prepared, tmp_path):
    label = SimpleNamespace(dtype="int64", shape=(), num_classes=3, names=["a", "b", "c"])
    for name in ("oxford_iiit_pet", "birds"):
        (tmp_path / name).mkdir(exist_ok=True)
    asked = prepared(label, png([[1, 3, 2]]), train=4, test=2)
    data = load_data("tfds:oxford_iiit_pet/4.0.0#segmentation_mask")
    assert asked == ["oxford_iiit_pet:4.0.0"] and data.masks and len(data.splits["test"]) == 2
    assert data.classes == ("background", "pet", "outline")
    assert data.splits["train"].labels[0].read().tolist() == [[1, 2, 0]]
    again = load_data("tfds:oxford_iiit_pet/4.0.0#segmentation_mask")
    assert again.fingerprint() == data.fingerprint() and again.name == "tfds:oxford_iiit_pet/4.0.0#segmentation_mask"
    assert load_data("tfds:oxford_iiit_pet").classes == ("a", "b", "c"), "the breeds, without #FEATURE"
    fails("tfds:birds#segmentation_mask", "has masks of the values 1, 2, 3, not 0, 1, ...")
    prepared(label, png([[1, 0, 255]]), train=4)
    other = load_data("tfds:birds#segmentation_mask")
    assert other.classes == ("0", "1") and other.splits["train"].labels[0].read().tolist() == [[1, 0, 255]]
    assert other.fingerprint() != data.fingerprint()
    fails("tfds:birds#mask", "has the features image, label, segmentation_mask; kzoo needs image and mask")
    fails("tfds:birds#", "names no set: write tfds:NAME")


def test_record_files_are_read_one_by_one_in_the_order_of_before(tmp_path, prepared):
    import tensorflow as tf

    prepared(SimpleNamespace(dtype="int64", shape=(), num_classes=3, names=None), train=40)
    builder = sys.modules["tensorflow_datasets"].builder("birds")
    whole = load_data("tfds:birds", val_fraction=0.2)
    lengths, paths, done = [17, 0, 23], [], 0
    for part, n in enumerate(lengths):
        paths.append(str(tmp_path / f"{part}.tfrecord"))
        with tf.io.TFRecordWriter(paths[-1]) as file:
            for i in range(done, done + n):
                image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[bytes([i])]))
                label = tf.train.Feature(int64_list=tf.train.Int64List(value=[i % 3]))
                features = tf.train.Features(feature={"image": image, "label": label})
                file.write(tf.train.Example(features=features).SerializeToString())
        done += n
    part = builder.info.splits["train"]
    part.filepaths, part.shard_lengths = paths, lengths
    builder.info.file_format, builder.name = SimpleNamespace(value="tfrecord"), "birds"
    builder.as_dataset = lambda **_: pytest.fail("read whole")
    builder.info.disable_shuffling = True  # from file to file
    data = load_data("tfds:birds", val_fraction=0.2)
    assert data.fingerprint() == whole.fingerprint() and data.splits["train"].images.about.startswith("tfrecord files")
    assert data.whole().images == whole.whole().images and data.whole().ids == whole.whole().ids
    builder.info.disable_shuffling = False  # 16 of each file in turn
    images = load_data("tfds:birds", val_fraction=0).splits["train"].images
    assert images == [bytes([i]) for i in [*range(16), *range(17, 33), 16, *range(33, 40)]]
    part.num_examples = 41
    fails("tfds:birds", "has 40 of 41 records: prepare it again")
