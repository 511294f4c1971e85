"""Names of classes."""

import os
import unicodedata

import pytest

from kzoo.data.labels import class_names, is_missing, multi_hot
from kzoo.errors import DataError


@pytest.mark.parametrize(
    "names, difference",
    [
        (("Red", "red"), "case"),
        (("red", "red "), "white space"),
        (("deep red", "deep  red"), "white space"),
        (("1", "1.0"), "how the number is written"),
        (("07", "7"), "how the number is written"),
        (("STRASSE", "straße"), "case"),
    ],
)
def test_two_spellings_of_one_class_are_refused_and_both_are_named(names, difference):
    with pytest.raises(DataError) as e:
        class_names(names, "photos")
    assert all(repr(n) in str(e.value) for n in names) and difference in str(e.value)


def test_unicode_forms_of_a_name_are_one_class_and_other_names_stay_apart():
    composed, apart = "caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")
    assert class_names([composed, apart, "cafe"], "x") == {composed: composed, apart: composed, "cafe": "cafe"}
    others = ["1", "1.5", "1.50", "10", "1_0", "A", "a", "nan", "inf"]
    assert list(class_names(others, "x").values()) == others, "also letters in both cases, as sets of characters have"


def test_names_that_are_no_unicode_can_be_written():
    name, odd = os.fsdecode(b"caf\xe9"), os.fsdecode(b"\x9d")
    found = class_names([name, odd], "x")
    assert found[name] == "caf\u00e9" and found[odd] == "\\x9d"


def test_missing_labels():
    assert all(map(is_missing, ("", " ", "nan", "NaN", "N/A", "n/a", "#N/A", "<NA>", "NULL", "null", "None", "NA")))
    assert not any(map(is_missing, ("none", "na", "0", "banana", "Nano")))


def test_more_labels_than_memory_are_refused():
    with pytest.raises(DataError, match="2,000,000 images with several of 1,000,000 classes are too many"):
        multi_hot(range(2_000_000), 1_000_000)
