"""What graphs read from the first bytes of an image, against Pillow; what they refuse."""

import io
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kzoo.catalog import Preprocessing
from kzoo.data import guards, images
from kzoo.data.batches import decode_split
from kzoo.data.dataset import Split
from kzoo.data.header import refusal, still_gif
from kzoo.data.scan import inspect_image
from kzoo.errors import DataError
from kzoo.serving.batcher import Limits, Refused
from kzoo.serving.requests import check_pixels

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (20, 31, 3)).astype("uint8")


@pytest.fixture(scope="module")
def why():
    """refusal() as one graph: (bytes, most pixels) to the reason."""
    graphs = {}

    def ask(data, most=images.MAX_PIXELS):
        if most not in graphs:
            graphs[most] = tf.function(
                lambda data: refusal(data, most), input_signature=[tf.TensorSpec((), tf.string)], autograph=False
            )
        return graphs[most](data).numpy().decode()

    return ask


def encoded(format, size=(31, 20), **options):
    buffer = io.BytesIO()
    Image.fromarray(COLOUR).resize(size).save(buffer, format, **options)
    return buffer.getvalue()


KINDS = [
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("PNG", {}),
    ("GIF", {}),
    ("BMP", {}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
    ("WEBP", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}),
]


@pytest.mark.parametrize(("format", "options"), KINDS)
def test_the_declared_size_is_pillows(why, format, options):
    for size in ((31, 20), (257, 3)):
        data = encoded(format, size, **options)
        assert why(data) == ""
        assert why(data, 50) == f"declares {size[0]}x{size[1]} pixels; at most 50 are accepted"


def test_pictures_that_declare_too_much_are_refused_from_the_header(why):
    large = "declares 50000x50000 pixels; at most 100,000,000 are accepted"
    two = struct.pack(">HH", 50000, 50000)
    jpeg = encoded("JPEG")
    frame = jpeg.index(b"\xff\xc0") + 5
    assert why(jpeg[:frame] + two + jpeg[frame + 4 :]) == large
    png = encoded("PNG")
    assert why(png[:16] + struct.pack(">II", 50000, 50000) + png[24:]) == large
    assert "4294967295x" in why(png[:16] + b"\xff" * 8 + png[24:])
    gif = encoded("GIF")
    assert why(gif[:6] + struct.pack("<HH", 50000, 50000) + gif[10:]) == large
    at = gif.index(b"\x2c\0\0\0\0") + 5  # the frame declares more than the canvas
    assert why(gif[:at] + struct.pack("<HH", 50000, 50000) + gif[at + 4 :]) == large
    bmp = encoded("BMP")
    assert why(bmp[:18] + struct.pack("<ii", 50000, -50000) + bmp[26:]) == large
    assert "16384x16384" in why(b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f" + b"\xff" * 8)
    assert "16777216x16777216" in why(b"RIFF\0\0\0\0WEBPVP8X\0\0\0\0\0\0\0\0" + b"\xff" * 8)


def test_what_is_no_image_is_named(why):
    assert why(b"") == "is empty"
    for data in (b"a", b"a text", b"\x00" * 100, b"RIFF\0\0\0\0WAVE", b"BN"):
        assert why(data) == "is not a JPEG, PNG, GIF, BMP or WebP image"
    for data in (b"\xff\xd8\xff\xe0", b"\x89PNG", b"BM", b"GIF89a", b"RIFF\0\0\0\0WEBP", encoded("GIF")[:60]):
        assert why(data) == "has a broken header"
    buffer = io.BytesIO()
    frames = [Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)]
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    assert "animated WebP" in why(buffer.getvalue())


def test_a_jpeg_of_endless_scans_is_refused(why):
    buffer = io.BytesIO()
    Image.fromarray(COLOUR).save(buffer, "JPEG", progressive=True)
    usual = buffer.getvalue()
    assert why(usual) == ""
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x3f\x3f\x10"  # of nothing, and libjpeg passes over all pixels for it
    refused = "has more than 100 scans"
    assert why(usual[:-2] + 300 * scan + usual[-2:]) == refused
    comment = b"\xff\xfe\x00\x04\xff\xd9"  # an end marker that is none
    assert why(usual[:-2] + comment + 300 * scan + usual[-2:]) == refused
    assert why(usual[:2] + 10_000 * comment + usual[2:]) == refused, "of no use, but each costs a turn"
    for film in (b"\xff\xda" * 500, b"\xff\xd9\xff\xda" * 500):  # phones write one behind the picture
        assert why(usual + film) == ""


def endless():
    """A JPEG of 500 kB with 50,000 scans of nothing: libjpeg would pass over all pixels for each."""
    usual = encoded("JPEG", progressive=True)
    return usual[:-2] + 50_000 * b"\xff\xda\x00\x08\x01\x01\x00\x3f\x3f\x10" + usual[-2:]


def hostile():
    """name: (bytes, what is said of them); "" where a header is in order."""
    jpeg, png, gif, bmp = (encoded(f) for f in ("JPEG", "PNG", "GIF", "BMP"))
    frame, start = jpeg.index(b"\xff\xc0") + 5, gif.index(b"\x2c\0\0\0\0") + 5
    large = "declares 50000x50000 pixels; at most 100,000,000 are accepted"
    two, webp = struct.pack(">HH", 50000, 50000), encoded("WEBP")
    return {
        "plain": (jpeg, ""),
        "small copy in front": (jpeg[:2] + b"\xff\xe1\x00\x0a\xff\xc0\x00\x0b\x08\x00\x01\x00" + jpeg[2:], ""),
        "empty": (b"", "is empty"),
        "text": (b"a letter", "is not a JPEG, PNG, GIF, BMP or WebP image"),
        "scans": (endless(), "has more than 100 scans"),
        "segments": (jpeg[:2] + 10_000 * b"\xff\xfe\x00\x02" + jpeg[2:], "has more than 100 scans"),
        "just 100 scans": (encoded("JPEG")[:-2] + 99 * endless()[-12:-2] + b"\xff\xd9", ""),
        "large JPEG": (jpeg[:frame] + two + jpeg[frame + 4 :], large),
        "JPEG of two frames": (jpeg[:frame] + b"\0\1\0\1" + jpeg[frame + 4 :] + jpeg[frame - 5 :], ""),
        "no frame": (b"\xff\xd8\xff\xe0", "has a broken header"),
        "JPEG without height": (jpeg[:frame] + b"\0\0" + jpeg[frame + 2 :], "has a broken header"),
        "large PNG": (png[:16] + struct.pack(">II", 50000, 50000) + png[24:], large),
        "long PNG": (
            png[:16] + b"\xff" * 8 + png[24:],
            "declares 4294967295x4294967295 pixels; at most 100,000,000 are accepted",
        ),
        "PNG of no width": (png[:16] + bytes(4) + png[20:], "has a broken header"),
        "half a PNG": (png[:20], "has a broken header"),
        "large canvas": (gif[:6] + struct.pack("<HH", 50000, 50000) + gif[10:], large),
        "large frame": (gif[:start] + struct.pack("<HH", 50000, 50000) + gif[start + 4 :], large),
        "GIF without a frame": (gif[:60], "has a broken header"),
        "GIF of blocks": (gif[:10] + b"\0\0\0\x21\xfe" + b"\1x" * 70_000, "has a broken header"),
        "large BMP": (bmp[:18] + struct.pack("<ii", 50000, -50000) + bmp[26:], large),
        "half a BMP": (b"BM", "has a broken header"),
        "WebP": (webp, ""),
        "moving WebP": (
            b"RIFF\0\0\0\0WEBPVP8X\n\0\0\0\2" + bytes(9),
            "is an animated WebP; only still ones can be read",
        ),
        "half a WebP": (b"RIFF\0\0\0\0WEBP", "has a broken header"),
    }


@pytest.mark.parametrize("name", hostile())
def test_every_door_says_the_same(why, tmp_path, name):
    data, reason = hostile()[name]
    path = tmp_path / "x.jpg"
    path.write_bytes(data)
    assert why(data) == reason
    for file in (data, path, str(path), io.BytesIO(data)):
        assert (guards.fault(file) or "") == reason
    if not reason:
        return
    for door in (lambda: guards.read(path), lambda: images.make_preparer((8, 8, 3), Preprocessing())(data)):
        with pytest.raises(DataError) as caught:
            door()
        assert str(caught.value) == reason
    for source in (data, str(path)):  # training, and the check of a data set
        assert inspect_image((source, "x.jpg"))[0].fault == reason
        split = Split([source], np.zeros(1, int), ["x.jpg"])
        assert decode_split(split, (8, 8, 3), Preprocessing())[1] == [("x.jpg", reason)]
    if "declares" in reason:  # the server counts pixels; the export's graph says the rest
        with pytest.raises(Refused):
            check_pixels([data], Limits())
    else:
        assert check_pixels([data], Limits()) is not None


def test_sizes_and_orientations_are_read_alike_in_python_and_in_graphs():
    for format, options in KINDS:
        data = encoded(format, (257, 3), **options)
        assert guards.declared(data) == (257, 3)
    for order in ("<", ">"):
        for value in (0, 1, 3, 6, 8, 9):
            tiff = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, 1)
            tiff += struct.pack(f"{order}HHIHH", 0x0112, 3, 1, value, 0)
            data = encoded("JPEG", exif=b"Exif\0\0" + tiff)
            for cut in (data, data[:40], data[:30]):
                assert guards.orientation(cut) == images.orientation(tf.constant(cut)).numpy()
    assert guards.orientation(encoded("JPEG")) == 1


def test_threads_leave_the_warning_filters_alone():
    """Pillow warns of large pictures, broken EXIF and odd indices behind a JPEG: here each would be an error."""
    broken = encoded(
        "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\3\0\1\0\0\0\6\0\0\0\x1a\1\5\0\1\0\0\0\xff\xff\0\0"
    )
    png = encoded("PNG")
    large = png[:16] + struct.pack(">II", 9_700, 9_700) + png[24:]  # of which Pillow warns
    pictures = [broken, encoded("PNG"), large, encoded("GIF"), endless()[:2000], b"none"]
    before = list(warnings.filters)

    def look(i):
        data = pictures[i % len(pictures)]
        found = inspect_image((data, "x"))[0]
        check_pixels([data], Limits(pixels=10**9))
        return guards.fault(data), found.fault

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(look, range(200)))
    assert warnings.filters == before
    assert found[0] == (None, None) and not [reason for _, reason in found if reason and "Warning" in reason]


def test_of_a_gif_only_the_first_frame_is_decoded():
    frames = [Image.fromarray(np.roll(COLOUR, k, 1)) for k in range(40)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], comment=b"c" * 700)
    data = buffer.getvalue()
    short = still_gif(tf.constant(data)).numpy()
    assert len(short) < len(data) / 20
    with Image.open(io.BytesIO(short)) as image:
        assert image.n_frames == 1
    want = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(images.decode(data), want)
    assert still_gif(tf.constant(data[:500])).numpy() == b""


def test_a_gif_of_endless_tiny_blocks_is_refused_and_does_not_hang(why):
    head = b"GIF89a" + struct.pack("<HHBBB", 10, 10, 0, 0, 0)
    assert why(head + b"\x21\xfe" + b"\x01x" * 200_000 + b"\0" + encoded("GIF")[13:]) == "has a broken header"


def test_of_a_very_long_picture_only_the_middle_is_resized():
    prep = Preprocessing()
    image = np.zeros((1, 60_000, 3), "uint8")
    image[:, 29_900:30_100] = 200
    found = np.asarray(images.fit(image, 224, 224, prep))
    assert found.shape == (224, 224, 3) and (found[:, 100:120] == 200).all()
    upright = np.asarray(images.fit(image.transpose(1, 0, 2), 224, 112, prep))
    assert upright.shape == (224, 112, 3) and (upright[100:120] == 200).all()
    usual = RNG.integers(0, 256, (20, 300, 3)).astype("uint8")  # 15 to 1: as ever
    whole = np.asarray(tf.image.resize(usual, (24, 360), antialias=True))[:, 168:192]
    np.testing.assert_array_equal(images.fit(usual, 24, 24, prep), np.clip(np.round(whole), 0, 255))
