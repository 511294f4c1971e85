"""Record files of TensorFlow Datasets."""

import numpy as np
import pytest
import tensorflow as tf

from kzoo.data.records import ArrayRecords, Records, TFRecords, features_of, image_of, interleaved
from kzoo.errors import DataError


def example(i):
    label = tf.train.Feature(int64_list=tf.train.Int64List(value=[i % 3]))
    image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"picture" * i]))
    features = tf.train.Features(feature={"image": image, "label": label, "file_name": image})
    return tf.train.Example(features=features).SerializeToString()


def test_records_are_read_in_any_order(tmp_path):
    numbers, paths = iter(range(37)), []
    for part, n in enumerate((20, 0, 17)):
        paths.append(str(tmp_path / f"{part}.tfrecord"))
        with tf.io.TFRecordWriter(paths[-1]) as file:
            for _ in range(n):
                file.write(example(next(numbers)))
    readers = [TFRecords(paths, 37)]
    module = pytest.importorskip("array_record.python.array_record_module")
    writer = module.ArrayRecordWriter(str(tmp_path / "a.array_record"), "group_size:1")
    for i in range(37):
        writer.write(example(i))
    writer.close()
    readers.append(ArrayRecords([str(tmp_path / "a.array_record")], 37))
    for reader in readers:
        found = [features_of(record) for record in reader.all()]
        assert [f["label"].int64_list.value[0] for f in found] == [i % 3 for i in range(37)]
        records = Records(reader, np.arange(37), np.array([len(image_of(f)) for f in found]))
        some = records.take(np.array([36, 0, 20, 20]))
        assert some[:] == [b"picture" * i for i in (36, 0, 20, 20)] and some.sizes.tolist() == [252, 0, 140, 140]
    with open(paths[2], "r+b") as file:
        file.truncate(300)
    with pytest.raises(DataError, match="ends within a record"):
        list(TFRecords(paths, 37).all())


def test_the_order_is_that_of_tensorflow_datasets():
    lengths = [40, 5, 33, 1, 60, 17, 20, 18, 2, 9, 12, 13, 31, 15, 3, 44, 16, 32, 7]
    files = np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1])
    want, waiting, open_files = [], [list(f) for f in files], []
    open_files = [waiting.pop(0) for _ in range(16)]
    k = 0
    while any(open_files) or waiting:  # an open file gives 16 in its turn; one that ends is replaced in its place
        if k >= len(open_files):
            k = 0
        block = open_files[k][:16]
        del open_files[k][: len(block)]
        want += block
        if len(block) < 16:
            open_files[k] = waiting.pop(0) if waiting else []
        k += 1
    assert sorted(want) == list(range(sum(lengths))) and interleaved(lengths, 1).tolist() == sorted(want)
    assert interleaved(lengths, 16).tolist() == want
