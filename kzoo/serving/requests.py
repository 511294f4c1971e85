"""From the bytes of a request to encoded images, each size and time limited: Refused says what was wrong."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import json

from kzoo.data.guards import MAGIC
from kzoo.serving.batcher import Refused


async def body_of(request, server):
    """The request's body; Refused if it is too long (413) or too slow (408), or if too much is held already (503).

    request.state.held: what of server.held is its own, until it is answered.
    """
    limits = server.limits
    declared = request.headers.get("content-length", "")
    declared = int(declared) if declared.isdigit() else limits.body
    if declared > limits.body:
        raise Refused(413, f"The request has {declared:,} bytes; at most {limits.body:,} are taken.")
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


def images_of(body, limits):
    """(images, whether the answer is in columns) of a body as TensorFlow Serving takes it; Refused (400, 413).

    {"instances": [{"b64": "..."}, ...]} or [{"image": {"b64": "..."}}, ...], or in columns {"inputs": [...]} or
    {"inputs": {"image": [...]}}; "signature_name" may be serving_default.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as e:
        raise Refused(400, f"The body is no JSON ({type(e).__name__}).") from e
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
        raise Refused(413, f"The request has {len(given):,} images; at most {most} are taken.")
    return [_decoded(item, i) for i, item in enumerate(given)], columns


def _decoded(item, i):
    if isinstance(item, dict) and set(item) == {"image"}:
        item = item["image"]
    if not isinstance(item, dict) or set(item) != {"b64"} or not isinstance(item["b64"], str):
        raise Refused(400, f'Image {i} must be {{"b64": "..."}}.')
    try:
        return base64.b64decode(item["b64"], validate=True)
    except (binascii.Error, ValueError) as e:
        raise Refused(400, f"Image {i} is no base64 ({e}).") from e


def check_pixels(images, limits):
    """The pixels that each header declares, 0 where none can be read: other faults are the graph's to name.

    Refused (413) where they are more than are taken.
    """
    import warnings

    from PIL import Image

    found = [0] * len(images)
    for i, data in enumerate(images):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "GIF", "BMP", "WEBP")) as image:
                    found[i] = image.width * image.height
        except Image.DecompressionBombError:
            found[i] = limits.pixels + 1
        except Exception:
            found[i] = _as_the_graph_sees(data)
        if sum(found) > limits.pixels:
            raise Refused(
                413, f"The images up to number {i} declare {sum(found):,} pixels; at most {limits.pixels:,} are taken."
            )
    return found


def _as_the_graph_sees(data):
    """The pixels that a header declares where Pillow refuses it, as TensorFlow's decoders may not; 0 if they do."""
    if not any(data[at : at + len(magic)] == magic for at, magic in MAGIC.values()):
        return 0
    import tensorflow as tf

    from kzoo.data.header import declared

    try:
        width, height = declared(tf.constant(data)).numpy().tolist()
    except tf.errors.OpError:
        return 0
    return width * height
