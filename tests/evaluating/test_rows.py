"""Rows of CSV."""

import pytest

from kzoo.evaluating.rows import cell


@pytest.mark.parametrize("start", "=+-@")
def test_a_cell_that_a_spreadsheet_would_compute_begins_with_an_apostrophe(start):
    assert cell(f"{start}1+1") == f"'{start}1+1"
    assert cell(-1.5) == -1.5 and cell("a=1") == "a=1" and cell("\t=1") == "\\t=1"
