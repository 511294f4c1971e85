"""Folders of pictures and masks: layouts, pairs, classes, and what is left out or refused."""

import numpy as np
import pytest
from PIL import Image
from support.photos import fails, picture

import kzoo
from kzoo.data.batches import decode_split
from kzoo.data.loading import load_data
from kzoo.data.sources.masks import matches

RNG = np.random.default_rng(0)


def pairs(images, masks, names, size=(12, 9), values=(0, 1, 255), suffix=".png"):
    """A picture and a mask of each name; size: (height, width)."""
    images.mkdir(parents=True, exist_ok=True)
    masks.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        picture(i, size).save(images / f"{name}{suffix}")
        Image.fromarray(RNG.choice(np.array(values, "uint8"), size)).save(masks / f"{name}.png")
    return images.parent


def test_images_and_masks_are_pairs_by_name(tmp_path):
    root = pairs(tmp_path / "images", tmp_path / "masks", [f"{i:02}" for i in range(20)], suffix=".jpg")
    (root / "masks" / "03.png").rename(root / "masks" / "03_mask.png")
    data = load_data(root)
    assert data.classes == ("0", "1") and not data.skipped
    assert {k: len(v) for k, v in data.splits.items()} == {"train": 14, "val": 2, "test": 4}
    split, skipped = decode_split(data.splits["train"], (12, 9, 3), kzoo.Preprocessing())
    assert split.labels.shape == (14, 12, 9) and not skipped
    for id, mask in zip(split.ids, split.labels, strict=True):
        name = id.removeprefix("images/").removesuffix(".jpg")
        file = root / "masks" / (f"{name}_mask.png" if name == "03" else f"{name}.png")
        np.testing.assert_array_equal(mask, np.asarray(Image.open(file)))
    assert data.fingerprint() == load_data(root).fingerprint()
    (root / "classes.csv").write_text("name,index\nground,0\ncar,1\n")
    named = load_data(root)
    assert named.classes == ("ground", "car") and named.fingerprint() != data.fingerprint()


@pytest.mark.parametrize("layout", ["{part}/{kind}", "{kind}/{part}", "data/{part}/{kind}"])
def test_parts_of_its_own(tmp_path, layout):
    for part, names in (("train", "abcdef"), ("valid", "gh"), ("testing", "ij")):
        images, masks = (tmp_path / layout.format(part=part, kind=kind) for kind in ("Images", "annotations"))
        pairs(images, masks, names)
    data = load_data(tmp_path)
    assert {k: len(v) for k, v in data.splits.items()} == {"train": 6, "val": 2, "test": 2}


def test_what_has_no_partner_or_another_size_is_listed(tmp_path):
    root = pairs(tmp_path / "images", tmp_path / "masks", "abcdefgh")
    (root / "masks" / "a.png").unlink()
    (root / "images" / "b.png").unlink()
    Image.new("L", (9, 13)).save(root / "masks" / "c.png")
    (root / "masks" / "d.png").write_bytes(b"no image")
    picture(99).save(root / "images" / "e.jpg")
    Image.fromarray(np.full((12, 9), 256, "uint16")).save(root / "masks" / "f.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, upright 12 x 9
    picture(5, (9, 12)).save(root / "images" / "turned.jpg", exif=exif)
    Image.new("L", (9, 12)).save(root / "masks" / "turned.png")
    data = load_data(root, val_fraction=0, test_fraction=0)
    assert dict(data.skipped) == {
        "images/a.png": "has no mask",
        "masks/b.png": "is a mask without a picture",
        "images/c.png": "has 9 x 12 pixels, and its mask has 9 x 13",
        "images/d.png": "has a mask that is not a JPEG, PNG, GIF, BMP or WebP image",
        "images/e.png": "has the name of another picture, images/e.jpg",
        "images/f.png": "has a mask with values above 255; a class number has 8 bits",
    }
    assert sorted(data.splits["train"].ids) == ["images/e.jpg", "images/g.png", "images/h.png", "images/turned.jpg"]
    fails(root, "6 unusable files", strict=True)


def test_an_unknown_value_is_left_out_where_it_is_read(tmp_path):
    root = pairs(tmp_path / "images", tmp_path / "masks", "abcd")
    (root / "classes.csv").write_text("name,index\nground,0\ncar,1\n")
    Image.new("L", (9, 12), 7).save(root / "masks" / "b.png")
    split = load_data(root, val_fraction=0, test_fraction=0).splits["train"]
    ready, skipped = decode_split(split, (12, 9, 3), kzoo.Preprocessing())
    assert len(ready) == len(ready.labels) == 3
    assert skipped == [("images/b.png", "has a mask with the value 7, which is no class")]


def test_what_could_mean_anything_is_refused(tmp_path):
    fails(
        pairs(tmp_path / "1" / "images", tmp_path / "1" / "masks", "abc", values=(0, 255)),
        "hold the values 0, 255, not 0, 1, ... for classes: write classes.csv with the columns name,index or name,r,g",
    )
    fails(pairs(tmp_path / "2" / "images", tmp_path / "2" / "masks", "abc", values=(0, 3)), "hold the values 0, 3, not")
    root = pairs(tmp_path / "3" / "images", tmp_path / "3" / "masks", "a")
    picture(0).save(root / "masks" / "a.png")
    fails(root, "are in colours or can't be read (has a mask in colours, which need a table)")
    (tmp_path / "4" / "images").mkdir(parents=True)
    (tmp_path / "4" / "masks").mkdir()
    fails(tmp_path / "4", "has no picture with a mask of the same name and size")
    root = pairs(tmp_path / "5" / "images", tmp_path / "5" / "masks", "abc")
    for name in ("classes.csv", "colors.csv"):
        (root / name).write_text("name,index\na,0\n")
    fails(root, "has classes.csv and colors.csv: keep one table")
    (root / "colors.csv").unlink()
    fails(root, "has 1 class; segmentation needs at least two")
    for part in ("val", "validation"):
        pairs(tmp_path / "6" / part / "images", tmp_path / "6" / part / "masks", "a")
    fails(tmp_path / "6", "has two folders that mean the part val")
    fails(pairs(tmp_path / "7" / "test" / "images", tmp_path / "7" / "test" / "masks", "ab").parent, "no training part")


def test_class_folders_are_no_masks(tmp_path):
    for name in ("images", "cats"):
        (tmp_path / "a" / name).mkdir(parents=True)
        (tmp_path / "b" / "train" / name).mkdir(parents=True)
    assert not matches(str(tmp_path / "a")) and not matches(str(tmp_path / "b")) and not matches(str(tmp_path / "none"))
