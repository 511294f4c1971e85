"""What a person sees in a terminal of 80 columns: no bar in front of an answer or left behind, no table that wraps."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from support.terminal import screen, terminal

from kzoo.cli import main


def shown(*args):
    """(exit code, lines, those that wrapped) of a command."""
    code = 0
    with terminal() as text:
        try:
            main([str(a) for a in args])
        except SystemExit as e:
            code = e.code or 0
    lines, wrapped = screen(text())
    return code, lines, [lines[i] for i in sorted(wrapped)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty pictures."""
    found = tmp_path_factory.mktemp("pictures") / "p"
    found.mkdir()
    for i in range(40):
        Image.fromarray(np.full((28, 28), 6 * i, "uint8")).save(found / f"{i:02}.png")
    return found


def test_answers_stand_alone(members, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    code, lines, wrapped = shown("predict", members / "softmax", "p", "--top", 2, "--batch-size", 8)
    assert code == 0 and not wrapped
    assert [line.partition(":")[0] for line in lines if line] == [f"p/{i:02}.png" for i in range(40)]


def test_a_bar_leaves_nothing_behind(members, folder, tmp_path):
    _, lines, wrapped = shown("data", "check", folder)
    assert not any("━" in line for line in lines)
    assert not any("  " in line.strip() for line in wrapped)  # no row of a table
    code, lines, _ = shown(
        "train", "mnist_softmax", "--data", members / "digits.npz", "--epochs", 1, "--out", tmp_path / "r"
    )
    assert code == 0 and not any("━" in line for line in lines)
    (epoch,) = [line for line in lines if line.startswith("epoch")]
    assert epoch.startswith("epoch 1/1: loss ") and ", val " in epoch and epoch.endswith("/s)")


def test_tables_fit(members):
    for args in (
        ("evaluate", members / "softmax"),
        ("evaluate", members / "softmax", members / "mlp"),
        ("list",),
        ("info", "mnist_cnn"),
        ("weights", "list"),
    ):
        code, lines, wrapped = shown(*args)
        assert code == 0 and len(lines) > 9
        assert not any("  " in line.strip() for line in wrapped), args


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_output_that_finds_no_room_is_one_line():
    with open("/dev/full", "wb") as full:
        process = subprocess.run(
            [sys.executable, "-c", "from kzoo.cli import entry; entry()", "list"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert process.returncode == 1
    assert process.stderr == "Error: The output can't be written (No space left on device).\n"
