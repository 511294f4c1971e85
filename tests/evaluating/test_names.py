"""Names of many pictures as a stream."""

import hashlib
import os
from itertools import pairwise

import numpy as np
import pytest

from kzoo.errors import DataError
from kzoo.evaluating.names import MAX_NAME, Seen, files_below, listed, named, shard_of

ODD = [os.fsdecode(b"\xff.jpg"), "a\nb.jpg", 'c,"d".jpg', " e .jpg", "käfer.jpg"]


def test_all_below_a_folder_but_clutter_and_links_to_folders(tmp_path):
    for name in [*ODD, "x/1.jpg", "x/y/2.jpg", "x/.git/no", "__MACOSX/no", "Thumbs.db"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "x/up").symlink_to(tmp_path)
    (tmp_path / "x/y/round").symlink_to("..")
    (tmp_path / "itself").symlink_to("itself")
    (tmp_path / "broken").symlink_to("nothing")
    (tmp_path / "photo").symlink_to("x/1.jpg")
    names = [*ODD, "x/1.jpg", "x/y/2.jpg", "itself", "broken", "photo"]
    assert sorted(files_below(str(tmp_path))) == sorted(names)
    found = dict(named([str(tmp_path), str(tmp_path / "photo")]))
    assert found == {**{name: f"{tmp_path}/{name}" for name in names}, f"{tmp_path}/photo": f"{tmp_path}/photo"}


@pytest.mark.parametrize(
    "data, names",
    [
        (b"\xef\xbb\xbfa.jpg\r\n\r\n\xff b\r\nlast", ["a.jpg", os.fsdecode(b"\xff b"), "last"]),
        ("\0".join(["a\r", *ODD, ""]).encode("utf-8", "surrogateescape"), ["a\r", *ODD]),
        (b"", []),
        (
            "".join(f"{'n' * (i % 90)}{i}\n" for i in range(4000)).encode(),
            [f"{'n' * (i % 90)}{i}" for i in range(4000)],
        ),
    ],
)
def test_lists(tmp_path, data, names):
    (tmp_path / "l.txt").write_bytes(data)
    assert list(listed(tmp_path / "l.txt")) == names
    assert list(named([str(tmp_path / "l.txt")])) == [(name, name) for name in names]


@pytest.mark.parametrize(
    "data, why",
    [
        ("a.jpg\n".encode("utf-16"), "UTF-16"),
        (b"x" * (2 * MAX_NAME + 9), "no list"),
        (b"a\n" * MAX_NAME + b"\0", "no list"),
    ],
)
def test_what_is_no_list(tmp_path, data, why):
    (tmp_path / "l.txt").write_bytes(data)
    with pytest.raises(DataError, match=why):
        list(listed(tmp_path / "l.txt"))


def test_a_folder_that_is_gone(tmp_path):
    with pytest.raises(DataError, match=r"can't be read \(No such file"):
        list(files_below(str(tmp_path / "gone")))
    with pytest.raises(DataError, match="There is no file"):
        list(named([str(tmp_path / "gone.jpg")]))


def test_shards_are_by_the_sha_256_of_the_name():
    # printf a.jpg | sha256sum: 8df5... ; the first 8 bytes as a number, modulo 1,000
    number = int(hashlib.sha256(b"a.jpg").hexdigest()[:16], 16)
    assert [shard_of("a.jpg", n) for n in (1, 7, 1000)] == [0, number % 7, number % 1000]
    assert shard_of(ODD[0], 10**6) == int(hashlib.sha256(b"\xff.jpg").hexdigest()[:16], 16) % 10**6
    counts = np.bincount([shard_of(f"{i}.jpg", 4) for i in range(4000)])
    assert len(counts) == 4 and abs(counts - 1000).max() < 120  # 4 standard deviations


def test_seen_is_a_set():
    rng, seen, oracle = np.random.default_rng(0), Seen(), set()
    for n in (0, 1, 5, 700, 3, 1000, 1000):
        names = [str(i) for i in rng.integers(0, 1500, n)]
        expected = [not (name in oracle or oracle.add(name)) for name in names]
        assert seen.new(names) == expected
    assert all((str(i) in seen) == (str(i) in oracle) for i in range(0, 1500, 7)) and ODD[0] not in seen
    lengths = [len(group) for group in seen.groups]
    assert sum(lengths) == len(oracle) and all(a >= 2 * b for a, b in pairwise(lengths))
