"""Random crops: where they lie, and that decoding a part gives the pixels of the whole."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kzoo.catalog import Preprocessing
from kzoo.data import images
from kzoo.data.crops import Region, check_crop, draw_region, make_cropper, stored_box
from kzoo.errors import DataError, KzooError

WHOLE = Region((0, 0, 0, 0), (1.0, 1.0), (0.0, 0.0))


def jpeg(size=(45, 67), turned=1, mode="RGB", **options):
    """A JPEG of coloured noise at two scales."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (size[0] // 8, size[1] // 8, 3)).astype("uint8"))
    pixels = np.asarray(coarse.resize(size[::-1])).astype(int) + rng.integers(-30, 30, (*size, 3))
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = turned
    picture = Image.fromarray(pixels.clip(0, 255).astype("uint8")).convert(mode)
    picture.save(file, "JPEG", quality=85, exif=exif, **options)
    return file.getvalue()


def test_boxes_have_the_shares_and_ratios_of_szegedy():
    """Uniform share of the area, uniform logarithm of the ratio; of those that fit, uniform places."""
    crop, size, rng = ("area", 0.08, 1.0), (300, 400), np.random.default_rng(0)
    boxes = np.array([draw_region(crop, size, (224, 224), rng).box for _ in range(4000)], float)
    top, left, height, width = boxes.T
    assert (boxes >= 0).all() and (top + height <= 300).all() and (left + width <= 400).all()
    share, ratio = height * width / 120_000, width / height
    assert 0.079 < share.min() < 0.085 and share.max() <= 1 and ratio.min() > 0.74 and ratio.max() < 1.345
    # Another program: areas and ratios by inversion, rejection where a side is too long.
    u, v = np.random.default_rng(1).random((2, 40_000))
    area, r = 120_000 * (0.08 + 0.92 * u), (3 / 4) * (16 / 9) ** v
    fits = (np.rint(np.sqrt(area * r)) <= 400) & (np.rint(np.sqrt(area / r)) <= 300)
    for found, want in ((share, area[fits] / 120_000), (np.log(ratio), np.log(r[fits]))):
        np.testing.assert_allclose(np.quantile(found, [0.1, 0.5, 0.9]), np.quantile(want, [0.1, 0.5, 0.9]), atol=0.025)
    small = height < 150
    np.testing.assert_allclose(np.mean(top[small] / (300 - height[small])), 0.5, atol=0.03)
    assert draw_region(crop, (10, 1000), (8, 8), rng).box == (0, 493, 10, 13), "none fits: the middle, 4/3"
    assert draw_region(("area", 1.0, 1.0), (50, 50), (25, 10), rng) == Region((0, 0, 50, 50), (0.5, 0.2), (0.0, 0.0))


def test_sides_of_he_are_uniform_whole_numbers():
    crop, rng = ("side", 256 / 224, 480 / 224), np.random.default_rng(0)
    regions = [draw_region(crop, (600, 800), (224, 224), rng) for _ in range(4000)]
    sides = np.array([r.scale[0] * 600 for r in regions])
    np.testing.assert_allclose(sides, np.rint(sides), atol=1e-9)
    assert sides.min() == 256 and sides.max() == 480
    np.testing.assert_allclose([sides.mean(), sides.std()], [368, np.sqrt((225**2 - 1) / 12)], rtol=0.03)
    # Where the crop begins in the resized picture: 0 to side - 224 and to longer side - 224, both ends included.
    places = np.array([[r.box[k] * r.scale[k] - r.shift[k] for k in (0, 1)] for r in regions])
    room = np.stack([sides - 224, np.rint(sides * 800 / 600) - 224], 1)
    np.testing.assert_allclose(places, np.rint(places), atol=1e-6)
    assert (places > -1e-6).all() and (places <= room + 1e-6).all()
    np.testing.assert_allclose((places / room).mean(0), 0.5, atol=0.02)


def test_a_part_of_a_jpeg_has_the_pixels_of_the_whole(monkeypatch):
    """In all orientations, to the bit; by default colours are stored at half the width and height."""
    rng, kinds = np.random.default_rng(0), [{"subsampling": "4:2:2"}, {"progressive": True}, {"mode": "CMYK"}]
    for turned, options in [*((n, {}) for n in range(1, 9)), *((6, options) for options in kinds)]:
        data = jpeg(turned=turned, **options)
        whole = images.decode_stored(data, 3, None, 2).numpy()
        assert whole.shape == ((45, 67, 3) if turned < 5 else (67, 45, 3))
        for _ in range(3):
            height, width = 16, 24  # one size: a graph is traced for shapes of results
            top, left = (
                int(rng.integers(0, have - n, endpoint=True))
                for have, n in zip(whole.shape, (height, width), strict=False)
            )
            region = WHOLE._replace(box=(top, left, height, width))
            monkeypatch.setattr("kzoo.data.crops.draw_region", lambda *a, region=region: region)
            part = make_cropper((16, 24, 3), Preprocessing(), ("area", 0.5, 1.0))(data, rng)
            np.testing.assert_array_equal(part, whole[top : top + height, left : left + width], str((turned, region)))
    assert stored_box((1, 2, 3, 4), (20, 10), 1) == (1, 2, 3, 4)


def test_a_crop_of_a_resized_picture_is_what_resizing_all_of_it_gives():
    data, to = jpeg((90, 130)), (32, 32)
    whole = images.decode_stored(data, 3, None, 2).numpy()
    for how in (Preprocessing(crop=0.875), Preprocessing(interpolation="bicubic")):
        one = make_cropper((*to, 3), how, ("side", 8 / 7, 2.0))
        for seed in range(4):
            drawn = draw_region(("side", 8 / 7, 2.0), whole.shape[:2], to, np.random.default_rng(seed))
            new = np.rint(np.array(drawn.scale) * whole.shape[:2]).astype(int)
            top, left = (round(drawn.box[k] * drawn.scale[k] - drawn.shift[k]) for k in (0, 1))
            want = tf.image.resize(whole, new, how.interpolation, antialias=True).numpy().round().clip(0, 255)
            want = want[top : top + 32, left : left + 32]
            for picture in (data, whole):
                found = one(picture, np.random.default_rng(seed)).astype(float)
                assert np.abs(found - want).max() <= 1 and (found != want).mean() < 0.01


def test_other_formats_and_channels_and_what_is_refused():
    rng = np.random.default_rng(0)
    grey = np.arange(20 * 24).reshape(20, 24) % 251
    file = io.BytesIO()
    Image.fromarray(grey.astype("uint8")).save(file, "PNG")
    one = make_cropper((20, 24, 1), Preprocessing(), ("area", 1.0, 1.0))
    for picture in (file.getvalue(), np.repeat(grey[..., None], 3, -1).astype("uint8")):
        np.testing.assert_array_equal(one(picture, rng)[..., 0], grey)
    with pytest.raises(DataError, match="can't be decoded"):
        one(jpeg()[:-300], rng)
    with pytest.raises(DataError, match="is not a JPEG"):
        one(b"a letter", rng)
    for crop in (("area", 0.0, 1.0), ("area", 0.5, 1.5), ("side", 0.9, 2.0), ("corner", 1, 2), ("side",)):
        with pytest.raises(KzooError, match="A recipe's crop is"):
            check_crop(crop)
