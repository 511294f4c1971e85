"""From the bytes of a request to encoded images; sizes and times are limited, and errors are `Refused`."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from email.message import Message
from typing import TYPE_CHECKING, Protocol, TypeVar

from kzoo.data.guards import declared
from kzoo.serving.batcher import Limits, Refused

if TYPE_CHECKING:
    from starlette.requests import Request


FORM_PARTS = 16  # of a form
SMALL = 256 << 10  # bytes of a body: a photo's take 0.2 ms to read, the worst of that size 40
T = TypeVar("T")


class Holder(Protocol):
    """What a body is read for: the server, with its limits and the bytes that it holds."""

    limits: Limits
    held: int


async def body_of(request: Request, server: Holder) -> bytes:
    """Read the body of a request, within the server's limits.

    `request.state.held` is the request's own part of `server.held`, to be subtracted once it is answered.

    Args:
        request: its `state.held` is 0.
        server: its `held` counts the bytes of all bodies in memory.

    Returns:
        The body.

    Raises:
        Refused: 413 if it is too long (also once it is inflated), 415 for another encoding than gzip, 408 if it takes
            too long, 503 if the bodies of other requests fill the memory.
    """
    limits = server.limits
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip", ""):
        raise Refused(415, f"The body is encoded as {encoding[:40]!r}; gzip is accepted, or none.")
    inflate = Gunzip(limits.body) if "gzip" in encoding else None
    length = request.headers.get("content-length", "")
    declared = int(length) if length.isdigit() else limits.body
    if declared > limits.body:
        raise Refused(413, f"The request has {declared:,} bytes; at most {limits.body:,} are accepted.")
    if server.held + declared > max(limits.held, limits.body):
        raise Refused(503, "Too many large requests are waiting; try again.")
    if inflate:
        declared = limits.body  # it may grow to that
    request.state.held = declared
    server.held += declared
    pieces, size = [], 0

    async def read():
        nonlocal size
        async for piece in request.stream():
            piece = inflate(piece) if inflate else piece
            size += len(piece)
            if size > limits.body:
                raise Refused(413, f"The request has more than {limits.body:,} bytes.")
            pieces.append(piece)

    try:
        await asyncio.wait_for(read(), limits.timeout)
    except asyncio.TimeoutError:
        raise Refused(408, f"The request took longer than {limits.timeout:g} s to arrive.") from None
    if inflate:
        inflate.end()
    return b"".join(pieces)


async def reading(work: Callable[[], T], body: bytes) -> T:
    """What work() makes of a body: at once if that is small, else in another thread, while the server goes on.

    Handing a photo over to another thread and back takes longer than to read it.
    """
    return work() if len(body) <= SMALL else await asyncio.to_thread(work)


class Gunzip:
    """Inflates the pieces of a gzip body, up to a size.

    Args:
        most: bytes of the whole once it is inflated.
    """

    def __init__(self, most: int):
        self.left, self.stream, self.ended = most, zlib.decompressobj(31), False

    def __call__(self, piece: bytes) -> bytes:
        """The next piece, inflated. Raises Refused: 400 for what is not gzip, 413 for too much."""
        found = []
        try:
            while piece:
                if self.stream.eof:  # another member follows
                    self.stream = zlib.decompressobj(31)
                found.append(self.stream.decompress(piece, self.left + 1))
                self.left -= len(found[-1])
                if self.left < 0:
                    raise Refused(413, "The body has too many bytes once it is inflated.")
                piece = self.stream.unconsumed_tail or self.stream.unused_data
        except zlib.error as e:
            raise Refused(400, f"The body is not gzip ({e}).") from e
        return b"".join(found)

    def end(self) -> None:
        """Refused, 400, if the stream has not ended."""
        if not self.stream.eof:
            raise Refused(400, "The body is not gzip (it ends too early).")


def form_image(body: bytes, content_type: str) -> bytes:
    """The image of a request that is an image, or a form with one (multipart/form-data, as curl -F sends).

    Raises:
        Refused: 400 for a form without a file, or with several.
    """
    message = Message()
    message["content-type"] = content_type
    if message.get_content_type() != "multipart/form-data":
        return body
    boundary = message.get_param("boundary")
    if not isinstance(boundary, str) or not 0 < len(boundary) <= 200:
        raise Refused(400, "The form has no boundary.")
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary.encode("utf-8", "replace"), FORM_PARTS + 1)[1:]
    files = []
    for piece in pieces:
        head, found, content = piece.partition(b"\r\n\r\n")
        if found and re.search(rb"content-disposition:[^\r\n]*;\s*filename\*?=", head[:4096], re.IGNORECASE):
            files.append(content)
    if len(files) != 1:
        raise Refused(400, f"The form has {len(files)} files; it needs one: curl -F image=@photo.jpg.")
    return files[0]


def images_of(body: bytes, limits: Limits) -> tuple[list[bytes], bool]:
    """Read the images from a JSON body in TensorFlow Serving's format.

    Args:
        body: in rows, `{"instances": [{"b64": "..."}, ...]}` or `{"instances": [{"image": {"b64": "..."}}, ...]}`, or
            in columns, `{"inputs": [...]}` or `{"inputs": {"image": [...]}}`; "signature_name" may be serving_default.
        limits: `images` and `queue` count here.

    Returns:
        (encoded images, whether the answer is in columns).

    Raises:
        Refused: 400 for another format, 413 for too many images.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as e:
        raise Refused(400, f"The body is not JSON ({type(e).__name__}).") from e
    if not isinstance(request, dict) or ("instances" in request) == ("inputs" in request):
        raise Refused(400, 'The body must be {"instances": [{"b64": "..."}]} or {"inputs": [{"b64": "..."}]}.')
    if request.get("signature_name") not in (None, "", "serving_default"):  # TensorFlow Serving's clients send ""
        raise Refused(400, "Only the signature serving_default is served.")
    columns = "inputs" in request
    given = request["inputs" if columns else "instances"]
    if columns and isinstance(given, dict):
        given = given.get("image") if set(given) == {"image"} else None
        given = [given] if isinstance(given, dict) else given
    if not isinstance(given, list) or not given:
        raise Refused(400, "The list of images is missing or empty.")
    most = min(limits.images, limits.queue)
    if len(given) > most:
        raise Refused(413, f"The request has {len(given):,} images; at most {most} are accepted.")
    return [_decoded(item, i) for i, item in enumerate(given)], columns


def _decoded(item, i):
    if isinstance(item, dict) and set(item) == {"image"}:
        item = item["image"]
    if not isinstance(item, dict) or set(item) != {"b64"} or not isinstance(item["b64"], str):
        raise Refused(400, f'Image {i} must be {{"b64": "..."}}.')
    with suppress(ValueError):
        return base64.b64decode(item["b64"], validate=True)
    # As TensorFlow Serving: white space, no padding, and the URL-safe alphabet are taken.
    text = "".join(item["b64"].split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as e:
        raise Refused(400, f"Image {i} is not base64 ({e}).") from e


def check_pixels(images: Sequence[bytes], limits: Limits) -> list[int]:
    """Check how many pixels the headers of images declare, before any image is decoded.

    Args:
        images: encoded.
        limits: `pixels` counts here.

    Returns:
        The pixels of each image; 0 where its header can't be read, which the model's graph reports.

    Raises:
        Refused: 413, if they declare too many pixels together.
    """
    found = [0] * len(images)
    for i, data in enumerate(images):
        width, height = declared(data)
        found[i] = width * height
        if sum(found) > limits.pixels:
            raise Refused(
                413,
                f"The images up to number {i} declare {sum(found):,} pixels; at most {limits.pixels:,} are accepted.",
            )
    return found
