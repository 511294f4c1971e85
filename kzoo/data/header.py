"""What an encoded image declares, read from its first bytes by TensorFlow operations.

For graphs, where Python can't inspect bytes: `refusal` runs before a decoder that would allocate what a header asks
for. Formats: JPEG (ITU-T T.81), PNG (RFC 2083, 3.2, 4.1.1 and 4.2.9), GIF89a (17 to 23), BMP (BITMAPCOREHEADER,
BITMAPINFOHEADER and its successors), WebP (RFC 9649), NumPy's .npy (version 1.0).
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from kzoo.data.guards import (
    ANIMATED,
    ARRAY,
    BMP_HEADERS,
    BMP_MASKS,
    BROKEN,
    EMPTY,
    MAGIC,
    MAX_BLOCKS,
    MAX_CHUNKS,
    MAX_FILE,
    MAX_SCANS,
    MAX_SEGMENTS,
    NPY,
    ODD_BMP,
    SCANS,
    TIFF,
    UNKNOWN,
)


def refusal(data: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Check the header of encoded bytes inside a graph.

    Args:
        data: Scalar string tensor, the bytes of a file.
        max_pixels: The most pixels that a picture may declare.

    Returns:
        A scalar string: why the bytes are no image for kzoo, or "" if nothing is wrong so far.

    Example:
        >>> refusal(tf.constant(b"a letter"), 10**8).numpy().decode()
        'is not a JPEG, PNG, GIF, BMP or WebP image'
    """
    known = tf.reduce_any([_is(data, kind) for kind in MAGIC])
    length = tf.strings.length(data)
    size, scans = tf.cond(_is(data, "JPEG"), lambda: _jpeg(data), lambda: (_of_others(data), tf.constant(0)))
    # Each side by itself, too, so that the product can't overflow.
    large = (tf.reduce_max(size) > max_pixels) | (size[0] * size[1] > max_pixels)
    text = tf.strings.as_string(size)
    too_large = tf.strings.join(["declares ", text[0], "x", text[1], f" pixels; at most {max_pixels:,} are accepted"])
    too_long = tf.strings.join(["has ", tf.strings.as_string(length), f" bytes; at most {MAX_FILE:,} are accepted"])
    return tf.case(
        [
            (length == 0, lambda: tf.constant(EMPTY)),
            (length > MAX_FILE, lambda: too_long),
            (_tiff(data), lambda: tf.constant(TIFF)),
            (~known, lambda: tf.constant(UNKNOWN)),
            (_is(data, "WebP") & is_animated_webp(data), lambda: tf.constant(ANIMATED)),
            (large, lambda: too_large),
            (scans > MAX_SCANS, lambda: tf.constant(SCANS)),
            (_is(data, "NPY") & ~tf.strings.regex_full_match(_npy_header(data), NPY), lambda: tf.constant(ARRAY)),
            (tf.reduce_min(size) < 1, lambda: tf.constant(BROKEN)),
            (_is(data, "BMP") & ~bmp_layout(data).known, lambda: tf.constant(ODD_BMP)),
        ],
        default=lambda: tf.constant(""),
    )


def declared(data: tf.Tensor) -> tf.Tensor:
    """Read the size that encoded bytes declare in their header.

    Args:
        data: Scalar string tensor, the bytes of a file.

    Returns:
        int64 (2,): width and height; zeros for an unknown format or a broken header.
    """
    return tf.cond(_is(data, "JPEG"), lambda: _jpeg(data)[0], lambda: _of_others(data))


def _of_others(data):
    head = _numbers(data, 64)
    cases = [
        (_is(data, "PNG"), lambda: _two(_big(head, 16, 4), _big(head, 20, 4))),
        (_is(data, "GIF"), lambda: gif_size(data)),
        (_is(data, "BMP"), lambda: _bmp_size(head)),
        (_is(data, "NPY"), lambda: _npy_size(data)),
        (_is(data, "WebP"), lambda: _webp_size(head)),
    ]
    return tf.case(cases, default=lambda: tf.zeros(2, tf.int64))


def _tiff(data):
    first = cut(data, 0, 4)
    return (first == b"II*\0") | (first == b"MM\0*")


def _is(data, format):
    start, magic = MAGIC[format]
    return tf.equal(cut(data, start, len(magic)), magic)


def cut(data: tf.Tensor, start: tf.Tensor | int, length: tf.Tensor | int) -> tf.Tensor:
    """A piece of a string tensor, shorter or empty at its end.

    tf.strings.substr raises where `start` lies beyond the end, with the whole string in the message, which Python then
    can't decode.
    """
    return tf.strings.substr(data, tf.minimum(start, tf.strings.length(data)), length)


def _jpeg(data):
    """(int64 (2,) width and height, scans) of a JPEG up to its end marker, or more scans than MAX_SCANS.

    Data behind the end, such as a phone's video, is not read.

    From marker to marker, as `kzoo.data.guards` does in Python: segments have a length; in a scan's compressed data
    0xFF is followed by 0 or a restart marker (0xD0 to 0xD7), which are no markers here.
    """
    content = tf.io.decode_raw(data, tf.uint8)
    first, second = content[:-1], content[1:]
    usual = (second == 0) | (second == 0xFF) | ((second >= 0xD0) & (second <= 0xD7))
    markers = tf.cast(tf.where((first == 0xFF) & ~usual)[:, 0], tf.int32)
    n = tf.size(markers)

    def at(i):
        return tf.cast(content[tf.minimum(i, tf.size(content) - 1)], tf.int32)

    def u16(i):
        return 256 * at(i) + at(i + 1)

    def step(where, size, scans, turns, done):
        k = tf.searchsorted(markers, [where])[0]
        marker = markers[tf.minimum(k, n - 1)]
        kind = at(marker + 1)
        done = (k >= n) | (kind == 0xD9)
        table = (kind == 0xC4) | (kind == 0xC8) | (kind == 0xCC)
        frame = (kind >= 0xC0) & (kind <= 0xCF) & ~table & (scans == 0) & (size[0] == 0) & ~done
        size = tf.where(frame, tf.stack([u16(marker + 7), u16(marker + 5)]), size)
        length = tf.where((kind == 0x01) | (kind == 0xD8), 0, u16(marker + 2))
        return marker + 2 + length, size, scans + tf.cast(~done & (kind == 0xDA), tf.int32), turns + 1, done

    _, size, scans, _, done = tf.while_loop(
        lambda where, size, scans, turns, done: ~done & (scans <= MAX_SCANS) & (turns < MAX_SEGMENTS),
        step,
        [2, tf.zeros(2, tf.int32), 0, 0, n == 0],
    )
    return tf.cast(size, tf.int64), tf.where(done, scans, MAX_SCANS + 1)


def _numbers(data, n):
    """The first n bytes as int64 (n,), zeros behind the end."""
    found = tf.cast(tf.io.decode_raw(cut(data, 0, n), tf.uint8), tf.int64)
    return tf.concat([found, tf.zeros(n, tf.int64)], 0)[:n]


def _big(head, start, n):
    return tf.add_n([head[start + i] * 256 ** (n - 1 - i) for i in range(n)])


def _little(head, start, n):
    return tf.add_n([head[start + i] * 256**i for i in range(n)])


def _signed(x):  # a BMP of negative height is stored from top to bottom
    return tf.abs(tf.where(x >= 2**31, x - 2**32, x))


def _two(*size):
    return tf.reshape(tf.stack(size), [2])


def _webp_size(head):
    """The frame header of the first chunk: lossy, lossless or extended."""
    kind = head[15]  # "VP8 ", "VP8L", "VP8X"
    bits = _little(head, 21, 4)
    cases = [
        (kind == ord("X"), lambda: _two(_little(head, 24, 3) + 1, _little(head, 27, 3) + 1)),
        (kind == ord("L"), lambda: _two(bits % 16384 + 1, bits // 16384 % 16384 + 1)),
    ]
    return tf.case(cases, default=lambda: _two(_little(head, 26, 2) % 16384, _little(head, 28, 2) % 16384))


def is_animated_webp(data: tf.Tensor) -> tf.Tensor:
    """Return whether a WebP (scalar string) has the animation flag in its extended header (VP8X): a scalar bool."""
    head = _numbers(data, 24)
    return (head[15] == ord("X")) & (head[20] // 2 % 2 == 1)


class _Frame(NamedTuple):
    """Of a GIF's first frame, int32; zeros if there is none within MAX_BLOCKS."""

    end: tf.Tensor  # the position behind it
    start: tf.Tensor  # the position of its descriptor
    control: tf.Tensor  # the position of the graphic control extension in front of it, 0 if there is none
    left: tf.Tensor
    top: tf.Tensor
    width: tf.Tensor
    height: tf.Tensor


def _first_frame(data):
    """The first frame of a GIF, a _Frame.

    A GIF is blocks: an extension (0x21, a label) or an image (0x2C, 9 bytes, perhaps a palette, a code size), each
    followed by pieces, their length in front, until one of length 0.
    """
    content = tf.io.decode_raw(data, tf.uint8)
    n = tf.size(content)

    def at(i):
        return tf.cast(content[tf.minimum(i, n - 1)], tf.int32)

    def palette(flags):
        return tf.where(flags >= 128, 6 * 2 ** (flags % 8), 0)

    def u16(i):
        return at(i) + 256 * at(i + 1)

    block, pieces, last, done = range(4)

    def step(where, state, start, control, turns):
        byte = at(where)

        def begin():
            image = byte == 0x2C
            extension = byte == 0x21
            skipped = tf.where(image, 11 + palette(at(where + 9)), 2)
            state = tf.where(image, last, tf.where(extension, pieces, done))
            controls = extension & (at(where + 1) == 0xF9)
            return where + skipped, state, tf.where(image, where, 0), tf.where(controls, where, control)

        def go_on():
            end = tf.where(state == last, done, block)
            return where + byte + 1, tf.where(byte == 0, end, state), start, control

        return *tf.cond(state == block, begin, go_on), turns + 1

    where, state, start, control, _ = tf.while_loop(
        lambda where, state, start, control, turns: (state != done) & (where < n) & (turns < MAX_BLOCKS),
        step,
        [13 + palette(at(10)), block, 0, 0, 0],
    )
    whole = tf.cast((state == done) & (where <= n) & (start > 0), tf.int32)
    box = [u16(start + i) * whole for i in (1, 3, 5, 7)]
    return _Frame(where * whole, start * whole, control * whole, *box)


def gif_size(data: tf.Tensor) -> tf.Tensor:
    """Return the size of a GIF (scalar string), the larger of its canvas and first frame on each axis.

    Returns:
        int64 (2,): width and height; zeros without a frame.
    """
    return _canvas(data, _first_frame(data))


def _canvas(data, frame):
    head = _numbers(data, 16)
    canvas = tf.stack([_little(head, 6, 2), _little(head, 8, 2)])
    size = tf.cast(tf.stack([frame.width, frame.height]), tf.int64)
    ends = size + tf.cast(tf.stack([frame.left, frame.top]), tf.int64)
    return tf.where(tf.reduce_min(size) > 0, tf.maximum(canvas, ends), tf.zeros(2, tf.int64))


def still_gif(data: tf.Tensor) -> tf.Tensor:
    """Cut a GIF (scalar string) behind its first frame: TensorFlow would decode all frames, however many there are."""
    frame = _first_frame(data)
    return tf.where((frame.end > 0) & (frame.width > 0), tf.strings.join([cut(data, 0, frame.end), b"\x3b"]), b"")


def gif_frame(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]]:
    """Make a GIF of the first frame alone, at the top left, with white in place of the transparent colour.

    TensorFlow 2.21 shows transparent pixels in black, and cuts a frame that does not begin at the top left.

    Args:
        data: Scalar string tensor, the bytes of a GIF.

    Returns:
        (the bytes of a GIF, b"" without a frame; int32 (2,) width and height of the canvas; left, top, width and height
        of the frame on it).
    """
    frame = _first_frame(data)
    content = tf.cast(tf.io.decode_raw(cut(data, 0, frame.start + 10), tf.uint8), tf.int32)
    content = tf.concat([content, tf.zeros(16, tf.int32)], 0)
    own = content[frame.start + 9] >= 128
    flags = tf.where(own, content[frame.start + 9], content[10])
    palette = tf.where(own, frame.start + 10, 13)
    index = content[frame.control + 6]
    keyed = (
        (frame.control > 0) & (content[frame.control + 3] % 2 == 1) & (flags >= 128) & (index < 2 * 2 ** (flags % 8))
    )

    def white():
        at, control = palette + 3 * index, frame.control + 3
        colours = [cut(data, control + 1, frame.start - control - 1), b"\x2c" + bytes(4)]
        # The global palette lies in front of the control extension, the frame's own behind it.
        front = tf.where(own, cut(data, 0, control), _white_at(cut(data, 0, control), at))
        rest = cut(data, frame.start + 5, frame.end - frame.start - 5)
        rest = tf.where(own, _white_at(rest, at - frame.start - 5), rest)
        return tf.strings.join([front, b"\0", *colours, rest, b"\x3b"])

    def plain():
        middle = cut(data, frame.start + 5, frame.end - frame.start - 5)
        return tf.strings.join([cut(data, 0, frame.start), b"\x2c" + bytes(4), middle, b"\x3b"])

    still = tf.cond(frame.width > 0, lambda: tf.cond(keyed, white, plain), lambda: tf.constant(b""))
    size = tf.cast(_canvas(data, frame), tf.int32)
    return still, size, (frame.left, frame.top, frame.width, frame.height)


def _white_at(data, at):
    """The string with the three bytes at a position 255; unchanged where it lies outside."""
    n = tf.strings.length(data)
    inside = (at >= 0) & (at + 3 <= n)
    at = tf.where(inside, at, 0)
    changed = tf.strings.join([cut(data, 0, at), b"\xff\xff\xff", cut(data, at + 3, tf.maximum(n - at - 3, 0))])
    return tf.where(inside, changed, data)


def colour_key(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Find the one transparent colour of a grey or RGB PNG, in its chunk tRNS.

    Args:
        data: Scalar string tensor, the bytes of a PNG.

    Returns:
        (whether there is one, int32 (3,) its values as stored; of a grey one the first counts).
    """
    kind = _numbers(data, 26)[25]

    def step(at, found, turns):
        head = _numbers(cut(data, at, 8), 8)
        name = cut(data, at + 4, 4)
        found = tf.where(name == b"tRNS", at + 8, 0)
        done = (found > 0) | (name == b"IDAT") | (name == b"IEND") | (tf.strings.length(name) < 4)
        length = tf.cast(tf.minimum(_big(head, 0, 4), MAX_FILE), tf.int32)
        return tf.where(done, -1, tf.minimum(at, MAX_FILE) + 12 + length), found, turns + 1

    _, found, _ = tf.while_loop(lambda at, found, turns: (at > 0) & (turns < MAX_CHUNKS), step, [8, 0, 0])
    values = _numbers(cut(data, found, 6), 6)
    key = tf.cast(tf.stack([_big(values, i, 2) for i in (0, 2, 4)]), tf.int32)
    return (found > 0) & ((kind == 0) | (kind == 2)), key


class BmpLayout(NamedTuple):
    """Where the pixels of a BMP are, and how they are stored; int32 and bool scalars."""

    known: tf.Tensor  # whether kzoo reads it
    width: tf.Tensor
    height: tf.Tensor
    bits: tf.Tensor  # of a pixel
    top_down: tf.Tensor
    pixels: tf.Tensor  # position
    palette: tf.Tensor  # position
    entry: tf.Tensor  # bytes of a colour in the palette
    six: tf.Tensor  # whether green has 6 of 16 bits
    order: tf.Tensor  # (4,) the bytes of red, green, blue and alpha, of 32 bits
    alpha: tf.Tensor  # whether there is alpha


def bmp_layout(data: tf.Tensor) -> BmpLayout:
    """Read the headers of a BMP (scalar string), as `kzoo.data.guards.is_known_bmp` does in Python."""
    head = _numbers(data, 70)
    header = _little(head, 14, 4)
    core = header == 12
    size = _bmp_size(head)
    bits = tf.where(core, _little(head, 24, 2), _little(head, 28, 2))
    compression = tf.where(core, tf.zeros((), tf.int64), _little(head, 30, 4))
    masks = tf.stack([_little(head, at, 4) for at in (54, 58, 62, 66)])
    masks = tf.where([True, True, True, False] | (header >= 56), masks, 0)
    masked = compression == 3
    fits = [(bits == n) & tf.reduce_all(masks == m) for n, *m in BMP_MASKS]
    plain = (compression == 0) & tf.reduce_any([bits == n for n in (1, 4, 8, 16, 24, 32)])
    known = tf.reduce_any([header == n for n in BMP_HEADERS]) & (plain | (masked & tf.reduce_any(fits)))
    places = tf.add_n([i * tf.cast(masks == 255 << 8 * i, tf.int32) for i in range(4)])  # which byte a mask covers
    return BmpLayout(
        known,
        tf.cast(size[0], tf.int32),
        tf.cast(size[1], tf.int32),
        tf.cast(bits, tf.int32),
        ~core & (_little(head, 22, 4) >= 2**31),
        tf.cast(tf.minimum(_little(head, 10, 4), MAX_FILE), tf.int32),
        tf.cast(14 + header % 256, tf.int32),
        tf.where(core, 3, 4),
        masked & (masks[1] == 0x7E0),
        tf.where(masked, places, [2, 1, 0, 3]),
        masked & (masks[3] > 0),
    )


def _bmp_size(head):
    core = _two(_little(head, 18, 2), _little(head, 20, 2))
    return tf.where(
        _little(head, 14, 4) == 12, core, _two(_signed(_little(head, 18, 4)), _signed(_little(head, 22, 4)))
    )


def _npy_header(data):
    """The description in an .npy of version 1.0, "" in any other."""
    head = _numbers(data, 10)
    length = tf.cast(_little(head, 8, 2), tf.int32)
    return tf.where((head[6] == 1) & (head[7] == 0), cut(data, 10, length), b"")


def npy_array(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Read the header of an array as numpy.save writes it.

    Args:
        data: Scalar string tensor, the bytes of an .npy that `refusal` accepts.

    Returns:
        (whether it is uint16 and not uint8, int32 (3,) height, width and channels, the position of its values).
    """
    header = _npy_header(data)
    known = tf.strings.regex_full_match(header, NPY)

    def number(k):  # a picture without channels has one
        text = tf.strings.regex_replace(header, NPY, rf"0\{k}")
        value = tf.strings.to_number(tf.where(known, text, "0"), tf.int32)
        return tf.where(value == 0, 1, value) if k == 4 else value

    deep = tf.strings.regex_full_match(header, ".*<u2.*\\s*")
    start = 10 + tf.cast(_little(_numbers(data, 10), 8, 2), tf.int32)
    return deep, tf.stack([number(2), number(3), number(4)]), start


def _npy_size(data):
    """Width and height; zeros where the file is shorter than it says."""
    deep, shape, start = npy_array(data)
    shape = tf.cast(shape, tf.int64)
    known = tf.strings.regex_full_match(_npy_header(data), NPY)
    bytes_ = tf.reduce_prod(shape) * tf.where(deep, tf.constant(2, tf.int64), 1)
    whole = tf.cast(tf.strings.length(data) - start, tf.int64) == bytes_
    return tf.where(whole | ~known, tf.where(known, _two(shape[1], shape[0]), [1, 1]), [0, 0])


def exact_bmp(data: tf.Tensor) -> tf.Tensor:
    """Trim or pad a BMP (scalar string) to the length that its header declares, the padding of the last row included.

    TensorFlow 2.21 decodes no other BMP; Pillow and others do.
    """
    head = _numbers(data, 32)
    width, height = (_signed(_little(head, at, 4)) for at in (18, 22))
    row = (_little(head, 28, 2) * width + 31) // 32 * 4
    size = tf.clip_by_value(_little(head, 10, 4) + row * height, 0, 2**31 - 1)
    return tf.strings.substr(tf.strings.join([data, b"\0\0\0"]), 0, tf.cast(size, tf.int32))
