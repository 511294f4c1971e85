"""Formats: which can be written here."""

import pytest

from kzoo.errors import ExportError
from kzoo.exporting import write


def test_a_missing_package_leaves_out_its_format(model, monkeypatch, capsys):
    from kzoo.exporting import formats

    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    assert write._chosen(("saved_model", "onnx")) == ["saved_model"]
    assert "pip install 'kzoo[onnx]'" in capsys.readouterr().err
    with pytest.raises(ExportError, match="litert needs ai_edge_litert"):
        write._chosen(("litert",))
