"""kzoo predict: what names, labels and an export's messages may do to a terminal or a spreadsheet: nothing."""

import csv
import io
import json
import os

import pytest

from kzoo.cli.options import json_text
from kzoo.errors import KzooError, printable
from kzoo.evaluating import loading
from kzoo.evaluating.loading import LoadedModel
from kzoo.progress import say
from kzoo.tasks import find

OSC = "\x1b]0;owned\x07"
LABELS = ("=HYPERLINK(1)", f"b{OSC}", "käfer")


def answer(encoded, top):
    found = [{"class": name, "probability": p} for name, p in zip(LABELS, (0.5, 0.3, 0.2), strict=True)]
    return [{"top": found[:top]} if data else {"error": f"bad{OSC}\u202e"} for data in encoded]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of files with hostile names, and a model with hostile labels and messages."""
    model = LoadedModel(find("classification"), LABELS, answer)
    # Where kzoo.predict looks for it comes first: an import while `loading` is changed would keep the change for good.
    monkeypatch.setattr("kzoo.evaluating.prediction.load_model", lambda *args, **options: model)
    monkeypatch.setattr(loading, "load_model", lambda *args, **options: model)
    monkeypatch.setattr("kzoo.data.images.read", lambda path: b"" if "bad" in path else b"x")
    monkeypatch.chdir(tmp_path)
    for name in (f"-a{OSC}.jpg", os.fsdecode(b"bad\xff.jpg"), "@sum.jpg"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def test_on_the_terminal_and_in_json(photos, kzoo_command):
    code, out, err = kzoo_command("predict", "model", photos, "--quiet")
    assert code == 1 and (out + err).replace("\n", "").isprintable()
    assert "owned" in out and "\\x1b" in out and "bad\\x1b]0;owned\\x07\\u202e" in err
    code, out, _ = kzoo_command("predict", "model", photos, "--json", "--quiet")
    rows = json.loads(out)
    assert out.replace("\n", "").isprintable()
    assert rows[0]["image"].endswith(f"-a{OSC}.jpg") and rows[0]["top"][1]["class"] == LABELS[1]  # nothing is lost


def test_in_csv(photos, kzoo_command):
    code, out, _ = kzoo_command("predict", "model", "-", "@sum.jpg", "--csv", "--quiet")
    assert code == 1  # there is no file "-"
    code, out, _ = kzoo_command("predict", "model", "--csv", "--quiet", "--", f"-a{OSC}.jpg", "@sum.jpg")
    rows = list(csv.reader(io.StringIO(out)))
    assert code == 0 and out.replace("\n", "").replace("\r", "").isprintable()
    assert rows[1][0] == "'-a\\x1b]0;owned\\x07.jpg" and rows[2][0] == "'@sum.jpg"
    assert rows[1][2] == "'=HYPERLINK(1)" and rows[1][6] == "käfer" and rows[1][3] == "0.500000"


def test_errors_logs_and_json_are_escaped(kzoo_command, capfd, monkeypatch):
    say(f"one\ntwo {OSC}")
    assert capfd.readouterr().err == "one\ntwo \\x1b]0;owned\\x07\n"

    def fail(*args, **options):
        raise KzooError(f"no {OSC}\nsecond line")

    monkeypatch.setattr(loading, "load_model", fail)
    code, _, err = kzoo_command("predict", "model", "x.jpg")
    assert code == 1 and err == "Error: no \\x1b]0;owned\\x07\\nsecond line\n"
    text = json_text({"a": "\x9b\u202eä \udcff", "b": [float("nan")]})
    assert text.replace("\n", "").isprintable() and json.loads(text) == {"a": "\x9b\u202eä \udcff", "b": [None]}
    assert printable("käfer 中 🙂") == "käfer 中 🙂"
