"""Bodies of requests: read within limits of size and time; their images, and how many pixels these declare."""

import asyncio
import base64
import io
import json
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
from PIL import Image
from support.serving import LIMITS, b64, declaring, png

from kzoo.serving.batcher import Refused
from kzoo.serving.requests import body_of, check_pixels, images_of


class Request:
    """A request whose body comes in pieces; None never comes."""

    def __init__(self, *pieces, **headers):
        self.pieces, self.state = pieces, SimpleNamespace(held=0)
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    async def stream(self):
        for piece in self.pieces:
            if piece is None:
                await asyncio.Event().wait()
            yield piece


def read(request, held=0, **limits):
    """(the body or (status, reason), bytes that the server holds then)."""
    server = SimpleNamespace(limits=replace(LIMITS, **limits), held=held)
    try:
        return asyncio.run(body_of(request, server)), server.held
    except Refused as e:
        return e.args, server.held


def test_a_body_is_read_in_pieces_and_counted_as_declared():
    request = Request(b"ab", b"", b"c", content_length="3")
    assert read(request, held=10) == (b"abc", 13) and request.state.held == 3
    request = Request(b"abc")
    assert read(request) == (b"abc", LIMITS.body) and request.state.held == LIMITS.body, "it may be as long as allowed"


def test_a_body_that_is_too_long_is_refused_by_what_it_declares_and_by_what_comes():
    (status, reason), held = read(Request(b"x", content_length=str(LIMITS.body + 1)))
    assert (status, held) == (413, 0) and "at most 200,000" in reason
    assert read(Request(*[b"x" * 1000] * 201))[0][0] == 413
    assert read(Request(b"x" * 9, content_length="4"), body=8)[0][0] == 413, "more than declared"


def test_the_bodies_of_all_requests_are_bounded_together_but_one_is_always_accepted():
    assert read(Request(b"x", content_length="1"), held=LIMITS.held)[0][0] == 503
    assert read(Request(b"x", content_length="1"), held=LIMITS.held - 1)[0] == b"x"
    assert read(Request(b"x" * 600, content_length="600"), body=1000, held=0)[0] == b"x" * 600


def test_a_body_that_does_not_arrive_is_refused():
    status, reason = read(Request(b"ab", None, content_length="3"), timeout=0.05)[0]
    assert status == 408 and "0.05 s" in reason


@pytest.mark.parametrize(
    ("body", "columns"),
    [
        ({"instances": [b64(b"one"), b64(b"two")]}, False),
        ({"instances": [{"image": b64(b"one")}, {"image": b64(b"two")}]}, False),
        ({"inputs": [b64(b"one"), b64(b"two")]}, True),
        ({"inputs": {"image": [b64(b"one"), b64(b"two")]}, "signature_name": "serving_default"}, True),
    ],
)
def test_images_in_rows_and_in_columns(body, columns):
    assert images_of(json.dumps(body).encode(), LIMITS) == ([b"one", b"two"], columns)


def test_base64_as_tensorflow_serving_takes_it():
    data = bytes(range(256)) * 3 + b"\xff\xfe"
    plain = base64.b64encode(data).decode()
    for text in (plain, base64.encodebytes(data).decode(), plain + "\n", plain.rstrip("="), f" {plain} "):
        for given in (text, text.replace("+", "-").replace("/", "_")):
            body = {"instances": [{"b64": given}], "signature_name": ""}
            assert images_of(json.dumps(body).encode(), LIMITS) == ([data], False)
    for bad in ("a?b=", "A", "AAAAA", "A=AA", "\u00e4", "AA\u0000A"):
        with pytest.raises(Refused, match="not base64"):
            images_of(json.dumps({"instances": [{"b64": bad}]}).encode(), LIMITS)


def test_one_image_in_columns_needs_no_list():
    assert images_of(json.dumps({"inputs": {"image": b64(b"one")}}).encode(), LIMITS) == ([b"one"], True)


def test_no_more_images_than_the_queue_can_ever_hold():
    body = json.dumps({"instances": [b64(b"")] * 5}).encode()
    assert len(images_of(body, replace(LIMITS, queue=5))[0]) == 5
    for limits in (replace(LIMITS, queue=4), replace(LIMITS, images=4)):
        with pytest.raises(Refused, match="at most 4"):
            images_of(body, limits)


def test_pixels_that_a_header_declares_count_before_anything_is_decoded():
    assert check_pixels([png(), b"no", declaring(700)], LIMITS) == [63, 0, 700 * 700]
    many = replace(LIMITS, pixels=10**9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow warns of so many pixels, and refuses twice as many
        assert check_pixels([declaring(12_000)], many) == [12_000**2]
    for images in ([declaring(50_000)], [declaring(700)] * 3):
        with pytest.raises(Refused, match="at most 1,000,000 are accepted") as refused:
            check_pixels(images, LIMITS)
        assert refused.value.args[0] == 413


def test_what_pillow_refuses_counts_as_tensorflow_sees_it():
    """libjpeg passes over a marker that Pillow does not know."""
    buffer = io.BytesIO()
    Image.new("RGB", (900, 800)).save(buffer, "JPEG")
    data = buffer.getvalue()
    odd = data[:2] + b"\xff\x01" + data[2:]
    with pytest.raises(OSError):
        Image.open(io.BytesIO(odd))
    assert check_pixels([odd, b"no", data[:3], png()], LIMITS) == [900 * 800, 0, 0, 63]
    with pytest.raises(Refused):
        check_pixels([odd, odd], LIMITS)
