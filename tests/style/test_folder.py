"""The pictures of a folder: in order, resumed, and none hidden by another that can't be painted."""

import json
import os
import signal

import pytest
from PIL import Image
from support.style import CONTENT, OPTIONS, STYLE

from kzoo.interrupt import Interrupted
from kzoo.style import folder
from kzoo.style.folder import stylize_folder
from kzoo.style.transfer import Result
from kzoo.synthesis import pictures


def test_a_folder_of_frames(files, kzoo_command):
    (files / "frames").mkdir()
    for name in ("f10.png", "f2.png", "f1.png"):
        Image.fromarray(CONTENT).save(files / "frames" / name)
    (files / "frames" / "notes.txt").write_text("no picture")
    arguments = [
        files / "frames",
        files / "style.png",
        *OPTIONS,
        "--evaluations",
        4,
        "--no-report",
        "--json",
        "--quiet",
    ]
    code, out, _ = kzoo_command("style", *arguments, "--out", files / "painted", "--from-last")
    results = json.loads(out)
    assert code == 0 and [os.path.basename(r["path"]) for r in results] == ["f1.png", "f2.png", "f10.png"]
    assert [r["settings"]["init"] for r in results] == ["content", *(r["path"] for r in results[:2])]
    code, out, _ = kzoo_command("style", *arguments, "--out", files / "painted", "--resume")
    assert code == 0 and json.loads(out) == []
    code, _, err = kzoo_command("style", *arguments, "--out", files / "painted", "--resume", "--style-weight", 9)
    assert code == 1 and "was painted otherwise" in err and "style_weight: the run has 100.0, this command 9" in err
    kept = (files / "painted" / "f2.png").read_bytes()
    Image.fromarray(STYLE).save(files / "painted" / "f2.png")
    code, _, err = kzoo_command("style", *arguments, "--out", files / "painted", "--resume")
    assert code == 1 and "f2.png carries no settings of kzoo style" in err
    (files / "painted" / "f2.png").write_bytes(kept)
    (files / "frames" / "f3.png").write_bytes((files / "frames" / "f2.png").read_bytes()[:900])
    code, _, err = kzoo_command("style", *arguments, "--out", files / "painted", "--resume")
    assert code == 1 and "f3.png" in err and "1 of 4" in err
    code, _, err = kzoo_command("style", *arguments, "--out", files / "frames")
    assert code == 1 and "overwritten" in err


def test_pictures_that_cannot_be_painted_hide_no_others(files, kzoo_command):
    (files / "some").mkdir()
    Image.fromarray(CONTENT).save(files / "some" / "a.png")
    (files / "some" / "b.png").write_bytes((files / "some" / "a.png").read_bytes()[:900])
    options = (*OPTIONS, "--evaluations", 1, "--no-report", "--json", "--quiet", "--out", files / "painted")
    code, out, err = kzoo_command("style", files / "some", files / "style.png", *options)
    assert code == 1 and "1 of 2" in err and [os.path.basename(r["path"]) for r in json.loads(out)] == ["a.png"]


def test_the_first_frame_gets_at_each_size_what_the_others_have(files, monkeypatch):
    """Of 64 and of 45 pixels; a whole number of evaluations is for all sizes."""
    (files / "film").mkdir()
    for name in ("1.png", "2.png"):
        Image.fromarray(CONTENT).save(files / "film" / name)
    asked = []

    def painted(file, styles, out, settings, **_):
        asked.append((settings.evaluations, settings.coarsest, settings.init))
        return Result(CONTENT, {}, [], out)

    monkeypatch.setattr(folder, "stylize", painted)
    options = {"weights": "random", "size": 64, "coarsest": 32, "quiet": True, "force": True}
    films = [(12, True), ((2, 3, 7), True), (12, False)]
    for evaluations, from_last in films:
        stylize_folder(files / "film", STYLE, files / "out", evaluations=evaluations, from_last=from_last, **options)
    first = str(files / "out" / "1.png")
    one_by_one, usual = ((2, 3, 7), 32, "content"), (12, 32, "content")
    assert asked == [(24, 32, "content"), (12, 0, first), one_by_one, (12, 0, first), usual, usual]


def test_ctrl_c_between_two_pictures_ends_a_folder(files, monkeypatch):
    """A signal that comes while a picture is written is asked about before the next one begins."""
    (files / "two").mkdir()
    for name in "ab":
        Image.fromarray(CONTENT).save(files / "two" / f"{name}.png")
    original = pictures.write_picture

    def write(path, *args):
        original(path, *args)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(pictures, "write_picture", write)
    with pytest.raises(Interrupted, match="--resume continues") as e:
        stylize_folder(
            files / "two",
            files / "style.png",
            files / "painted",
            weights="random",
            size=40,
            coarsest=0,
            evaluations=1,
            report=False,
            quiet=True,
        )
    assert e.value.exit_code == 130 and [p.name for p in (files / "painted").iterdir()] == ["a.png"]
