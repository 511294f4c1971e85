"""Data: where images come from (sources), how one becomes a model's input (images), how they are served (batches)."""

from kzoo.data.sources import DataSet, Split, load_data

__all__ = ["DataSet", "Split", "load_data"]
