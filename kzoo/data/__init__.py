"""Data: where images come from (sources), how one becomes a model's input (images), how they are served (batches)."""

from kzoo.data.dataset import DataSet, Split
from kzoo.data.passport import Passport
from kzoo.data.passport import passport as check_data
from kzoo.data.sources import load_data

__all__ = ["DataSet", "Passport", "Split", "check_data", "load_data"]
