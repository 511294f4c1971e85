"""Formats: which can be written here."""

import pytest

import kzoo
from kzoo.errors import ExportError
from kzoo.exporting import formats


def test_a_format_whose_packages_are_missing_is_an_error_before_any_work(model, monkeypatch, tmp_path):
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    assert formats.missing("saved_model") is None
    with pytest.raises(ExportError, match=r"onnx needs tf2onnx, onnx, onnxruntime: pip install 'kzoo\[onnx\]'"):
        kzoo.export(model, ("saved_model", "onnx"), tmp_path / "e", quiet=True)
    with pytest.raises(ExportError, match="litert needs ai_edge_litert"):
        kzoo.export(model, "saved_model,litert", tmp_path / "e", quiet=True)
    assert not (tmp_path / "e").exists()
