"""Batches: each image once, in an order of seed and epoch."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from support.photos import PLAIN, photos

from kzoo.catalog import Preprocessing
from kzoo.data import images
from kzoo.data.augment import moves
from kzoo.data.batches import batches, decode_split, pixels
from kzoo.data.dataset import Split
from kzoo.data.loading import load_data
from kzoo.data.masks import MaskFile, Table
from kzoo.errors import DataError
from kzoo.exporting.graph import decode_batch
from kzoo.finetuning.backbone import input_preparer

# The second pixel of a row twice as long lies a quarter behind the first, with the same weights in both directions.
WEIGHTS = np.outer([0.75, 0.25], [0.75, 0.25])[None, :, :, None]


def test_truncated_images_are_found_when_they_are_read(tmp_path):
    photos(tmp_path, {"a": 4, "b": 4}, ".jpg")
    whole = (tmp_path / "a" / "000.jpg").read_bytes()
    (tmp_path / "a" / "000.jpg").write_bytes(whole[:-40])
    data = load_data(tmp_path, val_fraction=0, test_fraction=0)
    ready, bad = decode_split(data.splits["train"], (8, 8, 3), PLAIN)
    assert [name for name, _ in bad] == ["a/000.jpg"] and "can't be decoded" in bad[0][1]
    assert len(ready) == 7 and ready.images.shape == (7, 8, 8, 3) and ready.ids == data.splits["train"].ids[1:]


def test_arrays_and_files_of_the_models_size_are_cropped_alike(tmp_path):
    """Whatever serves pixels: training with and without memory, fine-tuning, prediction and an export."""
    from types import SimpleNamespace

    shape, how = (16, 16, 3), Preprocessing(crop=0.5)
    arrays = np.random.default_rng(0).integers(0, 256, (3, *shape)).astype("uint8")
    # Half of the side at its own scale, twice as large: rows between two pixels by bilinear interpolation.
    for number, array in enumerate(arrays):
        Image.fromarray(array).save(tmp_path / f"{number}.png")
    names = [str(tmp_path / f"{number}.png") for number in range(3)]
    ids, labels = list("abc"), np.zeros(3, int)
    pixels = {}
    for kind, source in (("arrays", arrays), ("files", names)):
        split = Split(source, labels, ids)
        ready = decode_split(split, shape, how)[0]
        assert ready.prepared and ready.take(np.arange(2)).prepared
        pixels[f"training on {kind}"] = ready.images
        pixels[f"{kind}, served again"] = next(iter(batches(ready, shape, how, 3)))[0].numpy()
        pixels[f"{kind} on the fly"] = next(iter(batches(split, shape, how, 3)))[0].numpy()
        prepare = input_preparer(SimpleNamespace(input_shape=shape, preprocessing=how))
        pixels[f"fine-tuning on {kind}"] = np.stack(
            [prepare(x if kind == "arrays" else images.read(x)) for x in source]
        )
    pixels["an export"] = decode_batch(tf.constant([images.read(n) for n in names]), shape, how)[0].numpy()
    want = np.asarray(images.fit(arrays, 16, 16, how))
    assert not np.array_equal(want, arrays)
    np.testing.assert_array_equal(want[:, 1, 1], (arrays[:, 4:6, 4:6] * WEIGHTS).sum((1, 2)).round())
    for door, found in pixels.items():
        np.testing.assert_array_equal(found, want, door)
    old = replace(how, rules=1)  # 0.1.0 left the crop out in training: its runs go on as they began
    np.testing.assert_array_equal(decode_split(Split(arrays, labels, ids), shape, old)[0].images, arrays)


def test_channels_that_do_not_fit_are_said(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((6, 4, 4, 2), "uint8"), labels=[0, 1] * 3)
    split = load_data(tmp_path / "x.npz").splits["train"]
    with pytest.raises(DataError, match="have 2 channels, the model takes 3"):
        decode_split(split, (4, 4, 3), PLAIN)


def test_batches_visit_each_image_once_in_an_order_of_seed_and_epoch():
    split = load_data("digits").splits["val"]

    def seen(seed, epoch):
        got = batches(split, (8, 8, 1), PLAIN, 32, order=(seed, epoch))
        assert [len(y) for _, y in got] == [32, 32, 32, 32, 32, 20]
        return np.concatenate([x for x, _ in got])

    first, second = seen(0, 0), seen(0, 1)
    assert not np.array_equal(first, second)

    def key(a):
        return sorted(im.tobytes() for im in a)

    assert key(first) == key(second) == key(split.images)
    assert not np.array_equal(seen(1, 0), first)
    epoch = tf.Variable(0, dtype=tf.int64)
    data = batches(split, (8, 8, 1), PLAIN, 32, order=(0, epoch))
    for number, expected in ((0, first), (1, second)):
        epoch.assign(number)
        np.testing.assert_array_equal(np.concatenate([x for x, _ in data]), expected)


def test_flips_alternate():
    images = np.random.default_rng(1).integers(0, 256, (50, 4, 6, 3)).astype("uint8")
    split = Split(images, np.arange(50) % 10, [str(i) for i in range(50)])

    def one_hot(labels):
        return np.eye(10, dtype="float32")[labels]

    def mirrored(seed, epoch):
        """For each image whether it came mirrored; every one must come once, with its label."""
        got = batches(split, (4, 6, 3), PLAIN, 8, targets=one_hot, order=(seed, epoch), alternate_flip=True)
        found = {}
        for x, y in got:
            for image, label in zip(x.numpy(), y.numpy().argmax(-1), strict=True):
                same = (images == image).all((1, 2, 3)), (images[:, :, ::-1] == image).all((1, 2, 3))
                i = int(np.flatnonzero(same[0] | same[1])[0])
                assert label == i % 10 and i not in found
                found[i] = bool(same[1][i])
        assert len(found) == 50
        return np.array([found[i] for i in range(50)])

    first = mirrored(0, 0)
    assert 10 < first.sum() < 40
    np.testing.assert_array_equal(mirrored(0, 1), ~first)
    np.testing.assert_array_equal(mirrored(0, 2), first)
    assert (mirrored(1, 0) != first).any()


def test_images_too_large_to_keep_are_decoded_on_the_fly(tmp_path, monkeypatch):
    from kzoo.data import batches as module

    root = photos(tmp_path / "a[1]*?\nx", {"a": 6, "[b]*": 6})  # names that TensorFlow could take for patterns
    data = load_data(root, val_fraction=0, test_fraction=0).splits["train"]
    kept, _ = decode_split(data, (8, 8, 3), PLAIN)
    monkeypatch.setattr(module, "MEMORY", 10)
    on_disk, bad = decode_split(data, (8, 8, 3), PLAIN)
    assert isinstance(on_disk.images, np.memmap) and not bad
    monkeypatch.setattr(module, "DISK", 10)
    on_the_way, bad = decode_split(data, (8, 8, 3), PLAIN)
    assert on_the_way.files and not bad

    def get(s):
        return np.concatenate([x for x, _ in batches(s, (8, 8, 3), PLAIN, 5)])

    np.testing.assert_array_equal(get(kept), get(on_disk))
    np.testing.assert_array_equal(get(kept), get(on_the_way))


def test_pictures_that_are_read_while_training(tmp_path, monkeypatch):
    """What is too large is not decoded beforehand; an order goes on anywhere; a broken picture is missing and named."""
    monkeypatch.setattr("kzoo.data.batches.MEMORY", 10)
    monkeypatch.setattr("kzoo.data.batches.DISK", 10)
    split = load_data(photos(tmp_path, {"a": 9, "b": 8}, ".jpg"), val_fraction=0, test_fraction=0).splits["train"]
    whole = (tmp_path / "a" / "003.jpg").read_bytes()
    (tmp_path / "a" / "003.jpg").write_bytes(whole[:-40])
    (tmp_path / "b" / "007.jpg").unlink()
    monkeypatch.setattr(images, "make_preparer", lambda *a: pytest.fail("nothing is decoded yet"))
    assert decode_split(split, (8, 8, 3), PLAIN, lazily=True) == (split, [])
    monkeypatch.undo()
    crop, left_out = ("area", 0.3, 1.0), {}

    def served(start=0, epoch=0, **options):
        options = {"order": (5, epoch), "crop": crop, "left_out": left_out, **options}
        return [(x.numpy(), y.numpy()) for x, y in batches(split, (8, 8, 3), PLAIN, 4, start=start, **options)]

    first = served()
    assert sorted(left_out) == ["a/003.jpg", "b/007.jpg"] and "can't be decoded" in left_out["a/003.jpg"]
    assert sum(map(len, pixels(split, (8, 8, 3), PLAIN, 7, {}))) == 15, "likewise for prediction"
    assert sum(len(y) for _, y in first) == 15 and np.concatenate([y for _, y in first]).sum() == 7
    for start in (4, 12, 16):
        rest = served(start)
        assert len(rest) == len(first) - start // 4
        for (x, y), (again, same) in zip(first[start // 4 :], rest, strict=True):
            np.testing.assert_array_equal(x, again)
            np.testing.assert_array_equal(y, same)
    # A crop depends on seed, epoch and picture, not on its batch: with the order given, in batches of another size.
    loose = np.concatenate(
        [x.numpy() for x, _ in batches(split, (8, 8, 3), PLAIN, 7, order=(5, 0), crop=crop, left_out={})]
    )
    np.testing.assert_array_equal(loose, np.concatenate([x for x, _ in first]))
    assert not np.array_equal(served(epoch=1)[0][0], first[0][0])
    with pytest.raises(tf.errors.OpError, match=r"a/003\.jpg can't be decoded"):
        served(crop=None, order=None, left_out=None)


def test_a_disk_that_fills_while_images_are_kept_there_costs_time_only(tmp_path, monkeypatch):
    from kzoo.data import batches as module

    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    data = load_data(photos(tmp_path, {"a": 3, "b": 3}), val_fraction=0, test_fraction=0).splits["train"]
    monkeypatch.setattr(module, "MEMORY", 10)
    monkeypatch.setattr(module.tempfile, "TemporaryFile", Full)
    on_the_way, bad = decode_split(data, (8, 8, 3), PLAIN)
    assert on_the_way.files and len(on_the_way) == 6 and not bad


def masked_files(folder, n=5, size=(30, 47)):
    """Pictures of 20 x class in blocks, and their masks, in files of another shape than a model's input."""
    labels = np.empty(n, object)
    paths = []
    table = Table(tuple("abcdef"), indices=tuple((i, i) for i in range(6)))
    for i in range(n):
        blocks = np.random.default_rng(i).integers(0, 6, (3, 5))
        mask = np.asarray(Image.fromarray(blocks.astype("uint8")).resize(size[::-1], Image.Resampling.NEAREST))
        Image.fromarray(mask).save(folder / f"m{i}.png")
        Image.fromarray(np.repeat(mask[..., None] * 20, 3, -1)).save(folder / f"p{i}.png")
        paths.append(str(folder / f"p{i}.png"))
        labels[i] = MaskFile(str(folder / f"m{i}.png"), table)
    return Split(paths, labels, [str(i) for i in range(n)])


def test_a_mask_is_resized_and_cropped_as_its_picture(tmp_path, monkeypatch):
    split, shape, how = masked_files(tmp_path), (16, 12, 3), Preprocessing(crop=0.8)
    ready, skipped = decode_split(split, shape, how)
    assert not skipped and ready.labels.shape == (5, 16, 12) and ready.labels.dtype == np.uint8
    # By hand: the shorter side becomes 16 / 0.8 = 20, then the middle is taken; pixels lie at their centres.
    scale = 20 / 30
    new = [20, round(47 * scale)]
    at = [
        np.minimum(((np.arange(m) + (n - m) // 2 + 0.5) * k / n).astype(int), k - 1)
        for n, m, k in zip(new, (16, 12), (30, 47), strict=True)
    ]
    for mask, label in zip(ready.labels, split.labels, strict=True):
        np.testing.assert_array_equal(mask, label.read()[np.ix_(*at)])
    pictures = ready.images[..., 0].astype(float) / 20  # within blocks a picture has the colour of its class
    assert (np.abs(pictures - ready.labels) < 0.3).mean() > 0.75

    arrays = Split(
        np.stack([images.decode(images.read(p)).numpy() for p in split.images]),
        np.stack([m.read() for m in split.labels]),
        split.ids,
    )
    from_arrays = decode_split(arrays, shape, how)[0]
    np.testing.assert_array_equal(from_arrays.labels, ready.labels)
    monkeypatch.setattr("kzoo.data.batches.MEMORY", 0)
    monkeypatch.setattr("kzoo.data.batches.DISK", 0)
    for source in (split, arrays):
        kept = decode_split(source, shape, how)[0]
        assert not kept.prepared
        served = list(batches(kept, shape, how, 2))
        np.testing.assert_array_equal(np.concatenate([y for _, y in served]), ready.labels)
        np.testing.assert_array_equal(np.concatenate([x for x, _ in served]), ready.images)
    monkeypatch.setattr("kzoo.data.batches.DISK", 1 << 30)
    mapped = decode_split(split, shape, how)[0]
    assert isinstance(mapped.labels, np.memmap)
    np.testing.assert_array_equal(mapped.labels, ready.labels)


def test_masks_flip_and_move_with_their_pictures():
    masks, shape = np.random.default_rng(0).integers(0, 6, (5, 4, 6)).astype("uint8"), (4, 6, 1)
    ready = Split(20 * masks[..., None], masks, list("abcde"), prepared=True)
    for options in ({"alternate_flip": True}, {"move": moves([("flip", 0.5)])}):
        for epoch in (0, 1):
            flipped = 0
            for x, y in batches(ready, shape, PLAIN, 2, order=(0, epoch), **options):
                np.testing.assert_array_equal(x[..., 0], 20 * y)
                flipped += sum(not (m == ready.labels).all((1, 2)).any() for m in y.numpy())
            assert 0 < flipped < 5
    first, again = (list(batches(ready, shape, PLAIN, 2, order=(0, 1), **options)) for _ in range(2))
    for (a, b), (c, d) in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)


def test_arrays_of_pictures_and_masks_must_have_one_size():
    split = Split(np.zeros((2, 8, 8, 3), "uint8"), np.zeros((2, 8, 9), "uint8"), ["a", "b"])
    with pytest.raises(DataError, match=r"The images have 8 x 8 pixels, and their masks \(8, 9\)"):
        decode_split(split, (8, 8, 3), PLAIN)
