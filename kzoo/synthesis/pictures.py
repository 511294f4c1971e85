"""Picture files: read, resize, write with a record inside."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image, PngImagePlugin

from kzoo.data import images
from kzoo.data.guards import is_clutter, is_picture
from kzoo.errors import DataError
from kzoo.files import write_atomically

SMALLEST = 32  # pixels of the shorter side: of less, the deeper layers have no feature map
KEY = "kzoo-style"
JPEG = (".jpg", ".jpeg")
SUFFIXES = (".png", *JPEG)
MAX_COMMENT = 65_533  # bytes of a JPEG's comment


def read_picture(path: str | os.PathLike) -> np.ndarray:
    """Read an image file, by the rules of `kzoo.data.images`.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        DataError: it can't be read or is too small; the message names the file and the reason.
    """
    try:
        with images.decoding():
            picture = images.decode(tf.constant(images.read(path))).numpy()
    except DataError as e:
        raise DataError(f"{images.shown(path)} {e}.") from e
    return checked(picture, images.shown(path))


def checked(picture: np.ndarray, name: str = "The picture") -> np.ndarray:
    """The picture itself; DataError unless it is (H, W, 3) with at least 32 pixels on each side."""
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise DataError(f"{name} must be an array (height, width, 3), got the shape {picture.shape}.")
    if min(picture.shape[:2]) < SMALLEST:
        raise DataError(
            f"{name} is {picture.shape[1]}x{picture.shape[0]} pixels; at least {SMALLEST}x{SMALLEST} are needed."
        )
    return picture


def given(picture: str | os.PathLike | np.ndarray) -> np.ndarray:
    """A picture of the user's, a path or an array, as (H, W, 3) uint8.

    Raises:
        DataError: it can't be read, is too small, or is not an array (height, width, 3) of uint8.
    """
    if isinstance(picture, (str, os.PathLike)):
        return read_picture(picture)
    picture = np.asarray(picture)
    if picture.dtype != np.uint8:
        raise DataError(f"A picture must be a path or an array (height, width, 3) of uint8, got {picture.dtype}.")
    return checked(picture)


def fitted(shape: Sequence[int], side: float) -> tuple[int, int]:
    """The size of a picture once it is scaled to a longer side.

    Args:
        shape: (height, width, ...) in pixels.
        side: the longer side to reach, in pixels.

    Returns:
        (height, width), each at least 1.

    Example:
        >>> fitted((768, 1024, 3), 512)
        (384, 512)
    """
    scale = side / max(shape[:2])
    return tuple(max(1, round(n * scale)) for n in shape[:2])


def resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale (H, W, C) to (*size, C) float32, bicubic and antialiased. The result is not clipped to 0..255."""
    if picture.shape[:2] == tuple(size):
        return picture.astype("float32")
    with tf.device("CPU"):
        return tf.image.resize(picture.astype("float32"), size, "bicubic", antialias=True).numpy()


def batch(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, C) scaled to (1, *size, C) float32 and clipped to 0..255, for a network."""
    return np.clip(resized(picture, size), 0, 255)[None]


def to_uint8(picture: np.ndarray) -> np.ndarray:
    """Round and clip to 0..255."""
    return np.clip(np.round(picture), 0, 255).astype("uint8")


def mean_change(picture: np.ndarray, other: np.ndarray) -> float:
    """The mean absolute difference of two pictures (H, W, C), in grey levels.

    Example:
        >>> mean_change(np.zeros((2, 2, 3)), np.array([[[6, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 6]]]))
        1.0
    """
    return float(np.abs(np.asarray(picture, "float64") - other).mean())


def detail(picture: np.ndarray) -> float:
    """The energy of the finest detail of a picture: the mean square of the Laplacian of its grey values.

    The Laplacian at a pixel is the sum of its four neighbours minus four times the pixel; the outermost pixels have
    none. A blur lowers it first.

    Args:
        picture: (H, W, C), at least 3 x 3 pixels, in grey levels; the grey value is the mean of the channels.

    Returns:
        Grey levels squared.

    Example:
        >>> detail(np.arange(5.0)[None, :, None] * np.ones((5, 1, 3)))  # a ramp has no curvature
        0.0
    """
    x = np.asarray(picture, "float64").mean(-1)
    laplacian = x[:-2, 1:-1] + x[2:, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:] - 4 * x[1:-1, 1:-1]
    return float(np.square(laplacian).mean())


def write_picture(path: str | os.PathLike, picture: np.ndarray, record: dict, key: str = KEY) -> None:
    """Write a picture (H, W, 3) uint8 that carries a record as JSON text, under the name of what made it.

    A PNG has it as text, a JPEG (by its suffix) as a comment.
    """
    text = json.dumps(record)
    with write_atomically(path) as f:
        if os.fspath(path).lower().endswith(JPEG):
            comment = f"{key}:{text}".encode()
            if len(comment) > MAX_COMMENT:  # thousands of evaluations one by one; the pixels are what counts
                comment = b""
            Image.fromarray(picture).save(f, "JPEG", quality=95, subsampling=0, comment=comment)
        else:
            info = PngImagePlugin.PngInfo()
            info.add_itxt(key, text)
            Image.fromarray(picture).save(f, "PNG", pnginfo=info)


def read_record(path: str | os.PathLike, key: str = KEY) -> dict:
    """The record of a picture that `write_picture` wrote; DataError if there is none with settings."""
    reason = images.fault(path)
    if reason:
        raise DataError(f"{images.shown(path)} {reason}.")
    try:
        with Image.open(path, formats=["PNG", "JPEG"]) as image:
            image.load()  # the text may stand behind the pixels
            if image.format == "JPEG":
                name, _, text = image.info["comment"].decode().partition(":")
                found = json.loads(text) if name == key else None
            else:
                found = json.loads(image.text[key])
            if not isinstance(found, dict) or not isinstance(found.get("settings"), dict):
                raise ValueError
            return found
    except (OSError, SyntaxError, KeyError, AttributeError, ValueError, RecursionError) as e:
        maker = key.replace("-", " ")
        raise DataError(f"{images.shown(path)} carries no settings of {maker}: give a picture that it wrote.") from e


def side_by_side(path: str | os.PathLike, pictures: Sequence[np.ndarray]) -> None:
    """Write pictures (h, w, 3) next to each other as one PNG, all at the height of the last."""
    height = pictures[-1].shape[0]

    def width(p):
        return min(max(1, round(p.shape[1] * height / p.shape[0])), 8 * height)  # a long strip gets no wider

    row = [to_uint8(resized(p, (height, width(p)))) for p in pictures]
    gap = np.full((height, max(2, height // 64), 3), 255, "uint8")
    joined = [part for p in row for part in (p, gap)][:-1]
    with write_atomically(path) as f:
        Image.fromarray(np.concatenate(joined, 1)).save(f, "PNG")


def loss_curve(path: str | os.PathLike, history: Sequence[dict]) -> None:
    """Plot the loss and its parts over evaluations, with a vertical line where the size changes, as a PNG."""
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


def failed_pictures(bad: Sequence, files: Sequence, results: list) -> DataError:
    """The DataError that says how many of the files could not be painted; its `results` are those of the others."""
    error = DataError(f"{len(bad)} of {len(files)} pictures could not be painted.")
    error.results = results
    return error


def picture_files(folder: str | os.PathLike) -> list[Path]:
    """The files of a folder that are pictures by their suffix or header, in the order of their numbers: 2 before 10.

    So one that can't be read is among them, and is named when its turn comes.

    Raises:
        DataError: there is none.
    """

    def numbers(p):
        return [int(t) if t.isdecimal() else t for t in re.split(r"(\d+)", p.name)]

    files = sorted((p for p in Path(folder).iterdir() if p.is_file() and not is_clutter(p.name)), key=numbers)
    found = [p for p in files if is_picture(p)]
    if not found:
        raise DataError(f"{images.shown(folder)} holds no JPEG, PNG, GIF, BMP or WebP image.")
    return found
