"""Tables of paths and labels."""

import os

import pytest
from support.photos import fails, photos, picture, table

from kzoo.data.loading import load_data, read_data


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
    fails(table(tmp_path, "foto,klasse,art\na.png,x,y\n"), "must name the columns path and label (and perhaps split)")
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


def rows(line, header="path,label\n", n=6):
    """A line for each of n pictures of a class: line(path, class, number)."""
    return header + "".join(line(f"{c}/{i:03}.png", c, i) + "\n" for c in "ab" for i in range(n))


def whole(path):
    return load_data(path, val_fraction=0, test_fraction=0)


@pytest.mark.parametrize(
    "name, encoding, text",
    [
        ("t.csv", "utf-8", rows(lambda p, c, i: f"{p},{c}", "filename,class\n")),
        ("t.csv", "utf-8", rows(lambda p, c, i: f"{p},{c}", "Image Path,Label\n")),
        ("t.csv", "utf-8", rows(lambda p, c, i: f"{p},{c}", "image,label\n")),
        ("t.csv", "utf-8", rows(lambda p, c, i: f"{i},{p},{c},9", "id,file,target,width\n")),
        ("t.csv", "utf-8", rows(lambda p, c, i: f"{p},{c}", "name,label\n")),
        ("t.csv", "utf-8", rows(lambda p, c, i: f"{p},{c},{c * 2}", "path,label,category\n")),
        ("t.csv", "utf-8", rows(lambda p, c, i: f"{p},{c}", "")),
        ("t.csv", "utf-8", rows(lambda p, c, i: f"{c};{p}", "")),
        ("t.tsv", "utf-8", rows(lambda p, c, i: f"{p}\t{c}", "path\tlabel\n")),
        ("T.TSV", "utf-16", rows(lambda p, c, i: f"{p}\t{c}", "path\tlabel\n")),
        ("t.csv", "utf-8", rows(lambda p, c, i: p.replace("/", "\\") + f",{c}")),
    ],
)
def test_common_shapes_of_tables(tmp_path, name, encoding, text):
    data = whole(table(photos(tmp_path, {"a": 6, "b": 6}), text, encoding, name))
    assert data.classes == ("a", "b") and not data.skipped
    assert data.splits["train"].ids == [f"{c}/{i:03}.png" for c in "ab" for i in range(6)]
    assert data.splits["train"].labels.tolist() == [0] * 6 + [1] * 6


@pytest.mark.parametrize(
    "column, value, sizes",
    [
        ("is_valid", lambda i: i > 3, {"train": 8, "val": 4}),
        ("is_test", lambda i: int(i == 0), {"train": 10, "test": 2}),
        ("Set", lambda i: ("Training", "Testing")[i % 2], {"train": 6, "test": 6}),
        ("subset", lambda i: ("train", "dev", "holdout")[i % 3], {"train": 4, "val": 4, "test": 4}),
        ("phase", lambda i: ("train", "eval")[i % 2], {"train": 6, "val": 6}),
        ("fold", lambda i: ("train", "test")[i % 2], {"train": 6, "test": 6}),
    ],
)
def test_a_column_that_says_the_part_is_read(tmp_path, column, value, sizes):
    text = rows(lambda p, c, i: f"{p},{c},{value(i)}", f"path,label,{column}\n")
    data = load_data(table(photos(tmp_path, {"a": 6, "b": 6}), text), val_fraction=0)
    assert {k: len(s) for k, s in data.splits.items()} == sizes and not data.skipped


def test_tables_that_could_be_read_in_two_ways_are_refused(tmp_path):
    photos(tmp_path, {"a": 6, "b": 6})

    def refused(header, line, message):
        fails(table(tmp_path, rows(line, header + "\n")), message)

    refused(
        "path,label,fold", lambda p, c, i: f"{p},{c},{i}", "has the column fold, which seems to say the part and holds"
    )
    refused("path,label,is_train", lambda p, c, i: f"{p},{c},{i > 3}", "is_train, which does not say whether")
    refused(
        "path,label,split,is_valid", lambda p, c, i: f"{p},{c},train,{i > 3}", "columns split and is_valid, which both"
    )
    refused("file,class,target", lambda p, c, i: f"{p},{c},{c}", "has the columns class and target: call the one")
    refused("path,label", lambda p, c, i: f"{p},{('Red', 'red')[i % 2]}", "has the classes 'Red' and 'red'")
    refused("path,label", lambda p, c, i: f"{p},{('1', '1.0', '2')[i % 3]}", "has the classes '1' and '1.0'")
    refused("id,label", lambda p, c, i: f"{p[:-4]},{c}", "is its name '000' without the suffix, such as .jpg?")
    fails(table(tmp_path, rows(lambda p, c, i: f"{p},{c}"), "utf-16-le"), "looks like UTF-16 without a byte order mark")
    fails(
        table(tmp_path, rows(lambda p, c, i: f"{p},{c}\udc9d", n=2).encode("utf-8", "surrogateescape")), "Windows-1252"
    )


def test_rows_without_a_label_are_named(tmp_path):
    labels = ("nan", "N/A", "", "<NA>")
    text = rows(lambda p, c, i: f"{p},{labels[i] if i < 4 else c}")
    data = whole(table(photos(tmp_path, {"a": 6, "b": 6}), text))
    assert data.classes == ("a", "b") and len(data.splits["train"]) == 4 and len(data.skipped) == 8
    assert data.skipped[:3] == [
        ("row 2 (a/000.png)", "has the label 'nan', which means that it has none"),
        ("row 3 (a/001.png)", "has the label 'N/A', which means that it has none"),
        ("row 4 (a/002.png)", "has no label"),
    ]


def test_windows_1252_is_read_with_a_note(tmp_path, capsys):
    photos(tmp_path, {"a": 2, "b": 2})
    os.rename(tmp_path / "a" / "000.png", tmp_path / "a" / "\u00e9.png")
    text = "path,label\na/\u00e9.png,cerise \u00e9\na/001.png,cerise \u00e9\nb/000.png,b\nb/001.png,b\n"
    data = whole(table(tmp_path, text, "cp1252"))
    assert data.classes == ("b", "cerise \u00e9") and not data.skipped
    assert data.splits["train"].ids[0] == "a/\u00e9.png"
    assert "is not UTF-8; its labels are read as Windows-1252 (cp1252)" in capsys.readouterr().err


def test_a_file_in_two_parts_is_used_in_both_and_named(tmp_path, capsys):
    photos(tmp_path, {"a": 6, "b": 6})
    os.link(tmp_path / "a" / "000.png", tmp_path / "a" / "x.png")
    text = rows(lambda p, c, i: f"{p},{c},train" + (f"\n{p},{c},test" if i < 2 else ""), "path,label,split\n")
    data = load_data(table(tmp_path, text + "a/x.png,a,train\n"), val_fraction=0)
    assert {k: len(s) for k, s in data.splits.items()} == {"train": 12, "test": 4}
    assert data.splits["test"].ids == [f"test:{c}/00{i}.png" for c in "ab" for i in range(2)]
    assert data.skipped == [("row 18 (a/x.png)", "duplicate of row 2")]
    assert "4 files are in train and in test (a/000.png and test:a/000.png)" in capsys.readouterr().err


def test_cells_that_no_column_takes_and_zero_bytes_are_named(tmp_path):
    photos(tmp_path / "p", {"a": 4, "b": 4})
    lines = "".join(f"p/{c}/{i:03}.png,{c}\n" for c in "ab" for i in range(3))
    found = load_data(table(tmp_path, f"path,label\n{lines}p/a/003.png,a,b\np/b/003.png,b\0\n,,\n"))
    assert found.classes == ("a", "b") and len(found.skipped) == 2
    assert found.skipped[0][1].startswith("has more cells than the first line")
    assert found.skipped[1][1] == "has a zero byte in its label"
    usage = ["Training", "PublicTest", "PrivateTest"]
    lines = "".join(f"p/{c}/{i:03}.png,{c},{usage[i]}\n" for c in "ab" for i in range(3))
    fails(table(tmp_path, f"path,label,Usage\n{lines}"), "column usage, which seems to say the part and holds 'Pri")


def tags(tmp_path, text):
    """(classes, labels as lists, ids) of the only part of a table of the pictures 0 to 3."""
    if not (tmp_path / "0.png").exists():
        for i in range(4):
            picture(i).save(tmp_path / f"{i}.png")
    data = read_data(table(tmp_path, text))
    assert data.several and not data.skipped
    return data.classes, data.splits["all"].labels.tolist()


def test_several_labels_in_a_cell_or_in_columns_of_0_and_1(tmp_path, capsys):
    want = ("cat", "dog", "frog"), [[1, 1, 0], [0, 0, 0], [0, 0, 1], [1, 0, 0]]
    assert tags(tmp_path, "path,labels\n0.png,dog; cat\n1.png,\n2.png,frog\n3.png,cat;\n") == want
    said = capsys.readouterr().err
    assert "several labels an image, with ; between them. Rows without a label: 1; with one: 2; with several: 1" in said
    assert tags(tmp_path, "path;labels\n0.png;cat|dog\n1.png;\n2.png;frog\n3.png;cat|cat\n") == want
    columns = "name,dog,frog,cat,age\n0.png,1,0,1,7\n1.png,0,0,0,\n2.png,no,yes,False,9\n3.png,0,0.0,1.0,9\n"
    assert tags(tmp_path, columns) == want
    said = capsys.readouterr().err
    assert "0 and 1 for each of 3 classes (dog, frog, cat): several labels an image. Rows without a label: 1" in said
    assert "are no classes and are not read: age" in said


def test_one_1_in_each_row_is_one_class_an_image(tmp_path, capsys):
    for i in range(2):
        picture(i).save(tmp_path / f"{i}.png")
    data = read_data(table(tmp_path, "path,b,a,split\n0.png,1,0,train\n1.png,0,1,test\n"))
    assert not data.several and data.classes == ("a", "b")
    assert [int(data.splits[p].labels[0]) for p in ("train", "test")] == [1, 0]
    assert "with one 1 in each row: one class an image" in capsys.readouterr().err
    one = read_data(table(tmp_path, "path,labels\n0.png,a\n1.png,\n"))
    assert not one.several and one.skipped == [("row 3 (1.png)", "has no label")], "no ; anywhere: as any label"
    one = read_data(table(tmp_path, "path,label\n0.png,a;b\n1.png,c\n"))
    assert one.classes == ("a;b", "c") and not one.several
    assert "are read as one class an image: call the column labels" in capsys.readouterr().err


def test_several_labels_that_are_not_clear_are_refused_or_skipped(tmp_path):
    for i in range(3):
        picture(i).save(tmp_path / f"{i}.png")
    fails(table(tmp_path, "path,labels\n0.png,a;b|c\n1.png,\n"), "not clear which stands between labels")
    fails(table(tmp_path, "path;labels\n0.png;a;b\n1.png;\n"), "photos.csv' has more cells than the first line")
    fails(table(tmp_path, "path,a,a,b\n0.png,0,1,1\n"), "has two columns a")
    fails(table(tmp_path, "path,labels\n0.png,Ax;b\n1.png,ax\n"), "differ only in case")
    fails(table(tmp_path, "path,a,b,c\n0.png,1,1,0\n1.png,0,1,0\n2.png,1,0,0\n"), "no usable image of class 'c'")
    data = read_data(table(tmp_path, "path,labels\n0.png,a;b\n1.png,a;nan\n"))
    assert data.skipped == [("row 3 (1.png)", "has the label 'nan', which means that it has none")]
    data = read_data(table(tmp_path, "path,a,b\n0.png,1,1\n1.png,1\n2.png,,1\n"))
    assert [reason for _, reason in data.skipped] == [f"has neither 0 nor 1 in the column {c}" for c in "ba"]


def test_minus_1_is_absent_unless_0_stands_beside_it(tmp_path, capsys):
    want = ("cat", "dog"), [[1, 1], [0, 0], [0, 1], [1, 0]]
    assert tags(tmp_path, "path,dog,cat\n0.png,1,1\n1.png,-1,-1.0\n2.png,1,-1\n3.png,-1,1\n") == want
    assert "a column of -1 and 1 for each of 2 classes (dog, cat): several labels" in capsys.readouterr().err
    fails(table(tmp_path, "path,dog,cat\n0.png,1,1\n1.png,-1,0\n2.png,1,0\n"), "-1 in the column dog and 0 as well")
    fails(table(tmp_path, "path,dog,cat\n0.png,1,1\n1.png,0,-1\n2.png,no,1\n"), "-1 in the column cat and 0 as well")


def test_a_label_that_stands_twice_and_commas_between_labels_are_said(tmp_path, capsys):
    tags(tmp_path, "path,labels\n0.png,dog; cat;dog\n1.png,\n2.png,cat;cat\n3.png,dog\n")
    assert "with several: 1. In 2 a label stands twice, which counts once." in capsys.readouterr().err
    one = read_data(table(tmp_path, 'path,labels\n0.png,"cat, dog"\n1.png,cat\n'))
    assert one.classes == ("cat", "cat, dog") and not one.several
    assert "has commas in it, and each cell is read as one class: write ; or |" in capsys.readouterr().err
