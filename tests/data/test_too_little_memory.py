"""Memory that does not suffice is no fault of the file that is read: no picture is left out, no checkpoint corrupt."""

import base64
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageFile, TiffImagePlugin

from kzoo.catalog import Preprocessing
from kzoo.data import crops, images
from kzoo.data.guards import npy
from kzoo.data.masks import values_of
from kzoo.data.scan import inspect_image
from kzoo.data.sources.arrays import load_arrays
from kzoo.data.tiff import as_readable
from kzoo.errors import DataError, KzooError
from kzoo.evaluating.tiles import Tiling, tiled
from kzoo.runs import load_checkpoint, save_checkpoint
from kzoo.synthesis.pictures import read_picture
from kzoo.tasks import find

SHAPE = (32, 32, 3)


def encoded(format="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((40, 40), "uint8")).save(buffer, format, **options)
    return buffer.getvalue()


def of_tensorflow(*args, **kwargs):
    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[4096,4096]")


def of_python(*args, **kwargs):
    raise MemoryError


def prepared(tmp_path):
    return images.make_preparer(SHAPE, Preprocessing(crop=0.9))(encoded())


def cropped(tmp_path):
    return crops.make_cropper(SHAPE, Preprocessing(), ("area", 0.5, 1))(encoded("JPEG"), np.random.default_rng(0))


def painted(tmp_path):
    (tmp_path / "p.png").write_bytes(encoded())
    return read_picture(tmp_path / "p.png")


def in_tiles(tmp_path):
    class Model:
        preprocessing = Preprocessing()

        def tiling(self):
            return Tiling(SHAPE, (0, 0), (8, 8), 1, True)

    return tiled(Model(), encoded(), 1, 1)


def overlay(tmp_path):
    mask = base64.b64encode(encoded()).decode()
    return find("segmentation").drawn({"mask": mask}, encoded())


def npz(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    return load_arrays(tmp_path / "a.npz")


def checkpoint(tmp_path):
    save_checkpoint(tmp_path / "c", {"x": np.zeros(3)}, {})
    return load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize(
    ("door", "place", "name", "error"),
    [
        (prepared, images, "_graph", lambda *a: of_tensorflow),
        (cropped, crops, "_graphs", lambda *a: (of_tensorflow, of_tensorflow)),
        (painted, images, "decode", of_tensorflow),
        (in_tiles, images, "decode", of_tensorflow),
        (overlay, images, "decode", of_tensorflow),
        (lambda _: inspect_image((encoded(), "a.png")), ImageFile.ImageFile, "load", of_python),
        (lambda _: values_of(encoded()), ImageFile.ImageFile, "load", of_python),
        (lambda _: as_readable(encoded("TIFF", compression="tiff_lzw")), TiffImagePlugin, "TiffImageFile", of_python),
        (npz, np.lib.format, "read_array", of_python),
        (checkpoint, np.lib.format, "read_array", of_python),
    ],
    ids=["prepared", "cropped", "painted", "in_tiles", "overlay", "scanned", "mask", "tiff", "npz", "checkpoint"],
)
def test_it_is_no_fault_of_the_file(door, place, name, error, monkeypatch, tmp_path):
    door(tmp_path) if door is not in_tiles else None  # which would need a network
    monkeypatch.setattr(place, name, error)
    with pytest.raises((KzooError, MemoryError)) as found:
        door(tmp_path)
    assert type(found.value) in (KzooError, MemoryError)  # no DataError, no RunError


def test_a_picture_of_other_channels_has_no_overlay():
    mask = base64.b64encode(encoded()).decode()
    assert list(find("segmentation").drawn({"mask": mask}, npy(np.zeros((40, 40, 5), "uint8")))) == [""]
    with pytest.raises(DataError, match="channels"):
        images.decode(tf.constant(npy(np.zeros((40, 40, 5), "uint8"))), 3)
