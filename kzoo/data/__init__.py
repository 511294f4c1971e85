"""Data: where images come from (sources), how one becomes a model's input (images), how they are served (batches)."""
