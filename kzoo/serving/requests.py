"""From the bytes of a request to encoded images; sizes and times are limited, and errors are `Refused`."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kzoo.data.guards import MAGIC
from kzoo.serving.batcher import Limits, Refused

if TYPE_CHECKING:
    from starlette.requests import Request


async def body_of(request: Request, server: Any) -> bytes:
    """Read the body of a request, within the server's limits.

    `request.state.held` is the request's own part of `server.held`, to be subtracted once it is answered.

    Args:
        request: its `state.held` is 0.
        server: a `kzoo.serving.app.Server`: its `held` counts the bytes of all bodies in memory.

    Returns:
        The body.

    Raises:
        Refused: 413 if it is too long, 408 if it takes too long, 503 if the bodies of other requests fill the memory.
    """
    limits = server.limits
    declared = request.headers.get("content-length", "")
    declared = int(declared) if declared.isdigit() else limits.body
    if declared > limits.body:
        raise Refused(413, f"The request has {declared:,} bytes; at most {limits.body:,} are accepted.")
    if server.held + declared > max(limits.held, limits.body):
        raise Refused(503, "Too many large requests are waiting; try again.")
    request.state.held = declared
    server.held += declared
    pieces, size = [], 0

    async def read():
        nonlocal size
        async for piece in request.stream():
            size += len(piece)
            if size > limits.body:
                raise Refused(413, f"The request has more than {limits.body:,} bytes.")
            pieces.append(piece)

    try:
        await asyncio.wait_for(read(), limits.timeout)
    except asyncio.TimeoutError:
        raise Refused(408, f"The request took longer than {limits.timeout:g} s to arrive.") from None
    return b"".join(pieces)


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
    if request.get("signature_name", "serving_default") != "serving_default":
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
    try:
        return base64.b64decode(item["b64"], validate=True)
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
    from PIL import Image

    found = [0] * len(images)
    for i, data in enumerate(images):
        try:
            # Pillow warns of large images once. catch_warnings is not safe here, in one of several threads.
            with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "GIF", "BMP", "WEBP")) as image:
                found[i] = image.width * image.height
        except Image.DecompressionBombError:
            found[i] = limits.pixels + 1
        except Exception:
            found[i] = _pixels_for_tensorflow(data)
        if sum(found) > limits.pixels:
            raise Refused(
                413,
                f"The images up to number {i} declare {sum(found):,} pixels; at most {limits.pixels:,} are accepted.",
            )
    return found


def _pixels_for_tensorflow(data):
    """The pixels of an image that Pillow can't open, but TensorFlow's decoders may; 0 if they can't either."""
    if not any(data[at : at + len(magic)] == magic for at, magic in MAGIC.values()):
        return 0
    import tensorflow as tf

    from kzoo.data.header import declared

    try:
        width, height = declared(tf.constant(data)).numpy().tolist()
    except tf.errors.OpError:
        return 0
    return width * height
