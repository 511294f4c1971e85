"""The one definition of decode, resize and crop, against Pillow and by hand."""

import io

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from support.pictures import BEYOND, GRID, KEYED, LOOKED_UP, PARTIAL, encoded, png, saved

from kzoo.catalog import Preprocessing
from kzoo.data import images
from kzoo.data.batches import batches, decode_split
from kzoo.data.dataset import Split
from kzoo.data.guards import declared
from kzoo.data.header import declared as graph_declared
from kzoo.data.header import refusal
from kzoo.data.scan import inspect_image, small_picture
from kzoo.errors import DataError, KzooError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (20, 31, 3)).astype("uint8")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["little", "big"])
def test_exif_orientation_is_honoured(orientation, order):
    exif = Image.Exif()
    exif.endian = "<" if order == "little" else ">"
    exif[0x010F], exif[0x0112] = "a maker, so that the tag is not the first", orientation
    data = encoded(Image.fromarray(COLOUR), "JPEG", exif=exif, quality=95)
    want = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(images.decode(data), want)


@pytest.mark.parametrize(("format", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})])
def test_lossless_formats_give_the_pixels_that_went_in(format, options):
    np.testing.assert_array_equal(images.decode(encoded(Image.fromarray(COLOUR), format, **options)), COLOUR)


def test_palette_animation_grey_sixteen_bits_cmyk():
    palette = Image.fromarray(COLOUR).quantize(16)
    want = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(images.decode(encoded(palette, "PNG")), want)
    np.testing.assert_array_equal(images.decode(encoded(palette, "BMP")), want)
    bitmap = encoded(Image.fromarray(COLOUR), "BMP")  # rows of 93 bytes, padded to 96
    for odd in (bitmap[:-3], bitmap + b"more"):
        np.testing.assert_array_equal(images.decode(odd), COLOUR)
    frames = [Image.fromarray(COLOUR // k) for k in (1, 2, 3)]
    gif = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(images.decode(gif), np.asarray(Image.open(io.BytesIO(gif)).convert("RGB")))
    grey = encoded(Image.fromarray(COLOUR[..., 0]), "PNG")
    np.testing.assert_array_equal(images.decode(grey), COLOUR[..., :1].repeat(3, -1))
    deep = Image.fromarray((COLOUR[..., 0].astype("uint16") << 8) + 77)
    np.testing.assert_array_equal(images.decode(encoded(deep, "PNG"))[..., 0], COLOUR[..., 0])
    cmyk = encoded(Image.fromarray(COLOUR).convert("CMYK"), "JPEG", quality=95)
    reference = np.asarray(Image.open(io.BytesIO(cmyk)).convert("RGB")).astype(int)
    assert np.abs(np.asarray(images.decode(cmyk)).astype(int) - reference).max() <= 2


@pytest.mark.parametrize("mode", ["1", "P", "P2", "LA", "PA"])
def test_pngs_of_few_bits_and_of_grey_with_alpha(mode):
    image = Image.fromarray(COLOUR)
    options = {}
    if mode.startswith("P"):
        image = image.quantize(3 if mode == "P2" else 200)
        options = {"transparency": 1} if mode == "PA" else {}
    else:
        image = image.convert("L").convert(mode)
    data = encoded(image, "PNG", **options)
    rgba = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")).astype(float)
    want = rgba[..., :3] * rgba[..., 3:] / 255 + 255 - rgba[..., 3:]
    assert np.abs(np.asarray(images.decode(data)) - want).max() <= 0.51


def test_webp_with_alpha_lies_on_white_and_an_animation_is_refused():
    alpha = np.full((20, 31, 1), 255, "uint8")
    alpha[:10] = 0
    data = encoded(Image.fromarray(np.concatenate([COLOUR, alpha], -1)), "WEBP", lossless=True)
    got = np.asarray(images.decode(data))
    assert (got[:10] == 255).all()
    np.testing.assert_array_equal(got[10:], COLOUR[10:])
    moving = encoded(Image.fromarray(COLOUR), "WEBP", save_all=True, append_images=[Image.fromarray(255 - COLOUR)])
    assert "animated WebP" in images.fault(io.BytesIO(moving))
    with pytest.raises(DataError, match="animated WebP"):
        images.make_preparer((8, 8, 3), Preprocessing())(moving)
    with pytest.raises(tf.errors.InvalidArgumentError):  # past the header check
        images.decode(moving)


def test_transparent_pixels_lie_on_white():
    alpha = np.full((20, 31, 1), 255, "uint8")
    alpha[:10] = 0
    alpha[10:12] = 100
    data = encoded(Image.fromarray(np.concatenate([COLOUR, alpha], -1)), "PNG")
    got = np.asarray(images.decode(data))
    assert (got[:10] == 255).all(), "hidden colours stay hidden"
    np.testing.assert_array_equal(got[12:], COLOUR[12:])
    want = np.round(COLOUR[10:12] * (100 / 255) + 255 * (155 / 255))
    assert np.abs(got[10:12] - want).max() <= 1


def test_grey_is_the_weighted_sum():
    got = images.with_channels(images.decode(encoded(Image.fromarray(COLOUR), "PNG")), 1)[..., 0]
    want = COLOUR @ np.array([0.299, 0.587, 0.114])
    assert np.abs(np.asarray(got) - want).max() <= 0.51


def test_fit_resizes_the_shorter_side_and_crops_the_centre():
    ramp = np.tile(np.arange(0, 240, 2, dtype="uint8")[None, :, None], (60, 1, 3))  # 60 x 120
    got = np.asarray(images.fit(ramp, 30, 30, Preprocessing()))
    # 60 x 120 -> 30 x 60, then columns 15..44: the centre keeps the middle of the ramp.
    np.testing.assert_allclose(got[0, :, 0], (np.arange(15, 45) * 2 + 0.5) * 2, atol=1)
    same = np.asarray(images.fit(COLOUR[:, :20], 20, 20, Preprocessing()))
    np.testing.assert_array_equal(same, COLOUR[:, :20], "an image that fits is not touched")
    cropped = np.asarray(images.fit(COLOUR[:20, :20], 10, 10, Preprocessing(crop=0.5)))
    np.testing.assert_array_equal(cropped, COLOUR[5:15, 5:15], "half the side, at its own scale")


@settings(max_examples=60, deadline=None)
@given(
    h=st.integers(1, 70),
    w=st.integers(1, 70),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    crop=st.sampled_from([1.0, 0.875, 0.5]),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
)
def test_fit_gives_the_size_asked_for_and_keeps_a_flat_colour(h, w, height, width, crop, interpolation):
    flat = np.full((h, w, 3), (7, 130, 251), "uint8")
    got = np.asarray(images.fit(flat, height, width, Preprocessing(crop=crop, interpolation=interpolation)))
    assert got.shape == (height, width, 3) and got.dtype == np.uint8
    assert (got == (7, 130, 251)).all()


WHOLE = {
    "jpg": encoded(Image.fromarray(COLOUR), "JPEG"),
    "png": encoded(Image.fromarray(COLOUR), "PNG"),
    "gif": encoded(Image.fromarray(COLOUR), "GIF"),
    "bmp": encoded(Image.fromarray(COLOUR), "BMP"),
    "webp": encoded(Image.fromarray(COLOUR), "WEBP"),
}


@pytest.fixture(scope="module")
def prepare():
    return images.make_preparer((16, 16, 3), Preprocessing())


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_mutated_files_are_refused_or_decoded_and_never_crash(prepare, data):
    raw = bytearray(WHOLE[data.draw(st.sampled_from(sorted(WHOLE)))])
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    seen, _, _ = inspect_image((raw, "name"))
    if images.fault(io.BytesIO(raw)) is not None:
        assert seen.fault
        return
    try:
        assert prepare(raw).shape == (16, 16, 3)
    except DataError as e:
        assert "can't be decoded" in str(e) and "\n" not in str(e)
        assert seen.fault or seen.damage, "what can't be decoded in training is not whole in a passport"


def test_a_bmp_whose_pixels_lie_behind_its_end(prepare):
    data = bytearray(WHOLE["bmp"])
    for place in range(10, 14):
        with pytest.raises(DataError, match=r"^can't be decoded \([ -~]+\)$"):
            prepare(bytes(data[:place] + b"\x7f" + data[place + 1 :]) if place > 10 else bytes(data[:-200]))


# --- all doors, on the grid of tests/support/pictures.py ---


def allowed(name):
    return 2 if name.startswith("JPEG") else 0  # grey levels


@pytest.fixture(scope="module")
def doors():
    """{door: pixels (N, 2, 4, 3) of the pictures of the grid}: each door decodes them in one go."""
    from kzoo.exporting.graph import decode_batch

    shape, files = (2, 4, 3), [data for data, _ in GRID.values()]
    split = Split(files, np.zeros(len(files), int), list(GRID))
    decoded, skipped = decode_split(split, shape, Preprocessing())
    on_the_fly = next(iter(batches(split, shape, Preprocessing(), len(files))))[0]
    exported, errors = tf.function(lambda x: decode_batch(x, shape, Preprocessing()), autograph=False)(
        tf.constant(files)
    )
    assert not skipped and not any(errors.numpy())
    return {
        "training": decoded.images,
        "large sets": on_the_fly.numpy(),
        "exports": exported.numpy(),
        "data check": np.stack([np.asarray(small_picture(data)) for data in files]),
    }


@pytest.mark.parametrize("number", range(len(GRID)), ids=GRID)
def test_every_kind_of_picture_is_the_same_at_all_doors(doors, number):
    name, (data, pixels) = list(GRID.items())[number]
    assert images.fault(data) is None and inspect_image((data, name))[0].fault is None
    for door, found in doors.items():
        slack = max(allowed(name), door == "data check")  # which rounds alpha by Pillow's rule
        assert np.abs(found[number].astype(int) - pixels).max() <= slack, door


@pytest.mark.parametrize(("data", "size", "at"), [(PARTIAL, (4, 6), (1, 1)), (BEYOND, (3, 5), (1, 1))])
def test_what_a_frame_of_a_gif_leaves_free_is_white(data, size, at):
    want = np.full((*size, 3), 255, "uint8")
    colours = KEYED if data is PARTIAL else LOOKED_UP
    want[at[0] : at[0] + 2, at[1] : at[1] + 4] = np.reshape(colours, (2, 4, 3))
    np.testing.assert_array_equal(images.decode(tf.constant(data)), want)
    np.testing.assert_array_equal(np.asarray(small_picture(data)), want)
    assert declared(data) == size[::-1] and graph_declared(tf.constant(data)).numpy().tolist() == [*size[::-1]]


def test_the_rules_of_0_1_0_show_hidden_colours_as_they_did():
    old = images.decode(tf.constant(GRID["PNG RGB 8, key"][0]), rules=1)
    np.testing.assert_array_equal(old, GRID["PNG RGB 8"][1])
    assert (images.decode(tf.constant(GRID["GIF, key"][0]), rules=1).numpy()[0, 1] == 0).all()


def test_compressed_bitmaps_and_broken_arrays_are_refused_everywhere():
    run_lengths = bytearray(GRID["BMP 8"][0])
    run_lengths[30] = 1
    array = GRID["array"][0]
    for data, reason in (
        (bytes(run_lengths), "is a BMP that is compressed"),
        (array[:-1], "has a broken header"),
        (saved(np.zeros((2, 3), "float32")), "is no array of one picture"),
        (saved(np.asfortranarray(COLOUR)), "is no array of one picture"),
        (array[:6] + b"\x02" + array[7:], "is no array of one picture"),
    ):
        assert images.fault(data).startswith(reason) and inspect_image((data, "x"))[0].fault.startswith(reason)
        assert refusal(tf.constant(data), 10**8).numpy().decode() == images.fault(data)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_bits_of_16_bit_pictures_are_stretched_alike_everywhere(bits):
    most = 2**bits - 1
    values = np.array([[0, 1, most // 2, most], [most - 1, most // 3, most + 1, 65535]], "uint16")
    want = np.round(np.minimum(values / most, 1) * 255)[..., None]
    how = Preprocessing(bits=bits)
    for data in (png(values.tolist(), 16, 0), saved(values)):
        np.testing.assert_array_equal(images.prepare(tf.constant(data), (2, 4, 1), how), want)
    np.testing.assert_array_equal(images.as_uint8(values[None], bits)[0], want)
    half = png([[v for x in row for v in (x, 65535 // 2)] for row in values.tolist()], 16, 4)  # alpha has all 16 bits
    on_white = want * (127 / 255) + 255 * (128 / 255)
    assert np.abs(images.prepare(tf.constant(half), (2, 4, 1), how) - on_white).max() <= 0.51
    offer = rf"got 0 to {most}\. Of {bits} bits each\? Then bits={bits} \(--bits {bits}\)"
    with pytest.raises(DataError, match=offer):
        images.as_uint8(np.minimum(values, most)[None])


def test_a_model_of_other_channels_takes_pictures_that_have_as_many():
    four = np.dstack([COLOUR, COLOUR[..., 1]])
    with_alpha, plain = encoded(Image.fromarray(four), "PNG"), encoded(Image.fromarray(COLOUR), "PNG")
    one = images.make_preparer((20, 31, 4), Preprocessing())
    for data in (with_alpha, saved(four)):
        np.testing.assert_array_equal(one(data), four, "alpha is a channel")
    with pytest.raises(DataError, match=r"^has 3 channels, the model takes 4$"):
        one(plain)
    from kzoo.exporting.graph import decode_batch

    deep = saved(four.astype("uint16") + 256)
    _, errors = decode_batch(tf.constant([plain, with_alpha, deep]), (20, 31, 4), Preprocessing())
    assert errors.numpy()[0] == b"has 3 channels, the model takes 4" and errors.numpy()[1] == b""
    assert errors.numpy()[2].startswith(b"holds values above 255, and the model was made without bits")
    five = np.dstack([COLOUR, COLOUR[..., :2]])
    for array in (four, five, five[..., :2]):  # which of them are the colours?
        with pytest.raises(DataError, match=rf"^has {array.shape[-1]} channels, the model takes 3$"):
            images.decode(tf.constant(saved(array)))
    with pytest.raises(DataError, match=r"^holds values above 255, and the model was made without bits"):
        images.decode(tf.constant(saved(COLOUR.astype("uint16") + 1)))
    np.testing.assert_array_equal(images.make_preparer((20, 31, 5), Preprocessing())(saved(five)), five)
    two = encoded(Image.fromarray(four[..., 2:]), "PNG")
    np.testing.assert_array_equal(images.make_preparer((20, 31, 2), Preprocessing())(two), four[..., 2:])
    with pytest.raises(KzooError, match="fixed height"):
        images.make_preparer((None, None, 3), Preprocessing())


def test_names_are_escaped_for_messages():
    assert images.shown("a\nb\x1b[31m") == r"a\nb\x1b[31m"
    assert images.shown("caf\udce9") == r"caf\\udce9"


def test_masks_are_laid_back_onto_their_pictures():
    """By hand: a pixel's place in the resized picture, less the crop, less the margin of a smaller output."""
    rng, shape = np.random.default_rng(0), (12, 16, 3)
    for crop, (h, w) in ((1.0, (12, 16)), (0.8, (12, 16)), (1.0, (8, 10))):
        how = Preprocessing(crop=crop)
        sizes = [(12, 16), (30, 41), (9, 50), (7, 5), (1, 1), (4, 500)]
        masks = rng.integers(0, 9, (len(sizes), h, w)).astype("uint8")
        files = images.png_masks(masks, np.array(sizes, "int32"), shape, how).numpy()
        for file, mask, (height, width) in zip(files, masks, sizes, strict=True):
            long = min(width, height * 16 * 16 // 12 + (height * 16 * 16 % 12 > 0))
            scale = max(12 / height, 16 / long) / crop
            new = [max(round(height * scale), 12), max(round(long * scale), 16)]
            want = np.full((height, width), 255)
            for i in range(height):
                for j in range(width):
                    y = int(np.floor((i + 0.5) * new[0] / height)) - (new[0] - 12) // 2 - (12 - h) // 2
                    k = j - (width - long) // 2
                    x = int(np.floor((k + 0.5) * new[1] / long)) - (new[1] - 16) // 2 - (16 - w) // 2
                    if 0 <= k < long and 0 <= y < h and 0 <= x < w:
                        want[i, j] = mask[y, x]
            with Image.open(io.BytesIO(file)) as image:
                np.testing.assert_array_equal(np.asarray(image), want)


def test_laying_back_is_the_inverse_of_resizing_for_pictures_of_blocks():
    blocks = np.random.default_rng(0).integers(0, 5, (4, 6)).repeat(10, 0).repeat(10, 1).astype("uint8")
    fitted = images.fit_masks(blocks, 16, 16, Preprocessing())
    (file,) = images.png_masks(fitted[None], np.array([[40, 60]], "int32"), (16, 16, 3), Preprocessing()).numpy()
    back = np.asarray(Image.open(io.BytesIO(file)))
    assert (back[:, :10] == 255).all() and (back[:, 51:] == 255).all(), "outside of the central square"
    inside = back != 255
    assert inside.mean() == pytest.approx(40 / 60, abs=0.03) and (back == blocks)[inside].mean() > 0.9
