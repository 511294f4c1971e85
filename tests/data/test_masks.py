"""Masks in files: numbers, palettes, colours, tables, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from kzoo.data.masks import MaskFile, Table, read_table, values_of
from kzoo.errors import DataError

NUMBERS = np.array([[0, 1, 2], [255, 2, 0]], "uint8")
INDEXED = Table(("sky", "tree", "road"), indices=((0, 0), (1, 1), (2, 2)))


def saved(tmp_path, image, name="m.png", **options):
    image.save(tmp_path / name, **options)
    return str(tmp_path / name)


def written(tmp_path, text, name="classes.csv"):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return tmp_path / name


def test_numbers_of_every_kind_of_png(tmp_path):
    palette = Image.fromarray(NUMBERS).convert("P")
    palette.putdata(NUMBERS.ravel().tolist())
    palette.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0] + 247 * [7, 7, 7])
    deep = Image.fromarray(NUMBERS.astype("uint16"))
    alpha = Image.merge("LA", [Image.fromarray(NUMBERS), Image.new("L", (3, 2), 255)])
    for i, image in enumerate((Image.fromarray(NUMBERS), palette, deep, alpha)):
        assert MaskFile(saved(tmp_path, image, f"{i}.png"), INDEXED).read().tolist() == NUMBERS.tolist(), image.mode
    for bits in (1, 2, 4):  # a palette of few colours
        few = np.array([[0, 1, 1]], "uint8")
        image = Image.new("P", (3, 1))
        image.putdata(few.ravel().tolist())
        image.putpalette([255, 0, 0, 0, 0, 255])
        assert MaskFile(saved(tmp_path, image, bits=bits), INDEXED).read().tolist() == few.tolist()
    assert values_of(saved(tmp_path, Image.new("1", (2, 2), 1))).tolist() == [[1, 1], [1, 1]]
    assert values_of(saved(tmp_path, Image.fromarray(NUMBERS), "m.bmp")).tolist() == NUMBERS.tolist()


def test_colours_are_looked_up(tmp_path):
    table = read_table(written(tmp_path, "name,r,g,b\nroad,128,64,128\ntree,0,128,0\nVoid,0,0,0\n"))
    assert table.classes == ("road", "tree")
    pixels = np.array([[[128, 64, 128], [0, 128, 0]], [[0, 0, 0], [128, 64, 128]]], "uint8")
    want = [[0, 1], [255, 0]]
    rgb = Image.fromarray(pixels)
    for i, image in enumerate((rgb, rgb.convert("RGBA"))):
        assert MaskFile(saved(tmp_path, image, f"{i}.png"), table).read().tolist() == want
    grey = read_table(written(tmp_path, "name,r,g,b\nground,0,0,0\ncar,255,255,255\n"))
    path = saved(tmp_path, Image.fromarray(np.array([[0, 255]], "uint8")))
    assert MaskFile(path, grey).read().tolist() == [[0, 1]], "a grey of 255 is a colour where the table has colours"
    pixels[0, 0] = 1, 2, 3
    with pytest.raises(DataError, match=r"has a mask with the colour \(1, 2, 3\), which is no class"):
        MaskFile(saved(tmp_path, Image.fromarray(pixels)), table).read()


def test_tables(tmp_path):
    table = read_table(written(tmp_path, "\ufeffID, Name\n7, road\n0, sky\n\n255, border\n"))
    assert table.classes == ("sky", "road") and dict(table.indices) == {0: 0, 7: 1, 255: 255}
    both = read_table(written(tmp_path, "class,id,red,green,blue\na,0,0,0,0\nb,1,9,9,9\n"))
    assert dict(both.indices) == {0: 0, 1: 1} and dict(both.colours) == {0: 0, 0x090909: 1}
    assert dict(both.renumbered({0: 5}).colours) == {0: 5, 0x090909: 1}
    for text, message in (
        ("", "must have the columns name,index or name,r,g,b; it has none"),
        ("a,0\nb,1\n", r"must have the columns name,index or name,r,g,b; it has a, 0"),
        ("name,r,g\na,0,0\n", "must have the columns name,index"),
        ("name,index\na,0\na,1\n", "has two rows with the same name"),
        ("name,index\na,0\nb,0\n", "has two rows with the same index"),
        ("name,r,g,b\na,0,0,0\nb,0,0,0\n", "has two rows with the same colour"),
        ("name,index\na,x\n", "has 'x' in row 2, where a number from 0 to 255"),
        ("name,index\na,256\n", "has '256' in row 2"),
        ("name,index\na\n", "has 1 cells in row 2 and 2 columns"),
        ("name,index\nvoid,0\n", "must have names of 1 to 255 classes; it has 0"),
        ("name,index\na,0\nA \u00e9,1\nA \u00c9,2\n", "differ only in case"),
        (b"name,index\n\xff\xfe,0\n", "can't be read"),
        ("name,index\n" + "x" * (1 << 20) + ",0\n", "too many for a table"),
    ):
        with pytest.raises(DataError, match=message):
            read_table(written(tmp_path, text))


def test_what_is_no_mask_is_refused_in_a_line(tmp_path):
    grey = Image.fromarray(NUMBERS)
    clear = Image.merge("RGBA", [grey, grey, grey, grey])
    broken = saved(tmp_path, grey, "b.png")
    data = (tmp_path / "b.png").read_bytes()
    (tmp_path / "b.png").write_bytes(data[:-20])
    (tmp_path / "empty.png").write_bytes(b"")
    for path, message in (
        (saved(tmp_path, grey, "m.jpg"), "is no PNG, BMP or GIF"),
        (saved(tmp_path, clear), "with transparent pixels"),
        (saved(tmp_path, Image.fromarray(np.full((2, 2), 256, "uint16")), "d.png"), "values above 255"),
        (broken, "has a mask that is truncated"),
        (str(tmp_path / "empty.png"), "has a mask that is empty"),
        (str(tmp_path / "none.png"), "can't be read"),
        (saved(tmp_path, Image.fromarray(NUMBERS + 7), "e.png"), "with the value 7, which is no class"),
        (saved(tmp_path, grey.convert("RGB"), "f.png"), "in colours, and no table"),
    ):
        with pytest.raises(DataError, match=message):
            MaskFile(path, INDEXED).read()
