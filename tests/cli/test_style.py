"""kzoo style on the command line."""

import json

import numpy as np
import pytest
from PIL import Image
from support.style import CONTENT, OPTIONS, OTHER, STYLE

from kzoo.synthesis import pictures


@pytest.fixture
def files(tmp_path):
    for name, array in (("content.png", CONTENT), ("style.png", STYLE), ("other.png", OTHER)):
        Image.fromarray(array).save(tmp_path / name)
    return tmp_path


def test_command_and_like(files, kzoo_command, monkeypatch):
    monkeypatch.chdir(files)
    code, _, err = kzoo_command("style", "content.png", "style.png", *OPTIONS, "--evaluations", 5)
    assert code == 0 and "Wrote content-style.png" in err
    record = pictures.read_record("content-style.png")
    assert record["content"] == "content.png" and record["settings"]["evaluations"][0] >= 5
    code, out, err = kzoo_command(
        "style", "--like", "content-style.png", "--out", "again.png", "--no-report", "--json", "--quiet"
    )
    assert code == 0 and err == "" and json.loads(out)[0]["path"] == "again.png"
    np.testing.assert_array_equal(*map(pictures.read_picture, ("again.png", "content-style.png")))
    code, _, _ = kzoo_command(
        "style", "other.png", "--like", "content-style.png", "--out", "b.png", "--size", 45, "--quiet"
    )
    assert code == 0 and pictures.read_picture("b.png").shape == (45, 45, 3)
    assert pictures.read_record("b.png")["content"] == "other.png"
    for name, text in (("content.png", "carries no settings"), ("no.png", "no.png")):
        code, _, err = kzoo_command("style", "--like", name)
        assert code == 1 and text in err and err.count("\n") == 1


def test_other_weights_than_those_of_like_bring_their_model(files, kzoo_command, monkeypatch):
    monkeypatch.chdir(files)
    quick = ("--size", 40, "--coarsest", 0, "--evaluations", 1, "--no-report", "--quiet")
    assert kzoo_command("style", "content.png", "style.png", "--weights", "cifar10", "--out", "a.png", *quick)[0] == 0
    assert pictures.read_record("a.png")["settings"]["model"] == "vgg_cifar10"
    code, _, err = kzoo_command("style", "--like", "a.png", "--weights", "random", "--out", "b.png", "--quiet")
    assert (code, err) == (0, "")
    assert pictures.read_record("b.png")["settings"]["model"] == "vgg19"


def test_weights_that_a_picture_names_are_not_opened(files, kzoo_command, monkeypatch):
    from kzoo.weights import fetch

    monkeypatch.chdir(files)
    monkeypatch.setattr(fetch, "download", lambda *args, **options: pytest.fail("fetched"), raising=False)
    settings = {"weights": "http://127.0.0.1:9/w.npz", "evaluations": 1, "size": 40}
    pictures.write_picture(
        "evil.png", CONTENT, {"content": "content.png", "styles": ["style.png"], "settings": settings}
    )
    code, _, err = kzoo_command("style", "--like", "evil.png", "--out", "x.png")
    assert code == 1 and "give them by --weights" in err and err.count("\n") == 1
    assert not (files / "x.png").exists()


def test_command_errors(files, kzoo_command, monkeypatch):
    monkeypatch.chdir(files)
    assert kzoo_command("style")[0] == 2
    assert kzoo_command("style", "content.png")[0] == 2
    assert kzoo_command("style", "content.png", "style.png", "--budget", "soon")[0] == 2
    assert kzoo_command("style", "content.png", "style.png", "--style-weights", "a,b")[0] == 2
    code, _, err = kzoo_command("style", "content.png", "style.png", *OPTIONS, "--from-last")
    assert code == 1 and "folder" in err
    code, _, err = kzoo_command("style", "content.png", "nothing.png", *OPTIONS)
    assert code == 1 and "nothing.png" in err and "Traceback" not in err


def test_options_that_say_nothing_or_two_things(files, kzoo_command):
    pictures = (files / "content.png", files / "style.png")
    for more, said in (
        (("--evaluations", ","), "expected values with commas"),
        (("--evaluations", 3, "--budget", "9s"), "not both"),
    ):
        code, _, err = kzoo_command("style", *pictures, *more)
        assert code == 2 and said in err
