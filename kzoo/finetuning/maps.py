"""Class activation maps of the photos that a fine-tuned network gets wrong, for the report."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from kzoo.errors import KzooError
from kzoo.runs import CONFIG, Run, read_json


def maps_of_mistakes(
    folder: str | os.PathLike, images: Callable[[Any], Any], built: Callable[[], Any] | None = None
) -> Callable[[Sequence[tuple[Any, str]]], tuple[list[np.ndarray | None], str]] | None:
    """Make the function that draws where the network of a run sees a class.

    Args:
        folder: the run, with its final model.
        images: a function of an id that gives a path, encoded bytes or a uint8 array.
        built: gives the network that the run's file holds, as a keras.Model, where it is in memory; the file is read
            without.

    Returns:
        A function of pairs (id, class name). It gives a picture (H, W, 3) uint8 for each, or None where there is none,
        and a sentence about them. None where Keras is not loaded: a run whose features were all cached does not wait
        for it.
    """
    if "keras" not in sys.modules:
        return None

    @cache  # for all parts of the report: building it takes longer than all maps
    def found_network():
        from kzoo.visualizing.network import find_network

        if built is None:
            return find_network(Path(folder))
        run = Run(Path(folder), read_json(Path(folder) / CONFIG), None)
        network = find_network(built(), classes=run.classes)
        return replace(network, name=run.path.name, preprocessing=run.preprocessing, task=run.task)

    def draw(pairs):
        from kzoo.visualizing.cam import class_map
        from kzoo.visualizing.drawing import overlay, scale_of

        try:
            network = found_network()
            pictures, good = [], []
            for i, (id, _) in enumerate(pairs):
                try:
                    pictures.append(network.prepare(_plain(images(id))))
                    good.append(i)
                except (KzooError, OSError, KeyError):
                    continue
            found: list[np.ndarray | None] = [None] * len(pairs)
            if not good:
                return found, ""
            maps, method = class_map(network, np.stack(pictures), [pairs[i][1] for i in good])
            for i, picture, values in zip(good, pictures, maps.maps, strict=True):
                found[i] = overlay(picture, values, scale_of(values))
        except KzooError as e:  # a report must not fail for a picture
            return [None] * len(pairs), f"There are no class activation maps: {e}"
        size = "x".join(map(str, maps.maps.shape[1:]))
        return found, (
            f"On the right: what spoke for the predicted class, in red, and what against it, in blue ({method} on "
            f"{maps.layer}, {size}, each on a scale of its own)."
        )

    return draw


def _plain(image):
    """An image as `Network.prepare` takes it: an array as the bytes of an .npy file, which are resized like a photo."""
    from kzoo.data.guards import npy

    return npy(image) if isinstance(image, np.ndarray) else image
