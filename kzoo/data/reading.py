"""Read images while training: in threads, a batch at a time, from wherever they are, and nothing else in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from kzoo.data import images
from kzoo.data.crops import make_cropper
from kzoo.data.dataset import Split
from kzoo.data.masks import MaskFile
from kzoo.errors import DataError
from kzoo.hardware import cores

if TYPE_CHECKING:
    from kzoo.catalog import Preprocessing


class Reader:
    """Decodes the images of a batch in threads. Which pixels come depends on image, seed and epoch only.

    Args:
        split: Files, encoded bytes, or arrays that are cropped at random.
        shape: (height, width, channels) of the model's input.
        preprocessing: Crop and interpolation.
        crop: Of `kzoo.data.crops.draw_region`, for training; None takes the middle, as in prediction.
        left_out: Gets {id: reason} of what can't be decoded, which its batch then lacks. None raises in that case.

    Raises:
        DataError: The model takes no images.
    """

    def __init__(
        self,
        split: Split,
        shape: tuple[int, int, int],
        preprocessing: Preprocessing,
        crop: Sequence | None = None,
        left_out: dict[str, str] | None = None,
    ):
        images.check_shape(shape)
        self.split, self.shape, self.left_out, self.random = split, shape, left_out, crop is not None
        self.one: Callable = (
            images.make_preparer(shape, preprocessing) if crop is None else make_cropper(shape, preprocessing, crop)
        )
        self.pool = ThreadPoolExecutor(cores())

    def __call__(self, indices: np.ndarray, seed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Read images.

        Args:
            indices: int (B,), positions in the split.
            seed: int (2,), seed and epoch.

        Returns:
            (uint8 (K, height, width, channels), which of the B they are, bool (B,)).

        Raises:
            DataError: One can't be decoded, and there is no `left_out`; or all of a batch can't be.
        """
        found = list(self.pool.map(lambda i: self._attempt(i, seed), indices))
        kept = np.array([isinstance(image, np.ndarray) for image in found])
        for i, reason in zip(indices[~kept], (r for r in found if isinstance(r, str)), strict=True):
            if self.left_out is None:
                raise DataError(f"{self.split.ids[i]} {reason}")
            self.left_out[self.split.ids[i]] = reason
        if not kept.any():
            raise DataError("none of the images of a batch can be read")
        return np.stack([image for image in found if isinstance(image, np.ndarray)]), kept

    def _attempt(self, i, seed):
        """The image, or why there is none."""
        try:
            image = self.split.images[i]
            if isinstance(image, str):
                image = images.read(image)
            if self.split.masks and isinstance(self.split.labels[i], MaskFile):
                self.split.labels[i].read()
            if not self.random:
                return self.one(image)
            return self.one(image, np.random.default_rng([*(int(n) for n in seed), int(i)]))
        except (DataError, OSError) as e:
            return str(e)
