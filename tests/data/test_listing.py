"""Lists of files."""

import os

from support.photos import photos

from kzoo.data.listing import Identities, contents, files_below, identity


def test_each_real_file_once_without_clutter(tmp_path):
    photos(tmp_path, {"a": 2, "@eaDir": 1, "__MACOSX": 1, ".git": 1})
    (tmp_path / "a" / "Thumbs.db").write_text("x")
    os.link(tmp_path / "a" / "000.png", tmp_path / "a" / "100.png")
    os.symlink(tmp_path / "a" / "001.png", tmp_path / "a" / "0.png")
    os.symlink(tmp_path / "a" / "gone", tmp_path / "a" / "lost.png")
    again = []
    names = [p.name for p in files_below(tmp_path, again=again)]
    assert names == ["0.png", "000.png", "lost.png"]
    assert [(p.name, first.name) for p, first in again] == [("001.png", "0.png"), ("100.png", "000.png")]
    os.symlink("loop", tmp_path / "loop")
    assert contents(tmp_path) == ([tmp_path / "a"], [tmp_path / "loop"])
    assert identity(tmp_path / "a" / "000.png") == identity(tmp_path / "a" / "100.png")
    assert identity(tmp_path / "nothing") != identity(tmp_path / "a" / "000.png")


def test_identities_are_those_of_files(tmp_path):
    photos(tmp_path, {"a": 3})
    os.link(tmp_path / "a" / "002.png", tmp_path / "a" / "b.png")
    os.symlink(tmp_path / "a" / "000.png", tmp_path / "a" / "c.png")
    found = Identities()
    for name in ("002", "000", "b", "gone", "c", "001", "gone"):
        found.add(str(tmp_path / "a" / f"{name}.png"))
    assert found.first().tolist() == [0, 1, 0, 3, 1, 5, 3] and len(Identities().first()) == 0
