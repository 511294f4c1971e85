"""Pictures for style transfer: read, resize, write with their settings inside."""

from __future__ import annotations

import json
import math
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image, PngImagePlugin

from kzoo.data import images
from kzoo.errors import DataError
from kzoo.files import write_atomically

SMALLEST = 32  # pixels of the shorter side: less leaves nothing to the deeper layers
KEY = "kzoo-style"


def read(path):
    """(H, W, 3) uint8 of an image file, by the rules of `kzoo.data.images`; DataError names the file and the reason."""
    try:
        with tf.device("CPU"):
            picture = images.decode(tf.constant(images.read(path))).numpy()
    except tf.errors.OpError as e:
        raise DataError(f"{images.shown(path)} can't be decoded ({images.short_reason(e)}).") from e
    except DataError as e:
        raise DataError(f"{images.shown(path)} {e}.") from e
    return checked(picture, images.shown(path))


def checked(picture, name="The picture"):
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise DataError(f"{name} must be an array (height, width, 3), got the shape {picture.shape}.")
    if min(picture.shape[:2]) < SMALLEST:
        raise DataError(
            f"{name} is {picture.shape[1]}x{picture.shape[0]} pixels; at least {SMALLEST}x{SMALLEST} are needed."
        )
    return picture


def fitted(shape, side):
    """(height, width) with the longer side `side`.

    >>> fitted((768, 1024, 3), 512)
    (384, 512)
    """
    scale = side / max(shape[:2])
    return tuple(max(1, round(n * scale)) for n in shape[:2])


def resized(picture, size):
    """(H, W, C) to (*size, C) float32, bicubic and antialiased, not clipped."""
    if picture.shape[:2] == tuple(size):
        return picture.astype("float32")
    with tf.device("CPU"):
        return tf.image.resize(picture.astype("float32"), size, "bicubic", antialias=True).numpy()


def as_uint8(picture):
    return np.clip(np.round(picture), 0, 255).astype("uint8")


def write(path, picture, record):
    """A PNG that carries a record (JSON) as text."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt(KEY, json.dumps(record))
    with write_atomically(path) as f:
        Image.fromarray(picture).save(f, "PNG", pnginfo=info)


def record(path):
    """The record of a PNG that `write` made; DataError if there is none."""
    reason = images.fault(path)
    if reason:
        raise DataError(f"{images.shown(path)} {reason}.")
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.load()  # the text may stand behind the pixels
            found = json.loads(image.text[KEY])
            if not isinstance(found, dict) or not isinstance(found.get("settings"), dict):
                raise ValueError
            return found
    except (OSError, SyntaxError, KeyError, AttributeError, ValueError, RecursionError) as e:
        raise DataError(f"{images.shown(path)} carries no settings of kzoo style: give a PNG that it wrote.") from e


def side_by_side(path, pictures):
    """Content, styles and result at one height, in one PNG."""
    height = pictures[-1].shape[0]

    def width(p):
        return min(max(1, round(p.shape[1] * height / p.shape[0])), 8 * height)  # of a long strip: no wider

    row = [as_uint8(resized(p, (height, width(p)))) for p in pictures]
    gap = np.full((height, max(2, height // 64), 3), 255, "uint8")
    joined = [part for p in row for part in (p, gap)][:-1]
    with write_atomically(path) as f:
        Image.fromarray(np.concatenate(joined, 1)).save(f, "PNG")


def loss_curve(path, history):
    """The loss and its parts by evaluation, one line for each, a mark where the size changes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="evaluations", ylabel="loss", yscale="log")
    at = [row["evaluations"] for row in history]
    for key in ("loss", "content", "style", "tv", "range"):
        if key in history[-1]:
            axes.plot(
                at, [row[key] if row[key] > 0 else math.nan for row in history], label=key, lw=2 if key == "loss" else 1
            )
    for a, b in pairwise(history):
        if a["size"] != b["size"]:
            axes.axvline(a["evaluations"], color="0.8", lw=1, zorder=0)
    axes.legend()
    with write_atomically(path) as f:
        figure.savefig(f, format="png", dpi=120)


def unpainted(bad, files, results):
    """The DataError that tells how many pictures could not be painted; `results` has what was made of the others."""
    error = DataError(f"{len(bad)} of {len(files)} pictures could not be painted.")
    error.results = results
    return error


def listed(folder):
    """The files of a folder that are images by their headers, frames in the order of their numbers: 2 before 10."""

    def numbers(p):
        return [int(t) if t.isdecimal() else t for t in re.split(r"(\d+)", p.name)]

    files = sorted((p for p in Path(folder).iterdir() if p.is_file() and not p.name.startswith(".")), key=numbers)
    found = [p for p in files if images.fault(p) is None]
    if not found:
        raise DataError(f"{images.shown(folder)} holds no JPEG, PNG, GIF, BMP or WebP image.")
    return found
