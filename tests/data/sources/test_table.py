"""Tables of paths and labels."""

import os

from support.photos import fails, photos, picture, table

from kzoo.data.loading import load_data


def test_a_table_with_and_without_splits(tmp_path, monkeypatch):
    photos(tmp_path / "p", {"x": 10, "y": 20})
    rows = [(f"p/{c}/{i:03}.png", c) for c, n in (("x", 10), ("y", 20)) for i in range(n)]
    plain = load_data(table(tmp_path, "path,label\n" + "".join(f"{p},{c}\n" for p, c in rows)))
    folder = load_data(tmp_path / "p")
    assert plain.classes == ("x", "y") and plain.drawn == ("train", "val", "test") and not plain.skipped
    for part, split in folder.splits.items():  # the same images in the same order are divided in the same way
        assert [os.path.join("p", i) for i in split.ids] == plain.splits[part].ids
    split = ["training", "Valid", " test"]
    text = "Split;Note;LABEL;Path\r\n" + "".join(f"{split[i % 3]};n;{c};{p}\r\n" for i, (p, c) in enumerate(rows))
    divided = load_data(table(tmp_path, text, "utf-8-sig"))
    assert {k: len(s) for k, s in divided.splits.items()} == {"train": 10, "val": 10, "test": 10}
    assert divided.drawn == () and divided.splits["val"].ids[0] == os.path.join("p", "x", "001.png")
    monkeypatch.chdir(tmp_path / "p")
    assert load_data("../photos.csv").splits.keys() == divided.splits.keys(), "a path with .. in it"


def test_rows_of_a_table_that_can_not_be_used_are_skipped_with_the_reason(tmp_path):
    inside = tmp_path / "in"
    photos(inside, {"a": 3, "b": 3})
    picture(9).save(tmp_path / "secret.png")
    (inside / "text.png").write_text("no picture")
    os.symlink(inside / "a" / "000.png", inside / "again.png")
    text = (
        "path,label,split\na/000.png,a,train\nb/000.png,b,train\na/001.png,a,val\n"
        "../secret.png,a,train\n" + f"{tmp_path}/secret.png,a,train\n" + f"{inside}/b/001.png,b,train\n"
        "gone.png,a,train\ntext.png,a,train\n,a,train\na/002.png,,train\na/002.png,a,tset\na/002.png,a\n\n"
        "again.png,b,train\nb/../b/000.png,b,train\n\0x.png,a,train\n"
    )
    data = load_data(table(inside, text))
    assert {k: s.ids for k, s in data.splits.items()} == {
        "train": ["a/000.png", "b/000.png", "b/001.png"],
        "val": ["a/001.png"],
    }
    reasons = [reason for _, reason in data.skipped]
    assert reasons[:2] == ["leads out of the table's folder"] * 2
    assert "No such file" in reasons[2] and "not a JPEG" in reasons[3]
    assert reasons[4:6] == ["has no path", "has no label"]
    assert reasons[6] == "has the split 'tset'; there are train, val and test"
    assert reasons[7] == "has no split, though others have"
    assert reasons[8:10] == ["duplicate of row 2, with another label", "duplicate of row 3"]
    assert reasons[10] == "has a zero byte in its path" and len(reasons) == 11
    assert data.skipped[0][0] == "row 5 (../secret.png)"


def test_files_that_are_no_tables(tmp_path):
    fails(table(tmp_path, "file,class\na.png,x\n"), "must name the columns path and label")
    fails(table(tmp_path, b""), "it has none")
    fails(table(tmp_path, b"\xff\xfe\0p\0a"), "must name the columns")
    fails(table(tmp_path, "path,label\n"), "has no usable row: it is empty")
    fails(table(tmp_path, "path,label\nno.png,x\n"), "has no usable row: 1 unusable file: row 2 (no.png) can't be read")
    fails(table(tmp_path, "path,label\n" + '"' + "x" * 200_000), "is not a readable .csv file (field larger")
    (tmp_path / "f.csv").mkdir()
    fails(tmp_path / "f.csv", "has no class folders")


def test_names_in_a_table_need_not_be_utf_8(tmp_path):
    photos(tmp_path, {"a": 2, "b": 2})
    os.rename(tmp_path / "a" / "000.png", os.fsdecode(os.fsencode(tmp_path) + b"/a/\xe9.png"))
    data = load_data(
        table(tmp_path, b"path,label\na/\xe9.png,a\na/001.png,a\nb/000.png,b\n"), val_fraction=0, test_fraction=0
    )
    assert data.splits["train"].ids[0] == "a/\udce9.png" and not data.skipped
