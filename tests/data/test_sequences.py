"""Long sequences behave as lists."""

import os

import numpy as np

from kzoo.data.sequences import Chosen, Names

PATHS = ["a/1.jpg", "a/b/2.jpg", "top.png", os.fsdecode(b"caf\xe9/\xff.jpg"), "/abs/x", "a/1.jpg"]


def test_names_are_a_list_of_paths():
    names = Names(iter(PATHS))
    assert names == PATHS and list(names) == PATHS and names[-1] == PATHS[-1] and names[1:4] == PATHS[1:4]
    assert names != PATHS[:-1] and names != "a/1.jpg" and len(names) == 6 and PATHS[2] in names
    order = np.array([4, 0, 0])
    assert names.take(order) == [PATHS[i] for i in order]
    assert names.take(np.arange(6) % 2 == 0).below("/r") == ["/r/a/1.jpg", "/r/top.png", "/r//abs/x"]
    assert names.below("") == PATHS and Names() == []


def test_names_take_few_bytes():
    many = Names(f"class_{i % 100:03}/n{i:08}.JPEG" for i in range(50_000))
    held = len(many.text) + sum(a.nbytes for a in (many.folder, many.start, many.length))
    assert held / len(many) == 14 + 16 and many.take(np.arange(10)).text is many.text


def test_chosen_items_of_several_sequences():
    class Sized(list):
        sizes = np.array([7, 8])

    parts = [Sized([b"a", b"b"]), Sized([b"c", b"d"])]
    whole = Chosen(parts)
    assert whole == [b"a", b"b", b"c", b"d"] and whole.sizes.tolist() == [7, 8, 7, 8]
    some = whole.take(np.array([3, 0, 3]))
    assert some[:] == [b"d", b"a", b"d"] and some.sizes.tolist() == [8, 7, 8]
    assert some.take(np.array([False, True, False])) == [b"a"] and Chosen([parts[0], [b"x"]]).sizes is None
