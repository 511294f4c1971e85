"""Pictures of four columns and two rows in every kind of file, written byte by byte, with the pixels that they show."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

W = (255, 255, 255)  # what is transparent lies on white


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def packed(values, bits):
    """Values of so many bits as bytes, the first in the highest bits."""
    text = "".join(f"{v:0{bits}b}" for v in values)
    return int(text + "0" * (-len(text) % 8), 2).to_bytes((len(text) + 7) // 8, "big")


def png(rows, depth, kind, *, key=b"", palette=b"", exif=b""):
    """rows: samples of each row, flat. kind: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    body = b"".join(b"\0" + packed(row, depth) for row in rows)
    head = struct.pack(">IIBBBBB", len(rows[0]) // channels, len(rows), depth, kind, 0, 0, 0)
    more = (chunk(b"PLTE", palette) if palette else b"") + (chunk(b"tRNS", key) if key else b"")
    more += chunk(b"eXIf", exif) if exif else b""
    end = chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + more + end


def gif(indices, palette, *, transparent=None, local=False, canvas=(4, 2), at=(0, 0)):
    """A GIF of one frame of 4 colours; each pixel is written with a clear code in front, so that codes keep 3 bits."""
    bits = "".join(f"{c:03b}"[::-1] for v in indices for c in (4, v)) + "101"
    data = int((bits + "0" * (-len(bits) % 8))[::-1], 2).to_bytes((len(bits) + 7) // 8, "little")
    table = bytes(sum(palette, ()))
    other = bytes([1, 2, 3] * 4)  # the palette that is not used
    head = b"GIF89a" + struct.pack("<HHBBB", *canvas, 0x81, 0, 0) + (other if local else table)
    control = b"\x21\xf9\x04" + bytes([transparent is not None, 0, 0, transparent or 0, 0])
    frame = b"\x2c" + struct.pack("<HHHHB", *at, 4, 2, 0x81 if local else 0) + (table if local else b"")
    return head + control + frame + b"\x02" + bytes([len(data)]) + data + b"\0\x3b"


def bmp(rows, bits, *, palette=(), core=False, masks=None, header=40, top_down=False):
    """rows: bytes of each row, from the top. palette: RGB. masks: of red, green, blue (and alpha, header 56)."""
    table = b"".join(bytes(c[::-1]) + (b"" if core else b"\0") for c in palette)
    if core:
        about = struct.pack("<IHHHH", 12, 4, 2, 1, bits)
    else:
        height = -2 if top_down else 2
        about = struct.pack("<IiiHHIIiiII", header, 4, height, 1, bits, 3 if masks else 0, 0, 0, 0, len(palette), 0)
        about += struct.pack(f"<{len(masks)}I", *masks) if masks else b""
        about += bytes(max(0, header - len(about)))
    body = b"".join(row + bytes(-len(row) % 4) for row in (rows if top_down else rows[::-1]))
    start = 14 + len(about) + len(table)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + about + table + body


def saved(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def encoded(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def grey(*values):
    return [(v, v, v) for v in values]


FOUR = [(250, 10, 20), (0, 200, 30), (5, 6, 255), (77, 88, 99)]
R, G, B, X = FOUR
TURNED = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # EXIF: orientation 6
INDICES = [0, 1, 2, 3, 1, 1, 0, 2]
LOOKED_UP = [FOUR[i] for i in INDICES]
KEYED = [W if i == 1 else FOUR[i] for i in INDICES]
FLAT = bytes(sum(FOUR, ()))


def _grid():
    """{name: (bytes of a file, the 8 pixels it shows)}."""
    found = {}
    # Grey of each depth: stretched over 0..255, 16 bits keep the upper 8. The key is what is stored.
    for depth, values, seen in (
        (1, [0, 1, 1, 0, 1, 0, 0, 1], [0, 255, 255, 0, 255, 0, 0, 255]),
        (2, [0, 1, 2, 3, 3, 2, 1, 0], [0, 85, 170, 255, 255, 170, 85, 0]),
        (4, [0, 1, 8, 15, 7, 7, 1, 0], [0, 17, 136, 255, 119, 119, 17, 0]),
        (8, [0, 1, 128, 255, 7, 9, 1, 0], [0, 1, 128, 255, 7, 9, 1, 0]),
        (16, [0, 256, 257, 65535, 511, 512, 256, 40000], [0, 1, 1, 255, 1, 2, 1, 156]),
    ):
        rows = [values[:4], values[4:]]
        found[f"PNG grey {depth}"] = png(rows, depth, 0), grey(*seen)
        key = values[1]
        keyed = [W if v == key else (s, s, s) for v, s in zip(values, seen, strict=True)]
        found[f"PNG grey {depth}, key"] = png(rows, depth, 0, key=struct.pack(">H", key)), keyed
    rows = [list(FLAT), list(FLAT[::-1])]
    turned = [c[::-1] for c in FOUR[::-1]]
    found["PNG RGB 8"] = png(rows, 8, 2), FOUR + turned
    found["PNG RGB 8, EXIF is not honoured"] = png(rows, 8, 2, exif=TURNED), FOUR + turned
    found["PNG RGB 8, key"] = png(rows, 8, 2, key=struct.pack(">3H", *G)), [R, W, B, X, *turned]
    deep = [256 * v + 3 for v in FLAT]
    near = [*deep[:5], deep[5] + 1, *deep[6:]]  # the key's colour but for the lowest bit
    key = struct.pack(">3H", *deep[3:6])
    found["PNG RGB 16"] = png([deep, near], 16, 2), FOUR * 2
    found["PNG RGB 16, key"] = png([deep, near], 16, 2, key=key), [R, W, B, X, *FOUR]
    for depth in (1, 2, 4, 8):
        n = min(4, 2**depth)
        indices = [i % n for i in INDICES]
        rows = [indices[:4], indices[4:]]
        found[f"PNG palette {depth}"] = png(rows, depth, 3, palette=FLAT[: 3 * n]), [FOUR[i] for i in indices]
        keyed = [W if i == 1 else FOUR[i] for i in indices]
        found[f"PNG palette {depth}, key"] = png(rows, depth, 3, palette=FLAT[: 3 * n], key=b"\xff\0"), keyed
    for depth in (8, 16):
        one = 257 if depth == 16 else 1
        rows = [[one * v for v in (0, 0, 100, 255, 200, 51, 9, 0)]] * 2  # grey and alpha
        found[f"PNG grey alpha {depth}"] = png(rows, depth, 4), grey(255, 100, 244, 255) * 2
        rows = [[one * v for c, a in zip(FOUR, (0, 255, 51, 255), strict=True) for v in (*c, a)]] * 2
        found[f"PNG RGBA {depth}"] = png(rows, depth, 6), [W, G, (205, 205, 255), X] * 2
    found["GIF"] = gif(INDICES, FOUR), LOOKED_UP
    found["GIF, key"] = gif(INDICES, FOUR, transparent=1), KEYED
    found["GIF, own palette, key"] = gif(INDICES, FOUR, transparent=1, local=True), KEYED
    rows = [b"\x01\x23", b"\x11\x02"]
    for core in (False, True):
        name = "BMP OS/2" if core else "BMP"
        found[f"{name} 1"] = bmp([b"\x60", b"\x90"], 1, palette=[R, G], core=core), [R, G, G, R, G, R, R, G]
        found[f"{name} 4"] = bmp(rows, 4, palette=FOUR, core=core), LOOKED_UP
        found[f"{name} 8"] = bmp([bytes(INDICES[:4]), bytes(INDICES[4:])], 8, palette=FOUR, core=core), LOOKED_UP
        blue_first = bytes(v for c in FOUR for v in c[::-1])
        found[f"{name} 24"] = bmp([blue_first, bytes(12)], 24, core=core), FOUR + [(0, 0, 0)] * 4
    found["BMP top down"] = bmp(rows, 4, palette=FOUR, top_down=True), LOOKED_UP
    five = struct.pack("<4H", 31 << 10, 16 << 5, 1, 0x7FFF)  # 16 of 31: 131
    found["BMP 16"] = bmp([five, five], 16), [(255, 0, 0), (0, 131, 0), (0, 0, 8), W] * 2
    six = struct.pack("<4H", 31 << 11, 32 << 5, 1, 0xFFFF)  # 32 of 63: 129
    masks = (0xF800, 0x7E0, 0x1F)
    found["BMP 16, 5-6-5"] = bmp([six, six], 16, masks=masks), [(255, 0, 0), (0, 129, 0), (0, 0, 8), W] * 2
    padded = b"".join(bytes((*c[::-1], 7)) for c in FOUR)
    found["BMP 32, padding"] = bmp([padded, padded], 32), FOUR * 2
    ordered = b"".join(bytes((7, *c[::-1])) for c in FOUR)
    masks = (0xFF000000, 0xFF0000, 0xFF00)
    found["BMP 32, masks"] = bmp([ordered, ordered], 32, masks=masks), FOUR * 2
    alpha = b"".join(bytes((*c[::-1], a)) for c, a in zip(FOUR, (0, 255, 51, 255), strict=True))
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    found["BMP 32, alpha"] = bmp([alpha, alpha], 32, masks=masks, header=56), [W, G, (205, 205, 255), X] * 2
    colours = np.array(FOUR * 2, "uint8").reshape(2, 4, 3)
    found["WebP"] = encoded(Image.fromarray(colours), "WEBP", lossless=True, exact=True), FOUR * 2
    clear = np.dstack([colours, np.array([[0, 255, 51, 255]] * 2, "uint8")])
    found["WebP, alpha"] = (
        encoded(Image.fromarray(clear), "WEBP", lossless=True, exact=True),
        [W, G, (205, 205, 255), X] * 2,
    )
    plain = Image.new("RGB", (4, 2), (90, 90, 90))
    found["JPEG"] = encoded(plain, "JPEG"), grey(90) * 8
    found["JPEG grey"] = encoded(plain.convert("L"), "JPEG"), grey(90) * 8
    found["JPEG, turned"] = encoded(plain.resize((2, 4)), "JPEG", exif=b"Exif\0\0" + TURNED), grey(90) * 8
    found["JPEG CMYK"] = encoded(Image.new("CMYK", (4, 2), (0, 0, 0, 165)), "JPEG"), grey(90) * 8
    found["array"] = saved(colours), FOUR * 2
    found["array, one channel"] = saved(colours[..., :1]), grey(250, 0, 5, 77) * 2
    found["array of uint16"] = saved(colours[..., 1].astype("uint16")), grey(10, 200, 6, 88) * 2
    return found


GRID = {name: (data, np.array(pixels, "uint8").reshape(2, 4, 3)) for name, (data, pixels) in _grid().items()}
# A frame that does not fill its canvas, and one that reaches over it: the rest is white.
PARTIAL = gif(INDICES, FOUR, canvas=(6, 4), at=(1, 1), transparent=1)
BEYOND = gif(INDICES, FOUR, canvas=(3, 2), at=(1, 1))
