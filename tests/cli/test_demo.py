"""`kzoo demo`: from nothing to an export."""

import json

import pytest
from PIL import Image


@pytest.mark.deep("2026-11-27")  # .ci/run runs the demo, as the README has it
def test_the_demo_runs_and_prints_its_commands(kzoo_command, tmp_path):
    code, out, _ = kzoo_command("demo", "--out", tmp_path / "demo")
    assert code == 0
    for verb in (
        "list",
        "info",
        "reproduce",
        "finetune",
        "evaluate",
        "export",
        "verify",
        "predict",
        "visualize",
        "style",
        "stylenet",
    ):
        assert f"$ kzoo {verb}" in out
    made = tmp_path / "demo"
    assert (made / "digits" / "confusion-test.png").exists() and (made / "saved_model" / "card.md").exists()
    assert json.loads((made / "digits" / "evaluation-test.json").read_text())["top1"] > 0.9
    assert "(CAM on " in (made / "digits" / "report.html").read_text("utf-8")
    assert (made / "look" / "report.html").exists() and len(list((made / "look").rglob("cam-1.png"))) == 1
    commands = [json.loads((made / f).read_text())["command"] for f in ("digits/config.json", "saved_model/card.json")]
    assert commands[0].startswith("kzoo finetune digits --model resnet20") and commands[1].startswith("kzoo export ")
    with Image.open(made / "painted.png") as picture:
        assert picture.size == (256, 256)
    assert (made / "painted-in-one-pass" / "glass.png").exists()


def test_the_demo_wants_a_folder_of_its_own(kzoo_command, tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "novel.txt").write_text("years of work")
    code, out, err = kzoo_command("demo", "--out", tmp_path / "demo")
    assert code == 1 and "is not empty" in err and "$ kzoo list" not in out
    (tmp_path / "file").touch()
    code, _, err = kzoo_command("demo", "--out", tmp_path / "file" / "demo")
    assert code == 1 and "Can't make the folder" in err
