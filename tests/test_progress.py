"""Progress on a terminal of 80 columns."""

import io

import pytest
from rich.console import Console

from kzoo.progress import Live


@pytest.mark.parametrize(
    ("text", "numbers", "shown"),
    [
        ("epoch 1/2", {"loss": 6.37, "accuracy": 0.3212}, "loss 6.37 accuracy 0.3212"),
        ("epoch 1/2", {"loss": 1.5123, "mean_iou": 0.5123, "pixel_accuracy": 0.9123}, "loss 1.512 mean_iou 0.5123"),
        ("epoch 100/100", {"loss": 1.5123, "f1": 0.5123, "label_accuracy": 0.9123}, "loss 1.512 f1 0.5123"),
        ("reading train", {}, ""),
    ],
)
def test_a_bar_shows_whole_numbers_in_80_columns(text, numbers, shown, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    live = Live("images")
    live.start(text, 100_000)
    live.began -= 60
    live.advance(50_000, **numbers)
    console = Console(file=io.StringIO(), width=80)
    console.print(live.progress.get_renderable())
    (line,) = console.file.getvalue().splitlines()
    assert len(line) <= 80 and "…" not in line
    assert line.startswith(text) and line.rstrip().endswith(shown or "--:--") and "50%" in line
