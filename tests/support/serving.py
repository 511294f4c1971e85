"""Images and limits for the tests of the server."""

import base64
import io
import struct
import zlib

from PIL import Image

from kzoo.serving.batcher import Limits

LIMITS = Limits(body=200_000, pixels=1_000_000, images=8, queue=8, batch=8, connections=40, timeout=20.0, held=500_000)


def png(size=(9, 7), colour=(200, 0, 0)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def declaring(side):
    """A PNG of a few bytes whose header, checksum and all, declares side x side pixels."""
    data = png()
    header = data[12:16] + struct.pack(">II", side, side) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def b64(data):
    return {"b64": base64.b64encode(data).decode()}
