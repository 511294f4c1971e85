"""Picture files: every kind is read, sizes, the record inside, the order of a folder."""

import numpy as np
import pytest
from PIL import Image
from support.style import CONTENT

from kzoo.errors import DataError
from kzoo.synthesis import pictures


def test_every_kind_of_picture_is_taken(tmp_path):
    """Grey, palette, alpha, CMYK, 16 bits, animations and EXIF, by the rules of kzoo.data.images."""
    image = Image.fromarray(CONTENT)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    image.convert("L").save(tmp_path / "grey.png")
    image.convert("P").save(tmp_path / "palette.png")
    image.convert("RGBA").save(tmp_path / "alpha.png")
    Image.fromarray(CONTENT[..., 0].astype("uint16") * 257).save(tmp_path / "deep.png")
    image.save(tmp_path / "moving.gif", save_all=True, append_images=[image.rotate(90)])
    for path in tmp_path.iterdir():
        expected = (72, 70, 3) if path.name == "turned.jpg" else (70, 72, 3)
        assert pictures.read_picture(path).shape == expected, path


def test_a_record_comes_back_and_other_pngs_have_none(tmp_path):
    record = {"settings": {"size": 64}, "content": "cañón.png"}
    pictures.write_picture(tmp_path / "a.png", CONTENT, record)
    assert pictures.read_record(tmp_path / "a.png") == record
    np.testing.assert_array_equal(pictures.read_picture(tmp_path / "a.png"), CONTENT)
    pictures.write_picture(tmp_path / "other.png", CONTENT, record, key="kzoo-visualize")
    assert pictures.read_record(tmp_path / "other.png", key="kzoo-visualize") == record
    with pytest.raises(DataError, match="of kzoo style"):
        pictures.read_record(tmp_path / "other.png")
    Image.fromarray(CONTENT).save(tmp_path / "b.png")
    pictures.write_picture(tmp_path / "c.png", CONTENT, {"settings": 3})
    for name in ("b.png", "c.png"):
        with pytest.raises(DataError, match="carries no settings"):
            pictures.read_record(tmp_path / name)


def test_resized_keeps_a_flat_picture_and_its_range_is_not_clipped():
    flat = np.full((40, 60, 3), 200, "uint8")
    np.testing.assert_allclose(pictures.resized(flat, (20, 30)), 200, rtol=1e-5)
    assert pictures.resized(CONTENT, CONTENT.shape[:2]).dtype == "float32"
    edge = np.zeros((64, 64, 3), "uint8")
    edge[:, 32:] = 255
    larger = pictures.resized(edge, (128, 128))
    assert larger.max() > 255 and larger.min() < 0, "bicubic overshoots at an edge"
    np.testing.assert_array_equal(pictures.to_uint8(np.array([-3.0, 0.4, 0.6, 254.6, 300.0])), [0, 0, 1, 255, 255])


def test_the_two_measures_by_hand():
    spot = np.zeros((5, 5, 3))
    spot[2, 2] = 9, 0, 0  # grey 3: the Laplacian is -12 there, 3 at its four neighbours, 0 at the corners
    assert pictures.detail(spot) == (144 + 4 * 9) / 9
    assert pictures.detail(spot + 100) == pictures.detail(spot) == pictures.detail(-spot)
    rows, columns = np.mgrid[:6, :7]
    board = (rows + columns) % 2 * 10.0  # neighbours differ by 10: 4 * 10 everywhere
    assert pictures.detail(np.repeat(board[..., None], 3, -1)) == 1600
    bowl = np.repeat((rows**2.0)[..., None], 3, -1)  # the second difference of r^2 is 2
    assert pictures.detail(bowl) == 4
    assert pictures.mean_change(spot, np.zeros((5, 5, 3))) == pictures.mean_change(-spot, 0 * spot) == 9 / 75
    assert pictures.mean_change(np.full((2, 3, 3), 250, "uint8"), np.full((2, 3, 3), 255.0)) == 5


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
    for name in ("f10.png", "f2.png", "f1.png", ".hidden.png", "Thumbs.db"):
        Image.fromarray(CONTENT).save(tmp_path / name, "PNG")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "f3.jpg").write_bytes(b"")  # named once it is to be painted
    assert [p.name for p in pictures.picture_files(tmp_path)] == ["f1.png", "f2.png", "f3.jpg", "f10.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no JPEG"):
        pictures.picture_files(tmp_path / "empty")


def test_side_by_side_has_the_height_of_the_last_and_no_endless_strip(tmp_path):
    strip = np.zeros((32, 2000, 3), "uint8")
    pictures.side_by_side(tmp_path / "a.png", [strip, CONTENT])
    assert pictures.read_picture(tmp_path / "a.png").shape == (70, 8 * 70 + 2 + 72, 3)
