"""What an encoded image declares, read from its first bytes by TensorFlow operations.

For graphs, where Python can't inspect bytes: `refusal` runs before a decoder that would allocate what a header asks
for. Formats: JPEG (ITU-T T.81), PNG (RFC 2083, 3.2 and 4.1.1), GIF89a (17 to 23), BMP (BITMAPINFOHEADER), WebP (RFC
9649).
"""

from __future__ import annotations

import tensorflow as tf

from kzoo.data.guards import (
    ANIMATED,
    BROKEN,
    EMPTY,
    MAGIC,
    MAX_BLOCKS,
    MAX_FILE,
    MAX_SCANS,
    MAX_SEGMENTS,
    SCANS,
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
            (~known, lambda: tf.constant(UNKNOWN)),
            (_is(data, "WebP") & is_animated_webp(data), lambda: tf.constant(ANIMATED)),
            (large, lambda: too_large),
            (scans > MAX_SCANS, lambda: tf.constant(SCANS)),
            (tf.reduce_min(size) < 1, lambda: tf.constant(BROKEN)),
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
        (_is(data, "BMP"), lambda: _two(_signed(_little(head, 18, 4)), _signed(_little(head, 22, 4)))),
        (_is(data, "WebP"), lambda: _webp_size(head)),
    ]
    return tf.case(cases, default=lambda: tf.zeros(2, tf.int64))


def _is(data, format):
    start, magic = MAGIC[format]
    return tf.equal(_cut(data, start, len(magic)), magic)


def _cut(data, start, length):
    """A piece of a string tensor; tf.strings.substr raises where `start` lies beyond the end."""
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
    found = tf.cast(tf.io.decode_raw(_cut(data, 0, n), tf.uint8), tf.int64)
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


def _first_frame(data):
    """(the position behind a GIF's first frame, its width, its height); zeros if there is none within MAX_BLOCKS.

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

    def step(where, state, width, height, turns):
        byte = at(where)

        def begin():
            image = byte == 0x2C
            extension = byte == 0x21
            skipped = tf.where(image, 11 + palette(at(where + 9)), 2)
            state = tf.where(image, last, tf.where(extension, pieces, done))
            return where + skipped, state, tf.where(image, u16(where + 5), 0), tf.where(image, u16(where + 7), 0)

        def go_on():
            end = tf.where(state == last, done, block)
            return where + byte + 1, tf.where(byte == 0, end, state), width, height

        return *tf.cond(state == block, begin, go_on), turns + 1

    where, state, width, height, _ = tf.while_loop(
        lambda where, state, width, height, turns: (state != done) & (where < n) & (turns < MAX_BLOCKS),
        step,
        [13 + palette(at(10)), block, 0, 0, 0],
    )
    whole = tf.cast((state == done) & (where <= n), tf.int32)
    return where * whole, width * whole, height * whole


def gif_size(data: tf.Tensor) -> tf.Tensor:
    """Return the size of a GIF (scalar string), the larger of its canvas and first frame on each axis.

    Returns:
        int64 (2,): width and height; zeros without a frame.
    """
    head = _numbers(data, 16)
    canvas = tf.stack([_little(head, 6, 2), _little(head, 8, 2)])
    _, width, height = _first_frame(data)
    frame = tf.cast(tf.stack([width, height]), tf.int64)
    return tf.where(tf.reduce_min(frame) > 0, tf.maximum(canvas, frame), tf.zeros(2, tf.int64))


def still_gif(data: tf.Tensor) -> tf.Tensor:
    """Cut a GIF (scalar string) behind its first frame: TensorFlow would decode all frames, however many there are."""
    end, width, _ = _first_frame(data)
    return tf.where((end > 0) & (width > 0), tf.strings.join([_cut(data, 0, end), b"\x3b"]), b"")


def exact_bmp(data: tf.Tensor) -> tf.Tensor:
    """Trim or pad a BMP (scalar string) to the length that its header declares, the padding of the last row included.

    TensorFlow 2.21 decodes no other BMP; Pillow and others do.
    """
    head = _numbers(data, 32)
    width, height = (_signed(_little(head, at, 4)) for at in (18, 22))
    row = (_little(head, 28, 2) * width + 31) // 32 * 4
    size = tf.clip_by_value(_little(head, 10, 4) + row * height, 0, 2**31 - 1)
    return tf.strings.substr(tf.strings.join([data, b"\0\0\0"]), 0, tf.cast(size, tf.int32))
